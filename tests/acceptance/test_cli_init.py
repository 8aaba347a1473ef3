"""`virtualchain init`: which names can be, what it prints, and that it writes all of a project or nothing."""

import errno
import json
import string
from pathlib import Path

import pytest

from tests.acceptance.conftest import Inside, check_one_line
from virtualchain.loading import load_app
from virtualchain.scaffold import project as scaffold
from virtualchain.scaffold.naming import magic_of

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "virtualchain" / "scaffold" / "templates"


@pytest.fixture
def work(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create an empty folder to work in."""
    folder = inside.folder / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "letters a to z"),
        ("my-app", "try my_app"),
        ("Points", "try points"),
        ("2nd", "letters a to z"),
        ("_hidden", "try hidden"),
        ("points\n", "try points"),
        ("pünkte", "letters a to z"),
        ("p\N{CYRILLIC SMALL LETTER O}ints", "letters a to z"),
        ("../up", "try up"),
        ("class", "Python's own"),
        ("token", "token_app"),
        ("select", "select_app"),
        ("virtualchain", "none of"),
        ("vc", "none of"),
        ("public", "none of"),
        ("pg_points", "none of"),
        ("two__lines", "no two in a row"),
        ("a" * 41, "1 to 40 characters"),
        ("tests", "tools"),
        ("pages", "tools"),
        ("psycopg", "psycopg_app"),
        ("omni", "Omni Layer"),
    ],
)
def test_a_name_that_cannot_be_is_refused(inside: Inside, work: Path, name: str, complaint: str) -> None:
    """One line says why, and what to choose; nothing is left behind."""
    check_one_line(inside("init", "--", name, code=2), complaint)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    "magic", ["", "a", "a" * 17, "a b", "ä!", 'a"b', "a\\b", "a'", "om", "id", "nt", "X2"]
)
def test_a_magic_that_cannot_be_is_refused(inside: Inside, work: Path, magic: str) -> None:
    """It is bytes that can be read in code, long enough, and not how the inputs of others begin."""
    check_one_line(inside("init", "points", "--magic", magic, code=2), "magic")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "magic"), [("points", "poin"), ("a", "a!"), ("my_app", "myap"), ("abc", "abc")]
)
def test_a_magic_follows_from_the_name(name: str, magic: str) -> None:
    """It is the first letters of the name, and at least two bytes."""
    assert magic_of(name) == magic


def test_a_working_directory_that_was_removed(inside: Inside, work: Path) -> None:
    """One line says so, and no command takes it for a bug."""
    work.rmdir()
    check_one_line(inside("init", "points", code=2), "working directory was removed")
    check_one_line(inside("dev", code=2), "working directory was removed")


def test_runes_have_no_magic(inside: Inside, work: Path) -> None:
    """Their payloads are found in another way, and --magic would promise what is not so."""
    check_one_line(inside("init", "mine", "--from", "runes", "--magic", "mi", code=2), "payloads of runes")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "empty folder", "file", "dangling link"])
@pytest.mark.parametrize("option", [(), ("--into", "points")])
def test_nothing_is_overwritten(inside: Inside, work: Path, what: str, option: tuple[str, ...]) -> None:
    """Whatever is at the project's place stays as it is."""
    place = work / "points"
    match what:
        case "folder":
            place.mkdir()
            (place / "points.py").write_text("mine")
        case "empty folder":
            place.mkdir()
        case "file":
            place.write_text("mine")
        case _:
            place.symlink_to("nowhere")
    before = sorted((str(path), path.is_file() and path.read_text()) for path in work.rglob("*"))
    check_one_line(inside("init", "points", *option, code=2), "already")
    assert sorted((str(path), path.is_file() and path.read_text()) for path in work.rglob("*")) == before


@pytest.mark.parametrize("into", ["no/such/folder", "a_file/points"])
def test_a_place_that_cannot_be_is_named(inside: Inside, work: Path, into: str) -> None:
    """The folder above the project must exist."""
    (work / "a_file").touch()
    check_one_line(inside("init", "points", "--into", into, code=2), "there is no folder")


@pytest.mark.parametrize("into", ["n" * 300, "/proc/points"])
def test_a_place_where_nothing_can_be_written_is_named(inside: Inside, work: Path, into: str) -> None:
    """A name that is too long, and a file system that takes no folders: one line says so."""
    check_one_line(inside("init", "points", "--into", into, code=2), "with --into")
    assert list(work.iterdir()) == []


def test_a_home_is_found_and_an_unknown_one_is_no_bug(inside: Inside, work: Path) -> None:
    """A tilde is expanded if the shell has not done so."""
    inside("init", "points", "--into", "~/made")
    assert (inside.folder / "made" / "points.py").is_file()
    check_one_line(inside("init", "points", "--into", "~nobody_at_all/made", code=2), "there is no folder")


def test_wrong_settings_are_reported_before_anything_is_written(inside: Inside, work: Path) -> None:
    """A mistake in a virtualchain.toml nearby leaves no project."""
    (work / "virtualchain.toml").write_text("[virtualchain]\nnetwerk = 1\n")
    check_one_line(inside("init", "points", code=2), "netwerk")
    assert [path.name for path in work.iterdir()] == ["virtualchain.toml"]


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left on device"), 3)]
)
@pytest.mark.parametrize("step", ["mkdir", "write_text", "rename"])
def test_an_interruption_leaves_nothing(
    inside: Inside, work: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int, step: str
) -> None:
    """Ctrl-C or a full disk, in the middle or at the end: afterwards the folder is as before."""
    calls = iter(range(100))
    real = getattr(Path, step)

    def failing(*arguments: object, **named: object) -> object:
        if next(calls) >= (0 if step == "rename" else 3):
            raise failure
        return real(*arguments, **named)

    monkeypatch.setattr(Path, step, failing)
    inside("init", "points", code=code)
    monkeypatch.undo()
    assert list(work.iterdir()) == []


