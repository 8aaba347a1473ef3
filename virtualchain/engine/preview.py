"""What an input would do in the next block, judged on a copy of the app's tables that nobody keeps.

The copy is made and undone in one transaction of a session of its own. So a preview sees one moment of the
database, takes no lock that a writer asks for, and asks for none that a writer has.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import Around, find_opcode, write_input, write_output
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.next_block import NextBlock, Outpoint
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.prefetch import fetch, prefetch
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.senders import Senders
from virtualchain.bitcoin.source import BlockSource
from virtualchain.bitcoin.transaction import (
    read_inputs,
    read_outputs,
    read_transaction,
    write_transaction,
)
from virtualchain.bitcoin.unsigned import unlock
from virtualchain.engine.coverage import watches_of
from virtualchain.engine.foreseeing import Foreseer, Verdict
from virtualchain.engine.options import DEFAULTS, Options
from virtualchain.engine.versions import require_live
from virtualchain.errors import AppHalted, MalformedBlock, NodeUnavailable, StoreError, UsageError, quoted
from virtualchain.model import Block, ScannedBlock, SpentOutput
from virtualchain.store.builds import Build, contract_of_build, is_by
from virtualchain.store.database import connect_foreseer, resolve
from virtualchain.store.failures import store_error
from virtualchain.store.foreseen import copy_tables
from virtualchain.store.log import AppLog
from virtualchain.store.projections import build_schema
from virtualchain.store.roles import lend_to_role
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("foreseen")
MOST_ON_TOP: Final = 200
"""Blocks on top of the app's last one that are judged first; an app that lags more is to catch up."""
LONGEST_CALL: Final = 20
"""Seconds that a callback of a preview, or a statement of one, may take. The preview has read the app's
tables, and whoever drops or alters these tries for longer than that."""
_ATTEMPTS: Final = 10
"""How often a preview begins again because the writer has taken a block meanwhile."""
_MADE_UP: Final[Outpoint] = ("11" * 32, 0)
"""The output that a made-up transaction spends."""


class _Moved(Exception):
    """The writer has taken a block since the preview looked where the app is."""


def preview(
    app: object,
    opcode: bytes | str | None = None,
    /,
    *,
    tx: bytes | str | None = None,
    sender: bytes | str | None = None,
    outputs: int | Sequence[tuple[int, bytes | str]] = 2,
    consensus_hash: str | None = None,
    database: str | None = None,
    bitcoin: str | BlockSource | None = None,
    options: Options = DEFAULTS,
    **fields: object,
) -> Verdict:
    """Judge one input as if it came in the next block, and keep nothing of it.

    The input is a transaction `tx` (bytes or hex), signed or not, or one that is made up from an opcode and
    fields, as `App.build_input` takes them. That is sent by `sender`, an address or an output script, with
    signatures that are made up. After the output with the payload it has `outputs`: amounts in satoshi, each
    with an address or a script, or a number of outputs that pay somebody else. `database` is that of a
    deployment in which the app is installed; None is the embedded one. `bitcoin` is the node's URL, or a
    source: the blocks that it has on top of the app's last one are judged first. Without it, the input is
    judged right after that block.

    Raises UsageError if that is impossible, or `tx` is nothing to the app; AppHalted if a callback fails;
    NodeError; StoreError.
    """
    contract = read_contract(app)
    url = resolve(database)
    with _source(bitcoin) as source:
        if tx is not None:
            if opcode is not None or fields:
                raise UsageError("preview takes a transaction, or an opcode and fields, not both")
            raw = read_raw(tx if isinstance(tx, str) else tx.hex())
            verdicts = preview_transactions(url, contract, [raw], source=source, options=options)
            if not verdicts:
                raise UsageError(f"the transaction is nothing to app {contract.name}: it has no input of it")
            return verdicts[-1]
        raw, spent = make_up(url, contract, opcode, fields, consensus_hash, sender, outputs)
        return preview_transactions(url, contract, [raw], source=source, spent=spent, options=options)[-1]


