"""Every form of an address that PostgreSQL's programs take: sockets, services, password files, TLS, hosts."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql

from tests.integration.web.test_serving import get
from tests.support.pooler import pooled
from tests.support.serving import served
from virtualchain import StateEngine, watch
from virtualchain.errors import DatabaseUnavailable, StoreError
from virtualchain.examples import notary
from virtualchain.reading import views
from virtualchain.store.database import connect_reader, connect_writer, redact
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.state_files import default_folder
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

PASSWORD = "p@ss:w/o#r?d% '\"\\é"
"""It has whatever must be escaped in a URL, in libpq's keywords or in a password file."""
ACCESS = """
local   all all scram-sha-256
host    all old 127.0.0.1/32 md5
hostssl all secured 127.0.0.1/32 scram-sha-256
host    all secured 127.0.0.1/32 reject
host    all all 127.0.0.1/32 scram-sha-256
host    all all ::1/128 scram-sha-256
"""


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name
        self.certificate = self._sign(name, self._key.public_key(), is_authority=True)

    def issue(self, host: str) -> tuple[bytes, bytes]:
        """Return a certificate for a host, and its key (PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._sign(host, key.public_key(), is_authority=False), secret

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, is_authority: bool) -> bytes:
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, self._name)
        )
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Place:
    """A server with several ways in."""

    server: EmbeddedServer
    port: int
    folder: Path
    """Where clients have their files."""
    socket: Path
    has_tls: bool
    has_ipv6: bool

    def login(self, user: str = "odd") -> str:
        """Return user and password, as in a URL."""
        return f"{user}:{quote(PASSWORD, safe='')}"

    def write(self, name: str, text: str | bytes) -> str:
        """Write a file that only its owner can read; return its path."""
        file = self.folder / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o600)
        return str(file)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Run a server with a deployment, for roles that log in with SCRAM, md5, and over TLS alone."""
    binaries = next(iter(installations().values()))
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o711)
        server = EmbeddedServer(folder / "server", binaries=binaries, durable=False)
        stack.callback(server.stop)
        server.start()
        data, account = folder / "server" / "data", server_account()
        authority = Authority("ours")
        for name, content in zip(("server.crt", "server.key"), authority.issue("localhost"), strict=True):
            (data / name).write_bytes(content)
            (data / name).chmod(0o600)
            if account:
                os.chown(data / name, account.uid, account.gid)
        (data / "pg_hba.conf").write_text(ACCESS, encoding="ascii")
        for name, issuer in (("ours.pem", authority), ("others.pem", Authority("others"))):
            (folder / name).write_bytes(issuer.certificate)
        socket, port = folder / "server" / "run", server._port()
        options = {
            "listen_addresses": "127.0.0.1,::1",
            "port": str(port),
            "unix_socket_directories": str(socket),
            "max_connections": "14",
            "superuser_reserved_connections": "4",
            "ssl": "on",
        }
        has_tls = _restart(server, binaries, options)
        with server.connect_superuser("postgres") as admin:
            admin.execute("GRANT CREATE ON DATABASE virtualchain TO virtualchain")
            for role, method in (("odd", "scram-sha-256"), ("secured", "scram-sha-256"), ("old", "md5")):
                admin.execute(sql.SQL("SET password_encryption TO {}").format(sql.Literal(method)))
                statement = "CREATE ROLE {} LOGIN CREATEROLE PASSWORD {} IN ROLE virtualchain"
                admin.execute(sql.SQL(statement).format(sql.Identifier(role), sql.Literal(PASSWORD)))
                admin.execute(sql.SQL("ALTER ROLE {} SET role TO virtualchain").format(sql.Identifier(role)))
        with FakeNode() as node:
            node.mine([node.send(b"ntc" + bytes(32), "alice")])
            with StateEngine(notary.app, database=server.url, source=node.url, confirmations=0) as engine:
                engine.build()
        has_ipv6 = True
        try:
            psycopg.connect(server.url.replace("127.0.0.1", "[::1]")).close()
        except psycopg.OperationalError:
            has_ipv6 = False
        yield Place(server, port, folder, socket, has_tls, has_ipv6)


def _restart(server: EmbeddedServer, binaries: Path, options: dict[str, str]) -> bool:
    """Restart a server with other options; return whether its programs know TLS."""
    arguments = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())
    started = server._pg_ctl(binaries, "restart", "-m", "fast", "-l", server._log, "-o", arguments)
    if started.returncode == 0:
        return options["ssl"] == "on"
    assert options["ssl"] == "on", server._log.read_text(encoding="utf-8")[-1000:]
    return _restart(server, binaries, {**options, "ssl": "off"})


