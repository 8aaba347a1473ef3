"""What a node knows of transactions that are in no block, and what it thinks of new ones."""

from collections.abc import Collection
from contextlib import suppress
from decimal import Decimal

from virtualchain.bitcoin.node.answers import block_hash, satoshi, whole_number
from virtualchain.bitcoin.node.client import NotOffered
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.transaction import read_inputs, read_outputs, read_transaction, without_witness
from virtualchain.errors import MissingData, NodeUnavailable, UsageError
from virtualchain.writing.policy import Rates
from virtualchain.writing.wallet import Fee, Outpoint, well_formed_of


def require_synced(source: NodeSource) -> None:
    """Raise NodeUnavailable while the node is syncing: it does not know yet what is spent."""
    with well_formed_of(source, "getblockchaininfo"):
        info = source.rpc.call("getblockchaininfo")
        blocks, headers = whole_number(info["blocks"]), whole_number(info["headers"])
        # A regtest node calls it the initial download until its tip is new.
        is_new = source.network.name == "regtest" and blocks == headers
        if info.get("initialblockdownload") and not is_new:
            raise NodeUnavailable(
                f"{source} is still syncing, at block {blocks} of {headers}: send when it is done"
            )


def rejection(source: NodeSource, raw: bytes) -> str | None:
    """Return why the node would not take a transaction into its mempool; None if it would."""
    with well_formed_of(source, "testmempoolaccept"):
        (result,) = source.rpc.call("testmempoolaccept", [raw.hex()], 0)
        return None if result["allowed"] else str(result.get("reject-details") or result["reject-reason"])


def spenders(source: NodeSource, raw: bytes) -> set[str]:
    """Return the ids of other unconfirmed transactions that spend what a transaction spends."""
    outpoints = [{"txid": item.txid, "vout": item.vout} for item in read_inputs(raw)]
    try:
        answers = source.rpc.call("gettxspendingprevout", outpoints)
    except NotOffered:
        return set()  # before Bitcoin Core 24
    with well_formed_of(source, "gettxspendingprevout"):
        txids = {block_hash(item["spendingtxid"]) for item in answers if "spendingtxid" in item}
    return txids - {read_outputs(raw)[0]}


def rates(source: NodeSource) -> Rates:
    """Return what the mempool takes."""
    with well_formed_of(source, "getmempoolinfo"):
        info = source.rpc.call("getmempoolinfo")
        relay, now = satoshi(info["minrelaytxfee"]), satoshi(info["mempoolminfee"])
        return Rates(Decimal(relay) / 1000, Decimal(now) / 1000)


def has_transaction(source: NodeSource, raw: bytes) -> bool:
    """Check whether the node has a transaction: in its mempool, or in a block, with an unspent output."""
    tx = read_transaction(raw, source.network)
    try:
        source.rpc.call("getmempoolentry", tx.txid)
    except MissingData:
        return any(
            source.rpc.call("gettxout", tx.txid, vout, False) is not None for vout in range(len(tx.paid))
        )
    return True


def fee_of(source: NodeSource, raw: bytes) -> int | None:
    """Return what a transaction pays, in satoshi; None if the node does not know what it spends."""
    spent = [(item.txid, item.vout) for item in read_inputs(raw)]
    coins = source.coins(spent)
    if any(item not in coins for item in spent):
        return None
    return sum(coins[item].value for item in spent) - sum(output.value for output in read_outputs(raw)[1])


def sender_of(source: NodeSource, raw: bytes) -> str | None:
    """Return the address that a transaction's first input spends from; None if none is known."""
    first = read_inputs(raw)[0]
    coin = source.coins([(first.txid, first.vout)]).get((first.txid, first.vout))
    addresses = () if coin is None else classify(coin.script_pubkey, source.network)[1]
    return addresses[0] if addresses else None


def virtual_size(raw: bytes) -> int:
    """Compute a serialized transaction's size in vbytes (BIP 141)."""
    return (3 * len(without_witness(raw)) + len(raw) + 3) // 4


def unconfirmed_before(source: NodeSource, raw: bytes, own: Collection[str]) -> list[bytes]:
    """Return unconfirmed transactions that come before one: those below it, `own` ones, and those below them.

    Ancestors are before descendants. What could only come instead of it, as it spends the same coins, is left
    out.
    """
    spent = {(item.txid, item.vout) for item in read_inputs(raw)}
    counts: dict[str, int] = {}
    for txid in {txid for txid, _ in spent} | set(own):
        with suppress(MissingData), well_formed_of(source, "getmempoolancestors"):
            counts[txid] = whole_number(source.rpc.call("getmempoolentry", txid)["ancestorcount"])
            ancestors = source.rpc.call("getmempoolancestors", txid, True)
            counts |= {name: whole_number(entry["ancestorcount"]) for name, entry in ancestors.items()}
    before, gone = [], set(spent)
    for txid in sorted(counts, key=lambda txid: (counts[txid], txid)):
        with suppress(MissingData):  # a block may just have confirmed it
            item = bytes.fromhex(source.rpc.call("getrawtransaction", txid, 0))
            if gone.isdisjoint((spending.txid, spending.vout) for spending in read_inputs(item)):
                before.append(item)
            else:
                gone |= {(txid, vout) for vout in range(len(read_outputs(item)[1]))}
    return before


def replacement(source: NodeSource, txid: str, fee: Fee) -> tuple[list[Outpoint], Fee]:
    """Return the coins of an unconfirmed transaction, and the fee; by default, one that may replace it.

    Raises UsageError if the mempool does not have it.
    """
    try:
        entry = source.rpc.call("getmempoolentry", txid)
        raw = bytes.fromhex(source.rpc.call("getrawtransaction", txid, 0))
    except MissingData as error:
        raise UsageError(
            f"transaction {txid} is not in the mempool of {source}, so nothing can replace it: it is "
            "confirmed, dropped, or of another network"
        ) from error
    with well_formed_of(source, "getmempoolentry"):
        paid, vsize = satoshi(entry["fees"]["descendant"]), whole_number(entry["vsize"])
        info = source.rpc.call("getmempoolinfo")
        step = Decimal(satoshi(info.get("incrementalrelayfee", Decimal("0.00001")))) / 1000
    if fee.rate is None:
        fee = Fee((Decimal(paid) / vsize + step + 1).quantize(Decimal("0.001")))
    return [(item.txid, item.vout) for item in read_inputs(raw)], fee
