"""The settings of a run: flags, then `VIRTUALCHAIN_…` variables, then `virtualchain.toml`, then defaults.

Every layer is checked completely, even where a higher one wins, so a mistake shows at once and not when the
flag that hides it is left out. Values of `bitcoin` and `database` may contain passwords: no message and no
repr shows them.
"""

import importlib
import os
import re
import shlex
import stat
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

from virtualchain.errors import UsageError, quoted
from virtualchain.model import Verification

HISTORY = 1000
"""By how many blocks apps can be rolled back, by default."""

Policy = Literal["rollback", "checkpoint", "halt"]
_Kind = Literal["text", "path", "number", "switch", "check", "history", "keys"]

_KINDS: Mapping[str, _Kind] = {
    "bitcoin": "text",
    "blocks": "path",
    "cacert": "path",
    "confirmations": "number",
    "cookie": "path",
    "database": "text",
    "history": "history",
    "json": "switch",
    "network": "text",
    "trust": "keys",
    "verbose": "switch",
    "verify": "check",
}
_SOURCES: Sequence[str] = ("bitcoin", "blocks")
"""Where blocks come from: exactly one of them; if several layers name one, the highest layer wins."""
_ALLOWED: Mapping[str, str] = {
    "text": "non-empty text",
    "number": "a whole number, 0 or more",
    "switch": "true or false",
    "check": " or ".join(get_args(Verification)),
    "history": "a whole number of blocks, 0 or more, or all",
    "keys": "public keys: 64 hex digits each, or files with one",
}
_SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_HEX_KEY = re.compile("[0-9a-fA-F]{64}")
_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#]+@|\bpassword\s*=")
"""A password in a URL, in its query, or in libpq's `key=value` form."""
_NUMBER = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class AppSetting:
    """One app to run, and what happens to it at a deep fork."""

    use: str
    """MODULE or MODULE:OBJECT, as `load_app` takes it; or the full path of a file in place of MODULE."""
    on_deep_fork: Policy = "rollback"


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options; None means not set, so the caller's default applies."""

    apps: tuple[AppSetting, ...] = ()
    bitcoin: str | None = field(default=None, repr=False)
    """URL of the node."""
    cookie: Path | None = None
    cacert: Path | None = None
    """Certificates to trust for a node over https, PEM; None: the system's."""
    blocks: Path | None = None
    """Block files, used in place of a node."""
    database: str | None = field(default=None, repr=False)
    confirmations: int = 6
    history: int | None = HISTORY
    """By how many blocks the kept history can roll apps back; None: all."""
    network: str | None = None
    json: bool = False
    verbose: bool = False
    verify: Verification | None = None
    """How much of a block is checked before it is taken; None: everything, except from a node."""
    trust: tuple[str, ...] = ()
    """Public keys, hex or files, one of which must have signed a checkpoint; empty: not required."""
    config: Path | None = None
    """The file that was read."""
    warnings: tuple[str, ...] = ()
    """What the user should know of that file."""


def load(flags: Mapping[str, object], environ: Mapping[str, str], folder: Path) -> Settings:
    """Combine the layers into settings.

    `flags` are the command line's options by name (`app`: a sequence); None, False and an empty sequence mean
    that an option is not set. An empty variable counts as unset. Relative paths start at `folder`, the
    working directory; those in the file start at the file's folder. Apps named by flags or environment
    replace those of the file, but keep the policy that the file sets for them.

    Raises UsageError for any mistake; it names the flag, variable or key and what is allowed.
    """
    set_flags = {key: flag for key, flag in flags.items() if flag is not None and flag is not False}
    variables = {
        key: environ[_variable(key)] for key in ("app", "config", *_KINDS) if environ.get(_variable(key))
    }
    config = _find_file(set_flags, variables, folder)
    values, in_file = ({}, []) if config is None else _read_file(config)
    for layer, label in ((variables, _variable), (set_flags, _flag)):
        values = _overlay(values, _layer(layer, label, folder), label)
    in_environment = variables["app"].split(",") if "app" in variables else ()
    named = _app_names(in_environment, _variable("app"), folder)
    named = _app_names(set_flags.get("app", ()), _flag("app"), folder) or named
    settings = {app.use: app for app in in_file}
    apps = [settings.get(use, AppSetting(use)) for use in named] or in_file
    warnings = () if config is None else tuple(_warnings(config))
    return Settings(apps=tuple(apps), config=config, warnings=warnings, **values)


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


def _with_full_path(use: str, folder: Path) -> str:
    """Make the path of an app's file absolute; a module's name stays as it is."""
    if not _is_path(use):
        return use
    target, name = _split(use)
    return f"{_absolute(target, folder)}{name and ':'}{name}"


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


def _variable(key: str) -> str:
    return f"VIRTUALCHAIN_{key.upper()}"


def _flag(key: str) -> str:
    return f"--{key}"


def _find_file(flags: Mapping[str, object], variables: Mapping[str, str], folder: Path) -> Path | None:
    if "config" in flags:
        return _path(flags["config"], _flag("config"), folder)
    if "config" in variables:
        return _path(variables["config"], _variable("config"), folder)
    file = folder / "virtualchain.toml"
    return file if file.exists() else None


