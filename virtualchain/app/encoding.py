"""Writing inputs: an app's payload from an opcode and fields, and the output script that carries it.

What is written is read back as the engine would, in a transaction that is made up for that.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.field_types import require_types
from virtualchain.app.fields import opcode_text, to_json
from virtualchain.app.freshness import is_hash, malformed
from virtualchain.app.handlers import Rejected
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import last_op_return, payloads, split_payload
from virtualchain.bitcoin.script import classify, push
from virtualchain.bitcoin.transaction import (
    Transaction,
    pack_outputs,
    read_transaction,
    write_count,
)
from virtualchain.consensus import text_of
from virtualchain.consensus.hashing import hash160
from virtualchain.errors import InvalidOp, Unserializable, UsageError, quoted
from virtualchain.model import FindPayload, Json, Sender, SpentOutput

NEWEST: Final = 2**31 - 1
"""The height at which an app's newest rules apply: the largest that there can be."""

_HEX: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{2})")
_MAINNET: Final = network("mainnet")
_PUBLIC_KEY: Final = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
"""That of the private key 1."""
_SIGNATURE: Final = b"\x30" + bytes(69) + b"\x01"
_FEE: Final = 1000
AROUND_ADVICE: Final = "; if parse looks at outputs or sender, pass them (outputs=, sender=)"
"""The end of an error that the transaction around a payload may cause."""


def build_input(
    app: object,
    opcode: bytes | str | None = None,
    /,
    *,
    block_id: int | None = None,
    consensus_hash: str | None = None,
    outputs: int | Sequence[tuple[int, bytes]] = 2,
    sender: bytes | None = None,
    **fields: object,
) -> bytes:
    """Write a payload of any implementation, as `App.build_input` does."""
    contract = read_contract(app)
    return write_input(
        contract,
        find_opcode(contract, opcode),
        fields,
        block_id=NEWEST if block_id is None else block_id,
        consensus_hash=consensus_hash,
        around=Around.of(outputs, sender),
    )


def build_output(app: object, payload: bytes) -> bytes:
    """Write the output script of a payload of any implementation, as `App.build_output` does."""
    return write_output(read_contract(app), payload)


# The transaction in which a payload is read back.


def _script_of(key_hash: bytes) -> bytes:
    return b"\x76\xa9\x14" + key_hash + b"\x88\xac"


@dataclass(frozen=True)
class Around:
    """A transaction but for its payload: outputs, as satoshi and script, and the script of its sender."""

    outputs: Sequence[tuple[int, bytes]]
    sender: bytes | None = None
    """None: that of a public key hash, whose key the input shows."""

    @classmethod
    def of(cls, outputs: int | Sequence[tuple[int, bytes]], sender: bytes | None) -> "Around":
        """Make it from such outputs, or from their number: then each pays somebody else."""
        if isinstance(outputs, int):
            outputs = [(1000, _script_of(number.to_bytes(20, "big"))) for number in range(1, outputs + 1)]
        return cls(outputs, sender)

    def transaction(self, *scripts: bytes) -> tuple[bytes, Transaction]:
        """Return the transaction with outputs of these scripts before the others, serialized and decoded."""
        paid = [SpentOutput(0, script) for script in scripts]
        paid += [SpentOutput(value, script) for value, script in self.outputs]
        unlocking = push(_SIGNATURE) + push(_PUBLIC_KEY) if self.sender is None else b""
        raw = (
            b"\x02\0\0\0\x01"
            + b"\x11" * 32
            + bytes(4)
            + write_count(len(unlocking))
            + unlocking
            + b"\xfd\xff\xff\xff"
            + write_count(len(paid))
            + pack_outputs(paid)
            + bytes(4)
        )
        return raw, read_transaction(raw, _MAINNET)

    @cached_property
    def spent(self) -> Sender:
        """The output that its input spends, an old one, with a signature of the whole transaction."""
        script = _script_of(hash160(_PUBLIC_KEY)) if self.sender is None else self.sender
        kind, addresses = classify(script, _MAINNET)
        keys = (_PUBLIC_KEY.hex(),) if self.sender is None else ()
        value = _FEE + sum(value for value, _ in self.outputs)
        return Sender("11" * 32, 0, value, script.hex(), kind, addresses, keys, ("ALL",), made_at=2)


# Opcodes.


def find_opcode(contract: Contract, opcode: bytes | str | None) -> bytes:
    """Return the opcode that is meant by a byte, its character, its hex, or the name of its handler.

    An app without opcodes has one handler, which needs no name. Raises UsageError, with the app's opcodes,
    if none is meant, or more than one.
    """
    if not contract.has_opcodes and not opcode:
        return b""
    if isinstance(opcode, bytes):
        readings = {opcode}
    else:
        text = str(opcode or "")
        hexadecimal = _HEX.fullmatch(text)
        readings = {
            *contract.opcode_names.get(text.lower(), ()),
            *contract.opcode_names.get(text.lower().replace("_", ""), ()),
            *([text.encode()] if len(text) == 1 and text.isascii() else []),
            *([bytes.fromhex(hexadecimal[1])] if hexadecimal else []),
        }
    matches = sorted(readings & contract.opcodes)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"app {contract.name}: {opcode!r} may mean {_listed(contract, matches)}")
    known = _listed(contract, sorted(contract.opcodes))
    if not opcode:
        raise UsageError(f"app {contract.name}: no opcode is named; it has {known}")
    raise UsageError(f"app {contract.name} has no opcode {opcode!r}; it has {known}")


