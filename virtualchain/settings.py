"""The settings of a run: flags, then `VIRTUALCHAIN_…` variables, then `virtualchain.toml`, then defaults.

Every layer is checked completely, even where a higher one wins, so a mistake shows at once and not when the
flag that hides it is left out. Values of `bitcoin` and `database` may contain passwords: no message and no
repr shows them.
"""

import os
import re
import shlex
import stat
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from virtualchain.bitcoin.networks import network
from virtualchain.errors import UsageError
from virtualchain.loading import with_full_path
from virtualchain.model import OnUnexpected, SenderLevel, Verification
from virtualchain.notices import Level, LogFormat

HISTORY = 1000
"""By how many blocks apps can be rolled back, by default."""


def alternatives(names: Sequence[str]) -> str:
    """Write names as the alternatives that there are: `a, b or c`."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


Policy = Literal["rollback", "checkpoint", "halt"]
_Kind = Literal[
    "text",
    "path",
    "number",
    "switch",
    "verify",
    "senders",
    "on_unexpected",
    "history",
    "keys",
    "places",
    "log_format",
    "log_level",
    "nodes",
    "upstream",
]

_KINDS: Mapping[str, _Kind] = {
    "bitcoin": "nodes",
    "blocks": "path",
    "cacert": "path",
    "confirmations": "number",
    "cookie": "path",
    "database": "text",
    "deepest_rollback": "number",
    "expect": "places",
    "guard": "switch",
    "history": "history",
    "json": "switch",
    "log_format": "log_format",
    "log_level": "log_level",
    "network": "text",
    "on_unexpected": "on_unexpected",
    "senders": "senders",
    "tape": "upstream",
    "trust": "keys",
    "verbose": "switch",
    "verify": "verify",
    "zmq": "text",
}
_OLD_LEVELS: Mapping[object, Verification] = {"header": "headers"}
"""How `verify` was called before there was a third level: deprecated since 0.2.0."""
_SOURCES: Sequence[str] = ("bitcoin", "blocks", "tape")
"""Where blocks come from: exactly one of them; if several layers name one, the highest layer wins."""
_CHOICES: Mapping[str, Sequence[str]] = {
    "log_format": get_args(LogFormat),
    "log_level": get_args(Level),
    "on_unexpected": get_args(OnUnexpected),
    "senders": get_args(SenderLevel),
    "verify": get_args(Verification),
}
"""What may be chosen, by kind."""
_ALLOWED: Mapping[str, str] = {
    "text": "non-empty text",
    "number": "a whole number, 0 or more",
    "switch": "true or false",
    "history": "a whole number of blocks, 0 or more, or all",
    "keys": "public keys: 64 hex digits each, or files with one",
    "nodes": "the URL of a node, or of several: blanks separate them in a variable, the file has a list",
    "upstream": "the URL of a deployment's database: postgresql://user:password@host/name",
    "places": "files, or URLs that begin with http:// or https://",
    **{kind: alternatives(choices) for kind, choices in _CHOICES.items()},
}
_SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_HEX_KEY = re.compile("[0-9a-fA-F]{64}")
_PASSWORD = re.compile(r"://[^/?#@]*:[^/?#]+@|\bpassword\s*=")
"""A password in a URL, in its query, or in libpq's `key=value` form."""
_IN_FILES = ("bitcoin", "database", "expect", "tape", "zmq")
"""What may hold a password, so that a file can hold it, too."""
_UPSTREAM = re.compile("postgres(?:ql)?://")
_LONGEST_VALUE = 65_536
_NUMBER = re.compile("[0-9]{1,9}")
_WEBHOOK_KEYS = ("url", "app", "name", "opcode", "table", "secret", "secret_file", "secret_env", "from")
_SECRETS = ("secret", "secret_file", "secret_env")
_WEBHOOK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_HEX_BYTE = re.compile("(?:0x)?([0-9a-fA-F]{2})")
_HIGHEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class AppSetting:
    """One app to run, and what happens to it at a deep fork."""

    use: str
    """MODULE or MODULE:OBJECT, as `load_app` takes it; or the full path of a file in place of MODULE."""
    on_deep_fork: Policy = "rollback"
    apply: bool = True
    """Whether it is applied; if not, the tape gets its inputs, for other deployments."""


