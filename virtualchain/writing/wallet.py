"""A wallet of the node: its coins, and its signatures. Keys and passphrases never leave it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn
from urllib.parse import quote

from virtualchain.bitcoin.networks import Network, every_network
from virtualchain.bitcoin.node.answers import block_hash as read_hash
from virtualchain.bitcoin.node.answers import satoshi, well_formed, whole_number
from virtualchain.bitcoin.node.client import Answer, NotOffered, node_answer
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.transaction import write_transaction
from virtualchain.errors import NodeError, NodeUnavailable, UsageError, VirtualchainError, quoted
from virtualchain.model import SpentOutput, TxIn
from virtualchain.writing.amounts import write_amount
from virtualchain.writing.policy import LongChain

Outpoint = tuple[str, int]
"""An output: txid and number."""
REPLACEABLE: Final = 0xFFFFFFFD
"""The sequence of an input that says that its transaction may be replaced (BIP 125)."""
_NEEDS_PASSPHRASE: Final = -13
_NO_FUNDS: Final = -6
_MEANINGS: Final[tuple[tuple[tuple[str, ...], type[VirtualchainError], str], ...]] = (
    (("rescanning",), NodeUnavailable, "{wallet} is rescanning the chain: try again when it is done"),
    (
        ("unconfirmed ancestors", "creates a chain of", "too long of a mempool chain"),
        LongChain,
        "{wallet} has only coins of long chains of unconfirmed transactions: wait for a block",
    ),
    (
        ("amount too small", "too small to"),
        UsageError,
        "an output pays so little that nodes do not relay it (dust): pay more ({wallet}: {text})",
    ),
    (
        ("Fee exceeds maximum",),
        UsageError,
        "{wallet} refuses the fee, which is over its maxtxfee: choose a lower --fee-rate",
    ),
    (
        ("ee estimation failed",),
        UsageError,
        "{wallet} cannot estimate a fee, as its node has seen too little: choose one with --fee-rate",
    ),
    (
        ("lower than the minimum", "minimum required fee", "min relay fee"),
        UsageError,
        "{wallet} refuses the fee as too low: choose a higher --fee-rate ({text})",
    ),
    (
        ("re-selected input", "Missing solving data", "Unable to find UTXO"),
        UsageError,
        "{wallet} cannot spend a coin that was named: it is spent, or not the wallet's ({text})",
    ),
    (
        ("eypool",),
        UsageError,
        "{wallet} has no unused address for the change: choose one with --change, or refill its keypool",
    ),
)
"""By a part of the wallet's text, the error, and its line."""


@dataclass(frozen=True, slots=True)
class Fee:
    """What a transaction is to pay: a rate in satoshi per vbyte, or the blocks within which to confirm.

    With neither, the wallet chooses.
    """

    rate: Decimal | None = None
    target: int | None = None

    def options(self) -> dict[str, object]:
        """Return it as the node takes it."""
        if self.rate is not None:
            return {"fee_rate": f"{self.rate:f}"}
        return {} if self.target is None else {"conf_target": self.target}


ANY_FEE: Final = Fee()


@dataclass(frozen=True, slots=True)
class Coin:
    """An output that a wallet can spend."""

    outpoint: Outpoint
    value: int
    confirmations: int


@dataclass(frozen=True, slots=True)
class Own:
    """What a wallet knows of an address of its own."""

    address: str
    script: bytes
    keys: tuple[bytes, ...]
    """Public keys that own it, as far as they are known."""
    redeem_script: bytes


