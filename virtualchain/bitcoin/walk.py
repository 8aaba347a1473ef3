"""The walks over every byte of the chain: where transactions lie, which may be inputs, what they spend.

They are written to be fast both ways. Interpreted, every read is inlined, as calls would be slow, and the
loops over most of the bytes count down, as `range` would make an object for each. Compiled by
Cython (`.ci/compile.py`), the same lines are C that lets other threads run while it walks. The answers are
the same for any bytes: an index outside of the data raises IndexError either way.
"""

from typing import TYPE_CHECKING, Final

from virtualchain.bitcoin import interpreted as cython  # the build puts `import cython` here
from virtualchain.errors import MalformedBlock

if TYPE_CHECKING:
    from array import array

IS_COMPILED: Final = cython.compiled


@cython.cfunc
@cython.nogil
@cython.returns("Py_ssize_t")
@cython.exceptval(-1)
@cython.locals(
    data="const unsigned char[::1]",
    at="Py_ssize_t",
    size="Py_ssize_t",
    end="Py_ssize_t",
    place="Py_ssize_t",
    value="unsigned long long",
    least="unsigned long long",
)
def _long_count(data: bytes, at: int) -> int:
    """Read a count or length of three, five or nine bytes at `at`."""
    size = 2 << (data[at] - 0xFD)
    end = at + 1 + size
    value = 0
    place = min(end, len(data))
    while place > at + 1:
        place -= 1
        value = value << 8 | data[place]
    # Each counted item takes at least one byte: a larger count is rejected before anything loops over it.
    if end > len(data) or value > len(data) - end:
        with cython.gil:
            raise MalformedBlock(f"a count of {value}, but only {max(0, len(data) - end)} bytes are left")
    least = 0xFD if size == 2 else 0x1_0000 if size == 4 else 0x1_0000_0000
    if value < least:
        with cython.gil:
            raise MalformedBlock(f"a count of {value} is written in {1 + size} bytes, more than it needs")
    return value


def long_count(data: bytes, at: int) -> tuple[int, int]:
    """Read a count or length of three, five or nine bytes at `at`; returns it and where it ends."""
    return _long_count(data, at), at + 1 + (2 << (data[at] - 0xFD))


