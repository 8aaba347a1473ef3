"""The wheel: the files in it, and that it works without a checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

import pytest

from virtualchain.store.revision import head

ROOT = Path(__file__).parents[2]
BUILD = (sys.executable, "-m", "hatchling", "build")
STRAY = "files that git does not track would ship: add, ignore or remove them"
LOOK = """
from pathlib import Path
import virtualchain
from virtualchain.store.sql import migrations_root, queries, sql_root

home = Path(virtualchain.__file__).parent
assert home.parent.name == "site-packages", home
assert sql_root() == home / "sql"
assert migrations_root() == home / "migrations"
assert "add_rows" in queries("block_transaction")

from virtualchain.bitcoin import compiled, interpreted, walk

assert list(home.glob("bitcoin/_walk.*"))
assert compiled.IS_COMPILED
assert not walk.IS_COMPILED
assert walk.walk_block is not compiled.walk_block
"""
PROJECT_TEST = """
def test_fixtures_are_there(fake_node):
    before = fake_node.height
    fake_node.mine(n=2)
    assert fake_node.height == before + 2
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist from the checkout, including untracked files that the rules let in."""
    folder = tmp_path_factory.mktemp("built")
    _run(*BUILD, "-d", folder, cwd=ROOT, VIRTUALCHAIN_COMPILED="0")
    return folder


@pytest.fixture(scope="module")
def compiled_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel with the compiled walks, which are slow; skip if there is no C compiler, except in CI."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "cc")
    if shutil.which(compiler) is None and os.environ.get("CI") != "true":
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("compiled")
    hasty = tmp_path_factory.mktemp("compiler") / "cc"
    hasty.write_text(f'#!/bin/sh\nexec {compiler} "$@" -O0\n')  # the last option of its kind counts
    hasty.chmod(0o755)
    _run(*BUILD, "-t", "wheel", "-d", folder, cwd=ROOT, VIRTUALCHAIN_COMPILED="1", CC=str(hasty))
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the path of the wheel."""
    (file,) = built.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(compiled_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the compiled wheel into a new environment; return that environment's folder of programs.

    Dependencies come from the environment that runs the tests, so no network is needed.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # They come after the new environment's packages. The checkout, which a .pth file may name, is left out.
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    _run(folder / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", compiled_wheel, cwd=folder)
    return folder / "bin"


def test_wheel_holds_what_is_tracked_and_nothing_else(wheel: Path) -> None:
    """The package, sql and migrations ship completely; tests, caches and untracked files do not."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.startswith("virtualchain-")}
    expected = {_place_in_wheel(name) for name in _tracked("virtualchain", "sql", "migrations")}
    assert shipped == expected, STRAY
    for name in ("py.typed", "sql/queries/tape.sql", "sql/schema/10_tables.sql", "migrations/script.py.mako"):
        assert f"virtualchain/{name}" in shipped
    revisions = {name for name in shipped if name.startswith("virtualchain/migrations/versions/")}
    assert {Path(name).suffix for name in revisions} == {".py", ".sql"}


def test_a_compiled_wheel_holds_five_modules_more(wheel: Path, compiled_wheel: Path) -> None:
    """It is named for this Python and machine; the one without the modules is for any."""
    with zipfile.ZipFile(wheel) as plain, zipfile.ZipFile(compiled_wheel) as compiled:
        more = {name.partition(".")[0] for name in set(compiled.namelist()) - set(plain.namelist())}
    modules = ("_addresses", "_hashes", "_rows", "_shown", "_walk")
    assert more == {f"virtualchain/bitcoin/{name}" for name in modules}
    assert wheel.name.endswith("-py3-none-any.whl")
    assert f"-cp{sys.version_info.major}{sys.version_info.minor}-" in compiled_wheel.name


def test_a_build_without_a_compiler_is_only_slower(tmp_path: Path) -> None:
    """The wheel is built with a warning and without the modules, unless they are asked for."""
    broken = {"CC": "/no/such/compiler", "LDSHARED": "/no/such/compiler"}
    shown = _run(*BUILD, "-t", "wheel", "-d", tmp_path, cwd=ROOT, **broken)
    (file,) = tmp_path.glob("*.whl")
    assert file.name.endswith("-py3-none-any.whl")
    assert "without compiled code" in shown
    with pytest.raises(AssertionError, match="/no/such/compiler"):
        _run(*BUILD, "-t", "wheel", "-d", tmp_path, cwd=ROOT, VIRTUALCHAIN_COMPILED="1", **broken)


def test_wheel_describes_itself(wheel: Path) -> None:
    """The metadata has the license, the README, the command and the entry point of the fixtures."""
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {
            name.partition("/")[0] for name in archive.namelist() if name.startswith("virtualchain-")
        }
        metadata = HeaderParser().parsestr(archive.read(f"{folder}/METADATA").decode())
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "# virtualchain" in metadata.get_payload()
    assert "virtualchain = virtualchain.cli:main" in entry_points
    assert "virtualchain = virtualchain.testing.plugin" in entry_points


def test_sdist_holds_what_is_tracked_and_makes_the_same_wheel(
    built: Path, wheel: Path, tmp_path: Path
) -> None:
    """A wheel built from the source archive, as distributions do, has the same files."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        # Set as an attribute, because the argument `filter` needs Python 3.11.4.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(tmp_path)
    (unpacked,) = tmp_path.iterdir()
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert files - {"PKG-INFO"} <= set(_tracked()), STRAY
    assert {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "tests/acceptance/test_wheel.py",
    } <= files
    _run(*BUILD, "-t", "wheel", "-d", tmp_path / "again", cwd=unpacked, VIRTUALCHAIN_COMPILED="0")
    (again,) = (tmp_path / "again").iterdir()
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(again) as theirs:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())


def test_installed_package_finds_its_sql(installed: Path, tmp_path: Path) -> None:
    """Without a checkout, the package finds its SQL and migrations, and its compiled walks."""
    _run(installed / "python", "-c", LOOK, cwd=tmp_path)


def test_installed_command_migrates(installed: Path, tmp_path: Path, empty_database_url: str) -> None:
    """The command prints its version and creates the schema in an empty database; it can be repeated."""
    virtualchain = installed / "virtualchain"
    assert _run(virtualchain, "--version", cwd=tmp_path) == f"virtualchain {version('virtualchain')}\n"
    for _ in range(2):
        assert head() in _run(virtualchain, "--database", empty_database_url, "migrate", cwd=tmp_path)


def test_installed_fixtures_reach_other_projects(installed: Path, tmp_path: Path) -> None:
    """With virtualchain installed, another project's tests get the fixtures, without a warning."""
    (tmp_path / "test_project.py").write_text(PROJECT_TEST)
    command = ("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "test_project.py")
    assert "1 passed" in _run(installed / "python", *command, cwd=tmp_path)


def _tracked(*folders: str) -> list[str]:
    """List the files that git tracks; skip the test if there is no repository, as in an unpacked archive."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("only a git checkout tells which files are meant to ship")
    # The checkout may belong to another user than the one who runs the tests.
    return _run("git", "-c", "safe.directory=*", "ls-files", "-z", *folders, cwd=ROOT).split("\0")[:-1]


def _place_in_wheel(name: str) -> str:
    return name if name.startswith("virtualchain/") else f"virtualchain/{name}"


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program without the settings and the import path of the tests; return its output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VIRTUALCHAIN_", "PYTHON", "PYTEST_", "PIP_"))
    }
    done = subprocess.run(command, cwd=cwd, env=kept | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + (done.stderr if variables else "")
