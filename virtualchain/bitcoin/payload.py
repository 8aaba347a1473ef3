"""Payload rules: which bytes of a transaction are an app's payloads.

An app may bring its own rule. The default and `first_op_return` only find a payload that is pushed directly
after an OP_RETURN, so a search of a block's outputs for OP_RETURN, push and magic misses none, and the scan
decodes only the few transactions that match. Other rules say with `patterns` which bytes to search for.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from virtualchain.bitcoin.compiled import output_scripts
from virtualchain.bitcoin.script import (
    OP_PUSHDATA4,
    leaf_script,
    op_return,
    op_return_payload,
    operations,
)
from virtualchain.bitcoin.transaction import read_inputs, read_number, write_count
from virtualchain.errors import MalformedBlock, UsageError, quoted
from virtualchain.model import (
    DEFAULT_RULE,
    FindPayload,
    Output,
    PayloadRule,
    Payloads,
    TxIn,
    Watch,
    arguments_of,
)

_OP_RETURN: Final = b"\x6a"
_RUNESTONE: Final = b"\x6a\x5d"
"""OP_RETURN OP_13."""
_OP_IF: Final = 0x63
_OP_ENDIF: Final = 0x68
_SMALL_NUMBERS: Final = {0x4F: b"\x81", **{0x50 + number: bytes([number]) for number in range(1, 17)}}
"""What OP_1NEGATE and OP_1 to OP_16 push."""


def _with(find: Callable[..., Payloads], **attributes: object) -> Callable[..., Payloads]:
    """Set on a function what `PayloadRule` asks for: as fields, that would change identities of apps."""
    for name, value in attributes.items():
        setattr(find, name, value)
    return find


def _last(scripts: Sequence[bytes]) -> bytes | None:
    for script in reversed(scripts):
        if script.startswith(_OP_RETURN):
            return op_return_payload(script)
    return None


last_op_return: Final = PayloadRule(DEFAULT_RULE, _with(_last, write=op_return))
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
    name = f"first_op_return:{','.join(sorted({magic.hex() for magic in magics}))}"
    return PayloadRule(name, _with(find, write=op_return))


def _first_runestone(scripts: Sequence[bytes]) -> bytes | None:
    return next((script[2:] for script in scripts if script.startswith(_RUNESTONE)), None)


def _runestone_output(payload: bytes) -> bytes:
    return _RUNESTONE + payload


runestone: Final = PayloadRule(
    "runestone",
    _with(_first_runestone, patterns=(_RUNESTONE,), coinbase=True, write=_runestone_output),
)
"""What follows OP_RETURN OP_13 in the first output that begins so, in one piece: pushes or anything else.

