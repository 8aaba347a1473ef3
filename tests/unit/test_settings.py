"""Which layer each setting comes from, and the error message for a mistake in each layer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from virtualchain.errors import UsageError
from virtualchain.settings import AppSetting, Settings, exposed_passwords, load

FILE = """
[virtualchain]
bitcoin = "http://file:8332"
confirmations = 1
cookie = "~/cookie"
database = "postgresql://file"
json = true
network = "signet"
verbose = true
verify = "merkle"

[[apps]]
use = "names:app"
on_deep_fork = "halt"
[[apps]]
use = "notary"
"""

FLAGS: dict[str, Any] = {
    "bitcoin": "http://flag:8332",
    "blocks": "flag/blocks",
    "cacert": "flag/ca.pem",
    "confirmations": 3,
    "cookie": Path("flag/cookie"),
    "database": "postgresql://flag",
    "network": "regtest",
    "verify": "merkle",
    "zmq": "tcp://flag:1",
}
ENVIRONMENT = {
    "VIRTUALCHAIN_BITCOIN": "http://env:8332",
    "VIRTUALCHAIN_BLOCKS": "env/blocks",
    "VIRTUALCHAIN_CACERT": "env/ca.pem",
    "VIRTUALCHAIN_CONFIRMATIONS": "0",
    "VIRTUALCHAIN_COOKIE": "env/cookie",
    "VIRTUALCHAIN_DATABASE": "postgresql://env",
    "VIRTUALCHAIN_NETWORK": "testnet4",
    "VIRTUALCHAIN_VERIFY": "merkle",
    "VIRTUALCHAIN_ZMQ": "tcp://env:1",
}


def write(folder: Path, text: str) -> Path:
    """Write a folder's settings file."""
    file = folder / "virtualchain.toml"
    file.write_text(text, encoding="utf-8")
    return file


