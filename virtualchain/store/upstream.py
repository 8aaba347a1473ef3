"""Another deployment's tape as a source: an upstream, which a state node reads in SQL, as one of its readers.

Its active chain is the tape as it is now. Each answer is read in one transaction, and the inputs of a block
together with its header, so that no rollback there can mix two branches. Nothing that follows from a raw
transaction is believed: id, payloads, magics, senders and fee are computed here, as from a node's blocks.
What a tape cannot show is that no input was left out, nor the witnesses, nor what was spent (docs/trust.md).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar, cast

import psycopg

from virtualchain.background import begin
from virtualchain.bitcoin.block import Candidate, Scan, Scanner, inputs
from virtualchain.bitcoin.compiled import outpoints
from virtualchain.bitcoin.gate import check_header
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.inclusion import Inclusion, check_inclusion
from virtualchain.bitcoin.layout import MOST_TRANSACTIONS
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.senders import Senders
from virtualchain.bitcoin.source import MOST_HEADERS, BlockSource, Tip, Wake, at_height
from virtualchain.bitcoin.transaction import read_outputs, read_transaction, unpack_outputs, without_witness
from virtualchain.errors import (
    DatabaseUnavailable,
    MalformedBlock,
    MissingData,
    NodeError,
    NodeUnavailable,
    StoreError,
    UpstreamLacks,
    UsageError,
    quoted,
)
from virtualchain.model import (
    Block,
    Coinbase,
    Input,
    RestOfBlock,
    ScannedBlock,
    SpentOutput,
    SpentOutputs,
    Verification,
)
from virtualchain.store import revision
from virtualchain.store.database import connect_reader, is_pooled, pin_transaction, redact
from virtualchain.store.failures import is_transient
from virtualchain.store.patience import Patience
from virtualchain.store.sql import queries

_Q = queries("upstream")
_OLDEST: Final = "0024"
"""The first revision of the schema whose views show all that a state node needs."""
_BLOCKS: Final = 500
"""Blocks whose inputs are read at once, at most."""
_ALLOWED: Final = 8_000_000
"""Bytes of inputs that are read at once, unless one block has more."""
_PAUSES: Final = (0.0, 0.5, 2.0)
"""Seconds before each further attempt after a transient fault."""
_SLICE: Final = 0.5
"""Seconds after which whoever listens looks whether the source was closed."""
_AGAIN: Final = 10.0
"""Seconds after which it tries again to listen: a standby may have been promoted."""
_ADD: Final = "add the app there (`virtualchain run --no-apply --app …` searches without applying)"
_T = TypeVar("_T")


def is_upstream(source: object) -> bool:
    """Return whether a source is named by the URL of a deployment's database."""
    return isinstance(source, str) and source.startswith(("postgresql://", "postgres://"))