@dataclass(frozen=True, slots=True)
class WebhookSetting:
    """An address to which an app's events are posted; see docs/webhooks.md."""

    name: str
    """Identifies it in the database, so the address may change; the app's name if it has none of its own."""
    app: str
    url: str = field(repr=False)
    """Often secret itself, as it may hold a token."""
    opcodes: tuple[str, ...] | None = None
    """Only ops with one of these, as `opcode_text` writes them; None: all, unless only tables are named."""
    tables: tuple[str, ...] | None = None
    """Only changes of one of these; None: of all, unless only opcodes are named."""
    from_block: int | None = None
    """The first block to deliver; None: the next one when it is first seen."""
    secret: str | None = field(default=None, repr=False)
    secret_file: Path | None = None
    secret_env: str | None = None
    """Of these three, one is set."""

    @property
    def receiver(self) -> str:
        """The part of its address that messages may show."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def key(self, environ: Mapping[str, str]) -> bytes:
        """Return the secret with which deliveries are signed; raises UsageError if it is not there."""
        label = f"the secret of webhook {self.name}"
        if self.secret is not None:
            return self.secret.encode()
        if self.secret_file is not None:
            try:
                key = self.secret_file.read_bytes().strip()
            except OSError as error:
                raise UsageError(f"{label}: {self.secret_file} cannot be read: {error.strerror}") from error
            if not key:
                raise UsageError(f"{label}: {self.secret_file} is empty")
            return key
        assert self.secret_env is not None, "one of the three is set"
        if not environ.get(self.secret_env):
            raise UsageError(f"{label}: the environment variable {self.secret_env} is not set")
        return environ[self.secret_env].encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options; None means not set, so the caller's default applies."""

    apps: tuple[AppSetting, ...] = ()
    webhooks: tuple[WebhookSetting, ...] = ()
    bitcoin: tuple[str, ...] = field(default=(), repr=False)
    """URLs of the nodes, in the order in which they are asked; none: the node on this machine."""
    cookie: Path | None = None
    cacert: Path | None = None
    """Certificates to trust for a node over https, PEM; None: the system's."""
    zmq: str | None = None
    """Where the node publishes the hashes of new blocks; None: it is asked."""
    blocks: Path | None = None
    """Block files, used in place of a node."""
    tape: str | None = field(default=None, repr=False)
    """The database of a deployment whose tape is followed, in place of a node."""
    database: str | None = field(default=None, repr=False)
    confirmations: int | None = None
    """None: as many as the network should have."""
    history: int | None = HISTORY
    """By how many blocks the kept history can roll apps back; None: all."""
    deepest_rollback: int | None = None
    """How many blocks are undone without an operator; None: any number."""
    network: str | None = None
    guard: bool = False
    """Whether callbacks are watched for what two nodes would not find the same."""
    json: bool = False
    verbose: bool = False
    log_format: LogFormat = "text"
    log_level: Level = "debug"
    verify: Verification | None = None
    """How much of the chain is checked; None: the headers of a node, everything from other sources."""
    senders: SenderLevel = "node"
    """What senders are taken on."""
    trust: tuple[str, ...] = ()
    """Public keys, hex or files: one must have signed a checkpoint, or a list of `expect`, unless empty."""
    expect: tuple[str, ...] = ()
    """Files and URLs with the digests that others say apps have."""
    on_unexpected: OnUnexpected = "halt"
    config: Path | None = None
    """The file that was read."""
    value_files: tuple[Path, ...] = ()
    """The files that variables such as VIRTUALCHAIN_DATABASE_FILE name, and that were read."""
    warnings: tuple[str, ...] = ()
    """What the user should know of that file."""

    def confirmations_on(self, name: str | None) -> int:
        """Return how many confirmations a block needs on a network; None is one that is not known yet."""
        if self.confirmations is not None or self.tape is not None:
            return self.confirmations or 0
        return network(name or self.network or "mainnet").confirmations


