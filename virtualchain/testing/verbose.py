"""Blocks and transactions as JSON, field by field as bitcoind gives them.

Amounts stand as the text `sat:N` until `dumps` writes them as bitcoind does: in bitcoin, with eight places.
"""

import json
import re
import struct
from typing import Final

from embit.transaction import Transaction, TransactionInput

from virtualchain.bitcoin.networks import Network
from virtualchain.consensus.hashing import sha256d
from virtualchain.model import Json
from virtualchain.testing.blocks import target
from virtualchain.testing.scripts import asm, script_json
from virtualchain.testing.tree import BlockTree, StoredBlock
from virtualchain.testing.undo import Coin, Undo, read_undo
from virtualchain.testing.wire import RawTx, read_block

_AMOUNT: Final = re.compile(r'"sat:(\d+)"')
_COINBASE: Final = bytes(32) + b"\xff" * 4
_MEDIAN_TIME_SPAN = 11


def dumps(value: object) -> bytes:
    """Write JSON as bitcoind does: no blanks, amounts with eight places, UTF-8."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return _AMOUNT.sub(_bitcoin, text).encode()


def header_json(tree: BlockTree, stored: StoredBlock) -> Json:
    """Tell a block's header, as `getblockheader` does."""
    block = stored.block
    (version,) = struct.unpack_from("<i", block.header)
    (nonce,) = struct.unpack_from("<I", block.header, 76)
    after = tree.next(stored)
    answer: Json = {
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
        answer["previousblockhash"] = block.prev_hash
    if after is not None:
        answer["nextblockhash"] = after.block.hash
    return answer


def block_json(tree: BlockTree, stored: StoredBlock, verbosity: int, undo: Undo | None) -> Json:
    """Tell a block, as `getblock` does from verbosity 1 on; without `undo` prevouts and fees are left out."""
    transactions = read_block(stored.raw)
    witness = sum(len(tx.raw) - tx.stripped_size for tx in transactions)
    size = len(stored.raw)
    answer = header_json(tree, stored) | {
        "strippedsize": size - witness,
        "size": size,
        "weight": 3 * (size - witness) + size,
    }
    if verbosity == 1:
        return answer | {"tx": [tx.txid[::-1].hex() for tx in transactions]}
    spent = [None for _ in transactions] if undo is None else read_undo(undo)
    return answer | {
        "tx": [
            transaction_json(tx, tree.network, coins, prevouts=verbosity >= 3)
            for tx, coins in zip(transactions, spent, strict=True)
        ]
    }


def transaction_in_block_json(
    tree: BlockTree, stored: StoredBlock, tx: RawTx, coins: list[Coin] | None
) -> Json:
    """Tell a transaction, as `getrawtransaction` does with a block's hash; with `coins` at verbosity 2."""
    answer: Json = {"in_active_chain": tree.is_active(stored)}
    answer |= transaction_json(tx, tree.network, coins, prevouts=coins is not None)
    answer["blockhash"] = stored.block.hash
    if not tree.is_active(stored):
        return answer | {"confirmations": 0}
    return answer | {
        "confirmations": _confirmations(tree, stored),
        "time": stored.block.time,
        "blocktime": stored.block.time,
    }


def transaction_json(tx: RawTx, network: Network, coins: list[Coin] | None, *, prevouts: bool) -> Json:
    """Tell a transaction; with `coins`, which it spends, its fee, and with `prevouts` these as well."""
    parsed = Transaction.parse(tx.raw)
    shown = coins if coins and prevouts else [None for _ in parsed.vin]
    answer: Json = {
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
        answer["fee"] = f"sat:{sum(coin.value for coin in coins) - sum(value for value, _ in tx.outputs)}"
    return answer | {"hex": tx.raw.hex()}


def spent_json(undo: Undo, network: Network) -> list[list[Json]]:
    """Tell what a block's transactions spend, as `/rest/spenttxouts` does."""
    return [
        [{"value": f"sat:{coin.value}", "scriptPubKey": script_json(coin.script, network)} for coin in coins]
        for coins in read_undo(undo)
    ]


def median_time(stored: StoredBlock) -> int:
    """Give the median of the times of a block and the ten before it."""
    times: list[int] = []
    at: StoredBlock | None = stored
    while at is not None and len(times) < _MEDIAN_TIME_SPAN:
        times.append(at.block.time)
        at = at.parent
    return sorted(times)[len(times) // 2]


def difficulty(bits: int) -> float:
    """Give how much harder the target is than mainnet's easiest, in bitcoind's sixteen digits."""
    return float(f"{(0xFFFF << 208) / target(bits):.16g}")


def _confirmations(tree: BlockTree, stored: StoredBlock) -> int:
    return tree.tip.height - stored.height + 1 if tree.is_active(stored) else -1


def _input_json(spending: TransactionInput, coin: Coin | None, network: Network) -> Json:
    script = spending.script_sig.data
    place = spending.txid[::-1] + struct.pack("<I", spending.vout)
    answer: Json
    if place == _COINBASE:
        answer = {"coinbase": script.hex()}
    else:
        answer = {
            "txid": spending.txid.hex(),
            "vout": spending.vout,
            "scriptSig": {"asm": asm(script, signatures=True), "hex": script.hex()},
        }
    if spending.witness.items:
        answer["txinwitness"] = [item.hex() for item in spending.witness.items]
    if coin is not None:
        answer["prevout"] = {
            "generated": coin.generated,
            "height": coin.height,
            "value": f"sat:{coin.value}",
            "scriptPubKey": script_json(coin.script, network),
        }
    return answer | {"sequence": spending.sequence}


def _bitcoin(amount: re.Match[str]) -> str:
    whole, rest = divmod(int(amount[1]), 10**8)
    return f"{whole}.{rest:08}"