def _listed(contract: Contract, opcodes: Sequence[bytes]) -> str:
    return ", ".join(_called(contract, opcode) for opcode in opcodes)


def _called(contract: Contract, opcode: bytes) -> str:
    """Return an opcode as people read it, with the names of its handlers."""
    names = sorted(name for name, codes in contract.opcode_names.items() if opcode in codes)
    return " ".join([opcode_text(opcode) if opcode else "payloads", *(f"({name})" for name in names)])


# Payloads.


def write_input(
    contract: Contract,
    opcode: bytes,
    fields: Mapping[str, object],
    *,
    block_id: int = NEWEST,
    consensus_hash: str | None = None,
    around: Around | None = None,
    reads_back: bool = True,
) -> bytes:
    """Write a payload by the rules of a block, and read it back in a transaction.

    Without `reads_back`, it may be one that the app rejects. Raises UsageError as `App.build_input` does.
    """
    writing = _Writing(contract, opcode, block_id, Around.of(2, None) if around is None else around)
    return writing.payload(fields, consensus_hash, reads_back=reads_back)


class _Writing:
    """One payload on its way; every error names the app and the opcode."""

    def __init__(self, contract: Contract, opcode: bytes, block_id: int, around: Around) -> None:
        self._contract = contract
        self._opcode = opcode
        self._block_id = block_id
        self._around = around
        self._rules = contract.field_rules(block_id, opcode)
        self._fresh = contract.fresh_field(block_id, opcode)

    def payload(self, fields: Mapping[str, object], consensus_hash: str | None, *, reads_back: bool) -> bytes:
        encode = self._encoder()
        arguments = self._arguments(encode, fields, consensus_hash)
        body = self._encode(encode, arguments)
        payload = self._with_start(body)
        if reads_back:
            self._read_back(payload, body, arguments)
        return payload

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(f"app {self._contract.name}, {_called(self._contract, self._opcode)}: {problem}")

    def _encoder(self) -> Callable[..., object]:
        try:
            encode = self._contract.encoder(self._block_id, self._opcode)
        except UsageError as error:
            raise self._wrong(str(error)) from error
        if encode is None:
            raise self._wrong(
                "nothing writes its payloads: give its handler encode(**fields), which returns the bytes "
                "that parse reads (in a module or class with callbacks: db_encode(opcode, **fields))"
            )
        return encode

    def _arguments(
        self, encode: Callable[..., object], fields: Mapping[str, object], consensus_hash: str | None
    ) -> dict[str, object]:
        """Return what the encoder is called with: the fields, and what it names of the rest."""
        parameters = inspect.signature(encode).parameters
        takes_any = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
        names = {name: item for name, item in parameters.items() if item.kind is not item.VAR_KEYWORD}
        hashes = {"consensus_hash", self._fresh or "consensus_hash"}
        offered: dict[str, object] = {} if consensus_hash is None else dict.fromkeys(hashes, consensus_hash)
        offered["block_id"] = self._block_id
        arguments = {**{name: offered[name] for name in offered if name in names}, **fields}
        if takes_any and consensus_hash is not None:
            arguments.setdefault(self._fresh or "consensus_hash", consensus_hash)
        unknown = [] if takes_any else [name for name in fields if name not in names]
        optional = {name for name, item in names.items() if item.default is not item.empty}
        missing = [name for name in names if name not in optional and name not in arguments]
        if len(missing) == 1 and missing[0] in hashes and not unknown:
            raise self._wrong(
                "it needs the consensus hash of a recent block: consensus_hash=…, as `virtualchain "
                "consensus` prints it"
            )
        if unknown or missing:
            taken = ", ".join(f"[{name}]" if name in optional else name for name in names) or "no fields"
            problems = [f"unknown: {', '.join(unknown)}"] if unknown else []
            problems += [f"missing: {', '.join(missing)}"] if missing else []
            raise self._wrong(f"it takes {taken}; {'; '.join(problems)}")
        if consensus_hash is not None and not is_hash(consensus_hash):
            raise self._wrong(
                f"{quoted(str(consensus_hash))} is not a consensus hash: 32 lower-case hex digits"
            )
        for name, kind in self._rules.types.items():
            problem = kind.problem(arguments[name]) if name in arguments else None
            if problem is not None:
                raise self._wrong(f"field {name!r}: {problem}; it must be {kind}")
        return arguments

    def _encode(self, encode: Callable[..., object], arguments: Mapping[str, object]) -> bytes:
        try:
            body = encode(**arguments)
        except Exception as error:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise self._wrong(f"its encoder refuses the fields: {kind}{error}") from error
        if not isinstance(body, bytes):
            raise self._wrong(f"its encoder returned a {type(body).__name__}: expected bytes")
        limit = self._contract.max_payload
        if limit is not None and len(body) > limit:
            raise self._wrong(f"a payload of {len(body)} bytes; the app takes {limit}")
        return body

    def _with_start(self, body: bytes) -> bytes:
        """Put a magic and the opcode before the rest: the first magic with which it is read so again."""
        contract = self._contract
        for magic in contract.magics:
            payload = magic + self._opcode + body
            if split_payload(payload, contract.magics, contract.opcodes) == (self._opcode, body):
                return payload
        raise self._wrong(f"with no magic is {body.hex()} read as a payload of this opcode")

    def _read_back(self, payload: bytes, body: bytes, arguments: Mapping[str, object]) -> None:
        is_written = _writer(self._contract) is not None
        scripts = [write_output(self._contract, payload, self._around)] if is_written else []
        try:
            op = self._parse(payload, body, self._around.transaction(*scripts)[1])
        except _AsksState:
            return  # only a deployment can go on from here
        problem = None if self._fresh is None else malformed(self._fresh, op)
        if problem is not None:
            raise self._wrong(f"its encoder wrote {payload.hex()}, which the engine rejects: {problem}")
        for name, value in arguments.items():
            if name in op and not _agree(value, op[name]):
                raise self._wrong(
                    f"field {name!r} is {quoted(_plain(value))}, but its encoder wrote {payload.hex()}, in "
                    f"which parse reads {quoted(_plain(op[name]))}{AROUND_ADVICE}"
                )

    def _parse(self, payload: bytes, body: bytes, tx: Transaction) -> Json:
        """Parse the payload; raises UsageError if that rejects it."""
        sender = self._around.spent
        needs_height = "height" in self._contract.needs
        try:
            op = self._contract.parse(
                self._block_id,
                self._opcode,
                body,
                [sender.as_dict_with_height() if needs_height else sender.as_dict()],
                [spending.as_dict() for spending in tx.inputs],
                [output.as_dict() for output in tx.outputs],
                _FEE,
                db_state=_NoState(),
            )
            if isinstance(op, dict):
                to_json(op)
                require_types(op, self._rules.types)
                for name in self._rules.hashed_fields(op):
                    if name in op:
                        text_of(op[name], name)
                return op
            reason = op.reason if isinstance(op, Rejected) else "not parsed"
        except _AsksState:
            raise
        except Exception as error:  # noqa: BLE001 - an app's code may raise anything
            kind = "" if isinstance(error, ValueError | Unserializable) else f"{type(error).__name__}: "
            reason = f"{kind}{error}"
        raise self._wrong(f"its encoder wrote {payload.hex()}, which parse rejects: {reason}{AROUND_ADVICE}")


