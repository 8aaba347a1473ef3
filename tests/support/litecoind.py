"""A real litecoind on regtest, with a wallet, and blocks of the kinds that only Litecoin has."""

import os
from pathlib import Path
from typing import Any

import pytest

from virtualchain.testing.bitcoind import Bitcoind

_PROGRAM = "/usr/lib/litecoin/litecoind"
"""Debian's `litecoind` in PATH is a script that writes a configuration with a password."""
BEFORE_MWEB = 431
"""MWEB blocks begin after so many blocks of a regtest chain."""


def program() -> Path:
    """Find litecoind, by the variable LITECOIND or where Debian has it; without one, skip, except in CI."""
    named = Path(os.environ.get("LITECOIND", _PROGRAM))
    if named.is_file():
        return named
    reason = "no litecoind: install Debian's, or name one in the environment variable LITECOIND"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (in CI these tests must run)")
    pytest.skip(reason)


class Litecoind(Bitcoind):
    """A running node, with an index of transactions."""

    def __init__(self) -> None:
        super().__init__(program(), "-txindex=1")
        self.rpc("createwallet", "main", False, False, "", False, False, True)  # loaded at each start
        self.home = self.address("bech32")

    def address(self, kind: str) -> str:
        """Make an address: legacy, p2sh-segwit, bech32 or mweb."""
        return str(self.rpc("getnewaddress", "", kind))

    def mine(self, n: int = 1) -> list[str]:
        """Mine blocks with what was sent; return their hashes."""
        hashes: list[str] = self.rpc("generatetoaddress", n, self.home)
        return hashes

    def pay(self, address: str, amount: float) -> str:
        """Pay an address; return the txid."""
        return str(self.rpc("sendtoaddress", address, amount))

    def unspent(self, address: str) -> dict[str, Any]:
        """Return an output of an address, which may be unconfirmed."""
        (coin, *_) = self.rpc("listunspent", 0, 9_999_999, [address])
        return dict(coin)

    def carry(self, payload: bytes, coin: dict[str, Any]) -> str:
        """Spend an output in a transaction with a payload; return its txid."""
        inputs = [{"txid": coin["txid"], "vout": coin["vout"]}]
        change = round(float(coin["amount"]) - 0.001, 8)
        outputs = [{"data": payload.hex()}, {self.home: change}]
        raw = self.rpc("createrawtransaction", inputs, outputs)
        signed = self.rpc("signrawtransactionwithwallet", raw)
        assert signed["complete"]
        return str(self.rpc("sendrawtransaction", signed["hex"]))

    def pay_from_mweb(self, address: str, amount: float) -> str:
        """Pay an address out of the MWEB: a peg-out."""
        coins = [
            {"txid": coin["txid"], "vout": coin["vout"]}
            for coin in self.rpc("listunspent", 0)
            if "vout" in coin
        ]
        self.rpc("lockunspent", False, coins)
        try:
            return self.pay(address, amount)
        finally:
            self.rpc("lockunspent", True, coins)
