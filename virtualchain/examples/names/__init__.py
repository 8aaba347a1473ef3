"""The name registry of the Blockstack network, bit for bit as it ran on Bitcoin from 2015 on.

`app` follows the main network; `make_app` builds the app for other parameters, such as those of the network's
test runs, or of a registry of your own. Each operation has a file named after it. docs/names.md shows how to
query the tables; docs/protocol/names.md specifies the rules.
"""

from virtualchain.examples.names.params import MAINNET, Epoch, Params, regtest
from virtualchain.examples.names.protocol import make_app

__all__ = ["MAINNET", "Epoch", "Params", "app", "make_app", "regtest"]

app = make_app(MAINNET)
