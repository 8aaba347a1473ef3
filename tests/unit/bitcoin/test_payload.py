"""Payload rules: what counts as a payload, how a rule is named, and which bytes are searched for first."""

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import MAIN, P2PKH, as_coinbase, block, checked, op_return, transaction
from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.payload import (
    envelopes,
    first_op_return,
    last_op_return,
    payloads,
    read_envelope,
    runestone,
    watch,
)
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.engine.coverage import watches_of
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.model import FindPayload, TxIn


def outputs(*scripts: bytes) -> list[dict[str, Any]]:
    """Make outputs as a payload rule gets them; it reads only the script."""
    return [{"n": n, "script_pubkey": script.hex()} for n, script in enumerate(scripts)]


def test_last_op_return_finds_what_the_reference_network_found() -> None:
    """Every recorded case of output scripts yields the recorded payload."""
    cases = json.loads(gzip.decompress(shared("consensus/nulldata.json.gz").read_bytes()))["cases"]
    assert len(cases) > 60
    for case in cases:
        scripts = [bytes.fromhex(script) for script in case["output_scripts"]]
        expected = bytes.fromhex(case["nulldata"]) if case["found"] else None
        assert last_op_return(outputs(*scripts)) == expected, case["note"]


def test_the_last_of_several_op_returns_counts() -> None:
    """An output that is not an OP_RETURN does not matter, wherever it is."""
    assert last_op_return(outputs(op_return(b"ida"), op_return(b"idb"), P2PKH)) == b"idb"


def test_a_malformed_last_op_return_hides_a_good_one() -> None:
    """The rule does not fall back to an earlier OP_RETURN."""
    assert last_op_return(outputs(op_return(b"ida"), b"\x6a\x51")) is None


def test_first_op_return_finds_the_first_that_starts_with_the_magic() -> None:
    """Foreign and malformed OP_RETURNs are skipped."""
    rule = first_op_return(b"id")
    scripts = (b"\x6a", op_return(b"xxa"), P2PKH, op_return(b"ida"), op_return(b"idb"))
    assert rule(outputs(*scripts)) == b"ida"
    assert rule(outputs(P2PKH, op_return(b"i"))) is None


def test_first_op_return_takes_any_of_several_magics() -> None:
    """The first output wins, not the first magic."""
    assert first_op_return(b"aa", b"bb")(outputs(op_return(b"bb1"), op_return(b"aa1"))) == b"bb1"


@pytest.mark.parametrize("magics", [(), ("id",), (b"id", None)])
def test_first_op_return_without_magic_bytes_is_rejected(magics: tuple[Any, ...]) -> None:
    """A mistake in an app is noticed when the app is defined, not at its first block."""
    with pytest.raises(UsageError, match="magic bytes"):
        first_op_return(*magics)


def test_a_shipped_rule_as_class_attribute_is_called_with_the_outputs_alone() -> None:
    """An app may set `find_payload = last_op_return` in its class body."""

    class App:
        find_payload = last_op_return

    assert App().find_payload(outputs(op_return(b"ida"))) == b"ida"


def test_a_watch_without_a_rule_takes_the_last_op_return() -> None:
    """The byte search may precede it."""
    result = watch(b"id", None, "names")
    assert (result.magic, result.rule, result.prefilter) == (b"id", "last_op_return", True)
    assert result.find_payload is last_op_return


def test_a_shipped_rule_keeps_its_name_whoever_owns_it() -> None:
    """Two apps with the same rule and magic share its coverage; an app without a rule has the default's."""

    def search(name: str, **options: Any) -> str:
        app = App(name, magic=b"id", **options)
        app.add(b"x" if "opcodes" not in options else None, parse=lambda payload: None)
        (search_made,) = watches_of([read_contract(app)])
        return search_made.rule

    first, second = (search(name, payload_rule=first_op_return(b"id", b"aa")) for name in ("names", "dns"))
    assert first == second == "first_op_return:6161,6964"
    assert search("names") == "last_op_return"
    assert search("runes", payload_rule=runestone, opcodes=None) == "runestone without opcode"
    assert search("ord", payload_rule=envelopes(b"ord"), opcodes=None) == "envelopes:6f7264 without opcode"


def test_rules_for_different_magics_have_different_names() -> None:
    """With a second magic a rule finds less of the first, so coverage must not be shared."""
    assert first_op_return(b"id").name != first_op_return(b"id", b"aa").name
    assert first_op_return(b"id", b"aa").name == first_op_return(b"aa", b"id").name


def test_an_apps_own_rule_has_the_given_name_and_sees_every_transaction() -> None:
    """It is not known which bytes the rule looks for."""

    def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        return None

    result = watch(b"id", find, "code:abc")
    assert (result.rule, result.prefilter) == ("code:abc", False)


