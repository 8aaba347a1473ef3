"""What strangers may send to an app: payloads after its magic and opcode, and transactions around a payload.

The transactions are built by hand and unsigned. They declare what they spend, which a fake node does not
check. Everything here is the same on every run, so a case that failed once fails again.
"""

import json
import re
import string
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any, Final

from virtualchain.bitcoin.script import push
from virtualchain.consensus.hashing import sha256d
from virtualchain.model import SpentOutput
from virtualchain.testing.transactions import Tx, foreign, key
from virtualchain.testing.wire import compact_size, serialize_output

NamedPayloads = Iterator[tuple[str, bytes]]
"""A short description of each case, and its bytes."""

_LONG_BYTES: Final = 100_000
_MAX_PLACES: Final = 12
"""The number of places at which a good payload is cut or changed."""

_ODD_TEXT: Final = {
    "a byte that starts no character": b"\xff\xfe",
    "a truncated character": b"abc\xe2\x82",
    "an overlong NUL": b"\xc0\x80",
    "a lone surrogate as CESU-8": b"\xed\xa0\x80",
    "a code point beyond Unicode": b"\xf4\x90\x80\x80",
    "a byte order mark": b"\xef\xbb\xbfabc",
    "a noncharacter": "a\uffffb".encode(),
    "right-to-left text": "\u202eabc\u202c".encode(),
    "combining characters": ("e" + "\u0301" * 50).encode(),
    "emoji": ("\U0001f468\u200d\U0001f469" * 20).encode(),
    "line breaks": b"a\r\nb\nc\x0b\x0c\x1c\x85",
    "whitespace": b" \t\xc2\xa0 ",
}
_INJECTIONS: Final = {
    "quotes": b"'\"`''\"\"",
    "SQL": b"'); DROP TABLE entries; --",
    "placeholders": b"%s %(a)s %% {0} {} $1 :a",
    "backslashes": b"\\\\\\' \\x00 \\u0000 \\",
    "an unbalanced regular expression": b"(((((([[[***",
    "a regular expression that backtracks": b"(a+)+$",
    "the word NULL": b"NULL",
    "the word NaN": b"NaN",
    "infinity": b"-Infinity",
    "negative zero": b"-0.0",
    "a path": b"../../../etc/passwd\x00.txt",
    "an impossible date": b"2009-02-30",
    "an array": b"{1,2,{3}",
}
_WORDS: Final = (
    *("1_000", "0x1F", "0b11", "0o17", "1__0", "+5", " 7 ", "1e3", "٣", "²", "½"),
    *("infinity", "Infinity", "-inf", "nan", "now", "TODAY", "yesterday", "epoch", "allballs", "localtime"),
    *(
        "Europe/Berlin",
        "PST",
        "P1Y",
        "1 mon",
        "t",
        "on",
        "{}",
        "[1,2)",
        "\\x00ff",
        "(0,0)",
        "$1,000.00",
        "a & b",
    ),
)
"""Text that a cast reads by the server's version, clock, time zone or settings."""
_DEPTHS: Final = (64, 65, 920, 14_554, 14_555, 16_348, 16_349, 20_000)
"""How deep values are nested: at the limit of `parse_json`, and of Python's and PostgreSQL's stacks."""
_KEY_SIZES: Final = (
    *(1_990, 1_999, 2_000, 2_001, 2_600, 2_690, 2_691),
    *(2_692, 2_693, 2_704, 2_705, 2_712, 2_720),
)
"""Bytes around the longest keys: of 2,000 bytes here, and of PostgreSQL's pages."""
_LIMITS: Final = tuple(
    str(number)
    for bits in (15, 31, 63, 64)
    for number in (2**bits - 1, 2**bits, 2**bits + 1, -(2**bits), -(2**bits) - 1)
)
"""Numbers around the limits of smallint, integer and bigint, and of 64 bits without a sign."""
_NUMBERS: Final = (
    "0",
    "-1",
    "007",
    *_LIMITS,
    "-" + "9" * 40,
    "9" * 400,
    "9" * 5_000,
    "1e400",
    "1e-400",
    "0.1",
    "0." + "0" * 16_382 + "1",
    "0." + "0" * 16_383 + "1",
    "1" * 131_072,
    "1" * 131_073,
)
_JSON: Final = {
    "JSON with a NUL": b'{"a": "\\u0000"}',
    "JSON with a lone surrogate": b'{"a": "\\ud800"}',
    "JSON with a NUL in a key": b'{"\\u0000": 1}',
    "JSON with NaN": b'{"a": NaN}',
    "JSON with a number too large for a float": b'{"a": 1e400}',
    "JSON with a long integer": b'{"a": ' + b"9" * 5_000 + b"}",
    "JSON with a duplicate key": b'{"a": 1, "a": 2}',
    "JSON that is a list": b"[1, 2]",
    "JSON that is a number": b"5",
    "JSON that is null": b"null",
    "JSON nested 70 deep": b'{"a":' * 70 + b"1" + b"}" * 70,
    "JSON nested 950 deep": b"[" * 950 + b"]" * 950,
    "JSON nested 50,000 deep": b"[" * 50_000 + b"]" * 50_000,
    "truncated JSON": b'{"a": "b',
    "JSON with many values": b"[" + b"0," * 40_000 + b"0]",
}


