"""What the tests of the node source share: a stand-in for JSON-RPC, and a look at the last block."""

from typing import Any

from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.login import read_url
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.node.rpc import NotOffered
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.errors import VirtualchainError
from virtualchain.testing import FakeNode

REGTEST = network("regtest")
A, B, C = "aa" * 32, "bb" * 32, "cc" * 32


class Stub:
    """Stands in for JSON-RPC: each method is a function, or what it always answers."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[tuple[object, ...]] = []

    def call(self, method: str, *parameters: object) -> Any:
        """Answer as planned; a method without a plan is not offered, an error is raised."""
        self.calls.append((method, *parameters))
        answer = self.answers.get(method, NotOffered("no such method"))
        if callable(answer):
            answer = answer(*parameters)
        if isinstance(answer, VirtualchainError):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""

    def source(self) -> NodeSource:
        """Make a source that asks this stub alone."""
        return NodeSource(read_url("http://u:p@h:1"), REGTEST, self, None, spent_by_rest=False)  # type: ignore[arg-type]


def scan_tip(source: Any, node: FakeNode) -> tuple[Any, ...]:
    """Fetch the node's last block with all that it spends."""
    headers = source.headers_after(node.height - 1, node.chain.tree.chain[-2].block.hash)
    return fetch(source, Scanner([watch(b"id", None, "test")], REGTEST), headers[0]).inputs
