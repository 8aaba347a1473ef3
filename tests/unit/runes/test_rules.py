"""The rules one by one: names, when they become free, commitments, mints, edicts, execution."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.runes_model import U32, U64, U128, Model
from virtualchain.bitcoin.script import push
from virtualchain.examples.runes.amount import amount_text
from virtualchain.examples.runes.commitment import Spend, commitment, commits, leaf_script
from virtualchain.examples.runes.edicts import Allocation
from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.etching import name_problem
from virtualchain.examples.runes.execution import Outcome, Transaction, execute
from virtualchain.examples.runes.hardcoded import UNCOMMON_GOODS, initial_entries
from virtualchain.examples.runes.mint import mint_problem
from virtualchain.examples.runes.names import (
    FIRST_RESERVED,
    InvalidName,
    first_of,
    name_of,
    number_of,
    parse_spaced,
    reserved,
    with_spacers,
)
from virtualchain.examples.runes.params import FIRST_BLOCK, first_block_of
from virtualchain.examples.runes.rune_id import THIS_RUNE, RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Edict, Etching, Flaw, Runestone, Terms
from virtualchain.examples.runes.unlock import minimum_at, unlock_height

S = FIRST_BLOCK["mainnet"]
TAPROOT = b"\x51\x20" + bytes(32)
GOLD, SILVER = RuneId(840_000, 1), RuneId(840_000, 2)


# Names.


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "A"),
        (25, "Z"),
        (26, "AA"),
        (27, "AB"),
        (701, "ZZ"),
        (702, "AAA"),
        (U128, "BCGDENLQRQWDSLRUGSNLBTMFIJAV"),
    ],
)
def test_names_and_numbers(number: int, name: str) -> None:
    """A is 0, and every text of letters is one number."""
    assert (name_of(number), number_of(name)) == (name, number)


@given(st.integers(0, U128), st.integers(0, 2**27 - 1))
def test_names_with_spacers_are_read_as_they_are_written(number: int, spacers: int) -> None:
    """Only spacers after the last letter are not shown."""
    shown = with_spacers(number, spacers)
    visible = spacers & ((1 << len(name_of(number)) - 1) - 1)
    assert parse_spaced(shown) == parse_spaced(shown.replace("•", ".")) == (number, visible)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "empty"),
        ("a", "character"),
        ("A B", "character"),
        ("É", "character"),
        ("•A", "leading-spacer"),
        ("A•.B", "double-spacer"),
        ("A.", "trailing-spacer"),
        ("BCGDENLQRQWDSLRUGSNLBTMFIJAW", "range"),
    ],
)
def test_what_is_not_a_name(text: str, kind: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(InvalidName) as caught:
        parse_spaced(text)
    assert caught.value.kind == kind


def test_reserved_names_begin_after_all_others() -> None:
    """Each id has its own, and the last one fits."""
    assert FIRST_RESERVED == first_of(27) == reserved(RuneId(0, 0))
    assert reserved(RuneId(1, 0)) - reserved(RuneId(0, 5)) == 2**32 - 5
    assert reserved(RuneId(U64, U32)) <= U128


@pytest.mark.parametrize("text", ["", "1", "1:", ":1", "1:2:3", "-1:0", "1:x", "\u0661:1"])
def test_what_is_not_an_id(text: str) -> None:
    """Two decimal numbers with a colon are an id, and nothing else."""
    assert RuneId.parse("840000:1") == GOLD
    with pytest.raises(ValueError, match="is not the id of a rune"):
        RuneId.parse(text)


def test_amounts_as_text() -> None:
    """Digits after the point end with the last that is not 0."""
    assert amount_text(101, 2, None) == "1.01\u00a0¤"
    assert amount_text(100, 2, ord("$")) == "1\u00a0$"
    assert amount_text(5, 38, 0x16A0) == f"0.{'0' * 37}5\u00a0ᚠ"


# When names become free.


@pytest.mark.parametrize(
    ("height", "name"),
    [
        (0, "A" * 13),
        (S - 2, "A" * 13),
        (S - 1, "A" * 13),
        (S, "ZZYZXBRKWXVA"),
        (S + 17_499, "A" * 12),
        (S + 209_998, "B"),
        (S + 209_999, "A"),
        (S + 10**9, "A"),
        (U32, "A"),
    ],
)
def test_the_shortest_name_at_a_height(height: int, name: str) -> None:
    """It gets shorter from block 840,000 on, every block a little."""
    assert name_of(minimum_at(height, S)) == name


@given(st.integers(0, S + 250_000), st.sampled_from(["mainnet", "testnet3", "regtest"]))
def test_the_shortest_name_agrees_with_the_model(height: int, network: str) -> None:
    """On every network."""
    assert minimum_at(height, first_block_of(network)) == Model(network).minimum(height)


@given(st.integers(0, first_of(13) - 1))
def test_a_name_is_free_from_its_unlock_height_on(number: int) -> None:
    """In the block before, it is not."""
    height = unlock_height(number, S)
    assert height is not None
    assert minimum_at(height, S) <= number < minimum_at(height - 1, S)


def test_unlock_heights_at_the_edges() -> None:
    """Long names are always free, reserved ones never."""
    assert unlock_height(first_of(13), S) == 0
    assert unlock_height(FIRST_RESERVED - 1, S) == 0
    assert unlock_height(FIRST_RESERVED, S) is None
    assert name_problem(FIRST_RESERVED, S, S) == "the name is reserved"
    assert name_problem(0, S, S) == "names are free from ZZYZXBRKWXVA on"
    assert name_problem(0, S + 209_999, S) is None


def test_a_custom_signet_begins_where_signets_do() -> None:
    """Its name has eight digits more."""
    assert first_block_of("signet-0a1b2c3d") == first_block_of("signet") == 0


# Commitments.


def spend(
    leaf: bytes, *, script: bytes = TAPROOT, height: int = 95, tail: Sequence[bytes] = (b"\xc0",)
) -> Spend:
    """Return an input with a leaf script."""
    return Spend((b"signature", leaf, *tail), script, height)


def test_a_commitment_is_the_number_without_zeros() -> None:
    """The lowest byte comes first; 0 is empty."""
    assert [commitment(number) for number in (0, 1, 256, 0x10000)] == [b"", b"\1", b"\0\1", b"\0\0\1"]


@pytest.mark.parametrize(
    ("spends", "is_committed"),
    [
        ([spend(push(b"\0\1"))], True),
        ([spend(b"\x00\x63" + push(b"x") + b"\x4c\x02\0\1" + b"\x68")], True),
        ([spend(push(b"\0\1"), height=96)], False),
        ([spend(push(b"\0\1"), script=TAPROOT + b"\0")], False),
        ([spend(push(b"\0\1"), script=b"\x00\x20" + bytes(32))], False),
        ([spend(push(b"\0\1"), height=96), spend(push(b"\0\1"))], True),
        ([spend(push(b"\0\1\0"))], False),
        ([spend(push(b"\0\1") + b"\x05")], True),
        ([spend(b"\x05" + push(b"\0\1"))], False),
        ([spend(push(b"\0\1"), tail=(b"\xc0", b"\x50annex"))], True),
        ([spend(push(b"\0\1"), tail=())], False),
        ([Spend((push(b"\0\1"), b"\x50"), TAPROOT, 95)], False),
        ([Spend((push(b"\0\1"), b"\x51"), TAPROOT, 95)], True),
        ([Spend((push(b"\0\1"),), TAPROOT, 95)], False),
        ([Spend((), TAPROOT, 95)], False),
        ([], False),
    ],
)
def test_which_inputs_commit(spends: list[Spend], is_committed: bool) -> None:
    """A push of the leaf script, of a taproot output that is six blocks old in block 100."""
    assert commits(256, spends, 100) is is_committed


def test_op_numbers_commit_to_nothing() -> None:
    """OP_1 is not a push of 1; number 0 needs an empty push."""
    assert not commits(1, [spend(b"\x51")], 100)
    assert commits(1, [spend(b"\x01\x01")], 100)
    assert commits(0, [spend(b"\x00")], 100)
    assert not commits(0, [spend(b"\x51")], 100)
    assert leaf_script((b"a", b"b", b"c", b"\x50")) == b"b"


# Mints.

ENTRY = Entry(RuneId(1000, 1), "00" * 32, 1, 5, 0, terms=Terms(amount=7, cap=2))


@pytest.mark.parametrize(
    ("terms", "open_from", "closed_from"),
    [
        (Terms(cap=1), 0, None),
        (Terms(cap=1, height_start=1010, height_end=1020), 1010, 1020),
        (Terms(cap=1, offset_start=10, offset_end=20), 1010, 1020),
        (Terms(cap=1, height_start=1005, offset_start=10), 1010, None),
        (Terms(cap=1, height_start=1015, offset_start=10), 1015, None),
        (Terms(cap=1, height_end=1015, offset_end=10), 0, 1010),
        (Terms(cap=1, height_end=1005, offset_end=10), 0, 1005),
        (Terms(cap=1, offset_start=U64), U64, None),
        (Terms(cap=1, height_start=1010, height_end=1010), None, None),
    ],
)
def test_when_a_rune_can_be_minted(terms: Terms, open_from: int | None, closed_from: int | None) -> None:
    """The later start and the earlier end count; sums end at 64 bits."""
    entry = replace(ENTRY, terms=terms)
    heights = [999, 1005, *range(1008, 1023), U64 - 1, U64]
    is_open = [mint_problem(entry, height) is None for height in heights]
    assert is_open == [
        open_from is not None and height >= open_from and (closed_from is None or height < closed_from)
        for height in heights
    ]


def test_why_a_rune_cannot_be_minted() -> None:
    """Each reason has its words."""
    assert mint_problem(None, 1000) == "there is no such rune"
    assert mint_problem(replace(ENTRY, terms=None), 1000) == "the rune has no terms"
    assert mint_problem(replace(ENTRY, mints=2), 1000) == "all 2 mints are used"
    assert mint_problem(replace(ENTRY, terms=Terms(amount=1)), 1000) == "all 0 mints are used"
    assert mint_problem(replace(ENTRY, mints=1), 1000) is None


# Edicts.


def allot(
    available: dict[RuneId, int],
    edicts: Sequence[tuple[RuneId, int, int]],
    burning: Sequence[bool] = (False,) * 3,
) -> tuple[dict[int, int], dict[RuneId, int]]:
    """Apply edicts; return what each output has received of all runes, and what is left."""
    allocation = Allocation(available, burning)
    allocation.apply((Edict(*edict) for edict in edicts), None)
    received: dict[int, int] = {}
    for output, _, amount in allocation.received():
        received[output] = received.get(output, 0) + amount
    return received, dict(allocation.left)


@pytest.mark.parametrize(
    ("edicts", "received", "left"),
    [
        ([(GOLD, 4, 1)], {1: 4}, 6),
        ([(GOLD, 0, 1)], {1: 10}, 0),
        ([(GOLD, 11, 1)], {1: 10}, 0),
        ([(GOLD, 4, 1), (GOLD, 0, 2), (GOLD, 1, 0)], {1: 4, 2: 6}, 0),
        ([(GOLD, 0, 3)], {0: 4, 1: 3, 2: 3}, 0),
        ([(GOLD, 3, 3)], {0: 3, 1: 3, 2: 3}, 1),
        ([(GOLD, 4, 3)], {0: 4, 1: 4, 2: 2}, 0),
        ([(GOLD, 5, 3)], {0: 5, 1: 5}, 0),
        ([(GOLD, 1, 3), (GOLD, 1, 3), (GOLD, 2, 1), (GOLD, 0, 3)], {0: 3, 1: 5, 2: 2}, 0),
        ([(GOLD, 8, 0), (GOLD, 0, 3)], {0: 9, 1: 1}, 0),
        ([(SILVER, 1, 0), (THIS_RUNE, 1, 0)], {}, 10),
    ],
)
def test_edicts(edicts: list[tuple[RuneId, int, int]], received: dict[int, int], left: int) -> None:
    """What is allotted is gone for later edicts; splits are exact."""
    assert allot({GOLD: 10}, edicts) == (received, {GOLD: left} if left else {})


def test_splits_leave_out_outputs_that_burn() -> None:
    """Without destinations they do nothing; an edict may still name an output that burns."""
    assert allot({GOLD: 9}, [(GOLD, 0, 3)], (False, True, False)) == ({0: 5, 2: 4}, {})
    assert allot({GOLD: 9}, [(GOLD, 0, 1), (GOLD, 5, 1)], (True,)) == ({}, {GOLD: 9})
    assert allot({GOLD: 9}, [(GOLD, 5, 0)], (True,)) == ({0: 5}, {GOLD: 4})
    assert allot({GOLD: 9}, [(GOLD, 0, 0)], ()) == ({}, {GOLD: 9})


@given(
    st.integers(0, 50),
    st.lists(st.tuples(st.sampled_from([GOLD, SILVER]), st.integers(0, 12), st.integers(0, 4)), max_size=8),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_edicts_neither_make_nor_lose_anything(
    amount: int, edicts: list[tuple[RuneId, int, int]], burning: list[bool]
) -> None:
    """What outputs receive and what is left is what there was."""
    received, left = allot({GOLD: amount, SILVER: 5}, edicts, burning)
    assert sum(received.values()) + sum(left.values()) == amount + 5


# Execution.


class Ledger:
    """The state in memory."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = {entry.id: entry for entry in entries}

    def entry(self, rune_id: RuneId) -> Entry | None:
        """Return a rune."""
        return self.entries.get(rune_id)

    def has_name(self, number: int) -> bool:
        """Return whether a name is taken."""
        return any(entry.rune == number for entry in self.entries.values())

    def count(self) -> int:
        """Return how many runes there are."""
        return len(self.entries)


