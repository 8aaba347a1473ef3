"""`requires_fresh_hash`: how it is declared, what it means by height, and that it belongs to the rules."""

from typing import Any

import pytest

from virtualchain import App, Boolean, Hex, Integer, Text
from virtualchain.app.declarations import read_contract
from virtualchain.errors import InvalidApp, UsageError


class Handler:
    """A handler that reads a hash."""

    def parse(self, payload: Any) -> Any:
        """Read it."""
        return {"consensus_hash": payload.hex()}


def an_app(**options: Any) -> App:
    """Return an app without handlers."""
    return App("fresh", magic=b"fr", **options)


def with_opcodes(codes: dict[bytes, Any], **options: Any) -> App:
    """Return an app with handlers that declare this."""
    app = an_app(**options)
    for code, value in codes.items():
        app.opcode(code, requires_fresh_hash=value)(Handler)
    return app


class Published:
    """An app of published callbacks."""

    declared: Any = False

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "fresh"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 0

    def get_magic_bytes(self) -> bytes:
        """Return the magic."""
        return b"fr"

    def get_opcodes(self) -> bytes:
        """Return the opcodes."""
        return b"ab"

    def get_requires_fresh_hash(self) -> Any:
        """Return what the test says."""
        return self.declared

    def db_parse(self, *arguments: Any) -> Any:
        """Parse nothing."""

    def db_check(self, *arguments: Any) -> bool:
        """Accept."""
        return True

    def db_commit(self, *arguments: Any) -> None:
        """Do nothing."""


def published(declared: Any) -> Published:
    """Return an app that declares this."""
    app = Published()
    app.declared = declared
    return app


def field(app: object, opcode: bytes | None, block_id: int = 0) -> str | None:
    """Return the field that must be a fresh hash."""
    return read_contract(app).fresh_field(block_id, opcode)


def test_nothing_is_required_unless_it_is_declared() -> None:
    """Neither by default, nor if it is declared as False."""
    assert field(with_opcodes({b"a": None}), b"a") is None
    assert field(with_opcodes({b"a": False}, requires_fresh_hash=True), b"a") is None
    assert field(published(None), b"a") is None


@pytest.mark.parametrize(("declared", "expected"), [(True, "consensus_hash"), ("seen", "seen")])
def test_an_app_declares_it_for_all_opcodes(declared: Any, expected: str) -> None:
    """True means the field `consensus_hash`, text names another."""
    assert field(with_opcodes({b"a": None}, requires_fresh_hash=declared), b"a") == expected
    assert field(published(declared), b"b") == expected


def test_an_opcode_declares_it_for_itself() -> None:
    """What an opcode declares comes before what the app does."""
    app = with_opcodes({b"a": None, b"b": "other", b"c": False}, requires_fresh_hash=True)
    assert [field(app, code) for code in (b"a", b"b", b"c")] == ["consensus_hash", "other", None]
    app = with_opcodes({b"a": None, b"b": True})
    assert [field(app, code) for code in (b"a", b"b")] == [None, "consensus_hash"]
    for key in (b"a", "a"):
        assert [field(published({key: "seen"}), code) for code in (b"a", b"b")] == ["seen", None]


def test_functions_and_apps_without_opcodes_declare_it() -> None:
    """`add` takes it, and so does a handler for all payloads."""
    app = an_app()
    app.add(b"a", parse=lambda payload: {}, requires_fresh_hash=True)
    assert field(app, b"a") == "consensus_hash"
    app = App("fresh", magic=b"fr", opcodes=None, requires_fresh_hash=True)
    app.opcode()(Handler)
    assert field(app, b"") == "consensus_hash"
    assert field(app, None) is None


def test_it_changes_at_an_activation_height() -> None:
    """Each handler has its own rule from its block on."""
    app = with_opcodes({b"a": False}, requires_fresh_hash="seen")
    app.opcode(b"a", from_block=10)(Handler)
    app.opcode(b"a", from_block=20, requires_fresh_hash=True)(Handler)
    app.opcode(b"a", from_block=30, requires_fresh_hash=False)(Handler)
    expected = [None, None, "seen", "seen", "consensus_hash", "consensus_hash", None, None]
    heights = (0, 9, 10, 19, 20, 29, 30, 10**6)
    assert [field(app, b"a", height) for height in heights] == expected
    other = published({10: {"a": "seen"}, 20: {"a": True}, 30: False})
    assert [field(other, b"a", height) for height in heights] == expected


