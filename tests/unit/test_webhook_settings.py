"""`[[webhooks]]` of virtualchain.toml: what is read, what is refused, and that nothing secret is shown."""

from pathlib import Path

import pytest

from virtualchain.errors import UsageError
from virtualchain.settings import WebhookSetting, load

WHOLE = """
[[webhooks]]
url = "https://example.org:8443/hook?token=s3cret"
app = "notary"
name = "books"
opcode = ["r", "0x72", "00", "none"]
table = "documents"
secret_file = "key"
from = 7
[[webhooks]]
url = "http://127.0.0.1/"
app = "names"
secret = "s3cret"
"""
LEAST = "[[webhooks]]\nurl = 'http://host/'\napp = 'a'\n"


def read(folder: Path, text: str) -> tuple[WebhookSetting, ...]:
    """Load a file with this text."""
    file = folder / "virtualchain.toml"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return load({}, {}, folder).webhooks


def test_webhooks_are_read(tmp_path: Path) -> None:
    """Opcodes have one form, files start at the file's folder, and the name is by default the app's."""
    (tmp_path / "key").write_bytes(b"k\xe9y\n")
    books, names = read(tmp_path, WHOLE)
    assert (books.name, books.app, books.receiver) == ("books", "notary", "https://example.org:8443")
    assert (books.opcodes, books.tables, books.from_block) == (("r", "r", "0x00", "none"), ("documents",), 7)
    assert (names.name, names.opcodes, names.tables, names.from_block) == ("names", None, None, None)
    assert (books.key({}), names.key({})) == (b"k\xe9y", b"s3cret")
    assert "s3cret" not in repr((books, names))


def test_a_secret_in_an_open_file_is_warned_of(tmp_path: Path) -> None:
    """The warning names the key and does not show it."""
    file = tmp_path / "virtualchain.toml"
    file.write_text(LEAST + "secret = 'x'", encoding="utf-8")
    file.chmod(0o644)
    [warning] = load({}, {}, tmp_path).warnings
    assert "holds a password (secret) and other users can read it" in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("webhooks = 3", "webhooks must be tables, one [[webhooks]] for each"),
        ("[webhooks]\nurl = 'http://a'", "webhooks must be tables"),
        (
            LEAST + "method = 'PUT'",
            "[[webhooks]] does not know method; allowed: url, app, name, opcode, table,",
        ),
        (LEAST, "[[webhooks]] a: it needs a secret, with which deliveries are signed"),
        (LEAST + "secret = 'x'\nsecret_env = 'y'", "set one of secret, secret_file, secret_env"),
        (LEAST + "secret = ''", "secret must be non-empty text"),
        (LEAST + "secret = 5", "secret must be non-empty text"),
        (LEAST + "secret_file = '~nobody-of-this-name/k'", "secret_file: ~nobody-of-this-name/k"),
        ("[[webhooks]]\nurl = 'http://host/'\nsecret = 'x'", "app must be the name of an app"),
        (LEAST + "secret = 'x'\nname = 'a b'", "name must be at most 63 letters, digits"),
        (LEAST + "secret = 'x'\nfrom = -1", "from must be a block"),
        (LEAST + "secret = 'x'\nfrom = true", "from must be a block"),
        (LEAST + "secret = 'x'\nfrom = '7'", "from must be a block"),
        (LEAST + "secret = 'x'\nopcode = 'rr'", "opcode must be one or several of these: characters"),
        (LEAST + "secret = 'x'\nopcode = []", "opcode must be one or several"),
        (LEAST + "secret = 'x'\ntable = ['']", "table must be one or several of these: names of tables"),
        (2 * (LEAST + "secret = 'x'\n"), "two [[webhooks]] are named a"),
    ],
)
def test_a_mistake_names_the_webhook(tmp_path: Path, text: str, message: str) -> None:
    """The message says which key of which webhook is wrong, and what is allowed."""
    with pytest.raises(UsageError) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "virtualchain.toml"))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "5",
            "''",
            "'s3cret'",
            "'ftp://s3cret'",
            "'http:///s3cret'",
            "'http://h:x/s3cret'",
            "'http://h:0/s3cret'",
        ),
        *("'http://u:s3cret@h/'", "'http://h/#s3cret'", "'http://h/s3cret\u00e9'", "'http://h/ s3cret'"),
        *("'http://[s3cret/'", "'http://h:99999/s3cret'"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    """It may hold a token."""
    with pytest.raises(UsageError, match="url must be an address such as") as refused:
        read(tmp_path, f"[[webhooks]]\napp = 'a'\nsecret = 's3cret'\nurl = {url}")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    """It is read when deliveries begin: other commands need no access to it."""
    missing, empty = read(
        tmp_path, LEAST + "secret_file = 'key'\n" + LEAST.replace("'a'", "'b'") + "secret_env = 'HOOK'"
    )
    with pytest.raises(UsageError, match=r"secret of webhook a: .*key cannot be read: No such file"):
        missing.key({})
    (tmp_path / "key").write_text("\n")
    with pytest.raises(UsageError, match="key is empty"):
        missing.key({})
    with pytest.raises(UsageError, match="secret of webhook b: the environment variable HOOK is not set"):
        empty.key({"HOOK": ""})
    assert empty.key({"HOOK": "k"}) == b"k"
