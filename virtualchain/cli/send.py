"""The command `send`: inputs are written, paid for by the node's wallet, and followed."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.completing import complete_apps, complete_fields, complete_opcodes
from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, say, visible, write_fields, write_json, write_json_line
from virtualchain.cli.session import existing_database, named_app
from virtualchain.errors import InputRefused, StoreError, UsageError

if TYPE_CHECKING:
    from virtualchain.app.contract import Contract
    from virtualchain.bitcoin.node.node import NodeSource
    from virtualchain.bitcoin.parameters import Network
    from virtualchain.bitcoin.source import Tip
    from virtualchain.writing.batch import Line
    from virtualchain.writing.orders import Sent, Terms
    from virtualchain.writing.sending import InputSender

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.command(cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@click.argument("opcode", metavar="[OPCODE]", required=False, shell_complete=complete_opcodes)
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...", shell_complete=complete_fields)
@click.option(
    "--to",
    multiple=True,
    metavar="ADDRESS=AMOUNT",
    help="Pay coins (0.001) or satoshis (546sat) to an address, after the payload. Can be repeated.",
)
@click.option(
    "--burn", metavar="AMOUNT", help="Pay to the hash of zeros, for which nobody has a key, after --to."
)
@click.option(
    "--sender",
    metavar="ADDRESS",
    help="Send from this address of the wallet; the change returns to it. Default: the wallet chooses coins.",
)
@click.option(
    "--coin",
    "coins",
    multiple=True,
    metavar="TXID:N",
    help="Spend this output first, for apps whose state is on outputs. Can be repeated.",
)
@click.option("--change", metavar="ADDRESS", help="Where the change goes. Default: a new address.")
@click.option(
    "--change-at",
    type=click.IntRange(min=0),
    metavar="N",
    help="Which output the change is, from 0. Default: the last.",
)
@click.option("--wallet", metavar="NAME", help="The node's wallet that pays. Default: the only one loaded.")
@click.option("--fee-rate", metavar="SAT_VB", help="Satoshis per vbyte. Default: the wallet's estimate.")
@click.option(
    "--target",
    type=click.IntRange(min=1, max=1008),
    metavar="BLOCKS",
    help="Pay what is estimated to confirm within so many blocks.",
)
@click.option("--max-fee", metavar="AMOUNT", help="The highest fee of a transaction. Default: 0.001.")
@click.option(
    "--replace",
    "replaces",
    metavar="TXID",
    help="Spend the coins of this unconfirmed transaction instead of it, with a higher fee.",
)
@click.option(
    "--psbt",
    type=_FILE,
    metavar="FILE",
    help="Write the transaction for a signer elsewhere; nothing is sent.",
)
@click.option(
    "--broadcast",
    type=_FILE,
    metavar="FILE",
    help="Send what such a signer has signed: a PSBT, or a transaction in hex.",
)
@click.option(
    "--batch", type=_FILE, metavar="FILE", help="Send an input for each line of a CSV file; see the manual."
)
@click.option("--results", type=_FILE, metavar="FILE", help="Where a batch notes what it has sent.")
@click.option("--dry-run", is_flag=True, help="Do everything but send.")
@click.option("--anyway", is_flag=True, help="Send even if the app would refuse it, or without a preview.")
@click.option("--wait", is_flag=True, help="Wait until the app has accepted or refused the input.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=10_000_000),
    metavar="SECONDS",
    help="Wait no longer than this; then the exit code is 6.",
)
@pass_options
def send(
    options: Options,
    /,
    name: str,
    opcode: str | None,
    fields: tuple[str, ...],
    **chosen: Any,  # noqa: ANN401 - the values of the options above
) -> None:
    """Send an input of APP: OPCODE with its fields.

    APP is its module or file, or its name if --app or virtualchain.toml names it; OPCODE is a byte or the
    name of its handler. The node's wallet chooses coins and signs; no key leaves it. First the app judges the
    transaction as if it came in the next block: what it would refuse is not sent. An encoder that needs a
    recent consensus hash gets the current one.
    """
    from virtualchain.app.declarations import read_contract

    _check(opcode, chosen)
    contract, terms = read_contract(named_app(options, name)), _terms(chosen)
    request = _read_request(contract, opcode, fields, chosen)  # reports mistakes before a node is asked
    with (
        closing(_node(options)) as source,
        closing(_sender(options, contract, source, terms, chosen)) as sender,
    ):
        began: Tip | None = source.tip()
        match request:
            case Path():
                from virtualchain.writing.psbt import read_signed

                signed = read_signed(source, read_file(request))
                sent = sender.broadcast(signed, dry_run=chosen["dry_run"])
                began = None
            case list():
                _send_batch(options, sender, request, chosen)
                return
            case _:
                try:
                    sent = _send(sender, request, chosen)
                except InputRefused as error:
                    if options.settings.json:
                        write_json(error.details)
                    raise
        if chosen["wait"] and sent.status == "sent":
            say(f"sent transaction {sent.txid}; waiting for what app {sent.app} makes of it")
            _wait_for(sent, sender, chosen["timeout"], began)
        _write_sent(options, sent, sender.source.network)
        _end(sent)


def _check(opcode: str | None, chosen: dict[str, Any]) -> None:
    """Reject options that exclude each other."""
    ways = [name for name in ("psbt", "broadcast", "batch") if chosen[name] is not None]
    if len(ways) > 1:
        raise UsageError(f"use either --{ways[0]} or --{ways[1]}")
    if chosen["fee_rate"] is not None and chosen["target"] is not None:
        raise UsageError("use either --fee-rate or --target")
    if chosen["psbt"] is not None and chosen["wait"]:
        raise UsageError("--psbt sends nothing to wait for: use --wait with --broadcast")
    if chosen["timeout"] is not None and not chosen["wait"]:
        raise UsageError("--timeout needs --wait")
    if chosen["results"] is not None and chosen["batch"] is None:
        raise UsageError("--results needs --batch")
    names = ("to", "burn", "sender", "coins", "change", "replaces", "change_at")
    taken = [name for name in names if _is_set(chosen, name)]
    if chosen["broadcast"] is not None and (opcode is not None or taken):
        raise UsageError("--broadcast sends what is in the file: leave out opcode, fields and outputs")
    if chosen["batch"] is not None and (opcode is not None or {"to", "burn", "replaces"} & set(taken)):
        raise UsageError("with --batch, opcodes, fields and outputs are in the file's columns")


def _is_set(chosen: dict[str, Any], name: str) -> bool:
    return chosen[name] not in (None, ())


def _node(options: Options) -> "NodeSource":
    from virtualchain.bitcoin.node.node import NodeSource

    if options.settings.blocks is not None:
        raise UsageError("block files send nothing: name a node with --bitcoin, and no --blocks")
    if options.settings.tape is not None:
        raise UsageError("a tape sends nothing: name a node with --bitcoin, and no --tape")
    source = options.source(of_first=True)
    assert isinstance(source, NodeSource), "it is neither of files nor of a tape"
    return source


def _terms(chosen: dict[str, Any]) -> "Terms":
    from virtualchain.writing.amounts import read_amount, read_fee_rate
    from virtualchain.writing.orders import MOST_FEE, Terms
    from virtualchain.writing.wallet import Fee

    rate = None if chosen["fee_rate"] is None else read_fee_rate(chosen["fee_rate"])
    most = MOST_FEE if chosen["max_fee"] is None else read_amount(chosen["max_fee"])
    return Terms(Fee(rate, chosen["target"]), most, chosen["anyway"])


def _read_request(
    contract: "Contract", opcode: str | None, fields: tuple[str, ...], chosen: dict[str, Any]
) -> "Path | list[Line] | dict[str, Any]":
    """Return the file to broadcast, the lines of a batch, or what an order is made from."""
    from virtualchain.app.encoding import find_opcode
    from virtualchain.app.field_text import read_fields, split_fields
    from virtualchain.writing.amounts import read_amount, read_coin, split_payment
    from virtualchain.writing.batch import read_lines

    if chosen["broadcast"] is not None:
        file: Path = chosen["broadcast"]
        return file
    if chosen["batch"] is not None:
        return read_lines(read_file(chosen["batch"]))
    if opcode is not None and "=" in opcode and not contract.has_opcodes:
        fields = (opcode, *fields)
        opcode = None
    code = find_opcode(contract, opcode)
    return {
        "opcode": code,
        "fields": read_fields(contract, code, split_fields(fields)),
        "to": [split_payment(text) for text in chosen["to"]],
        "coins": [read_coin(text) for text in chosen["coins"]],
        "burn": None if chosen["burn"] is None else read_amount(chosen["burn"]),
        **{name: chosen[name] for name in ("sender", "change", "change_at", "replaces")},
    }


def _sender(
    options: Options, contract: "Contract", source: "NodeSource", terms: "Terms", chosen: dict[str, Any]
) -> "InputSender":
    from virtualchain.writing.sending import InputSender

    return InputSender(
        contract,
        source,
        database=_database(options, is_needed=not chosen["anyway"] or chosen["wait"]),
        wallet=chosen["wallet"],
        terms=terms,
        say=say,
    )


def _database(options: Options, *, is_needed: bool) -> str | None:
    try:
        return existing_database(options)
    except StoreError as error:
        if is_needed:
            raise
        say(f"there is no preview: {error}")
        return None


def _send(sender: "InputSender", request: dict[str, Any], chosen: dict[str, Any]) -> "Sent":
    order = sender.order(**request)
    if chosen["psbt"] is None:
        return sender.send(order, dry_run=chosen["dry_run"])
    sent, psbt = sender.unsigned(order)
    if not chosen["dry_run"]:
        _write(chosen["psbt"], psbt)
        say(f"the PSBT is in {chosen['psbt']}: sign it, then send it with --broadcast")
    return sent


def read_file(file: Path) -> bytes:
    """Read a file, or standard input for -; raises UsageError."""
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _write(file: Path, psbt: bytes) -> None:
    if str(file) == "-":
        raise UsageError("a PSBT is binary: name a file")
    try:
        with file.open("xb") as target:
            target.write(psbt)
    except FileExistsError as error:
        raise UsageError(f"{file} exists: choose another name") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def _wait_for(sent: "Sent", sender: "InputSender", timeout: float | None, began: "Tip | None") -> None:
    """Wait until it is decided what becomes of an input; Ctrl-C ends the wait, and what was sent is shown."""
    from virtualchain.writing.waiting import Wait

    assert sender.database is not None, "waiting asked for it"
    wait = Wait(sent, sender.contract, sender.source, sender.database, began=began, say=say)
    wait.until_decided(timeout)


def _write_sent(options: Options, sent: "Sent", network: "Network") -> None:
    """Print what became of an input."""
    if options.settings.json:
        write_json(sent.as_dict())
        return
    from virtualchain.app.fields import opcode_text
    from virtualchain.writing.amounts import write_amount

    titles = {
        "checked": "checked, and not sent",
        "unsigned": "to be signed, and not sent",
        "sent": "sent",
        "waiting": "sent, and not decided yet",
        "accepted": f"accepted in block {sent.block_id}",
        "refused": f"refused in block {sent.block_id}",
        "ignored": f"ignored in block {sent.block_id}",
        "replaced": "replaced",
        "dropped": "dropped",
    }
    fields: dict[str, object] = {
        "txid": sent.txid,
        "sender": sent.sender,
        "payload": sent.payload.hex(),
        "fee": None
        if sent.fee is None
        else f"{write_amount(sent.fee, network)}, {sent.fee_rate} satoshi per vbyte",
    }
    if sent.verdict is not None and sent.status in {"checked", "unsigned", "sent", "waiting"}:
        fields["preview"] = "accepted" if sent.verdict.is_accepted else "refused"
        for change in sent.verdict.changes:
            fields[f"{change.action} {change.table}"] = change.new if change.new is not None else change.old
    if sent.step is not None:
        fields["step"] = sent.step
    if sent.reason is not None:
        fields["reason"] = sent.reason
    write_fields(f"{sent.app} {opcode_text(sent.opcode)}: {titles[sent.status]}", fields)


def _end(sent: "Sent") -> None:
    """End the command with the exit code for what became of an input."""
    if sent.status == "waiting":
        say(
            f"transaction {sent.txid} is not decided yet: `virtualchain ops --txid {sent.txid}` shows it then"
        )
    elif sent.exit_code:
        at = "" if sent.step is None else f" at {sent.step}"
        say(visible(f"transaction {sent.txid} was {sent.status}{at}: {sent.reason}"))
    click.get_current_context().exit(sent.exit_code)


# Batches


def _send_batch(options: Options, sender: "InputSender", lines: "list[Line]", chosen: dict[str, Any]) -> None:
    """Send the lines of a file, print what became of each, and end with the worst exit code."""
    from virtualchain.writing.batch import Batch, open_results

    file: Path = chosen["batch"]
    batch = Batch(
        sender,
        lines,
        from_address=chosen["sender"],
        change=chosen["change"],
        say=say,
    )
    results: Path = chosen["results"] or file.with_name(f"{file.name}.results")
    began = sender.source.tip()
    with open_results(results) as done:
        batch.check(done)
        if chosen["dry_run"]:
            say(f"{counted(len(lines), 'input')} checked, and none sent")
            return
        sent = []
        for line, item in batch.run(done, waits=chosen["wait"]):
            sent.append((line, item))
            if not chosen["wait"]:
                _write_line(options, line, item)
    for line, item in sent if chosen["wait"] else ():
        _wait_for(item, sender, chosen["timeout"], began if line.number in done.added else None)
        _write_line(options, line, item)
    click.get_current_context().exit(max(item.exit_code for _, item in sent))


def _write_line(options: Options, line: "Line", sent: "Sent") -> None:
    if options.settings.json:
        write_json_line({"line": line.number, **sent.as_dict()})
        return
    reason = "" if sent.reason is None else f": {sent.reason}"
    click.echo(visible(f"line {line.number}: {sent.txid} {sent.status}{reason}"))