class UpstreamSource:
    """The tape of the deployment at `url` as a `BlockSource` and an `InputSource`.

    The URL may name several servers. It is read as `virtualchain db grant-reader` allows. `expected` is the
    network that it must be on; None accepts any. Raises NodeUnavailable if the database does not answer or
    holds no deployment yet, NodeError if it cannot be used or is on another network.
    """

    def __init__(
        self, url: str, expected: Network | None = None, report: Callable[[str], object] = str
    ) -> None:
        self._url = url
        self._patience = Patience(report, lambda: not self._closing.is_set())
        self._closing = threading.Event()
        self._lock = threading.RLock()
        self._connection: psycopg.Connection | None = None
        self._is_pooled = False
        self._wake = Wake()
        self._listens = False
        self._network: Network | None = expected
        self.confirmations = self._ask(self._confirmations)
        """How many confirmations it waits for before it takes a block, as its writer was started last."""

    def __str__(self) -> str:
        return f"the upstream {redact(self._url)}"

    @property
    def network(self) -> Network:
        """The network that the upstream follows."""
        assert self._network is not None, "it was read when the source was opened"
        return self._network

    def server(self) -> tuple[Any, ...]:
        """Return what tells its database from any other; see `is_same_database`."""
        return self._ask(server_of)

    def tip(self) -> Tip:
        """Return the last block of its tape; below any block if that is empty."""

        def ask(connection: psycopg.Connection) -> Tip:
            row = connection.execute(_Q["tip"]).fetchone()
            return Tip(-1, "") if row is None else Tip(answers.height(row[0]), answers.block_hash(row[1]))

        return self._ask(ask)

    def block_hash(self, block_id: int) -> str:
        """Return the hash of its block at a height; raises MissingData if it has none there."""

        def ask(connection: psycopg.Connection) -> str:
            row = connection.execute(_Q["hash"], {"block_id": block_id}).fetchone()
            if row is None:
                self._refuse_below_bottom(connection, block_id)
                raise MissingData(f"{self} has no block {block_id}")
            return str(row[0])

        return self._ask(ask)

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers that follow a block on its tape, see `BlockSource`."""
        headers = self._headers(block_id, block_id + MOST_HEADERS)
        return headers[1:] if headers and headers[0].hash == block_hash else None

    def header(self, block_id: int, block_hash: str) -> Block:
        """Return the header of a block on its tape, see `InputSource`."""
        headers = self._headers(block_id, block_id)
        if not headers or headers[0].hash != block_hash:
            raise self._changed(block_id, block_hash)
        return headers[0]

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False: a tape does not say why a branch was left."""
        del block_id, block_hash
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Raise MissingData: it has no blocks."""
        raise MissingData(f"{self} has inputs, not blocks: for block {block_hash}, name a node (--bitcoin)")

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Raise MissingData: it knows only what inputs spend."""
        del transactions
        raise MissingData(f"{self} knows only what inputs spend: for block {block_hash}, name a node")

    def scanned(
        self, headers: Sequence[Block], scanner: Scanner, senders: Senders, verify: Verification
    ) -> list[ScannedBlock]:
        """Return the inputs of some of its blocks, see `InputSource`."""
        asked = headers[:_BLOCKS]
        count, rows = self._ask(lambda connection: self._read(connection, asked, scanner))
        blocks: list[ScannedBlock] = []
        for header in asked[:count]:
            try:
                with at_height(header.block_id):
                    of_block = rows.get(header.block_id, ())
                    blocks.append(self._checked(header, of_block, scanner, senders, verify))
            except NodeError:
                if blocks:
                    break  # it is raised when its turn comes
                raise
        return blocks

    def wait(self, timeout: float) -> None:
        """Sleep until the upstream notifies of a block or a rollback, see `BlockSource`.

        On a standby and behind a pooler there are no notifications.
        """
        if not self._listens:
            self._listens = True
            begin(self._listen)
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from another thread or a signal handler."""
        self._wake.call()

    def cut(self) -> None:
        """Have all further questions fail, and the one under way within seconds; for another thread."""
        self._closing.set()

    def close(self) -> None:
        """Close the connections."""
        self._closing.set()
        self._wake.call()
        with self._lock:
            self._drop()

    # Questions

    def _ask(self, question: Callable[[psycopg.Connection], _T]) -> _T:
        """Ask in a read-only transaction that sees the database at one moment; reconnect if needed."""
        with self._lock:
            for pause in (*_PAUSES, None):
                try:
                    connection = self._connection or self._connect()
                    with connection.transaction():
                        if self._is_pooled:
                            pin_transaction(connection)
                        return self._answered(question, connection)
                except (psycopg.Error, StoreError) as error:
                    self._drop()
                    failure = self._failure(error)
                    if pause is None or self._closing.is_set() or not isinstance(failure, NodeUnavailable):
                        raise failure from error
                except BaseException:
                    if self._connection is not None and self._connection.closed:
                        self._drop()
                    raise
                self._closing.wait(pause)
        raise AssertionError("the last attempt returns or raises")

    def _answered(self, question: Callable[[psycopg.Connection], _T], connection: psycopg.Connection) -> _T:
        """Ask, and turn the errors of taking rows apart that no deployment's views have into a NodeError."""
        try:
            return question(connection)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise NodeError(
                f"{self} shows what no deployment does ({quoted(str(error))}): use another one, or a node"
            ) from error

    def _failure(self, error: psycopg.Error | StoreError) -> NodeError:
        """Describe a failure: NodeUnavailable if a later attempt may succeed."""
        text = " ".join(str(error).split())
        if isinstance(error, StoreError):
            return (NodeUnavailable if isinstance(error, DatabaseUnavailable) else NodeError)(
                f"{self}: {text}"
            )
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return NodeError(f"{self}: {text}: its owner grants that with `virtualchain db grant-reader`")
        if is_transient(error) or self._closing.is_set():
            return NodeUnavailable(f"{self} failed: {text}")
        return NodeError(f"{self} failed: {text}")

    def _connect(self) -> psycopg.Connection:
        """Connect, and check that it is the deployment of before: another server may answer now."""
        connection = connect_reader(self._url, self._patience)
        try:
            self._is_pooled = is_pooled(connection)
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.transaction():
                if self._is_pooled:
                    pin_transaction(connection)
                self._check_deployment(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _check_deployment(self, connection: psycopg.Connection) -> None:
        now = revision.current(connection)
        row = None if now is None else connection.execute(_Q["deployment"]).fetchone()
        if now is not None and now < _OLDEST:
            raise NodeError(
                f"{self} has the schema of an earlier version ({now}): upgrade virtualchain there, and have "
                "its owner run `virtualchain migrate`"
            )
        if row is None:
            raise NodeUnavailable(f"{self} holds no deployment that has started yet")
        try:
            follows = network(row[0])
        except (AttributeError, TypeError, UsageError) as error:
            raise NodeError(
                f"{self} follows {quoted(row[0])}, which is no network that is known here"
            ) from error
        expected = self._network or follows
        if (follows.name, row[1]) != (expected.name, expected.genesis_hash):
            raise NodeError(
                f"{self} follows {row[0]} (genesis {row[1]}), but {expected.name} was asked for: name the "
                f"database of a deployment on {expected.name}"
            )
        self._network = follows

    def _confirmations(self, connection: psycopg.Connection) -> int:
        row = connection.execute(_Q["deployment"]).fetchone()
        return 0 if row is None else int(row[3])

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _headers(self, first: int, last: int) -> list[Block]:
        limits = {"first": first, "last": last}

        def ask(connection: psycopg.Connection) -> list[Block]:
            rows = connection.execute(_Q["headers"], limits).fetchall()
            with self._naming():
                return [read_header(answers.height(block_id), header) for block_id, header in rows]

        return self._ask(ask)

    # Inputs

    def _read(
        self, connection: psycopg.Connection, headers: Sequence[Block], scanner: Scanner
    ) -> "tuple[int, dict[int, list[_Row]]]":
        """Read the inputs of the first of these blocks: of how many, and the rows by height."""
        first, last = headers[0].block_id, headers[-1].block_id
        now: dict[int, bytes] = dict(
            connection.execute(_Q["headers"], {"first": first, "last": last}).fetchall()
        )
        active = next((n for n, each in enumerate(headers) if now.get(each.block_id) != each.header), None)
        if active == 0:
            self._refuse_below_bottom(connection, first)
            raise self._changed(first, headers[0].hash)
        last = headers[active - 1].block_id if active else last
        last = self._searched(connection, first, last, scanner)
        magics = [each.magic for each in scanner.watches]
        stretch = {"first": first, "magics": magics, "apps": list(scanner.tracking)}
        limits = {**stretch, "last": last, "allowed": _ALLOWED}
        too_large = connection.execute(_Q["too_large"], limits).fetchone()
        if too_large is not None and too_large[0] is not None:
            last = max(first, too_large[0] - 1)
        rows: dict[int, list[_Row]] = {}
        with connection.cursor(binary=True) as cursor:
            for each in cursor.execute(_Q["inputs"], {**stretch, "last": last}):
                row = _Row(*each)
                of_block = rows.setdefault(row.block_id, [])
                row.require_form(of_block[-1].txindex + 1 if of_block else 0)
                of_block.append(row)
        return last - first + 1, rows

    def _searched(self, connection: psycopg.Connection, first: int, last: int, scanner: Scanner) -> int:
        """Return up to which block all was searched that the scanner looks for; raises UpstreamLacks."""
        asked = {
            "magics": [each.magic for each in scanner.watches],
            "tracking": list(scanner.tracking.values()),
        }
        known: dict[tuple[bytes, str], list[tuple[int, int | None]]] = {}
        for magic, rule, start, until in connection.execute(_Q["coverage"], asked).fetchall():
            known.setdefault((magic, rule), []).append((start, until))
        searches = {
            (each.magic, each.rule): f"searched for the magic {quoted(each.magic)} by the rule {each.rule}, "
            "with which an app here finds its inputs"
            for each in scanner.watches
        } | {
            (
                b"",
                rule,
            ): f"taken there by app {app}, with the rules and the code of here, which decide what it "
            "sees as it tracks outputs"
            for app, rule in scanner.tracking.items()
        }
        for search, what in searches.items():
            until = _covered_until(known.get(search, ()), first, last)
            if until < first:
                raise self._not_searched(connection, first, what, is_tracking=not search[0])
            last = until
        return last

    def _not_searched(
        self, connection: psycopg.Connection, block_id: int, what: str, *, is_tracking: bool
    ) -> UpstreamLacks:
        row = connection.execute(_Q["deployment"]).fetchone()
        pruned = None if row is None else row[2]
        if pruned is not None and block_id < pruned:
            return UpstreamLacks(
                f"{self} has pruned the inputs of blocks below {pruned}, and block {block_id} is needed: use "
                "an upstream that keeps them, a node, or a checkpoint of the app"
            )
        advice = "run that app there, without --no-apply" if is_tracking else _ADD
        return UpstreamLacks(f"{self}: block {block_id} was not {what}: {advice}")

    def _refuse_below_bottom(self, connection: psycopg.Connection, block_id: int) -> None:
        """Raise UpstreamLacks for a block in front of the first one of its tape."""
        row = connection.execute(_Q["bottom"]).fetchone()
        if row is not None and block_id < row[0]:
            raise UpstreamLacks(
                f"{self} begins with block {row[0]}, and block {block_id} is needed: {_ADD}, or begin "
                f"here with a checkpoint of block {row[0] - 1} or a later one"
            )

    def _changed(self, block_id: int, block_hash: str) -> NodeUnavailable:
        return NodeUnavailable(f"{self} does not hold block {block_id} ({block_hash}) now: ask again")

    def _checked(
        self,
        header: Block,
        rows: "Sequence[_Row]",
        scanner: Scanner,
        senders: Senders,
        verify: Verification,
    ) -> ScannedBlock:
        """Make a block's inputs of rows, and check them."""
        if verify != "off":
            check_header(header, self.network, is_stored=True)
        by_place = {row.txindex: row for row in rows}

        def make(candidates: Iterable[Candidate | None]) -> tuple[Input, ...]:
            with self._naming():
                scan = Scan(header, tuple(each for each in candidates if each is not None), self.network)
                # It is asked nothing else, as it states neither transactions nor heights by themselves.
                source = cast("BlockSource", _Spent(self, by_place))
                made = inputs(scan, senders.spent(source, scan))
                return tuple(self._proved(header, item, by_place[item.txindex], verify) for item in made)

        def chosen(txindex: int, needs_heights: bool) -> Candidate:
            raw = by_place[txindex].raw
            return Candidate(txindex, read_transaction(raw, self.network), raw, (), needs_heights)

        def take(requested: Mapping[int, bool]) -> tuple[Input, ...]:
            return make(chosen(*each) for each in sorted(requested.items()))

        with_payload = make(scanner.candidate(row.txindex, row.raw, row.magics) for row in rows)
        if not scanner.tracking:
            return ScannedBlock(header, with_payload)
        with self._naming():
            spends, ids = (
                _spends(rows),
                {row.txindex: bytes.fromhex(read_outputs(row.raw)[0]) for row in rows},
            )
        return ScannedBlock(header, with_payload, RestOfBlock(spends, ids.__getitem__, take))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Name the upstream in errors of its rows."""
        try:
            yield
        except (MalformedBlock, IndexError) as error:
            raise MalformedBlock(f"{self}: {error}; use another upstream, or a node") from error
        except MissingData as error:
            raise UpstreamLacks(
                f"{self}: {error}; a tape has nothing more to show: --senders node takes its word"
            ) from error

    def _proved(self, header: Block, item: Input, row: "_Row", verify: Verification) -> Input:
        """Check that an input is in its block, if a branch was kept; with "merkle", one must have been."""
        if row.branch is None or row.coinbase is None or row.coinbase_branch is None:
            if verify == "merkle":
                raise UpstreamLacks(
                    f"{self} keeps no Merkle branch of transaction {item.txindex} ({item.txid}) of block "
                    f"{header.block_id}: run it with --verify merkle from its first block on, or follow it "
                    "with --verify headers"
                )
            return item
        transaction = without_witness(item.raw)
        inclusion = Inclusion(item.txindex, transaction, row.branch, row.coinbase, row.coinbase_branch)
        try:
            check_inclusion(inclusion, header, self.network)
        except (MalformedBlock, IndexError) as error:
            raise MalformedBlock(
                f"block {header.block_id} ({header.hash}) is not shown to hold transaction {item.txindex} "
                f"({item.txid}): {error}"
            ) from error
        return replace(item, branch=row.branch, coinbase=Coinbase(row.coinbase, row.coinbase_branch))

    def _listen(self) -> None:
        """Wake whoever waits when the upstream notifies, until the source is closed."""
        while not self._closing.is_set():
            with suppress(psycopg.Error, StoreError), closing(connect_reader(self._url)) as connection:
                if not is_pooled(connection):
                    connection.execute(_Q["listen"])  # fails on a standby
                    self._wake.call()
                    while not self._closing.is_set():
                        for _ in connection.notifies(timeout=_SLICE, stop_after=1):
                            self._wake.call()
            self._closing.wait(_AGAIN)


class _Row(NamedTuple):
    """An input as the upstream's view has it."""

    block_id: int
    txindex: int
    raw: bytes
    magics: Sequence[bytes]
    spent: bytes
    spent_at: Sequence[int] | None
    branch: bytes | None
    coinbase: bytes | None
    coinbase_branch: bytes | None

    def require_form(self, lowest: int) -> None:
        """Raise ValueError if a value has no type of the view's, or the place is none from `lowest` on."""
        proof = (self.branch, self.coinbase, self.coinbase_branch)
        values = (self.raw, self.spent, *self.magics, *(part for part in proof if part is not None))
        if not all(isinstance(value, bytes) for value in values):
            raise ValueError("a value of an input is not of bytes")
        if not all(type(number) is int for number in (self.block_id, self.txindex, *(self.spent_at or ()))):
            raise ValueError("a place is not a whole number")
        if not lowest <= self.txindex < MOST_TRANSACTIONS:
            raise ValueError(f"transaction {self.txindex} where one from {lowest} on is next")


class _Spent:
    """What the rows of a block say that its inputs spend, as `Senders` asks a source for it."""

    def __init__(self, upstream: UpstreamSource, rows: Mapping[int, _Row]) -> None:
        self._upstream = upstream
        self._rows = rows

    def __str__(self) -> str:
        return str(self._upstream)

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> SpentOutputs:
        """Return the outputs that some transactions of the block spend, with heights if they are known."""
        del block_hash
        return SpentOutputs({txindex: _outputs(self._rows[txindex]) for txindex in transactions})


def server_of(connection: psycopg.Connection) -> tuple[Any, ...]:
    """Return what tells the database of a session from any other, for `is_same_database`."""
    row = connection.execute(_Q["server"]).fetchone()
    assert row is not None, "the session has a database"
    return tuple(row)


def is_same_database(upstream: tuple[Any, ...], own: tuple[Any, ...]) -> bool:
    """Return whether an upstream is the deployment's own database, or a standby of it.

    A copy that was started as a primary of its own is another database.
    """
    is_standby, started = upstream[3], upstream[2]
    return upstream[:2] == own[:2] and (is_standby or started == own[2])


def _outputs(row: _Row) -> list[SpentOutput]:
    """Return what a row says that its transaction spends; a coinbase spends nothing."""
    outputs = list(unpack_outputs(row.spent)) if row.txindex else []
    if row.spent_at is None:
        return outputs
    if len(row.spent_at) != len(outputs):
        raise MalformedBlock(
            f"transaction {row.txindex} has {len(outputs)} outputs and {len(row.spent_at)} places"
        )
    return [output._replace(made_at=place) for output, place in zip(outputs, row.spent_at, strict=True)]


def _spends(rows: Sequence[_Row]) -> list[bytes]:
    """Return what each of a block's transactions spends, by txindex; nothing of those that have no row."""
    spends = [b""] * (rows[-1].txindex + 1 if rows else 0)
    for row in rows:
        if row.txindex:
            spends[row.txindex] = outpoints(row.raw, 0)
    return spends


def _covered_until(rows: Sequence[tuple[int, int | None]], first: int, last: int) -> int:
    """Return up to which block, at most `last`, stretches in order cover all from `first` on."""
    reached = first - 1
    for start, until in rows:
        if start <= reached + 1:
            reached = last if until is None else max(reached, until)
    return min(reached, last)