def verification(name: object) -> Verification | None:
    """Return the level of `verify` that a name stands for; None if there is none. Warn of an old name."""
    if name not in _OLD_LEVELS:
        return cast("Verification", name) if name in get_args(Verification) else None
    level = _OLD_LEVELS[name]
    message = f"verify: {name!r} is called {level!r} now, and version 0.4.0 will refuse it: write {level!r}"
    warnings.warn(message, FutureWarning, stacklevel=4)  # whoever made the engine
    return level


def load(flags: Mapping[str, object], environ: Mapping[str, str], folder: Path) -> Settings:
    """Combine the layers into settings.

    `flags` are the command line's options by name (`app`: a sequence); None, False and an empty sequence mean
    that an option is not set. An empty variable counts as unset. Relative paths start at `folder`, the
    working directory; those in the file start at the file's folder. Apps named by flags or environment
    replace those of the file, but keep the policy that the file sets for them. What a variable can set, a
    file can hold that the variable's name with _FILE names, if it is one that may hold a password.

    Raises UsageError for any mistake; it names the flag, variable or key and what is allowed. Warns with
    FutureWarning of what is deprecated.
    """
    set_flags = {key: flag for key, flag in flags.items() if flag is not None and flag is not False}
    files = _value_files(environ, folder)
    variables = {
        key: environ[_variable(key)] for key in ("app", "config", *_KINDS) if environ.get(_variable(key))
    }
    variables |= {key: _read_value(file, key) for key, file in files.items()}
    config = _find_file(set_flags, variables, folder)
    values, in_file, webhooks = ({}, [], ()) if config is None else _read_file(config)
    for layer, label in ((variables, _variable), (set_flags, _flag)):
        values = _overlay(values, _layer(layer, label, folder), label)
    in_environment = variables["app"].split(",") if "app" in variables else ()
    named = _app_names(in_environment, _variable("app"), folder)
    named = _app_names(set_flags.get("app", ()), _flag("app"), folder) or named
    settings = {app.use: app for app in in_file}
    apps = [settings.get(use, AppSetting(use)) for use in named] or in_file
    warnings = () if config is None else tuple(_warnings(config))
    return Settings(
        apps=tuple(apps),
        webhooks=webhooks,
        config=config,
        value_files=tuple(files.values()),
        warnings=warnings,
        **values,
    )


def exposed_passwords(flags: Mapping[str, object]) -> list[str]:
    """Return a warning for each option of the command line that holds a password."""
    held = [key for key in _IN_FILES if any(_may_expose(key, text) for text in _texts(flags.get(key)))]
    return [
        f"the password in {_flag(key)} is in the process list, where other users of this machine see it: "
        f"set {_variable(key)} instead, or {_file_variable(key)} to a file that holds it"
        for key in held
    ]


def _may_expose(key: str, text: str) -> bool:
    """Return whether a value holds a password, as a node's path may be one."""
    path = urlsplit(text).path.strip("/") if key == "bitcoin" else ""
    return bool(path) or _PASSWORD.search(text) is not None


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value or "")]


def _file_variable(key: str) -> str:
    return f"{_variable(key)}_FILE"


