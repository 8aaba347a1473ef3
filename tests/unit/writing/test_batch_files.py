"""Batches are read whole, and a file of another form is refused with its line."""

import pytest

from virtualchain.errors import UsageError
from virtualchain.writing.batch import read_lines


def test_lines_have_their_place_in_the_file() -> None:
    """Empty lines and cells are left out; quoted cells may hold anything, and a mark at the start nothing."""
    data = '\ufeffopcode, text ,--to\r\nsign,"a, ""b""\nc",\r\n\r\nsign,,x=1\r\n'.encode()
    first, second = read_lines(data)
    assert (first.number, first.values) == (3, {"opcode": "sign", "text": 'a, "b"\nc'})
    assert (second.number, second.values) == (5, {"opcode": "sign", "--to": "x=1"})
    assert len({first.digest, second.digest}) == 2


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "has no header"),
        (b"\n", "has no header"),
        (b"opcode\n", "has no line after its header"),
        (b"opcode,a,a\nx,1,2\n", "two columns of the batch are named 'a'"),
        (b"opcode,,a\nx,1,2\n", "two columns of the batch are named ''"),
        (b"opcode,--fee\nx,1\n", "has a column --fee"),
        (b"opcode,a\nx,1,2\n", "line 2 has 3 cells, and its header 2"),
        (b"opcode\n\xff\n", "is not CSV in UTF-8"),
        (b'opcode\n"x\n', "is not CSV in UTF-8"),
        (b'opcode\n"x"y\n', "is not CSV in UTF-8"),
    ],
)
def test_what_is_no_batch_is_refused(data: bytes, complaint: str) -> None:
    """Nothing of it is guessed."""
    with pytest.raises(UsageError, match=complaint):
        read_lines(data)