def test_an_empty_magic_switches_the_byte_search_off() -> None:
    """Without a magic there are no bytes to search for."""
    assert not watch(b"", None, "names").prefilter


START = b"\x00\x63\x03ord"
END = b"\x68"
CONTROL = b"\xc0" + bytes(32)
ORD = envelopes(b"ord")


def spending(*witness: bytes) -> TxIn:
    """Make an input with this witness."""
    return TxIn("ab" * 32, 0, b"", 0, witness)


def found_in(script: bytes) -> list[list[bytes]]:
    """Return the pushes of all envelopes in a leaf script."""
    result = ORD.find([spending(script, CONTROL)])
    assert isinstance(result, list)
    return [read_envelope(payload)[1] for payload in result]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (START + END, [[]]),
        (b"\x51" + START + b"\x01a" + END + b"\xac", [[b"a"]]),
        (START + b"\x00\x4c\x00\x4d\x00\x00\x4e\x00\x00\x00\x00" + END, [[b""] * 4]),
        (START + b"\x4c\x01a\x4d\x01\x00b\x4e\x01\x00\x00\x00c" + END, [[b"a", b"b", b"c"]]),
        (START + b"\x4c\x02\x68\x68" + END, [[b"\x68\x68"]]),
        (START + b"\x4d\xff\xff" + bytes(65_535) + b"\x01z" + END, [[bytes(65_535), b"z"]]),
        (START + b"\x4e\x00\x00\x01\x00" + bytes(65_536) + END, [[bytes(65_536)]]),
        (START + b"\x4f" + bytes(range(0x51, 0x61)) + END, [[b"\x81", *(bytes([n]) for n in range(1, 17))]]),
        (START + b"\x01\x01" + END, [[b"\x01"]]),
        (START + b"\x51" + END, [[b"\x01"]]),
        (START + b"\x01a" + END + START + b"\x01b" + END, [[b"a"], [b"b"]]),
        (START + b"\x01a" + END + b"\x61" + START + END, [[b"a"], []]),
        (b"\x00" + START + END, [[]]),
        (b"\x00\x63" + START + END, [[]]),
        (b"\x00\x00\x63\x00" + START + END, [[]]),
    ],
)
def test_envelopes_are_found_with_all_their_pushes(script: bytes, expected: list[list[bytes]]) -> None:
    """However a push is written, and whatever is in front of an envelope or after it."""
    assert found_in(script) == expected


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"\x51",
        START,  # unfinished
        START + b"\x01a",
        START + b"\x01a\x67\x01b" + END,  # OP_ELSE
        START + b"\x50" + END,  # OP_RESERVED pushes nothing
        START + b"\x61" + END,  # OP_NOP
        START + START + END,  # OP_IF is no push, and what is pushed in front of it is inside
        START + b"\x01a" + START + b"\x01b" + END,
        START + END + b"\x02a",  # ends inside a push
        START + b"\x4c" + END,
        START + b"\x4d\x01" + END,
        START + b"\x4e\xff\xff\xff\xff" + END,
        START + END + b"\x4e\x01\x00\x00",
        b"\x05" + START[:5] + b"d" + END,  # inside a push
        b"\x07" + START + END + END,
        b"\x00\x63\x02or" + END,
        b"\x00\x63\x04ordx" + END,
        b"\x00\x63\x4c\x03ord" + END,
        b"\x00\x63\x03orD" + END,
        b"\x00\x64\x03ord" + END,  # OP_NOTIF
        b"\x51\x63\x03ord" + END,
        b"\x4c\x00\x63\x03ord" + END,  # an empty push, but not OP_FALSE
        b"\x00\x63\x61\x03ord" + END,
    ],
)
def test_what_is_not_an_envelope_is_not_found(script: bytes) -> None:
    """Another tag, another way to write the beginning, no end, other opcodes inside, a script that breaks."""
    assert found_in(script) == []


def test_an_envelope_after_a_broken_one_is_found() -> None:
    """What breaks an envelope does not hide the next."""
    assert found_in(START + b"\x01a\x61" + START + b"\x01b" + END) == [[b"b"]]
    assert found_in(START + START + END + START + b"\x01b" + END) == [[b"b"]]


def test_envelopes_of_several_inputs_are_in_order_and_say_which() -> None:
    """Each is a payload; inputs without a script that is revealed have none."""
    script = START + b"\x01%c" + END
    inputs = [
        spending(),
        spending(bytes(64)),
        spending(script % b"a" + script % b"b", CONTROL),
        spending(script % b"c"),  # alone it is a signature's place
        spending(b"argument", script % b"d", CONTROL, b"\x50 annex"),
        spending(script % b"e", b"\x50 annex"),  # a key's signature and an annex
        spending(script % b"f", CONTROL, b"", CONTROL),
        *[spending()] * 300,
        spending(b"", script % b"g", b""),
    ]
    result = ORD.find(inputs)
    assert isinstance(result, list)
    expected = [(2, [b"a"]), (2, [b"b"]), (4, [b"d"]), (307, [b"g"])]
    assert [read_envelope(payload) for payload in result] == expected
    assert ORD(inputs=[each.as_dict() for each in inputs]) == result