def _value_files(environ: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Return the files that hold values, by the key; raise UsageError if a value is given twice."""
    files = {}
    for key in _IN_FILES:
        name = environ.get(_file_variable(key))
        if not name:
            continue
        if environ.get(_variable(key)):
            raise UsageError(f"{_variable(key)} and {_file_variable(key)} are both set: unset one of them")
        files[key] = _path(name, _file_variable(key), folder)
    return files


def _read_value(file: Path, key: str) -> str:
    """Read a value, without the white space around it; raises UsageError, which never quotes the content."""
    label = f"{_file_variable(key)}: {file}"
    try:
        with file.open("rb") as opened:
            content = opened.read(_LONGEST_VALUE + 1)
    except OSError as error:
        raise UsageError(f"{label} cannot be read: {error.strerror}") from error
    if len(content) > _LONGEST_VALUE:
        raise UsageError(f"{label} is too long: it must hold one line with the value")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = "\0"
    if not text:
        raise UsageError(f"{label} is empty: it must hold one line with the value")
    if not text.isprintable():
        raise UsageError(f"{label} is not text on one line: it must hold the value and nothing else")
    return text


def _variable(key: str) -> str:
    return f"VIRTUALCHAIN_{key.upper()}"


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


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


def _read_file(file: Path) -> tuple[dict[str, Any], list[AppSetting], tuple[WebhookSetting, ...]]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise UsageError(f"{file}: is not TOML: {error}") from error
    _refuse_unknown(document, ("virtualchain", "apps", "webhooks"), str(file))
    table = document.get("virtualchain", {})
    if not isinstance(table, dict):
        raise UsageError(f"{file}: virtualchain must be a table, [virtualchain]")
    label = f"{file}: [virtualchain]"
    _refuse_unknown(table, tuple(_KINDS), label)
    values = {key: _check(_KINDS[key], value, f"{label} {key}", file.parent) for key, value in table.items()}
    _one_source(values, lambda key: f"{label} {key}")
    return (
        values,
        _read_apps(document.get("apps", []), file),
        _read_webhooks(document.get("webhooks", []), file),
    )


def _warnings(file: Path) -> Iterator[str]:
    """Warn of a password or secret in a file that other users of the machine can read."""
    is_open = os.name == "posix" and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    document = tomllib.loads(file.read_text(encoding="utf-8"))
    table = document.get("virtualchain", {})
    held = [key for key in ("bitcoin", "database", "tape") if _PASSWORD.search(str(table.get(key, "")))]
    if any("secret" in webhook for webhook in document.get("webhooks", [])):
        held.append("secret")
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
        _refuse_unknown(table, ("use", "on_deep_fork", "apply"), f"{file}: [[apps]]")
        if not isinstance(table.get("apply", True), bool):
            raise UsageError(f"{file}: [[apps]] apply must be true or false")
        if table.get("on_deep_fork", "rollback") not in policies:
            raise UsageError(f"{file}: [[apps]] on_deep_fork must be one of {', '.join(policies)}")
    uses = _app_names([table.get("use") for table in tables], f"{file}: [[apps]] use", file.parent)
    return [AppSetting(**table | {"use": use}) for table, use in zip(tables, uses, strict=True)]


def _read_webhooks(tables: object, file: Path) -> tuple[WebhookSetting, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{file}: webhooks must be tables, one [[webhooks]] for each")
    webhooks = tuple(_read_webhook(table, f"{file}: [[webhooks]]", file.parent) for table in tables)
    names = [webhook.name for webhook in webhooks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{file}: two [[webhooks]] are named {name}: name them (by default each has its app's name)"
            )
    return webhooks


def _read_webhook(table: Mapping[str, Any], label: str, folder: Path) -> WebhookSetting:
    _refuse_unknown(table, _WEBHOOK_KEYS, label)
    app = table.get("app")
    if not isinstance(app, str) or not app.strip():
        raise UsageError(f"{label} app must be the name of an app, as `virtualchain status` shows it")
    name = table.get("name", app)
    if not isinstance(name, str) or not _WEBHOOK_NAME.fullmatch(name):
        raise UsageError(f"{label} name must be at most 63 letters, digits, dots, hyphens and underscores")
    label = f"{label} {name}:"
    first = table.get("from")
    if "from" in table and (type(first) is not int or not 0 <= first <= _HIGHEST):
        raise UsageError(f"{label} from must be a block: a whole number, 0 or more")
    secrets = [key for key in _SECRETS if key in table]
    if len(secrets) != 1:
        raise UsageError(
            f"{label} it needs a secret, with which deliveries are signed: set one of {', '.join(_SECRETS)}"
        )
    if not isinstance(table[secrets[0]], str) or not table[secrets[0]]:
        raise UsageError(f"{label} {secrets[0]} must be non-empty text")
    file = table.get("secret_file")
    return WebhookSetting(
        name=name,
        app=app,
        url=_webhook_url(table.get("url"), label),
        opcodes=_names(table, "opcode", label, _opcode),
        tables=_names(table, "table", label, lambda text: text),
        from_block=first,
        secret=table.get("secret"),
        secret_file=None if file is None else _path(file, f"{label} secret_file", folder),
        secret_env=table.get("secret_env"),
    )


def _webhook_url(url: object, label: str) -> str:
    """Check an address; no message quotes it, because it may hold a token."""
    expected = f"{label} url must be an address such as https://example.org/hook"
    if not isinstance(url, str):
        raise UsageError(expected)
    if not url.isascii() or any(character.isspace() or not character.isprintable() for character in url):
        raise UsageError(f"{expected}, with other characters than ASCII percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(expected) from None  # the error may quote it
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise UsageError(expected)
    if "@" in parts.netloc or "#" in url:
        raise UsageError(f"{expected}, without user, password and fragment")
    return url


def _names(
    table: Mapping[str, Any], key: str, label: str, read: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    """Read a filter: a text, or a list of some."""
    if key not in table:
        return None
    value = table[key]
    texts = value if isinstance(value, list) else [value]
    names = [read(text) if isinstance(text, str) and text else None for text in texts]
    if not names or None in names:
        what = "characters, bytes as two hex digits, none or spend" if key == "opcode" else "names of tables"
        raise UsageError(f"{label} {key} must be one or several of these: {what}")
    return tuple(name for name in names if name is not None)


def _opcode(text: str) -> str | None:
    """Return an opcode as `virtualchain.app.fields.opcode_text` writes it; None if the text is not one."""
    if text in {"none", "spend"} or (len(text) == 1 and text.isascii() and text.isprintable()):
        return text
    match = _HEX_BYTE.fullmatch(text)
    if match is None:
        return None
    character = chr(int(match[1], 16))
    return character if character.isascii() and character.isprintable() else f"0x{match[1].lower()}"


def _app_names(uses: object, label: str, folder: Path) -> tuple[str, ...]:
    """Read the names of apps; files get their full path, so that one app has one name in all layers."""
    names = [uses] if isinstance(uses, str) else cast("Sequence[object]", uses)
    stripped = tuple(name.strip() if isinstance(name, str) else "" for name in names)
    if not all(stripped):
        raise UsageError(f"{label} must name an app: MODULE or MODULE:OBJECT, or a file such as ./token.py")
    stripped = tuple(with_full_path(name, folder) for name in stripped)
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
    if kind in {"keys", "places"}:
        return value.split(",")
    if kind == "nodes":  # a password may have a comma
        return value.split()
    if kind in {"number", "history"} and _NUMBER.fullmatch(value):
        return int(value)
    return _SWITCHES.get(value.lower(), value) if kind == "switch" else value


def _check(kind: _Kind, value: object, label: str, folder: Path) -> object:
    match kind, value:
        case ("history", "all"):
            return None
        case ("number" | "history", int()) if not isinstance(value, bool) and value >= 0:
            return value
        case ("switch", bool()) | ("text", str()) | ("upstream", str()) if value != "":
            if kind != "upstream" or _UPSTREAM.match(str(value)):
                return value
        case (_, str()) if value in _CHOICES.get(kind, ()) or (kind == "verify" and verification(value)):
            return verification(value) if kind == "verify" else value
        case ("nodes", str()):
            return _list(kind, [value], label, folder)
        case ("path" | "keys" | "places" | "nodes", _):
            return (_path if kind == "path" else partial(_list, kind))(value, label, folder)
    raise UsageError(f"{label} must be {_ALLOWED[kind]}")


def _list(kind: _Kind, value: object, label: str, folder: Path) -> tuple[str, ...]:
    """Leave keys and URLs as they are; resolve the names of files like other paths."""
    if (
        not isinstance(value, list | tuple)
        or (kind == "nodes" and not value)
        or not all(isinstance(item, str) and item.strip() for item in value)
    ):
        raise UsageError(f"{label} must be {_ALLOWED[kind]}")
    if kind == "nodes":
        return tuple(value)
    is_file = _is_key_file if kind == "keys" else _is_file
    items = [item.strip() for item in value]
    if any("://" in item and not item.startswith(("http://", "https://")) for item in items):
        raise UsageError(f"{label} must be {_ALLOWED[kind]}")
    return tuple(str(_path(item, label, folder)) if is_file(item) else item for item in items)


def _is_key_file(key: str) -> bool:
    return _HEX_KEY.fullmatch(key) is None


def _is_file(place: str) -> bool:
    return "://" not in place


def _path(value: object, label: str, folder: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise UsageError(f"{label} must be a path")
    try:
        return folder / Path(value).expanduser()
    except RuntimeError as error:  # the home directory of an unknown user
        raise UsageError(f"{label}: {value}: {error}") from error
