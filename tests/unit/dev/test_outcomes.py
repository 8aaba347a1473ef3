"""What dev says of an input: all that a person reads, and no more."""

from virtualchain.dev.outcomes import change_lines, verdict_lines


def test_what_is_long_is_cut() -> None:
    """A row of megabytes, or thousands of rows, do not flood the terminal; both say what is missing."""
    row = {"table": "t", "action": "insert", "key": {"id": 1}, "old": None, "new": {"id": "x" * 1_000_000}}
    lines = change_lines([row])
    assert len(lines[1]) < 3_000
    assert lines[1].endswith("... and 998,010 more characters")
    assert change_lines([row] * 100)[-1].startswith("    new")
    assert change_lines([row] * 1_102)[-1] == "  and 1,002 more changes of rows: see `rows TABLE`"
    verdict = {"verdict": "accepted", "opcode": "s", "fields": {"text": "y" * 9_000}, "changes": []}
    assert len("".join(verdict_lines(verdict, "block 1"))) < 3_000
