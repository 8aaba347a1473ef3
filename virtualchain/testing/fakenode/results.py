"""Blocks, transactions and scripts as JSON, with bitcoind's fields in bitcoind's order.

An amount is the string `sat:N` until `dumps` writes it as bitcoind does: in bitcoin, with eight decimals.
"""

import json
import re
import struct
from functools import lru_cache
from typing import Final

from embit.base import EmbitError
from embit.descriptor.checksum import add_checksum
from embit.ec import PublicKey
from embit.transaction import Transaction, TransactionInput

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify, operations, pushes
from virtualchain.consensus.hashing import sha256d
from virtualchain.model import Json
from virtualchain.testing.blocks import target
from virtualchain.testing.tree import BlockTree, StoredBlock
from virtualchain.testing.undo import Coin, Undo, read_undo
from virtualchain.testing.wire import RawTx, read_block

_AMOUNT: Final = re.compile(r'"sat:(\d+)"')
_COINBASE: Final = bytes(32) + b"\xff" * 4
_MEDIAN_TIME_SPAN = 11

_OPCODES = """
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
_OPCODE_NAMES: Final = dict(enumerate(_OPCODES.split(), start=0x4F))
_HASH_TYPES: Final = {1: "ALL", 2: "NONE", 3: "SINGLE"}


def dumps(value: object) -> bytes:
    """Write JSON as bitcoind does: without spaces, amounts with eight decimals, in UTF-8."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _AMOUNT.sub(_in_bitcoin, text).encode()


def header_json(tree: BlockTree, stored: StoredBlock) -> Json:
    """Describe a block's header, as `getblockheader` does."""
    block = stored.block
    (version,) = struct.unpack_from("<i", block.header)
    (nonce,) = struct.unpack_from("<I", block.header, 76)
    successor = tree.next(stored)
    header: Json = {
        "hash": block.hash,
        "confirmations": _confirmations(tree, stored),
        "height": stored.height,
        "version": version,
        "versionHex": f"{version & 0xFFFFFFFF:08x}",
        "merkleroot": block.merkle_root,
        "time": block.time,
        "mediantime": median_time(stored),
        "nonce": nonce,
        "bits": f"{block.bits:08x}",
        "target": f"{target(block.bits):064x}",
        "difficulty": difficulty(block.bits),
        "chainwork": f"{stored.chainwork:064x}",
        "nTx": stored.transactions,
    }
    if stored.parent is not None:
        header["previousblockhash"] = block.prev_hash
    if successor is not None:
        header["nextblockhash"] = successor.block.hash
    return header


def block_json(tree: BlockTree, stored: StoredBlock, verbosity: int, undo: Undo | None) -> Json:
    """Describe a block, as `getblock` does with verbosity 1 to 3; prevouts and fees need `undo`."""
    transactions = read_block(stored.plain)
    witness = sum(len(tx.raw) - tx.stripped_size for tx in transactions)
    size = len(stored.raw)
    fields = header_json(tree, stored) | {
        "strippedsize": size - witness,
        "size": size,
        "weight": 3 * (size - witness) + size,
    }
    if verbosity == 1:
        return fields | {"tx": [tx.txid[::-1].hex() for tx in transactions]}
    spent = [None for _ in transactions] if undo is None else read_undo(undo)
    return fields | {
        "tx": [
            transaction_json(tx, tree.network, coins, prevouts=verbosity >= 3)
            for tx, coins in zip(transactions, spent, strict=True)
        ]
    }


def transaction_in_block_json(
    tree: BlockTree, stored: StoredBlock, tx: RawTx, coins: list[Coin] | None
) -> Json:
    """Describe a transaction, as `getrawtransaction` does in a block; verbosity 2 needs `coins`."""
    fields: Json = {"in_active_chain": tree.is_active(stored)}
    fields |= transaction_json(tx, tree.network, coins, prevouts=coins is not None)
    fields["blockhash"] = stored.block.hash
    if not tree.is_active(stored):
        return fields | {"confirmations": 0}
    return fields | {
        "confirmations": _confirmations(tree, stored),
        "time": stored.block.time,
        "blocktime": stored.block.time,
    }