def forms(place: Place) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the forms: an address, and the environment that it needs."""
    secret = quote(PASSWORD, safe="")
    escaped = PASSWORD.replace("\\", "\\\\")
    passwords = place.write(
        "passwords", f"*:{place.port}:virtualchain:odd:{escaped.replace(':', chr(92) + ':')}\n"
    )
    services = place.write(
        "services",
        f"[chain]\nhost=127.0.0.1\nport={place.port}\ndbname=virtualchain\nuser=odd\npassword={PASSWORD}\n",
    )
    keywords = "'" + escaped.replace("'", "\\'") + "'"
    local = f"127.0.0.1:{place.port}"
    listed: dict[str, tuple[str, dict[str, str]]] = {
        "a URL": (f"postgresql://{place.login()}@{local}/virtualchain", {}),
        "keywords": (
            f"host=127.0.0.1 port={place.port} dbname=virtualchain user=odd password={keywords}",
            {},
        ),
        "parameters": (
            f"postgresql:///virtualchain?host=127.0.0.1&port={place.port}&user=odd&password={secret}",
            {},
        ),
        "md5": (f"postgresql://{place.login('old')}@{local}/virtualchain", {}),
        "a socket": (
            f"postgresql://{place.login()}@:{place.port}/virtualchain?host={quote(str(place.socket))}",
            {},
        ),
        "several hosts": (
            f"postgresql://{place.login()}@127.0.0.1:1,{local}/virtualchain?target_session_attrs=read-write",
            {},
        ),
        "a password file": (f"postgresql://odd@{local}/virtualchain", {"PGPASSFILE": passwords}),
        "a password file in the URL": (
            f"postgresql://odd@{local}/virtualchain?passfile={quote(passwords)}",
            {},
        ),
        "a service": ("postgresql:///?service=chain", {"PGSERVICEFILE": services}),
        "a service as a keyword": ("service=chain", {"PGSERVICEFILE": services}),
        "a service of the environment": ("postgresql://", {"PGSERVICEFILE": services, "PGSERVICE": "chain"}),
        "an odd encoding": (
            f"postgresql://{place.login()}@{local}/virtualchain",
            {"PGCLIENTENCODING": "SQL_ASCII", "PGOPTIONS": "-c statement_timeout=9999", "PGTZ": "Asia/Tokyo"},
        ),
    }
    if place.has_ipv6:
        listed["IPv6"] = f"postgresql://{place.login()}@[::1]:{place.port}/virtualchain", {}
    if place.has_tls:
        listed["TLS"] = _secured(place), {}
        listed["TLS with channel binding"] = f"{_secured(place)}&channel_binding=require", {}
    return listed


def _secured(place: Place, **changes: str) -> str:
    """Return the URL that checks the server's certificate."""
    parameters = {
        "sslmode": "verify-full",
        "sslrootcert": str(place.folder / "ours.pem"),
        "hostaddr": "127.0.0.1",
        **changes,
    }
    host = parameters.pop("host", "localhost")
    listed = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
    return f"postgresql://{place.login('secured')}@{host}:{place.port}/virtualchain?{listed}"


def test_every_form_connects(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers, readers and watches connect with each form, and no message shows the password."""
    for name, (url, environment) in forms(place).items():
        with monkeypatch.context() as patch:
            for variable, text in environment.items():
                patch.setenv(variable, text)
            with closing(connect_writer(url)) as connection:
                assert connection.execute("SELECT current_database()").fetchone() == ("virtualchain",), name
            with watch(url, from_block=102) as events:
                assert next(events).block_id == 102
            shown = redact(url)
            assert PASSWORD not in shown, name
            assert quote(PASSWORD, safe="") not in shown, name
            with pytest.raises(StoreError) as refused, views.snapshot(url) as connection:
                connection.execute("SELECT nonsense")
            assert PASSWORD not in f"{refused.value}"
            assert quote(PASSWORD, safe="") not in f"{refused.value}"


@pytest.mark.parametrize("name", ["a socket", "a password file", "a service"])
def test_the_explorer_is_served_from(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`serve` logs in as a reader over the same way in."""
    url, environment = forms(place)[name]
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)
    with served(url) as base:
        assert get(base, "/apps/notary").status == 200


