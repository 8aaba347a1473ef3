"""Build what is released, and try it: the source archive, a wheel for any machine, and compiled wheels.

    pip install -e '.[release]' && python .ci/build.py [--tests] [FOLDER]

writes into FOLDER (by default `dist`), and stops at the first of these that fails:

- each file is built twice, from two places, and must have the same bytes;
- `twine check --strict` must accept the metadata;
- the software bill of materials (SBOM) is written beside the files, in CycloneDX's JSON;
- each Python from 3.11 on that is found (on PATH, and of pyenv) gets both, each in a new environment; it
  builds the compiled one itself, from the source archive. There `virtualchain demo` must run, with the walks
  over blocks that the wheel is for, and with --tests the tests of the pure rooms, too.

Dependencies come from where pip is told to look for them; nothing else needs a network. SOURCE_DATE_EPOCH is
taken from the environment, or is the time of the last commit.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
OLDEST, NEWEST = 11, 14
"""The minor versions of Python 3 that are supported; CI has the same."""
TESTS = ("tests/unit/app", "tests/unit/bitcoin", "tests/unit/consensus")
IS_COMPILED = "from virtualchain.bitcoin import compiled; print(compiled.IS_COMPILED)"


def main() -> None:
    """Build, check and try everything."""
    parser = argparse.ArgumentParser(description="Build what is released, and try it.")
    parser.add_argument("folder", nargs="?", default="dist", type=Path, metavar="FOLDER")
    parser.add_argument("--tests", action="store_true", help="run tests with each wheel, too")
    arguments = parser.parse_args()
    if "SOURCE_DATE_EPOCH" not in os.environ:
        command = ("git", "-c", "safe.directory=*", "log", "-1", "--format=%ct")
        os.environ["SOURCE_DATE_EPOCH"] = run(*command, cwd=ROOT).strip()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        sdist, pure = build_pure(ROOT, work / "first")
        source = unpack(sdist, work / "unpacked")
        for first, again in zip((sdist, pure), build_pure(source, work / "second"), strict=True):
            compare(first, again)
        found = dict(pythons())
        report(f"interpreters: {', '.join(found)}; without: {', '.join(missing(found)) or 'none'}")
        wheels = [build_compiled(python, source, work / name) for name, python in found.items()]
        files = [sdist, pure, *wheels]
        run(sys.executable, "-m", "twine", "check", "--strict", *files)
        report("twine: fine")
        for (name, python), compiled in zip(found.items(), wheels, strict=True):
            for wheel in (pure, compiled):
                place = work / f"{name}-{'pure' if wheel is pure else 'compiled'}"
                try_out(python, wheel, place, source if arguments.tests else None)
        files.append(write_sbom(pure, work))
        for file in files:
            shutil.copy(file, folder)
            report(str(folder / file.name))


def pythons() -> Iterator[tuple[str, str]]:
    """Find the supported interpreters: name and path."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(OLDEST, NEWEST + 1):
        on_path = shutil.which(f"python3.{minor}")
        others = sorted(root.glob(f"versions/3.{minor}.*/bin/python"))
        for path in [*([on_path] if on_path else []), *map(str, others)]:
            if works(path):
                yield f"3.{minor}", path
                break


