"""Scenarios: given these inputs in these blocks, expect these rows, ops, rejections and hashes.

::

    with scenario(app, database_url) as story:
        story.block(story.send("claim", document="aa" * 32, sender="alice"))
        story.fork(1, [story.send("claim", document="aa" * 32, sender="bob")])
        story.expect(rows={"documents": [{"owner": story.address("bob")}]})

The chain is a fake node's, the database and the engine are real.
"""

import inspect
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import Around, find_opcode, write_input, write_output
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.bitcoin.payload import split_payload
from virtualchain.engine.engine import StateEngine
from virtualchain.errors import AppHalted, UsageError, VirtualchainError, quoted
from virtualchain.store.sql import queries
from virtualchain.testing.advice import SAME_EVERYWHERE, UNDONE_WITH_ITS_BLOCK
from virtualchain.testing.blocks import bits_for, work
from virtualchain.testing.cases import MAX_START, AtOnce, Lowered
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.differences import Side, describe_difference, halt_alike
from virtualchain.testing.expecting import Book, Expectation, Names, Unexpected
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.halts import describe_halt
from virtualchain.testing.machines import Ran
from virtualchain.testing.tracing import tracing
from virtualchain.testing.transactions import Key, OwnedCoin, Tx, key
from virtualchain.testing.wallet import FEE, Recipient, as_key
from virtualchain.testing.wire import outpoint, read_transaction

_Q = queries("testing")
_OWN_NAMES: Final = ("app", "consensus_hash", "fee", "sender", "spends", "to")
"""What `Story.send` takes itself; a field with such a name is passed in `fields`."""

_NUMBERS: Final = count(1)
"""For the names of copies: several scenarios may be open at once."""

Output = tuple[Tx, int]
"""An output of a transaction, by its number."""


class ReplayDiffers(VirtualchainError, AssertionError):
    """An app has not what it has in a fresh replay of the same chain; the message says where."""


@contextmanager
def scenario(
    *apps: object,
    database_url: str | None = None,
    confirmations: int = 0,
    replays: bool = True,
    guard: bool = True,
) -> "Iterator[Story]":
    """Run apps (anything that `StateEngine` accepts) on a chain that the test writes block by block.

    The last argument may be the URL of the database, which must be new, as pytest's fixture `database_url`
    is; without one, a server is started for this scenario. Blocks are taken with so many `confirmations`,
    whatever the apps ask for. An app that begins too high for a test begins with the chain.

    After each fork, and at the end, what the apps have is compared with a fresh replay of the chain as it is
    then: raises ReplayDiffers, which names the first block, op, statement and row that differ. That takes
    about 0.2 seconds each time; `replays=False` leaves it out. The guard is on, unless `guard` is False:
    callbacks that read the clock, files and the like are errors (docs/mistakes.md). Raises UsageError if
    there is no app, or the database is not new.
    """
    if apps and isinstance(apps[-1], str) and database_url is None:
        *apps, database_url = apps  # type: ignore[assignment] # the last one is text
    named = [app for app in apps if isinstance(app, str)]
    if not apps or named:
        raise UsageError(
            "scenario takes one or more apps, and then the URL of a new database: scenario(app, database_url)"
            + (f"; {quoted(named[0])} is text: pass the app itself" if named else "")
        )
    with ExitStack() as opened:
        if database_url is None:
            database_url = opened.enter_context(running_server()).clone()
        story = opened.enter_context(_opened(apps, database_url, confirmations, replays=replays, guard=guard))
        yield story
        story.replay()


@contextmanager
def _opened(
    apps: Sequence[object], url: str, confirmations: int, *, replays: bool, guard: bool
) -> "Iterator[Story]":
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        contracts = [read_contract(app, "regtest") for app in apps]
        for contract in contracts if guard else ():
            require_no_mistake(contract)
        played = [
            _as_played(app, contract, confirmations) for app, contract in zip(apps, contracts, strict=True)
        ]
        _require_new(url)
        copies = _Copies(url) if replays else None
        if copies is not None:
            opened.callback(copies.drop_all)
        node = opened.enter_context(FakeNode())
        first = max((item.start for item in contracts if item.start <= MAX_START), default=0)
        if node.height + 1 < first:
            node.mine(n=first - node.height - 1)
        story = Story(node, played, contracts, url, confirmations, folder, copies, guard=guard)
        opened.callback(story.close)
        story.begin()
        yield story


