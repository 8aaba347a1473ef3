"""What a transaction's op keeps from parsing until it is executed.

An op is limited in size, and a transaction may have a hundred thousand outputs. So what execution needs of
the outputs and of the message is kept as text.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from virtualchain.examples.runes.commitment import Spend, commits
from virtualchain.examples.runes.etching import etched_name
from virtualchain.examples.runes.runestone import Cenotaph, Runestone
from virtualchain.examples.runes.script import is_op_return
from virtualchain.model import Json

_BURNS: Final = "burns"
_END: Final = ","


def write_outputs(outputs: Iterable[Json]) -> str:
    """Write of each output whether it is an OP_RETURN, or else its address, if it has one."""
    return "".join(
        (_BURNS if is_op_return(bytes.fromhex(output["script_pubkey"])) else (*output["addresses"], "")[0])
        + _END
        for output in outputs
    )


def read_outputs(text: str) -> tuple[list[str | None], list[bool]]:
    """Read what `write_outputs` has written: each output's address, and whether it burns runes."""
    parts = text.split(_END)[:-1]
    return [None if part in {"", _BURNS} else part for part in parts], [part == _BURNS for part in parts]


def is_committed(
    artifact: Runestone | Cenotaph, inputs: Sequence[Json], senders: Sequence[Json], height: int
) -> bool:
    """Check whether a transaction commits to the name that it etches, if it etches one.

    A coinbase has no senders, and commits to nothing.
    """
    name = etched_name(artifact)
    return name is not None and commits(name, _spends(inputs, senders), height)


def _spends(inputs: Sequence[Json], senders: Sequence[Json]) -> Iterable[Spend]:
    for spending, sender in zip(inputs, senders, strict=False):
        yield Spend(
            [bytes.fromhex(item) for item in spending["witness"]],
            bytes.fromhex(sender["script_pubkey"]),
            sender["height"],
        )
