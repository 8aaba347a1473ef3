"""Scripts as bitcoind prints them: `asm`, the descriptor `desc`, type and address."""

from typing import Final

from embit.base import EmbitError
from embit.descriptor.checksum import add_checksum
from embit.ec import PublicKey

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify, operations, pushes
from virtualchain.model import Json

_WORDS = """
-1 OP_RESERVED 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
OP_NOP OP_VER OP_IF OP_NOTIF OP_VERIF OP_VERNOTIF OP_ELSE OP_ENDIF OP_VERIFY OP_RETURN
OP_TOALTSTACK OP_FROMALTSTACK OP_2DROP OP_2DUP OP_3DUP OP_2OVER OP_2ROT OP_2SWAP OP_IFDUP OP_DEPTH
OP_DROP OP_DUP OP_NIP OP_OVER OP_PICK OP_ROLL OP_ROT OP_SWAP OP_TUCK
OP_CAT OP_SUBSTR OP_LEFT OP_RIGHT OP_SIZE
OP_INVERT OP_AND OP_OR OP_XOR OP_EQUAL OP_EQUALVERIFY OP_RESERVED1 OP_RESERVED2
OP_1ADD OP_1SUB OP_2MUL OP_2DIV OP_NEGATE OP_ABS OP_NOT OP_0NOTEQUAL
OP_ADD OP_SUB OP_MUL OP_DIV OP_MOD OP_LSHIFT OP_RSHIFT OP_BOOLAND OP_BOOLOR
OP_NUMEQUAL OP_NUMEQUALVERIFY OP_NUMNOTEQUAL OP_LESSTHAN OP_GREATERTHAN OP_LESSTHANOREQUAL
OP_GREATERTHANOREQUAL OP_MIN OP_MAX OP_WITHIN
OP_RIPEMD160 OP_SHA1 OP_SHA256 OP_HASH160 OP_HASH256 OP_CODESEPARATOR
OP_CHECKSIG OP_CHECKSIGVERIFY OP_CHECKMULTISIG OP_CHECKMULTISIGVERIFY
OP_NOP1 OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_NOP4 OP_NOP5 OP_NOP6 OP_NOP7 OP_NOP8 OP_NOP9 OP_NOP10
OP_CHECKSIGADD
"""
_NAMES: Final = dict(enumerate(_WORDS.split(), start=0x4F))
_HASH_TYPES: Final = {1: "ALL", 2: "NONE", 3: "SINGLE"}


def script_json(script: bytes, network: Network) -> Json:
    """Print an output script."""
    kind, addresses = classify(script, network)
    answer: Json = {
        "asm": asm(script),
        "desc": add_checksum(_descriptor(script, kind, addresses)),
        "hex": script.hex(),
    }
    if addresses:
        answer["address"] = addresses[0]
    return answer | {"type": kind}


def asm(script: bytes, *, signatures: bool = False) -> str:
    """Print a script's operations; with `signatures` the hash type behind a signature becomes its name."""
    words = []
    for opcode, data in operations(script):
        if data is None:
            words.append("[error]")
        elif opcode > 0x4E:
            words.append(_NAMES.get(opcode, "OP_INVALIDOPCODE" if opcode == 0xFF else "OP_UNKNOWN"))
        elif len(data) <= 4:
            words.append(str(_number(data)))
        elif signatures and not script.startswith(b"\x6a") and _is_signature(data):
            words.append(f"{data[:-1].hex()}[{_hash_type(data[-1])}]")
        else:
            words.append(data.hex())
    return " ".join(words)


def _number(data: bytes) -> int:
    """Read a script number: little-endian, the sign in the last byte's highest bit."""
    if not data:
        return 0
    magnitude = int.from_bytes(data, "little") & ~(0x80 << 8 * (len(data) - 1))
    return -magnitude if data[-1] & 0x80 else magnitude


def _hash_type(value: int) -> str:
    return _HASH_TYPES[value & 0x7F] + ("|ANYONECANPAY" if value & 0x80 else "")


def _is_signature(data: bytes) -> bool:
    """Say whether this is an ECDSA signature in strict DER (BIP 66) and a known hash type."""
    if not 9 <= len(data) <= 73 or data[-1] & 0x7F not in _HASH_TYPES:
        return False
    if data[0] != 0x30 or data[1] != len(data) - 3 or data[2] != 2 or data[3] + 7 > len(data):
        return False
    second = 4 + data[3]
    if data[second] != 2 or data[3] + data[second + 1] + 7 != len(data):
        return False
    return all(_is_der_number(number) for number in (data[4:second], data[second + 2 : -1]))


def _is_der_number(number: bytes) -> bool:
    if not number or number[0] & 0x80:
        return False
    return not (len(number) > 1 and number[0] == 0 and not number[1] & 0x80)


def _descriptor(script: bytes, kind: str, addresses: tuple[str, ...]) -> str:
    """Describe a script without knowing any key (BIP 380 to 386)."""
    keys = pushes(script)
    if kind == "pubkey" and _is_not_hybrid(keys[0]):
        return f"pk({keys[0].hex()})"
    if kind == "multisig" and all(_is_not_hybrid(each) for each in keys[1:-1]):
        required = int.from_bytes(keys[0], "little")
        return f"multi({required},{','.join(each.hex() for each in keys[1:-1])})"
    if kind == "witness_v1_taproot" and _is_point(b"\x02" + script[2:]):
        return f"rawtr({script[2:].hex()})"
    return f"addr({addresses[0]})" if addresses else f"raw({script.hex()})"


def _is_not_hybrid(key: bytes) -> bool:
    return key[0] in {2, 3, 4}


def _is_point(key: bytes) -> bool:
    try:
        PublicKey.parse(key)
    except EmbitError:
        return False
    return True
