"""The contract: what an implementation may declare, and the errors that invalid declarations raise."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from virtualchain import App, first_op_return, last_op_return
from virtualchain.app.contract import Contract
from virtualchain.app.ddl import with_comments, without_comments
from virtualchain.app.declarations import read_contract, schema_name
from virtualchain.errors import InvalidApp
from virtualchain.loading import load_app


class Plain:
    """An implementation with the required callbacks only."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "plain"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 10

    def get_magic_bytes(self) -> Any:
        """Return the magic."""
        return b"pl"

    def get_opcodes(self) -> Any:
        """Return the opcodes."""
        return [b"a"]

    def db_parse(self, *arguments: Any) -> Any:
        """Drop every payload."""

    def db_check(self, *arguments: Any) -> Any:
        """Reject every op."""

    def db_commit(self, *arguments: Any) -> Any:
        """Change nothing."""


def declare(**callbacks: Any) -> Contract:
    """Read the contract of a plain implementation whose callbacks return these values."""
    wrapped = {name: (lambda self, value=value: value) for name, value in callbacks.items()}
    return read_contract(type("Changed", (Plain,), wrapped))


def test_defaults() -> None:
    """Without declarations, S is 24, and there are no projections, minimum confirmations or payload rule."""
    contract = read_contract(Plain())
    assert (contract.window, contract.confirmations, contract.projections) == (24, None, "")
    assert (contract.find_payload, contract.scan, contract.final, contract.proceed) == (
        None,
        None,
        None,
        None,
    )
    assert contract.start == 10
    assert contract.field_rules(0, b"a").hashed_fields({"b": 1, "a": 2}) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "magics"),
    [(b"ab", (b"ab",)), ("ab", (b"ab",)), ((b"a", "b"), (b"a", b"b")), (b"", (b"",))],
)
def test_magic_is_bytes_text_or_several(value: Any, magics: tuple[bytes, ...]) -> None:
    """A magic may be bytes or ASCII text, alone or in a list; an empty one matches every payload."""
    assert declare(get_magic_bytes=value).magics == magics


@pytest.mark.parametrize("value", ["ab", b"ab", [b"a", "b"], {"a", "b"}, (b"a", b"b")])
def test_opcodes_come_in_several_shapes(value: Any) -> None:
    """Opcodes may come as one string, as bytes, or as an iterable of one-byte items."""
    assert declare(get_opcodes=value).opcodes == {b"a", b"b"}


def test_initial_snapshots_move_the_start() -> None:
    """Processing starts after the last initial snapshot, and never below the first block."""
    assert declare(get_initial_snapshots={4: "11" * 16}).start == 10
    assert declare(get_initial_snapshots={9: "11" * 16, 12: "22" * 16}).start == 13


def test_projections_may_be_a_file(tmp_path: Path) -> None:
    """The path of a .sql file is read; if it does not exist, the error names it."""
    file = tmp_path / "tables.sql"
    file.write_text("CREATE TABLE t (a int PRIMARY KEY)")
    assert declare(get_projections=str(file)).projections.startswith("CREATE TABLE")
    assert declare(get_projections=file).projections.startswith("CREATE TABLE")
    with pytest.raises(InvalidApp, match=r"gone\.sql"):
        declare(get_projections=str(tmp_path / "gone.sql"))


