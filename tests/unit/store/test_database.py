"""Messages about a database name its address and never a secret."""

import os
import socket
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest

from virtualchain.errors import StoreError, UsageError
from virtualchain.store.database import _refuse_standby, _refuse_unfit, _session_name, redact, resolve

URL = "postgresql://somebody@somewhere/something"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgres://u:secret@h/d?sslmode=require", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d?password=secret", "postgresql://u:***@h/d"),
        ("postgresql://u:se%2Fcret%40@[::1]:1/d", "postgresql://u:***@[::1]:1/d"),
        ("postgresql://u:secret@a:1,b:2/d", "postgresql://u:***@a:1,b:2/d"),
        ("postgresql:///d?host=/run/here", "postgresql://%2Frun%2Fhere/d"),
        ("host=h dbname=d user=u password='secret'", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=secret@", "postgresql://u:***@h/d"),
        ("postgresql:///d?host=@secret-less&password=secret", "postgresql://:***@%40secret-less/d"),
        ("postgresql://u:secret@a/d?target_session_attrs=read-write&passfile=/x", "postgresql://u:***@a/d"),
        ("service=s password=secret", "postgresql://:***@/?service=s"),
        ("hostaddr=::1 dbname=d password='se\\'cret \\\\'", "postgresql://:***@[::1]/d"),
        ("postgresql://u:se/cret@h/d", "postgresql://***"),
        ("postgresql://u:se?cret@h/d", "postgresql://***"),
        ("postgresql://u:s@ecret@h/d", "postgresql://***"),
        ("host=h secret", "postgresql://***"),
    ],
)
def test_shown_url_has_no_secret(url: str, shown: str) -> None:
    """The user, address and database are shown; a URL that cannot be parsed is not shown at all."""
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "somewhere",
        "mysql://u:secret@h/d",
        "postgresql://u:se/cret@h/d",
        "postgresql://u:s@ecret@h/d",
        "postgresql://u:sec#ret@h/d",
        "postgresql://u:secret@h/d?nonsense=1",
        "postgresql://u:%zzsecret@h/d",
    ],
)
def test_unreadable_url_is_refused_without_being_quoted(url: str) -> None:
    """A mistyped URL is a usage error; no part of its password shows, not even in a chained error."""
    with pytest.raises(UsageError, match="database URL") as refused:
        resolve(url)
    assert not any(part in str(refused.value) for part in ("cret", "ret@", "sec#"))
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_long_host_name_leaves_the_process_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL cuts application names at 63 bytes, but the end of ours identifies the process."""
    monkeypatch.setattr(socket, "gethostname", lambda: "ü" + "h" * 80)
    name = _session_name("writer")
    assert len(name.encode()) == 63
    assert name.startswith("virtualchain writer ?hhh")
    assert name.endswith(f"h:{os.getpid()}")


def connection(version: int, **status: str) -> psycopg.Connection:
    """Return a stand-in for a session's info."""
    info = SimpleNamespace(server_version=version, parameter_status=status.get)
    return cast("psycopg.Connection", SimpleNamespace(info=info))


def test_server_too_old_or_read_only_is_refused() -> None:
    """PostgreSQL 15 is the oldest supported version, and the writer needs a primary server."""
    _refuse_unfit(connection(150000, server_encoding="UTF8"), URL)
    with pytest.raises(StoreError, match="is PostgreSQL 14, and virtualchain needs 15 or later"):
        _refuse_unfit(connection(140019, server_encoding="UTF8"), URL)
    with pytest.raises(StoreError, match="encoded in SQL_ASCII"):
        _refuse_unfit(connection(180000, server_encoding="SQL_ASCII"), URL)
    _refuse_standby(connection(180000, in_hot_standby="off"), URL)
    with pytest.raises(StoreError, match="is a standby"):
        _refuse_standby(connection(180000, in_hot_standby="on"), URL)
