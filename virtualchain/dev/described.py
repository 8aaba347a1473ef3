"""What an app takes, for whoever writes an input: its opcodes, and the fields of each."""

import inspect

from virtualchain.app.contract import Contract
from virtualchain.app.encoding import NEWEST
from virtualchain.app.fields import opcode_text
from virtualchain.errors import UsageError
from virtualchain.model import Json


def describe(contract: Contract) -> Json:
    """Describe an app as JSON.

    Keys: name, version, schema, magics (hex), first_block_id, confirmations, and opcodes: objects with
    opcode, code (hex), names, fields (with name, type and optional) and writable: whether its payloads can be
    written.
    """
    return {
        "name": contract.name,
        "version": contract.version,
        "schema": contract.schema,
        "magics": [magic.hex() for magic in contract.magics],
        "first_block_id": contract.first_block_id,
        "confirmations": contract.confirmations or 0,
        "opcodes": [_opcode(contract, code) for code in sorted(contract.opcodes)],
    }


def _opcode(contract: Contract, code: bytes) -> Json:
    names = sorted(name for name, codes in contract.opcode_names.items() if code in codes)
    try:
        encode = contract.encoder(NEWEST, code)
    except UsageError:
        encode = None
    types = contract.field_rules(NEWEST, code).types
    fresh = {"consensus_hash", contract.fresh_field(NEWEST, code)}
    fields = []
    for name, item in inspect.signature(encode).parameters.items() if encode is not None else ():
        if item.kind is item.VAR_KEYWORD or name == "block_id":
            continue
        kind = types.get(name)
        hint = "" if item.annotation is item.empty else _hint(item.annotation)
        optional = item.default is not item.empty or name in fresh
        fields.append({"name": name, "type": hint if kind is None else str(kind), "optional": optional})
    return {
        "opcode": opcode_text(code) if code else None,
        "code": code.hex(),
        "names": names,
        "fields": fields,
        "writable": encode is not None,
    }


def _hint(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
