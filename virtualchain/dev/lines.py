"""The lines that the prompt of `virtualchain dev` takes: from text to a request."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import click

from virtualchain.errors import UsageError, quoted
from virtualchain.testing import Key, key
from virtualchain.testing.transactions import KEY_KINDS
from virtualchain.writing.amounts import read_amount, split_payment

Way = Literal["send", "hold", "preview"]
"""What is done with an input: mined at once, kept for the next block, or only judged."""

_MOST_BLOCKS: Final = 10_000
"""How many blocks a line can mine or replace."""
_HELD: Final = "Inputs that are held are in the first of them, in their order."


@dataclass(frozen=True, slots=True)
class Order:
    """An input to write, and who sends it."""

    opcode: str | None
    fields: tuple[str, ...]
    """Each `name=value`."""
    payload: bytes | None
    """The whole payload, in place of opcode and fields."""
    sender: Key
    to: tuple[tuple[str, int], ...]
    """Names, or addresses, and satoshis."""
    burn: int | None
    """Satoshi for the hash of zeros."""


@dataclass(frozen=True, slots=True)
class Input:
    """Send, hold or preview an input."""

    way: Way
    order: Order


@dataclass(frozen=True, slots=True)
class Mine:
    """Mine blocks."""

    blocks: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Replace the last blocks by others."""

    depth: int
    blocks: int | None


@dataclass(frozen=True, slots=True)
class Sql:
    """Run a statement that reads."""

    statement: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Show a table's rows: all, or those that fit filters, `column=operator.value`."""

    table: str
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """List the last ops or rejections."""

    what: Literal["ops", "rejections"]
    limit: int


@dataclass(frozen=True, slots=True)
class Address:
    """Show the address of a name."""

    who: Key


@dataclass(frozen=True, slots=True)
class Help:
    """Explain the lines."""

    command: str | None


@dataclass(frozen=True, slots=True)
class Plain:
    """A line without arguments."""

    name: Literal["status", "drop", "reload", "reset", "quit"]


Request = Input | Mine | Fork | Sql | Rows | Log | Address | Help | Plain


