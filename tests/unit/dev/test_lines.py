"""The lines of the prompt: what they mean, and what is said of those that mean nothing."""

import pytest

from virtualchain.dev import lines
from virtualchain.dev.lines import Fork, Help, Input, Log, Mine, Plain, Rows, Sql, explain, read_line
from virtualchain.errors import UsageError
from virtualchain.testing import key


def order(line: str) -> lines.Order:
    """Read a line that is an input."""
    request = read_line(line)
    assert isinstance(request, Input)
    return request.order


def test_lines_become_requests() -> None:
    """Each line is read as what it says; blanks and comments are nothing."""
    assert [read_line(line) for line in ("", "   ", "# send x", "\t#")] == [None] * 4
    assert read_line("mine") == Mine(1)
    assert read_line("  mine 3 ") == Mine(3)
    assert read_line("fork 2") == Fork(2, None)
    assert read_line("fork 2 5") == Fork(2, 5)
    assert read_line("rows t a=1 limit=2") == Rows("t", ("a=1", "limit=2"))
    assert (read_line("ops"), read_line("rejections 5")) == (Log("ops", 10), Log("rejections", 5))
    assert read_line("help send") == Help("send")
    assert [read_line(word) for word in ("status", "drop", "reload", "reset", "quit")] == [
        *(Plain("status"), Plain("drop"), Plain("reload"), Plain("reset"), Plain("quit"))
    ]


def test_a_statement_keeps_its_quotes() -> None:
    """What follows `sql` is SQL, in which quotes and dashes are SQL's."""
    statement = """SELECT 'it''s', "a b" -- why"""
    assert read_line(f"sql   {statement}") == Sql(statement)


def test_inputs() -> None:
    """An input has an opcode and fields, or a whole payload; who sends it, and whom else it pays."""
    full = order(
        """send sign message="Hello world" n=1 --sender bob --to carol=546sat --to x=0.5 --burn 1sat"""
    )
    assert (full.opcode, full.fields) == ("sign", ("message=Hello world", "n=1"))
    assert (full.sender, full.burn, full.payload) == (key("bob"), 1, None)
    assert full.to == (("carol", 546), ("x", 50_000_000))
    assert order("hold message=Hi").opcode is None
    assert order("send sign").fields == ()
    assert order("preview --hex 0x6762").payload == b"gb"
    assert order("send s --sender bob:p2tr").sender == key("bob", "p2tr")
    assert order("send s").sender == key("alice")
    assert order("send -- sign message=--x").fields == ("message=--x",)
    assert order("send s text=a=b").fields == ("text=a=b",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sedn s", "no such command 'sedn'"),
        ("send", "send needs an opcode and its fields, or --hex: see `help send`"),
        ("send s --hex 6762", "leave out opcode and fields"),
        ("send --hex 6", "'6' is not hex"),
        ("send --hex ''", "a payload has at least one byte"),
        ("send s message=it's", "a quote without its partner"),
        ("send s --sender ''", "is not a name"),
        ("send s --sender bob:p2wsh", "one of the types p2wpkh"),
        ("send s --to bob", "write ADDRESS=AMOUNT"),
        ("send s --to bob=1.5.2", "is not an amount"),
        ("send s --shade red", "no such option"),
        ("mine 0", "is not in the range"),
        ("mine many", "is not a valid integer"),
        ("fork", "missing argument"),
        ("fork 3 2", "nodes stay on a branch of 3 blocks"),
        ("sql", "missing argument"),
        ("rows", "missing argument"),
        ("ops -1", "no such option"),
        ("quit now", "unexpected extra argument"),
        ("\0", "no such command"),
    ],
)
def test_mistakes_say_what_to_write(line: str, words: str) -> None:
    """A line that means nothing is refused with the reason, and where to read more."""
    with pytest.raises(UsageError) as refused:
        read_line(line)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_explains_every_line() -> None:
    """The list has every line, and each line has a text of its own."""
    listed = explain(None).splitlines()
    assert [line.split()[0] for line in listed] == lines.names()
    for name in lines.names():
        assert explain(name).startswith("Usage:")
    with pytest.raises(UsageError, match="there is no line 'sedn'"):
        explain("sedn")
