"""What strangers may write behind an app's magic and opcode, and what they may make of a good payload.

Everything here is the same on every run: a case that was met once is met again.
"""

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any, Final

Named = Iterator[tuple[str, bytes]]
"""Cases: what it is, in a few words, and the bytes."""

_LONG: Final = 100_000
_MOST_PLACES: Final = 12
"""At how many places a good payload is cut or changed."""

_BROKEN_TEXT: Final = {
    "a byte that begins no character": b"\xff\xfe",
    "a character cut short": b"abc\xe2\x82",
    "an overlong NUL": b"\xc0\x80",
    "a lone surrogate as CESU-8": b"\xed\xa0\x80",
    "a code point behind Unicode": b"\xf4\x90\x80\x80",
    "a byte order mark": b"\xef\xbb\xbfabc",
    "a noncharacter": "a\uffffb".encode(),
    "text from right to left": "\u202eabc\u202c".encode(),
    "combining characters": ("e" + "\u0301" * 50).encode(),
    "emoji": ("\U0001f468\u200d\U0001f469" * 20).encode(),
    "line breaks": b"a\r\nb\nc\x0b\x0c\x1c\x85",
    "blanks": b" \t\xc2\xa0 ",
}
_MEANT_FOR_OTHERS: Final = {
    "quotes": b"'\"`''\"\"",
    "SQL": b"'); DROP TABLE entries; --",
    "placeholders": b"%s %(a)s %% {0} {} $1 :a",
    "backslashes": b"\\\\\\' \\x00 \\u0000 \\",
    "an open pattern": b"(((((([[[***",
    "a pattern that takes for ever": b"(a+)+$",
    "the word null": b"NULL",
    "the word nan": b"NaN",
    "infinity": b"-Infinity",
    "minus zero": b"-0.0",
    "a path": b"../../../etc/passwd\x00.txt",
    "a date": b"2009-02-30",
    "an array": b"{1,2,{3}",
}
_NUMBERS: Final = (
    "0",
    "-1",
    "007",
    str(2**15),
    str(2**31),
    str(2**63),
    str(2**64),
    "-" + "9" * 40,
    "9" * 400,
    "9" * 5_000,
    "1e400",
    "1e-400",
    "0.1",
    "1" * 131_073,
)
_JSON: Final = {
    "JSON with a NUL": b'{"a": "\\u0000"}',
    "JSON with a lone surrogate": b'{"a": "\\ud800"}',
    "JSON with a NUL as its key": b'{"\\u0000": 1}',
    "JSON with NaN": b'{"a": NaN}',
    "JSON with a number beyond floats": b'{"a": 1e400}',
    "JSON with a long integer": b'{"a": ' + b"9" * 5_000 + b"}",
    "JSON with a key twice": b'{"a": 1, "a": 2}',
    "JSON that is a list": b"[1, 2]",
    "JSON that is a number": b"5",
    "JSON that is null": b"null",
    "JSON 70 deep": b'{"a":' * 70 + b"1" + b"}" * 70,
    "JSON 950 deep": b"[" * 950 + b"]" * 950,
    "JSON 50,000 deep": b"[" * 50_000 + b"]" * 50_000,
    "JSON that is cut short": b'{"a": "b',
    "JSON of many values": b"[" + b"0," * 40_000 + b"0]",
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
)


def hostile_bodies() -> Named:
    """Give what may stand behind an opcode, whatever the app is."""
    yield "nothing", b""
    for byte in (0x00, 0x01, 0x20, 0x7F, 0x80, 0xFF):
        yield f"the byte {byte:02x}", bytes([byte])
    yield "text with a NUL", b"abc\x00def"
    yield from _BROKEN_TEXT.items()
    yield from _MEANT_FOR_OTHERS.items()
    for number in _NUMBERS:
        short = number if len(number) < 50 else f"{number[0]}… ({len(number)} digits)"
        yield f"the number {short}", number.encode()
    yield from _JSON.items()
    for size in (2, 4, 8, 20, 32, 33, 64, 255):
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            yield f"{size} bytes of {byte:02x}", bytes([byte]) * size
    dice = Random(1)  # noqa: S311 - it is to be the same everywhere
    for size in (76, 256, 521, 3_000, 9_000):
        yield f"{size} random bytes", dice.randbytes(size)
        yield f"{size} random hex digits", dice.randbytes(size // 2).hex().encode()
    yield "100 kB of NUL", bytes(_LONG)
    yield "100 kB of text", b"a" * _LONG
    yield "100 kB of random hex digits", dice.randbytes(_LONG // 2).hex().encode()


def mutations(body: bytes) -> Named:
    """Give what a stranger may make of a good payload's part behind the opcode."""
    step = max(1, len(body) // _MOST_PLACES)
    for place in range(0, len(body), step):
        yield f"cut at {place}", body[:place]
        for byte in (0x00, 0x80, body[place] ^ 0x01):
            yield f"with {byte:02x} at {place}", body[:place] + bytes([byte]) + body[place + 1 :]
    for name, tail in (
        ("a NUL", b"\0"),
        ("a blank", b" "),
        ("ff", b"\xff"),
        ("a comma", b","),
        ("itself", body),
    ):
        yield f"followed by {name}", body + tail
    yield "followed by 100 kB", body + b"x" * _LONG
    yield "behind a blank", b" " + body
    yield "in capitals", body.upper()
    yield "backwards", body[::-1]
    for found in list(re.finditer(rb"\d+", body))[:_MOST_PLACES]:
        for number in ("-1", "", str(2**31), str(2**63), "9" * 40, "9" * 5_000, "1e5", "٣"):
            changed = body[: found.start()] + number.encode() + body[found.end() :]
            yield f"with {number[:10]!r} in place of {found[0][:10]!r}", changed
    yield from _json_mutations(body)


def _json_mutations(body: bytes) -> Named:
    """Give a JSON object without each of its members, and with values of each other type in its place."""
    try:
        good = json.loads(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(good, dict):
        return
    for key in list(good)[:_MOST_PLACES]:
        yield f"without {key!r}", _dump({name: value for name, value in good.items() if name != key})
        for wrong in _WRONG_VALUES:
            short = repr(wrong)[:20] if not isinstance(wrong, int) or wrong < 10**50 else "a long integer"
            yield f"with {key!r} as {short}", _dump({**good, key: wrong})
    yield "with a member more", _dump({**good, "\x00more": {"\ud800": [1]}})


def _dump(value: Any) -> bytes:  # noqa: ANN401 - what JSON may hold
    return json.dumps(value, separators=(",", ":")).encode()
