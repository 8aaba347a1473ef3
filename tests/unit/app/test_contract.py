"""The contract: what an implementation may declare, and what is said of one that may not."""

from pathlib import Path
from typing import Any

import pytest

from virtualchain import App
from virtualchain.app.contract import Contract, read_contract, schema_name
from virtualchain.errors import InvalidApp


class Plain:
    """The least that an implementation has."""

    def get_virtual_chain_name(self) -> str:
        """Give the name."""
        return "plain"

    def get_virtual_chain_version(self) -> str:
        """Give the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Give the first block."""
        return 10

    def get_magic_bytes(self) -> Any:
        """Give the magic."""
        return b"pl"

    def get_opcodes(self) -> Any:
        """Give the opcodes."""
        return [b"a"]

    def db_parse(self, *arguments: Any) -> Any:
        """Parse nothing."""

    def db_check(self, *arguments: Any) -> Any:
        """Accept nothing."""

    def db_commit(self, *arguments: Any) -> Any:
        """Commit nothing."""


def declare(**callbacks: Any) -> Contract:
    """Read the contract of a plain implementation with these values."""
    wrapped = {name: (lambda self, value=value: value) for name, value in callbacks.items()}
    return read_contract(type("Changed", (Plain,), wrapped))


def test_defaults() -> None:
    """What is not declared: S of 24, no projections, any confirmations, the default payload rule."""
    contract = read_contract(Plain())
    assert (contract.window, contract.confirmations, contract.projections) == (24, None, "")
    assert (contract.find_payload, contract.scan, contract.final, contract.proceed) == (
        None,
        None,
        None,
        None,
    )
    assert contract.start == 10
    assert contract.hashed_fields(0, b"a", {"b": 1, "a": 2}) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "magics"),
    [(b"ab", (b"ab",)), ("ab", (b"ab",)), ((b"a", "b"), (b"a", b"b")), (b"", (b"",))],
)
def test_magic_is_bytes_text_or_several(value: Any, magics: tuple[bytes, ...]) -> None:
    """One or several, bytes or ASCII text; empty means every payload."""
    assert declare(get_magic_bytes=value).magics == magics


@pytest.mark.parametrize("value", ["ab", b"ab", [b"a", "b"], {"a", "b"}, (b"a", b"b")])
def test_opcodes_come_in_several_shapes(value: Any) -> None:
    """One text or bytes of all of them, or an iterable of one-byte items."""
    assert declare(get_opcodes=value).opcodes == {b"a", b"b"}


def test_initial_snapshots_move_the_start() -> None:
    """Processing starts behind the last of them, and never below the first block."""
    assert declare(get_initial_snapshots={4: "11" * 16}).start == 10
    assert declare(get_initial_snapshots={9: "11" * 16, 12: "22" * 16}).start == 13


def test_projections_may_be_a_file(tmp_path: Path) -> None:
    """A path of a .sql file is read; one that is not there is named."""
    file = tmp_path / "tables.sql"
    file.write_text("CREATE TABLE t (a int PRIMARY KEY)")
    assert declare(get_projections=str(file)).projections.startswith("CREATE TABLE")
    assert declare(get_projections=file).projections.startswith("CREATE TABLE")
    with pytest.raises(InvalidApp, match=r"gone\.sql"):
        declare(get_projections=str(tmp_path / "gone.sql"))


@pytest.mark.parametrize(
    ("callbacks", "complaint"),
    [
        ({"get_magic_bytes": 5}, "get_magic_bytes gives 5"),
        ({"get_magic_bytes": ()}, "one magic, or several different"),
        ({"get_magic_bytes": "ä"}, "bytes or ASCII text"),
        ({"get_opcodes": []}, "gives no opcode"),
        ({"get_opcodes": [b"ab"]}, "an opcode is one byte"),
        ({"get_opfields": [1]}, "a dict of opcode to fields"),
        ({"get_opfields": {b"a": "field"}}, "a list of names"),
        ({"get_opfields": {b"a": None}}, "a list of names"),
        ({"get_opfields": {b"a": [1]}}, "a list of names"),
        ({"get_first_block_id": 2**31}, "a whole number from 0 to 2147483647"),
        ({"get_first_block_id": -1}, "a whole number from 0 to"),
        ({"get_first_block_id": True}, "a whole number from 0 to"),
        ({"get_valid_transaction_window": "x"}, "a whole number"),
        ({"get_initial_snapshots": {1: "xyz"}}, "consensus hash of 32 hex digits"),
        ({"get_initial_snapshots": {-2: "11" * 16}}, "it should be a height"),
        ({"get_initial_snapshots": [1]}, "it should be a dict"),
        ({"get_virtual_chain_name": 5}, "it should be a str"),
        ({"get_virtual_chain_version": "1\x00"}, "it should be printable"),
        ({"get_projections": 5}, "SQL or the path"),
    ],
)
def test_wrong_declarations_are_named(callbacks: dict[str, Any], complaint: str) -> None:
    """Each wrong value is quoted with the callback that gave it."""
    with pytest.raises(InvalidApp, match=complaint):
        declare(**callbacks)


