"""Litecoin, Namecoin and Dogecoin: their real blocks, headers and transactions are what explorers say."""

import gzip
import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.auxpow import has_auxpow
from virtualchain.bitcoin.difficulty import check_targets, check_times, check_work
from virtualchain.bitcoin.encoding import plain_block, plain_transaction, read_headers, read_whole_header
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import display_hash
from virtualchain.bitcoin.layout import split_transactions, txids
from virtualchain.bitcoin.networks import Network, network, scrypt
from virtualchain.bitcoin.script import classify, op_return_payload
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import MalformedBlock

COINS = ("litecoin", "namecoin", "dogecoin")
SUFFIXES = {"main": "", "test": "-testnet", "regtest": "-regtest"}


def network_of(item: dict[str, Any]) -> Network:
    """Return the network of a recorded item."""
    return network(item["chain"] + SUFFIXES[item["network"]])


def blocks(coin: str) -> list[tuple[bytes, dict[str, Any]]]:
    """Return a coin's recorded blocks, with what is known of them."""
    folder = shared(f"chains/{coin}")
    files = sorted(folder.glob("*.blk"))
    return [(file.read_bytes(), json.loads(file.with_suffix(".json").read_text())) for file in files]


def framed(raw: bytes) -> list[bytes]:
    """Split the content of a file like `blk*.dat`."""
    records, at = list[bytes](), 0
    while at < len(raw):
        size = int.from_bytes(raw[at + 4 : at + 8], "little")
        records.append(raw[at + 8 : at + 8 + size])
        at += 8 + size
    return records


@pytest.mark.parametrize("coin", COINS)
def test_blocks_are_what_explorers_say(coin: str) -> None:
    """They pass the gate with their work, and hold these transactions, outputs and payloads."""
    assert len(blocks(coin)) >= 2
    for raw, stated in blocks(coin):
        net, height = network_of(stated), stated["height"]
        header = read_whole_header(height, raw, net)
        assert (header.hash, header.prev_hash, header.merkle_root) == (
            stated["hash"],
            stated["prev"],
            stated["merkle_root"],
        )
        assert (header.time, f"{header.bits:08x}") == (stated["time"], stated["bits"])
        assert bool(header.auxpow) == (stated.get("auxpow") is not None)
        if "scrypt_hash" in stated and not header.auxpow:
            assert display_hash(scrypt(header.header)) == stated["scrypt_hash"]
        block = CheckedBlock(header, raw, net, "merkle")
        transactions = split_transactions(raw, net)
        assert txids(raw, net) == [tx["txid"] for tx in stated["tx"]]
        assert [block.layout.transaction(at) for at in range(len(block.layout))] == transactions
        for transaction, tx in zip(transactions, stated["tx"], strict=True):
            require_same(transaction, tx, net)


def require_same(raw: bytes, tx: dict[str, Any], net: Network) -> None:
    """Check a transaction in Bitcoin's encoding."""
    read = read_transaction(raw, net)
    assert (read.txid, len(read.inputs), len(read.outputs)) == (tx["txid"], len(tx["vin"]), len(tx["vout"]))
    if "wtxid" in tx:
        assert display_hash(sha256d(raw)) == tx["wtxid"]
    for output, expected in zip(read.outputs, tx["vout"], strict=True):
        script = bytes.fromhex(expected["script"])
        assert (output.value, output.script_pubkey) == (expected["value"], expected["script"])
        if "name_op" not in expected:
            assert list(output.addresses) == ([expected["address"]] if "address" in expected else [])
        if len(expected.get("op_return", [])) == 1:
            assert (op_return_payload(script) or b"").hex() == expected["op_return"][0]


@pytest.mark.parametrize("coin", COINS)
def test_transactions_are_what_explorers_say(coin: str) -> None:
    """Unconfirmed ones with MWEB data have the ids of what is left without them."""
    recorded = json.loads(shared(f"chains/{coin}/txs.json").read_text())
    assert len(recorded) >= 2
    for tx in recorded:
        net = network_of(tx)
        plain = plain_transaction(bytes.fromhex(tx["hex"]), net)
        assert (plain is None) == (tx["flags"] == 8 and not tx.get("vout") and not tx.get("vin"))
        if plain is not None:
            require_same(plain, tx, net)


@pytest.mark.parametrize(
    ("file", "name", "auxpows"),
    [
        ("litecoin/regtest-blocks-0-51", "litecoin-regtest", 0),
        ("namecoin/regtest-blocks-0-51", "namecoin-regtest", 51),
        ("dogecoin/testnet-blocks-1-500", "dogecoin-testnet", 0),
    ],
)
def test_stretches_of_blocks_form_chains(file: str, name: str, auxpows: int) -> None:
    """Each passes the gate; the next one follows it."""
    raws, net = framed(shared(f"chains/{file}.dat").read_bytes()), network(name)
    stated = json.loads(gzip.decompress(shared(f"chains/{file}.json.gz").read_bytes()))
    headers = []
    for raw, expected in zip(raws, stated["blocks"], strict=True):
        header = read_whole_header(expected["height"], raw, net)
        assert (header.hash, len(raw), txids(raw, net)) == (
            expected["hash"],
            expected["size"],
            [tx if isinstance(tx, str) else tx["txid"] for tx in expected["tx"]],
        )
        CheckedBlock(header, raw, net, "merkle")
        headers.append(header)
    assert sum(bool(header.auxpow) for header in headers) == auxpows
    assert all(child.prev_hash == parent.hash for parent, child in pairwise(headers))