_WRONG_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1.5,
    -0.0,
    "",
    "\x00",
    "\ud800",
    "x" * 10_000,
    [],
    [[]],
    ["x", 1],
    {},
    {"a": {"b": None}},
    "1_000",
    "0x1F",
    "now",
    "infinity",
    "localtime",
    2**31 - 1,
    2**63 - 1,
    -(2**63) - 1,
)
_NESTED: Final = (63, 65, 920)
"""How deep a member's value is nested, besides these."""
_HOLE: Final = "a hole"

_IN_PLACE_OF_DIGITS: Final = (
    *("-1", "", str(2**15), str(2**31 - 1), str(2**31), str(2**63 - 1), str(2**63), "9" * 40, "9" * 5_000),
    *("1e5", "٣", "²", "1_000", "0x1F", "0b11", "infinity", "now", "epoch"),
)

Output = tuple[int, bytes]
"""Satoshi and script."""

_MAX_MONEY: Final = 21_000_000 * 100_000_000
_SIGNATURE: Final = b"\x30" + bytes(70)
_ALICE: Final = key("alice")
_PUBLIC: Final = _ALICE.public_key
_MULTISIG: Final = b"\x51" + push(_PUBLIC) + push(key("bob").public_key) + b"\x52\xae"
_ODD_SCRIPTS: Final = MappingProxyType(
    {
        "an empty script": b"",
        "an anchor": bytes.fromhex("51024e73"),
        "a bare public key": push(_PUBLIC) + b"\xac",
        "a bare multisig": _MULTISIG,
        "an unknown witness program": b"\x60" + push(b"\x01" * 40),
        "a 10 kB script": b"\x61" * 10_000,
        "a push beyond the end": b"\x4d\xff\xff\x00",
    }
)


