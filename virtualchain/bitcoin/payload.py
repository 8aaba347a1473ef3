"""Payload rules: where in a transaction's outputs an app's payload lies.

An app may bring its own rule. The two that are shipped only find payloads that stand as a push right
behind an OP_RETURN, so a search over a block's bytes for these and the magic misses none: the scan then
decodes only the few transactions that it hits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from virtualchain.bitcoin.script import op_return_payload
from virtualchain.errors import UsageError
from virtualchain.model import FindPayload, Watch

_Outputs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PayloadRule:
    """A shipped payload rule and the name under which the tape's coverage is kept.

    An object and no function: as a class attribute of an app it is called with the outputs alone.
    """

    name: str
    find: FindPayload

    def __call__(self, outputs: _Outputs) -> bytes | None:
        """Find the payload among a transaction's outputs."""
        return self.find(outputs)


def _last(outputs: _Outputs) -> bytes | None:
    for output in reversed(outputs):
        script = bytes.fromhex(output["script_pubkey"])
        if script.startswith(b"\x6a"):
            return op_return_payload(script)
    return None


last_op_return: Final = PayloadRule("last_op_return", _last)
"""The last OP_RETURN counts; where it is malformed there is none (consensus.md, extraction rules)."""


def first_op_return(*magics: bytes) -> PayloadRule:
    """Make the rule that the first OP_RETURN whose payload starts with one of `magics` counts.

    Raises UsageError where no magic is given or one is not bytes.
    """
    if not magics or not all(isinstance(magic, bytes) for magic in magics):
        raise UsageError(f"first_op_return needs the app's magic bytes, not {magics!r}")

    def find(outputs: _Outputs) -> bytes | None:
        for output in outputs:
            payload = op_return_payload(bytes.fromhex(output["script_pubkey"]))
            if payload is not None and payload.startswith(magics):
                return payload
        return None

    # The name holds the magics: an output that another magic claims is passed over by this one alone.
    return PayloadRule(f"first_op_return:{','.join(sorted({magic.hex() for magic in magics}))}", find)


def watch(magic: bytes, find_payload: FindPayload | None, owner: str) -> Watch:
    """Say what the scan looks for on behalf of the app `owner`; no rule means `last_op_return`.

    A rule of the app's own is named after it, and the scan shows it every transaction.
    """
    rule = last_op_return if find_payload is None else find_payload
    if isinstance(rule, PayloadRule):
        # Without a magic the byte search would hit nearly everywhere: it is cheaper not to search.
        return Watch(magic, rule.name, rule, prefilter=bool(magic))
    return Watch(magic, f"app:{owner}", rule, prefilter=False)
