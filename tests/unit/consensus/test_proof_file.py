"""A proof file is read strictly: what parsers of JSON could read in two ways is refused."""

import json
import time

import pytest

from virtualchain import consensus
from virtualchain.consensus.proof_file import LONGEST, hexadecimal, text, whole, write_proof
from virtualchain.errors import InvalidProof


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"[]", "must be an object"),
        (b"3", "must be an object"),
        (b"null", "must be an object"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{},", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1} // no', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xc0\x80"}', "not UTF-8"),
        (b'{"a": "\n"}', "not JSON"),
        (b'{"a": 1, "a": 1}', "the key 'a' twice"),
        (b'{"a": {"b": [{"c": 1, "d": 2, "c": 3}]}}', "the key 'c' twice"),
        (b'{"a": 1, "\\u0061": 1}', "the key 'a' twice"),
        (b'{"a": -1}', "the number '-1'"),
        (b'{"a": -0}', "the number '-0'"),
        (b'{"a": 1.0}', "the number '1.0'"),
        (b'{"a": 1e3}', "the number '1e3'"),
        (b'{"a": 1E+3}', r"the number '1E\+3'"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": +1}', "not JSON"),
        (b'{"a": 0x1}', "not JSON"),
        (b'{"a": NaN}', "the number 'NaN'"),
        (b'{"a": Infinity}', "the number 'Infinity'"),
        (b'{"a": -Infinity}', "the number '-Infinity'"),
        (b'{"a": ' + b"9" * 17 + b"}", "the number '9+'"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the number '9+"),
        ('{"a": \u0661}'.encode(), "not JSON"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": "\\udc00\\ud800"}', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (b'{"a": ["x", "\\uD83D"]}', "lone surrogate"),
        (b'{"a": "\\x00"}', "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "not JSON"),
    ],
)
def test_what_is_not_exactly_one_object_is_refused(data: bytes, reason: str) -> None:
    """Byte order marks, other encodings, repeated keys, other numbers and broken strings are."""
    with pytest.raises(InvalidProof, match=reason):
        consensus.read_proof(data)


def test_an_object_is_read_as_it_is_written() -> None:
    """White space, escapes and characters beyond the basic plane are JSON."""
    data = ' {"a" :\t[0, 9007199254740991, true, null],\r\n"\\ud83d\\ude00": "\U0001f600\\u0000"} '.encode()
    read = consensus.read_proof(data)
    assert read == {"a": [0, 2**53 - 1, True, None], "\U0001f600": "\U0001f600\0"}
    assert consensus.read_proof(write_proof(read).encode()) == read
    assert write_proof(read).isascii()


def test_a_file_that_is_too_long_is_refused() -> None:
    """One of exactly 2^26 bytes is read."""
    padding = b" " * (LONGEST - 2)
    assert consensus.read_proof(b"{" + padding + b"}") == {}
    with pytest.raises(InvalidProof, match="more than 67,108,864 bytes"):
        consensus.read_proof(b"{" + padding + b"} ")


def test_a_repeated_key_among_many_is_found_at_once() -> None:
    """Looking for it takes no longer than reading the object."""
    keys = [f"{n}" for n in range(200_000)]
    data = "{" + ",".join(f'"{key}":0' for key in [*keys, keys[-1]]) + "}"
    started = time.monotonic()
    with pytest.raises(InvalidProof, match="'199999' twice"):
        consensus.read_proof(data.encode())
    assert time.monotonic() - started < 10


def test_fields_have_one_form() -> None:
    """What looks like a number, hex or text but is something else is refused."""
    numbers: list[object] = [True, False, 1.0, "1", None, -1, 2**31, [1]]
    for value in numbers:
        with pytest.raises(InvalidProof, match="whole number from 0 to 2147483647"):
            whole(value, "it")
    assert whole(2**53 - 1, "it", 2**53 - 1) == 2**53 - 1
    digits: list[object] = ["AB", "a", "0x", "ab ", " ab", "ab\n", "\uff41\uff42", b"ab", None, 12]
    for value in digits:
        with pytest.raises(InvalidProof, match="lower-case hex digits"):
            hexadecimal(value, None, "it")
    with pytest.raises(InvalidProof, match="4 lower-case hex digits"):
        hexadecimal("ab", 4, "it")
    texts: list[object] = [None, 1, b"a", ["a"], json.loads('"\\ud800"')]
    for value in texts:
        with pytest.raises(InvalidProof):
            text(value, "it")