A coinbase can carry one, too. For an app with an empty magic and `opcodes=None`.
"""


def envelopes(tag: bytes) -> PayloadRule:
    """Make the rule that takes the envelopes with this tag in taproot script-path spends.

    An envelope is OP_FALSE OP_IF, a push of `tag`, other pushes, and OP_ENDIF, in an input's leaf script.
    Each is a payload of its own, in the order of inputs and scripts. `read_envelope` splits it; its bytes are
    the number of its input, and each push after its length, both as Bitcoin's compact sizes. OP_1NEGATE and
    OP_1 to OP_16 push one byte. A script that ends inside a push has no envelope, and one with another opcode
    inside is none. For an app with an empty magic and `opcodes=None`.

    Raises UsageError unless `tag` is 1 to 75 bytes.
    """
    if not isinstance(tag, bytes) or not 1 <= len(tag) <= 75:
        raise UsageError(f"envelopes needs a tag of 1 to 75 bytes, not {quoted(tag)}")

    def find(inputs: Sequence[TxIn]) -> list[bytes]:
        return [
            write_count(number) + b"".join(write_count(len(push)) + push for push in pushes)
            for number, spending in enumerate(inputs)
            for pushes in _envelopes_in(leaf_script(spending.witness), tag)
        ]

    return PayloadRule(f"envelopes:{tag.hex()}", _with(find, reads_inputs=True, patterns=(_start(tag),)))


def shipped_rule(name: str) -> PayloadRule:
    """Return a shipped rule by its name, as coverage has it; an empty one is the default's.

    Raises UsageError for any other name.
    """
    kind, _, argument = name.partition(":")
    try:
        if kind == "first_op_return":
            return first_op_return(*map(bytes.fromhex, argument.split(",")))
        if kind == "envelopes":
            return envelopes(bytes.fromhex(argument))
    except ValueError:
        pass
    else:
        rule = {"": last_op_return, last_op_return.name: last_op_return, runestone.name: runestone}.get(name)
        if rule is not None:
            return rule
    raise UsageError(
        f"there is no rule {quoted(name)}: write {DEFAULT_RULE}, first_op_return:MAGIC, {runestone.name} or "
        "envelopes:TAG (hex), or name the app that has a rule of its own"
    )


def read_envelope(payload: bytes) -> tuple[int, list[bytes]]:
    """Split a payload that `envelopes` found into the number of its input and its pushes after the tag.

    Raises ValueError for anything else.
    """
    try:
        number, at = read_number(payload, 0)
        pushes = []
        while at < len(payload):
            length, at = read_number(payload, at)
            pushes.append(payload[at : at + length])
            at += length
    except (IndexError, MalformedBlock) as error:
        raise ValueError("this is not a payload of an envelope") from error
    if at != len(payload):
        raise ValueError("this is not a payload of an envelope")
    return number, pushes


def _envelopes_in(script: bytes | None, tag: bytes) -> list[list[bytes]]:
    """List the pushes of each envelope in a script; none if the script ends inside a push."""
    envelopes: list[list[bytes]] = []
    if script is None or _start(tag) not in script:
        return envelopes
    start = [(0, b""), (_OP_IF, b""), (len(tag), tag)]
    matched = 0
    pushes: list[bytes] | None = None
    for opcode, data in operations(script):  # not kept: a script may have four million
        if data is None:
            return []
        if pushes is None:
            matched = matched + 1 if (opcode, data) == start[matched] else int(opcode == 0)
            if matched == len(start):
                pushes, matched = [], 0
            continue
        pushed = data if opcode <= OP_PUSHDATA4 else _SMALL_NUMBERS.get(opcode)
        if pushed is not None:
            pushes.append(pushed)
            continue
        if opcode == _OP_ENDIF:
            envelopes.append(pushes)
        pushes = None
    return envelopes


def _start(tag: bytes) -> bytes:
    """Write what an envelope begins with."""
    return bytes([0, _OP_IF, len(tag)]) + tag


def payloads(find: FindPayload, raw: bytes, outputs: Sequence[Output]) -> list[bytes]:
    """Find the payloads in a serialized transaction with these outputs, in order.

    Raises TypeError if the rule returns anything else than bytes, None or a list of bytes, and what the rule
    raises.
    """
    if isinstance(find, PayloadRule):
        result: object = find.find(read_inputs(raw) if find.reads_inputs else output_scripts(raw))
    else:
        result = _call(find, raw, outputs)
    if result is None:
        return []
    if isinstance(result, bytes):
        return [result]
    if isinstance(result, list | tuple) and all(isinstance(item, bytes) for item in result):
        return list(result)
    raise TypeError(f"it returned a {type(result).__name__}: expected bytes or None, or a list of bytes")


def takes_coinbase(find: FindPayload) -> bool:
    """Return whether a rule finds payloads in coinbases, too."""
    return bool(getattr(find, "coinbase", False))


def split_payload(
    payload: bytes, magics: Sequence[bytes], opcodes: Collection[bytes]
) -> tuple[bytes, bytes] | None:
    """Split what follows an app's magic into opcode and rest; None unless it has one of `opcodes`.

    The opcode is empty if that is the only one. One magic may be the beginning of another: the first one that
    an opcode follows counts.
    """
    for magic in magics:
        end = len(magic) + (b"" not in opcodes)
        opcode = payload[len(magic) : end]
        if payload.startswith(magic) and opcode in opcodes:
            return opcode, payload[end:]
    return None


def _call(find: FindPayload, raw: bytes, outputs: Sequence[Output]) -> object:
    """Call a rule of an app's own with what its parameters ask for."""
    names = arguments_of(find)
    values: dict[str, Any] = {}
    if names is None or "outputs" in names:
        values["outputs"] = [output.as_dict() for output in outputs]
    if names is None:
        return find(values["outputs"])
    if "inputs" in names:
        values["inputs"] = [spending.as_dict() for spending in read_inputs(raw)]
    if "version" in names:
        values["version"] = int.from_bytes(raw[:4], "little", signed=True)
    return find(**values)


def watch(
    magic: bytes,
    find_payload: FindPayload | None,
    rule: str,
    *,
    has_opcode: bool = True,
    needs_heights: bool = False,
) -> Watch:
    """Describe what the scan looks for on behalf of an app; the default rule is `last_op_return`.

    `rule` names an app's own rule; a shipped one has its name. What else the search asks for is in its name,
    too, by which the tape's coverage is kept.
    """
    find = last_op_return if find_payload is None else find_payload
    patterns = tuple(getattr(find, "patterns", ()))
    name = find.name if isinstance(find, PayloadRule) else rule
    marks = ["" if has_opcode else " without opcode", " with heights" if needs_heights else ""]
    return Watch(
        magic,
        name + "".join(marks),
        find,
        # Without a magic the byte search would match nearly everywhere: it is cheaper not to search.
        prefilter=isinstance(find, PayloadRule) and not patterns and bool(magic),
        patterns=patterns,
        takes_coinbase=takes_coinbase(find),
        has_opcode=has_opcode,
        needs_heights=needs_heights,
    )


def starts_with_magic(watch: Watch, payload: bytes) -> bool:
    """Return whether a payload starts with a watch's magic, and an opcode follows if there must be one."""
    return payload.startswith(watch.magic) and len(payload) >= len(watch.magic) + watch.has_opcode