def failure(
    folder: Path, *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Load settings with a mistake, and return the error message."""
    with pytest.raises(UsageError) as caught:
        load(flags or {}, environ or {}, folder)
    return str(caught.value)


def test_defaults_apply_if_nothing_is_set(tmp_path: Path) -> None:
    """The defaults are the network's confirmations, no app and nothing else."""
    assert load({}, {}, tmp_path) == Settings(confirmations=None)
    assert [Settings().confirmations_on(name) for name in (None, "mainnet", "litecoin")] == [6, 6, 12]
    assert Settings(confirmations=0).confirmations_on("litecoin") == 0


def test_the_file_overrides_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its relative paths start at its own folder, and `~` is the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = write(tmp_path, FILE)
    assert load({}, {}, tmp_path) == Settings(
        apps=(AppSetting("names:app", "halt"), AppSetting("notary", "rollback")),
        bitcoin=("http://file:8332",),
        confirmations=1,
        cookie=tmp_path / "home" / "cookie",
        database="postgresql://file",
        json=True,
        network="signet",
        verbose=True,
        verify="merkle",
        config=file,
    )


def test_several_nodes(tmp_path: Path) -> None:
    """The file has one URL or a list, a variable blanks between URLs, as passwords may have commas."""
    several = ("http://u:a,b@one:8332", "http://two:8332")
    write(tmp_path, f"[virtualchain]\nbitcoin = {list(several)}")
    assert load({}, {}, tmp_path).bitcoin == several
    other = {"VIRTUALCHAIN_BITCOIN": " http://three  http://u:c,d@four "}
    assert load({}, other, tmp_path).bitcoin == ("http://three", "http://u:c,d@four")
    assert load({"bitcoin": several}, other, tmp_path).bitcoin == several
    for wrong in ("[]", "['']", "[8332]"):
        write(tmp_path, f"[virtualchain]\nbitcoin = {wrong}")
        assert "bitcoin must be the URL of a node, or of several" in failure(tmp_path)


@pytest.mark.parametrize("key", FLAGS)
def test_a_variable_overrides_the_file_and_a_flag_overrides_both(tmp_path: Path, key: str) -> None:
    """Each option is overridden separately: the others keep the file's values."""
    write(tmp_path, FILE)
    variable = f"VIRTUALCHAIN_{key.upper()}"
    environ = {variable: ENVIRONMENT[variable]}
    in_file = load({}, {}, tmp_path)
    from_env = load({}, environ, tmp_path)
    from_flag = load({key: FLAGS[key]}, environ, tmp_path)
    expected_env: Any = ENVIRONMENT[variable]
    expected_flag: Any = FLAGS[key]
    if key in ("blocks", "cacert", "cookie"):
        expected_env, expected_flag = tmp_path / expected_env, tmp_path / expected_flag
    if key == "confirmations":
        expected_env = 0
    if key == "bitcoin":
        expected_env, expected_flag = (expected_env,), (expected_flag,)
    assert getattr(from_env, key) == expected_env
    assert getattr(from_flag, key) == expected_flag
    for other in set(Settings.__slots__) - {key} - ({"bitcoin"} if key == "blocks" else set()):
        assert getattr(from_env, other) == getattr(from_flag, other) == getattr(in_file, other)


def test_the_highest_layer_that_names_a_source_wins(tmp_path: Path) -> None:
    """A node in the file does not conflict with block files in a flag, nor the other way round."""
    write(tmp_path, FILE)
    node, files = {"VIRTUALCHAIN_BITCOIN": "http://env:8332"}, {"VIRTUALCHAIN_BLOCKS": "env/blocks"}
    for flags, environ, bitcoin, blocks in (
        ({}, files, (), tmp_path / "env" / "blocks"),
        ({"blocks": "flag"}, node, (), tmp_path / "flag"),
        ({"bitcoin": ("http://flag:8332",)}, files, ("http://flag:8332",), None),
        ({}, {}, ("http://file:8332",), None),
    ):
        settings = load(flags, environ, tmp_path)
        assert (settings.bitcoin, settings.blocks) == (bitcoin, blocks)


def test_two_sources_in_one_layer_are_refused(tmp_path: Path) -> None:
    """Two sources in one layer are ambiguous."""
    both = {"bitcoin": "http://user:secret@host", "blocks": "here"}
    for message in (
        failure(tmp_path, flags=both),
        failure(tmp_path, environ={f"VIRTUALCHAIN_{key.upper()}": value for key, value in both.items()}),
    ):
        assert "are both given" in message
        assert "secret" not in message
    file = write(tmp_path, "[virtualchain]\nbitcoin = 'http://host'\nblocks = 'here'")
    assert failure(tmp_path).startswith(f"{file}: [virtualchain] bitcoin and ")


def test_zero_confirmations_is_a_value(tmp_path: Path) -> None:
    """Zero is a number of confirmations, not a missing one."""
    write(tmp_path, FILE)
    assert load({"confirmations": 0}, {}, tmp_path).confirmations == 0


def test_missing_flags_and_empty_variables_set_nothing(tmp_path: Path) -> None:
    """The command line passes None, False or no app for options that are missing."""
    write(tmp_path, FILE)
    flags = {"app": (), "json": False, "bitcoin": None, "config": None}
    environ = {"VIRTUALCHAIN_BITCOIN": "", "VIRTUALCHAIN_APP": "", "VIRTUALCHAIN_CONFIG": "", "OTHER": "x"}
    assert load(flags, environ, tmp_path) == load({}, {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "switch"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("False", False), ("no", False)],
)
def test_switches_in_the_environment(tmp_path: Path, text: str, switch: bool) -> None:
    """A variable can also turn off what the file turns on."""
    write(tmp_path, FILE)
    assert load({}, {"VIRTUALCHAIN_JSON": text}, tmp_path).json is switch
    assert load({"json": True}, {"VIRTUALCHAIN_JSON": text}, tmp_path).json is True


def test_apps_of_flags_override_those_of_the_environment_and_the_file(tmp_path: Path) -> None:
    """They replace the others, but an app keeps the policy that the file sets for it."""
    write(tmp_path, FILE)
    environ = {"VIRTUALCHAIN_APP": "other:app, names:app"}
    assert load({}, environ, tmp_path).apps == (AppSetting("other:app"), AppSetting("names:app", "halt"))
    assert load({"app": ["third"]}, environ, tmp_path).apps == (AppSetting("third"),)
    assert load({"app": "third"}, {}, tmp_path).apps == (AppSetting("third"),)


def test_the_file_is_found_by_flag_then_variable_then_folder(tmp_path: Path) -> None:
    """An explicit file may have any name, and only one file is read."""
    write(tmp_path, "[virtualchain]\nnetwork = 'folder'")
    for name in ("flag", "env"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "my.toml").write_text(f"[virtualchain]\nnetwork = '{name}'\nblocks = 'here'")
    environ = {"VIRTUALCHAIN_CONFIG": "env/my.toml"}
    assert load({}, {}, tmp_path).network == "folder"
    assert load({}, environ, tmp_path).network == "env"
    by_flag = load({"config": "flag/my.toml"}, environ, tmp_path)
    assert by_flag.network == "flag"
    assert by_flag.config == tmp_path / "flag" / "my.toml"
    assert by_flag.blocks == tmp_path / "flag" / "here"


def test_trusted_keys_are_hex_or_files(tmp_path: Path) -> None:
    """Key files are found like a layer's other files; the highest layer that names keys wins."""
    key = "ab" * 32
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "virtualchain.toml").write_text(f'[virtualchain]\ntrust = ["{key}", "key.pub"]\n')
    flags = {"config": folder / "virtualchain.toml"}
    assert load(flags, {}, tmp_path).trust == (key, str(folder / "key.pub"))
    environ = {"VIRTUALCHAIN_TRUST": f"mine.pub, {key}"}
    assert load(flags, environ, tmp_path).trust == (str(tmp_path / "mine.pub"), key)
    assert load({**flags, "trust": (key,)}, environ, tmp_path).trust == (key,)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """The repr of settings shows no password, because it may end up in a log."""
    flags = {"bitcoin": "http://user:secret@host", "database": "postgresql://user:secret@host"}
    assert "secret" not in repr(load(flags, {}, tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[virtualchain", "is not TOML: "),
        (
            "[virtualchain]\nconfirmation = 6",
            "[virtualchain] does not know confirmation; allowed: bitcoin, blocks,",
        ),
        ("[virtualchain]\nconfig = 'x'", "[virtualchain] does not know config; allowed:"),
        ("[app]\nuse = 'x'", "does not know app; allowed: virtualchain, apps, webhooks"),
        ("virtualchain = 3", "virtualchain must be a table, [virtualchain]"),
        (
            "[virtualchain]\nconfirmations = -1",
            "[virtualchain] confirmations must be a whole number, 0 or more",
        ),
        (
            "[virtualchain]\nconfirmations = '6'",
            "[virtualchain] confirmations must be a whole number, 0 or more",
        ),
        ("[virtualchain]\nconfirmations = true", "[virtualchain] confirmations must be a whole number"),
        ("[virtualchain]\nconfirmations = 6.0", "[virtualchain] confirmations must be a whole number"),
        ("[virtualchain]\nbitcoin = 8332", "[virtualchain] bitcoin must be the URL of a node, or of several"),
        ("[virtualchain]\nnetwork = ''", "[virtualchain] network must be non-empty text"),
        ("[virtualchain]\nblocks = 1", "[virtualchain] blocks must be a path"),
        ("[virtualchain]\ncookie = ''", "[virtualchain] cookie must be a path"),
        (
            "[virtualchain]\ncookie = '~nobody-of-this-name/c'",
            "[virtualchain] cookie: ~nobody-of-this-name/c",
        ),
        ("[virtualchain]\njson = 'yes'", "[virtualchain] json must be true or false"),
        ("[virtualchain]\nverbose = 1", "[virtualchain] verbose must be true or false"),
        ("[virtualchain]\nverify = true", "[virtualchain] verify must be off, headers or merkle"),
        ("[virtualchain]\ntrust = 'a'", "[virtualchain] trust must be public keys: 64 hex digits each"),
        ("[virtualchain]\ntrust = [1]", "[virtualchain] trust must be public keys"),
        ("[apps]\nuse = 'x'", "apps must be tables, one [[apps]] for each"),
        ("apps = ['x']", "apps must be tables, one [[apps]] for each"),
        (
            "[[apps]]\non_deep_fork = 'halt'",
            "[[apps]] use must name an app: MODULE or MODULE:OBJECT, or a file such as ./token.py",
        ),
        (
            "[[apps]]\nuse = 3",
            "[[apps]] use must name an app: MODULE or MODULE:OBJECT, or a file such as ./token.py",
        ),
        (
            "[[apps]]\nuse = ' '",
            "[[apps]] use must name an app: MODULE or MODULE:OBJECT, or a file such as ./token.py",
        ),
        ("[[apps]]\nuse = 'x'\n[[apps]]\nuse = 'x'", "[[apps]] use names x more than once"),
        ("[[apps]]\nuse = 'x'\nname = 'y'", "[[apps]] does not know name; allowed: use, on_deep_fork"),
        (
            "[[apps]]\nuse = 'x'\non_deep_fork = 'ignore'",
            "[[apps]] on_deep_fork must be one of rollback, checkpoint, halt",
        ),
        ("[[apps]]\nuse = 'x'\non_deep_fork = []", "[[apps]] on_deep_fork must be one of"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    """The message also says what is allowed."""
    file = write(tmp_path, text)
    error = failure(tmp_path)
    assert error.startswith(str(file))
    assert message in error


def test_a_mistake_shows_even_if_a_flag_hides_it(tmp_path: Path) -> None:
    """Otherwise a later run without the flag would fail for no visible reason."""
    write(tmp_path, "[virtualchain]\nconfirmations = -1")
    assert "confirmations" in failure(tmp_path, flags={"confirmations": 6})


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CONFIRMATIONS", "six", "must be a whole number, 0 or more"),
        ("CONFIRMATIONS", "-1", "must be a whole number, 0 or more"),
        ("CONFIRMATIONS", "1.5", "must be a whole number, 0 or more"),
        ("CONFIRMATIONS", "\uff19", "must be a whole number, 0 or more"),
        ("CONFIRMATIONS", "9" * 5000, "must be a whole number, 0 or more"),
        ("JSON", "maybe", "must be true or false"),
        ("VERBOSE", "2", "must be true or false"),
        ("VERIFY", "yes", "must be off, headers or merkle"),
        ("APP", "names,,notary", "must name an app: MODULE or MODULE:OBJECT"),
        ("APP", "names, names", "names names more than once"),
        ("COOKIE", "~nobody-of-this-name/c", ": ~nobody-of-this-name/c: "),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, variable: str, text: str, message: str
) -> None:
    """The message names the variable and says what is allowed."""
    error = failure(tmp_path, environ={f"VIRTUALCHAIN_{variable}": text})
    assert re.match(f"VIRTUALCHAIN_{variable}:? ?", error)
    assert message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"confirmations": -1}, "--confirmations must be a whole number, 0 or more"),
        ({"confirmations": "x"}, "--confirmations must be a whole number, 0 or more"),
        ({"bitcoin": ("",)}, "--bitcoin must be the URL of a node"),
        ({"blocks": ""}, "--blocks must be a path"),
        ({"verify": "Merkle"}, "--verify must be off, headers or merkle"),
        ({"verify": ""}, "--verify must be off, headers or merkle"),
        ({"senders": "proof"}, "--senders must be node, bound or proved"),
        ({"app": [""]}, "--app must name an app"),
        ({"app": ["x", "x"]}, "--app names x more than once"),
        ({"config": ""}, "--config must be a path"),
    ],
)
def test_a_mistake_in_a_flag_names_it(tmp_path: Path, flags: Mapping[str, object], message: str) -> None:
    """The message names the flag as the user typed it."""
    assert message in failure(tmp_path, flags=flags)


