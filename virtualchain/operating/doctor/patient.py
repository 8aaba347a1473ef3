"""What the checks look at: the settings, the node and the database, each opened when it is first needed.

Nothing here changes anything. The database is read in read-only transactions, one for each check; an embedded
server is not started; and whatever does not answer is asked once, not by every check.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin import networks
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.node.answers import well_formed
from virtualchain.bitcoin.node.client import Rest, Rpc
from virtualchain.bitcoin.node.login import Login, NodeUrl, find_login, read_url
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.node.several import files_of_one
from virtualchain.bitcoin.node.transport import tls_for
from virtualchain.engine.expectations import Expect
from virtualchain.errors import NodeError, UsageError, VirtualchainError
from virtualchain.loading import load_app
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.settings import Settings
from virtualchain.store.database import connect_reader, is_pooled, pin_transaction, redact
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.patience import Patience, Session
from virtualchain.store.sql import queries

_Q = queries("doctor")
_STATEMENT: Final = 4_000
"""Milliseconds for one statement: less than the silence after which a session is given up."""
_LARGEST: Final = 2**63 - 1
_LONGEST_LIST: Final = 1000


class Unknown(Exception):
    """A check cannot know what it asks for; its text says why."""


class Away(Exception):
    """The node or the database does not answer; the text says why and what to do, on one line."""

    def __init__(self, observed: str, advice: str) -> None:
        super().__init__(observed)
        self.advice = advice


class Node:
    """A node of the settings, asked over JSON-RPC and REST."""

    def __init__(self, settings: Settings, place: int, network: Network | None) -> None:
        """Read the address of the node at a place, and its login; raises UsageError."""
        port = (network or networks.NETWORKS["mainnet"]).rpc_port
        self._expected = network
        self._text = named_nodes(settings)[place] or f"http://127.0.0.1:{port}"
        self.url: NodeUrl = read_url(self._text, network)
        self._cookie, self._cacert = settings.cookie, settings.cacert
        if len(named_nodes(settings)) > 1:
            self._cookie, self._cacert = files_of_one(self.url, settings.cookie, settings.cacert)
        self.publisher: str | None = settings.zmq if place == 0 else None
        """Where it should publish blocks; None if it is asked for them."""
        tls = tls_for(self.url, self._cacert)
        self.login: Login = find_login(self.url, self._cookie, network)
        self.is_busy = False
        """Whether it has not answered the last question."""
        self._rpc = Rpc(self.url, self.login, tls)
        self._rest = Rest(self.url, tls)

    def ask(self, method: str, *parameters: object) -> Any:  # noqa: ANN401 - any JSON
        """Call a method; raises NodeError."""
        with self._asked():
            return self._rpc.call(method, *parameters)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False

    def look(self, method: str) -> "Answer":
        """Call a method that answers with an object; raises NodeError."""
        with well_formed(self.url, method):
            return Answer(self.url, method, dict(self.ask(method)))

    @cached_property
    def chain(self) -> "Answer":
        """What the node says of its chain."""
        return self.look("getblockchaininfo")

    @cached_property
    def peers(self) -> "Answer":
        """What the node says of itself and its peers."""
        return self.look("getnetworkinfo")

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active block at a height; raises MissingData, NodeError."""
        with well_formed(self.url, "getblockhash"):
            return answers.block_hash(self.ask("getblockhash", block_id))

    def offers(self, path: str) -> bool:
        """Return whether the node has anything at a path of its REST interface; raises NodeUnavailable."""
        with self._asked():
            return self._rest.offers(path)

    def network(self) -> Network:
        """Return the node's network; raises NodeError if it is another one than that of the deployment."""
        with self._asked():
            source = open_source(
                self._text,
                self._cookie,
                self._expected,
                rest=False,
                cacert=self._cacert,
                warn=_ignore,
            )
        with closing(source):
            return source.network

    def close(self) -> None:
        """Close the connections."""
        self._rpc.close()
        self._rest.close()


def named_nodes(settings: Settings) -> Sequence[str | None]:
    """Return the addresses of the nodes; None stands for the one on this machine."""
    return settings.bitcoin or (None,)


