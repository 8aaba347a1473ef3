"""Rows of exported inputs: with spendings of all forms and of none, and with something changed in them."""

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from virtualchain.bitcoin.block import StoredTransaction
from virtualchain.bitcoin.curve import tagged_hash, tweak, y_coordinate
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import op_return, push
from virtualchain.bitcoin.spending import capped
from virtualchain.bitcoin.transaction import pack_outputs, read_transaction, write_count, write_transaction
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.errors import MalformedBlock
from virtualchain.model import Input, SpentOutput, TxIn
from virtualchain.transfer.files import Row
from virtualchain.transfer.parts import as_row

HASH_TYPES: Final = (1,) * 20 + (0, 0, 0, 2, 2, 3, 3, 4, 0x41, 0x81, 0x81, 0x82, 0x83, 0xFF)
Spend = tuple[bytes, bytes, list[bytes]]
"""The script that is spent, the input script, and the witness."""


def exported(
    raw: bytes,
    spent: Sequence[SpentOutput],
    network: Network,
    *,
    block_id: int,
    claimed: bytes | None = None,
    txindex: int = 1,
    magics: Sequence[bytes] = (b"re",),
    **others: Any,
) -> Row:
    """Return the row of a transaction; `claimed` is another one whose senders it has, if there is one."""
    transaction, packed = read_transaction(raw, network), pack_outputs(spent)
    item = Input(
        block_id=block_id,
        txindex=txindex,
        txid=transaction.txid,
        raw=raw,
        magics=tuple(magics),
        senders=StoredTransaction(claimed or raw, packed, network).senders(),
        outputs=transaction.outputs,
        fee=sum(each.value for each in spent) - sum(each.value for each in transaction.paid),
        spent=packed,
        **others,
    )
    return as_row(item)


def pay_to_key_hash(key: bytes) -> bytes:
    """Write a p2pkh script."""
    return b"\x76\xa9\x14" + hash160(key) + b"\x88\xac"


def in_p2sh(script: bytes, stack: Sequence[bytes]) -> Spend:
    """Spend a script inside p2sh with the items of a stack."""
    return b"\xa9\x14" + hash160(script) + b"\x87", b"".join(map(push, [*stack, script])), []


def in_p2wsh(script: bytes, stack: Sequence[bytes]) -> Spend:
    """Spend a script inside p2wsh with the items of a stack."""
    return b"\0\x20" + hashlib.sha256(script).digest(), b"", [*stack, script]


def nested(spend: Spend) -> Spend:
    """Put a witness program inside p2sh."""
    program, _, witness = spend
    return *in_p2sh(program, ())[:2], witness