OWN = RuneId(850_000, 3)
FREE = first_of(13)
MINTABLE = Entry(GOLD, "aa" * 32, 0, FREE + 1, 0, terms=Terms(amount=7, cap=2))


def run(
    artifact: Runestone | Cenotaph | None,
    spent: dict[RuneId, int] | None = None,
    *,
    burning: Sequence[bool] = (False, True, False),
    is_committed: bool = True,
) -> Outcome:
    """Execute a transaction."""
    tx = Transaction(OWN, "bb" * 32, 1_700_000_000, artifact, burning, is_committed)
    return execute(tx, spent or {}, Ledger(MINTABLE), S)


def test_a_transfer_goes_to_the_first_output_that_does_not_burn() -> None:
    """Without one, it is burned."""
    assert run(None, {GOLD: 5, SILVER: 6}).received == ((0, GOLD, 5), (0, SILVER, 6))
    assert run(None, {GOLD: 5}, burning=(True, True, False)).received == ((2, GOLD, 5),)
    nowhere = run(None, {GOLD: 5}, burning=(True,))
    assert (nowhere.received, nowhere.burned) == ((), ((None, GOLD, 5),))
    assert run(None, {GOLD: 5}, burning=()).burned_by_rune() == {GOLD: 5}


def test_a_pointer_may_name_any_output() -> None:
    """One that burns included."""
    assert run(Runestone(pointer=2), {GOLD: 5}).received == ((2, GOLD, 5),)
    assert run(Runestone(pointer=1), {GOLD: 5}).burned == ((1, GOLD, 5),)