def test_it_belongs_to_the_rules() -> None:
    """Each rule has its own fingerprint, the same one however it is declared; none has that of before."""
    plain = with_opcodes({b"a": None, b"b": None})
    rules = [
        with_opcodes({b"a": None, b"b": None}, requires_fresh_hash=True),
        with_opcodes({b"a": True, b"b": None}),
        with_opcodes({b"a": None, b"b": True}),
        with_opcodes({b"a": "seen", b"b": None}),
    ]
    fingerprints = {read_contract(app).fingerprint() for app in (plain, *rules)}
    assert len(fingerprints) == 5
    same = with_opcodes({b"a": True, b"b": "consensus_hash"})
    assert read_contract(same).fingerprint() == read_contract(rules[0]).fingerprint()
    out = with_opcodes({b"a": False, b"b": False}, requires_fresh_hash=True)
    assert read_contract(out).fingerprint() == read_contract(plain).fingerprint()
    heights = published({5: {"a": True}}), published({6: {"a": True}}), published({"a": True})
    assert len({read_contract(app).fingerprint() for app in heights}) == 3


@pytest.mark.parametrize(
    "value", ["", 1, b"seen", ["seen"], {"a": None}, {"x": True}, {-1: True}, {True: True}]
)
def test_what_is_not_a_declaration_is_refused(value: Any) -> None:
    """Neither numbers, bytes and empty names, nor opcodes that the app does not have."""
    with pytest.raises(InvalidApp, match="get_requires_fresh_hash"):
        read_contract(published(value))
    if not isinstance(value, dict):
        with pytest.raises(InvalidApp, match="requires_fresh_hash"):
            with_opcodes({b"a": value})
        with pytest.raises(InvalidApp, match="requires_fresh_hash"):
            read_contract(with_opcodes({b"a": None}, requires_fresh_hash=value))


def test_a_window_of_0_has_no_fresh_hash() -> None:
    """The two declarations contradict each other."""
    app = with_opcodes({b"a": True}, valid_transaction_window=0)
    with pytest.raises(InvalidApp, match="a window of 0"):
        read_contract(app)


def test_an_app_that_tracks_outputs_has_to_look_for_itself() -> None:
    """An input that the engine rejects could not move what it spends."""
    app = with_opcodes(
        {b"a": True},
        tracks="t",
        projections="CREATE TABLE t (txid text, vout integer, PRIMARY KEY (txid, vout))",
    )
    app.spend(Handler)
    with pytest.raises(InvalidApp, match=r"state\.is_fresh"):
        read_contract(app)


KINDS = {
    Hex(16): True,
    Text(32): True,
    Hex(15): False,
    Text(31): False,
    Integer(0, 9): False,
    Boolean(): False,
}


@pytest.mark.parametrize(("kind", "fits"), KINDS.items(), ids=str)
def test_a_type_that_no_hash_fits_is_refused(kind: Any, fits: bool) -> None:
    """Otherwise every input would be rejected."""
    app = an_app()
    app.opcode(b"a", fields={"consensus_hash": kind}, requires_fresh_hash=True)(Handler)
    if fits:
        assert field(app, b"a") == "consensus_hash"
        return
    with pytest.raises(InvalidApp, match=str(kind)):
        read_contract(app)


class Anchored:
    """A handler whose encoder takes the hash under another name."""

    def parse(self, payload: bytes) -> Any:
        """Read hash and number."""
        return {"anchor": payload[:16].hex(), "n": payload[16]}

    def encode(self, anchor: str, n: int) -> bytes:
        """Write them."""
        return bytes.fromhex(anchor) + bytes([n])


def test_an_encoder_is_passed_the_hash_as_the_field_that_it_is_for() -> None:
    """The field's name is that of the parameter; without the hash, the error asks for it."""
    app = an_app()
    app.opcode(b"a", requires_fresh_hash="anchor")(Anchored)
    assert app.build_input("anchored", n=7, consensus_hash="ab" * 16) == b"fra" + b"\xab" * 16 + b"\x07"
    assert app.build_input("anchored", n=7, anchor="cd" * 16) == b"fra" + b"\xcd" * 16 + b"\x07"
    with pytest.raises(UsageError, match="needs the consensus hash of a recent block"):
        app.build_input("anchored", n=7)


def test_an_input_that_cannot_be_fresh_is_not_built() -> None:
    """An op without the field would be rejected in any block."""
    app = an_app()
    app.opcode(b"a", requires_fresh_hash="other")(Anchored)
    with pytest.raises(UsageError, match="field 'other' is missing"):
        app.build_input("anchored", n=7, anchor="cd" * 16)
