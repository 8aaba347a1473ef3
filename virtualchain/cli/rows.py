"""The commands `state-root` and `prove-row`: a hash that fixes all rows of an app, and proofs of a row."""

import click

from virtualchain.cli.completing import complete_apps, complete_tables
from virtualchain.cli.options import BLOCK_ID, Command, Options, pass_options
from virtualchain.cli.output import say, visible, write_json
from virtualchain.cli.session import open_reading

_block_option = click.option(
    "--at", "block", type=BLOCK_ID, metavar="BLOCK", help="The block. Default: the app's last one."
)


@click.command("state-root", cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@_block_option
@pass_options
def state_root(options: Options, name: str, block: int | None) -> None:
    """Print the hash by which rows of APP are proved.

    The state root at a block is computed from all rows as of that block, which must have the recorded state
    hash. It is the same on every node.
    """
    from virtualchain.consensus.row_proofs import state_root as root_of
    from virtualchain.proof.rows import read_state

    with open_reading(options) as connection:
        state = read_state(connection, name, block)
    root = root_of(state)
    if options.settings.json:
        write_json({"state_root": root, "state": state})
    else:
        click.echo(root)


@click.command("prove-row", cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@click.argument("table", shell_complete=complete_tables)
@click.argument("key", nargs=-1, required=True)
@_block_option
@pass_options
def prove_row(options: Options, name: str, table: str, key: tuple[str, ...], block: int | None) -> None:
    """Prove a row of APP, or that there is none.

    Whoever trusts the state root at the block can check that TABLE has this row, or no row with the primary
    key KEY. If the key has several columns, their values follow each other. Write -- before a value that
    begins with a dash. The proof is one JSON object on standard output; `virtualchain check-proof` checks it
    without a database and without a node.
    """
    from virtualchain.consensus.proof_file import write_proof
    from virtualchain.consensus.row_proofs import check_row_proof
    from virtualchain.consensus.row_proofs import state_root as root_of
    from virtualchain.proof.rows import prove_row as make_proof

    with open_reading(options) as connection:
        proof = make_proof(connection, name, table, key, block)
    root = root_of(proof["state"])
    claim = check_row_proof(proof, root)
    click.echo(write_proof(proof))
    shown = ", ".join(f"{column}={text}" for column, text in claim.key.items())
    what = "that there is no row" if claim.row is None else "the row"
    say(visible(f"it shows {what} of {table} with {shown}"))
    say(f"to check it, trust the state root of {name} at block {claim.block_id}: {root}")