def test_an_optional_callback_that_gives_none_says_nothing() -> None:
    """Whoever fills a table of callbacks may leave the value out instead of the callback."""
    optional = (
        "get_opfields",
        "get_initial_snapshots",
        "get_valid_transaction_window",
        "get_confirmations",
        "get_projections",
        "get_max_payload",
    )
    contract = declare(**dict.fromkeys(optional))
    assert contract.fingerprint() == read_contract(Plain()).fingerprint()


def test_what_a_declaration_raises_is_told() -> None:
    """An implementation that fails while it is read is named with the callback that fails."""
    failing = type("Failing", (Plain,), {"get_opcodes": lambda self: 1 // 0})
    with pytest.raises(InvalidApp, match="'plain' fails in get_opcodes with ZeroDivisionError"):
        read_contract(failing())
    greedy = type("Greedy", (Plain,), {"__init__": lambda self, settings: None})
    with pytest.raises(InvalidApp, match="the app Greedy cannot be made: TypeError"):
        read_contract(greedy)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("db_continue", lambda self, block_id: True, r"has a db_continue\(block_id\)"),
        ("find_payload", b"xy", "has a find_payload, b'xy': it is called with 1 arguments"),
        ("db_final", lambda self: None, r"has a db_final\(\): it is called with 3 arguments"),
        ("db_check", lambda self, *a, needed: True, "it is called with 7 arguments"),
    ],
)
def test_optional_callbacks_that_cannot_be_called_are_refused(name: str, value: Any, complaint: str) -> None:
    """Whatever the engine would call in mid-block is looked at before the first one."""
    with pytest.raises(InvalidApp, match=complaint):
        read_contract(type("Wrong", (Plain,), {name: value})())


def test_callbacks_with_too_few_arguments_are_refused() -> None:
    """A check that could not be called is found before the first block."""
    short = type("Short", (Plain,), {"db_check": lambda self, block_id: True})
    with pytest.raises(InvalidApp, match=r"has a db_check\(block_id\): it is called with 7 arguments"):
        read_contract(short())


def test_the_state_is_passed_where_there_is_room() -> None:
    """Six arguments or seven: a check without `db_state` is called without it."""
    without = type("Without", (Plain,), {"db_check": lambda self, a, b, c, d, e, f: (a, f)})
    assert read_contract(without()).check(1, 2, 3, 4, 5, 6, db_state="state") == (1, 6)
    with_it = type("With", (Plain,), {"db_check": lambda self, a, b, c, d, e, f, g: g})
    assert read_contract(with_it()).check(1, 2, 3, 4, 5, 6, db_state="state") == "state"
    by_name = type("ByName", (Plain,), {"db_check": lambda self, a, b, c, d, e, f, *, db_state: db_state})
    assert read_contract(by_name()).check(1, 2, 3, 4, 5, 6, db_state="state") == "state"
    hints = type("Hints", (Plain,), {"db_check": lambda self, a, b, c, d, e, f, **hints: hints})
    assert read_contract(hints()).check(1, 2, 3, 4, 5, 6, db_state="state") == {"db_state": "state"}


@pytest.mark.parametrize(("name", "schema"), [("notary", "notary"), ("My App", "my_app"), ("a.b-c", "a_b_c")])
def test_schema_follows_from_the_name(name: str, schema: str) -> None:
    """Lower case, and `_` for all but letters and digits."""
    assert schema_name(name) == schema


@pytest.mark.parametrize(
    "name",
    [
        "",
        "vc",
        "virtualchain",
        "public",
        "information_schema",
        "pg_x",
        "a__b",
        "a  b",
        "x" * 41,
        "a\x00b",
        "a\ud800b",
    ],
)
def test_reserved_names_are_refused(name: str) -> None:
    """Names that would meet other schemas, or that leave no room for a build."""
    with pytest.raises(InvalidApp, match="cannot have the schema"):
        schema_name(name)


def test_fingerprint_follows_rules_only() -> None:
    """The same declarations give the same fingerprint; another version, magic or table another one."""
    plain = read_contract(Plain()).fingerprint()
    assert plain == read_contract(Plain).fingerprint()
    for change in (
        {"get_virtual_chain_version": "2"},
        {"get_magic_bytes": b"zz"},
        {"get_projections": "CREATE TABLE t (a int PRIMARY KEY)"},
        {"get_opfields": {b"a": ["x"]}},
    ):
        assert declare(**change).fingerprint() != plain


def test_the_fingerprint_passes_over_what_only_readers_of_the_ddl_see() -> None:
    """Comments and layout may change; a word may not, nor anything in quotes, nor an activation height."""

    def fingerprint(projections: str, late: int = 0) -> str:
        app = App("print", magic=b"pr", projections=projections)
        app.add(b"o", parse=lambda payload: {})
        if late:
            app.add(b"o", parse=lambda payload: {}, fields=["a"], from_block=late)
        return read_contract(app).fingerprint()

    ddl = "CREATE TABLE t (a text DEFAULT 'x  --y' PRIMARY KEY)"
    same = "-- what it is\nCREATE TABLE t (\n    a text /* a */ DEFAULT 'x  --y' PRIMARY KEY)\n"
    assert fingerprint(ddl) != fingerprint(same.replace("text", "varchar"))
    assert fingerprint(ddl.replace("(a", "( a")) == fingerprint(same)
    assert fingerprint(ddl) != fingerprint(ddl.replace("  --", " --"))
    assert len({fingerprint(ddl), fingerprint(ddl, late=5), fingerprint(ddl, late=6)}) == 3