@pytest.mark.parametrize(
    ("name", "level"),
    [("off", "off"), ("headers", "headers"), ("header", "headers"), ("merkle", "merkle")],
)
@pytest.mark.filterwarnings("ignore:verify:FutureWarning")
def test_levels_of_verify_and_senders(tmp_path: Path, name: str, level: str) -> None:
    """They have the same names in every layer, and `header`, as one was called before, still counts."""
    assert load({"verify": name}, {}, tmp_path).verify == level
    assert load({}, {"VIRTUALCHAIN_VERIFY": name}, tmp_path).verify == level
    write(tmp_path, f'[virtualchain]\nverify = "{name}"\nsenders = "bound"')
    assert load({}, {}, tmp_path).verify == level
    assert load({}, {}, tmp_path).senders == "bound"
    assert load({}, {"VIRTUALCHAIN_SENDERS": "proved"}, tmp_path).senders == "proved"
    assert load({"senders": "node"}, {"VIRTUALCHAIN_SENDERS": "proved"}, tmp_path).senders == "node"
    assert Settings().senders == "node"
    assert Settings().verify is None


def test_an_old_name_is_deprecated(tmp_path: Path) -> None:
    """A warning says what to write instead; the new name causes none, and `pytest` would fail here."""
    with pytest.warns(FutureWarning, match="verify: 'header' is called 'headers' now.*write 'headers'"):
        load({"verify": "header"}, {}, tmp_path)
    load({"verify": "headers"}, {}, tmp_path)


