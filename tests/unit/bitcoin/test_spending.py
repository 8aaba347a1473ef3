"""What an input reveals about the output that it spends: real spendings fit, made up ones do not."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count, pairwise

import pytest
from embit import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import P2PKH, push
from virtualchain.bitcoin.block import split_transactions, txids
from virtualchain.bitcoin.curve import tagged_hash, tweak
from virtualchain.bitcoin.script import pushes
from virtualchain.bitcoin.spending import (
    LARGEST_KEPT,
    MOST_KEPT,
    SMALL,
    UNCHECKED_BLOCKS,
    binds,
    capped,
    is_substitute,
    mismatch,
    sighash,
    stands_for,
    substitute,
    unusual_keys,
)
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.consensus.hashing import hash160
from virtualchain.model import SpentOutput, TxIn
from virtualchain.testing import ChainBuilder
from virtualchain.testing.transactions import KEY_KINDS, Key, key

KEY = b"\x02" + bytes(range(32))
LONG_KEY = b"\x04" + bytes(64)
HYBRID_KEY = b"\x07" + bytes(64)
DER = bytes.fromhex("3006020101020101")
ALL, NONE, SINGLE, ANY_SINGLE = (DER + bytes([hash_type]) for hash_type in (1, 2, 3, 0x83))
MULTISIG = b"\x52" + push(KEY) + push(LONG_KEY) + b"\x52\xae"
TREE_KEY = ec.PrivateKey(b"\x11" * 32).get_public_key().xonly()


def spending(script_sig: bytes = b"", witness: Sequence[bytes] = ()) -> TxIn:
    """Make an input with what it reveals."""
    return TxIn("11" * 32, 0, script_sig, 0, tuple(witness))


def p2pkh(key: bytes) -> bytes:
    """Write the script that pays to a key's hash."""
    return b"\x76\xa9\x14" + hash160(key) + b"\x88\xac"


def p2sh(script: bytes) -> bytes:
    """Write the script that pays to a script's hash."""
    return b"\xa9\x14" + hash160(script) + b"\x87"


def p2wpkh(key: bytes) -> bytes:
    """Write the segwit script that pays to a key's hash."""
    return b"\x00\x14" + hash160(key)


def p2wsh(script: bytes) -> bytes:
    """Write the segwit script that pays to a script's hash."""
    return b"\x00\x20" + hashlib.sha256(script).digest()


def tree(leaf: bytes, path: Sequence[bytes] = (), version: int = 0xC0) -> tuple[bytes, bytes]:
    """Make a taproot output with a leaf at the end of a path; return its script and the control block."""
    node = tagged_hash("TapLeaf", bytes([version]) + bytes([len(leaf)]) + leaf)
    for other in path:
        node = tagged_hash("TapBranch", min(node, other) + max(node, other))
    output_key, is_odd = tweak(TREE_KEY, node)
    return b"\x51\x20" + output_key, bytes([version + is_odd]) + TREE_KEY + b"".join(path)


LEAF = push(KEY[1:]) + b"\xac"
TREE, CONTROL = tree(LEAF)
DEEP_TREE, DEEP_CONTROL = tree(LEAF, [b"\x22" * 32, b"\xee" * 32], version=0xC2)