class _AsksState(Exception):
    """Raised if a parse looks at the app's state, which is not at hand."""


class _NoState:
    """What a parse gets in place of the state."""

    def _asked(self, *_: object) -> Any:  # noqa: ANN401 - whatever is asked for
        raise _AsksState

    __getattr__ = __getitem__ = __contains__ = __iter__ = __len__ = __call__ = _asked


def _agree(passed: object, read: object) -> bool:
    """Check whether a field that was read is the one that was passed, or the length of a list that was."""
    passed, read = _plain(passed), _plain(read)
    return passed == read or (isinstance(passed, list) and type(read) is int and read == len(passed))


def _plain(value: object) -> object:
    """Return a value as it is stored; one that cannot be stored as it is."""
    try:
        return to_json({"value": value})["value"]
    except (InvalidOp, Unserializable):
        return value


# Outputs.


def write_output(contract: Contract, payload: bytes, around: Around | None = None) -> bytes:
    """Write the script of an output that carries a payload, and find it in a transaction.

    Raises UsageError if the payload rule does not write, or does not find the payload.
    """
    write = _writer(contract)
    if write is None:
        raise UsageError(
            f"app {contract.name}: the payload rule {contract.rule} does not say how an output carries a "
            "payload: a shipped rule for inputs does not, and one of the app's own needs an attribute write"
        )
    try:
        script = write(payload)
        raw, tx = (around or Around.of(2, None)).transaction(script)
        matches = payloads(_rule(contract), raw, tx.outputs)
    except Exception as error:
        raise UsageError(
            f"app {contract.name}: its payload rule fails for {payload.hex()} with {type(error).__name__}: "
            f"{error}"
        ) from error
    if payload not in matches:
        shown = ", ".join(item.hex() for item in matches) or "nothing"
        raise UsageError(
            f"app {contract.name}: its payload rule writes {payload.hex()} as {script.hex()}, and finds "
            f"{shown} there"
        )
    return script


def _rule(contract: Contract) -> FindPayload:
    return last_op_return if contract.find_payload is None else contract.find_payload


def _writer(contract: Contract) -> Callable[[bytes], bytes] | None:
    write: Callable[[bytes], bytes] | None = getattr(_rule(contract), "write", None)
    return write
