"""Fuzz every target for some minutes: `python -m tests.fuzz [--minutes M] [--target NAME]`.

With atheris (`pip install atheris`; wheels for Linux and macOS, not part of the extra `test`), fuzzing is
guided by coverage, and each target runs in its own process. A failing input is written to `--failures`
(default: the folder for temporary files); `--input FILE` runs it again. Without atheris, Hypothesis changes
the seeds at random for the same time.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DEFAULT_MINUTES = 1.0
NAMES = ("scan", "block_files", "scripts", "merkle_paths", "proofs", "row_proofs", "fields")
"""The targets in `tests.fuzz.targets`, which is imported late."""


def main() -> int:
    """Read the arguments and fuzz; the exit code is 1 if a target failed."""
    arguments = _read_arguments()
    if arguments.input is not None:
        _targets()[arguments.target].run(arguments.input.read_bytes())
        return 0
    if arguments.guided:
        _fuzz_guided(arguments.target, arguments.minutes, arguments.failures)
        return 0
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        _say("no atheris: seeds are changed at random; `pip install atheris` guides fuzzing by coverage")
    failed = []
    for name in [arguments.target] if arguments.target else NAMES:
        _say(f"== {name}")
        if guided:
            options = ["--target", name, "--minutes", str(arguments.minutes)]
            command = [sys.executable, "-m", "tests.fuzz", "--guided", *options]
            result = subprocess.run([*command, "--failures", str(arguments.failures)], check=False)
            if result.returncode:
                failed.append(name)
        else:
            _fuzz_at_random(name, arguments.minutes)
    _say(f"failed: {', '.join(failed)}" if failed else "nothing failed")
    return 1 if failed else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="minutes for each target")
    parser.add_argument("--target", choices=NAMES, help="one target instead of all")
    parser.add_argument(
        "--failures", type=Path, default=Path(tempfile.gettempdir()), help="folder for failing inputs"
    )
    parser.add_argument("--input", type=Path, help="run the target once on this file")
    parser.add_argument("--guided", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.input is not None and arguments.target is None:
        parser.error("--input needs --target")
    return arguments


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _targets() -> dict[str, Any]:
    """Import the targets late: atheris must be imported before the code that it instruments."""
    from tests.fuzz.targets import TARGETS

    return dict(TARGETS)


def _fuzz_guided(name: str, minutes: float, failures: Path) -> None:
    """Fuzz one target with atheris, which ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["virtualchain"]):
        target = _targets()[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={max(1, round(minutes * 60))}",
            "-max_len=4096",
            "-timeout=10",
            f"-artifact_prefix={failures}/{name}-",
            "-verbosity=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, folder], target.run)
        atheris.Fuzz()


def _fuzz_at_random(name: str, minutes: float) -> None:
    """Change a target's seeds at random until the time is up; raises what the target raises."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    target = _targets()[name]
    seeds = st.sampled_from(list(target.seeds))
    spliced = st.builds(
        lambda seed, at, size, middle: (
            seed[: at % (len(seed) + 1)] + middle + seed[at % (len(seed) + 1) + size :]
        ),
        seeds,
        st.integers(0, 2**16),
        st.integers(0, 8),
        st.binary(max_size=16),
    )

    @settings(max_examples=2_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=2_000) | spliced)
    def batch(data: bytes) -> None:
        target.run(data)

    deadline = time.monotonic() + minutes * 60
    while time.monotonic() < deadline:
        batch()


if __name__ == "__main__":
    sys.exit(main())