def _as_played(app: object, contract: Contract, confirmations: int) -> object:
    """Return an app as it can be run on a short chain."""
    app = Lowered(app) if contract.start > MAX_START else app
    return AtOnce(app) if confirmations < (contract.confirmations or 0) else app


def _require_new(url: str) -> None:
    """Raise UsageError if the database at `url` has been used."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_Q["is_migrated"]).fetchone()
        last = connection.execute(_Q["last_block"]).fetchone() if row and row[0] else None
    if last is not None and last[0] is not None:
        raise UsageError(
            f"the database of a scenario must be new, but it has block {last[0]}: give each scenario its "
            "own, as pytest's fixture `database_url` does"
        )


class _Copies:
    """Databases that are as the scenario's own was at the beginning."""

    def __init__(self, url: str) -> None:
        """Copy the database at `url`; raise UsageError if that is impossible."""
        own = urlsplit(url).path.removeprefix("/")
        number = next(_NUMBERS)
        try:
            pristine = DatabaseServer(url, prefix=f"scenario_{number}", template=own).clone()
        except psycopg.errors.ObjectInUse as error:
            raise UsageError(
                "a scenario begins with a copy of its database, and somebody is connected to that: connect "
                "to it inside of the scenario, or leave the replays out (replays=False)"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise UsageError(
                "a scenario makes databases for its replays: let the role do so (ALTER ROLE … CREATEDB), or "
                "leave the replays out (replays=False)"
            ) from error
        self._server = DatabaseServer(
            url, prefix=f"replay_{number}", template=urlsplit(pristine).path.removeprefix("/")
        )

    @contextmanager
    def copy(self) -> Iterator[str]:
        """Yield the URL of a new copy."""
        url = self._server.clone()
        try:
            yield url
        finally:
            self._server.drop(url)

    def drop_all(self) -> None:
        """Drop what is left."""
        self._server.drop_template()


class Story:
    """A chain, its apps, and what is expected of them; `scenario` makes it."""

    def __init__(
        self,
        node: FakeNode,
        apps: Sequence[object],
        contracts: Sequence[Contract],
        url: str,
        confirmations: int,
        folder: Path,
        copies: _Copies | None,
        *,
        guard: bool,
    ) -> None:
        self.node = node
        """The node, for what a story has no words for: its transactions can be put into `block`, too."""
        self.database_url = url
        """The database with the apps' tables."""
        self._apps = apps
        self._contracts = {contract.name: contract for contract in contracts}
        self._confirmations = confirmations
        self._folders = (folder / str(number) for number in count())
        self._copies = copies
        self._guard = guard
        self._first = node.height + 1
        self._before = node.height
        self._names = Names()
        self._ran = Ran()
        self._engine: StateEngine | None = None
        self._is_replayed = True
        self._folder = next(self._folders)

    # What happens

    def send(
        self,
        what: str | bytes | None,
        /,
        *,
        sender: str | Key | Sequence[str | Key] | None = None,
        to: Sequence[tuple[Recipient, int]] = (),
        spends: Output | Sequence[Output] = (),
        fee: int = FEE,
        app: str | None = None,
        consensus_hash: str | None = None,
        fields: Mapping[str, object] | None = None,
        **more: object,
    ) -> Tx:
        """Sign a transaction, for `block` or `fork`; nobody needs funds.

        `what` is an opcode, as `App.build_input` names it, with its fields; or a whole payload, as bytes; or
        None for a transaction without a payload. Each sender, a name such as "alice" or `key(name, kind)`,
        adds an input; by default it is alice. `to` are further outputs, as names and satoshi, after that of
        the payload. `spends` are outputs of earlier transactions, as `(transaction, number)`; their inputs
        come after those of the senders, and without a sender there are no others. An encoder that needs a
        consensus hash gets the last one unless it is passed. Fields that are named like an argument of this
        method go into `fields`. With several apps, `app` names the one whose opcode it is.

        Raises UsageError for a payload that is not an input of any app, and for what `App.build_input`
        refuses; but whether the app accepts the input is not asked here.
        """
        values = {**(fields or {}), **more}
        coins = [self._owned(each) for each in _as_outputs(spends)]
        senders = _as_keys(sender, has_coins=bool(coins))
        recipients = [_as_recipient(each) for each in to]
        payer = (senders or [coin.key for coin in coins])[0]
        outputs: list[tuple[Recipient, int]] = list(recipients)
        name = "a payment"
        if what is not None:
            contract, payload, name = self._payload(what, app, values, consensus_hash, payer, recipients)
            outputs.insert(0, (write_output(contract, payload), 0))
        elif values:
            raise UsageError(f"a transaction without an opcode has no fields: {', '.join(values)}")
        tx = self.node.send(None, senders, outputs, fee=fee, coins=coins, is_alone=True)
        for owner in [*senders, *(as_key(who) for who, _ in recipients if not isinstance(who, bytes))]:
            self._names.add_key(owner)
        self._names.transactions[tx.txid] = f"{name} by {payer.name}"
        return tx

    def block(self, *transactions: Tx) -> int:
        """Mine a block of these transactions, in this order, and let the apps take it; return its height."""
        with self._naming():
            self.node.mine(_as_transactions("block", transactions))
        return self._take()

    def mine(self, n: int = 1) -> int:
        """Mine `n` empty blocks; return the height of the last one."""
        self.node.mine(n=n)
        return self._take()

    def fork(self, depth: int, *blocks: Iterable[Tx]) -> int:
        """Replace the last `depth` blocks by these, each a list of transactions; return the new height.

        The new branch wins however many blocks it has: its first one has the work for that. What was in the
        old blocks is gone unless it is in the new ones.
        """
        lists = [_as_transactions("fork", [] if isinstance(block, Tx) else list(block)) for block in blocks]
        if not lists or any(isinstance(block, Tx) for block in blocks):
            raise UsageError(
                "fork takes a list of transactions for each new block: story.fork(2, [send], [])"
            )
        most = self.node.height - self._before
        if not 1 <= depth <= most:
            raise UsageError(f"the story has {most} blocks so far: the last {depth} cannot be replaced")
        tree = self.node.chain.tree
        needed = tree.tip.chainwork - tree.chain[-depth - 1].chainwork + 1
        easy = tree.chain[1].block.bits
        bits = bits_for(needed - work(easy) * (len(lists) - 1)) if needed > work(easy) * len(lists) else easy
        with self._naming():
            self.node.reorg(depth, 1, lists[0], bits=bits)
            for block in lists[1:]:
                self.node.mine(block, bits=easy)
        height = self._take()
        self.replay()
        return height

    def restart(self) -> None:
        """End the engine, and begin another one in the same database, as after a crash."""
        self.close()
        self.begin()
        self._is_replayed = False

    # What is known

    @property
    def height(self) -> int:
        """The height of the chain's last block."""
        return self.node.height

    def address(self, name: str | Key, kind: str = "p2wpkh") -> str:
        """Return the address of a named key, as senders and recipients have it."""
        owner = name if isinstance(name, Key) else key(_as_name(name), kind)
        self._names.add_key(owner)
        return owner.address("regtest")

    def consensus_hash(self, block_id: int | None = None, app: str | None = None) -> str:
        """Return an app's consensus hash at a block, or at its last one.

        Raises UsageError if it has none there.
        """
        engine, name = self._running(), self._contract(app).name
        at = engine.get_current_block(name) if block_id is None else block_id
        digest = engine.get_consensus_at(at, name)
        if digest is None:
            raise UsageError(f"app {name} has no consensus hash at block {at}")
        return digest

    def state_hash(self, app: str | None = None) -> str:
        """Return an app's state hash at its last block; raises UsageError if it has none."""
        digest = self._book(self._contract(app)).state_hash()
        if digest is None:
            raise UsageError(f"app {self._contract(app).name} has no state hash")
        return digest

    def expect(
        self,
        app: str | None = None,
        *,
        rows: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
        ops: Sequence[Mapping[str, object]] | None = None,
        rejections: Sequence[tuple[str, str]] | None = None,
        consensus_hash: str | None = None,
        state_hash: str | None = None,
    ) -> None:
        """Compare what an app has now; only what is given is compared.

        `rows` are all rows of the named tables, in any order, with the columns that matter. `ops` are all ops
        that the chain's blocks hold, in order, with the fields that matter; the key "opcode" stands for the
        opcode, as `send` names it. `rejections` are all inputs that were rejected, in order, as steps and
        reasons. The hashes are those of the app's last block. With several apps, `app` names one.

        Raises Unexpected, which shows what differs and which inputs led there; UsageError if the test cannot
        mean what it says: a table, column or opcode that does not exist, or a value of another type than the
        column's.
        """
        contract = self._contract(app)
        if self.node.height == self._before and not self._is_begun():
            raise UsageError("nothing has happened yet: mine a block before you expect something of it")
        expectation = Expectation(rows, ops, rejections, consensus_hash, state_hash)
        if expectation.is_empty():
            raise UsageError(
                "expect compares what is passed: rows={table: […]}, ops=, rejections=, consensus_hash= or "
                "state_hash="
            )
        __tracebackhide__ = True  # pytest then shows the line of the test
        book = self._book(contract)
        differences = expectation.compare(book)
        if differences:
            raise Unexpected(self._report(book, differences))

    # Inside

    def begin(self) -> None:
        """Open the engine."""
        self._engine = self._open(self.database_url, self._folder)
        self._build(self._engine, self._ran)

    def close(self) -> None:
        """Close the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def replay(self) -> None:
        """Compare what the apps have with a fresh replay of the chain; raise ReplayDiffers."""
        if self._is_replayed or self._copies is None:
            return
        self._is_replayed = True
        ran = Ran()
        with self._copies.copy() as url:
            with self._open(url, next(self._folders)) as engine, suppress(AppHalted):
                self._build(engine, ran)
            if halt_alike(self._ran, ran):
                return  # which `block` has raised
            first = Side("the story", self.database_url, self._ran)
            second = Side("a fresh replay of its chain", url, ran)
            for name in self._contracts:
                lines = describe_difference(name, first, second, self._names.transactions)
                if lines:
                    listed = "\n".join(f"- {line}" for line in lines)
                    raise ReplayDiffers(
                        f"app {name} is other than in a fresh replay, after block {self.height}:\n{listed}\n"
                        f"Instead, {UNDONE_WITH_ITS_BLOCK}; {SAME_EVERYWHERE}."
                    )

    def _open(self, url: str, folder: Path) -> StateEngine:
        folder.mkdir(exist_ok=True)
        return StateEngine(
            *self._apps,
            database=url,
            source=self.node.url,
            confirmations=self._confirmations,
            state_folder=folder,
            history=None,
            guard=self._guard,
        )

    def _build(self, engine: StateEngine, ran: Ran) -> None:
        """Take all blocks; raise AppHalted if an app halts, with what it was about."""
        with tracing(ran.trace):
            halted: Mapping[str, AppHalted] = {}
            try:
                engine.build()
                halted = engine.halted()
            except AppHalted as halt:
                halted = engine.halted() or {"": halt}
        for app, error in halted.items():
            ran.halt = error.record
            message = describe_halt(app, error, self._names.transactions, ran.trace)
            raise AppHalted(message, error.record) from error.__cause__

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Add to an error what the transaction is that it speaks of."""
        try:
            yield
        except UsageError as error:
            named = [name for txid, name in self._names.transactions.items() if txid in str(error)]
            raise UsageError(f"{', '.join(named) or 'the block'}: {error}") from error

    def _take(self) -> int:
        self._is_replayed = False
        self._build(self._running(), self._ran)
        return self.node.height

    def _running(self) -> StateEngine:
        if self._engine is None:
            raise UsageError("the scenario has ended")
        return self._engine

    def _is_begun(self) -> bool:
        return not self._is_replayed

    def _contract(self, app: str | None) -> Contract:
        if app is None and len(self._contracts) == 1:
            return next(iter(self._contracts.values()))
        if app in self._contracts:
            return self._contracts[app]
        names = ", ".join(self._contracts)
        raise UsageError(
            f"name one of the apps {names}: app=…" if app is None else f"no app {app}: there is {names}"
        )

    def _book(self, contract: Contract) -> Book:
        at = self._running().get_current_block(contract.name)
        return Book(self.database_url, contract, self._names, at)

    def _payload(
        self,
        what: str | bytes,
        app: str | None,
        fields: Mapping[str, object],
        consensus_hash: str | None,
        payer: Key,
        to: Sequence[tuple[Recipient, int]],
    ) -> tuple[Contract, bytes, str]:
        """Return the app, the payload and a description of an input."""
        if isinstance(what, bytes):
            if fields:
                raise UsageError(f"a whole payload has no fields: {', '.join(fields)}")
            return self._taker(what, app), what, repr(what)
        contract = self._contract(app)
        opcode = find_opcode(contract, what)
        height = self.node.height + 1
        encode = contract.encoder(height, opcode)
        parameters = () if encode is None else inspect.signature(encode).parameters
        for name in _OWN_NAMES:
            if name in parameters and name != "consensus_hash" and name not in fields:
                raise UsageError(
                    f"{what} has a field {name!r}, which is also an argument of send: pass the fields as "
                    f"fields={{{name!r}: …}}"
                )
        if consensus_hash is None:
            with suppress(UsageError):
                consensus_hash = self.consensus_hash(app=contract.name)
        scripts = [(value, who if isinstance(who, bytes) else as_key(who).script_pubkey) for who, value in to]
        around = Around([*scripts, (FEE, payer.script_pubkey)], payer.script_pubkey)
        payload = write_input(
            contract,
            opcode,
            fields,
            block_id=height,
            consensus_hash=consensus_hash,
            around=around,
            reads_back=False,
        )
        listed = "".join(f" {name}={value!r}" for name, value in fields.items())
        return contract, payload, f"{what}{listed}"

    def _taker(self, payload: bytes, app: str | None) -> Contract:
        """Return the app whose input a payload is; raise UsageError if it is nobody's."""
        candidates = list(self._contracts.values()) if app is None else [self._contract(app)]
        for contract in candidates:
            if split_payload(payload, contract.magics, contract.opcodes) is not None:
                return contract
        starts = "; ".join(
            f"of {contract.name} are those that begin with {_listed(contract.magics)}"
            + (f" and one of the opcodes {_listed(sorted(contract.opcodes))}" if contract.has_opcodes else "")
            for contract in candidates
        )
        raise UsageError(
            f"{payload!r} is not an input: payloads {starts}. To send it all the same, put "
            "story.node.send(payload) into the block"
        )

    def _owned(self, output: Output) -> OwnedCoin:
        """Return an output as a coin of the one who owns it; raise UsageError if nobody here does."""
        tx, number = output
        paid = read_transaction(tx.raw).outputs
        if not 0 <= number < len(paid):
            raise UsageError(f"transaction {tx.txid} has the outputs 0 to {len(paid) - 1}, not {number}")
        value, script = paid[number]
        owner = self._names.owner_of(script)
        if owner is None:
            raise UsageError(
                f"output {number} of {self._names.transactions.get(tx.txid, tx.txid)} belongs to nobody who "
                "sent or received something in this story, so nobody can spend it"
            )
        return OwnedCoin(owner, outpoint(tx.txid, number), value)

    def _report(self, book: Book, differences: Sequence[str]) -> str:
        waiting = self.node.height - book.block_id
        note = f" ({waiting} more have too few confirmations)" if waiting else ""
        listed = "\n".join(differences)
        led = "\n".join(f"  {line}" for line in book.course(self._first)) or "  no input of the app"
        return (
            f"app {book.contract.name} is not as expected after block {book.block_id}{note}:\n\n{listed}\n\n"
            f"what led there:\n{led}"
        )


def _listed(starts: Iterable[bytes]) -> str:
    return ", ".join(map(repr, starts))


def _as_outputs(spends: Output | Sequence[Output]) -> list[Output]:
    outputs = [spends] if isinstance(spends, tuple) and spends and isinstance(spends[0], Tx) else list(spends)
    for each in outputs:
        if not (isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], Tx)):
            raise UsageError(
                f"spends takes outputs as (transaction, number), with what send returned: not {each!r}"
            )
    return outputs  # type: ignore[return-value] # checked one by one


