"""Transactions that nobody expects and the network allows, around a given payload.

They are built by hand and not signed: what they spend is said beside them, and a fake node asks no further.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.model import SpentOutput
from virtualchain.testing.keys import key
from virtualchain.testing.transactions import Tx, foreign, push
from virtualchain.testing.wire import compact_size, serialise_output

Output = tuple[int, bytes]
"""Satoshi and script."""

_ALL_MONEY: Final = 21_000_000 * 100_000_000
_SIGNATURE: Final = b"\x30" + bytes(70)
_ALICE: Final = key("alice")
_PUBLIC: Final = _ALICE.public_key
_MULTISIG: Final = b"\x51" + push(_PUBLIC) + push(key("bob").public_key) + b"\x52\xae"
_ODD_SCRIPTS: Final = MappingProxyType(
    {
        "no script": b"",
        "an anchor": bytes.fromhex("51024e73"),
        "a public key without address": push(_PUBLIC) + b"\xac",
        "a bare multisig": _MULTISIG,
        "an unknown witness program": b"\x60" + push(b"\x01" * 40),
        "a script of 10 kB": b"\x61" * 10_000,
        "a push that runs over the end": b"\x4d\xff\xff\x00",
    }
)


@dataclass(frozen=True, slots=True)
class Spending:
    """An output that a transaction spends, and how."""

    spent: SpentOutput
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()


def by(name: str, value: int = 100_000) -> Spending:
    """Spend a coin of a named sender's p2wpkh address."""
    owner = key(name)
    return Spending(SpentOutput(value, owner.script_pubkey), witness=(_SIGNATURE, owner.public_key))


def build(number: int, spendings: Sequence[Spending], outputs: Sequence[Output]) -> Tx:
    """Serialise a transaction; `number` tells it apart from every other."""
    has_witness = any(spending.witness for spending in spendings)
    places = [sha256d(b"hostile %d %d" % (number, place)) + bytes(4) for place in range(len(spendings))]
    parts = [struct.pack("<i", 2), b"\0\1" if has_witness else b"", compact_size(len(spendings))]
    for place, spending in zip(places, spendings, strict=True):
        parts += [place, compact_size(len(spending.script_sig)), spending.script_sig, b"\xff" * 4]
    parts += [compact_size(len(outputs)), *(serialise_output(*output) for output in outputs)]
    for spending in spendings if has_witness else ():
        parts.append(compact_size(len(spending.witness)))
        parts += [compact_size(len(item)) + item for item in spending.witness]
    parts.append(bytes(4))
    return foreign(b"".join(parts), [spending.spent for spending in spendings])


def hostile_senders() -> Mapping[str, Sequence[Spending]]:
    """Give who may pay for a transaction, by name: many have no address, and some no key."""
    legacy, nested, tree = (key("alice", kind) for kind in ("p2pkh", "p2sh-p2wpkh", "p2tr"))
    found = {
        f"with {name} to spend": [Spending(SpentOutput(100_000, script), b"\x51")]
        for name, script in _ODD_SCRIPTS.items()
    }
    return found | {
        "from a legacy address": [
            Spending(SpentOutput(100_000, legacy.script_pubkey), push(_SIGNATURE) + push(_PUBLIC))
        ],
        "from a nested address": [
            Spending(
                SpentOutput(100_000, nested.script_pubkey),
                push(_ALICE.script_pubkey),
                (_SIGNATURE, _PUBLIC),
            )
        ],
        "from a taproot address": [Spending(SpentOutput(100_000, tree.script_pubkey), witness=(bytes(64),))],
        "from a stranger first": [Spending(SpentOutput(5, _MULTISIG), b"\0"), by("alice")],
        "with nothing to spend": [by("alice", 0)],
        "with all the money": [by("alice", _ALL_MONEY)],
        "from 300 senders": [by(f"sender {number}", 1_000) for number in range(300)],
    }


def hostile_outputs(carrier: bytes, payload: bytes) -> Iterator[tuple[str, list[Output]]]:
    """Give what may stand beside the output script that carries the payload, and how else it may stand."""
    paid = [(500, key(f"recipient {number}").script_pubkey) for number in range(300)]
    yield "and nobody paid", [(0, carrier)]
    yield "and money burnt", [(50_000, carrier)]
    yield "in front of 300 outputs", [(0, carrier), *paid]
    yield "behind 300 outputs", [*paid, (0, carrier)]
    yield "twice", [(0, carrier), (0, carrier)]
    yield "in front of another payload", [(0, carrier), (0, b"\x6a" + push(b"xx"))]
    yield "behind another payload", [(0, b"\x6a" + push(b"xx")), (0, carrier)]
    yield "in front of a broken payload", [(0, carrier), (0, b"\x6a\x4c")]
    for name, script in _ODD_SCRIPTS.items():
        yield f"in front of {name}", [(0, carrier), (700, script)]
        yield f"behind {name}", [(700, script), (0, carrier)]
    yield "as a push with a length of 2 bytes", [(0, b"\x6a\x4d" + struct.pack("<H", len(payload)) + payload)]
    yield "as a push with a length of 4 bytes", [(0, b"\x6a\x4e" + struct.pack("<I", len(payload)) + payload)]
    yield "as a push cut short", [(0, b"\x6a\x4e\xff\xff\xff\xff" + payload)]
    yield "as two pushes", [(0, b"\x6a" + push(payload[:3]) + push(payload[3:]))]
