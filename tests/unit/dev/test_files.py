"""The files of an app: which changes are noticed."""

import os
from pathlib import Path

from virtualchain.dev.files import Watched, is_own


def test_changes_are_noticed(tmp_path: Path) -> None:
    """Content, size, removal and a new file beside it count; files of other kinds and kept ones do not."""
    app, kept = tmp_path / "app.py", tmp_path / ".virtualchain" / "dev"
    kept.mkdir(parents=True)
    app.write_text("a = 1\n")
    watched = Watched(tmp_path, kept, None)
    watched.begin()
    assert not watched.have_changed()
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / ".app.py.swp").write_text("no")
    (kept / "chain").write_text("no")
    watched.note([str(kept / "chain")])
    assert not watched.have_changed()
    for change in (
        lambda: app.write_text("a = 2\n"),
        lambda: (tmp_path / "helpers.py").write_text(""),
        lambda: (tmp_path / "app.sql").write_text(""),
        app.unlink,
    ):
        change()
        assert watched.have_changed()
        watched.begin()
        assert not watched.have_changed()


def test_what_is_read_elsewhere_is_watched_too(tmp_path: Path) -> None:
    """A file that was read counts wherever it is; one that was written during the load counts as changed."""
    folder, other = tmp_path / "project", tmp_path / "other" / "rules.txt"
    folder.mkdir()
    other.parent.mkdir()
    other.write_text("1")
    os.utime(other, ns=(1, 1))
    watched = Watched(folder, folder / "kept", None)
    watched.begin()
    watched.note([str(other)])
    assert not watched.have_changed()
    other.write_text("2")
    assert watched.have_changed()

    late = other.with_name("late.txt")
    watched.begin()
    late.write_text("1")
    watched.note([str(late)])
    assert watched.have_changed()


def test_a_change_is_complete_once_it_is_still(tmp_path: Path) -> None:
    """While a file goes on changing, nothing is loaded."""
    app = tmp_path / "app.py"
    app.write_text("")
    watched = Watched(tmp_path, tmp_path / "kept", None)
    watched.begin()
    assert not watched.have_settled()
    app.write_text("a")
    assert not watched.have_settled()
    app.write_text("ab")
    assert not watched.have_settled()
    assert watched.have_settled()


def test_an_edit_in_the_same_second_is_another_module(tmp_path: Path) -> None:
    """What Python has compiled is forgotten: it looks at a file's size and the second of its change alone."""
    app = tmp_path / "app.py"
    app.write_text("a = 1\n")
    compiled = tmp_path / "__pycache__"
    compiled.mkdir()
    from importlib.util import cache_from_source

    Path(cache_from_source(app)).write_bytes(b"")
    Watched(tmp_path, tmp_path / "kept", None).begin()
    assert list(compiled.iterdir()) == []


def test_whose_files_they_are() -> None:
    """Python's own files, installed packages and virtualchain are not the app's; the examples are."""
    import json

    import psycopg

    import virtualchain
    from virtualchain.examples import notary

    for module in (json, psycopg, virtualchain):
        assert not is_own(str(module.__file__))
    assert is_own(str(notary.__file__))
    assert not is_own("relative.py")