def _ignore(_: str) -> None:
    """Leave out a warning: a check of its own repeats it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A node's answer, whose parts may be missing or of any type; malformed ones raise NodeError."""

    url: NodeUrl
    method: str
    content: Mapping[str, Any]

    def number(self, name: str, default: int | None = None) -> int:
        """Return a whole number of at most 63 bits, perhaps negative."""
        with well_formed(self.url, self.method):
            value = self.content[name] if default is None else self.content.get(name, default)
            number = answers.whole_number(value)
            if abs(number) > _LARGEST:
                raise ValueError(f"{name} is a number that no Bitcoin node states")
            return number

    def text(self, name: str) -> str:
        """Return a text; "" if it is missing."""
        with well_formed(self.url, self.method):
            value = self.content.get(name, "")
            if not isinstance(value, str):
                raise TypeError(name)
            return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, which older nodes state as one text; empty if it is missing."""
        with well_formed(self.url, self.method):
            value = self.content.get(name, [])
            texts = [value] if isinstance(value, str) else list(value)[:_LONGEST_LIST]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError(name)
            return [text for text in texts if text]

    def is_set(self, name: str) -> bool:
        """Return whether a switch is on; False if it is missing."""
        return self.content.get(name) is True


class Database:
    """The database of the settings, read in one session."""

    def __init__(self, url: str) -> None:
        """Connect; raises StoreError, UsageError."""
        self.url = url
        self.name = redact(url)
        self._connection = connect_reader(url)
        self._is_pooled = is_pooled(self._connection)
        views.set_up(self._connection)
        if isinstance(self._connection, Session):
            # A server that hangs ends the session; no statement takes so long, as the server cancels it.
            self._connection.patience = Patience(may_continue=lambda: False)

    @property
    def connection(self) -> psycopg.Connection:
        """The session, in a read-only transaction that lasts until `rest`."""
        connection = self._connection
        if connection.info.transaction_status == TransactionStatus.IDLE:
            pin_transaction(connection)
            connection.execute(_Q["limit"], {"milliseconds": str(_STATEMENT)})
        return connection

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler is in between."""
        return self._is_pooled

    @property
    def is_busy(self) -> bool:
        """Whether a statement is running."""
        return self._connection.info.transaction_status == TransactionStatus.ACTIVE

    @property
    def is_lost(self) -> bool:
        """Whether the session has ended."""
        return self._connection.closed

    def rows(self, query: str, **parameters: object) -> list[Json]:
        """Return the rows of a query by the names of their columns; raises psycopg.Error."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_Q[query], parameters).fetchall()

    def row(self, query: str, **parameters: object) -> Json:
        """Return the only row of a query."""
        [row] = self.rows(query, **parameters)
        return row

    @cached_property
    def defaults(self) -> Mapping[str, str]:
        """The server's settings as a new session of this user in this database has them."""
        return {row["name"]: row["value"] for row in self.rows("settings")}

    def setting(self, name: str) -> str:
        """Return a setting's value in its base unit; raises Unknown if the server does not show it."""
        try:
            return self.defaults[name]
        except KeyError:
            raise Unknown(f"the server does not show its setting {name} to this user") from None

    @cached_property
    def server(self) -> Json:
        """What the server is: see the query."""
        return self.row("server")

    def rest(self) -> None:
        """End the transaction."""
        if not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.rollback()

    def close(self) -> None:
        """Close the session."""
        self._connection.close()


