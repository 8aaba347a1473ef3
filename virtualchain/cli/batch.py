"""`send --batch`: the lines of a CSV file, one input each."""

from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.output import counted, say, visible, write_json_line
from virtualchain.cli.send import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from virtualchain.cli.options import Options
    from virtualchain.writing.batch import Line
    from virtualchain.writing.orders import Sent
    from virtualchain.writing.sending import InputSender


def run_batch(options: "Options", sender: "InputSender", lines: "list[Line]", chosen: dict[str, Any]) -> None:
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
                _write(options, line, item)
    for line, item in sent if chosen["wait"] else ():
        wait_for(item, sender, chosen["timeout"], began if line.number in done.added else None)
        _write(options, line, item)
    click.get_current_context().exit(max(item.exit_code for _, item in sent))


def _write(options: "Options", line: "Line", sent: "Sent") -> None:
    if options.settings.json:
        write_json_line({"line": line.number, **sent.as_dict()})
        return
    reason = "" if sent.reason is None else f": {sent.reason}"
    click.echo(visible(f"line {line.number}: {sent.txid} {sent.status}{reason}"))