class Rows:
    """Makes rows from random numbers."""

    def __init__(self, seed: int, network: Network) -> None:
        self._random = random.Random(seed)
        self._network = network

    def transaction(self) -> tuple[bytes, tuple[SpentOutput, ...], bytes]:
        """Make a transaction that may be impossible, what it spends, and perhaps another one, or itself."""
        pick = self._random
        usual = [self._spend() for _ in range(pick.choice((1, 1, 2, 3)))]
        spends = [self._disturbed(spend) for spend in usual]
        places = [(pick.randbytes(32).hex(), pick.choice((0, 1, 7, 2**32 - 1))) for _ in spends]
        paid = [SpentOutput(self._value() // 9, self._output()) for _ in range(pick.choice((0, 1, 2, 3)))]

        def written(spends: Sequence[Spend]) -> bytes:
            pairs = zip(places, spends, strict=True)
            inputs = [TxIn(*place, each[1], 0, tuple(each[2])) for place, each in pairs]
            return write_transaction(inputs, paid)

        raw = written(spends)
        spent = capped(SpentOutput(self._value(), script) for script, _, _ in spends)
        return raw, spent, raw if pick.random() < 0.5 else written(usual)

    def row(self, block_id: int, txindex: int) -> Row:
        """Make the row of a transaction that may be impossible; perhaps it says what another one would."""
        raw, spent, claimed = self.transaction()
        pick = self._random
        tracked = pick.choice(((), (), ("names",), ("names", "tokens"), ("é",)))
        magics = pick.choice(((b"re",), (b"re",), (b"", b"id", b"re"), (b"\xff",), ()))
        return exported(
            raw,
            spent,
            self._network,
            claimed=claimed,
            block_id=block_id,
            txindex=txindex,
            magics=magics,
            spent_at=pick.choice((None, [pick.randrange(2 * block_id + 1) for _ in spent])),
            tracked_by=tracked,
        )

    def changed(self, row: Row) -> Row:
        """Change something in a row, and what follows from it or not."""
        pick = self._random
        values = list(row)
        place = pick.choice(tuple(_CHANGES))
        values[place] = pick.choice(_CHANGES[place])(pick, values[place])
        if place == _RAW and pick.random() < 0.8:
            try:
                transaction = read_transaction(values[_RAW], self._network)
            except MalformedBlock:
                values[_TXID] = sha256d(values[_RAW])[::-1].hex()
            else:
                values[_TXID] = transaction.txid
        return tuple(values)

    def _value(self) -> int:
        return self._random.choice((0, 1, 546, 10**8, self._random.randrange(10**12)))

    def _key(self) -> bytes:
        pick = self._random
        usual, others = ((2, 32), (3, 32), (4, 64)), ((6, 64), (7, 64), (5, 32), (2, 31))
        first, size = pick.choice(usual if pick.random() < 0.9 else others)
        return bytes([first]) + pick.randbytes(size)

    def _signature(self) -> bytes:
        pick = self._random
        sizes = pick.choice(((32, 32), (33, 32), (1, 1)))
        first, second = (b"\x02" + bytes([size]) + pick.randbytes(size) for size in sizes)
        whole = bytes([0x30, len(first + second)]) + first + second + bytes([pick.choice(HASH_TYPES)])
        other = pick.choice((b"", pick.randbytes(pick.randrange(1, 76))))
        return whole if pick.random() < 0.9 else other

    def _multisig(self) -> bytes:
        pick = self._random
        count = pick.choice((1, 2, 3, 3, 3, 15, 16, 17, 20))
        required = pick.choice((1, 1, 2, 2, count, count + 1))
        keys = b"".join(
            push(self._key() if pick.random() < 0.01 else b"\2" + bytes(32)) for _ in range(count)
        )

        def number(n: int) -> bytes:
            return bytes([0x50 + n]) if n <= 16 else push(bytes([n]))

        return number(required) + keys + number(count) + b"\xae"

    def _inner(self) -> bytes:
        """Make a script that is hashed."""
        pick = self._random
        return pick.choice(
            (
                self._multisig,
                self._multisig,
                lambda: push(self._key()) + b"\xac",
                lambda: pay_to_key_hash(self._key()),
                lambda: b"\x51",
                lambda: b"",
                lambda: pick.randbytes(pick.randrange(1, 80)),
                lambda: bytes([pick.choice((0, 0x51, 0x60)), 20]) + pick.randbytes(20),
                lambda: push(self._key()) + b"\xad\x51",
                lambda: pick.randbytes(pick.choice((260, 300, 520))),
            )
        )()

    def _stack(self, script: bytes, key: bytes) -> list[bytes]:
        """Make what may satisfy a script."""
        if script[-1:] == b"\xae":
            required = script[0] - 0x50 if script[0] > 0x50 else 17
            return [b"", *(self._signature() for _ in range(max(0, required)))]
        if script[:1] == b"\x76":
            return [self._signature(), key]
        return [self._signature() for _ in range(self._random.randrange(3))]

    def _taproot(self) -> Spend:
        pick = self._random
        if pick.random() < 0.5:
            size = pick.choice((64, 64, 65, 65, 63))
            return b"\x51\x20" + pick.randbytes(32), b"", [self._schnorr(size)]
        leaf, version = (
            pick.randbytes(pick.choice((1, 40, 252, 253, 70_000))),
            pick.choice((0xC0, 0xC2, 0x50)),
        )
        internal = self._internal_key()
        node, path = tagged_hash("TapLeaf", bytes([version]) + write_count(len(leaf)) + leaf), []
        for _ in range(pick.choice((0, 0, 1, 3))):
            path.append(pick.randbytes(32))
            node = tagged_hash("TapBranch", b"".join(sorted((node, path[-1]))))
        output, is_odd = tweak(internal, node)
        control = bytes([version | is_odd]) + internal + b"".join(path)
        items = [self._schnorr(pick.choice((64, 65, 10))) for _ in range(pick.randrange(3))]
        annex = [b"\x50" + pick.randbytes(3)] if pick.random() < 0.1 else []
        return b"\x51\x20" + output, b"", [*items, leaf, control, *annex]

    def _schnorr(self, size: int) -> bytes:
        return (self._random.randbytes(64) + bytes([self._random.choice(HASH_TYPES)]))[:size]

    def _internal_key(self) -> bytes:
        while True:
            key = self._random.randbytes(32)
            try:
                y_coordinate(int.from_bytes(key), odd=False)
            except ValueError:
                continue
            return key

    def _spend(self) -> Spend:
        pick = self._random
        key, inner = self._key(), self._inner()
        stack = self._stack(inner, key)
        if inner[:1] == b"\x76":
            inner = pay_to_key_hash(key)

        def pushed(items: Sequence[bytes]) -> bytes:
            return b"".join(map(push, items))

        key_program = b"\0\x14" + hash160(key)
        multisig = self._multisig()
        return pick.choice(
            (
                lambda: (pay_to_key_hash(key), pushed([self._signature(), key]), []),
                lambda: (push(key) + b"\xac", pushed([self._signature()]), []),
                lambda: (multisig, pushed(self._stack(multisig, key)), []),
                lambda: in_p2sh(inner, stack),
                lambda: nested(in_p2wsh(inner, stack)),
                lambda: nested((key_program, b"", [b"\x01", key])),
                lambda: (key_program, b"", [self._signature(), key]),
                lambda: in_p2wsh(inner, stack),
                self._taproot,
                self._taproot,
                lambda: (self._output(), pushed(stack), []),
                lambda: (pick.randbytes(pick.choice((5, 101, 5000, 5001))), b"", []),
            )
        )()

    def _disturbed(self, spend: Spend) -> Spend:
        """Leave most spendings as they are, and change something in the others."""
        pick = self._random
        script, script_sig, witness = spend
        if pick.random() < 0.8:
            return spend
        return pick.choice(
            (
                lambda: (script, push(pick.randbytes(3)) + script_sig, witness),
                lambda: (script, b"\x4c\x01\x07" + script_sig, witness),
                lambda: (script, b"\x51" + script_sig, witness),
                lambda: (script, script_sig + b"\x61", witness),
                lambda: (script, script_sig + push(pick.randbytes(3)), witness),
                lambda: (script, script_sig + b"\x05ab", witness),
                lambda: (script, script_sig, [b"", *witness]),
                lambda: (script, script_sig, [*witness, pick.randbytes(2)]),
                lambda: (script, script_sig, witness[1:]),
                lambda: (script, script_sig, witness[:-1]),
                lambda: (_flipped(pick, script), script_sig, witness),
                lambda: (script, _flipped(pick, script_sig), witness),
                lambda: (script, script_sig, [_flipped(pick, item) for item in witness]),
            )
        )()

    def _output(self) -> bytes:
        pick = self._random
        usual = (
            lambda: b"\0\x14" + pick.randbytes(20),
            lambda: b"\0\x20" + pick.randbytes(32),
            lambda: b"\x51\x20" + pick.randbytes(32),
            lambda: b"\x51\x02\x4e\x73",
            lambda: b"\xa9\x14" + pick.choice((bytes(20), pick.randbytes(20))) + b"\x87",
            lambda: pay_to_key_hash(self._key()),
            lambda: op_return(pick.randbytes(pick.choice((1, 75, 76, 80, 256)))),
        )
        if pick.random() < 0.8:
            return pick.choice(usual)()
        return pick.choice(
            (
                lambda: (
                    bytes([pick.choice((0, 0x51, 0x52, 0x60))]) + push(pick.randbytes(pick.choice((2, 32))))
                ),
                lambda: push(self._key()) + b"\xac",
                self._multisig,
                lambda: op_return(pick.randbytes(pick.choice((0, 1, 75, 76, 80, 256)))),
                lambda: b"\x6a" + pick.randbytes(pick.randrange(4)),
                lambda: b"\x6a" + push(b"ab") + bytes([pick.choice((0x50, 0x60, 0x61, 0x4C, 0x4D, 0x4E))]),
                lambda: pick.randbytes(pick.randrange(40)),
                lambda: b"",
            )
        )()


_BLOCK_ID, _TXINDEX, _TXID, _MAGICS, _SENDERS, _OUTPUTS, _FEE, _RAW, _SPENT_AT, _TRACKED_BY = range(10)
Change = Callable[[random.Random, Any], Any]


def _flipped(pick: random.Random, data: bytes) -> bytes:
    """Change a bit."""
    if not data:
        return data
    place = pick.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << pick.randrange(8)]) + data[place + 1 :]


