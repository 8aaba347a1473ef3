"""The command `preview`: what an input would do in the next block."""

from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.completing import complete_apps, complete_fields, complete_opcodes
from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import say, visible, write_json
from virtualchain.cli.session import existing_database, named_app
from virtualchain.errors import NodeUnavailable, UsageError
from virtualchain.reading.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from virtualchain.app.contract import Contract
    from virtualchain.bitcoin.next_block import Outpoint
    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.engine.foreseeing import Verdict
    from virtualchain.model import SpentOutput

_CHANGE: Final = 100_000
"""Satoshi that a made-up transaction pays back to its sender."""


@click.command(cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@click.argument("opcode", metavar="[OPCODE]", required=False, shell_complete=complete_opcodes)
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...", shell_complete=complete_fields)
@click.option(
    "--tx",
    "transactions",
    multiple=True,
    metavar="HEX",
    help="Judge this transaction, signed or not. Can be repeated, in the order of the block.",
)
@click.option(
    "--sender",
    metavar="ADDRESS",
    help="Judge an input that this address sends. Default: one that the node's wallet would send.",
)
@click.option(
    "--to",
    multiple=True,
    metavar="ADDRESS=AMOUNT",
    help="Pay coins (0.001) or satoshis (546sat) to an address, after the payload. Can be repeated.",
)
@click.option("--burn", metavar="AMOUNT", help="Pay to the hash of zeros, after --to.")
@click.option(
    "--wallet", metavar="NAME", help="The node's wallet that would pay. Default: the only one loaded."
)
@pass_options
def preview(
    options: Options,
    /,
    name: str,
    opcode: str | None,
    fields: tuple[str, ...],
    transactions: tuple[str, ...],
    sender: str | None,
    to: tuple[str, ...],
    burn: str | None,
    wallet: str | None,
) -> None:
    """Show what an input of APP would do in the next block.

    APP is its module or file, or its name if --app or virtualchain.toml names it; OPCODE is a byte or the
    name of its handler. The input is judged on top of the app's last block, of the blocks that the node has
    above it, and of the pending inputs that a writer with --pending has noted. Nothing is sent, and nothing
    is kept. Without a node, what --sender sends is judged right after the app's last block.
    """
    from virtualchain.app.declarations import read_contract
    from virtualchain.engine.preview import preview_transactions, read_raw

    if transactions and (opcode is not None or sender is not None or to or burn is not None):
        raise UsageError("--tx is a whole transaction: leave out opcode, fields, sender and outputs")
    contract = read_contract(named_app(options, name))
    url = existing_database(options)
    with closing(_Node(options, is_needed=not transactions and sender is None)) as node:
        spent: Mapping[Outpoint, SpentOutput] = {}
        if transactions:
            raws = [read_raw(text) for text in transactions]
        elif sender is not None:
            raw, spent = _made_up(url, contract, opcode, fields, sender, to, burn)
            raws = [raw]
        else:
            raws = [_drafted(node, url, contract, opcode, fields, to, burn, wallet)]
        verdicts = preview_transactions(url, contract, raws, source=node.source, spent=spent)
    if not verdicts:
        raise UsageError(f"that is nothing to app {contract.name}: it has no input of it")
    if options.settings.json:
        shown = [verdict.as_dict() for verdict in verdicts]
        write_json(shown[0] if len(shown) == 1 else shown)
        return
    for verdict in verdicts:
        _write(contract.name, verdict)


class _Node:
    """The node, if there is one."""

    def __init__(self, options: Options, *, is_needed: bool) -> None:
        self.source: BlockSource | None = None
        if options.settings.tape is not None:
            if is_needed:
                raise UsageError(
                    "a tape has no wallet and no unconfirmed transactions: name a node, and no --tape"
                )
            return
        try:
            self.source = options.source(of_first=True)
        except NodeUnavailable as error:
            if is_needed or options.settings.bitcoin:
                raise
            say(f"judged without the blocks of a node: {error}")

    def close(self) -> None:
        """Close the connections."""
        if self.source is not None:
            self.source.close()


def _made_up(
    url: str,
    contract: "Contract",
    opcode: str | None,
    texts: "Sequence[str]",
    sender: str,
    to: "Sequence[str]",
    burn: str | None,
) -> "tuple[bytes, Mapping[Outpoint, SpentOutput]]":
    from virtualchain.engine.preview import make_up
    from virtualchain.writing.amounts import read_amount, split_payment
    from virtualchain.writing.sending import BURN_SCRIPT

    opcode, fields = _fields(contract, opcode, texts)
    outputs: list[tuple[int, bytes | str]] = [(amount, address) for address, amount in map(split_payment, to)]
    if burn is not None:
        outputs.append((read_amount(burn), BURN_SCRIPT))
    change = (_CHANGE, sender)
    return make_up(url, contract, opcode, fields, None, sender, [*outputs, change])


def _drafted(
    node: _Node,
    url: str,
    contract: "Contract",
    opcode: str | None,
    texts: "Sequence[str]",
    to: "Sequence[str]",
    burn: str | None,
    wallet: str | None,
) -> bytes:
    """Return the transaction that the wallet would send, with signatures that are made up."""
    from virtualchain.bitcoin.node.node import NodeSource
    from virtualchain.writing.amounts import read_amount, split_payment
    from virtualchain.writing.sending import InputSender

    if not isinstance(node.source, NodeSource):
        raise UsageError("block files have no wallet: name the sender with --sender")
    opcode, fields = _fields(contract, opcode, texts)
    with closing(InputSender(contract, node.source, database=url, wallet=wallet, say=say)) as sending:
        order = sending.order(
            opcode,
            fields,
            to=[split_payment(text) for text in to],
            burn=None if burn is None else read_amount(burn),
        )
        try:
            return sending.draft(order)
        except UsageError as error:
            error.args = (f"{error} (or name a sender with --sender)",)
            raise


def _fields(
    contract: "Contract", opcode: str | None, texts: "Sequence[str]"
) -> "tuple[str | None, Mapping[str, object]]":
    from virtualchain.app.encoding import find_opcode
    from virtualchain.app.field_text import read_fields, split_fields

    if opcode is not None and "=" in opcode and not contract.has_opcodes:
        texts, opcode = [opcode, *texts], None
    return opcode, read_fields(contract, find_opcode(contract, opcode), split_fields(texts))


def _write(app: str, verdict: "Verdict") -> None:
    from virtualchain.app.fields import opcode_text

    outcome = "accepted" if verdict.is_accepted else "refused"
    title = f"{app} {opcode_text(verdict.opcode, verdict.payload)}: {outcome} in block {verdict.block_id}"
    click.secho(visible(title), bold=True)
    if verdict.step is not None:
        click.echo(visible(f"  step    {verdict.step}"))
        click.echo(visible(f"  reason  {verdict.reason}"))
    if verdict.fields is not None:
        click.echo(visible(f"  fields  {json_text(verdict.fields, ensure_ascii=False)}"))
    for change in verdict.changes:
        click.echo(visible(f"  {change.action} {change.table} {json_text(change.key, ensure_ascii=False)}"))
        for side, row in (("old", change.old), ("new", change.new)):
            if row is not None:
                click.echo(visible(f"    {side}  {json_text(row, ensure_ascii=False)}"))