FITTING = {
    "p2pkh": (p2pkh(KEY), spending(push(ALL) + push(KEY)), ["ALL"]),
    "p2pkh, uncompressed": (p2pkh(LONG_KEY), spending(push(ALL) + push(LONG_KEY)), ["ALL"]),
    "p2pkh, hybrid": (p2pkh(HYBRID_KEY), spending(push(NONE) + push(HYBRID_KEY)), ["NONE"]),
    "p2pkh, not only pushes": (
        p2pkh(KEY),
        spending(push(ANY_SINGLE) + push(KEY) + push(b"x\x01") + b"\x75"),
        ["SINGLE|ANYONECANPAY", "ALL", "ALL"],
    ),
    "p2pkh, more below": (p2pkh(KEY), spending(push(b"?\x83") + push(ALL) + push(KEY)), ["ALL"]),
    "p2pkh, odd encoding": (p2pkh(KEY), spending(push(b"0\x81\x03") + push(KEY)), ["SINGLE"]),
    "p2pkh, odd hash type": (p2pkh(KEY), spending(push(DER + b"\x50") + push(KEY)), ["ALL"]),
    "p2pk": (push(KEY) + b"\xac", spending(push(SINGLE)), ["SINGLE"]),
    "bare multisig": (
        MULTISIG,
        spending(b"\0" + push(ALL) + push(ANY_SINGLE)),
        ["ALL", "SINGLE|ANYONECANPAY"],
    ),
    "p2sh of a multisig": (
        p2sh(MULTISIG),
        spending(b"\0" + push(NONE) + push(ALL) + push(MULTISIG)),
        ["NONE", "ALL"],
    ),
    "p2sh of nothing": (p2sh(b""), spending(b"\x51\x00"), []),
    "p2sh of a number": (p2sh(b"\x05"), spending(b"\x55"), []),
    "p2sh of anything": (p2sh(b"\x51"), spending(push(ALL) + push(b"\x51")), ["ALL"]),
    "p2sh-p2wpkh": (p2sh(p2wpkh(KEY)), spending(push(p2wpkh(KEY)), [ALL, KEY]), ["ALL"]),
    "p2sh-p2wsh": (
        p2sh(p2wsh(MULTISIG)),
        spending(push(p2wsh(MULTISIG)), [b"", ALL, NONE, MULTISIG]),
        ["ALL", "NONE"],
    ),
    "p2sh of a taproot script": (p2sh(TREE), spending(push(TREE)), []),
    "p2wpkh": (p2wpkh(KEY), spending(witness=[ANY_SINGLE, KEY]), ["SINGLE|ANYONECANPAY"]),
    "p2wsh": (p2wsh(b"\x51"), spending(witness=[b"\x51"]), []),
    "p2wsh of a contract": (
        p2wsh(b"\x63\x68"),
        spending(witness=[b"0" * 32, SINGLE, b"", b"\x63\x68"]),
        ["SINGLE"],
    ),
    "p2tr by its key": (TREE, spending(witness=[bytes(64)]), ["DEFAULT"]),
    "p2tr by its key, annex": (
        TREE,
        spending(witness=[bytes(64) + b"\x83", b"\x50x"]),
        ["SINGLE|ANYONECANPAY"],
    ),
    "p2tr by a script": (TREE, spending(witness=[bytes(64) + b"\x02", LEAF, CONTROL]), ["NONE"]),
    "p2tr by a script, annex": (TREE, spending(witness=[bytes(64), LEAF, CONTROL, b"\x50"]), ["DEFAULT"]),
    "p2tr by a script far down": (DEEP_TREE, spending(witness=[b"no", LEAF, DEEP_CONTROL]), []),
    "an anchor": (bytes.fromhex("51024e73"), spending(), []),
    "a later segwit": (b"\x52" + push(bytes(32)), spending(witness=[b"x"]), []),
    "anything else": (b"\x51", spending(b"\x51"), []),
}


@pytest.mark.parametrize("case", FITTING.values(), ids=FITTING.keys())
def test_a_spending_fits_and_names_its_hash_types(case: tuple[bytes, TxIn, list[str]]) -> None:
    """Whatever the network accepts fits, and each signature has the name of its hash type."""
    script, what, names = case
    assert mismatch(script, what) is None
    assert list(sighash(script, what)) == names


BOUND = {
    "p2pkh",
    "p2pkh, uncompressed",
    "p2pkh, hybrid",
    "p2pkh, odd hash type",
    "p2sh of a multisig",
    "p2sh-p2wpkh",
    "p2sh-p2wsh",
    "p2wpkh",
    "p2wsh",
    "p2wsh of a contract",
    "p2tr by a script",
    "p2tr by a script, annex",
    "p2tr by a script far down",
}


@pytest.mark.parametrize("name", FITTING)
def test_which_spendings_bind_the_script(name: str) -> None:
    """They reveal key or script in a form that no other kind of output takes; the rest shows nothing."""
    script, what, _ = FITTING[name]
    assert binds(script, what) == (name in BOUND)


def confusions(what: TxIn) -> Iterator[bytes]:
    """Yield the scripts whose hashes and keys an input reveals, if each of its parts is taken for each."""
    parts = [*pushes(what.script_sig), *what.witness]
    for part in parts:
        yield from (p2pkh(part), p2sh(part), p2wpkh(part), p2wsh(part))
    for leaf, control in pairwise(parts):
        if len(control) >= 33 and (len(control) - 33) % 32 == 0:
            node = tagged_hash("TapLeaf", bytes([control[0] & 0xFE]) + bytes([len(leaf)]) + leaf)
            for at in range(33, len(control), 32):
                other = control[at : at + 32]
                node = tagged_hash("TapBranch", min(node, other) + max(node, other))
            with suppress(ValueError):
                yield b"\x51\x20" + tweak(control[1:33], node)[0]


