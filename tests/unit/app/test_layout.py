"""Layouts: what they read and write, what they refuse, and what is wrong with one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain import App, Boolean, Hex, Integer, Rejected, Text
from virtualchain.app.declarations import read_contract
from virtualchain.app.layout import ReadLayout, WriteLayout
from virtualchain.errors import InvalidApp, UsageError

ALL = "a u8, b u16, c u32, d u64, e varint, f bool, g bytes(3), h bytes(..75), i text(..300), j text"
VALUES = st.fixed_dictionaries(
    {
        "a": st.integers(0, 2**8 - 1),
        "b": st.integers(0, 2**16 - 1),
        "c": st.integers(0, 2**32 - 1),
        "d": st.integers(0, 2**64 - 1),
        "e": st.integers(0, 2**64 - 1),
        "f": st.booleans(),
        "g": st.binary(min_size=3, max_size=3).map(bytes.hex),
        "h": st.binary(max_size=75).map(bytes.hex),
        "i": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=75),
        "j": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=75),
    }
)
SENDER = {"addresses": ["addr"], "sighash": ["ALL"]}
PAID = {"addresses": ["paid"], "type": "witness_v0_keyhash"}


@pytest.mark.parametrize("layout", [ALL, f"json: {ALL}"])
@given(values=VALUES)
def test_what_is_written_is_read_again(layout: str, values: dict[str, Any]) -> None:
    """Each value of each type comes back, in bytes and in JSON."""
    read = ReadLayout.of(layout)
    assert read(WriteLayout(read)(**values)) == values


@given(payload=st.binary(max_size=40))
def test_a_payload_is_read_in_one_way_only(payload: bytes) -> None:
    """Whatever can be read is what would be written: no two payloads are the same op."""
    read = ReadLayout.of("e varint, f bool, h bytes(..75), c u8, g bytes")
    try:
        op = read(payload)
    except ValueError:
        return
    assert isinstance(op, dict)
    assert WriteLayout(read)(**op) == payload


READ: dict[str, tuple[bytes, dict[str, object]]] = {
    "a u8": (b"\x07", {"a": 7}),
    "a u16, b u8": (b"\x01\x00\x02", {"a": 256, "b": 2}),
    "a text(..3), b text": (b"\x02hi there", {"a": "hi", "b": " there"}),
    "a bytes(..300), b bytes": (b"\x00\x01\xff\x01", {"a": "ff", "b": "01"}),
    "a varint": (b"\x80\x01", {"a": 128}),
    "json: a u8, b text(..3)": (b' {"b": "x", "a": 1}', {"a": 1, "b": "x"}),
    "from sender, to recipient, a u8": (b"\x01", {"from": "addr", "to": "paid", "a": 1}),
    "a sender": (b"", {"a": "addr"}),
}


@pytest.mark.parametrize("layout", READ)
def test_a_layout_reads(layout: str) -> None:
    """Each type of field takes its bytes, in the order of the layout."""
    payload, op = READ[layout]
    read = ReadLayout.of(layout)(payload, senders=[SENDER], outputs=[PAID])
    assert isinstance(read, dict)
    assert list(read.items()) == list(op.items())


REFUSED = {
    "a u8": [(b"", "field 'a': 1 bytes are missing"), (b"\0\0", "1 bytes too many")],
    "a bool": [(b"\2", "neither 0 nor 1")],
    "a varint": [
        (b"\x80\x00", "shortest form"),
        (b"\xff" * 10, "64 bits"),
        (b"\xff" * 9 + b"\x02", "64 bits"),
    ],
    "a text(..3)": [(b"\4abcd", "4 bytes; the most are 3"), (b"\1\xff", "it is not UTF-8")],
    "json: a u8, b bytes(2)": [
        (b"[]", "not a JSON object with a, b"),
        (b'{"a": 1}', "not a JSON object with a, b"),
        (b'{"a": 1, "b": "0000", "c": 1}', "not a JSON object with a, b"),
        (b'{"a": 256, "b": "0000"}', "field 'a': out of range"),
        (b'{"a": true, "b": "0000"}', "field 'a': a value of type bool"),
        (b'{"a": 1, "b": "00"}', "field 'b': 1 bytes, not 2"),
        (b'{"a": 1, "b": "0G00"}', "field 'b': not lower-case hex"),
    ],
}


@pytest.mark.parametrize("layout", REFUSED)
def test_what_does_not_fit_the_layout_is_refused(layout: str) -> None:
    """The reason names the field, and what is wrong with it."""
    for payload, reason in REFUSED[layout]:
        with pytest.raises(ValueError, match=reason):
            ReadLayout.of(layout)(payload)


@pytest.mark.parametrize(
    ("sender", "outputs", "reason"),
    [
        ({"addresses": [], "sighash": ["ALL"]}, [PAID], "the sender has no address"),
        ({"addresses": ["a"], "sighash": []}, [PAID], "did not sign the whole"),
        ({"addresses": ["a"], "sighash": ["ALL", "SINGLE|ANYONECANPAY"]}, [PAID], "did not sign the whole"),
        (SENDER, [{"addresses": ["x"], "type": "anchor"}], "no output pays a recipient"),
    ],
)
def test_a_sender_has_signed_and_a_recipient_owns(sender: Any, outputs: Any, reason: str) -> None:
    """An address counts only if its owner signed everything, a recipient only if an output has an owner."""
    read = ReadLayout.of("a sender, b recipient")(b"", senders=[sender], outputs=outputs)
    assert isinstance(read, Rejected)
    assert reason in read.reason


WRONG = {
    "amount": "'amount' is not a name and a type",
    "a u9": "has no type 'u9'; types are u8",
    "a u8(3)": "cannot have that size",
    "a bytes(0)": "cannot have that size",
    "a bytes(70000)": "cannot have that size",
    "a text(40)": "needs text(..40)",
    "a u8, a u8": "it has a twice",
    "a text, b u8": "a text takes all that is left, and b follows",
    "": "'' is not a name and a type",
}


@pytest.mark.parametrize("layout", WRONG)
def test_a_wrong_layout_is_an_error_of_the_app(layout: str) -> None:
    """The message names app, opcode and item, and says what can stand there."""
    app = App("wrong", magic=b"wr")
    with pytest.raises(InvalidApp) as wrong:
        app.add(b"x", layout=layout)
    assert str(wrong.value).startswith("app wrong: opcode b'x': layout: ")
    assert WRONG[layout] in str(wrong.value)


def test_a_handler_has_a_layout_or_a_parse() -> None:
    """What follows from a layout is not declared a second time."""
    app = App("both", magic=b"wr")
    with pytest.raises(InvalidApp, match="a handler with a layout has parse or fields, too"):
        app.add(b"x", layout="a u8", fields=["a"])
    with pytest.raises(InvalidApp, match="the handler of opcode b'x' has no parse"):
        app.add(b"x")

    class Spend:
        """A handler of transactions without a payload."""

        layout = "a u8"

    with pytest.raises(InvalidApp, match="a handler with a layout has no payload"):
        app.spend(Spend)


def test_types_parameters_and_inputs_follow_from_a_layout() -> None:
    """Fields have types, parse is passed what the layout reads, and inputs are written."""
    app = App("items", magic=b"it")
    app.add(b"x", layout="owner sender,\n  amount u32, data bytes(..9), name text(..9), done bool,")
    contract = read_contract(app)
    assert contract.opfields[b"x"] == {
        "owner": Text(100),
        "amount": Integer(0, 2**32 - 1),
        "data": Hex(9),
        "name": Text(9),
        "done": Boolean(),
    }
    assert contract.parse_needs == {"senders"}
    written = app.build_input("x", amount=5, data="ff", name="é", done=True)
    assert written == b"itx\0\0\0\5\1\xff\2\xc3\xa9\1"
    with pytest.raises(UsageError, match="amount"):
        app.build_input("x", amount=-5, data="ff", name="é", done=True)
    with pytest.raises(UsageError, match="done"):
        app.build_input("x", amount=5, data="ff", name="é")


def test_a_layout_is_part_of_the_identity_and_its_form_is_not() -> None:
    """Another layout changes the code digest; blanks and line breaks do not."""

    def digest(layout: str) -> str:
        app = App("items", magic=b"it")
        app.add(b"x", layout=layout)
        return read_contract(app).code_digest()

    assert digest("a u8,b text( ..9 )") == digest("\n  a   u8,\n  b text(..9),\n")
    assert len({digest("a u8, b text(..9)"), digest("a u8, b text"), digest("json: a u8, b text(..9)")}) == 3