@pytest.mark.parametrize(
    "code",
    [
        """
from virtualchain import App
app = App("names", magic=b"nm", projections="tables.sql")
app.add(b"a", parse=lambda payload: {"text": "a"})
""",
        """
def get_projections(): return "tables.sql"
def get_virtual_chain_name(): return "names"
def get_virtual_chain_version(): return "1"
def get_first_block_id(): return 0
def get_magic_bytes(): return b"nm"
def get_opcodes(): return b"a"
def db_parse(*arguments): return {}
def db_check(*arguments): return True
def db_commit(*arguments): return None
""",
    ],
    ids=["App", "module"],
)
def test_a_file_of_projections_is_found_beside_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """A path begins in the folder of the app's code; without a file there, in the working directory."""
    folder, elsewhere = tmp_path / "app", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
        (place / "tables.sql").write_text(f"CREATE TABLE {place.name} (a int PRIMARY KEY)")
    (folder / "rules.py").write_text(code)
    monkeypatch.chdir(elsewhere)
    assert "TABLE app" in read_contract(load_app(str(folder / "rules.py"))).projections
    (folder / "tables.sql").unlink()
    assert "TABLE elsewhere" in read_contract(load_app(str(folder / "rules.py"))).projections


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ({"get_magic_bytes": 5}, "get_magic_bytes returns 5"),
        ({"get_magic_bytes": ()}, "one magic, or several different"),
        ({"get_magic_bytes": "ä"}, "bytes or ASCII text"),
        ({"get_opcodes": []}, "get_opcodes returns no opcode"),
        ({"get_opcodes": [b"ab"]}, "an opcode must be one byte"),
        ({"get_opfields": [1]}, "a dict of opcode to field names"),
        ({"get_opfields": {b"a": "field"}}, "a list of field names"),
        ({"get_opfields": {b"a": None}}, "a list of field names"),
        ({"get_opfields": {b"a": [1]}}, "a list of field names"),
        ({"get_first_block_id": 2**31}, "an integer from 0 to 2147483647"),
        ({"get_first_block_id": -1}, "an integer from 0 to"),
        ({"get_first_block_id": True}, "an integer from 0 to"),
        ({"get_valid_transaction_window": "x"}, "an integer from 0 to"),
        ({"get_initial_snapshots": {1: "xyz"}}, "consensus hash of 32 hex digits"),
        ({"get_initial_snapshots": {-2: "11" * 16}}, "it must be a height"),
        ({"get_initial_snapshots": [1]}, "it must be a dict"),
        ({"get_virtual_chain_name": 5}, "it must be a str"),
        ({"get_virtual_chain_version": "1\x00"}, "it must be printable"),
        ({"get_projections": 5}, "SQL or the path"),
    ],
)
def test_invalid_declarations_are_refused(callbacks: dict[str, Any], message: str) -> None:
    """The error quotes the wrong value with the callback that returned it."""
    with pytest.raises(InvalidApp, match=message):
        declare(**callbacks)


def test_an_optional_callback_that_returns_none_counts_as_missing() -> None:
    """An implementation may return None instead of leaving the callback out."""
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


