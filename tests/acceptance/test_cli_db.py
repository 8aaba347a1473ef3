"""The commands db grant-reader and db revoke-reader, on the embedded server and on another one."""

import json
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import Inside
from tests.support.moving import an_app, story
from tests.support.servers import reachable_folder, value
from virtualchain import StateEngine
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode


@pytest.mark.parametrize("name", [None, "a second one"])
def test_a_reader_on_the_embedded_server_cannot_write_at_all(
    inside: Inside, fake_node: FakeNode, name: str | None
) -> None:
    """In each of its databases, a reader has no access to large objects and to the writer's lock either."""
    with reachable_folder() as folder:
        inside.set(VIRTUALCHAIN_HOME=str(folder.parent))
        server = EmbeddedServer(folder.parent / "postgresql", durable=False)
        try:
            url = server.start()
            if name is not None:
                url = server.create_database(name)
                inside.set(VIRTUALCHAIN_DATABASE=f"{url}?connect_timeout=20")
            story(fake_node, 1, 5)
            with StateEngine(an_app("one"), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()
            reader = json.loads(inside("--json", "db", "grant-reader", "analyst", "--login").out)
            assert reader["apps"] is None
            assert not [item for item in reader["remains"] if "large objects" in item or "locks" in item]
            assert value(reader["url"], "SELECT count(*) FROM one.owners") is not None
            status = inside("--json", "status", "--database", reader["url"], "--bitcoin", fake_node.url)
            assert json.loads(status.out)["network"] == "regtest"
            for attack in (
                "SELECT lo_create(0)",
                "SELECT lo_from_bytea(0, 'x')",
                "SELECT pg_try_advisory_lock(1986622068, 1667784041)",
                "SELECT pg_advisory_xact_lock_shared(1)",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    value(reader["url"], attack)
            with StateEngine(an_app("one"), database=url, source=fake_node.url, confirmations=0) as engine:
                engine.build()  # the writer still gets its lock
            revoked = inside("db", "revoke-reader", "analyst")
            assert revoked.out == "analyst can no longer read anything here; DROP ROLE removes it\n"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                value(reader["url"], "SELECT count(*) FROM one.owners")
        finally:
            server.stop()


def test_another_database_on_the_embedded_server(inside: Inside, fake_node: FakeNode) -> None:
    """It is created under any name, is ready for a deployment, and is separate from the first one."""
    with reachable_folder() as folder:
        inside.set(VIRTUALCHAIN_HOME=str(folder.parent))
        server = EmbeddedServer(folder.parent / "postgresql", durable=False)
        try:
            server.start()
            node = ("--bitcoin", fake_node.url, "--confirmations", 0, "--app", "apps")
            for name in ("regtest", "Other Chain", "ünïcode/%"):
                missing = inside("db", "url", name, code=2).err
                assert f"has no database {name}: `virtualchain db create {name}`" in missing
                url = inside("db", "create", name).out.strip()
                assert inside("db", "url", name).out.strip() == url
                assert value(url, "SELECT current_database()") == name
                assert (
                    value(url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
                )
                assert "has a database" in inside("db", "create", name, code=2).err
                inside("sync", "--database", url, *node)
                assert value(url, "SELECT block_id FROM virtualchain.apps") == fake_node.height
            first = server.url
            assert value(first, "SELECT to_regclass('virtualchain.apps')") is None
            for name in ("", "x" * 64, "ü" * 32, "a\nb"):
                assert "cannot name a database" in inside("db", "create", name, code=2).err
            assert "has a database virtualchain already" in inside("db", "create", "virtualchain", code=2).err
        finally:
            server.stop()


def test_a_reader_of_one_app(inside: Inside, database_url: str, fake_node: FakeNode) -> None:
    """--app limits the grant, remaining rights are listed, and unknown apps and unfit roles are refused."""
    role = f"{database_url.rpartition('/')[2]}:reader"
    with StateEngine(
        an_app("one"), an_app("two"), database=database_url, source=fake_node.url, confirmations=0
    ) as engine:
        engine.build()
    here = ("--database", database_url)
    granted = inside(*here, "db", "grant-reader", role, "--app", "one").out
    assert granted.splitlines()[0] == f"{role} may read the views of one"
    assert "may also" in granted
    may_use = "SELECT has_schema_privilege('{}', '{}', 'USAGE')"
    assert value(database_url, may_use.format(role, "one")) is True
    assert value(database_url, may_use.format(role, "two")) is False
    assert "one, two" in inside(*here, "db", "grant-reader", role, "--app", "none", code=2).err
    refused = inside(*here, "db", "grant-reader", "virtualchain", code=2)
    assert "the role virtualchain can create roles" in refused.err
    inside(*here, "db", "revoke-reader", "nobody", code=2)


def test_sql_runs_as_a_reader_if_there_is_one(inside: Inside, database_url: str, fake_node: FakeNode) -> None:
    """What the engine alone may read is denied then, unless one's own rights are asked for."""
    role = f"{database_url.rpartition('/')[2]}:reader"
    with StateEngine(an_app("one"), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    here = ("--database", database_url)
    user = ("SELECT current_user AS is, count(*) FROM owners, blocks",)
    secret = ("SELECT count(*) FROM vc.blocks",)
    assert json.loads(inside(*here, "sql", "--json", *user).out)[0]["is"] == "virtualchain"
    inside(*here, "sql", *secret)
    inside(*here, "db", "grant-reader", role)
    assert json.loads(inside(*here, "sql", "--json", *user).out)[0]["is"] == role
    denied = inside(*here, "sql", *secret, code=2)
    assert f"it ran as the reader {role}: --own-rights" in denied.err
    inside(*here, "sql", *secret, "--own-rights")
    for attack in (
        "CREATE TEMPORARY TABLE x ()",
        "DELETE FROM vc.blocks",
        "SELECT pg_read_file('/etc/passwd')",
    ):
        inside(*here, "sql", attack, code=2)
    inside(*here, "db", "revoke-reader", role)
    assert json.loads(inside(*here, "sql", "--json", *user).out)[0]["is"] == "virtualchain"


def test_sql_refuses_a_superuser(inside: Inside, fake_node: FakeNode, tmp_path: Path) -> None:
    """A superuser can run programs in a read-only transaction, so it takes an option."""
    touched = tmp_path / "touched"
    with reachable_folder() as folder:
        server = EmbeddedServer(folder, durable=False)
        server.start()
        url = f"postgresql://postgres:{server._password('postgres')}@{server.url.rpartition('@')[2]}"
        inside("migrate", "--database", server.url)
        program = f"COPY (SELECT 1) TO PROGRAM 'touch {touched}'"
        for arguments in ((program,), ("SELECT 1",)):
            refused = inside("sql", *arguments, "--database", url, code=2)
            assert "user is a superuser, and a read-only transaction is no protection" in refused.err
        assert not touched.exists()
        assert inside("sql", "SELECT 1 AS a", "--own-rights", "--csv", "--database", url).out == "a\n1\n"
        with server.connect_superuser("virtualchain") as superuser:
            superuser.execute("GRANT pg_execute_server_program TO virtualchain")
        refused = inside("sql", program, "--database", server.url, code=2)
        assert "can run programs on the server" in refused.err
