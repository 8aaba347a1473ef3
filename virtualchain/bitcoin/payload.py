"""Payload rules: which bytes of a transaction's outputs are an app's payload.

An app may bring its own rule. The two that are shipped only find a payload that is pushed directly after an
OP_RETURN, so a search of a block's outputs for OP_RETURN, push and magic misses none, and the scan decodes
only the few transactions that match.
"""

from collections.abc import Sequence
from typing import Final

from virtualchain.bitcoin.script import op_return_payload
from virtualchain.errors import UsageError, quoted
from virtualchain.model import DEFAULT_RULE, FindPayload, PayloadRule, Watch


def _last(scripts: Sequence[bytes]) -> bytes | None:
    for script in reversed(scripts):
        if script.startswith(b"\x6a"):
            return op_return_payload(script)
    return None


last_op_return: Final = PayloadRule(DEFAULT_RULE, _last)
"""The payload of the last OP_RETURN, None if that is malformed (docs/protocol/consensus.md)."""


def first_op_return(*magics: bytes) -> PayloadRule:
    """Make the rule that takes the payload of the first OP_RETURN that starts with one of `magics`.

    Raises UsageError if there is no magic, or one that is not bytes.
    """
    if not magics or not all(isinstance(magic, bytes) for magic in magics):
        raise UsageError(f"first_op_return needs the app's magic bytes, not {quoted(magics)}")

    def find(scripts: Sequence[bytes]) -> bytes | None:
        for script in scripts:
            payload = op_return_payload(script)
            if payload is not None and payload.startswith(magics):
                return payload
        return None

    # The magics are in the name because they change the result: a rule for one magic alone skips an output
    # that a rule for two magics would take.
    return PayloadRule(f"first_op_return:{','.join(sorted({magic.hex() for magic in magics}))}", find)


def watch(magic: bytes, find_payload: FindPayload | None, rule: str) -> Watch:
    """Describe what the scan looks for on behalf of an app; the default rule is `last_op_return`.

    `rule` names an app's own rule, which the scan calls with every transaction; a shipped one has its name.
    """
    find = last_op_return if find_payload is None else find_payload
    if isinstance(find, PayloadRule):
        # Without a magic the byte search would match nearly everywhere: it is cheaper not to search.
        return Watch(magic, find.name, find, prefilter=bool(magic))
    return Watch(magic, rule, find, prefilter=False)