class Wallet:
    """One loaded wallet of a node."""

    def __init__(self, source: NodeSource, name: str) -> None:
        self.name = name
        self._source = source
        self._rpc = source.rpc.at(f"/wallet/{quote(name, safe='')}")
        self._info = self._call("getwalletinfo")

    def __str__(self) -> str:
        return f"wallet {quoted(self.name)} of {self._source}"

    def close(self) -> None:
        """Close its connections."""
        self._rpc.close()

    def require_signing(self) -> None:
        """Raise UsageError if it has no keys, or its keys are locked."""
        if not self._info.get("private_keys_enabled", True) and not self._info.get("external_signer"):
            raise UsageError(
                f"{self} has no private keys, it only watches: write the transaction for its signer with "
                "--psbt FILE, and send what comes back with --broadcast FILE"
            )
        if self._info.get("unlocked_until") == 0:
            self._raise_locked()

    def fund(
        self,
        inputs: Sequence[Outpoint],
        outputs: Sequence[SpentOutput],
        *,
        fee: Fee,
        change_at: int | None = None,
        change: str | None = None,
    ) -> str:
        """Complete a transaction with coins and change, replaceable and unsigned; return it as PSBT, Base64.

        `inputs` come first, in their order, and outputs keep theirs; the change comes last, or at
        `change_at`, and goes to an address of the wallet's own, or to `change`. Raises UsageError if the
        coins do not suffice.
        """
        raw = write_transaction([TxIn(*item, b"", REPLACEABLE, ()) for item in inputs], outputs)
        options: dict[str, object] = {
            "add_inputs": True,
            "changePosition": len(outputs) if change_at is None else change_at,
            "replaceable": True,
            **fee.options(),
        }
        if change is not None:
            options["changeAddress"] = change
        try:
            funded = self._call("fundrawtransaction", raw.hex(), options, False)
            psbt = self._call("converttopsbt", funded["hex"], False, False)
            filled = self._process(psbt, sign=False)
        except NodeError as error:
            self._explain(error, sum(output.value for output in outputs))
        with well_formed_of(self._source, "walletprocesspsbt"):
            return str(filled["psbt"])

    def sign(self, psbt: str) -> str:
        """Return the PSBT with the wallet's signatures."""
        self.require_signing()
        try:
            signed = self._process(psbt, sign=True)
        except NodeError as error:
            self._explain(error, 0)
        with well_formed_of(self._source, "walletprocesspsbt"):
            return str(signed["psbt"])

    def coins_of(self, address: str) -> list[Coin]:
        """List the coins at an address, those with most confirmations first, then the largest.

        Raises UsageError if the address is not the wallet's.
        """
        self.own(address)
        coins = self._call("listunspent", 0, 9_999_999, [address], False)
        with well_formed_of(self._source, "listunspent"):
            listed = [
                Coin(
                    (read_hash(coin["txid"]), whole_number(coin["vout"])),
                    satoshi(coin["amount"]),
                    whole_number(coin["confirmations"]),
                )
                for coin in coins
                if coin.get("safe", True)
            ]
        return sorted(listed, key=lambda coin: (not coin.confirmations, -coin.value, coin.outpoint))

    def unconfirmed(self) -> set[str]:
        """Return the ids of its transactions that are in no block."""
        listed = self._call("listsinceblock", self._source.tip().hash)
        with well_formed_of(self._source, "listsinceblock"):
            return {
                read_hash(entry["txid"])
                for entry in listed["transactions"]
                if whole_number(entry["confirmations"]) == 0 and not entry.get("abandoned")
            }

    def some_address(self) -> str | None:
        """Return the address of its largest coin; None if it has none that has one."""
        coins = self._call("listunspent", 0)
        with well_formed_of(self._source, "listunspent"):
            named = [(satoshi(coin["amount"]), str(coin["address"])) for coin in coins if "address" in coin]
        return max(named)[1] if named else None

    def own(self, address: str) -> Own:
        """Return what it knows of an address of its own; raises UsageError for any other."""
        info = self._call("getaddressinfo", address)
        with well_formed_of(self._source, "getaddressinfo"):
            if not (info["ismine"] or info.get("iswatchonly")):
                raise UsageError(f"{address} is not an address of {self}")
            embedded = info.get("embedded", {})
            known = [info.get("pubkey"), *info.get("pubkeys", ()), embedded.get("pubkey")]
            keys = tuple(bytes.fromhex(key) for key in known if key)
            script = bytes.fromhex(info["scriptPubKey"])
            return Own(address, script, keys, bytes.fromhex(info.get("hex", "")))

    def balance(self) -> tuple[int, int]:
        """Return how many satoshis can be spent, and how many arrive once they are confirmed or mature."""
        balances = self._call("getbalances")
        with well_formed_of(self._source, "getbalances"):
            mine = balances["mine"]
            return satoshi(mine["trusted"]), satoshi(mine["untrusted_pending"]) + satoshi(mine["immature"])

    def _call(self, method: str, *parameters: object) -> Answer:
        """Ask the wallet; whatever it is asked here may be asked twice, as nothing is sent."""
        return self._rpc.call(method, *parameters)

    def _process(self, psbt: str, *, sign: bool) -> Answer:
        """Have the wallet add what it knows to a PSBT, and signatures of the whole transaction."""
        try:
            return self._call("walletprocesspsbt", psbt, sign, "DEFAULT", True)
        except NodeError as error:
            answer = node_answer(error)
            if answer is None or "not a valid sighash" not in answer[1]:
                raise
        return self._call("walletprocesspsbt", psbt, sign, "ALL", True)  # a wallet from before Taproot

    def _explain(self, error: NodeError, amount: int) -> NoReturn:
        """Raise what an error of the wallet means to a user who wants to pay an amount."""
        answer = node_answer(error)
        if answer is None:
            raise error
        code, text = answer
        if code == _NEEDS_PASSPHRASE:
            self._raise_locked(error)
        if "insufficient funds" in text.lower() or "does not cover" in text or code == _NO_FUNDS:
            self._raise_short(error, amount)
        for parts, kind, line in _MEANINGS:
            if any(part in text for part in parts):
                raise kind(line.format(wallet=self, text=text)) from error
        raise NodeError(f"{self}: {text} (code {code})") from error

    def _raise_locked(self, error: NodeError | None = None) -> NoReturn:
        raise UsageError(
            f"{self} is locked: unlock it for a minute, for example with `bitcoin-cli "
            f"-rpcwallet={self.name} -stdinwalletpassphrase walletpassphrase 60`, and run this again"
        ) from error

    def _coins(self, satoshi: int) -> str:
        return write_amount(satoshi, self._source.network)

    def _raise_short(self, error: NodeError, amount: int) -> NoReturn:
        ready, later = self.balance()
        more = f"; {self._coins(later)} more can be spent once confirmed or mature" if later else ""
        if ready > amount + amount // 100 + 100_000:
            # The wallet says the same of coins that it leaves alone.
            raise LongChain(
                f"{self} has {self._coins(ready)}, but can spend too few of them now: they are locked, "
                "or at the end of long chains of unconfirmed transactions, which the next block ends"
            ) from error
        raise UsageError(
            f"{self} has not enough coins: it can spend {self._coins(ready)}, and the outputs take "
            f"{self._coins(amount)} and a fee{more}"
        ) from error


