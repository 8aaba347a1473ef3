"""The protocol as an app: transactions with a message, and transactions that only spend runes."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from virtualchain import App, State
from virtualchain.bitcoin.payload import runestone
from virtualchain.examples.runes.decipher import decipher
from virtualchain.examples.runes.encipher import encipher, etching_of, runestone_of
from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.etching import is_etching
from virtualchain.examples.runes.events import digest_of, events_of
from virtualchain.examples.runes.execution import Transaction, execute
from virtualchain.examples.runes.explorer import PAGES
from virtualchain.examples.runes.hardcoded import initial_entries
from virtualchain.examples.runes.params import FIRST_BLOCK, first_block_of
from virtualchain.examples.runes.registry import RUNES, Registry, sum_up
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Etching, Runestone, Terms
from virtualchain.examples.runes.wire import is_committed, read_outputs, write_outputs
from virtualchain.model import Json

TRANSFER_FIELDS: Final = ("txid", "effect")
"""The hashed fields of a transaction without a message; `effect` is the digest of its events."""
MESSAGE_FIELDS: Final = (
    "txid",
    "kind",
    "flaw",
    "etched",
    "etching_problem",
    "mint",
    "mint_problem",
    "edicts",
    "pointer",
    "effect",
)
"""The hashed fields of a transaction with a message."""


class Message:
    """A transaction with a runestone output. It is always accepted: even a malformed message has effects."""

    def parse(
        self, payload: bytes, block_id: int, senders: list[Json], inputs: list[Json], outputs: list[Json]
    ) -> Json:
        """Keep what execution needs; only the inputs can show a commitment, and they are not kept."""
        artifact = decipher(payload, len(outputs))
        return {
            **describe(artifact),
            "message": payload.hex(),
            "outputs": write_outputs(outputs),
            "is_etching": is_etching(artifact),
            "is_committed": is_committed(artifact, inputs, senders, block_id),
        }

    def encode(
        self,
        *,
        edicts: Sequence[Sequence[str | int]] = (),
        mint: str | None = None,
        pointer: int | None = None,
        etching: bool = False,
        rune: str | None = None,
        symbol: str | None = None,
        divisibility: int | None = None,
        premine: int | None = None,
        turbo: bool = False,
        amount: int | None = None,
        cap: int | None = None,
        height_start: int | None = None,
        height_end: int | None = None,
        offset_start: int | None = None,
        offset_end: int | None = None,
    ) -> bytes:
        """Write a runestone: edicts as [id, amount, output], a mint, a pointer, an etching and its terms.

        Any field of an etching makes one; `etching` makes one that has no field.
        """
        terms = Terms(amount, cap, height_start, height_end, offset_start, offset_end)
        described = etching_of(
            rune, symbol, divisibility=divisibility, premine=premine, terms=terms, turbo=turbo
        )
        is_etching = etching or described != Etching()
        return encipher(runestone_of(edicts, mint, pointer, described if is_etching else None))

    def commit(self, op: Json, state: State) -> Json:
        """Execute the transaction."""
        addresses, burning = read_outputs(op["outputs"])
        artifact = decipher(bytes.fromhex(op["message"]), len(addresses))
        return {**describe(artifact), **_execute(op, state, artifact, addresses, burning)}


class Transfer:
    """A transaction without a message that spends runes."""

    def parse(self, payload: None, outputs: list[Json]) -> Json:  # noqa: ARG002 - there is none
        """Keep what execution needs."""
        return {"outputs": write_outputs(outputs)}

    def commit(self, op: Json, state: State) -> Json:
        """Hand the runes on."""
        result = _execute(op, state, None, *read_outputs(op["outputs"]))
        return {field: result[field] for field in TRANSFER_FIELDS}


def rows_of(op: Json, block_id: int) -> Mapping[str, Sequence[object]]:
    """Name the rows that an op needs: what its outputs will hold, its events, the runes that it names.

    What its inputs hold is read by the engine, because the app tracks these outputs.
    """
    runes = [] if op.get("mint") is None else [op["mint"]]
    if op.get("is_etching"):
        runes.append(str(RuneId(block_id, op["virtualchain_txindex"])))
    return {
        "outputs": [(op["virtualchain_txid"],)],
        "rune_events": [(block_id,)],
        "runes": runes,
        "counters": [RUNES],
    }


def _execute(
    op: Json,
    state: State,
    artifact: Runestone | Cenotaph | None,
    addresses: Sequence[str | None],
    burning: Sequence[bool],
) -> Json:
    """Execute a transaction, and write what it does; return the fields that say so."""
    registry, txid, txindex = Registry(state), op["virtualchain_txid"], op["virtualchain_txindex"]
    senders = op["virtualchain_senders"]
    spent = registry.spend(
        (vin, senders[vin]["txid"], senders[vin]["vout"]) for vin in op["virtualchain_spends"]
    )
    tx = Transaction(
        id=RuneId(state.block_id, txindex),
        txid=txid,
        timestamp=state.block_time,
        artifact=artifact,
        burning=burning,
        is_committed=op.get("is_committed", False),
    )
    outcome = execute(tx, sum_up(spent), registry, first_block_of(state.network))
    events = list(events_of(artifact, spent, outcome, addresses))
    registry.record(outcome, txid, addresses)
    registry.add_events(txindex, txid, events)
    return {
        "txid": txid,
        "etched": None if outcome.etched is None else str(outcome.etched.id),
        "etching_problem": outcome.etching_problem,
        "mint_problem": outcome.mint_problem,
        "effect": digest_of(events),
    }


def describe(artifact: Runestone | Cenotaph) -> Json:
    """Return what a message says, as fields of its op."""
    is_runestone = isinstance(artifact, Runestone)
    return {
        "kind": "runestone" if is_runestone else "cenotaph",
        "flaw": None if isinstance(artifact, Runestone) else artifact.flaw.value,
        "mint": None if artifact.mint is None else str(artifact.mint),
        "edicts": len(artifact.edicts) if isinstance(artifact, Runestone) else 0,
        "pointer": artifact.pointer if isinstance(artifact, Runestone) else None,
    }


def make_app(
    first_block: int | None = None, initial: Sequence[Entry] | None = None, name: str = "runes"
) -> App:
    """Build the app; without arguments it is the protocol's.

    With `first_block` it starts at another height, for a chain that is known from there on only, as in
    recorded runs. `initial` are the runes that there are before; by default those that the network has.
    """
    app = App(
        name,
        magic=b"",
        opcodes=None,
        payload_rule=runestone,
        tracks="outputs",
        needs=("height",),
        projections="projections.sql",
        version=_version(first_block, initial),
        first_block_id=FIRST_BLOCK if first_block is None else first_block,
        pages=PAGES,
    )
    app.opcode(fields=MESSAGE_FIELDS, keys=rows_of)(Message)
    app.spend(fields=TRANSFER_FIELDS, keys=rows_of)(Transfer)

    @app.scan
    def scan(ops: list[Json], state: State) -> None:  # noqa: ARG001 - the hook's signature
        """Add the runes that are there before the first block."""
        if state.block_id == (first_block_of(state.network) if first_block is None else first_block):
            for entry in initial_entries(state.network) if initial is None else initial:
                Registry(state).add_entry(entry)

    return app


def _version(first_block: int | None, initial: Sequence[Entry] | None) -> str:
    """Return the app's version, which names all that differs from the protocol's own app."""
    version = "1" if first_block is None else f"1 from {first_block}"
    if initial is None:
        return version
    return f"{version} {hashlib.sha256(repr(list(initial)).encode()).hexdigest()[:12]}"