@pytest.mark.parametrize("name", sorted(set(FITTING) - {"a later segwit"}))
def test_no_spending_binds_a_script_of_another_form(name: str) -> None:
    """What is a key to one script is a script or a control block to others: no input binds two of them.

    `mismatch` alone lets such confusions pass. (A witness without rules may hold anything.)
    """
    script, what, _ = FITTING[name]
    others = [other for other in confusions(what) if other != script]
    assert [other for other in others if binds(other, what)] == []


def test_confusions_that_fit() -> None:
    """They are real: without `binds`, the hash of a public key passes for that of a script."""
    fitting = {
        name: sum(mismatch(other, what) is None for other in confusions(what) if other != script)
        for name, (script, what, _) in FITTING.items()
    }
    assert all(fitting[name] for name in ("p2pkh", "p2wpkh", "p2tr by its key", "p2tr by a script"))


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (p2sh(KEY), spending(push(ALL) + push(KEY))),
        (p2sh(ALL), spending(push(ALL))),
        (p2sh(b"preimage"), spending(push(b"preimage"))),
        (p2wsh(KEY), spending(witness=[ALL, KEY])),
        (p2wsh(bytes(64)), spending(witness=[bytes(64)])),
        (p2wsh(b"\x50x"), spending(witness=[bytes(64), b"\x50x"])),
        (p2wsh(CONTROL), spending(witness=[bytes(64), LEAF, CONTROL])),
        (p2wsh(b"\x05ab"), spending(witness=[b"\x05ab"])),
        (p2wsh(b""), spending(witness=[b""])),
        (p2pkh(ALL), spending(push(ALL))),
        (p2pkh(ALL), spending(push(ALL) + push(KEY))),
        (p2pkh(KEY), spending(push(KEY))),
        (p2wpkh(LEAF), spending(witness=[ALL, LEAF])),
        (p2wpkh(KEY), spending(witness=[b"no signature", KEY])),
        (tree(ALL, version=2)[0], spending(witness=[ALL, tree(ALL, version=2)[1]])),
    ],
)
def test_spendings_that_fit_and_bind_nothing(script: bytes, what: TxIn) -> None:
    """What they reveal may belong to an output of another kind."""
    assert mismatch(script, what) is None
    assert not binds(script, what)


def wrong(control: bytes, at: int) -> bytes:
    """Change one bit."""
    return control[:at] + bytes([control[at] ^ 1]) + control[at + 1 :]


@pytest.mark.parametrize(
    ("script", "what", "reason"),
    [
        (P2PKH, spending(push(ALL) + push(KEY)), "p2pkh"),
        (p2pkh(KEY), spending(), "p2pkh"),
        (p2pkh(KEY), spending(witness=[ALL, KEY]), "p2pkh"),
        (p2sh(MULTISIG), spending(push(MULTISIG) + push(KEY)), "p2sh"),
        (p2sh(MULTISIG), spending(), "p2sh"),
        (p2sh(MULTISIG), spending(push(MULTISIG) + b"\x76"), "p2sh"),
        (p2sh(p2wpkh(KEY)), spending(push(p2wpkh(KEY))), "p2wpkh"),
        (p2sh(p2wsh(LEAF)), spending(push(p2wsh(LEAF)), [MULTISIG]), "p2wsh"),
        (p2wpkh(KEY), spending(push(p2wpkh(KEY)), [ALL, KEY]), "input script"),
        (p2wpkh(KEY), spending(witness=[KEY]), "p2wpkh"),
        (p2wpkh(KEY), spending(witness=[ALL, LONG_KEY]), "p2wpkh"),
        (p2wpkh(KEY), spending(witness=[b"", ALL, KEY]), "p2wpkh"),
        (p2wsh(LEAF), spending(), "p2wsh"),
        (p2wsh(LEAF), spending(witness=[LEAF, b""]), "p2wsh"),
        (TREE, spending(), "no witness"),
        (TREE, spending(push(ALL)), "input script"),
        (TREE, spending(witness=[ALL]), "no signature"),
        (TREE, spending(witness=[bytes(64) + b"\x04"]), "no signature"),
        (TREE, spending(witness=[LEAF + b"\x61", CONTROL]), "does not commit"),
        (TREE, spending(witness=[LEAF, wrong(CONTROL, 0)]), "does not commit"),
        (TREE, spending(witness=[LEAF, CONTROL + bytes(32)]), "does not commit"),
        (TREE, spending(witness=[LEAF, CONTROL[:-1]]), "length"),
        (TREE, spending(witness=[LEAF, CONTROL + bytes(32 * 129)]), "length"),
        (TREE, spending(witness=[LEAF, CONTROL[:1] + b"\xff" * 32]), "cannot belong"),
        (DEEP_TREE, spending(witness=[LEAF, CONTROL]), "does not commit"),
    ],
)
def test_a_spending_that_reveals_something_else_does_not_fit(script: bytes, what: TxIn, reason: str) -> None:
    """The reason says what is missing."""
    problem = mismatch(script, what)
    assert problem is not None
    assert reason in problem


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_signed_transactions_fit_their_own_kind_only(kind: str) -> None:
    """What a wallet signs fits the script that it spends, and no other key's or kind's."""
    chain = ChainBuilder(premine=110)
    chain.mine([chain.send(b"id?", sender=chain_key) for chain_key in [key_of(kind)]])
    raw = split_transactions(chain.tree.chain[-1].raw)[-1]
    (what,) = read_inputs(raw)
    assert mismatch(key_of(kind).script_pubkey, what) is None
    assert sighash(key_of(kind).script_pubkey, what) == (("DEFAULT",) if kind == "p2tr" else ("ALL",))
    assert binds(key_of(kind).script_pubkey, what) == (kind != "p2tr")
    for other in set(KEY_KINDS) - {kind}:
        assert mismatch(key_of(other).script_pubkey, what) is not None