def preview_transactions(
    url: str,
    contract: Contract,
    raws: Sequence[bytes],
    *,
    source: BlockSource | None = None,
    spent: Mapping[Outpoint, SpentOutput] = {},
    options: Options = DEFAULTS,
) -> list[Verdict]:
    """Judge transactions, in this order, as if they were the next block.

    They come on top of the live build's state and of the blocks that `source` has above it. `spent` are
    outputs that they spend and no node knows. Returns a verdict on each candidate of the app in them, in
    order, and none on a transaction that is nothing to the app. Raises UsageError if the app cannot be judged
    here, AppHalted if a callback fails, NodeError, StoreError.
    """
    started = time.monotonic()
    try:
        with closing(connect_foreseer(url)) as connection, TemporaryDirectory() as folder:
            for _ in range(_ATTEMPTS):
                try:
                    attempt = _Preview(connection, contract, source, options, Path(folder))
                    return attempt.judge(raws, spent)
                except _Moved:
                    continue
    except psycopg.OperationalError as error:
        if time.monotonic() - started < LONGEST_CALL:
            raise store_error(error) from error
        raise StoreError(
            f"a callback of app {contract.name} takes longer than {LONGEST_CALL} seconds, so the preview was "
            "ended: others may have to wait for it"
        ) from error
    except psycopg.Error as error:
        raise store_error(error) from error
    except AppHalted as error:
        raise AppHalted(f"nothing has happened, but in a block it would: {error}", error.record) from error
    raise UsageError(
        f"app {contract.name} takes blocks faster than a preview can be made: wait until it is at the tip"
    )


def make_up(
    url: str,
    contract: Contract,
    opcode: bytes | str | None,
    fields: Mapping[str, object],
    consensus_hash: str | None,
    sender: bytes | str | None,
    outputs: int | Sequence[tuple[int, bytes | str]],
) -> tuple[bytes, Mapping[Outpoint, SpentOutput]]:
    """Make a transaction up that carries an input; return what it spends, too.

    Without a consensus hash, the app's last one is there for an encoder that needs one.
    """
    with closing(connect_foreseer(url)) as connection:
        live = require_live(connection, contract.name)
        bound = Tape(connection).network
        contract = contract.on(bound)
        if consensus_hash is None:
            consensus_hash = AppLog(connection, contract.name, live.name).consensus_hash(live.block_id)
        script = None if sender is None else _script(connection, sender, bound)
        paid = (
            outputs
            if isinstance(outputs, int)
            else [(amount, _script(connection, each, bound)) for amount, each in outputs]
        )
    for amount, _ in () if isinstance(paid, int) else paid:
        network(bound).require_possible(amount)
    around = Around.of(paid, script)
    payload = write_input(
        contract,
        find_opcode(contract, opcode),
        fields,
        block_id=live.block_id + 1,
        consensus_hash=consensus_hash,
        around=around,
    )
    return carry(contract, payload, around)


def carry(contract: Contract, payload: bytes, around: Around) -> tuple[bytes, Mapping[Outpoint, SpentOutput]]:
    """Make a transaction up that carries a payload; return what it spends, too.

    Raises UsageError if the app's payload rule does not find the payload in it.
    """
    raw, tx = around.transaction(write_output(contract, payload, around))
    coin = around.spent
    if around.sender is not None:
        script_sig, witness = unlock(around.sender)
        spends = [item._replace(script_sig=script_sig, witness=witness) for item in tx.inputs]
        raw = write_transaction(spends, tx.paid)
    return raw, {_MADE_UP: SpentOutput(coin.value, bytes.fromhex(coin.script_pubkey), coin.made_at)}


def _script(connection: psycopg.Connection, address: bytes | str, bound: str) -> bytes:
    """Return the script that pays an address of a network, or a script; raise UsageError if it is neither."""
    if isinstance(address, bytes):
        return address
    row = connection.execute(queries("views")["script_of"], {"address": address}).fetchone()
    script = None if row is None or row[0] is None else bytes(row[0])
    if script is None or address not in classify(script, network(bound))[1]:
        raise UsageError(f"{quoted(address)} is not an address on {bound}")
    return script


@contextmanager
def _source(bitcoin: str | BlockSource | None) -> Iterator[BlockSource | None]:
    if isinstance(bitcoin, str):
        with closing(open_source(bitcoin)) as source:
            yield source
    else:
        yield bitcoin