def _other_character(pick: random.Random, text: str) -> str:
    place = pick.randrange(len(text) + 1)
    return text[:place] + pick.choice('0123456789abcfF"[]{}, :é-\x7f') + text[place + 1 :]


def _other_digit(pick: random.Random, text: str) -> str:
    places = [place for place, character in enumerate(text) if character in "0123456789abcdef"]
    place = pick.choice(places or [0])
    return text[:place] + pick.choice("0123456789abcdef") + text[place + 1 :]


def _replaced(*pairs: tuple[str, str]) -> Change:
    """Return a change that replaces one text by another once."""

    def change(pick: random.Random, text: str) -> str:
        before, after = pick.choice(pairs)
        return text.replace(before, after, 1)

    return change


_IN_JSON: Final[Sequence[Change]] = (
    _other_character,
    _other_digit,
    _other_digit,
    lambda _, text: text.upper(),
    lambda _, text: f" {text}\n",
    lambda _, text: text[:-1],
    lambda _, text: text + "]",
    lambda _, text: f"{text[:-1]}, {text[1:]}",
    lambda _, __: "[]",
    lambda _, __: "",
    lambda _, text: re.sub(r'"public_keys": \[[^]]*\]', '"public_keys": []', text),
    lambda _, text: re.sub(r'"public_keys": \[[^]]*\]', '"public_keys": []', text, count=1),
    lambda _, text: text.replace('"ALL"', '"DEFAULT"'),
    lambda _, text: re.sub(r"(\d+), ", r"0\1, ", text, count=1),
    _replaced(
        (": ", ":"), (", ", ","), ("{", "{ "), ('"value": ', '"value": 0'), ('"value": ', '"value": -')
    ),
    _replaced(
        ("ALL", "NONE"), ("DEFAULT", "ALL"), ("ALL", "ALL|ANYONECANPAY"), ('["', '["", "'), ('["', "[")
    ),
    _replaced(("witness_v0_keyhash", "pubkeyhash"), ("bcrt1q", "bcrt1p"), ("pubkey", "pubkeyhash")),
    _replaced(('"txid"', '"txid": "", "txid"'), ('"vout": ', '"vout": 1'), ('"n": 0', '"n": 0.0')),
    _replaced(('"sighash"', '"Sighash"'), ('"script_pubkey": "', '"script_pubkey": "00'), ("[]", '[""]')),
)
_CHANGES: Final[dict[int, Sequence[Change]]] = {
    _BLOCK_ID: (lambda _, value: value + 1_000, lambda _, __: 0, lambda _, __: -1),
    _TXINDEX: (lambda _, __: 0, lambda _, __: -5, lambda _, value: value + 1),
    _TXID: (
        _other_digit,
        lambda _, text: text.upper(),
        lambda _, text: text[2:],
        lambda _, text: text + "00",
    ),
    _MAGICS: (
        lambda _, __: [],
        lambda _, items: [*items, *items],
        lambda _, items: [*items, b""],
        lambda _, items: [b"zz", b"zz!", *items],
        lambda _, __: [b"a", b"ab", b"b"],
    ),
    _SENDERS: _IN_JSON,
    _OUTPUTS: _IN_JSON,
    _FEE: (lambda _, fee: fee + 1, lambda _, fee: -fee, lambda _, __: 2**62, lambda _, fee: fee + 2**32),
    _RAW: (
        _flipped,
        _flipped,
        _flipped,
        lambda _, raw: raw[:-1],
        lambda _, raw: raw + b"\0",
        lambda _, raw: raw[:4] + b"\0" + raw[4:],
        lambda _, raw: raw[:4] + b"\0\1" + raw[4:-4] + b"\0" + raw[-4:],
        lambda _, raw: raw[:4] + raw[6:],
        lambda _, raw: raw[:4] + b"\xfd" + raw[4:5] + b"\0" + raw[5:],
        lambda _, raw: raw[:5] + bytes(32) + raw[37:],
        lambda pick, raw: raw[: pick.randrange(len(raw))],
    ),
    _SPENT_AT: (
        lambda _, __: [],
        lambda _, items: [2**31 - 1 for _ in items or (0,)],
        lambda _, items: [-1 for _ in items or (0,)],
        lambda _, items: [1001 for _ in items or (0,)],
        lambda _, items: [1000 for _ in items or (0,)],
        lambda _, items: [*(items or []), 0],
        lambda _, __: None,
    ),
    _TRACKED_BY: (
        lambda _, __: ["b", "a"],
        lambda _, __: ["a", "a"],
        lambda _, __: [""],
        lambda _, __: ["a", "ab"],
        lambda _, __: ["a\0"],
        lambda _, __: [],
    ),
}