def test_the_form_of_an_envelope_as_a_payload() -> None:
    """The input's number, then each push after its length, as compact sizes: it will not change."""
    assert ORD.find([spending(START + b"\x51\x02ab\x00" + END, CONTROL)]) == [
        bytes.fromhex("00 01 01 02 6162 00")
    ]
    long = START + b"\x4d\x00\x01" + bytes(256) + END
    assert ORD.find([*[spending()] * 253, spending(long, CONTROL)]) == [
        bytes.fromhex("fdfd00 fd0001") + bytes(256)
    ]


@pytest.mark.parametrize(
    "payload", ["", "00 02 61", "00 fd0100 61", "fd0100", "00 fd", "00 ffffffffffffffffff"]
)
def test_read_envelope_refuses_anything_else(payload: str) -> None:
    """Bytes that no envelope has: cut off, or with a length that is longer than it need be."""
    with pytest.raises(ValueError, match="not a payload of an envelope"):
        read_envelope(bytes.fromhex(payload))


@pytest.mark.parametrize("tag", ["ord", b"", bytes(76), None, bytearray(b"ord")])
def test_envelopes_with_a_tag_of_another_form_are_refused(tag: Any) -> None:
    """A push of a tag has 1 to 75 bytes."""
    with pytest.raises(UsageError, match="1 to 75 bytes"):
        envelopes(tag)


def test_envelopes_with_the_longest_tag() -> None:
    """It is pushed by an opcode that is its length."""
    tag = bytes(range(75))
    script = b"\x00\x63\x4b" + tag + b"\x01x" + END
    assert envelopes(tag).find([spending(script, CONTROL)]) == [b"\x00\x01x"]
    assert ORD.find([spending(script, CONTROL)]) == []


def test_a_runestone_is_what_follows_op_13_in_the_first_output_that_begins_so() -> None:
    """Whatever it is: the app judges what is no sequence of pushes."""
    other = b"\x6a\x5d\x01b"
    for rest in (b"", b"\x02ab\x01c", b"\x4c", b"\x61\xff", bytes(10_000)):
        assert runestone(outputs(P2PKH, b"\x6a", op_return(b"x"), b"\x6a\x5d" + rest, other)) == rest
    assert runestone(outputs(P2PKH, b"\x6a", b"\x5d\x6a", b"\x6a\x5c\x5d", b"\x6a\x01\x5d", b"")) is None


RAW = transaction(op_return(b"idx"), P2PKH, witnesses=[[START + END, CONTROL]])


def found_by(rule: FindPayload) -> list[bytes]:
    """Return the payloads that a rule finds in that transaction."""
    return payloads(rule, RAW, read_transaction(RAW, MAIN).outputs)


def test_a_rule_gets_what_its_parameters_ask_for() -> None:
    """Outputs, inputs, both, or outputs by position; an object that is called counts, too."""

    class Rule:
        def __call__(self, *, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> bytes:
            return bytes([len(inputs), len(outputs)])

    assert found_by(lambda outputs: bytes([len(outputs)])) == [b"\x02"]
    assert found_by(lambda anything: bytes([len(anything)])) == [b"\x02"]
    assert found_by(lambda *anything: bytes([len(anything[0])])) == [b"\x02"]
    assert found_by(lambda inputs: bytes.fromhex(inputs[0]["witness"][0])) == [START + END]
    assert found_by(lambda outputs, inputs: bytes([len(outputs), len(inputs)])) == [b"\x02\x01"]
    assert found_by(lambda inputs, outputs=(): bytes([len(outputs), len(inputs)])) == [b"\x02\x01"]
    assert found_by(lambda inputs, limit=3: bytes([limit, len(inputs)])) == [b"\x03\x01"]
    assert found_by(Rule()) == [b"\x01\x02"]


def test_a_rule_gets_dicts_as_callbacks_do() -> None:
    """With the keys that the page for authors lists."""
    seen: list[list[dict[str, Any]]] = []

    def rule(outputs: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> None:
        seen.extend((outputs, inputs))

    assert found_by(rule) == []
    assert [list(each[0]) for each in seen] == [
        ["n", "value", "script_pubkey", "type", "addresses"],
        ["txid", "vout", "script_sig", "sequence", "witness"],
    ]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, []),
        (b"", [b""]),
        (b"a", [b"a"]),
        ([], []),
        ((), []),
        ([b"a", b"a"], [b"a", b"a"]),
        ((b"",), [b""]),
    ],
)
def test_a_rule_may_find_one_payload_or_several(result: Any, expected: list[bytes]) -> None:
    """They are in order, and may be empty or the same."""
    assert found_by(lambda outputs: result) == expected