def _as_keys(sender: str | Key | Sequence[str | Key] | None, *, has_coins: bool) -> list[Key]:
    if sender is None:
        return [] if has_coins else [key("alice")]
    several = [sender] if isinstance(sender, str | Key) else list(sender)
    if not several and not has_coins:
        raise UsageError("a transaction needs a sender: sender='alice'")
    return [each if isinstance(each, Key) else key(_as_name(each)) for each in several]


def _as_name(name: object) -> str:
    """Return a name; raise UsageError for what cannot be meant as one."""
    if not isinstance(name, str) or not name:
        raise UsageError(f"people in a story have names such as 'alice': not {name!r}")
    if name.startswith(("bcrt1", "bc1", "tb1")):
        raise UsageError(f"people in a story have names such as 'alice': {name} is an address")
    return name


def _as_recipient(paid: object) -> tuple[Recipient, int]:
    if not (isinstance(paid, tuple) and len(paid) == 2 and isinstance(paid[1], int)):
        raise UsageError(f"to takes names with satoshi: to=[('bob', 10_000)], not {paid!r}")
    who, value = paid
    return who if isinstance(who, bytes | Key) else _as_name(who), value


def _as_transactions(where: str, transactions: Sequence[object]) -> list[Tx]:
    for each in transactions:
        if not isinstance(each, Tx):
            raise UsageError(
                f"{where} takes what send returns, not {each!r}: story.block(story.send(…), story.send(…))"
            )
    return list(transactions)  # type: ignore[arg-type] # checked one by one
