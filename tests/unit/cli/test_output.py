"""The output of commands: columns, JSON and CSV."""

import json
from decimal import Decimal
from uuid import UUID

import click
import pytest

from virtualchain.cli import output
from virtualchain.cli.output import visible
from virtualchain.errors import UsageError

Capture = pytest.CaptureFixture[str]


def test_control_characters_are_written_as_escapes() -> None:
    """Escape sequences, line breaks and marks that change the direction of writing are escaped."""
    assert visible("plain, €") == "plain, €"
    assert visible("a\x1b[31m\n\x9b\u202e\udcff") == "a\\x1b[31m\\n\\x9b\\u202e\\udcff"


def test_a_table_has_aligned_columns(capsys: Capture) -> None:
    """No value is truncated, null is empty, and no line ends with blanks."""
    output.write_table(["a", "long name"], [(1, None), (b"\x01\x02", {"k": ["x"]}), (True, "two\nlines")])
    lines = ["a     long name", "1", '0102  {"k": ["x"]}', "true  two\\nlines"]
    assert capsys.readouterr().out.splitlines() == lines


def test_names_of_columns_do_not_control_the_terminal(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement, or an app's table, may call a column anything."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for columns in ("9", "1"):
        monkeypatch.setenv("COLUMNS", columns)
        output.write_table(["\x1b[7m"], [("x",)])
    assert capsys.readouterr().out.count("\\x1b[7m") == 2


def test_text_that_begins_with_nul_is_text(capsys: Capture) -> None:
    """A proof, unlike a database, may have any text: none is written as anything but text."""
    texts = ["\0null, ", 'a"\0b', "\0" + "1" * 9]
    output.write_json({"app": texts, texts[0]: Decimal("1.00")})
    assert json.loads(capsys.readouterr().out) == {"app": texts, texts[0]: 1.0}


def test_a_table_is_written_while_rows_arrive(capsys: Capture) -> None:
    """The first rows determine the widths; the table does not wait for later ones."""
    rows = ((number, "x") for number in range(10_001))
    output.write_table(["n", "x"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert (lines[1], lines[-1], len(lines)) == ("0    x", "10000  x", 10_002)


def test_a_narrow_terminal_gets_a_field_a_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields take a line each if the columns do not fit, and only then."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    output.write_table(["name", "a"], [("x" * 10, 1)])
    output.write_table(["name", "a"], [("x" * 20, 1)])
    out = click.unstyle(capsys.readouterr().out).splitlines()
    assert out == ["name        a", "xxxxxxxxxx  1", "- 1 -", f"name  {'x' * 20}", "a     1"]


def test_json_has_numbers_for_numerics_and_hex_for_bytes(capsys: Capture) -> None:
    """Values that JSON cannot express are text, and the output is ASCII."""
    columns = list("abcdefghij")
    values = [
        *(Decimal(12), Decimal("0.5"), Decimal("NaN"), float("inf"), b"\x00\xff", [b"\x01"], None, "€"),
        *(UUID(int=1), Decimal("1e400")),
    ]
    output.write_json_rows(columns, [values])
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == [
        dict(
            zip(
                columns,
                [12, 0.5, "NaN", "inf", "00ff", ["01"], None, "€", str(UUID(int=1)), "1E+400"],
                strict=True,
            )
        )
    ]


def test_json_keeps_all_digits_of_numerics(capsys: Capture) -> None:
    """A number is written as the database writes it, wherever it is; text that looks like one stays text."""
    digits = ["1.00", "0.12345678901234567890123", "-0.0000001", "123456789012345678901234567890", "10"]
    nested = {"list": [Decimal(text) for text in digits], "text": ["1.00", "\\u00001.00", '"\\u00001"']}
    output.write_json_line(nested)
    output.write_json_rows(["a"], [(nested,)])
    output.write_table(["a"], [(nested,)])
    line, *_, table = capsys.readouterr().out.splitlines()
    for text in digits:
        assert f" {text}," in line or f"[{text}," in line or f" {text}]" in line
        assert text in table
    assert json.loads(line, parse_float=Decimal) == nested


def test_json_of_no_rows_is_an_empty_array(capsys: Capture) -> None:
    """No rows are an empty array, and several rows are one array with a row on each line."""
    output.write_json_rows(["a"], [])
    output.write_json_rows(["a"], [(1,), (2,)])
    assert capsys.readouterr().out == '[]\n[\n{"a": 1},\n{"a": 2}\n]\n'


def test_json_refuses_two_columns_of_one_name(capsys: Capture) -> None:
    """Two columns of one name are refused, because one of them would be lost."""
    with pytest.raises(UsageError, match="two columns are named a"):
        output.write_json_rows(["a", "a"], [(1, 2)])
    assert capsys.readouterr().out == ""


def test_csv_is_quoted_if_necessary(capsys: Capture) -> None:
    """CSV has no other escapes than its own."""
    output.write_csv(["a", "b"], [(None, 'say "hi",\nthen go'), (b"\x01", False)])
    assert capsys.readouterr().out == 'a,b\n,"say ""hi"",\nthen go"\n01,false\n'


def test_fields_are_aligned(capsys: Capture) -> None:
    """Fields are aligned below their title, and None is a dash."""
    output.write_fields("title", {"a": 1, "longer": None})
    assert capsys.readouterr().out == "title\n  a       1\n  longer  -\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.0, "0.0 s"), (0.24, "0.2 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59, "59 s"), (59.6, "1 min")),
        *((60, "1 min"), (3599, "1 h 0 min"), (90_000, "25 h 0 min")),
    ],
)
def test_durations_have_one_form(seconds: float, text: str) -> None:
    """They have tenths below ten seconds, seconds below a minute, and minutes above."""
    assert output.duration(seconds) == text


def test_times_have_one_form() -> None:
    """A time as JSON has it is shown to people with its time zone."""
    assert output.moment("2026-11-26T04:21:30Z") == "2026-11-26 04:21:30 UTC"
