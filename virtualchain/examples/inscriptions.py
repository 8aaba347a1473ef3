"""Inscriptions on Bitcoin: what each one holds, and the output that it is in.

An inscription is an envelope with the tag `ord` in the witness of a taproot script-path spend. It holds
fields, each a tag and a value, and perhaps a body after an empty tag:

    1  content type   3  parent    7  metaprotocol      11  delegate
    2  pointer        5  metadata  9  content encoding

It sits on one satoshi: the first of the input whose witness holds it, or the one among the outputs' that its
pointer counts. Satoshis go from inputs to outputs first in, first out, and what is left over is the fee; so
a transaction that spends the output moves the inscription (docs/inscriptions.md).
"""

import hashlib
from bisect import bisect_right
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from virtualchain import App, State, envelopes, read_envelope

CONTENT_TYPE, POINTER, PARENT, METADATA = b"\x01", b"\x02", b"\x03", b"\x05"
METAPROTOCOL, CONTENT_ENCODING, DELEGATE, BODY = b"\x07", b"\x09", b"\x0b", b""
UNBOUND = {"status": "unbound", "vout": None, "position": None, "owner": None}
FEES = {**UNBOUND, "status": "fees"}

app = App(
    "inscriptions",
    magic=b"",
    opcodes=None,
    payload_rule=envelopes(b"ord"),
    tracks="locations",
    projections=str(Path(__file__).with_suffix(".sql")),
    # The first inscription is in that block; other networks are searched from their beginning.
    first_block_id={"mainnet": 767_430, "testnet3": 0, "testnet4": 0, "signet": 0, "regtest": 0},
)


def read_inscription(payload: bytes) -> dict[str, Any]:
    """Read an envelope; whatever its pushes are, it is an inscription."""
    spending, pushes = read_envelope(payload)
    end = next((at for at in range(0, len(pushes), 2) if pushes[at] == BODY), len(pushes))
    body = b"".join(pushes[end + 1 :]) if end < len(pushes) else None
    fields: dict[bytes, list[bytes]] = {}
    for tag, value in zip(pushes[0:end:2], pushes[1:end:2], strict=False):
        fields.setdefault(tag, []).append(value)
    metadata = b"".join(fields[METADATA]) if METADATA in fields else None
    parents = filter(None, map(read_id, fields.get(PARENT, [])))
    return {
        "input": spending,
        "content_type": _hex(_first(fields, CONTENT_TYPE)),
        "content_encoding": _hex(_first(fields, CONTENT_ENCODING)),
        "body_size": None if body is None else len(body),
        "body_sha256": _sha256(body),
        "metadata_size": None if metadata is None else len(metadata),
        "metadata_sha256": _sha256(metadata),
        "metaprotocol": _hex(_first(fields, METAPROTOCOL)),
        "delegate": read_id(_first(fields, DELEGATE) or b""),
        "parents": " ".join(dict.fromkeys(parents)),
        "pointer": read_pointer(_first(fields, POINTER)),
        "is_incomplete": end % 2 == 1,
        "has_repeated": any(len(values) > 1 for values in fields.values()),
        "has_unknown_even": any(
            not tag[0] % 2 and (tag != POINTER or len(values) > 1) for tag, values in fields.items()
        ),
    }


def read_id(value: bytes) -> str | None:
    """Read the id of an inscription: a txid, and its number in up to four bytes; None if it is malformed.

    The number is little-endian, either in four bytes or without zeros at its end.
    """
    number = value[32:]
    if not 32 <= len(value) <= 36 or (len(number) < 4 and number.endswith(b"\0")):
        return None
    return f"{value[31::-1].hex()}i{int.from_bytes(number, 'little')}"


def read_pointer(value: bytes | None) -> int | None:
    """Read a little-endian number of up to eight bytes, with or without zeros after it; None otherwise."""
    if value is None or value[8:].strip(b"\0"):
        return None
    return int.from_bytes(value[:8], "little")


def readable(value: str | None) -> str | None:
    """Read bytes in hex as text; None if they are not UTF-8, or have a NUL, which no column of text takes."""
    try:
        text = bytes.fromhex(value or "").decode()
    except UnicodeDecodeError:
        return None
    return None if value is None or "\0" in text else text


def _first(fields: dict[bytes, list[bytes]], tag: bytes) -> bytes | None:
    return fields[tag][0] if tag in fields else None


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _sha256(value: bytes | None) -> str | None:
    return None if value is None else hashlib.sha256(value).hexdigest()