@cython.locals(
    raw="const unsigned char[::1]",
    at="Py_ssize_t",
    count="Py_ssize_t",
    firsts="const unsigned char[::1]",
    magics="const unsigned char[::1]",
    starts="unsigned int[::1]",
    outputs_ends="unsigned int[::1]",
    spendings="unsigned int[::1]",
    coinbases="unsigned char[::1]",
    matches="unsigned char[::1]",
    n="Py_ssize_t",
    has_witness="bint",
    inputs="Py_ssize_t",
    left="Py_ssize_t",
    outputs="Py_ssize_t",
    items="Py_ssize_t",
    length="Py_ssize_t",
    payload="Py_ssize_t",
    end="Py_ssize_t",
    magic="Py_ssize_t",
    size="Py_ssize_t",
    i="Py_ssize_t",
)
def walk_block(  # noqa: C901, PLR0912, PLR0915 - calls would be slow
    raw: bytes,
    at: int,
    count: int,
    firsts: bytes,
    magics: bytes,
    starts: "array[int]",
    outputs_ends: "array[int]",
    spendings: "array[int]",
    coinbases: bytearray,
    matches: bytearray,
) -> int:
    """Walk over the `count` transactions of a block from `at`, and return where the last one ends.

    By txindex, the arrays take: where a transaction starts (and, past the last one, where that ends), where
    its outputs end, how many outputs it spends, whether it has the form of a coinbase, and whether one of its
    outputs is an OP_RETURN that pushes one of the magics. An array may be too short only if the block is.

    `magics` are one after the other, each after its length in one byte; the table `firsts` has a 1 for every
    byte that one of them starts with. Raises MalformedBlock.
    """
    n = 0
    try:
        with cython.nogil:
            while n < count:
                starts[n] = at
                at += 4
                has_witness = raw[at] == 0
                if has_witness:
                    if raw[at + 1] != 1:
                        with cython.gil:
                            raise MalformedBlock(f"transaction {n} has no input")
                    at += 2
                inputs = raw[at]
                at += 1
                if inputs >= 0xFD:
                    size = 2 << (inputs - 0xFD)
                    inputs = _long_count(raw, at - 1)
                    at += size
                spendings[n] = inputs
                if inputs == 1 and raw[at + 35] == 0xFF:
                    i = 0
                    while i < 36 and raw[at + i] == (0 if i < 32 else 0xFF):
                        i += 1
                    coinbases[n] = i == 36
                left = inputs
                while left:
                    left -= 1
                    length = raw[at + 36]
                    if length < 0xFD:
                        at += length + 41
                    else:
                        size = 2 << (length - 0xFD)
                        at += _long_count(raw, at + 36) + size + 41
                outputs = raw[at]
                at += 1
                if outputs >= 0xFD:
                    size = 2 << (outputs - 0xFD)
                    outputs = _long_count(raw, at - 1)
                    at += size
                while outputs:
                    outputs -= 1
                    length = raw[at + 8]
                    at += 9
                    if length >= 0xFD:
                        size = 2 << (length - 0xFD)
                        length = _long_count(raw, at - 1)
                        at += size
                    if raw[at] == 0x6A and length > 2 and raw[at + 1] < 0x4F:
                        end = at + length
                        size = raw[at + 1]  # a push of so many bytes, or of as many as the next 1, 2 or 4 say
                        payload = at + 2 + (0 if size < 0x4C else 1 << (size - 0x4C))
                        if payload < end and firsts[raw[payload]]:
                            magic = 0
                            while magic < len(magics):
                                size = magics[magic]
                                magic += 1
                                if payload + size <= end:
                                    i = 0
                                    while i < size and raw[payload + i] == magics[magic + i]:
                                        i += 1
                                    if i == size:
                                        matches[n] = 1
                                magic += size
                    at += length
                outputs_ends[n] = at
                if has_witness:
                    while inputs:
                        inputs -= 1
                        items = raw[at]
                        at += 1
                        if items >= 0xFD:
                            size = 2 << (items - 0xFD)
                            items = _long_count(raw, at - 1)
                            at += size
                        while items:
                            items -= 1
                            length = raw[at]
                            if length < 0xFD:
                                at += length + 1
                            else:
                                size = 2 << (length - 0xFD)
                                at += _long_count(raw, at) + size + 1
                at += 4
                n += 1
            starts[n] = at
    except IndexError as error:
        raise MalformedBlock(f"its bytes end inside transaction {n}") from error
    return at


@cython.locals(
    data="const unsigned char[::1]",
    at="Py_ssize_t",
    count="Py_ssize_t",
    length="Py_ssize_t",
    size="Py_ssize_t",
    _="Py_ssize_t",
)
def output_scripts(raw: bytes) -> list[bytes]:  # noqa: C901 - calls would be slow
    """Cut the output scripts out of a serialized transaction; what follows its outputs is not looked at.

    Raises MalformedBlock.
    """
    data = raw
    scripts: list[bytes] = []
    try:
        at = 4
        if data[at] == 0:
            if data[at + 1] != 1:
                raise MalformedBlock("a transaction has no input")
            at += 2
        count = data[at]
        at += 1
        if count >= 0xFD:
            size = 2 << (count - 0xFD)
            count = _long_count(data, at - 1)
            at += size
        for _ in range(count):
            length = data[at + 36]
            if length < 0xFD:
                at += length + 41
            else:
                size = 2 << (length - 0xFD)
                at += _long_count(data, at + 36) + size + 41
        count = data[at]
        at += 1
        if count >= 0xFD:
            size = 2 << (count - 0xFD)
            count = _long_count(data, at - 1)
            at += size
        for _ in range(count):
            length = data[at + 8]
            at += 9
            if length >= 0xFD:
                size = 2 << (length - 0xFD)
                length = _long_count(data, at - 1)
                at += size
            scripts.append(raw[at : at + length])
            at += length
    except IndexError as error:
        raise MalformedBlock("a transaction ends too early") from error
    if at > len(data):
        raise MalformedBlock("a transaction ends too early")
    return scripts


