"""Previews of whole blocks on top of blocks that are not in the log yet, compared with what comes of them."""

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

import pytest

from tests.integration.conftest import Run
from tests.integration.engine.test_preview_random import applied, foreseen, happened, verdicts_of
from tests.integration.inscriptions.test_histories import History
from tests.support.rides import RidesModel, rides_app
from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine.preview import preview_transactions
from virtualchain.examples.inscriptions import app as inscriptions
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import Tx

K = 3


class Foretelling:
    """A fake node that has each block previewed before it mines it, while the app lags K blocks."""

    def __init__(self, node: FakeNode, app: App, url: str, run: Run) -> None:
        self._node = node
        self._app = app
        self._url = url
        self._run = run
        self.verdicts: dict[int, list[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def mine(self, txs: Iterable[Tx] = (), n: int = 1) -> list[str]:
        """Mine blocks."""
        ordered: dict[bytes, None] = {}
        for tx in txs:
            each: Tx | None = tx
            chain = []
            while (each is not None and self._node.chain.unconfirmed(each.txid)) or each is tx:
                chain.append(each)
                each = each.funding
            ordered |= dict.fromkeys(item.raw for item in reversed(chain))
        self._run(self._app, confirmations=K)
        with closing(open_source(self._node.url)) as source:
            contract = read_contract(self._app)
            verdicts = preview_transactions(self._url, contract, list(ordered), source=source)
        hashes = self._node.mine(list(ordered), n)
        self.verdicts[self._node.height - n + 1] = verdicts
        return hashes

    def check(self) -> None:
        """Compare what was foreseen with what has happened."""
        self._run(self._app)
        name = self._app.name
        assert sum(map(len, self.verdicts.values())) > 10
        for block_id, verdicts in self.verdicts.items():
            assert {each.block_id for each in verdicts} <= {block_id}
            assert foreseen(verdicts) == verdicts_of(self._url, name, block_id)
            assert applied(verdicts) == happened(self._url, name, block_id)


@pytest.fixture
def foretell(fake_node: FakeNode, database_url: str, run: Run) -> Callable[[App], Foretelling]:
    """Return a function that makes a node of an app."""
    fake_node.mine(n=K + 1)

    def make(app: App) -> Foretelling:
        run(app, confirmations=K)
        return Foretelling(fake_node, app, database_url, run)

    return make


@pytest.mark.parametrize("by_statements", [False, True])
def test_tracked_outputs(by_statements: bool, foretell: Callable[[App], Foretelling]) -> None:
    """Balances move from outputs of blocks that are not in the log."""
    node, model = foretell(rides_app(by_statements=by_statements)), RidesModel(3)
    for _ in range(15):
        model.block(node)  # type: ignore[arg-type]
    node.check()


def test_inscriptions(foretell: Callable[[App], Foretelling]) -> None:
    """Envelopes in taproot witnesses, and satoshis that move on."""
    node = foretell(inscriptions)
    history = History(node, 4)  # type: ignore[arg-type]
    history.mine(7)
    node.check()