def _layer(layer: Mapping[str, object], label: Callable[[str], str], folder: Path) -> dict[str, Any]:
    return {
        key: _check(kind, _from_text(kind, layer[key]), label(key), folder)
        for key, kind in _KINDS.items()
        if key in layer
    }


def _overlay(
    values: Mapping[str, Any], layer: Mapping[str, Any], label: Callable[[str], str]
) -> dict[str, Any]:
    """Put a layer on top of the values below it; a source that it names replaces the other one."""
    named = _one_source(layer, label)
    dropped = [key for key in _SOURCES if named and key != named]
    return {key: value for key, value in values.items() if key not in dropped} | dict(layer)


def _one_source(layer: Mapping[str, Any], label: Callable[[str], str]) -> str | None:
    named = [key for key in _SOURCES if key in layer]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(map(label, named))} are both given: blocks come from one of them")
    return named[0] if named else None


def _read_file(file: Path) -> tuple[dict[str, Any], list[AppSetting]]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"{file}: is not TOML: {error}") from error
    _refuse_unknown(document, ("virtualchain", "apps"), str(file))
    table = document.get("virtualchain", {})
    if not isinstance(table, dict):
        raise UsageError(f"{file}: virtualchain must be a table, [virtualchain]")
    label = f"{file}: [virtualchain]"
    _refuse_unknown(table, tuple(_KINDS), label)
    values = {key: _check(_KINDS[key], value, f"{label} {key}", file.parent) for key, value in table.items()}
    _one_source(values, lambda key: f"{label} {key}")
    return values, _read_apps(document.get("apps", []), file)


def _warnings(file: Path) -> Iterator[str]:
    """Warn of a password in a file that other users of the machine can read."""
    is_open = os.name == "posix" and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    table = tomllib.loads(file.read_text(encoding="utf-8")).get("virtualchain", {})
    held = [key for key in ("bitcoin", "database") if _PASSWORD.search(str(table.get(key, "")))]
    if is_open and held:
        yield (
            f"{file} holds a password ({', '.join(held)}) and other users can read it: "
            f"run chmod 600 {shlex.quote(str(file))}"
        )


def _read_apps(tables: object, file: Path) -> list[AppSetting]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{file}: apps must be tables, one [[apps]] for each")
    policies = get_args(Policy)
    for table in tables:
        _refuse_unknown(table, ("use", "on_deep_fork"), f"{file}: [[apps]]")
        if table.get("on_deep_fork", "rollback") not in policies:
            raise UsageError(f"{file}: [[apps]] on_deep_fork must be one of {', '.join(policies)}")
    uses = _app_names([table.get("use") for table in tables], f"{file}: [[apps]] use", file.parent)
    return [AppSetting(**table | {"use": use}) for table, use in zip(tables, uses, strict=True)]


def _app_names(uses: object, label: str, folder: Path) -> tuple[str, ...]:
    """Read the names of apps; files get their full path, so that one app has one name in all layers."""
    names = [uses] if isinstance(uses, str) else cast("Sequence[object]", uses)
    stripped = tuple(name.strip() if isinstance(name, str) else "" for name in names)
    if not all(stripped):
        raise UsageError(f"{label} must name an app: MODULE or MODULE:OBJECT, or a file such as ./token.py")
    stripped = tuple(_with_full_path(name, folder) for name in stripped)
    duplicates = [name for name in stripped if stripped.count(name) > 1]
    if duplicates:
        raise UsageError(f"{label} names {duplicates[0]} more than once")
    return stripped


def _refuse_unknown(table: Mapping[str, object], known: Sequence[str], label: str) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{label} does not know {key}; allowed: {', '.join(known)}")


def _from_text(kind: _Kind, value: object) -> object:
    """Convert the text of a flag or variable; what does not fit is left for `_check` to report."""
    if not isinstance(value, str):
        return value
    if kind == "keys":
        return value.split(",")
    if kind in {"number", "history"} and _NUMBER.fullmatch(value):
        return int(value)
    return _SWITCHES.get(value.lower(), value) if kind == "switch" else value


def _check(kind: _Kind, value: object, label: str, folder: Path) -> object:
    match kind, value:
        case ("history", "all"):
            return None
        case ("number" | "history", int()) if not isinstance(value, bool) and value >= 0:
            return value
        case ("switch", bool()):
            return value
        case ("text", str()) if value:
            return value
        case ("check", str()) if value in get_args(Verification):
            return value
        case ("path" | "keys", _):
            return (_path if kind == "path" else _keys)(value, label, folder)
    raise UsageError(f"{label} must be {_ALLOWED[kind]}")


def _keys(value: object, label: str, folder: Path) -> tuple[str, ...]:
    """Leave keys as they are; resolve the names of key files like other paths."""
    if not isinstance(value, list | tuple) or not all(isinstance(key, str) and key.strip() for key in value):
        raise UsageError(f"{label} must be {_ALLOWED['keys']}")
    keys = [key.strip() for key in value]
    return tuple(key if _HEX_KEY.fullmatch(key) else str(_path(key, label, folder)) for key in keys)


def _path(value: object, label: str, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise UsageError(f"{label} must be a path")
    try:
        return folder / Path(value).expanduser()
    except RuntimeError as error:  # the home directory of an unknown user
        raise UsageError(f"{label}: {value}: {error}") from error


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