def test_a_mint_is_available_to_edicts() -> None:
    """It is added to what is spent."""
    outcome = run(Runestone((Edict(GOLD, 8, 2),), mint=GOLD), {GOLD: 2})
    assert (outcome.minted_amount, outcome.received) == (7, ((0, GOLD, 1), (2, GOLD, 8)))
    assert run(Runestone(mint=SILVER)).mint_problem == "there is no such rune"
    assert run(Runestone(mint=OWN, etching=Etching(terms=Terms(1, 1)))).minted is None


def test_an_etching_s_premine_is_available_to_edicts() -> None:
    """As 0:0, or under its own id."""
    for name in (THIS_RUNE, OWN):
        outcome = run(Runestone((Edict(name, 4, 2),), Etching(premine=9)))
        assert outcome.received == ((0, OWN, 5), (2, OWN, 4))
        assert outcome.etched is not None
        assert (outcome.etched.rune, outcome.etched.number) == (reserved(OWN), 1)


@pytest.mark.parametrize(
    ("rune", "is_committed", "problem"),
    [
        (FREE, True, None),
        (FREE, False, "no input commits to the name"),
        (FREE + 1, True, "the name is taken"),
        (FIRST_RESERVED, True, "the name is reserved"),
        (0, True, "names are free from"),
    ],
)
def test_an_etching_that_is_void_leaves_the_rest(rune: int, is_committed: bool, problem: str | None) -> None:
    """No rune and no premine; the mint and other edicts apply."""
    edicts = (Edict(THIS_RUNE, 1, 2), Edict(GOLD, 3, 2))
    outcome = run(Runestone(edicts, Etching(rune=rune, premine=5), GOLD), is_committed=is_committed)
    assert (outcome.etching_problem or "").startswith(problem or "")
    assert (outcome.etched is None) == (problem is not None)
    own = [] if problem else [(0, OWN, 4), (2, OWN, 1)]
    assert sorted(outcome.received) == sorted([(0, GOLD, 4), (2, GOLD, 3), *own])


def test_a_cenotaph_burns_everything() -> None:
    """Its mint counts, and its name is etched without anything else."""
    outcome = run(Cenotaph(Flaw.OPCODE, FREE, GOLD), {GOLD: 2, SILVER: 3})
    assert outcome.received == ()
    assert outcome.burned_by_rune() == {GOLD: 9, SILVER: 3}
    assert outcome.minted == MINTABLE
    assert outcome.etched == Entry(OWN, "bb" * 32, 1, FREE, 1_700_000_000)
    assert run(Cenotaph(Flaw.OPCODE)).etched is None
    assert run(Cenotaph(Flaw.OPCODE, FREE), is_committed=False).etched is None


def test_the_hard_coded_rune() -> None:
    """Only mainnet has it, and anybody may mint it."""
    assert list(initial_entries("mainnet")) == [UNCOMMON_GOODS]
    assert list(initial_entries("testnet4")) == []
    assert UNCOMMON_GOODS.spaced_name == "UNCOMMON•GOODS"
    assert mint_problem(UNCOMMON_GOODS, 840_000) is None
    assert mint_problem(UNCOMMON_GOODS, 1_050_000) == "minting ended at block 1050000"
    assert UNCOMMON_GOODS.supply == 0