def read_line(line: str) -> Request | None:
    """Read a line; None if it is empty or a comment. Raises UsageError, which says what to write instead."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    word, _, rest = text.partition(" ")
    if word == "sql" and rest.strip():
        return Sql(rest.strip())  # its quotes are those of SQL
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"{quoted(text)} has a quote without its partner: write 'it'\"'\"'s' or \"it's\" for it's"
        ) from error
    return read_words(words)


def read_words(words: Sequence[str]) -> Request:
    """Read a line that is split into words; raises UsageError."""
    try:
        request: Request = _COMMANDS.main(list(words), prog_name="", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split()).removesuffix(".")
        command = words[0] if words and words[0] in _COMMANDS.commands else ""
        hint = f"`help {command}`" if command else "`help`"
        raise UsageError(f"{message[:1].lower()}{message[1:]}: see {hint}") from error
    return request


def explain(command: str | None) -> str:
    """Return the help on all lines, or on one; raises UsageError if there is no such line."""
    root = click.Context(_COMMANDS, info_name="", max_content_width=100)
    if command is None:
        rows = [
            (each.collect_usage_pieces(root), each.get_short_help_str(100))
            for each in _COMMANDS.commands.values()
        ]
        left = [" ".join([name, *pieces]) for name, (pieces, _) in zip(_COMMANDS.commands, rows, strict=True)]
        width = max(map(len, left))
        return "\n".join(f"{words:{width}}  {text}" for words, (_, text) in zip(left, rows, strict=True))
    explained = _COMMANDS.commands.get(command)
    if explained is None:
        raise UsageError(f"there is no line {quoted(command)}: see `help`")
    return explained.get_help(click.Context(explained, root, command, max_content_width=100))


def names() -> list[str]:
    """Return the first words of all lines."""
    return list(_COMMANDS.commands)


def _sender(context: click.Context, parameter: click.Parameter, value: str) -> Key:
    """Read NAME, or NAME:KIND."""
    name, _, kind = value.partition(":")
    if not name.isprintable() or not name.strip():
        raise click.BadParameter(f"{quoted(value)} is not a name", context, parameter)
    try:
        return key(name, kind or KEY_KINDS[0])
    except UsageError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _payments(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[tuple[str, int], ...]:
    try:
        return tuple(split_payment(value) for value in values)
    except UsageError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _amount(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else read_amount(value)
    except UsageError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _payload(context: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    try:
        payload = None if value is None else bytes.fromhex(value.removeprefix("0x"))
    except ValueError as error:
        raise click.BadParameter(f"{quoted(value)} is not hex", context, parameter) from error
    if payload == b"":
        raise click.BadParameter("a payload has at least one byte", context, parameter)
    return payload


_COMMANDS: Final = click.Group("lines", add_help_option=False)
_blocks = click.IntRange(1, _MOST_BLOCKS)
_rows = click.IntRange(1, 1000)


def _command(text: str, *parameters: click.Parameter) -> Callable[[Callable[..., Request]], object]:
    """Add a line, whose help is `text`."""
    has_options = any(isinstance(each, click.Option) for each in parameters)

    def add(function: Callable[..., Request]) -> object:
        command = click.Command(
            function.__name__.strip("_"),
            params=list(parameters),
            callback=function,
            help=text,
            add_help_option=False,
            options_metavar="[OPTIONS]" if has_options else None,
        )
        _COMMANDS.add_command(command)
        return command

    return add


def _input_parameters() -> list[click.Parameter]:
    return [
        click.Argument(["words"], nargs=-1, metavar="[OPCODE] [FIELD=VALUE]..."),
        click.Option(
            ["--sender"],
            default="alice",
            show_default=True,
            callback=_sender,
            metavar="NAME[:KIND]",
            help=f"Who sends it; KIND, the type of the output that is spent, is {', '.join(KEY_KINDS)}.",
        ),
        click.Option(
            ["--to"],
            multiple=True,
            callback=_payments,
            metavar="NAME=AMOUNT",
            help="Pay a name or an address after the payload: bitcoins (0.001) or satoshis (546sat). "
            "Can be repeated.",
        ),
        click.Option(
            ["--burn"],
            callback=_amount,
            metavar="AMOUNT",
            help="Pay to the hash of zeros, for which nobody has a key, after --to.",
        ),
        click.Option(
            ["--hex"],
            callback=_payload,
            metavar="HEX",
            help="The whole payload, magic included, in place of opcode and fields.",
        ),
    ]


def _input(way: Way, chosen: Mapping[str, Any]) -> Input:
    words, payload = chosen["words"], chosen["hex"]
    if payload is not None and words:
        raise click.UsageError("--hex is the whole payload: leave out opcode and fields")
    if payload is None and not words:
        raise click.UsageError(f"{way} needs an opcode and its fields, or --hex")
    has_opcode = bool(words) and "=" not in words[0]
    return Input(
        way,
        Order(
            words[0] if has_opcode else None,
            tuple(words[1:] if has_opcode else words),
            payload,
            chosen["sender"],
            chosen["to"],
            chosen["burn"],
        ),
    )


@_command(
    "Send an input, and mine it with those that are held.\n\n"
    "OPCODE is a byte or the name of its handler; a value with blanks stands in quotes. An encoder "
    "that needs a recent consensus hash gets the current one.",
    *_input_parameters(),
)
def _send(**chosen: Any) -> Request:  # noqa: ANN401 - click's own
    return _input("send", chosen)


@_command(
    "Keep an input for the next block.\n\nIt is mined by the next `send`, `mine` or `fork`.",
    *_input_parameters(),
)
def _hold(**chosen: Any) -> Request:  # noqa: ANN401 - click's own
    return _input("hold", chosen)


@_command(
    "Show what an input would do, and send nothing.\n\nIt is judged after the inputs that are held.",
    *_input_parameters(),
)
def _preview(**chosen: Any) -> Request:  # noqa: ANN401 - click's own
    return _input("preview", chosen)


@_command(
    f"Mine N blocks, by default one.\n\n{_HELD}",
    click.Argument(["blocks"], type=_blocks, default=1, metavar="[N]"),
)
def _mine(blocks: int) -> Request:
    return Mine(blocks)


@_command(
    f"Replace the last DEPTH blocks by N others, by default one more.\n\n{_HELD} What the replaced blocks "
    "held is gone.",
    click.Argument(["depth"], type=_blocks),
    click.Argument(["blocks"], type=_blocks, required=False, metavar="[N]"),
)
def _fork(depth: int, blocks: int | None) -> Request:
    if blocks is not None and blocks < depth:
        raise click.UsageError(f"nodes stay on a branch of {depth} blocks when another has {blocks}")
    return Fork(depth, blocks)


@_command("Drop the inputs that are held.")
def _drop() -> Request:
    return Plain("drop")


@_command(
    "Show rows of a table: all, or those that fit.\n\nFilters are written as for the API: owner=eq.alice, "
    "block_id=gte.12, order=name.desc, limit=5.",
    click.Argument(["table"]),
    click.Argument(["filters"], nargs=-1, metavar="[COLUMN=VALUE]..."),
)
def _rows_of(table: str, filters: tuple[str, ...]) -> Request:
    return Rows(table, filters)


_COMMANDS.add_command(_COMMANDS.commands.pop("rows_of"), "rows")


@_command(
    "List the last N ops, by default 10.",
    click.Argument(["limit"], type=_rows, default=10, metavar="[N]"),
)
def _ops(limit: int) -> Request:
    return Log("ops", limit)


@_command(
    "List the last N inputs that were rejected, with step and reason.",
    click.Argument(["limit"], type=_rows, default=10, metavar="[N]"),
)
def _rejections(limit: int) -> Request:
    return Log("rejections", limit)


@_command(
    "Run a statement that reads.\n\nThe app's tables and the log's views need no schema.",
    click.Argument(["statement"]),
)
def _sql(statement: str) -> Request:
    return Sql(statement)


@_command(
    "Show the address of a name.",
    click.Argument(["name"], callback=_sender, metavar="NAME[:KIND]"),
)
def _address(name: Key) -> Request:
    return Address(name)


@_command("Show the app, what it takes, the chain, and where all this is.")
def _status() -> Request:
    return Plain("status")


@_command("Load the app again, whether or not a file has changed.")
def _reload() -> Request:
    return Plain("reload")


@_command("Begin a new chain.")
def _reset() -> Request:
    return Plain("reset")


@_command("Explain the lines, or one of them.", click.Argument(["command"], required=False))
def _help(command: str | None) -> Request:
    return Help(command)


@_command("End; the chain is kept for the next time.")
def _quit() -> Request:
    return Plain("quit")
