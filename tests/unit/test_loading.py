"""How the name of an app is resolved to an implementation."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from virtualchain.app.code import package
from virtualchain.errors import UsageError
from virtualchain.loading import app_file, load_app


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
    "use",
    ["", ":app", "module:", "module:a:b", "module:a.b", ".module", "a b"],
)
def test_a_name_of_another_shape_is_refused(use: str) -> None:
    """The message shows the expected form."""
    form = "write MODULE or MODULE:OBJECT, as in mypackage.names:app, or a file: ./names.py"
    assert failure(use) == f"app {use!r}: {form}"


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        ("nowhere", "nowhere"),
        ("nowhere.deep:app", "nowhere"),
        ("pack.nowhere", "pack.nowhere"),
    ],
)
def test_a_missing_module_is_named(folder: Path, use: str, missing: str) -> None:
    """The message names the missing part."""
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    expected = f"app {use!r}: there is no module {missing}: run this in its folder, "
    assert failure(use) == f"{expected}write its file (./names.py), or install it"


def test_a_missing_object_is_named(folder: Path) -> None:
    """The message names the object that the module does not have."""
    file = folder / "names_app.py"
    file.write_text("app = 1\n")
    assert failure("names_app:ap") == f"app 'names_app:ap': module names_app ({file}) has no ap"
    assert failure("sys:app") == "app 'sys:app': module sys has no app"


_APP = """
from virtualchain import App
first = App("first", magic=b"x1")
second = App("second", magic=b"x2")
"""


def test_the_apps_of_a_module_are_named(folder: Path) -> None:
    """If a module has no `app` but others, or the name is misspelled, the message has the names."""
    file = folder / "two_apps.py"
    file.write_text(_APP)
    described, others = f"module two_apps ({file})", "it has first, second: write two_apps:first"
    assert failure("two_apps") == f"app 'two_apps': {described} has no app; {others}"
    assert failure("two_apps:third") == f"app 'two_apps:third': {described} has no third; {others}"
    assert failure("./two_apps.py").endswith("it has first, second: write ./two_apps.py:first")
    assert load_app("two_apps:second") is sys.modules["two_apps"].second


@pytest.mark.parametrize("use", ["token", "./token.py", "token.py", "token:app", "{folder}/token.py:app"])
def test_a_file_with_the_name_of_a_standard_module(folder: Path, use: str) -> None:
    """An author's `token.py` is found, and Python's own module stays what it is."""
    import token as standard

    use = use.format(folder=folder)
    (folder / "token.py").write_text("class Rules: pass\napp = Rules\n")
    app = load_app(use)
    assert app.__name__ == "Rules"  # type: ignore[attr-defined]
    assert load_app(use) is app
    assert app_file(use) == str(folder / "token.py")
    assert sys.modules["token"] is standard
    assert package(app.__module__) not in sys.stdlib_module_names  # or no code of it would count


def test_the_file_that_was_found_is_known(folder: Path) -> None:
    """Of a module that is installed or built in, too."""
    (folder / "names_app.py").write_text("app = 1\n")
    assert app_file("names_app:app") == str(folder / "names_app.py")
    assert str(app_file("virtualchain.examples.notary")).endswith("virtualchain/examples/notary.py")
    assert app_file("sys:path") is None


def test_a_local_module_comes_before_an_imported_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another module of that name was imported from elsewhere, the working directory's one is loaded."""
    monkeypatch.setitem(sys.modules, "tokens", ModuleType("tokens"))
    (folder / "tokens.py").write_text("app = 'ours'\n")
    assert load_app("tokens") == "ours"
    assert not hasattr(sys.modules["tokens"], "app")


def test_a_file_elsewhere(folder: Path) -> None:
    """It finds the modules beside it; a name that is no identifier is allowed; a folder is a package."""
    (folder / "my apps").mkdir()
    (folder / "my apps" / "first-token.py").write_text("from helping import APP as app\n")
    (folder / "my apps" / "helping.py").write_text("APP = 7\n")
    assert load_app("my apps/first-token.py") == 7
    assert failure("./my apps/second.py") == (
        f"app './my apps/second.py': there is no file {folder / 'my apps' / 'second.py'}"
    )
    assert failure("one.py") == f"app 'one.py': there is no file {folder / 'one.py'}"


@pytest.mark.parametrize("name", ["pack", "json"])
def test_a_file_in_a_package(folder: Path, name: str) -> None:
    """It is imported as a part of its package, so that relative imports work; also if Python has the name."""
    inner = folder / name / "inner"
    inner.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("BASE = 40\n")
    (inner / "__init__.py").write_text("app = 'of the folder'\n")
    (inner / "rules.py").write_text("from .. import BASE\nfrom .helper import MORE\napp = BASE + MORE\n")
    (inner / "helper.py").write_text("MORE = 2\n")
    assert load_app(f"./{name}/inner/rules.py") == 42
    assert load_app(f"{name}.inner.rules") == 42
    assert load_app(f"./{name}/inner") == "of the folder"


def test_a_failure_inside_a_file_is_one_line(folder: Path) -> None:
    """As with a module; a second attempt fails in the same way."""
    (folder / "token.py").write_text("x = 1\n1 / 0\n")
    for _ in range(2):
        assert failure("./token.py") == (
            "app './token.py': importing it fails: ZeroDivisionError: division by zero "
            f"({folder / 'token.py'}, line 2)"
        )


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