def key_of(kind: str) -> Key:
    """Return alice's key of a kind."""
    return key("alice", kind)


REAL = [f"mainnet/{n}.blk" for n in (325000, 400000, 481824, 549400, 951658)] + [
    f"testnet3/{n}.blk" for n in (1087400, 2348332)
]


def chained(raw: bytes) -> Iterator[tuple[bytes, TxIn]]:
    """Yield the spendings of a block whose outputs were created in the same block, with their scripts."""
    transactions = split_transactions(raw)
    created = dict(zip(txids(raw), transactions, strict=True))
    for transaction in transactions[1:]:
        for what in read_inputs(transaction):
            if what.txid in created:
                yield read_outputs(created[what.txid])[1][what.vout].script_pubkey, what


@pytest.mark.parametrize(
    ("script", "what", "expected"),
    [
        (p2pkh(KEY), spending(push(ALL) + push(KEY)), None),
        (p2pkh(KEY), spending(push(KEY) + push(ALL) + b"\x7c"), (KEY.hex(),)),
        (p2pkh(KEY), spending(push(ALL) + push(LONG_KEY)), ()),
        (p2sh(p2pkh(KEY)), spending(push(ALL) + push(KEY) + push(p2pkh(KEY))), None),
        (p2sh(p2pkh(KEY)), spending(push(ALL) + push(LONG_KEY) + push(p2pkh(KEY))), ()),
        (p2sh(MULTISIG), spending(push(ALL) + push(MULTISIG)), None),
        (p2sh(MULTISIG), spending(push(ALL) + push(p2pkh(KEY))), ()),
        (p2wpkh(KEY), spending(witness=[ALL, KEY]), None),
        (p2wpkh(KEY), spending(witness=[ALL, LONG_KEY]), ()),
        (p2wpkh(KEY), spending(), None),
        (MULTISIG, spending(push(ALL)), None),
    ],
)
def test_keys_that_hashes_alone_can_find_are_unusual(
    script: bytes, what: TxIn, expected: tuple[str, ...] | None
) -> None:
    """They are those that are not last on the stack, and those that a hash does not commit to."""
    assert unusual_keys(script, what, fits=False) == expected
    if mismatch(script, what) is None:
        assert unusual_keys(script, what) == expected


@pytest.mark.parametrize("file", REAL)
def test_real_spendings_fit(file: str) -> None:
    """No spending of an output of the same block is refused."""
    for script, what in chained(shared(file).read_bytes()):
        assert mismatch(script, what) is None
        sighash(script, what)


def test_real_spendings_with_all_their_scripts_fit() -> None:
    """No spending of a block of which all spent scripts are known is refused, nor does it fit another's."""
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    scripts = {bytes.fromhex(script) for _, script in prevouts.values()}
    for raw in split_transactions(shared("testnet3/1087400.blk").read_bytes())[1:]:
        for what in read_inputs(raw):
            script = bytes.fromhex(prevouts[f"{what.txid}:{what.vout}"][1])
            assert mismatch(script, what) is None
            assert set(sighash(script, what)) <= {"ALL"}
            assert all(mismatch(other, what) is not None for other in scripts - {script})


