"""Sending an input: composed, funded and signed by the node's wallet, previewed, and handed to the node.

A transaction is made once. Whatever happens to the connection while it is handed over, only these very bytes
are ever sent again, so an input cannot be sent twice.
"""

import base64
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.app.encoding import AROUND_ADVICE, Around, find_opcode, write_input, write_output
from virtualchain.app.fields import opcode_text
from virtualchain.bitcoin.node.answers import whole_number
from virtualchain.bitcoin.node.client import node_answer
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.payload import last_op_return, payloads, split_payload
from virtualchain.bitcoin.transaction import read_outputs, read_transaction
from virtualchain.engine.preview import preview_transactions
from virtualchain.errors import (
    InputRefused,
    MissingData,
    NodeError,
    NodeUnavailable,
    UsageError,
    VirtualchainError,
    quoted,
)
from virtualchain.model import SpentOutput
from virtualchain.reading import views
from virtualchain.writing.amounts import write_amount
from virtualchain.writing.orders import DEFAULT_TERMS, Order, Say, Sent, Terms, one_line
from virtualchain.writing.policy import UNSIGNED, Facts, is_known, refusal
from virtualchain.writing.psbt import finalize, with_made_up_signatures, without_signatures
from virtualchain.writing.relay import (
    fee_of,
    has_transaction,
    rates,
    rejection,
    replacement,
    require_synced,
    sender_of,
    spenders,
    unconfirmed_before,
    virtual_size,
)
from virtualchain.writing.wallet import Outpoint, Wallet, open_wallet, script_of, well_formed_of