def transaction_json(tx: RawTx, network: Network, coins: list[Coin] | None, *, prevouts: bool) -> Json:
    """Describe a transaction; `coins`, which it spends, add its fee, and `prevouts` adds the coins."""
    parsed = Transaction.parse(tx.raw)
    shown = coins if coins and prevouts else [None for _ in parsed.vin]
    fields: Json = {
        "txid": tx.txid[::-1].hex(),
        "hash": sha256d(tx.raw)[::-1].hex(),
        "version": parsed.version,
        "size": len(tx.raw),
        "vsize": -(-tx.weight // 4),
        "weight": tx.weight,
        "locktime": parsed.locktime,
        "vin": [_input_json(each, coin, network) for each, coin in zip(parsed.vin, shown, strict=True)],
        "vout": [
            {"value": f"sat:{value}", "n": n, "scriptPubKey": script_json(script, network)}
            for n, (value, script) in enumerate(tx.outputs)
        ],
    }
    if coins:
        fields["fee"] = f"sat:{sum(coin.value for coin in coins) - sum(value for value, _ in tx.outputs)}"
    return fields | {"hex": tx.raw.hex()}


def coin_json(tree: BlockTree, coin: Coin) -> Json:
    """Describe an unspent output, as `gettxout` does."""
    return {
        "bestblock": tree.tip.block.hash,
        "confirmations": tree.tip.height - coin.height + 1,
        "value": f"sat:{coin.value}",
        "scriptPubKey": script_json(coin.script, tree.network),
        "coinbase": coin.generated,
    }


def spent_json(undo: Undo, network: Network) -> list[list[Json]]:
    """Describe what a block's transactions spend, as `/rest/spenttxouts` does."""
    return [
        [{"value": f"sat:{coin.value}", "scriptPubKey": script_json(coin.script, network)} for coin in coins]
        for coins in read_undo(undo)
    ]


def median_time(stored: StoredBlock) -> int:
    """Return the median of the times of a block and the ten blocks before it."""
    times: list[int] = []
    at: StoredBlock | None = stored
    while at is not None and len(times) < _MEDIAN_TIME_SPAN:
        times.append(at.block.time)
        at = at.parent
    return sorted(times)[len(times) // 2]


def difficulty(bits: int) -> float:
    """Return the difficulty, relative to mainnet's easiest target, with bitcoind's sixteen digits."""
    return float(f"{(0xFFFF << 208) / target(bits):.16g}")


def _confirmations(tree: BlockTree, stored: StoredBlock) -> int:
    return tree.tip.height - stored.height + 1 if tree.is_active(stored) else -1


def _input_json(spending: TransactionInput, coin: Coin | None, network: Network) -> Json:
    script = spending.script_sig.data
    outpoint = spending.txid[::-1] + struct.pack("<I", spending.vout)
    fields: Json
    if outpoint == _COINBASE:
        fields = {"coinbase": script.hex()}
    else:
        fields = {
            "txid": spending.txid.hex(),
            "vout": spending.vout,
            "scriptSig": {"asm": asm(script, signatures=True), "hex": script.hex()},
        }
    if spending.witness.items:
        fields["txinwitness"] = [item.hex() for item in spending.witness.items]
    if coin is not None:
        fields["prevout"] = {
            "generated": coin.generated,
            "height": coin.height,
            "value": f"sat:{coin.value}",
            "scriptPubKey": script_json(coin.script, network),
        }
    return fields | {"sequence": spending.sequence}


def _in_bitcoin(amount: re.Match[str]) -> str:
    whole, fraction = divmod(int(amount[1]), 10**8)
    return f"{whole}.{fraction:08}"


def script_json(script: bytes, network: Network) -> Json:
    """Describe an output script."""
    kind, addresses = classify(script, network)
    fields: Json = {
        "asm": asm(script),
        "desc": _with_checksum(_descriptor(script, kind, addresses)),
        "hex": script.hex(),
    }
    if addresses:
        fields["address"] = addresses[0]
    return fields | {"type": kind}


@lru_cache(4096)
def _with_checksum(descriptor: str) -> str:
    """Add the checksum, which takes longer than all the rest; the same scripts come again and again."""
    return str(add_checksum(descriptor))


def asm(script: bytes, *, signatures: bool = False) -> str:
    """Disassemble a script; with `signatures`, the hash type at the end of a signature is named."""
    words = []
    for opcode, data in operations(script):
        if data is None:
            words.append("[error]")
        elif opcode > 0x4E:
            words.append(_OPCODE_NAMES.get(opcode, "OP_INVALIDOPCODE" if opcode == 0xFF else "OP_UNKNOWN"))
        elif len(data) <= 4:
            words.append(str(_number(data)))
        elif signatures and not script.startswith(b"\x6a") and _is_signature(data):
            words.append(f"{data[:-1].hex()}[{_hash_type_name(data[-1])}]")
        else:
            words.append(data.hex())
    return " ".join(words)


def _number(data: bytes) -> int:
    """Decode a script number: little-endian, with the sign in the last byte's highest bit."""
    if not data:
        return 0
    magnitude = int.from_bytes(data, "little") & ~(0x80 << 8 * (len(data) - 1))
    return -magnitude if data[-1] & 0x80 else magnitude


def _hash_type_name(value: int) -> str:
    return _HASH_TYPES[value & 0x7F] + ("|ANYONECANPAY" if value & 0x80 else "")


def _is_signature(data: bytes) -> bool:
    """Check whether this is an ECDSA signature in strict DER (BIP 66) with a known hash type."""
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
    """Infer a script's descriptor without knowing any key (BIP 380 to 386)."""
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