def test_the_exceptions_are_blocks_of_history() -> None:
    """Three blocks break rules that are older than virtualchain; no others are left unchecked."""
    assert len(UNCHECKED_BLOCKS) == 3
    assert all(len(block_hash) == 64 and block_hash.startswith("0" * 8) for block_hash in UNCHECKED_BLOCKS)


# Long scripts

LONG = b"\x61" * (LARGEST_KEPT + 1)
MANY_KEYS = b"\x51" + push(KEY) * 15 + b"\x5f\xae"


def outputs(*scripts: bytes) -> list[SpentOutput]:
    """Make spent outputs with these scripts."""
    return [SpentOutput(n, script) for n, script in enumerate(scripts)]


def test_a_long_script_is_replaced_by_its_size_and_hash() -> None:
    """The substitute is an OP_RETURN script with the size in four bytes and the SHA-256."""
    (kept,) = capped(outputs(LONG))
    sha256 = hashlib.sha256(LONG).digest()
    assert kept.script_pubkey.hex() == f"6a04{len(LONG).to_bytes(4, 'little').hex()}20{sha256.hex()}"
    assert is_substitute(kept.script_pubkey)
    assert stands_for(kept.script_pubkey, LONG)
    assert not stands_for(kept.script_pubkey, LONG[1:])
    assert capped(outputs(LONG[1:])) == tuple(outputs(LONG[1:]))
    assert not is_substitute(b"\x6a\x04" + bytes(36))


def test_the_scripts_of_a_transaction_are_kept_up_to_a_total() -> None:
    """After a million bytes only short scripts and multisigs are kept, so that no transaction takes more."""
    full = outputs(*[b"\x61" * LARGEST_KEPT] * (MOST_KEPT // LARGEST_KEPT))
    short, odd = b"\x61" * SMALL, b"\x61" * (SMALL + 1)
    kept = [output.script_pubkey for output in capped(full + outputs(short, odd, MANY_KEYS))]
    assert kept[: len(full)] == [output.script_pubkey for output in full]
    assert kept[len(full) :] == [short, substitute(len(odd), hashlib.sha256(odd).digest()), MANY_KEYS]


@given(st.lists(st.sampled_from([b"", b"\x51", LONG, LONG[1:], b"\x61" * 200, MANY_KEYS]), max_size=300))
def test_capping_twice_changes_nothing(scripts: list[bytes]) -> None:
    """Sources cap while they read, and whoever joins inputs with outputs caps what any source returns."""
    once = capped(outputs(*scripts))
    assert capped(once) == once
    assert sum(len(output.script_pubkey) for output in once) <= MOST_KEPT + LARGEST_KEPT + 300 * 1400


# The curve


@pytest.mark.parametrize("number", range(20))
def test_tweak_agrees_with_another_implementation(number: int) -> None:
    """The taproot keys of embit are the same."""
    public = ec.PrivateKey(hashlib.sha256(b"%d" % number).digest()).get_public_key()
    root = hashlib.sha256(b"root %d" % number).digest() if number else b""
    assert tweak(public.xonly(), root)[0] == public.taproot_tweak(root).xonly()


@pytest.mark.parametrize("digit", range(1, 16))
@pytest.mark.parametrize("window", [0, 1])
def test_a_tweak_whose_sum_is_infinite_on_the_way(digit: int, window: int) -> None:
    """A key may be the inverse of the first part of its tweak, or equal: whoever makes it can find such."""
    number = digit << 4 * window
    public = ec.PrivateKey(number.to_bytes(32, "big")).get_public_key()
    for leaf in count():
        root = tagged_hash("TapLeaf", b"\xc0\x04" + leaf.to_bytes(4, "big"))
        factor = int.from_bytes(tagged_hash("TapTweak", public.xonly() + root), "big")
        if factor % (1 << 4 * window + 4) == number:
            break
    assert tweak(public.xonly(), root)[0] == public.taproot_tweak(root).xonly()
    output, is_odd = tweak(public.xonly(), root)
    control = bytes([0xC0 | is_odd]) + public.xonly()
    spending = TxIn("07" * 32, 0, b"", 0, (leaf.to_bytes(4, "big"), control))
    assert mismatch(b"\x51\x20" + output, spending) is None