def works(python: str) -> bool:
    """Return whether an interpreter can make environments; a shim of pyenv's may stand for none."""
    command = [python, "-c", "import venv, ensurepip"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own


def missing(found: dict[str, str]) -> list[str]:
    """Name the supported versions that are not here."""
    return [f"3.{minor}" for minor in range(OLDEST, NEWEST + 1) if f"3.{minor}" not in found]


def build_pure(source: Path, folder: Path) -> tuple[Path, Path]:
    """Build the source archive and the wheel for any machine; returns their paths."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=source, VIRTUALCHAIN_COMPILED="0")
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def build_compiled(python: str, source: Path, folder: Path) -> Path:
    """Build an interpreter's wheel twice, in an environment with the tools that pyproject.toml names."""
    run(python, "-m", "venv", folder)
    tools = re.findall(r'"([^"]+)"', _line("requires = [", source / "pyproject.toml"))
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", *tools)
    wheels = []
    for name, place in (("first", source), ("second", shutil.copytree(source, folder / "elsewhere"))):
        command = ("-m", "hatchling", "build", "-t", "wheel", "-d", folder / name)
        run(folder / "bin" / "python", *command, cwd=place, VIRTUALCHAIN_COMPILED="1")
        wheels += (folder / name).glob("*.whl")
    compare(*wheels)
    return wheels[0]


def compare(first: Path, again: Path) -> None:
    """Check that a file has the same bytes whoever builds it."""
    if first.name != again.name or first.read_bytes() != again.read_bytes():
        raise SystemExit(
            f"build: {first.name} differs when it is built again: {', '.join(differing(first, again))}"
        )
    report(f"{first.name}: the same bytes in two builds")


def differing(first: Path, again: Path) -> list[str]:
    """Name what differs in two archives: members of wheels, or the whole file."""
    if first.suffix != ".whl":
        return [first.name]
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(again) as other:
        names = {*one.namelist(), *other.namelist()}
        pairs = {
            name: [archive.read(name) if name in archive.namelist() else b"" for archive in (one, other)]
            for name in names
        }
    return sorted(name for name, (here, there) in pairs.items() if here != there) or ["only times or modes"]


def try_out(python: str, wheel: Path, place: Path, source: Path | None) -> None:
    """Install a wheel into a new environment, run the demo and, from a source, some tests."""
    run(python, "-m", "venv", place)
    own = place / "bin" / "python"
    extras = "embedded" if source is None else "embedded,test"
    run(own, "-m", "pip", "install", "--quiet", f"{wheel}[{extras}]")
    is_compiled = run(own, "-c", IS_COMPILED, cwd=place).strip() == "True"
    if is_compiled == wheel.name.endswith("-none-any.whl"):
        raise SystemExit(f"build: {wheel.name} on {python}: compiled modules are in use: {is_compiled}")
    run(place / "bin" / "virtualchain", "demo", cwd=place)
    if source is not None:
        beside = place / "beside"  # with what the tests read, and without the package: the wheel's counts
        for name in ("docs", "tests"):
            shutil.copytree(source / name, beside / name)
        shutil.copy(source / "pyproject.toml", beside)
        run(own, "-m", "pytest", "-q", "-n", "2", *TESTS, cwd=beside)
    report(f"{wheel.name} on {python}: fine")


def write_sbom(wheel: Path, work: Path) -> Path:
    """Write what a wheel and its dependencies are, as they are installed together; returns the path."""
    place = work / "sbom"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    run(sys.executable, "-m", "pip", "--python", place, "install", "--quiet", wheel)
    file = wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json")
    describe(place, file)
    report(f"{file.name}: written")
    return file


def describe(environment: Path, file: Path) -> None:
    """Write the bill of materials of an environment; no network is needed."""
    command = ("environment", "--output-reproducible", "--mc-type", "library")
    project = ROOT / "pyproject.toml"
    run(sys.executable, "-m", "cyclonedx_py", *command, "--pyproject", project, "-o", file, environment)


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack a source archive; returns its folder."""
    shutil.unpack_archive(sdist, folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """Run a program; returns its output, and shows it if the program fails."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("VIRTUALCHAIN_", "PYTHON"))
    }
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=cwd,
        env=kept | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}\nbuild: {' '.join(map(str, command))} failed")
    return done.stdout


def report(text: str) -> None:
    """Say what was done."""
    sys.stdout.write(f"build: {text}\n")
    sys.stdout.flush()


def _line(start: str, file: Path) -> str:
    return next(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith(start))


if __name__ == "__main__":
    main()
