"""Any change of a whole proof is refused, or changes nothing but the prover's word."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_consensus_properties import JSON, paths_in
from tests.support import independent_proofs
from tests.support.consensus_history import History
from tests.support.shared_data import shared
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.inclusion import inclusions
from virtualchain.bitcoin.layout import walk
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.spv import _check_headers, make_spv
from virtualchain.consensus.proof_file import write_proof
from virtualchain.errors import InvalidProof, MalformedBlock
from virtualchain.proof.checking import CheckedOps, Known, check_file
from virtualchain.testing.chain import ChainBuilder

HISTORY = History(97, [[b"a:%d" % n, b"b:%d" % n, b"c:1:%d" % (n % 2)][: n % 4] for n in range(30)])
TRUSTED = HISTORY.hashes[HISTORY.tip]
BLOCK = 104
"""It has three ops."""


def _whole() -> tuple[dict[str, Any], str]:
    """Make a proof with a transaction and headers; return it and the hash of the last header."""
    chain = ChainBuilder(premine=BLOCK - 1)
    chain.mine([chain.send(b"id%d" % number) for number in range(4)], 13)
    raw = chain.raw_blocks()
    [inclusion] = inclusions(walk(raw[BLOCK]), [3])
    headers = [read_header(n, block[:HEADER_SIZE]) for n, block in enumerate(raw)]
    spv = make_spv(inclusion, headers[BLOCK:], chain.network)
    return {**HISTORY.prove(BLOCK, 1), "spv": spv}, chain.tip


PROOF, TIP = _whole()
KNOWN = Known(app="notary", block_id=HISTORY.tip, network="regtest", last_hash=TIP)
PATHS = paths_in(PROOF)[1:]
DIGITS = "0123456789abcdefABCDEFg -"


def _claims(proof: Any, known: Known) -> dict[str, Any] | None:
    """Check a proof; return all that the checker says, or None if it refuses it."""
    try:
        checked = check_file(write_proof(proof).encode(), TRUSTED, known)
    except InvalidProof:
        return None
    assert isinstance(checked, CheckedOps)
    proven, shown = checked.proven, checked.in_chain
    return {
        "app": proven.app,
        "first_block_id": proven.first_block_id,
        "trusted_block_id": proven.trusted_block_id,
        "block_id": proven.block_id,
        "ops": sorted(proven.ops),
        "op": None if proven.index is None else proven.ops[proven.index],
        "spv": shown,
    }


GOOD = _claims(PROOF, KNOWN)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PATHS), min_size=1, max_size=2), st.data())
def test_changes_are_refused_or_change_only_the_prover_s_word(
    paths: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """With all that a checker can know, one or two changes leave what is certain as it is."""
    proof = json.loads(json.dumps(PROOF))
    for path in paths:
        _change(proof, path, data)
    claims = _claims(proof, KNOWN)
    _compare(proof)
    if claims is None or proof == PROOF:
        return
    assert GOOD is not None
    assert claims["op"] in HISTORY.ops[BLOCK] or claims["op"] is None
    certain = ("app", "trusted_block_id", "ops")
    assert {key: claims[key] for key in certain} == {key: GOOD[key] for key in certain}
    shown, good = claims["spv"], GOOD["spv"]
    # The headers must lead to a known block, and so the work and each transaction's id are certain.
    assert shown is None or (shown == good and claims["block_id"] == BLOCK)


@given(st.sampled_from(PATHS), st.data())
def test_a_checker_who_knows_nothing_but_the_hash_is_not_deceived_about_the_ops(
    path: tuple[Any, ...], data: st.DataObject
) -> None:
    """Labels may change; the list of ops stays that of a block of the history."""
    proof = json.loads(json.dumps(PROOF))
    _change(proof, path, data)
    _compare(proof)
    claims = _claims(proof, Known())
    if claims is not None:
        assert claims["ops"] == sorted(HISTORY.ops[BLOCK])


def _compare(proof: Any) -> None:
    """Check that a checker that was written from the documentation alone has the same answer."""
    for known in (Known(), Known(app="notary", block_id=HISTORY.tip)):
        claims = _claims(proof, known)
        try:
            stated = {} if known.app is None else {"app": known.app, "at": known.block_id}
            second = independent_proofs.check(write_proof(proof).encode(), TRUSTED, stated)
        except independent_proofs.Refused:
            assert claims is None
            continue
        assert claims is not None
        shown, op = claims["spv"], claims["op"]
        assert second["block_id"] == claims["block_id"]
        assert second["op"] == (None if op is None else op.hex())
        assert sorted(map(bytes.fromhex, second["ops"])) == claims["ops"]
        assert (second["spv"] or {}).get("txid") == (None if shown is None else shown.txid)


REAL = {
    "testnet3": ("testnet3_0_10000", 0),
    "signet": ("signet_0_2015", 0),
    "mainnet": ("mainnet_576576_578692", 576576),
}


@pytest.mark.parametrize("name", sorted(REAL))
@given(data=st.data())
def test_two_checkers_agree_on_stretches_of_real_headers(name: str, data: st.DataObject) -> None:
    """True and false heights and networks: what they require of targets and times is the same."""
    file, first = REAL[name]
    raw = shared(f"headers/{file}.bin").read_bytes()
    count = len(raw) // HEADER_SIZE
    start = data.draw(st.integers(0, count - 2))
    end = start + data.draw(st.sampled_from([1, 2, 12, 13, 300, 2500]))
    chain = [raw[at : at + HEADER_SIZE] for at in range(start * HEADER_SIZE, len(raw), HEADER_SIZE)]
    chain = chain[: end - start]
    height = max(0, first + start + data.draw(st.sampled_from([0, 0, 1, -1, -first - start, 2016, 7])))
    other = data.draw(st.sampled_from([name, name, "mainnet", "testnet3", "testnet4", "signet", "regtest"]))
    headers = [read_header(height + n, header) for n, header in enumerate(chain)]
    try:
        _check_headers(headers, network(other))
        first_accepts = True
    except MalformedBlock:
        first_accepts = False
    try:
        independent_proofs.check_headers(other, height, chain)
        second_accepts = True
    except independent_proofs.Refused:
        second_accepts = False
    assert first_accepts == second_accepts
    assert first_accepts or (other, height) != (name, first + start)


def _change(proof: Any, path: tuple[Any, ...], data: st.DataObject) -> None:
    """Change what is at a path, if it is still there: remove, repeat, rename, swap, nudge or replace it."""
    *above, key = path
    parent = proof
    try:
        for step in above:
            parent = parent[step]
        value = parent[key]
    except (KeyError, IndexError, TypeError):
        return
    if not isinstance(parent, dict | list):  # text, since an earlier change
        return
    match data.draw(st.sampled_from(["remove", "repeat", "rename", "swap", "nudge", "replace"])):
        case "remove":
            del parent[key]
        case "repeat" if isinstance(parent, list):
            parent.insert(key, value)
        case "rename" if isinstance(parent, dict):
            parent[data.draw(st.sampled_from(["", "app", f"{key} ", str(key).upper()]))] = parent.pop(key)
        case "swap":
            other = data.draw(
                st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent)))
            )
            parent[key], parent[other] = parent[other], parent[key]
        case "nudge" if isinstance(value, str) and value:
            at = data.draw(st.integers(0, len(value) - 1))
            parent[key] = value[:at] + data.draw(st.sampled_from(DIGITS)) + value[at + 1 :]
        case "nudge" if isinstance(value, int):
            parent[key] = value + data.draw(st.sampled_from([-1, 1, 2, 256]))
        case _:
            parent[key] = data.draw(JSON)