def well_formed_of(source: NodeSource, method: str) -> Any:  # noqa: ANN401 - a context manager
    """Turn the errors of taking a malformed answer apart into a NodeError."""
    return well_formed(source.url, method)


def open_wallet(source: NodeSource, name: str | None) -> Wallet:
    """Open a loaded wallet by its name, or the only one; raises UsageError if that is not possible."""
    try:
        loaded = [str(item) for item in source.rpc.call("listwallets")]
    except NotOffered as error:
        answer = node_answer(error)
        if answer is None:
            raise
        raise UsageError(
            f"{source} has no wallets (disablewallet=1, or built without): use another node with --bitcoin"
        ) from error
    names = ", ".join(map(quoted, sorted(loaded)))
    if name is None:
        if len(loaded) == 1:
            return Wallet(source, loaded[0])
        if loaded:
            raise UsageError(f"{source} has several wallets loaded: name one of {names} with --wallet")
        raise UsageError(
            f"{source} has no wallet loaded: load one with `bitcoin-cli loadwallet NAME`, or make one with "
            "`bitcoin-cli createwallet NAME`"
        )
    if name not in loaded:
        others = f"; {names} {'is' if len(loaded) == 1 else 'are'}" if loaded else ""
        raise UsageError(
            f"wallet {quoted(name)} is not loaded at {source}{others}: load it with `bitcoin-cli loadwallet`"
        )
    return Wallet(source, name)


def script_of(source: NodeSource, address: str) -> bytes:
    """Return the script that pays an address; raises UsageError if it is not one on the node's network."""
    with well_formed_of(source, "validateaddress"):
        answer = source.rpc.call("validateaddress", address)
        if answer["isvalid"]:
            return bytes.fromhex(answer["scriptPubKey"])
    others = [known.name for known in every_network() if _is_of(address, known)]
    here = source.network.name
    if others and here not in others:
        raise UsageError(
            f"{quoted(address)} is an address on {' or '.join(others)}, and {source} is on {here}"
        )
    reason = str(answer.get("error", "")).rstrip(".")
    raise UsageError(f"{quoted(address)} is not an address on {here}{reason and f' ({reason})'}")


def _is_of(address: str, network: Network) -> bool:
    """Check whether an address looks like one of a network: by its prefix, or its version."""
    from embit import base58  # noqa: PLC0415 - only for what is not an address here

    prefixes = [prefix for prefix in (network.bech32_hrp, network.mweb_hrp) if prefix]
    if address.lower().startswith(tuple(f"{prefix}1" for prefix in prefixes)):
        return True
    with suppress(Exception):
        return base58.decode_check(address)[:-20] in {network.p2pkh, network.p2sh, network.p2sh_also_read} - {
            b""
        }
    return False