@cython.locals(
    data="const unsigned char[::1]",
    packed="unsigned char[::1]",
    at="Py_ssize_t",
    count="Py_ssize_t",
    length="Py_ssize_t",
    size="Py_ssize_t",
    end="Py_ssize_t",
    i="Py_ssize_t",
    _="Py_ssize_t",
)
def outpoints(raw: bytes, at: int) -> bytes:
    """Cut what a transaction that begins at `at` spends out of some bytes, which may go on after it.

    Each outpoint is 36 bytes: the transaction id in display order, and the number of the output, with the
    most significant byte first. Raises MalformedBlock.
    """
    data = raw
    try:
        at += 4
        if data[at] == 0:
            if data[at + 1] != 1:
                raise MalformedBlock("a transaction has no input")
            at += 2
        count = data[at]
        at += 1
        if count >= 0xFD:
            size = 2 << (count - 0xFD)
            count = _long_count(data, at - 1)
            at += size
        if count > len(data) // 41:
            raise MalformedBlock("a transaction ends too early")
        packed = bytearray(36 * count)
        end = 0
        for _ in range(count):
            for i in range(32):
                packed[end + i] = data[at + 31 - i]
            for i in range(4):
                packed[end + 32 + i] = data[at + 35 - i]
            end += 36
            length = data[at + 36]
            if length < 0xFD:
                at += length + 41
            else:
                size = 2 << (length - 0xFD)
                at += _long_count(data, at + 36) + size + 41
    except IndexError as error:
        raise MalformedBlock("a transaction ends too early") from error
    return bytes(packed)


@cython.locals(
    data="const unsigned char[::1]",
    at="Py_ssize_t",
    n="Py_ssize_t",
    stop="Py_ssize_t",
    counts="unsigned int[::1]",
    places="unsigned int[::1]",
    place="Py_ssize_t",
    count="Py_ssize_t",
    length="Py_ssize_t",
    i="Py_ssize_t",
)
def skip_spent(
    data: bytes, at: int, n: int, stop: int, counts: "array[int]", places: "array[int]"
) -> tuple[int, int]:
    """Skip what transactions spend, as `/rest/spenttxouts` writes it, from number `n` at `at` up to `stop`.

    Returns the number and the place of the transaction in front of which it stopped: `stop`, or one that is
    long, or may go on beyond the data. `counts` takes how many outputs each one in front of that spends, and
    `places` where the first of them is.
    """
    try:
        with cython.nogil:
            while n < stop:
                count = data[at]
                place = at + 9  # where the length of its first script is
                if count >= 0xFD:
                    break
                i = 0
                while i < count:
                    length = data[place]
                    if length >= 0xFD:
                        break
                    place += length + 9
                    i += 1
                place -= 8
                if i < count or place > len(data):
                    break
                counts[n] = count
                places[n] = at + 1
                n += 1
                at = place
    except IndexError:
        pass  # inside a transaction: it is left to the caller
    return n, at


@cython.locals(
    data="const unsigned char[::1]",
    at="Py_ssize_t",
    n="Py_ssize_t",
    stop="Py_ssize_t",
    counts="unsigned int[::1]",
    place="Py_ssize_t",
    count="Py_ssize_t",
    form="Py_ssize_t",
    numbers="Py_ssize_t",
    i="Py_ssize_t",
)
def skip_undo(data: bytes, at: int, n: int, stop: int, counts: "array[int]") -> tuple[int, int]:
    """Skip what transactions spend, as undo data state it, like `skip_spent`."""
    try:
        with cython.nogil:
            while n < stop:
                count = data[at]
                place = at + 1
                if count >= 0xFD:
                    break
                i = 0
                while i < count:
                    numbers = 3 if data[place] > 1 else 2  # height, perhaps a version, and amount
                    while numbers:
                        while data[place] & 0x80:
                            place += 1
                        place += 1
                        numbers -= 1
                    form = data[place]
                    place += 1
                    if form & 0x80:
                        if data[place] & 0x80:
                            break
                        form = ((form & 0x7F) + 1) << 7 | data[place]
                        place += 1
                    place += form - 6 if form > 5 else 20 if form < 2 else 32
                    i += 1
                if i < count or place > len(data):
                    break
                counts[n] = count
                n += 1
                at = place
    except IndexError:
        pass  # inside a transaction: it is left to the caller
    return n, at