@pytest.mark.parametrize(
    "result", ["idx", 0, False, bytearray(b"a"), [None], ["a"], [[b"a"]], {b"a"}, {}, iter(())]
)
def test_a_rule_that_returns_anything_else_is_an_error(result: Any) -> None:
    """The app that has it halts."""
    with pytest.raises(TypeError, match=r"it returned a \w+: expected bytes or None, or a list of bytes"):
        found_by(lambda outputs: result)


def with_patterns(rule: Any, *patterns: bytes) -> Any:
    """Set the patterns of a rule of an app's own."""
    rule.patterns = patterns
    return rule


def scanned(rule: FindPayload, *raws: bytes, magic: bytes = b"id") -> list[int]:
    """Return the transactions of a block in which a scanner finds payloads."""
    scan = Scanner([watch(magic, rule, "rule")], MAIN).scan(checked(7, block(*raws)))
    return [candidate.txindex for candidate in scan.candidates]


def test_a_rule_of_an_app_s_own_is_asked_where_its_patterns_are() -> None:
    """In outputs, inputs or witness, but not across two transactions, nor in the coinbase."""
    asked = []

    def rule(outputs: list[dict[str, Any]]) -> bytes:
        asked.append(len(outputs))
        return b"idx"

    raws = [
        transaction(b"\x51"),
        transaction(b"\x51", b"needle"),
        transaction(*[b"\x51"] * 3, script_sigs=[b"the pin"]),
        transaction(*[b"\x51"] * 4, witnesses=[[b"a needle", b"and a pin"]]),
        transaction(*[b"\x51"] * 5),
    ]
    assert scanned(with_patterns(rule, b"needle", b"pin"), *raws) == [2, 3, 4]
    assert asked == [2, 3, 4]
    asked.clear()
    across = raws[0][-1:] + raws[0][:5]
    assert scanned(with_patterns(rule, across), *raws[:1] * 3) == []
    assert asked == []
    assert scanned(lambda outputs: b"idx", *raws) == [1, 2, 3, 4, 5]
    assert len(scanned(with_patterns(rule, raws[0][:5]), *raws)) == 4


@pytest.mark.parametrize("patterns", [b"needle", [b"needle"], ("needle",), (b"",), None])
def test_patterns_of_another_form_are_refused(patterns: Any) -> None:
    """An empty one would be everywhere."""

    def rule(outputs: list[dict[str, Any]]) -> None: ...

    rule.patterns = patterns  # type: ignore[attr-defined]
    with pytest.raises(InvalidApp, match="patterns"):
        read_contract(App("own", magic=b"ow", payload_rule=rule))


def test_only_some_rules_look_at_coinbases() -> None:
    """A coinbase can carry a runestone, but no envelope; a rule of an app's own says so."""
    coinbase = as_coinbase(transaction(b"\x6a\x5d\x01a", witnesses=[[START + END, CONTROL]]))
    raw = block()[:80] + b"\x01" + coinbase

    def places(rule: FindPayload) -> list[int]:
        made = watch(b"", rule, "rule", has_opcode=False)
        return [each.txindex for each in Scanner([made], MAIN).scan(checked(7, raw)).candidates]

    def own(outputs: list[dict[str, Any]]) -> bytes:
        return b"x"

    assert places(runestone) == [0]
    assert places(ORD) == places(own) == []
    own.coinbase = True  # type: ignore[attr-defined]
    assert places(own) == [0]


def test_a_rule_that_fails_makes_a_candidate() -> None:
    """The app meets the error when the block is its turn, and no other app does."""

    def rule(outputs: list[dict[str, Any]]) -> bytes:
        raise KeyError("a mistake")

    assert scanned(rule, transaction(P2PKH)) == [1]
    wrong: Any = lambda outputs: 7  # noqa: E731 - its type is wrong
    assert scanned(wrong, transaction(P2PKH)) == [1]


def test_without_an_opcode_the_magic_may_be_all() -> None:
    """An empty payload counts for an app whose payloads have no opcode, if the rule finds it."""
    raw = block(transaction(b"\x6a\x5d"), transaction(P2PKH))
    for has_opcode, expected in ((False, [1]), (True, [])):
        made = watch(b"", runestone, "rule", has_opcode=has_opcode)
        assert [each.txindex for each in Scanner([made], MAIN).scan(checked(7, raw)).candidates] == expected
