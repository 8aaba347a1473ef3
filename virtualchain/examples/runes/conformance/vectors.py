"""Vectors: inputs of single rules, and what they result in.

A file of the format `decipher/1` has `vectors`: transactions (`tx`) with what they say (`artifact`). One of
the formats `names/1` and `varint/1` has, for each rule, rows of arguments; a row's last item is the result,
or `{"error": …}` if there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.examples.runes import varint
from virtualchain.examples.runes.amount import amount_text
from virtualchain.examples.runes.commitment import commitment
from virtualchain.examples.runes.conformance.records import artifact_record, plain
from virtualchain.examples.runes.decipher import decipher_outputs
from virtualchain.examples.runes.names import (
    InvalidName,
    name_of,
    number_of,
    parse_spaced,
    reserved,
    with_spacers,
)
from virtualchain.examples.runes.params import U128_MAX, first_block_of
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.unlock import minimum_at, unlock_height
from virtualchain.testing.conformance.checking import NOTHING, Difference
from virtualchain.testing.conformance.files import JsonObject, MalformedScenario, excerpt

ERROR: Final = "error"
_NETWORKS: Final = {"testnet": "testnet3"}
"""Names of networks that are not the engine's."""


class _OutOfRange(ValueError):
    """A number that no integer of 128 bits holds."""


def compare_transaction(vector: object) -> Difference | None:
    """Decipher a transaction, and compare what it says; raises MalformedScenario."""
    fields = JsonObject(vector, "the vector")
    try:
        _, outputs = read_outputs(bytes.fromhex(fields.get("tx", str)))
    except (ValueError, MalformedBlock) as error:
        raise MalformedScenario(f"the transaction cannot be read: {error}") from error
    recorded = plain(fields.content.get("artifact"))
    actual = plain(artifact_record(decipher_outputs(output.script_pubkey for output in outputs)))
    if not isinstance(recorded, dict) or not isinstance(actual, dict):
        return None if recorded == actual else _difference("artifact", recorded, actual)
    for field in sorted(recorded.keys() | actual.keys()):
        if recorded.get(field) != actual.get(field):
            return _difference(field, recorded.get(field), actual.get(field))
    return None


def compare_row(rule: str, row: object) -> Difference | None:
    """Apply a rule to a row's arguments, and compare the result; raises MalformedScenario."""
    if rule not in RULES:
        raise MalformedScenario(f"there is no rule {rule}; there are {', '.join(RULES)}")
    if not isinstance(row, list) or not row:
        raise MalformedScenario(f"{excerpt(row)} is not a list of arguments and a result")
    *arguments, recorded = row
    try:
        actual: object = RULES[rule](*arguments)
    except (InvalidName, varint.InvalidVarint, _OutOfRange) as error:
        actual = {ERROR: str(error)}
    except (TypeError, ValueError, UsageError) as error:
        raise MalformedScenario(f"{excerpt(arguments)} are not arguments of {rule}: {error}") from error
    if isinstance(recorded, dict) and ERROR in recorded and isinstance(actual, dict):
        return None  # which error it is differs between implementations
    return None if plain(recorded) == plain(actual) else _difference(excerpt(arguments), recorded, actual)


def network_name(name: str) -> str:
    """Return the engine's name of a network; raises UsageError if there is none."""
    return network(_NETWORKS.get(name, name)).name


def _difference(field: str, recorded: object, actual: object) -> Difference:
    return Difference(None, None, field, _shown(recorded), _shown(actual))


def _shown(value: object) -> str:
    return NOTHING if value is None else str(value)


# The rules by their names in the files. Numbers may be text or ints.


def _number(value: str | int) -> int:
    number = int(value)
    if not 0 <= number <= U128_MAX:
        raise _OutOfRange(f"{number} does not have 128 bits")
    return number


def _minimum_at_height(name: str, height: int) -> int:
    return minimum_at(int(height), first_block_of(network_name(name)))


def _unlock_height(name: str, number: str) -> int | None:
    return unlock_height(_number(number), first_block_of(network_name(name)))


def _amount_text(amount: str, divisibility: int, symbol: int | None) -> str:
    return amount_text(_number(amount), int(divisibility), symbol)


RULES: Final[Mapping[str, Callable[..., str | int | Sequence[int] | None]]] = {
    "number_to_name": lambda number: name_of(_number(number)),
    "name_to_number": number_of,
    "spaced_parse": parse_spaced,
    "spaced_name": lambda number, spacers: with_spacers(_number(number), int(spacers)),
    "minimum_at_height": _minimum_at_height,
    "unlock_height": _unlock_height,
    "commitment": lambda number: commitment(_number(number)).hex(),
    "reserved": lambda block, tx: reserved(RuneId(int(block), int(tx))),
    "amount_text": _amount_text,
    "decode": lambda data: varint.decode(bytes.fromhex(data)),
    "encode": lambda value: varint.encode(_number(value)).hex(),
}