def test_it_says_what_it_made_and_what_to_do_next(inside: Inside, work: Path) -> None:
    """The files, the magic and how to change it, and three commands."""
    shown = inside("init", "points", "--into", "my points").out
    files = {str(path.relative_to(work / "my points")) for path in work.rglob("*") if path.is_file()}
    assert files == set(scaffold.STARTS["app"].files_of("points"))
    assert all(f"  {file}\n" in shown for file in files)
    assert "the magic poin (the first letters of its name)" in shown
    assert shown.endswith("Next:\n  cd 'my points'\n  pytest\n  virtualchain dev\n")


def test_it_prints_json(inside: Inside, work: Path) -> None:
    """What programs need of the same."""
    printed = json.loads(inside("init", "deeds", "--from", "notary", "--magic", "dd", "--json").out)
    assert printed["name"] == "deeds"
    assert printed["magic"] == "dd"
    assert printed["folder"] == str(work / "deeds")
    assert printed["next"] == ["cd deeds", "pytest", "virtualchain dev"]
    assert "deeds.py" in printed["files"]
    assert b'magic=b"dd"' in (work / "deeds" / "deeds.py").read_bytes()


def test_the_folder_has_the_usual_rights(inside: Inside, work: Path) -> None:
    """It can be read by whom the user's other folders can be read by."""
    usual = work / "usual"
    usual.mkdir()
    inside("init", "points")
    assert (work / "points").stat().st_mode == usual.stat().st_mode


def test_every_template_is_used_and_has_known_placeholders() -> None:
    """A file that no start uses would ship for nothing; a placeholder that is unknown would fail a user."""
    used = {f"{name}.template" for start in scaffold.STARTS.values() for name in start.templates().values()}
    shipped = {str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*") if path.is_file()}
    assert shipped == used
    for name in sorted(shipped):
        placeholders = string.Template((TEMPLATES / name).read_text()).get_identifiers()
        assert set(placeholders) <= {"name", "magic", "summary", "versions", "packaged"}, name


@pytest.mark.parametrize(
    ("version", "versions"),
    [
        ("0.2.0", ">=0.2.0,<0.3"),
        ("0.9rc1", ">=0.9rc1,<0.10"),
        ("0.2.1.dev3+local", ">=0.2.1.dev3,<0.3"),
        ("1.4.2", ">=1.4.2,<2"),
        ("2", ">=2,<3"),
    ],
)
def test_a_project_needs_a_version_with_the_same_api(version: str, versions: str) -> None:
    """Before 1.0 a minor version may change it, afterwards a major one."""
    assert scaffold._versions(version) == versions


def test_what_is_replaced_in_an_example_is_there() -> None:
    """If an example is reworded, a copy of it must not keep the example's name or magic."""
    notary = (ROOT / "virtualchain" / "examples" / "notary.py").read_text()
    for old, _ in scaffold.STARTS["notary"].changes:
        assert notary.count(old) == 1, old


@pytest.mark.parametrize("start", list(scaffold.STARTS))
def test_the_longest_names_fit(tmp_path: Path, start: str) -> None:
    """With a name and a magic as long as can be, lines stay within their limit, and the app can be read."""
    name = f"{start}_" + "x" * (39 - len(start))
    scaffold.create(name, tmp_path / "made", "m" * 16, start)
    app = load_app(str(tmp_path / "made" / f"{name}.py"))
    assert getattr(app, "name", name) == name
    for file in (tmp_path / "made").rglob("*.py"):
        assert max(map(len, file.read_text().splitlines())) <= 110, file
