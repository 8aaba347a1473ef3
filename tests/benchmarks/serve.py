"""A fake node in a process of its own, so that it does not slow down what is measured.

    python -m tests.benchmarks.serve (--full | --empty | --single) BLOCKS

It prints its URL when it is ready, and ends when its standard input does.
"""

import argparse
import sys
from contextlib import closing

from virtualchain.testing import FakeNode
from virtualchain.testing.mainnet_like import mainnet_like


def main() -> None:
    """Make a chain and serve it."""
    parser = argparse.ArgumentParser(description="Serve a chain from a fake node.")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--full", type=int, help="the number of blocks as full as mainnet's")
    kind.add_argument("--empty", type=int, help="the number of blocks with only a coinbase")
    kind.add_argument("--single", type=int, help="the number of blocks of one op each")
    arguments = parser.parse_args()
    if arguments.single is not None:
        node = FakeNode()
        for _ in range(arguments.single):
            node.mine([node.send(b"mvo1")])
    elif arguments.full is None:
        node = FakeNode(premine=0)
        node.mine(n=arguments.empty)
    else:
        node = FakeNode.from_blocks("regtest", mainnet_like(arguments.full))
    with closing(node):
        print(node.url, flush=True)  # noqa: T201 - our parent process reads it
        sys.stdin.read()


if __name__ == "__main__":
    main()
