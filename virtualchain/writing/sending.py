"""Sending an input: composed, funded and signed by the node's wallet, previewed, and handed to the node.

A transaction is made once. Whatever happens to the connection while it is handed over, only these very bytes
are ever sent again, so an input cannot be sent twice.
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.app.encoding import AROUND_ADVICE, Around, find_opcode, write_input, write_output
from virtualchain.app.fields import opcode_text
from virtualchain.bitcoin.node.answers import satoshi, whole_number
from virtualchain.bitcoin.node.client import node_answer
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.payload import last_op_return, payloads, split_payload
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.transaction import (
    Transaction,
    read_inputs,
    read_outputs,
    read_transaction,
    without_witness,
    write_transaction,
)
from virtualchain.bitcoin.unsigned import unlock
from virtualchain.engine.preview import preview_transactions
from virtualchain.errors import (
    InputRefused,
    MalformedBlock,
    MissingData,
    NodeError,
    NodeUnavailable,
    UsageError,
    VirtualchainError,
    quoted,
)
from virtualchain.model import SpentOutput, TxIn
from virtualchain.reading import views
from virtualchain.writing.amounts import write_amount
from virtualchain.writing.orders import DEFAULT_TERMS, Order, Say, Sent, Terms
from virtualchain.writing.policy import UNSIGNED, Facts, Rates, is_known, refusal
from virtualchain.writing.wallet import (
    Fee,
    Outpoint,
    Wallet,
    open_wallet,
    script_of,
    well_formed_of,
)

BURN_SCRIPT: Final = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
"""Pay-to-public-key-hash of the all-zero hash, for which nobody has a key."""
PSBT_MAGIC: Final = b"psbt\xff"
_PAUSES: Final = (0.0, 1.0, 3.0, 5.0)
"""Seconds before each attempt to find out whether the node has a transaction, and to hand it over again."""
_PLACEHOLDER: Final = 1000
"""Satoshi of a change output in a transaction in which a payload is read back."""
_SENDERS: Final[tuple[bytes | None, ...]] = (
    None,
    b"\x00\x14" + bytes(range(20)),
    b"\x51\x20" + bytes(range(32)),
    b"\xa9\x14" + bytes(range(20)) + b"\x87",
    b"\x00\x20" + bytes(range(32)),
)
"""Scripts of those who may send if nobody is named: p2pkh with a signature, p2wpkh, p2tr, p2sh, p2wsh."""
_TXID: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Draft:
    """An input that has its payload, and not yet its coins."""

    order: Order
    payload: bytes
    outputs: tuple[SpentOutput, ...]


class InputSender:
    """Sends inputs of one app through one node.

    `database` is that of a deployment with the app, for previews and the current consensus hash; without one,
    only what is sent `anyway` can be sent. `say` gets what the user should know and no result shows.
    """

    def __init__(
        self,
        contract: Contract,
        source: NodeSource,
        *,
        database: str | None,
        wallet: str | None = None,
        terms: Terms = DEFAULT_TERMS,
        say: Say = lambda _: None,
    ) -> None:
        self.contract = contract.on(source.network.name)
        self.source = source
        self.database = database
        self.terms = terms
        self._wallet_name = wallet
        self._say = say
        self._consensus_hash = self._look()

    def close(self) -> None:
        """Close the connections to the wallet; the source stays open."""
        if "wallet" in vars(self):
            self.wallet.close()

    @cached_property
    def wallet(self) -> Wallet:
        """The wallet that pays; raises UsageError if there is none, or it must be named."""
        return open_wallet(self.source, self._wallet_name)

    def order(
        self,
        opcode: bytes | str | None,
        fields: Mapping[str, object],
        *,
        to: Sequence[tuple[str, int]] = (),
        burn: int | None = None,
        sender: str | None = None,
        change: str | None = None,
        change_at: int | None = None,
        replaces: str | None = None,
    ) -> Order:
        """Check what a user asks for: addresses, positions and amounts; raises UsageError."""
        payments = [SpentOutput(amount, script_of(self.source, address)) for address, amount in to]
        if burn is not None:
            payments.append(SpentOutput(burn, BURN_SCRIPT))
        for address in (sender, change):
            if address is not None:
                script_of(self.source, address)
        if change_at is not None and change_at > len(payments) + 1:
            raise UsageError(
                f"the change cannot be output {change_at}: there are {len(payments) + 1} others, from 0"
            )
        if replaces is not None and not _TXID.fullmatch(replaces):
            raise UsageError(f"{quoted(replaces)} is not a transaction id: 64 lower-case hex digits")
        if replaces is not None and sender is not None:
            raise UsageError("what replaces a transaction is sent by its sender: leave the sender out")
        return Order(
            find_opcode(self.contract, opcode),
            fields,
            tuple(payments),
            sender,
            sender if change is None else change,
            change_at,
            replaces,
        )

    # From an order to a transaction.

    def check(self, order: Order) -> tuple[SpentOutput, ...]:
        """Return the outputs of an order, the payload's first; raises UsageError if it cannot be written."""
        return self._draft(order).outputs

    def unsigned(self, order: Order) -> tuple[Sent, bytes]:
        """Return an input as a PSBT (BIP 174) for a signer elsewhere, after all checks that need none.

        The preview judges it with signatures that are made up. Raises what `send` raises.
        """
        draft = self._draft(order)
        self._check_node()
        psbt = self._fund(draft)
        raw = self._with_made_up_signatures(psbt)
        sent = self._judged(
            raw, order.opcode, draft.payload, "unsigned", fee=self._fee_of(psbt), advice=self._advice(order)
        )
        self._test(sent, is_signed=False)
        return replace(sent, raw=_unsigned(raw)), base64.b64decode(psbt)

    def send(
        self, order: Order, *, dry_run: bool = False, note: Callable[[Sent], None] | None = None
    ) -> Sent:
        """Send an input, unless the app would refuse it; `dry_run` does everything but that.

        `note` is called with the signed transaction before it is handed over, and again when it is sent or
        certainly is not: its status is signed, sent or refused. Raises UsageError for a wrong request,
        InputRefused if the app would refuse the input, NodeError and StoreError.
        """
        draft = self._draft(order)
        self._check_node()
        self.wallet.require_signing()
        psbt = self._fund(draft)
        raw = self._finalize(self.wallet.sign(psbt))
        sent = self._judged(
            raw, order.opcode, draft.payload, "checked", fee=self._fee_of(psbt), advice=self._advice(order)
        )
        self._test(sent, is_signed=True)
        return sent if dry_run else self.hand_over(sent, note)

    def read(self, data: bytes) -> bytes:
        """Return the signed transaction in what a signer has written: a PSBT, binary or Base64, or hex.

        Raises UsageError if it is none of these, or signatures are missing.
        """
        if data.startswith(PSBT_MAGIC):
            return self._finalize(base64.b64encode(data).decode("ascii"))
        text = b"".join(data.split())
        with suppress(ValueError, MalformedBlock):
            raw = bytes.fromhex(text.decode("ascii"))
            read_inputs(raw)
            return raw
        with suppress(binascii.Error):
            if base64.b64decode(text, validate=True).startswith(PSBT_MAGIC):
                return self._finalize(text.decode("ascii"))
        raise UsageError("that is neither a PSBT (binary or Base64) nor a transaction in hex")

    def broadcast(self, raw: bytes, *, dry_run: bool = False) -> Sent:
        """Send a signed transaction that carries an input of the app; raises what `send` raises.

        One that the node has already is not sent again, and is no error.
        """
        opcode, payload = self._input_in(raw)
        self._check_node()
        if self._node_has(raw):
            self._say(f"{self.source} has the transaction already")
            return self._described(raw, opcode, payload, "sent", None)
        sent = self._judged(raw, opcode, payload, "checked", fee=self._fee_by_coins(raw))
        self._test(sent, is_signed=True)
        return sent if dry_run else self.hand_over(sent)

    def resume(self, raw: bytes, note: Callable[[Sent], None], *, is_sent: bool) -> Sent:
        """Return what an earlier run has sent, or hand over what it has signed, unless the node has it."""
        opcode, payload = self._input_in(raw)
        sent = self._described(raw, opcode, payload, "sent", self._fee_by_coins(raw))
        return sent if is_sent or self._node_has(raw) else self.hand_over(sent, note, is_first=False)

    def hand_over(
        self, sent: Sent, note: Callable[[Sent], None] | None = None, *, is_first: bool = True
    ) -> Sent:
        """Hand a signed transaction to the node, however often it takes; raises VirtualchainError.

        `is_first`: it never was before, so that a refusal shows that the node does not have it.
        """
        note = note or (lambda _: None)
        if is_first:
            note(replace(sent, status="signed"))
        failure: NodeUnavailable | None = None
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                if failure is None or not self._node_has(sent.raw):
                    self.source.rpc.call_once("sendrawtransaction", sent.raw.hex(), 0)
                break
            except NodeUnavailable as error:  # it may have arrived: the same bytes can be sent again
                failure = error
            except NodeError as error:
                answer = node_answer(error)
                if answer is None:
                    raise
                if is_known(answer[1]):
                    break
                if is_first and failure is None:
                    note(replace(sent, status="refused"))
                raise refusal(answer[1], self._facts(sent)) from error
        else:
            assert failure is not None, "nothing else ends all attempts"
            raise NodeUnavailable(
                f"{failure}; so it is not known whether it has transaction {sent.txid}: before you send this "
                f"input again, look for it with `bitcoin-cli getmempoolentry {sent.txid}`"
            ) from failure
        sent.status = "sent"
        note(sent)
        return sent

    # Steps.

    def _look(self) -> str | None:
        """Check that the database is the app's and the network's; return the current consensus hash."""
        if self.database is None:
            return None
        with self._excused("there is no preview"), views.snapshot(self.database) as connection:
            followed = views.network(connection)
            if followed is not None and followed != self.source.network.name:
                raise UsageError(
                    f"wrong network: the database follows {followed}, and {self.source} is on "
                    f"{self.source.network.name}"
                )
            name = self.contract.name
            views.apps(connection, [name])
            rows = views.digests(connection, None, [name])
            if not rows:
                raise UsageError(f"app {name} has taken no block yet: run `virtualchain sync` first")
            return str(rows[0]["consensus_hash"])
        return None

    def refresh(self) -> None:
        """Read the current consensus hash again, for orders that follow."""
        self._consensus_hash = self._look()

    def _check_node(self) -> None:
        """Raise NodeUnavailable while the node is syncing: it does not know yet what is spent."""
        with well_formed_of(self.source, "getblockchaininfo"):
            info = self.source.rpc.call("getblockchaininfo")
            blocks, headers = whole_number(info["blocks"]), whole_number(info["headers"])
            # A regtest node calls it the initial download until its tip is new.
            is_new = self.source.network.name == "regtest" and blocks == headers
            if info.get("initialblockdownload") and not is_new and not self.terms.anyway:
                raise NodeUnavailable(
                    f"{self.source} is still syncing, at block {blocks} of {headers}: send when it is done"
                )

    def _draft(self, order: Order) -> _Draft:
        """Write the payload, and read it back in transactions as the order's may be."""
        block_id = self.source.tip().block_id + 1
        failure: UsageError | None = None
        for around in self._around(order):
            try:
                payload = write_input(
                    self.contract,
                    order.opcode,
                    order.fields,
                    block_id=block_id,
                    consensus_hash=None if "consensus_hash" in order.fields else self._consensus_hash,
                    around=around,
                )
                script = write_output(self.contract, payload, around)
                return _Draft(order, payload, (SpentOutput(0, script), *order.payments))
            except UsageError as error:
                failure = failure or error
        assert failure is not None, "there is a transaction to try"
        raise UsageError(str(failure).removesuffix(AROUND_ADVICE)) from failure

    def _around(self, order: Order) -> Iterator[Around]:
        """Yield what the transaction may be: with the sender, or those that there can be, and with change."""
        named = None if order.sender is None else script_of(self.source, order.sender)
        others = [(output.value, output.script_pubkey) for output in order.payments]
        at = len(others) if order.change_at is None else max(order.change_at - 1, 0)
        for sender in _SENDERS if named is None else (named,):
            change = (_PLACEHOLDER, sender or BURN_SCRIPT[:3] + b"\x01" * 20 + BURN_SCRIPT[-2:])
            yield Around([*others[:at], change, *others[at:]], sender)
            yield Around(others, sender)

    def _fund(self, draft: _Draft) -> str:
        """Return the transaction with its coins as PSBT; raises UsageError if the fee is over the limit."""
        order, fee = draft.order, self.terms.fee
        inputs: list[Outpoint] = []
        if order.replaces is not None:
            inputs, fee = self._replaced(order.replaces, fee)
        elif order.sender is not None:
            inputs = [self._coin_of(order.sender)]
        psbt = self.wallet.fund(
            inputs, draft.outputs, fee=fee, change_at=order.change_at, change=order.change
        )
        self._limit_fee(self._fee_of(psbt))
        return psbt

    def _replaced(self, txid: str, fee: Fee) -> tuple[list[Outpoint], Fee]:
        """Return the coins of an unconfirmed transaction, and a fee that may replace it."""
        try:
            entry = self.source.rpc.call("getmempoolentry", txid)
            raw = bytes.fromhex(self.source.rpc.call("getrawtransaction", txid, 0))
        except MissingData as error:
            raise UsageError(
                f"transaction {txid} is not in the mempool of {self.source}, so nothing can replace it: "
                "it is confirmed, dropped, or of another network"
            ) from error
        with well_formed_of(self.source, "getmempoolentry"):
            paid = satoshi(entry["fees"]["descendant"])
            vsize = whole_number(entry["vsize"])
            info = self.source.rpc.call("getmempoolinfo")
            step = Decimal(satoshi(info.get("incrementalrelayfee", Decimal("0.00001")))) / 1000
            least = Decimal(paid) / vsize + step + 1
        if fee.rate is None:
            fee = Fee(least.quantize(Decimal("0.001")), None)
        return [(item.txid, item.vout) for item in read_inputs(raw)], fee

    def _limit_fee(self, fee: int | None) -> None:
        if fee is not None and fee > self.terms.most_fee:
            raise UsageError(
                f"the fee would be {write_amount(fee)} BTC, over the limit of "
                f"{write_amount(self.terms.most_fee)} BTC: choose a lower --fee-rate, or raise --max-fee"
            )

    def _finalize(self, psbt: str) -> bytes:
        """Return a signed PSBT's transaction; raises UsageError if signatures are missing."""
        rpc = self.source.rpc
        try:
            done = rpc.call("finalizepsbt", psbt)
            missing = [] if done["complete"] else rpc.call("analyzepsbt", psbt)["inputs"]
        except NodeError as error:
            answer = node_answer(error)
            if answer is None:
                raise
            raise UsageError(f"the PSBT cannot be read: {answer[1]}") from error
        with well_formed_of(self.source, "finalizepsbt"):
            if done["complete"]:
                return bytes.fromhex(done["hex"])
            numbers = ", ".join(str(n) for n, item in enumerate(missing) if not item.get("is_final"))
        raise UsageError(f"the PSBT has no complete signatures yet for its input {numbers}: sign it first")

    def _with_made_up_signatures(self, psbt: str) -> bytes:
        with well_formed_of(self.source, "decodepsbt"):
            decoded = self.source.rpc.call("decodepsbt", psbt)
            spendings = []
            for spending, known in zip(decoded["tx"]["vin"], decoded["inputs"], strict=True):
                spent = known.get("witness_utxo") or known["non_witness_utxo"]["vout"][spending["vout"]]
                script_sig, witness = unlock(
                    bytes.fromhex(spent["scriptPubKey"]["hex"]),
                    [bytes.fromhex(item["pubkey"]) for item in known.get("bip32_derivs", ())],
                    bytes.fromhex(known.get("redeem_script", {}).get("hex", "")),
                    bytes.fromhex(known.get("witness_script", {}).get("hex", "")),
                )
                spendings.append(
                    (spending["txid"], spending["vout"], script_sig, spending["sequence"], witness)
                )
            paid = [
                SpentOutput(satoshi(output["value"]), bytes.fromhex(output["scriptPubKey"]["hex"]))
                for output in decoded["tx"]["vout"]
            ]
        return write_transaction([TxIn(*item) for item in spendings], paid)

    def _fee_of(self, psbt: str) -> int | None:
        with well_formed_of(self.source, "decodepsbt"):
            fee = self.source.rpc.call("decodepsbt", psbt).get("fee")
            return None if fee is None else satoshi(fee)

    def _fee_by_coins(self, raw: bytes) -> int | None:
        tx = read_transaction(raw, self.source.network)
        spent = [(item.txid, item.vout) for item in tx.inputs]
        coins = self.source.coins(spent)
        if any(item not in coins for item in spent):
            return None
        return sum(coins[item].value for item in spent) - sum(output.value for output in tx.paid)

    def _input_in(self, raw: bytes) -> tuple[bytes, bytes]:
        """Return opcode and payload of the app's input in a transaction; raises UsageError without one."""
        tx = read_transaction(raw, self.source.network)
        find = self.contract.find_payload or last_op_return
        for payload in payloads(find, raw, tx.outputs):
            parts = split_payload(payload, self.contract.magics, self.contract.opcodes)
            if parts is not None:
                return parts[0], payload
        raise UsageError(
            f"transaction {tx.txid} is nothing to app {self.contract.name}: it has no input of it"
        )

    def _judged(
        self, raw: bytes, opcode: bytes, payload: bytes, status: str, *, fee: int | None, advice: str = ""
    ) -> Sent:
        """Preview a transaction; raises InputRefused, with `advice`, if the app would refuse its input."""
        sent = self._described(raw, opcode, payload, status, fee)
        self._limit_fee(fee)
        if self.database is None:
            return sent
        with self._excused("there is no preview"):
            raws = [*self._unconfirmed(raw), raw]
            verdicts = preview_transactions(self.database, self.contract, raws, source=self.source)
            ours = [item for item in verdicts if item.txid == sent.txid and item.payload is not None]
            if not ours:
                self._refuse(f"app {sent.app} does not see an input in the transaction")
            else:
                verdict = sent.verdict = ours[-1]
                if not verdict.is_accepted:
                    self._refuse(
                        f"app {sent.app} would refuse {opcode_text(opcode)} at {verdict.step}: "
                        f"{verdict.reason or 'it states no reason'}{advice}"
                    )
        return sent

    def _unconfirmed(self, raw: bytes) -> list[bytes]:
        """Return unconfirmed transactions that come before one: those below it, and the wallet's own.

        Ancestors are before descendants. What could only come instead of it, as it spends the same coins, is
        left out.
        """
        rpc = self.source.rpc
        parents = {item.txid for item in read_inputs(raw)}
        own = self.wallet.unconfirmed() if self._has_wallet() else set()
        counts: dict[str, int] = {}
        raws: dict[str, bytes] = {}
        for txid in parents | own:
            with suppress(MissingData), well_formed_of(self.source, "getmempoolancestors"):
                counts[txid] = whole_number(rpc.call("getmempoolentry", txid)["ancestorcount"])
                ancestors = rpc.call("getmempoolancestors", txid, True)
                counts |= {name: whole_number(entry["ancestorcount"]) for name, entry in ancestors.items()}
        for txid in sorted(counts, key=lambda txid: (counts[txid], txid)):
            with suppress(MissingData):  # a block may just have confirmed it
                raws[txid] = bytes.fromhex(rpc.call("getrawtransaction", txid, 0))
        gone = {(item.txid, item.vout) for item in read_inputs(raw)}
        kept = []
        for item in raws.values():
            txid, outputs = read_outputs(item)
            if gone.isdisjoint((spent.txid, spent.vout) for spent in read_inputs(item)):
                kept.append(item)
            else:
                gone |= {(txid, vout) for vout in range(len(outputs))}
        return kept

    def _has_wallet(self) -> bool:
        """Check whether a wallet is in use, or can be: what is broadcast needs none."""
        try:
            return bool(self.wallet)
        except (UsageError, NodeError):
            return False

    def _coin_of(self, address: str) -> Outpoint:
        """Return the coin from which an address sends.

        It is change of the sender's last unconfirmed input, if there is one: then no block can have this
        input before that one.
        """
        coins = self.wallet.coins_of(address)
        if not coins:
            raise UsageError(f"{address} has no coin to send from: pay something to it first ({self.wallet})")
        depths: dict[Outpoint, int] = {}
        for coin in coins:
            if not coin.confirmations:
                with suppress(MissingData, UsageError), well_formed_of(self.source, "getmempoolentry"):
                    txid, _ = coin.outpoint
                    depth = whole_number(self.source.rpc.call("getmempoolentry", txid)["ancestorcount"])
                    self._input_in(bytes.fromhex(self.source.rpc.call("getrawtransaction", txid, 0)))
                    depths[coin.outpoint] = depth
        return max(depths, key=lambda coin: (depths[coin], coin)) if depths else coins[0].outpoint

    def _refuse(self, message: str) -> None:
        if not self.terms.anyway:
            raise InputRefused(f"{message}; nothing was sent (--anyway sends it)")
        self._say(f"{message}; it is sent anyway")

    def _advice(self, order: Order) -> str:
        """Return what may help if the app refuses an order: its own consensus hash may be stale."""
        seen = order.fields.get("consensus_hash")
        if seen is None or self.database is None:
            return ""
        with views.snapshot(self.database) as connection:
            (app,) = views.apps(connection, [self.contract.name])
            last = app["block_id"]
            digests = views.digests_at(
                connection, self.contract.name, range(max(last - self.contract.window, 0), last + 1)
            )
        if any(item.consensus_hash == seen for item in digests):
            return ""
        return (
            f" (its consensus_hash is of none of the app's last {self.contract.window} blocks: leave "
            "consensus_hash out, and the current one is passed)"
        )

    def _described(self, raw: bytes, opcode: bytes, payload: bytes, status: str, fee: int | None) -> Sent:
        tx = read_transaction(raw, self.source.network)
        return Sent(
            app=self.contract.name,
            opcode=opcode,
            payload=payload,
            txid=tx.txid,
            raw=raw,
            status=status,
            fee=fee,
            vsize=virtual_size(raw),
            sender=self._sender_of(tx),
        )

    def _sender_of(self, tx: Transaction) -> str | None:
        first = (tx.inputs[0].txid, tx.inputs[0].vout)
        coin = self.source.coins([first]).get(first)
        addresses = () if coin is None else classify(coin.script_pubkey, self.source.network)[1]
        return addresses[0] if addresses else None

    def _test(self, sent: Sent, *, is_signed: bool) -> None:
        """Ask the node whether it would take a transaction; raise what `refusal` returns if it would not."""
        with well_formed_of(self.source, "testmempoolaccept"):
            (result,) = self.source.rpc.call("testmempoolaccept", [sent.raw.hex()], 0)
            if result["allowed"]:
                return
            reason = str(result.get("reject-details") or result["reject-reason"])
        if is_known(reason) or (not is_signed and UNSIGNED in reason):
            return
        raise refusal(reason, self._facts(sent))

    def _facts(self, sent: Sent) -> Facts:
        script = len(write_output(self.contract, sent.payload))
        return Facts(str(self.source), script, sent.fee or 0, sent.vsize, self._rates)

    def _rates(self) -> Rates:
        with well_formed_of(self.source, "getmempoolinfo"):
            info = self.source.rpc.call("getmempoolinfo")
            relay, now = satoshi(info["minrelaytxfee"]), satoshi(info["mempoolminfee"])
            return Rates(Decimal(relay) / 1000, Decimal(now) / 1000)

    def _node_has(self, raw: bytes) -> bool:
        """Check whether the node has a transaction: in its mempool, or in a block, with an unspent output."""
        tx = read_transaction(raw, self.source.network)
        try:
            self.source.rpc.call("getmempoolentry", tx.txid)
        except MissingData:
            return any(
                self.source.rpc.call("gettxout", tx.txid, vout, False) is not None
                for vout in range(len(tx.paid))
            )
        return True

    def _excused(self, what: str) -> "_Excused":
        return _Excused(self._say, what, self.terms.anyway)


class _Excused:
    """Turns errors into remarks if what follows is done anyway; all but those of an app's refusal."""

    def __init__(self, say: Say, what: str, anyway: bool) -> None:
        self._say, self._what, self._anyway = say, what, anyway

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not self._anyway or not isinstance(error, VirtualchainError) or isinstance(error, InputRefused):
            return False
        self._say(f"{self._what}: {error}")
        return True


def _unsigned(raw: bytes) -> bytes:
    """Return a transaction without anything that its inputs show."""
    stripped = [item._replace(script_sig=b"", witness=()) for item in read_inputs(raw)]
    return write_transaction(stripped, read_outputs(raw)[1])


def virtual_size(raw: bytes) -> int:
    """Compute a serialized transaction's size in vbytes (BIP 141)."""
    return (3 * len(without_witness(raw)) + len(raw) + 3) // 4
