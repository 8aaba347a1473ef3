"""Decoding one serialized transaction."""

import gzip
import json

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import P2PKH, op_return, transaction
from virtualchain.bitcoin.block import read_inputs, read_transaction, split_transactions
from virtualchain.bitcoin.header import sha256d
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.transaction import pack_outputs, unpack_outputs
from virtualchain.errors import MalformedBlock
from virtualchain.model import Output, SpentOutput, TxIn

MAIN = network("mainnet")


def test_a_transaction_is_read_field_by_field() -> None:
    """Inputs and outputs are in order, hashes in display order, and amounts and scripts as they are."""
    raw = transaction(P2PKH, op_return(b"id!"), values=[5000, 0], script_sigs=[b"\x51", b""])
    decoded = read_transaction(raw, MAIN)
    assert decoded.txid == sha256d(raw)[::-1].hex()
    assert decoded.inputs == (
        TxIn("01" * 32, 1, b"\x51", 0xFFFFFFFE, ()),
        TxIn("02" * 32, 2, b"", 0xFFFFFFFE, ()),
    )
    assert decoded.outputs == (
        Output(0, 5000, P2PKH.hex(), "pubkeyhash", ("1111111111111111111114oLvT2",)),
        Output(1, 0, "6a03696421", "nulldata", ()),
    )


def test_a_witness_belongs_to_its_input_and_not_to_the_txid() -> None:
    """A transaction has the same id with and without its witness."""
    bare = transaction(P2PKH, script_sigs=[b"", b""])
    signed = transaction(P2PKH, script_sigs=[b"", b""], witnesses=[[b"\xaa", b""], []])
    decoded = read_transaction(signed, MAIN)
    assert decoded.txid == read_transaction(bare, MAIN).txid
    assert [spending.witness for spending in decoded.inputs] == [(b"\xaa", b""), ()]


def test_long_scripts_have_long_lengths() -> None:
    """Lengths of three and of five bytes are read."""
    scripts = [b"\x6a" + bytes(size) for size in (251, 252, 0xFFFF, 0x10000)]
    decoded = read_transaction(transaction(*scripts), MAIN)
    assert [len(output.script_pubkey) // 2 for output in decoded.outputs] == [252, 253, 0x10000, 0x10001]


def test_an_amount_is_a_signed_number() -> None:
    """It is signed as in Bitcoin Core, so any eight bytes fit the database."""
    decoded = read_transaction(transaction(P2PKH, P2PKH, values=[-1, 2**63 - 1]), MAIN)
    assert [output.value for output in decoded.outputs] == [-1, 2**63 - 1]


def test_inputs_alone_are_those_of_the_transaction() -> None:
    """Callers that only need inputs need not know the network."""
    raw = transaction(P2PKH, script_sigs=[b"\x51"], witnesses=[[b"\xaa"]])
    assert read_inputs(raw) == read_transaction(raw, MAIN).inputs


@pytest.mark.parametrize("witnesses", [[], [[b"\xaa\xbb"], [b"", b"\xcc"]]])
def test_a_truncated_transaction_is_rejected(witnesses: list[list[bytes]]) -> None:
    """It is rejected wherever it is cut."""
    raw = transaction(P2PKH, op_return(b"id!"), script_sigs=[b"\x51", b""], witnesses=witnesses)
    for size in range(len(raw)):
        with pytest.raises(MalformedBlock):
            read_transaction(raw[:size], MAIN)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (transaction(P2PKH) + b"\0", "1 bytes follow"),
        (transaction(P2PKH, script_sigs=[], witnesses=[]), "ends too early"),
        (b"\2\0\0\0\0\2" + bytes(60), "no input"),
        (b"\2\0\0\0\0\1\0\0" + bytes(4), "announces a witness but has none"),
        (transaction(P2PKH, witnesses=[[]]), "announces a witness but has none"),
        (b"\2\0\0\0\xff" + b"\xff" * 8, "a count of 18446744073709551615, but only 0 bytes are left"),
        (b"\2\0\0\0\xfd\xff", "a count of 255, but only 0 bytes are left"),
        (b"\2\0\0\0\xfd\x01\x00" + transaction(P2PKH)[5:], "a count of 1 is written in 3 bytes"),
        (b"\2\0\0\0\xfe\xfd\x00\x00\x00" + bytes(300), "a count of 253 is written in 5 bytes"),
        (b"\2\0\0\0\xff\x00\x00\x01" + bytes(70000), "a count of 65536 is written in 9 bytes"),
    ],
)
def test_bytes_that_are_not_a_transaction_are_rejected(raw: bytes, message: str) -> None:
    """They have bytes left over, no input, or counts that are too large or not minimal."""
    with pytest.raises(MalformedBlock, match=message):
        read_transaction(raw, MAIN)


@pytest.mark.parametrize("size", [0, 1, 0xFC, 0xFD, 0xFFFF, 0x10000])
def test_packed_outputs_are_unpacked_or_refused(size: int) -> None:
    """Outputs come back as they were packed, and bytes that end anywhere else than after one are refused."""
    first, second = SpentOutput(21_000_000 * 10**8, bytes(size)), SpentOutput(0, P2PKH)
    packed = pack_outputs([first, second])
    assert unpack_outputs(packed) == (first, second)
    assert unpack_outputs(b"") == ()
    ends = {0, len(pack_outputs([first])), len(packed)}
    for end in {*range(20), *range(len(packed) - 40, len(packed))} - ends:
        with pytest.raises(MalformedBlock):
            unpack_outputs(packed[:end])


@pytest.mark.parametrize("block_id", [325000, 549400])
def test_real_transactions_are_decoded_as_the_node_does(block_id: int) -> None:
    """Every field of every transaction of two blocks agrees with a node's verbose block."""
    verbose = json.loads(gzip.decompress(shared(f"getblock/{block_id}.json.gz").read_bytes()))
    raws = split_transactions(shared(f"mainnet/{block_id}.blk").read_bytes())
    assert len(raws) == len(verbose["tx"])
    for raw, expected in zip(raws[1:], verbose["tx"][1:], strict=True):
        decoded = read_transaction(raw, MAIN)
        assert decoded.txid == expected["txid"]
        assert [
            (vin["txid"], vin["vout"], vin["scriptSig"]["hex"], vin["sequence"], vin.get("txinwitness", []))
            for vin in expected["vin"]
        ] == [tuple(spending.as_dict().values()) for spending in decoded.inputs]
        assert [
            (vout["n"], round(vout["value"] * 10**8), vout["scriptPubKey"]["hex"])
            for vout in expected["vout"]
        ] == [(output.n, output.value, output.script_pubkey) for output in decoded.outputs]
