"""TEMPORARY stand-in."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.model import SpentOutput, Watch


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    txid: str
    raw: bytes
    spent: tuple[SpentOutput, ...]
    magics: tuple[bytes, ...]
    fee: int
    vsize: int
    fee_rate: Decimal
    seen_at: int


class Mempool:
    def __init__(
        self,
        source: NodeSource,
        watches: Sequence[Watch],
        *,
        tracks_outputs: bool = False,
        zmq: str | None = None,
    ) -> None:
        self._source, self._watches, self._list, self._tracks = source, watches, [], tracks_outputs
        self._txids = None

    def update(self) -> bool:
        entries = self._source._rpc.call("getrawmempool", True)
        order = sorted(entries, key=lambda t: (entries[t]["ancestorcount"], t))
        if order == self._txids:
            return False
        self._txids = order
        self._list = []
        for txid in order:
            raw = bytes.fromhex(self._source._rpc.call("getrawtransaction", txid))
            outs = [(i.txid, i.vout) for i in read_inputs(raw)]
            coins = self._source.coins(set(outs))
            e = entries[txid]
            magics = tuple(sorted({w.magic for w in self._watches if w.magic in raw}))
            if magics or self._tracks:
                self._list.append(
                    Unconfirmed(
                        txid,
                        raw,
                        tuple(coins[o] for o in outs),
                        magics,
                        int(e["fees"]["base"] * 10**8),
                        e["vsize"],
                        Decimal(1),
                        e["time"],
                    )
                )
        return True

    def transactions(self) -> Sequence[Unconfirmed]:
        return self._list

    def wait(self, timeout: float) -> bool:
        self._source.wait(0.05)
        return True

    def close(self) -> None:
        pass
