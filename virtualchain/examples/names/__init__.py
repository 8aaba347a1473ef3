"""The name registry of the Blockstack network, bit for bit as it ran on Bitcoin from 2015 on.

`app` is the network itself; `make_app` makes one for other numbers, such as those of its test runs. Each
operation has a file of its own, named after it. docs/names.md says what to ask the tables.
"""

from virtualchain.examples.names.params import MAINNET, Params, regtest
from virtualchain.examples.names.protocol import make_app

__all__ = ["MAINNET", "Params", "app", "make_app", "regtest"]

app = make_app(MAINNET)
