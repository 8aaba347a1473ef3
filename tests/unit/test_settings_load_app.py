"""How the name of an app is resolved to an implementation."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtualchain.errors import UsageError
from virtualchain.settings import load_app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a new folder, and unload the modules that were imported from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(use: str) -> str:
    """Load an app that cannot be loaded, and return the error message."""
    with pytest.raises(UsageError) as caught:
        load_app(use)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_object_of_a_module_in_the_working_directory(folder: Path) -> None:
    """Users may keep their app next to their settings."""
    (folder / "names_app.py").write_text("registry = {'a': 1}\napp = 'other'\n")
    assert load_app("names_app:registry") == {"a": 1}


def test_a_module_alone_means_its_app(folder: Path) -> None:
    """Without an object, the name `app` is used."""
    (folder / "names_app.py").write_text("app = 'the app'\n")
    assert load_app("names_app") == "the app"


def test_a_module_without_app_is_the_implementation_itself(folder: Path) -> None:
    """The published callbacks may be functions of a module."""
    (folder / "plain.py").write_text("def get_virtual_chain_name():\n    return 'plain'\n")
    assert load_app("plain") is sys.modules["plain"]


def test_a_module_in_a_package(folder: Path) -> None:
    """A dotted name refers to a module in a package."""
    (folder / "pack").mkdir()
    (folder / "pack" / "names.py").write_text("from pack import helper\napp = helper.APP\n")
    (folder / "pack" / "helper.py").write_text("APP = 5\n")
    assert load_app("pack.names") == 5
    assert load_app("pack.names:app") == 5


def test_the_working_directory_is_added_once(folder: Path) -> None:
    """Loading several apps adds it to the path only once."""
    (folder / "one.py").write_text("")
    (folder / "two.py").write_text("")
    load_app("one")
    load_app("two")
    assert sys.path.count(str(folder)) == 1
    assert sys.path[0] == str(folder)


@pytest.mark.parametrize(
    "use", ["", ":app", "module:", "module:a:b", "module:a.b", ".module", "apps/names.py", "a b"]
)
def test_a_name_of_another_shape_is_refused(use: str) -> None:
    """The message shows the expected form."""
    assert failure(use) == f"app {use!r}: write MODULE or MODULE:OBJECT, as in mypackage.names:app"


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        ("nowhere", "nowhere"),
        ("nowhere.deep:app", "nowhere"),
        ("pack.nowhere", "pack.nowhere"),
        ("one.py", "one.py"),
    ],
)
def test_a_missing_module_is_named(folder: Path, use: str, missing: str) -> None:
    """The message names the missing part; a file's extension is not part of a module's name."""
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "one.py").write_text("")
    expected = f"app {use!r}: there is no module {missing}: run this in its folder, or install it"
    assert failure(use) == expected


def test_a_missing_object_is_named(folder: Path) -> None:
    """The message names the object that the module does not have."""
    (folder / "names_app.py").write_text("app = 1\n")
    assert failure("names_app:ap") == "app 'names_app:ap': module names_app has no ap"
    assert failure("sys:app") == "app 'sys:app': module sys has no app"


def test_a_missing_import_inside_the_module_is_distinguished(folder: Path) -> None:
    """The message does not report the module itself as missing."""
    (folder / "names_app.py").write_text("\nimport no_such_library\n")
    assert failure("names_app") == (
        "app 'names_app': importing it fails: ModuleNotFoundError: No module named 'no_such_library'"
        f" ({folder / 'names_app.py'}, line 2)"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero ({file}, line 1)"),
        (
            "from sys import nothing",
            "ImportError: cannot import name 'nothing' from 'sys' (unknown location) ({file}, line 1)",
        ),
        ("raise SystemExit('bye')", "SystemExit: bye ({file}, line 1)"),
        ("raise ValueError('two\\nlines')", "ValueError: two ({file}, line 1)"),
        ("def broken(:\n    pass", "SyntaxError: invalid syntax (broken_app.py, line 1)"),
    ],
)
def test_any_failure_inside_the_module_is_one_line(folder: Path, source: str, message: str) -> None:
    """The line says what happened, and where in the user's code."""
    file = folder / "broken_app.py"
    file.write_text(source + "\n")
    assert failure("broken_app:app") == "app 'broken_app:app': importing it fails: " + message.format(
        file=file
    )


def test_the_original_error_is_chained(folder: Path) -> None:
    """The original error is available for a traceback."""
    (folder / "names_app.py").write_text("1 / 0\n")
    with pytest.raises(UsageError) as caught:
        load_app("names_app")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
