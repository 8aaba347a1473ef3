"""The commands `prove` and `check-proof`: what a deployment says, shown to whoever trusts one hash."""

import re
import sys
from math import log2
from typing import TYPE_CHECKING, Any, Final

import click

from virtualchain.cli.completing import complete_apps
from virtualchain.cli.options import BLOCK_ID, Command, Options, pass_options
from virtualchain.cli.output import counted, say, visible, write_fields, write_json
from virtualchain.cli.session import open_reading
from virtualchain.errors import InvalidProof, UsageError, quoted

if TYPE_CHECKING:
    from virtualchain.bitcoin.spv import InChain
    from virtualchain.consensus.row_proofs import RowClaim
    from virtualchain.model import Json
    from virtualchain.proof.checking import CheckedOps, Known

_STANDARD_INPUT: Final = "-"


@click.command(cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@click.argument("block", type=BLOCK_ID)
@click.argument("vtxindex", type=click.IntRange(min=0), required=False)
@click.option(
    "--from",
    "trusted",
    type=BLOCK_ID,
    metavar="BLOCK",
    help="The block whose consensus hash the receiver trusts. Default: the app's last block.",
)
@click.option(
    "--part",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Which op to prove, from 0, if the app made several of one input.",
)
@click.option(
    "--spv", is_flag=True, help="Show also the op's transaction, and the headers up to the tape's tip."
)
@click.option(
    "--spv-to", type=BLOCK_ID, metavar="BLOCK", help="The same, but with headers up to this block only."
)
@pass_options
def prove(
    options: Options,
    name: str,
    block: int,
    vtxindex: int | None,
    trusted: int | None,
    part: int,
    spv: bool,
    spv_to: int | None,
) -> None:
    """Prove an op to whoever trusts a later consensus hash.

    VTXINDEX is that of the op of APP in virtualchain.ops. Without it, the proof shows all ops of BLOCK, and
    so that it has no other. The proof is one JSON object on standard output, which `check-proof` checks
    without a database and without a node. For --spv the block is fetched from the node or the files, unless
    it was taken with --verify merkle.
    """
    from virtualchain.consensus.proof_file import write_proof
    from virtualchain.proof import ops, transactions

    shows_transaction = spv or spv_to is not None
    if shows_transaction and vtxindex is None:
        raise UsageError("--spv shows the transaction of one op: name it by its VTXINDEX")
    with open_reading(options) as connection:
        made = ops.prove(connection, name, block, vtxindex, part=part, trusted_block_id=trusted)
        stretch = transactions.read_stretch(connection, block, spv_to) if shows_transaction else None
        place = made.place if shows_transaction else None
        kept = None if place is None else transactions.read_kept(connection, place)
    proof = made.proof
    if stretch is not None and place is not None:
        network = stretch.network.name
        shown = transactions.show(place, stretch, lambda: options.source(network), kept)
        proof = {**proof, "spv": shown}
    click.echo(write_proof(proof))
    say(f"whoever checks it trusts the hash of {name} at block {made.trusted_block_id}: {made.trusted_hash}")


@click.command("check-proof", cls=Command)
@click.argument("file")
@click.option("--trust", "trusted", metavar="HASH", required=True, help="The hash that you trust.")
@click.option("--of", "name", metavar="APP", help="The app that the hash belongs to.")
@click.option("--at", "block", type=BLOCK_ID, metavar="BLOCK", help="The block that the hash belongs to.")
@click.option(
    "--absent",
    metavar="HEX",
    help="Require proof that the block does not have this op: its serialized bytes.",
)
@click.option(
    "--header", metavar="HASH", help="Require that the headers lead to this block, which you trust."
)
@click.option("--table", metavar="TABLE", help="The table that you asked for, of a row proof.")
@click.option(
    "--key", multiple=True, metavar="TEXT", help="The key that you asked for; repeat it for each column."
)
@pass_options
def check_proof(
    options: Options,
    file: str,
    trusted: str,
    name: str | None,
    block: int | None,
    absent: str | None,
    header: str | None,
    table: str | None,
    key: tuple[str, ...],
) -> None:
    """Check a proof against a hash that you trust.

    FILE may be - for standard input. Neither a database nor a node is needed. The HASH of an op proof is a
    consensus hash. What else you know, --of, --at, --header and --network state, and the proof must agree;
    the output says which of the rest is only the prover's word. The exit code is 1 if the proof does not
    hold.

    The HASH of a row proof is a state root, which fixes app, block and network, too. With --table and --key
    the proof must be of the row that you asked for.
    """
    from virtualchain.consensus.row_proofs import RowClaim
    from virtualchain.proof.checking import Known, check_file

    known = Known(
        app=name,
        block_id=block,
        network=options.settings.network,
        last_hash=None if header is None else _parse_hash("header", header, 64),
        absent=None if absent is None else _parse_op(absent),
        table=table,
        key=key or None,
    )
    checked = check_file(_read(file), _parse_hash("trust", trusted, 32, 64), known)
    if isinstance(checked, RowClaim):
        _write_row(options, checked)
    elif checked.in_chain is None and options.flags.get("network") is not None:
        raise InvalidProof("the proof shows no headers, and so does not show the network")
    elif options.settings.json:
        write_json({**_ops_json(checked), "absent": known.absent})
    else:
        _write_ops(checked, known)


def _parse_hash(option: str, text: str, *digits: int) -> str:
    if not re.fullmatch("[0-9a-fA-F]*", text) or len(text) not in digits:
        raise UsageError(
            f"--{option} {quoted(text)}: write the hash as {' or '.join(map(str, digits))} hex digits"
        )
    return text.lower()


def _parse_op(text: str) -> bytes:
    if not re.fullmatch("(?:[0-9a-fA-F]{2})+", text):
        raise UsageError(
            f"--absent {text}: write the serialized op in hex, as `virtualchain ops --json` does"
        )
    return bytes.fromhex(text)


def _read(file: str) -> bytes:
    """Read a file or standard input, no further than a byte more than a proof may have."""
    from virtualchain.consensus.proof_file import LONGEST

    if file == _STANDARD_INPUT:
        return sys.stdin.buffer.read(LONGEST + 1)
    try:
        with open(file, "rb") as stream:  # noqa: PTH123 - the name is the user's text
            return stream.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{file} cannot be read: {reason}") from error


def _ops_json(checked: "CheckedOps") -> "Json":
    proven = checked.proven
    return {
        "kind": "ops" if proven.index is None else "op",
        "app": proven.app,
        "first_block_id": proven.first_block_id,
        "trusted_block_id": proven.trusted_block_id,
        "block_id": proven.block_id,
        "op": None if proven.index is None else proven.ops[proven.index],
        "ops": list(proven.ops),
        "spv": None if checked.in_chain is None else _spv_json(checked.in_chain),
    }


def _write_row(options: Options, claim: "RowClaim") -> None:
    if options.settings.json:
        write_json({"kind": "row", **claim._asdict()})
        return
    exists = claim.row is not None
    fields: dict[str, Any] = {
        "proven": f"the table {'has this row' if exists else 'has no row with this key'}",
        "app": claim.app,
        "block": f"{claim.block_id}, {claim.block_hash}",
        "table": claim.table,
        **{f"key {visible(name)}": text for name, text in claim.key.items()},
        **{f"row {visible(name)}": text for name, text in (claim.row or {}).items()},
    }
    write_fields("the proof holds", fields)


def _spv_json(shown: "InChain") -> "Json":
    return {
        "network": shown.network,
        "block_hash": shown.block.hash,
        "txindex": shown.txindex,
        "txid": shown.txid,
        "last_block_id": shown.last.block_id,
        "last_block_hash": shown.last.hash,
        "blocks_on_top": shown.blocks_on_top,
        "work_on_top": f"{shown.work:x}",
    }


def _write_ops(checked: "CheckedOps", known: "Known") -> None:
    proven = checked.proven
    fields: dict[str, Any] = {}
    if proven.index is None:
        shown = "these ops and no other" if proven.ops else "no op"
        fields["proven"] = f"a block of the trusted history has {shown}"
        fields |= {f"op {place}": _op_text(op) for place, op in enumerate(proven.ops)}
    else:
        fields["proven"] = "a block of the trusted history has this op"
        fields["op"] = _op_text(proven.ops[proven.index])
    if known.absent is not None:
        fields["absent"] = _op_text(known.absent)
    # What is not hashed: a block's height is certain only if it is that of the trusted hash.
    is_block_known = known.block_id is not None and proven.hops == 1
    fields["block"] = _claim(proven.block_id, is_known=is_block_known)
    fields["trusted at"] = _claim(f"block {proven.trusted_block_id}", is_known=known.block_id is not None)
    fields["app"] = _claim(proven.app, is_known=known.app is not None)
    if checked.in_chain is not None:
        fields |= _spv_fields(checked.in_chain, known)
    write_fields("the proof holds", fields)


def _spv_fields(shown: "InChain", known: "Known") -> dict[str, str]:
    on_top = f"{counted(shown.blocks_on_top, 'block')} on top of it"
    if shown.work:
        on_top += f", which take 2^{log2(shown.work):.1f} hashes"
    last = f"{shown.last.hash}, block {shown.last.block_id}"
    return {
        "transaction": f"{shown.txid}, transaction {shown.txindex} of block {shown.block.hash}",
        "made the op": _claim("the transaction", is_known=False),
        "network": _claim(shown.network, is_known=known.network is not None),
        "work": on_top,
        "leads to": _claim(last, is_known=known.last_hash is not None),
    }


def _claim(value: object, *, is_known: bool) -> str:
    """Write what was compared with what the user knows, or is the prover's word."""
    return f"{value} (as required)" if is_known else f"{value} (the prover's word)"


def _op_text(op: bytes) -> str:
    """Write an op in hex, and if it is text, as that too."""
    try:
        return f"{op.hex()} ({op.decode()})"
    except UnicodeDecodeError:
        return op.hex()
