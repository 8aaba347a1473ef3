"""Judge transactions of a fake node as the next block."""

from collections.abc import Sequence
from typing import Any

from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.engine.foreseeing import Verdict
from virtualchain.engine.preview import preview_transactions
from virtualchain.model import SpentOutput
from virtualchain.testing.transactions import Tx

Spent = dict[tuple[str, int], SpentOutput]


class Foreseeing:
    """Judges transactions on top of what the apps in a database have taken, and knows what they spend."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spent: Spent = {}

    def __call__(self, app: object, txs: Sequence[Tx], **options: Any) -> list[Verdict]:
        """Return the verdicts."""
        raws: dict[bytes, None] = {}
        for tx in txs:
            if tx.funding is not None:  # the faucet's, which comes first
                raws[tx.funding.raw] = None
            raws[tx.raw] = None
        for raw in raws:
            txid, outputs = read_outputs(raw)
            self.spent |= {(txid, vout): output for vout, output in enumerate(outputs)}
        return preview_transactions(self.url, read_contract(app), list(raws), spent=self.spent, **options)
