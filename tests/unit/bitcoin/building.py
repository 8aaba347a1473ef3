"""Serialized transactions and blocks, built by hand for tests of the code that reads them."""

from collections.abc import Iterable, Sequence

from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header, sha256d, target
from virtualchain.bitcoin.networks import Network, network, with_easy_work

MAIN = with_easy_work(network("mainnet"))
"""Mainnet, but with proof of work that a test can afford."""


def mined(raw: bytes) -> bytes:
    """Replace the nonce of a header, or of a block's, by the first one with proof of work."""
    limit = target(int.from_bytes(raw[72:76], "little"))
    for nonce in range(1 << 32):
        header = raw[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(header), "little") <= limit:
            return header + raw[HEADER_SIZE:]
    raise AssertionError("no nonce is good enough")


HEADER = mined(bytes(range(72)) + bytes.fromhex("ffff7f20") + bytes(4))
"""A header with regtest's target and with proof of work."""
P2PKH = bytes.fromhex("76a914") + bytes(20) + bytes.fromhex("88ac")


def count(number: int) -> bytes:
    """Write a count or length in its shortest form."""
    if number < 0xFD:
        return bytes([number])
    size = 2 if number < 1 << 16 else 4
    return bytes([0xFC + size // 2]) + number.to_bytes(size, "little")


def push(data: bytes) -> bytes:
    """Write a push in its shortest form."""
    if len(data) <= 75:
        return bytes([len(data)]) + data
    if len(data) <= 255:
        return b"\x4c" + bytes([len(data)]) + data
    return b"\x4d" + len(data).to_bytes(2, "little") + data


def op_return(payload: bytes) -> bytes:
    """Write the output script that carries a payload."""
    return b"\x6a" + push(payload)


def transaction(
    *scripts: bytes,
    script_sigs: Sequence[bytes] = (b"",),
    witnesses: Sequence[Sequence[bytes]] = (),
    values: Iterable[int] | None = None,
) -> bytes:
    """Write a transaction with these output scripts (1,000 satoshi each by default) and inputs."""
    amounts = [1000] * len(scripts) if values is None else list(values)
    inputs = b"".join(
        bytes([n % 256]) * 32 + n.to_bytes(4, "little") + count(len(sig)) + sig + b"\xfe\xff\xff\xff"
        for n, sig in enumerate(script_sigs, 1)
    )
    outputs = b"".join(
        value.to_bytes(8, "little", signed=True) + count(len(script)) + script
        for value, script in zip(amounts, scripts, strict=True)
    )
    witness = b"".join(
        count(len(items)) + b"".join(count(len(item)) + item for item in items) for items in witnesses
    )
    return b"".join(
        [
            b"\x02\0\0\0",
            b"\0\1" if witnesses else b"",
            count(len(script_sigs)) + inputs,
            count(len(scripts)) + outputs,
            witness,
            b"\0\0\0\0",
        ]
    )


def as_coinbase(raw: bytes) -> bytes:
    """Let a transaction's first input spend nothing, as a coinbase's does."""
    return raw.replace(b"\1" * 32 + b"\1\0\0\0", bytes(32) + b"\xff" * 4, 1)


COINBASE = as_coinbase(transaction(P2PKH, values=[50 * 10**8]))


def checked(block_id: int, raw: bytes, on: Network = MAIN) -> CheckedBlock:
    """Let a block through the gate, whatever its transactions are."""
    return CheckedBlock(read_header(block_id, raw[:HEADER_SIZE]), raw, on, "headers")


def block(*transactions: bytes) -> bytes:
    """Write a block: a coinbase, then these transactions."""
    return HEADER + count(1 + len(transactions)) + COINBASE + b"".join(transactions)
