"""Completion in shells: the command that prints a shell's script, and what it offers for arguments.

What is offered comes from the settings and the apps that they name, never from a node or a database. A word
that cannot be completed is no error: then nothing is offered.
"""

import inspect
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem, get_completion_class

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from virtualchain.app.contract import Contract

COMPLETE: Final = "_VIRTUALCHAIN_COMPLETE"
"""The environment variable by which a shell asks for its completion script, or for a word's completions."""
_LATEST: Final = 2**31 - 1

Offer = list[CompletionItem]


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_options
@click.pass_context
def completion(context: click.Context, options: Options, /, shell: str) -> None:
    """Print the script by which SHELL completes commands.

    It completes options, the apps that virtualchain.toml names, and their opcodes, fields and tables. Load it
    in the shell's startup file: with `eval "$(virtualchain completion bash)"` in ~/.bashrc, the same with zsh
    in ~/.zshrc, or `virtualchain completion fish | source` in ~/.config/fish/config.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click has all three"
    script = kind(context.find_root().command, {}, "virtualchain", COMPLETE).source()
    if options.settings.json:
        write_json({"shell": shell, "script": script})
    else:
        click.echo(script, nl=False)


def _quietly(offer: "Callable[[click.Context, str], Iterator[CompletionItem]]") -> Any:  # noqa: ANN401 - click's own
    """Turn what offers words into a function for `shell_complete=`; an error offers nothing."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Offer:
        del parameter
        try:
            with redirect_stdout(StringIO()):  # a shell would take what an app prints for words
                return [item for item in offer(context, incomplete) if item.value.startswith(incomplete)]
        except Exception:  # noqa: BLE001 - the settings or an app may be wrong, and a shell shows no message
            return []

    return complete


def _contracts(context: click.Context) -> "list[Contract]":
    return context.ensure_object(Options).contracts()


def _contract(context: click.Context) -> "Contract":
    """Return the app that the words before name."""
    from virtualchain.app.declarations import read_contract
    from virtualchain.cli.session import named_app

    return read_contract(named_app(context.ensure_object(Options), context.params["name"]))


def _apps(context: click.Context, incomplete: str) -> "Iterator[CompletionItem]":
    del incomplete
    for contract in _contracts(context):
        yield CompletionItem(contract.name)


def _opcodes(context: click.Context, incomplete: str) -> "Iterator[CompletionItem]":
    del incomplete
    contract = _contract(context)
    for name in sorted(contract.opcode_names):
        yield CompletionItem(name)
    if not contract.opcode_names:
        yield from (CompletionItem(code.decode("ascii")) for code in contract.opcodes if code.isascii())


def _fields(context: click.Context, incomplete: str) -> "Iterator[CompletionItem]":
    from virtualchain.app.encoding import find_opcode

    contract = _contract(context)
    encode = contract.encoder(_LATEST, find_opcode(contract, context.params["opcode"]))
    taken = {word.partition("=")[0] for word in context.params.get("fields") or ()}
    if encode is not None and "=" not in incomplete:
        for name in inspect.signature(encode).parameters:
            if name not in {*taken, "consensus_hash", "block_id"}:
                yield CompletionItem(f"{name}=")


def _tables(context: click.Context, incomplete: str) -> "Iterator[CompletionItem]":
    from virtualchain.app.ddl import table_names

    del incomplete
    for name in table_names(_contract(context).projections):
        yield CompletionItem(name)


complete_apps: Final = _quietly(_apps)
complete_opcodes: Final = _quietly(_opcodes)
complete_fields: Final = _quietly(_fields)
complete_tables: Final = _quietly(_tables)