class Patient:
    """A deployment, and all that it depends on."""

    def __init__(self, settings: Settings, expect: Expect | None = None) -> None:
        """Take the settings, and what reads the digests that others expect. Nothing is opened yet."""
        self.settings = settings
        self.expect = expect
        self._nodes: list[Node | Away | None] = [None for _ in named_nodes(settings)]
        self._database: Database | Away | None = None
        self._busy_with: int | Literal["database"] | None = None
        """What is being opened: the database, or a node, by its place."""

    # The database

    @property
    def database(self) -> Database:
        """The database; raises Unknown if it does not answer."""
        try:
            return self.open_database()
        except Away:
            raise Unknown("the database was not reached") from None

    def open_database(self) -> Database:
        """Return the database, and connect to it if that has not been tried, or if the session was lost.

        Raises Away.
        """
        if isinstance(self._database, Away):
            raise self._database
        if self._database is None or self._database.is_lost:
            self._busy_with = "database"
            try:
                opened = Database(self._database_url())
            except VirtualchainError as error:
                self._database = Away(str(error), "start the database, or correct --database")
                raise self._database from error
            except Away as away:
                self._database = away
                raise
            finally:
                self._busy_with = None
            return self._keep(opened)
        return self._database

    def _keep(self, opened: Database) -> Database:
        """Keep a session, unless the database was given up while it was opened."""
        if isinstance(self._database, Away):
            opened.close()
            raise self._database
        self._database = opened
        return opened

    @property
    def embedded(self) -> EmbeddedServer | None:
        """The embedded server if the database is one of its; it may not be running."""
        url = self.settings.database
        try:
            server = EmbeddedServer()
        except UsageError:  # it cannot run here
            return None
        return server if url is None or server.database_at(url) is not None else None

    def _database_url(self) -> str:
        if self.settings.database is not None:
            return self.settings.database
        server = EmbeddedServer()
        status = server.status()
        if status.address is None:
            raise Away(
                "there is no database yet: none is named, and the embedded server was never started",
                "name one with --database, or let `virtualchain sync` with an app create one",
            )
        if not status.running:
            raise Away(
                f"the embedded server in {status.folder} is not running",
                f"start it with `virtualchain db start`; its log is {status.log}",
            )
        return server.url

    @property
    def deployment(self) -> psycopg.Connection:
        """A session on a database that holds a deployment; raises Unknown if this one does not."""
        database = self.database
        if not database.row("has_schema")["is_there"]:
            raise Unknown("the database holds nothing of virtualchain's yet")
        return database.connection

    def apps(self) -> list[Json]:
        """Return the installed apps, as `views.apps` does; raises Unknown without a deployment."""
        return views.apps(self.deployment)

    # The nodes

    def open_nodes(self) -> Sequence["Node | Away"]:
        """Return every named node, which was asked for its chain once, or why it does not answer.

        Raises UsageError for an address that cannot be used.
        """
        for place, known in enumerate(self._nodes):
            if known is None:
                self._nodes[place] = self._open_node(place)
        return [node for node in self._nodes if node is not None]

    def _open_node(self, place: int) -> "Node | Away":
        self._busy_with = place
        try:
            node = Node(self.settings, place, self._expected_network())
            try:
                _ = node.chain
            except NodeError as error:
                node.close()
                return Away(str(error), "start the node, or correct --bitcoin and --cookie")
        finally:
            self._busy_with = None
        given_up = self._nodes[place]
        if given_up is not None:  # meanwhile
            node.close()
            return given_up
        return node

    def nodes(self) -> Sequence[Node]:
        """Return the nodes that answer; raises Unknown if none does, or if there is no node to ask."""
        if self.settings.blocks is not None:
            raise Unknown("blocks come from files")
        if self.settings.tape is not None:
            raise Unknown("blocks come from another deployment's tape")
        try:
            nodes = [node for node in self.open_nodes() if isinstance(node, Node)]
        except UsageError:
            nodes = []
        if not nodes:
            raise Unknown("the node was not reached")
        return nodes

    def followed_network(self) -> str | None:
        """Return the network that the deployment follows; None if that is not known."""
        try:
            return views.network(self.deployment)
        except (Unknown, psycopg.Error):
            self.rest()
            return None

    def _expected_network(self) -> Network | None:
        name = self.settings.network or self.followed_network()
        return None if name is None else networks.network(name)

    # The apps

    @cached_property
    def contracts(self) -> Sequence[Contract]:
        """The named apps, imported; raises UsageError."""
        return [read_contract(load_app(app.use)) for app in self.settings.apps]

    # Between checks

    def rest(self) -> None:
        """End what a check has begun."""
        if isinstance(self._database, Database):
            self._database.rest()

    def give_up(self, seconds: float) -> None:
        """Ask no more the node or the database if a check waits for its answer."""
        reason = f"it did not answer within {seconds:g} seconds"
        if self._busy_with == "database" or (isinstance(self._database, Database) and self._database.is_busy):
            self.give_up_database(reason)
        for place, node in enumerate(self._nodes):
            is_busy = isinstance(node, Node) and node.is_busy
            if is_busy or self._busy_with == place:
                self._nodes[place] = Away(reason, "find out why the node hangs")
                if isinstance(node, Node):
                    node.close()

    def give_up_database(self, reason: str) -> None:
        """Ask the database no more."""
        self._database = Away(reason, "find out why the server hangs")

    def close(self) -> None:
        """Close what is open."""
        for each in (*self._nodes, self._database):
            if isinstance(each, Node | Database):
                each.close()