BURN_SCRIPT: Final = b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"
"""Pay-to-public-key-hash of the all-zero hash, for which nobody has a key."""
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
        coins: Sequence[Outpoint] = (),
        change: str | None = None,
        change_at: int | None = None,
        replaces: str | None = None,
    ) -> Order:
        """Check what a user asks for: addresses, positions and amounts; raises UsageError."""
        payments = [SpentOutput(amount, script_of(self.source, address)) for address, amount in to]
        if burn is not None:
            payments.append(SpentOutput(burn, BURN_SCRIPT))
        for payment in payments:
            self.source.network.require_possible(payment.value)
        for address in (sender, change):
            if address is not None:
                script_of(self.source, address)
        if change_at is not None and change_at > len(payments) + 1:
            raise UsageError(
                f"the change cannot be output {change_at}: there are {len(payments) + 1} others, from 0"
            )
        if replaces is not None and not _TXID.fullmatch(replaces):
            raise UsageError(f"{quoted(replaces)} is not a transaction id: 64 lower-case hex digits")
        if sum((replaces is not None, sender is not None, bool(coins))) > 1:
            raise UsageError("a sender, coins, or what is replaced decide on the first input: name one")
        return Order(
            find_opcode(self.contract, opcode),
            fields,
            tuple(payments),
            sender,
            tuple(coins),
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
        self._require_synced()
        psbt = self._fund(draft)
        raw = with_made_up_signatures(self.source, psbt)
        sent = self._judged(
            raw,
            order.opcode,
            draft.payload,
            "unsigned",
            advice=self._advice(order),
        )
        self._test(sent, order.replaces, is_signed=False)
        return replace(sent, raw=without_signatures(raw)), base64.b64decode(psbt)

    def draft(self, order: Order) -> bytes:
        """Return the transaction that the wallet would send, with signatures that are made up.

        It is not judged. Raises what `send` raises for a wrong request, and for the wallet.
        """
        draft = self._draft(order)
        self._require_synced()
        return with_made_up_signatures(self.source, self._fund(draft))

    def send(
        self, order: Order, *, dry_run: bool = False, note: Callable[[Sent], None] | None = None
    ) -> Sent:
        """Send an input, unless the app would refuse it; `dry_run` does everything but that.

        `note` is called with the signed transaction before it is handed over, and again when it is sent or
        certainly is not: its status is signed, sent or refused. Raises UsageError for a wrong request,
        InputRefused if the app would refuse the input, NodeError and StoreError.
        """
        draft = self._draft(order)
        self._require_synced()
        self.wallet.require_signing()
        psbt = self._fund(draft)
        raw = finalize(self.source, self.wallet.sign(psbt))
        sent = self._judged(
            raw,
            order.opcode,
            draft.payload,
            "checked",
            advice=self._advice(order),
        )
        self._test(sent, order.replaces, is_signed=True)
        return sent if dry_run else self.hand_over(sent, note)

    def broadcast(self, raw: bytes, *, dry_run: bool = False) -> Sent:
        """Send a signed transaction that carries an input of the app; raises what `send` raises.

        One that the node has already is not sent again, and is no error.
        """
        opcode, payload = self._input_in(raw)
        self._require_synced()
        if has_transaction(self.source, raw):
            self._say(f"{self.source} has the transaction already")
            return self._described(raw, opcode, payload, "sent")
        sent = self._judged(raw, opcode, payload, "checked")
        self._test(sent, None, is_signed=True)
        return sent if dry_run else self.hand_over(sent)

    def resume(self, raw: bytes, note: Callable[[Sent], None], *, is_sent: bool) -> Sent:
        """Return what an earlier run has sent, or hand over what it has signed, unless the node has it."""
        opcode, payload = self._input_in(raw)
        sent = self._described(raw, opcode, payload, "sent")
        if is_sent or has_transaction(self.source, raw):
            return sent
        return self.hand_over(sent, note, is_first=False)

    def hand_over(
        self, sent: Sent, note: Callable[[Sent], None] | None = None, *, is_first: bool = True
    ) -> Sent:
        """Hand a signed transaction to the node, however often it takes; raises VirtualchainError.

        `is_first`: it never was before, so that a refusal shows that the node does not have it.
        """
        note = note or (lambda _: None)
        if is_first:
            note(replace(sent, status="signed"))
        try:
            self._hand_over(sent, note, is_first=is_first)
        except KeyboardInterrupt:
            self._say(f"interrupted: look for transaction {sent.txid} before you send this input again")
            raise
        sent.status = "sent"
        note(sent)
        return sent

    # Steps.

    def _hand_over(self, sent: Sent, note: Callable[[Sent], None], *, is_first: bool) -> None:
        failure: NodeUnavailable | None = None
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                if failure is None or not has_transaction(self.source, sent.raw):
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

    def _require_synced(self) -> None:
        if not self.terms.anyway:
            require_synced(self.source)

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
        """Yield what the transaction may be: with the sender, then those that there can be, and with change.

        A sender that the app does not take is for the preview to find, which judges the real transaction.
        """
        named = [] if order.sender is None else [script_of(self.source, order.sender)]
        others = [(output.value, output.script_pubkey) for output in order.payments]
        at = len(others) if order.change_at is None else max(order.change_at - 1, 0)
        for sender in (*named, *_SENDERS):
            change = (_PLACEHOLDER, sender or BURN_SCRIPT[:3] + b"\x01" * 20 + BURN_SCRIPT[-2:])
            yield Around([*others[:at], change, *others[at:]], sender)
            yield Around(others, sender)

    def _fund(self, draft: _Draft) -> str:
        """Return the transaction with its coins as PSBT."""
        order, fee = draft.order, self.terms.fee
        inputs = list(order.coins)
        for txid, vout in inputs:
            if self.source.rpc.call("gettxout", txid, vout, True) is None:
                raise UsageError(
                    f"coin {txid}:{vout} cannot be spent: it is spent already, or never was made"
                )
        if order.replaces is not None:
            inputs, fee = replacement(self.source, order.replaces, fee)
        elif order.sender is not None:
            inputs = [self._coin_of(order.sender)]
        return self.wallet.fund(
            inputs, draft.outputs, fee=fee, change_at=order.change_at, change=order.change
        )

    def _limit_fee(self, fee: int | None) -> None:
        if fee is not None and fee > self.terms.most_fee:
            network = self.source.network
            raise UsageError(
                f"the fee would be {write_amount(fee, network)}, over the limit of "
                f"{write_amount(self.terms.most_fee, network)}: choose a lower --fee-rate, or raise --max-fee"
            )

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

    def _judged(self, raw: bytes, opcode: bytes, payload: bytes, status: str, *, advice: str = "") -> Sent:
        """Preview a transaction; raises InputRefused, with `advice`, if the app would refuse its input."""
        sent = self._described(raw, opcode, payload, status)
        self._limit_fee(sent.fee)
        if self.database is None:
            return sent
        with self._excused("there is no preview"):
            own = self.wallet.unconfirmed() if self._has_wallet() else set()
            raws = [*unconfirmed_before(self.source, raw, own), raw]
            verdicts = preview_transactions(self.database, self.contract, raws, source=self.source)
            ours = [item for item in verdicts if item.txid == sent.txid and item.payload is not None]
            if not ours:
                self._refuse(sent, f"app {sent.app} does not see an input in the transaction")
            else:
                verdict = sent.verdict = ours[-1]
                if not verdict.is_accepted:
                    self._refuse(
                        sent,
                        f"app {sent.app} would refuse {opcode_text(opcode)} at {verdict.step}: "
                        f"{one_line(verdict.reason or 'it states no reason')}{advice}",
                    )
        return sent

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

    def _refuse(self, sent: Sent, message: str) -> None:
        if not self.terms.anyway:
            unsent = replace(sent, status="unsent")
            raise InputRefused(f"{message}; nothing was sent (--anyway sends it)", unsent.as_dict())
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

    def _described(self, raw: bytes, opcode: bytes, payload: bytes, status: str) -> Sent:
        return Sent(
            app=self.contract.name,
            opcode=opcode,
            payload=payload,
            txid=read_outputs(raw)[0],
            raw=raw,
            status=status,
            fee=fee_of(self.source, raw),
            vsize=virtual_size(raw),
            sender=sender_of(self.source, raw),
        )

    def _test(self, sent: Sent, replaces: str | None, *, is_signed: bool) -> None:
        """Ask the node whether it would take a transaction; raise what `refusal` returns if it would not.

        The only transaction that it may replace is the one that it is to replace.
        """
        others = spenders(self.source, sent.raw) - {replaces}
        if others and not self.terms.anyway:
            raise NodeError(
                f"transaction {min(others)} in the mempool of {self.source} spends the same coins, and would "
                "be replaced: if the wallet sent it meanwhile, run this again, and it chooses others"
            )
        reason = rejection(self.source, sent.raw)
        if reason is None or is_known(reason) or (not is_signed and UNSIGNED in reason):
            return
        raise refusal(reason, self._facts(sent))

    def _facts(self, sent: Sent) -> Facts:
        script = len(write_output(self.contract, sent.payload))
        source = self.source
        return Facts(str(source), source.network, script, sent.fee or 0, sent.vsize, lambda: rates(source))

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
