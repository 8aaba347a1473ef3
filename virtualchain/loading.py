"""Finding an app's implementation: MODULE, MODULE:OBJECT or a file, as settings and `--app` name it."""

import importlib
import os
import re
import sys
import traceback
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from virtualchain.errors import UsageError, quoted


def load_app(use: str) -> object:
    """Import the implementation that MODULE:OBJECT names; MODULE alone means its `app`, or else the module.

    MODULE may also be the path of a file or of a package's folder: with a slash, or ending with `.py`. What
    is in the working directory comes first, even if Python has a module of the same name, such as `token`.
    Raises UsageError if there is no such file, module or object, or if importing it fails.
    """
    module, (_, name) = _module(use), _split(use)
    if name and not hasattr(module, name):
        raise UsageError(f"app {quoted(use)}: {_described(module)} has no {name}{_others(module, use)}")
    return getattr(module, name or "app") if name or hasattr(module, "app") else _whole(module, use)


def app_file(use: str) -> str | None:
    """Return the file of the module in which `load_app` finds an app; None for a module without one."""
    file: str | None = getattr(_module(use), "__file__", None)
    return file


def with_full_path(use: str, folder: Path) -> str:
    """Make the path of an app's file absolute; a module's name stays as it is."""
    if not _is_path(use):
        return use
    target, name = _split(use)
    return f"{_absolute(target, folder)}{name and ':'}{name}"


def _module(use: str) -> ModuleType:
    target, _ = _split(use)
    return _import_file(_absolute(target, Path.cwd()), use) if _is_path(target) else _import(target, use)


def _split(use: str) -> tuple[str, str]:
    """Split MODULE:OBJECT; raise UsageError for anything else."""
    target, colon, name = use.partition(":") if not _is_path(use) else use.rpartition(":")
    if not colon or (_is_path(use) and not name.isidentifier()):
        target, colon, name = use, "", ""
    is_module = all(part.isidentifier() for part in target.split("."))
    if not (is_module or _is_path(target)) or (colon and not name.isidentifier()):
        raise UsageError(
            f"app {quoted(use)}: write MODULE or MODULE:OBJECT, as in mypackage.names:app, or a file: "
            "./names.py"
        )
    return target, name


def _is_path(target: str) -> bool:
    return "/" in target or target.partition(":")[0].endswith(".py")


def _absolute(target: str, folder: Path) -> Path:
    try:
        return Path(os.path.normpath(folder / Path(target).expanduser()))
    except RuntimeError as error:  # the home directory of an unknown user
        raise UsageError(f"app {quoted(target)}: {error}") from error


def _whole(module: ModuleType, use: str) -> ModuleType:
    """Return a module that is an implementation itself; raise UsageError if it holds one under a name."""
    others = _others(module, use)
    if others and not hasattr(module, "get_virtual_chain_name"):
        raise UsageError(f"app {quoted(use)}: {_described(module)} has no app{others}")
    return module


def _others(module: ModuleType, use: str) -> str:
    """Name the implementations in a module, as the end of a message."""
    names = [
        name
        for name, value in vars(module).items()
        if callable(getattr(value, "get_virtual_chain_name", None))
        and (not isinstance(value, type) or value.__module__ == module.__name__)
    ]
    return f"; it has {', '.join(names)}: write {_split(use)[0]}:{names[0]}" if names else ""


def _described(module: ModuleType) -> str:
    """Name a module with its file, because more than one may have the name."""
    file = getattr(module, "__file__", None)
    return f"module {module.__name__}" + ("" if file is None else f" ({file})")


def _import(module_name: str, use: str) -> ModuleType:
    here = Path.cwd()
    outermost, *_ = module_name.split(".")
    places = (here / f"{outermost}.py", here / outermost / "__init__.py")
    local = next((place for place in places if place.is_file()), None)
    if local is not None:
        return _import_named(local, module_name, use)
    _search_first(here)
    return _imported(module_name, use)


def _import_file(file: Path, use: str) -> ModuleType:
    """Import a module by its file; one in a package as part of that, so that it can import the others."""
    if file.is_dir():
        file /= "__init__.py"
    if not file.is_file():
        raise UsageError(f"app {quoted(use)}: there is no file {file}")
    names = [] if file.name == "__init__.py" else [file.stem]
    folder, outermost = file.parent, file
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder, outermost = folder.parent, folder / "__init__.py"
    return _import_named(outermost, ".".join(names), use)


def _import_named(outermost: Path, module_name: str, use: str) -> ModuleType:
    """Import a module whose outermost package or module is in this file.

    If that cannot have its own name, because Python or another package has it, it gets another one.
    """
    first, dot, rest = module_name.partition(".")
    is_package = outermost.name == "__init__.py"
    _search_first(Path.cwd())
    _search_first(outermost.parent.parent if is_package else outermost.parent)
    name = first
    while not name.isidentifier() or name in sys.stdlib_module_names or _is_taken(name, outermost):
        name = f"{re.sub('[^0-9A-Za-z_]', '_', name)}_app"
    if name != first and name not in sys.modules:
        places = [str(outermost.parent)] if is_package else None
        spec = spec_from_file_location(name, outermost, submodule_search_locations=places)
        assert spec is not None, "a .py file has a loader"
        _load(spec, use)
    return _imported(f"{name}{dot}{rest}", use)


def _is_taken(name: str, file: Path) -> bool:
    """Check whether a module of this name was imported from another file."""
    loaded = sys.modules.get(name)
    if loaded is None:
        return False
    return getattr(loaded, "__file__", None) is None or Path(str(loaded.__file__)).resolve() != file.resolve()


def _load(spec: ModuleSpec, use: str) -> None:
    """Run a module, and register it."""
    assert spec.loader is not None, "a .py file has a loader"
    module = sys.modules[spec.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the app's own code may raise anything
        del sys.modules[spec.name]
        raise _import_failed(use, error) from error


def _search_first(folder: Path) -> None:
    """Have modules of a folder found, before all others."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(module_name: str, use: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"app {quoted(use)}: there is no module {error.name}: run this in its folder, write its file "
                "(./names.py), or install it"
            ) from error
        raise _import_failed(use, error) from error
    except (Exception, SystemExit) as error:  # the app's own code may raise anything during the import
        raise _import_failed(use, error) from error


def _import_failed(use: str, error: BaseException) -> UsageError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    # Code that does not compile fails inside Python's own importer, and its message names the line.
    place = "" if last.filename.startswith("<frozen ") else f" ({last.filename}, line {last.lineno})"
    message = f"{type(error).__name__}: {error}".partition("\n")[0]
    return UsageError(f"app {quoted(use)}: importing it fails: {message}{place}")
