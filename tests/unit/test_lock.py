"""The locked versions of the checks: complete, and the same wherever they are installed."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / ".ci" / "requirements.txt"
EXTRAS = ("embedded", "test")
"""What .ci/run installs."""
RENEW = "run `bash .ci/lock`, and commit .ci/requirements.txt"


def pins(python: str) -> Iterator[tuple[str, str]]:
    """Read name and version of the packages that a Python on Linux gets."""
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for line in re.findall(r"^([a-z].*?)(?: \\)?$", LOCK.read_text(), re.MULTILINE):
        pin = Requirement(line)
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        if pin.marker is None or pin.marker.evaluate(machine):
            yield canonicalize_name(pin.name), specifier.version


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_requirement_has_one_version(python: str) -> None:
    """What pyproject.toml asks for is locked, for each Python, in a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(item for name in EXTRAS for item in project["optional-dependencies"][name]),
    ]
    locked = list(pins(python))
    versions = dict(locked)
    assert len(locked) == len(versions) > len(asked)
    for requirement in map(Requirement, asked):
        version = versions.get(canonicalize_name(requirement.name))
        fits = version is not None and version in requirement.specifier
        assert fits, f"{requirement} is locked as {version}: {RENEW}"


def test_each_version_has_hashes_and_no_address() -> None:
    """Each package lists the SHA-256 of its files, and nothing says where they are."""
    blocks = re.split(r"^(?=[a-z])", LOCK.read_text(), flags=re.MULTILINE)[1:]
    assert all(
        re.fullmatch(r"[^\n]+ \\\n(    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", block) for block in blocks
    )
    assert "://" not in LOCK.read_text()