def test_an_error_in_a_declaration_is_reported() -> None:
    """If an implementation fails while it is read, the error names it and the callback that failed."""
    failing = type("Failing", (Plain,), {"get_opcodes": lambda self: 1 // 0})
    with pytest.raises(InvalidApp, match="'plain' fails in get_opcodes with ZeroDivisionError"):
        read_contract(failing())
    greedy = type("Greedy", (Plain,), {"__init__": lambda self, settings: None})
    with pytest.raises(InvalidApp, match="cannot instantiate the app Greedy: TypeError"):
        read_contract(greedy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("db_continue", lambda self, block_id: True, r"has db_continue\(block_id\)"),
        ("find_payload", b"xy", "has find_payload = b'xy': it must be a function"),
        ("db_final", lambda self: None, r"has db_final\(\): it is called with 3 arguments"),
        ("db_check", lambda self, *a, needed: True, "it is called with 7 arguments"),
    ],
)
def test_optional_callbacks_that_cannot_be_called_are_refused(name: str, value: Any, message: str) -> None:
    """Callbacks that the engine would call within a block are checked before the first block."""
    with pytest.raises(InvalidApp, match=message):
        read_contract(type("Wrong", (Plain,), {name: value})())


def test_callbacks_with_too_few_arguments_are_refused() -> None:
    """A check with too few arguments is refused before the first block."""
    short = type("Short", (Plain,), {"db_check": lambda self, block_id: True})
    with pytest.raises(InvalidApp, match=r"has db_check\(block_id\): it is called with 7 arguments"):
        read_contract(short())


def test_the_state_is_passed_if_the_signature_has_room() -> None:
    """A check with six arguments is called without `db_state`, one with seven receives it."""
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
    """The schema is the name in lower case, with `_` for all but letters and digits."""
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
    """Names that would collide with other schemas, or leave no room for a build's name, are refused."""
    with pytest.raises(InvalidApp, match="cannot have the schema"):
        schema_name(name)


def test_fingerprint_follows_rules_only() -> None:
    """The same declarations have the same fingerprint; another version, magic or table changes it."""
    plain = read_contract(Plain()).fingerprint()
    assert plain == read_contract(Plain).fingerprint()
    for change in (
        {"get_virtual_chain_version": "2"},
        {"get_magic_bytes": b"zz"},
        {"get_projections": "CREATE TABLE t (a int PRIMARY KEY)"},
        {"get_opfields": {b"a": ["x"]}},
    ):
        assert declare(**change).fingerprint() != plain


def with_(**attributes: Any) -> Contract:
    """Read the contract of a plain implementation with these attributes."""
    return read_contract(type("Changed", (Plain,), attributes))


def with_rule(rule: Any) -> Contract:
    """Read the contract of a plain implementation with a payload rule."""
    return with_(find_payload=staticmethod(rule))


def test_fingerprint_follows_the_payload_rule() -> None:
    """A shipped rule counts by its name, one of the app's own by its code; the default may be named."""

    def after(skipped: int) -> Any:
        return lambda outputs: bytes(skipped) or None

    rules = [first_op_return(b"pl"), first_op_return(b"pl", b"xy"), after(1), after(2), lambda outputs: None]
    default, *others = (with_rule(rule).fingerprint() for rule in (last_op_return, *rules))
    assert default == read_contract(Plain()).fingerprint()
    assert len({default, *others}) == 1 + len(rules)
    assert with_rule(after(1)).fingerprint() == with_rule(after(1)).fingerprint()
    assert with_rule(after(1)).rule.startswith("code:")
    assert with_rule(first_op_return(b"pl")).rule == "first_op_return:706c"


def test_the_fingerprint_of_the_first_version_is_known() -> None:
    """Values that version 0.1.0 computed are computed again, to recognize its deployments."""
    app = App(
        "shop",
        magic=(b"sh", b"op"),
        payload_rule=first_op_return(b"sh", b"op"),
        max_payload=70,
        valid_transaction_window=30,
        initial_snapshots={4: "ab" * 16},
        first_block_id=5,
        version="7.1",
        projections="""CREATE TABLE goods (id integer PRIMARY KEY); -- all
            COMMENT ON TABLE goods IS 'What it''s; for';
    COMMENT ON COLUMN "goods".id IS E'a\\'b'; CREATE TABLE "Other" (a text COLLATE "C" PRIMARY KEY)""",
    )
    app.add(b"+", parse=lambda payload: {}, fields=["a", "b"])
    app.add(b"-", parse=lambda payload: {}, from_block=9)
    contract = read_contract(app)
    former = "bec6a700bcc70de779a296652ff497d872dd8b3076e2dec39921c945caf69b5e"
    assert contract.former_fingerprint() == former
    assert contract.former_fingerprint({("goods",): "What it's; for"}) == former
    assert contract.former_fingerprint({("goods",): "else"}) != former
    assert contract.fingerprint() != former
    plain = read_contract(Plain())
    assert plain.former_fingerprint() == plain.fingerprint()


def test_comment_statements_can_be_removed_and_reworded() -> None:
    """Only whole statements are taken for such, and only texts of tables and columns are replaced."""
    create = "CREATE TABLE t (a text DEFAULT '; COMMENT ON TABLE t IS ''x'';' PRIMARY KEY);"
    index = 'CREATE INDEX comments ON t ("comment ON");'
    comments = (
        "comment  ON\tTABLE t IS 'is; it';COMMENT ON COLUMN T.\"A b\" IS 'b'; COMMENT ON INDEX i IS 'c';"
    )
    assert without_comments(f"{create} {comments} {index}") == f"{create} {index}"
    assert without_comments(f"{create}\n{index}") == f"{create} {index}"
    assert without_comments(f"{create}\nCOMMENT ON TABLE t IS $$ a;b $$") == create
    assert without_comments("SELECT 1; COMMENTS ON x") == "SELECT 1; COMMENTS ON x"
    texts = {("t",): "it's", ("t", "A b"): "d\\;", ("i",): "no", ("t", "a b"): "no"}
    assert with_comments(f"{create} {comments}", texts) == (
        f"{create} comment ON TABLE t IS 'it''s';COMMENT ON COLUMN T.\"A b\" IS 'd\\;'; "
        "COMMENT ON INDEX i IS 'c';"
    )
    assert with_comments(comments, {}) == with_comments(comments, {("t",): None})


def test_the_code_digest_follows_what_handlers_and_hooks_do() -> None:
    """Every function that an app registers counts, with what it closes over; order and names do not."""

    def digest(changed: str = "") -> str:
        app = App("code", magic=b"co", payload_rule=lambda outputs: bytes(values["rule"]) or None)

        values = defaultdict(int, {changed: 1})

        class Handler:
            number = values["class"]

            def parse(self, payload: bytes) -> dict[str, int]:
                return {"n": self.number}

        def function(n: int) -> Any:
            return lambda op, state: n

        app.opcode(b"h")(Handler)
        app.add(
            b"o",
            parse=function_of_payload(values["parse"]),
            check=function(values["check"]),
            commit=function(values["commit"]),
        )
        app.add(b"o", parse=function_of_payload(values["late"]), from_block=7)
        app.scan(function(values["scan"]))
        app.final(function(values["final"]))
        app.proceed(lambda block_id, consensus_hash: values["proceed"])
        return read_contract(app).code_digest()

    plain = digest()
    assert digest() == plain
    for name in ("parse", "check", "commit", "late", "scan", "final", "proceed", "rule", "class"):
        assert digest(name) != plain, name


def function_of_payload(n: int) -> Any:
    """Make a parse function."""
    return lambda payload: {"n": n}


def test_the_code_digest_follows_the_published_callbacks() -> None:
    """Each callback of a class counts, and what it uses of its object, but not what is declared."""
    plain = read_contract(Plain()).code_digest()
    assert plain == read_contract(Plain).code_digest()
    assert plain == declare(get_virtual_chain_version="2").code_digest()
    for name in ("db_parse", "db_check", "db_commit", "db_scan_block", "db_final", "db_continue"):
        assert with_(**{name: lambda self, *arguments: None}).code_digest() != plain, name


def test_strictness_is_declared() -> None:
    """An App has a keyword, other implementations a callback, which returns True or False."""
    assert not read_contract(Plain()).strict_code
    assert declare(get_strict_code=True).strict_code
    app = App("strict", magic=b"st", strict_code=True)
    app.add(b"o", parse=lambda payload: {})
    assert read_contract(app).strict_code
    with pytest.raises(InvalidApp, match="get_strict_code returns 1: it must be True or False"):
        declare(get_strict_code=1)


def test_the_fingerprint_ignores_comments_and_layout_of_the_ddl() -> None:
    """Comments and layout may change; words, quoted text and activation heights count."""

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
    assert fingerprint(f"{ddl}; COMMENT ON TABLE t IS 'a';") == fingerprint(f"{ddl};")
    assert len({fingerprint(ddl), fingerprint(ddl, late=5), fingerprint(ddl, late=6)}) == 3