def test_headers_of_varying_length_are_split() -> None:
    """As a node answers them; cut anywhere, they are an error."""
    net = network("namecoin-regtest")
    blob = shared("chains/namecoin/regtest-headers-0-51.bin").read_bytes()
    headers = read_headers(0, blob, net)
    assert len(headers) == 52
    for header in headers:
        check_work(header, net)
    assert b"".join(header.header + header.auxpow for header in headers) == blob
    whole = set()
    for cut in range(0, len(blob), 37):
        with suppress(MalformedBlock):
            whole.add(len(read_headers(0, blob[:cut], net)))
    assert len(whole) < 52


def test_headers_of_dogecoin_have_their_work() -> None:
    """The first five hundred of its main network, linked and hashed with scrypt."""
    net = network("dogecoin")
    headers = read_headers(1, shared("chains/dogecoin/mainnet-headers-1-500.bin").read_bytes(), net)
    stated = json.loads(shared("chains/dogecoin/mainnet-headers-1-500.json").read_text())
    assert (headers[0].prev_hash, headers[-1].hash) == (net.genesis_hash, stated["hash_of_500"])
    for header in headers:
        check_work(header, net)
    check_targets(headers, net, lambda _: None)
    check_times(headers, net, lambda _: None)


@pytest.mark.parametrize("coin", ["namecoin", "dogecoin"])
def test_real_headers_with_auxpow_pass(coin: str) -> None:
    """Their work is that of another chain's block, which commits to them."""
    for item in json.loads(shared(f"chains/{coin}/headers-auxpow.json").read_text()):
        net, raw = network_of(item), bytes.fromhex(item["hex"])
        (header,) = read_headers(item["height"], raw, net)
        assert header.hash == item["hash"]
        assert bool(header.auxpow) == (item.get("auxpow") is not None)
        check_work(header, net)
        if header.auxpow:
            with pytest.raises(MalformedBlock, match="no proof of work"):
                check_work(replace(header, auxpow=b""), net)


@pytest.mark.parametrize("coin", ["namecoin", "dogecoin"])
def test_each_fault_of_an_auxpow_is_found(coin: str) -> None:
    """Made-up headers, each valid or with one fault."""
    document = json.loads(gzip.decompress(shared(f"chains/{coin}/auxpow-cases.json.gz").read_bytes()))
    net = network_of(document)
    assert len(document["cases"]) >= 19
    for case in document["cases"]:
        assert is_valid(bytes.fromhex(case["hex"]), net, case["hash"]) == case["valid"], case["name"]


def is_valid(raw: bytes, net: Network, block_hash: str) -> bool:
    """Check a header, at a height from which an AuxPoW may be."""
    try:
        (header,) = read_headers(10**6, raw, net)
        assert header.hash == block_hash
        check_work(header, net)
    except (MalformedBlock, ValueError):
        return False
    return True


@pytest.mark.parametrize("coin", COINS)
def test_addresses_are_those_of_the_coin(coin: str) -> None:
    """Of each script, the one form that nodes print."""
    for name, pairs in json.loads(shared(f"chains/{coin}/addresses.json").read_text())["addresses"].items():
        net = network(coin + SUFFIXES[name])
        for pair in pairs:
            _, addresses = classify(bytes.fromhex(pair["script"]), net)
            assert (addresses == (pair["address"],)) == pair.get("canonical", True), pair


def test_bitcoin_has_neither_auxpow_nor_mweb() -> None:
    """What other chains allow stays malformed there."""
    bitcoin = network("regtest")
    raw = next(raw for raw, stated in blocks("litecoin") if stated.get("mweb"))
    assert plain_block(raw, bitcoin) == raw
    with pytest.raises(MalformedBlock):
        split_transactions(raw, bitcoin)
    raw = next(raw for raw, _ in blocks("namecoin") if has_auxpow(raw))
    assert read_whole_header(0, raw, bitcoin).auxpow == b""
    with pytest.raises(MalformedBlock):
        split_transactions(raw, bitcoin)


def test_a_damaged_block_of_another_coin_is_malformed_and_nothing_else() -> None:
    """Cut anywhere, or with a byte changed, it is refused or reads as a block: no other error."""
    for coin in COINS:
        for raw, stated in blocks(coin):
            net = network_of(stated)
            step = max(1, len(raw) // 60)
            for at in range(0, len(raw), step):
                for bad in (raw[:at], raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]):
                    try:
                        header = read_whole_header(stated["height"], bad, net)
                        CheckedBlock(header, bad, net, "merkle")
                    except MalformedBlock:
                        continue
                    assert bad[:80] == raw[:80] or header.hash != stated["hash"]


def test_a_hogex_with_data_of_an_unconfirmed_one_is_malformed() -> None:
    """In a block, such data stand in the MWEB block alone."""
    raw, stated = next((raw, stated) for raw, stated in blocks("litecoin") if stated.get("mweb"))
    net = network_of(stated)
    hogex = stated["tx"][-1]
    plain = split_transactions(raw, net)[-1]
    ends = raw.index(plain[4:-4]) + len(plain) - 8
    assert hogex["hogex"]
    assert raw[ends] == 0
    with pytest.raises(MalformedBlock, match="holds MWEB data"):
        split_transactions(raw[:ends] + b"\1" + raw[ends + 1 :], net)


def test_a_chain_without_witnesses_has_no_types_of_them() -> None:
    """What is a witness program elsewhere is a script like any other."""
    script = b"\0\x14" + bytes(20)
    assert classify(script, network("litecoin"))[0] == "witness_v0_keyhash"
    assert classify(script, network("dogecoin")) == ("nonstandard", ())