def hostile_bodies() -> NamedPayloads:
    """Yield what may follow the opcode of any app."""
    yield "nothing", b""
    for byte in (0x00, 0x01, 0x20, 0x7F, 0x80, 0xFF):
        yield f"the byte {byte:02x}", bytes([byte])
    yield "text with a NUL", b"abc\x00def"
    yield from _ODD_TEXT.items()
    yield from _INJECTIONS.items()
    for number in _NUMBERS:
        short = number if len(number) < 50 else f"{number[0]}… ({len(number)} digits)"
        yield f"the number {short}", number.encode()
    yield from ((f"the word {word}", word.encode()) for word in _WORDS)
    yield from _JSON.items()
    for depth in _DEPTHS:
        yield f"a list nested {depth:,} deep", b"[" * depth + b"]" * depth
        yield f"an object nested {depth:,} deep", b'{"a":' * depth + b"1" + b"}" * depth
        yield f"parentheses nested {depth:,} deep", b"(" * depth + b"a" + b")" * depth
    yield from (long_key(size) for size in _KEY_SIZES)
    for size in (2, 4, 8, 20, 32, 33, 64, 255):
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            yield f"{size} bytes of {byte:02x}", bytes([byte]) * size
    dice = Random(1)  # noqa: S311 - it must be the same everywhere
    for size in (76, 256, 521, 3_000, 9_000):
        yield f"{size} random bytes", dice.randbytes(size)
        yield f"{size} random hex digits", dice.randbytes(size // 2).hex().encode()
    yield "100 kB of NUL", bytes(_LONG_BYTES)
    yield "100 kB of text", b"a" * _LONG_BYTES
    yield "100 kB of random hex digits", dice.randbytes(_LONG_BYTES // 2).hex().encode()


def long_key(size: int) -> tuple[str, bytes]:
    """Return text of so many bytes that PostgreSQL cannot compress, and a name for it."""
    letters = Random(size).choices(string.ascii_letters + string.digits, k=size)  # noqa: S311 - the same everywhere
    return f"incompressible text of {size:,} bytes", "".join(letters).encode()


def mutations(body: bytes) -> NamedPayloads:
    """Yield variants of a good payload's part after the opcode."""
    step = max(1, len(body) // _MAX_PLACES)
    for place in range(0, len(body), step):
        yield f"cut off at {place}", body[:place]
        for byte in (0x00, 0x80, body[place] ^ 0x01):
            yield f"with {byte:02x} at {place}", body[:place] + bytes([byte]) + body[place + 1 :]
    for name, tail in (
        ("a NUL", b"\0"),
        ("a space", b" "),
        ("ff", b"\xff"),
        ("a comma", b","),
        ("itself", body),
    ):
        yield f"followed by {name}", body + tail
    yield "followed by 100 kB", body + b"x" * _LONG_BYTES
    yield "after a space", b" " + body
    yield "in upper case", body.upper()
    yield "backwards", body[::-1]
    for word in _WORDS[:3]:
        yield f"with the word {word} in its place", word.encode()
    for size in _KEY_SIZES[::3]:
        name, text = long_key(size)
        yield f"followed by {name}", body + text
    for digits in list(re.finditer(rb"\d+", body))[:_MAX_PLACES]:
        for number in _IN_PLACE_OF_DIGITS:
            changed = body[: digits.start()] + number.encode() + body[digits.end() :]
            yield f"with {number[:10]!r} in place of {digits[0][:10]!r}", changed
    yield from _json_mutations(body)


def _json_mutations(body: bytes) -> NamedPayloads:
    """Yield a JSON object without each of its members, and with a value of every other type in its place."""
    try:
        good = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(good, dict):
        return
    for member in list(good)[:_MAX_PLACES]:
        yield f"without {member!r}", _dump({name: value for name, value in good.items() if name != member})
        for wrong in _WRONG_VALUES:
            short = repr(wrong)[:20] if not isinstance(wrong, int) or wrong < 10**50 else "a long integer"
            yield f"with {member!r} as {short}", _dump({**good, member: wrong})
        for depth in _NESTED:
            # Written as text: json would go as deep, below however deep the caller is.
            nested = _dump({**good, member: _HOLE}).replace(_dump(_HOLE), b"[" * depth + b"]" * depth)
            yield f"with {member!r} as a list nested {depth} deep", nested
        for size in _KEY_SIZES[::3]:
            name, text = long_key(size)
            yield f"with {member!r} as {name}", _dump({**good, member: text.decode()})
    yield "with one more member", _dump({**good, "\x00more": {"\ud800": [1]}})


def _dump(value: Any) -> bytes:  # noqa: ANN401 - what JSON may hold
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Spending:
    """An output that a transaction spends, and the data that would unlock it."""

    spent: SpentOutput
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()


def spend_from(name: str, value: int = 100_000) -> Spending:
    """Spend a coin of a named sender's p2wpkh address."""
    owner = key(name)
    return Spending(SpentOutput(value, owner.script_pubkey), witness=(_SIGNATURE, owner.public_key))


def spend(number: int, coins: Sequence[tuple[bytes, SpentOutput]], outputs: Sequence[Output]) -> Tx:
    """Build a transaction that spends outputs of p2wpkh addresses, each named by its outpoint."""
    owner = key("change")
    owned = [Spending(spent, witness=(_SIGNATURE, owner.public_key)) for _, spent in coins]
    return unsigned_transaction(number, owned, outputs, [outpoint for outpoint, _ in coins])


def unsigned_transaction(
    number: int,
    spendings: Sequence[Spending],
    outputs: Sequence[Output],
    outpoints: Sequence[bytes] | None = None,
) -> Tx:
    """Build a transaction; `number` makes it different from every other, unless it spends `outpoints`."""
    has_witness = any(spending.witness for spending in spendings)
    if outpoints is None:
        outpoints = [sha256d(b"hostile %d %d" % (number, n)) + bytes(4) for n in range(len(spendings))]
    parts = [struct.pack("<i", 2), b"\0\1" if has_witness else b"", compact_size(len(spendings))]
    for outpoint, spending in zip(outpoints, spendings, strict=True):
        parts += [outpoint, compact_size(len(spending.script_sig)), spending.script_sig, b"\xff" * 4]
    parts += [compact_size(len(outputs)), *(serialize_output(*output) for output in outputs)]
    for spending in spendings if has_witness else ():
        parts.append(compact_size(len(spending.witness)))
        parts += [compact_size(len(item)) + item for item in spending.witness]
    parts.append(bytes(4))
    return foreign(b"".join(parts), [spending.spent for spending in spendings])


def hostile_senders() -> Mapping[str, Sequence[Spending]]:
    """Return what may pay for a transaction, by description: often without an address or even a key."""
    legacy, nested, tree = (key("alice", kind) for kind in ("p2pkh", "p2sh-p2wpkh", "p2tr"))
    unusual = {
        f"spending {name}": [Spending(SpentOutput(100_000, script), b"\x51")]
        for name, script in _ODD_SCRIPTS.items()
    }
    return unusual | {
        "from a legacy address": [
            Spending(SpentOutput(100_000, legacy.script_pubkey), push(_SIGNATURE) + push(_PUBLIC))
        ],
        "from a nested segwit address": [
            Spending(
                SpentOutput(100_000, nested.script_pubkey),
                push(_ALICE.script_pubkey),
                (_SIGNATURE, _PUBLIC),
            )
        ],
        "from a taproot address": [Spending(SpentOutput(100_000, tree.script_pubkey), witness=(bytes(64),))],
        "with a stranger as first sender": [Spending(SpentOutput(5, _MULTISIG), b"\0"), spend_from("alice")],
        "spending an output of 0 satoshi": [spend_from("alice", 0)],
        "spending 21 million bitcoin": [spend_from("alice", _MAX_MONEY)],
        "from 300 senders": [spend_from(f"sender {number}", 1_000) for number in range(300)],
    }


def hostile_outputs(carrier: bytes, payload: bytes) -> Iterator[tuple[str, list[Output]]]:
    """Yield outputs around the script that carries the payload, and other ways to carry it."""
    paid = [(500, key(f"recipient {number}").script_pubkey) for number in range(300)]
    yield "and no payment", [(0, carrier)]
    yield "and money burned", [(50_000, carrier)]
    yield "before 300 outputs", [(0, carrier), *paid]
    yield "after 300 outputs", [*paid, (0, carrier)]
    yield "twice", [(0, carrier), (0, carrier)]
    yield "before another payload", [(0, carrier), (0, b"\x6a" + push(b"xx"))]
    yield "after another payload", [(0, b"\x6a" + push(b"xx")), (0, carrier)]
    yield "before a broken payload", [(0, carrier), (0, b"\x6a\x4c")]
    for name, script in _ODD_SCRIPTS.items():
        yield f"before {name}", [(0, carrier), (700, script)]
        yield f"after {name}", [(700, script), (0, carrier)]
    yield "as a push with a 2-byte length", [(0, b"\x6a\x4d" + struct.pack("<H", len(payload)) + payload)]
    yield "as a push with a 4-byte length", [(0, b"\x6a\x4e" + struct.pack("<I", len(payload)) + payload)]
    yield "as a truncated push", [(0, b"\x6a\x4e\xff\xff\xff\xff" + payload)]
    yield "as two pushes", [(0, b"\x6a" + push(payload[:3]) + push(payload[3:]))]