class Flow:
    """How a transaction's satoshis go from inputs to outputs: first in, first out."""

    def __init__(self, op: dict[str, Any]) -> None:
        self.starts = [0, *accumulate(sender["value"] for sender in op["virtualchain_senders"])]
        """By input, the number of its first satoshi; past the last one, how many there are."""
        self._outputs = op["virtualchain_outputs"]
        self.ends = list(accumulate(output["value"] for output in self._outputs))
        """By output, the number after its last satoshi."""

    def begins(self, op: dict[str, Any]) -> int | None:
        """Return the satoshi on which a new inscription begins; None if it is on none.

        That is so if its input has no value, or if it has a field that the protocol may give another meaning.
        """
        start, end = self.starts[op["input"] : op["input"] + 2]
        if start == end or op["has_unknown_even"]:
            return None
        return start if op["pointer"] is None else int(op["pointer"])

    def reaches(self, pointer: int | None) -> bool:
        """Check whether a pointer is to a satoshi of an output."""
        return pointer is not None and pointer < max(self.ends, default=0)

    def to(self, satoshi: int) -> dict[str, Any]:
        """Find where a satoshi goes."""
        vout = bisect_right(self.ends, satoshi)
        if vout == len(self.ends):
            return FEES
        output = self._outputs[vout]
        return {
            "status": "burned" if output["script_pubkey"].startswith("6a") else "held",
            "vout": vout,
            "position": satoshi - self.ends[vout] + output["value"],
            "owner": next(iter(output["addresses"]), None),
        }


@app.scan
def place(ops: list[dict[str, Any]], _state: State) -> None:
    """Assign ids to the new inscriptions, and find where they begin."""
    revealed = (op for op in ops if not op["virtualchain_is_spend"])
    for txid, group in groupby(revealed, key=lambda op: op["virtualchain_txid"]):
        flow = None
        for number, op in enumerate(group):
            flow = flow or Flow(op)
            op["pointer"] = op["pointer"] if flow.reaches(op["pointer"]) else None
            satoshi = flow.begins(op)
            op.update(UNBOUND if satoshi is None else flow.to(satoshi), id=f"{txid}i{number}", number=number)


def move(op: dict[str, Any], state: State, block_id: int, txid: str) -> int:
    """Move the inscriptions of all outputs that a transaction spends; return how many there are.

    If it has several envelopes, nothing is left for the second.
    """
    count = 0
    flow = Flow(op) if op["virtualchain_spends"] else None
    for spent in op["virtualchain_spends"]:
        assert flow is not None
        sender = op["virtualchain_senders"][spent]
        for row in state.tracked(sender["txid"], sender["vout"]):
            state.table("locations").delete((row["txid"], row["vout"], row["inscription"]))
            put(op, state, block_id, txid, row["inscription"], flow.to(flow.starts[spent] + row["position"]))
            count += 1
    return count


def put(
    op: dict[str, Any], state: State, block_id: int, txid: str, inscription: str, to: dict[str, Any]
) -> None:
    """Record where a transaction puts an inscription."""
    row = {"inscription": inscription, "txid": txid, **to}
    state.table("moves").put({**row, "block_id": block_id, "txindex": op["virtualchain_txindex"]})
    if row.pop("status") == "held":
        state.table("locations").put({**row, "value": op["virtualchain_outputs"][to["vout"]]["value"]})


def parents_moved(op: dict[str, Any], block_id: int) -> dict[str, list[object]]:
    """Name the rows that tell whether the transaction moves the parents."""
    parents = op["parents"].split()
    return (
        {"moves": [(parent, block_id, op["virtualchain_txindex"]) for parent in parents]} if parents else {}
    )


@app.opcode(keys=parents_moved)
class Reveal:
    """A new inscription, in a transaction that may move others as well."""

    def parse(self, payload: bytes) -> dict[str, Any]:
        """Read the envelope."""
        return read_inscription(payload)

    def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
        """Move the others first: they may be its parents."""
        op["moved"] = move(op, state, block_id, txid)
        known = {"status", "position", "owner", "parents", "moved"}  # in other tables
        row = {
            name: value
            for name, value in op.items()
            if name not in known and not name.startswith("virtualchain_")
        }
        for name in ("content_type", "metaprotocol"):
            row[f"{name}_text"] = readable(op[name])
        for name in ("content_type", "metaprotocol", "content_encoding"):
            row[name] = None if op[name] is None else bytes.fromhex(op[name])
        txindex = op["virtualchain_txindex"]
        state.table("inscriptions").put({**row, "block_id": block_id, "txindex": txindex, "txid": txid})
        for parent in op["parents"].split():
            is_present = state.table("moves").get((parent, block_id, txindex)) is not None
            state.table("parents").put({"inscription": op["id"], "parent": parent, "is_present": is_present})
        put(op, state, block_id, txid, op["id"], {name: op[name] for name in UNBOUND})


@app.spend
class Spend:
    """A transaction that moves inscriptions, and reveals none."""

    def parse(self, _payload: None) -> dict[str, Any]:
        """There is nothing to read."""
        return {}

    def commit(self, op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
        """Move them."""
        op["moved"] = move(op, state, block_id, txid)
