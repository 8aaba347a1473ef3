"""Scripts as bitcoind prints them; a real node confirms more of them in the integration tests."""

import pytest

from virtualchain.bitcoin.networks import network
from virtualchain.testing import ChainBuilder, key
from virtualchain.testing.scripts import asm, script_json
from virtualchain.testing.verbose import difficulty
from virtualchain.testing.wire import read_transaction


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("", ""),
        ("51", "1"),
        ("4f6a", "-1 OP_RETURN"),
        ("0181", "-1"),
        ("028000", "128"),
        ("00", "0"),
        ("0461626364", "1684234849"),
        ("056162636465", "6162636465"),
        ("0561", "[error]"),
        ("baffbb", "OP_CHECKSIGADD OP_INVALIDOPCODE OP_UNKNOWN"),
        ("b1b2", "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY"),
    ],
)
def test_operations_are_printed_with_bitcoinds_names_and_numbers(script: str, printed: str) -> None:
    """Short pushes are numbers, longer ones hex."""
    assert asm(bytes.fromhex(script)) == printed


def test_the_hash_type_behind_a_signature_is_named() -> None:
    """In a scriptSig, and only for what is a signature."""
    chain = ChainBuilder()
    raw = read_transaction(chain.send(b"x", key("alice", "p2pkh")).raw).raw
    script = raw[42 : 42 + raw[41]]
    printed = asm(script, signatures=True)
    assert printed.split()[0].endswith("[ALL]")
    assert asm(script).split()[0].endswith("01")
    signature = bytearray(script[1 : 1 + script[0]])
    for place, value in ((0, 0x31), (1, 0), (2, 3), (3, 0), (3, 0xFF), (4, 0x80), (-1, 7)):
        broken = bytearray(signature)
        broken[place] = value
        assert "[" not in asm(bytes([len(broken)]) + broken, signatures=True)


def test_an_output_script_is_told_with_descriptor_type_and_address() -> None:
    """The fields of bitcoind, in its order."""
    told = script_json(key("alice").script_pubkey, network("regtest"))
    assert list(told) == ["asm", "desc", "hex", "address", "type"]
    assert told["desc"].startswith(f"addr({key('alice').address()})#")
    assert told["type"] == "witness_v0_keyhash"
    assert list(script_json(b"\x51", network("regtest"))) == ["asm", "desc", "hex", "type"]


def test_the_difficulty_has_the_digits_that_a_node_prints() -> None:
    """Of mainnet blocks 325000 and 549400, and of regtest."""
    assert difficulty(0x181F6973) == 35002482026.13323
    assert difficulty(0x17272D92) == 7184404942701.792
    assert difficulty(0x1D00FFFF) == 1.0
    assert difficulty(0x207FFFFF) == 4.656542373906925e-10