class _Preview:
    """One attempt: it begins with a look at where the app is, and ends if that is no longer true."""

    def __init__(
        self,
        connection: psycopg.Connection,
        contract: Contract,
        source: BlockSource | None,
        options: Options,
        folder: Path,
    ) -> None:
        self._connection = connection
        self._options = options
        self._source = source
        self._folder = folder
        self._tape = Tape(connection)
        self._live = require_live(connection, contract.name)
        self._network = network(self._tape.network)
        contract = contract.on(self._network.name)
        if not is_by(connection, self._live, contract):
            raise UsageError(
                f"app {contract.name} is installed with other rules than the code that is named: run "
                f"`virtualchain upgrade {contract.name}`, or name the code that is installed"
            )
        if self._live.status == "halted":
            raise UsageError(f"app {contract.name} is halted, so the next block is nothing to it")
        self._contract = contract_of_build(connection, contract, self._live.name)
        self._scanner = Scanner(
            watches_of([contract]), self._network, keeps_blocks=contract.tracks is not None
        )

    def judge(self, raws: Sequence[bytes], spent: Mapping[Outpoint, SpentOutput]) -> list[Verdict]:
        """Judge transactions as the next block; raise _Moved if the writer was faster."""
        last = self._tape.block(self._live.block_id)
        if last is None:
            raise UsageError(f"app {self._contract.name} has taken no block yet: `virtualchain sync` first")
        on_top = self._on_top(last)
        parent = on_top[-1].block if on_top else last
        following = NextBlock(
            parent,
            max(int(time.time()), parent.time + 1),
            [*self._pending(raws, on_top), *raws],
            self._network,
            spent=spent,
            source=self._source,
        )
        ours = {read_transaction(raw, self._network).txid for raw in raws}
        scanned = fetch(following, self._scanner, following.block, verify="off")
        with self._copy() as foreseer:
            if self._tape.tip() is None or self._tape.block(last.block_id) != last:
                raise _Moved
            if foreseer.cursor != last.block_id:
                raise _Moved
            for block in on_top:
                foreseer.foresee(block)
            return [verdict for verdict in foreseer.foresee(scanned) if verdict.txid in ours]

    def _pending(self, raws: Sequence[bytes], on_top: Sequence[ScannedBlock]) -> list[bytes]:
        """Return the unconfirmed inputs that a writer has noted and that may come before some transactions.

        Those that spend the same outputs would be replaced, and what depends on these or those comes later.
        """
        if self._source is None:
            return []
        ours = {read_outputs(raw)[0] for raw in raws}
        taken = {item.txid for block in on_top for item in block.inputs} | ours
        spent = {(item.txid, item.vout) for raw in raws for item in read_inputs(raw)}
        after = set(ours)
        before = []
        for txid, raw in _unconfirmed(self._connection, self._contract.name):
            spends = [(item.txid, item.vout) for item in read_inputs(raw)]
            if txid in taken:
                continue
            if spent.isdisjoint(spends) and after.isdisjoint(made for made, _ in spends):
                before.append(raw)
            else:
                after.add(txid)
        return before

    def _on_top(self, last: Block) -> list[ScannedBlock]:
        """Return the blocks that the source has on top of the app's last one."""
        if self._source is None:
            return []
        headers = self._source.headers_after(last.block_id, last.hash)
        if headers is None:
            raise NodeUnavailable(
                f"{self._source} is on another branch than app {self._contract.name}, which has block "
                f"{last.block_id} ({last.hash}): the writer is to roll back first"
            )
        if len(headers) > MOST_ON_TOP:
            raise UsageError(
                f"app {self._contract.name} is {len(headers)} or more blocks behind {self._source}: let it "
                "catch up first"
            )
        senders = Senders(self._options.senders, self._tape.hashes_at)
        blocks = prefetch(self._source, self._scanner, headers, verify=self._options.verify, senders=senders)
        with closing(blocks):
            return list(blocks)

    @contextmanager
    def _copy(self) -> Iterator[Foreseer]:
        """Copy the live build in a transaction that is undone at the end."""
        connection, contract, live = self._connection, self._contract, self._live
        with connection.transaction(force_rollback=True):
            connection.execute(queries("builds")["one_moment"])
            if not _is_still(connection, live):
                raise _Moved
            tables = None
            if contract.get_state is None:
                copy = f"foreseen_{connection.info.backend_pid}"  # no other session has that name
                ddl, tracks = contract.projections, contract.tracks
                made = copy_tables(connection, contract.name, contract.schema, live.name, copy, ddl, tracks)
                tables = build_schema(contract.schema, copy)
                lend_to_role(connection, contract.name, live.name, tables, made)
            connection.execute(_Q["be_brief"], {"milliseconds": str(1000 * LONGEST_CALL)})
            yield Foreseer(connection, contract, live.name, self._options, tables=tables, folder=self._folder)


def _is_still(connection: psycopg.Connection, live: Build) -> bool:
    now = require_live(connection, live.app)
    return (now.name, now.block_id) == (live.name, live.block_id)


def read_raw(text: str) -> bytes:
    """Read a transaction in hex; raise UsageError if it is not one."""
    try:
        raw = bytes.fromhex(text.strip())
        read_transaction(raw, network("mainnet"))
    except (ValueError, MalformedBlock) as error:
        raise UsageError(f"that is not a transaction in hex: {error}") from error
    return raw


def _unconfirmed(connection: psycopg.Connection, app: str) -> list[tuple[str, bytes]]:
    """Return the unconfirmed inputs of an app that a writer has noted, as txid and bytes, in their order."""
    rows = connection.execute(queries("pending")["unconfirmed"], {"app": app}).fetchall()
    return [(txid, bytes(raw)) for txid, raw in rows]