def test_an_explicit_file_must_exist(tmp_path: Path) -> None:
    """Only the default file may be missing."""
    error = failure(tmp_path, flags={"config": "gone.toml"})
    assert error == f"{tmp_path / 'gone.toml'}: cannot be read: No such file or directory"
    assert "gone.toml: cannot be read" in failure(tmp_path, environ={"VIRTUALCHAIN_CONFIG": "gone.toml"})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A folder and invalid UTF-8 are refused."""
    (tmp_path / "virtualchain.toml").write_bytes(b"\xff")
    assert "is not TOML" in failure(tmp_path)
    assert "cannot be read: Is a directory" in failure(tmp_path, flags={"config": "."})


def test_no_password_is_in_a_message(tmp_path: Path) -> None:
    """A message about a wrong value does not quote the value."""
    write(tmp_path, "[virtualchain]\nbitcoin = ['http://user:secret@host', 8332]")
    assert "secret" not in failure(tmp_path)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('database = "postgresql://user:secret@host/name"', "database"),
        ('database = "postgresql://user@host/name?password=secret"', "database"),
        ('database = "host=here user=me password = secret"', "database"),
        ('bitcoin = "http://user:secret@127.0.0.1:8332"', "bitcoin"),
    ],
)
@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o604, True), (0o644, True)])
def test_a_password_that_others_can_read_is_warned_of(
    tmp_path: Path, line: str, key: str, mode: int, warns: bool
) -> None:
    """The warning names the file and the key, and not the password."""
    file = write(tmp_path, f"[virtualchain]\n{line}\n")
    file.chmod(mode)
    warnings = load({}, {}, tmp_path).warnings
    assert len(warnings) == warns
    if warns:
        assert warnings[0].startswith(f"{file} holds a password ({key})")
        assert "secret" not in warnings[0]
        assert f"chmod 600 {file}" in warnings[0]


@pytest.mark.parametrize(
    "line", ['database = "postgresql://user@host:5432/name"', 'bitcoin = "http://127.0.0.1:8332"', ""]
)
def test_a_file_without_a_password_may_be_read(tmp_path: Path, line: str) -> None:
    """Addresses are no secret."""
    file = write(tmp_path, f"[virtualchain]\n{line}\n")
    file.chmod(0o644)
    assert load({}, {}, tmp_path).warnings == ()


def test_an_apps_file_has_one_name_in_all_layers(tmp_path: Path) -> None:
    """Its path is relative to the settings' folder or the working directory, and keeps the file's policy."""
    (tmp_path / "virtualchain.toml").write_text(
        "[[apps]]\nuse = './apps/token.py:app'\non_deep_fork = 'halt'\n[[apps]]\nuse = 'plain'\n"
    )
    full = f"{tmp_path}/apps/token.py:app"
    assert load({}, {}, tmp_path).apps == (AppSetting(full, "halt"), AppSetting("plain"))
    here = tmp_path / "apps"
    here.mkdir()
    config = {"config": "../virtualchain.toml"}
    for use in ("token.py:app", "./token.py:app", "../apps/token.py:app", full):
        assert load({"app": [use], **config}, {}, here).apps == (AppSetting(full, "halt"),)
    environ = {"VIRTUALCHAIN_APP": "./token.py:app,plain", "VIRTUALCHAIN_CONFIG": "../virtualchain.toml"}
    assert load({}, environ, here).apps == (AppSetting(full, "halt"), AppSetting("plain"))
    with pytest.raises(UsageError, match="more than once"):
        load({"app": ["token.py", "./token.py"]}, {}, here)


def test_a_file_can_hold_a_value(tmp_path: Path) -> None:
    """As containers have their secrets; white space around it does not count, and flags override it."""
    (tmp_path / "url").write_text("  postgresql://u:p@host/name\r\n\n")
    environ = {"VIRTUALCHAIN_DATABASE_FILE": "url", "VIRTUALCHAIN_BITCOIN_FILE": ""}
    loaded = load({}, environ, tmp_path)
    assert (loaded.database, loaded.value_files) == ("postgresql://u:p@host/name", (tmp_path / "url",))
    assert load({"database": "postgresql://flag"}, environ, tmp_path).database == "postgresql://flag"
    assert "u:p" not in repr(loaded)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        (b" \n", "is empty: it must hold one line with the value"),
        (b"s3cret\nmore", "is not text on one line: it must hold the value and nothing else"),
        (b"s3cret\0", "is not text on one line: it must hold the value and nothing else"),
        (b"s3cret\xff\xfe", "is not text on one line: it must hold the value and nothing else"),
        (b"s3cret" * 20_000, "is too long: it must hold one line with the value"),
    ],
)
def test_a_file_that_holds_no_value_is_refused(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    """The message names variable and file, and quotes nothing of it; a folder is no file."""
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    for key in ("bitcoin", "database", "zmq", "expect"):
        variable = f"VIRTUALCHAIN_{key.upper()}_FILE"
        with pytest.raises(UsageError) as caught:
            load({}, {variable: str(file)}, tmp_path)
        assert str(caught.value) == f"{variable}: {file} {complaint}"
    with pytest.raises(UsageError, match="Is a directory"):
        load({}, {"VIRTUALCHAIN_DATABASE_FILE": "."}, tmp_path)


def test_a_value_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """Nobody could tell which one holds."""
    environ = {"VIRTUALCHAIN_DATABASE_FILE": "url", "VIRTUALCHAIN_DATABASE": "postgresql://x"}
    complaint = "VIRTUALCHAIN_DATABASE and VIRTUALCHAIN_DATABASE_FILE are both set: unset one of them"
    with pytest.raises(UsageError, match=re.escape(complaint)):
        load({}, environ, tmp_path)


@pytest.mark.parametrize(
    ("flags", "exposed"),
    [
        ({"database": "postgresql://u:secret@h/n", "bitcoin": "http://127.0.0.1:8332"}, ["database"]),
        ({"database": "host=h password=secret"}, ["database"]),
        ({"database": "postgresql://h/n?password=secret"}, ["database"]),
        ({"database": "postgresql://u@h/n"}, []),
        (
            {"bitcoin": "http://u:secret@h:1", "expect": ("list.json", "https://u:secret@h/l")},
            ["bitcoin", "expect"],
        ),
        ({"bitcoin": "https://h/secret"}, ["bitcoin"]),
        ({"bitcoin": ("http://127.0.0.1:8332/", "https://h/secret/")}, ["bitcoin"]),
    ],
)
def test_passwords_on_the_command_line_are_found(flags: Mapping[str, object], exposed: list[str]) -> None:
    """Each option that holds one is named, with what to do instead; the path of a node's URL may be one."""
    warnings = exposed_passwords(flags)
    assert [warning.split()[3] for warning in warnings] == [f"--{name}" for name in exposed]
    assert "secret" not in "".join(warnings)