def test_two_services_have_two_folders_of_saved_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may lead to different deployments, whose files must not get mixed up."""
    one, two = default_folder("service=one"), default_folder("service=two")
    assert one != two
    monkeypatch.setenv("PGSERVICE", "one")
    assert default_folder("postgresql://") == one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "elsewhere.example"}, "does not match host name .*use a name that the certificate has"),
        ({"sslrootcert": "others.pem"}, "certificate verify failed .*sslrootcert"),
        ({"sslrootcert": "missing.pem"}, "root certificate file .*sslrootcert"),
        ({"sslmode": "disable", "sslrootcert": ""}, "pg_hba.conf rejects .*must allow"),
    ],
)
def test_a_server_that_does_not_prove_its_name_is_refused(
    place: Place, changes: dict[str, str], message: str
) -> None:
    """A wrong host name, another authority, none, no encryption: one line that says what to do, at once."""
    if not place.has_tls:
        pytest.skip("this PostgreSQL was built without TLS")
    if changes.get("sslrootcert"):
        changes = {"sslrootcert": str(place.folder / changes["sslrootcert"])}
    _refused(_secured(place, **changes), message)


def _refused(url: str, message: str, *, later: bool = False) -> None:
    """Check that a connection is refused with a line; `later` says whether a later attempt may succeed."""
    for connect in (connect_writer, connect_reader):
        with pytest.raises(StoreError, match=message) as refused:
            connect(url)
        assert isinstance(refused.value, DatabaseUnavailable) == later
        text = f"{refused.value}"
        assert "\n" not in text
        assert PASSWORD not in text
        assert quote(PASSWORD, safe="") not in text


def test_what_is_mistyped_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is not there, a password that does not fit, channel binding without TLS."""
    url = f"postgresql://{place.login()}@127.0.0.1:{place.port}/virtualchain"
    monkeypatch.setenv("PGSERVICEFILE", place.write("empty", ""))
    _refused("service=nowhere", 'definition of service "nowhere" not found .*pg_service.conf')
    _refused(f"{url}?sslmode=disable&channel_binding=require", "channel binding .*TLS and SCRAM")
    _refused(f"postgresql://odd@127.0.0.1:{place.port}/virtualchain", "check the user and password")


@pytest.mark.parametrize(
    ("change", "undo", "message", "later"),
    [
        (
            "ALTER ROLE odd CONNECTION LIMIT 0",
            "ALTER ROLE odd CONNECTION LIMIT -1",
            "raise CONNECTION LIMIT",
            True,
        ),
        (
            "ALTER DATABASE virtualchain CONNECTION LIMIT 0",
            "ALTER DATABASE virtualchain CONNECTION LIMIT -1",
            "raise CONNECTION LIMIT",
            True,
        ),
        (
            "ALTER ROLE odd SET session_preload_libraries TO 'nothing_such'",
            "ALTER ROLE odd RESET session_preload_libraries",
            "nothing_such.*session_preload_libraries .*RESET",
            False,
        ),
    ],
)
def test_an_administrator_refuses_connections(
    place: Place, change: str, undo: str, message: str, later: bool
) -> None:
    """A limit may be raised while `run` waits; a missing library is final. Both say what to change."""
    url = f"postgresql://{place.login()}@127.0.0.1:{place.port}/virtualchain"
    with place.server.connect_superuser("postgres") as admin:
        admin.execute(change.encode())
        try:
            _refused(url, message, later=later)
        finally:
            admin.execute(undo.encode())
    connect_writer(url).close()


def test_no_connection_is_left(place: Place) -> None:
    """If others have all connections, the line says so, and a later attempt may succeed."""
    url = f"postgresql://{place.login()}@127.0.0.1:{place.port}/virtualchain"
    with ExitStack() as stack:
        for _ in range(10):
            try:
                stack.enter_context(psycopg.connect(url))
            except psycopg.OperationalError:
                break
        _refused(url, "raise CONNECTION LIMIT of the role or database, or max_connections", later=True)


def test_a_pooler_without_transactions_is_refused(place: Place) -> None:
    """In statement mode not even a reader works; the line says which modes do."""
    with pooled(place.server.url, "statement") as url:
        with (
            pytest.raises(StoreError, match="use a pool in transaction or session mode"),
            views.snapshot(url),
        ):
            pass
        with pytest.raises(StoreError, match="is a connection pooler"):
            connect_writer(url)
