"""`virtualchain.send`: one input, from Python."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.errors import UsageError
from virtualchain.store.database import resolve
from virtualchain.writing.amounts import read_amount, read_fee_rate
from virtualchain.writing.orders import MOST_FEE, Say, Sent, Terms
from virtualchain.writing.sending import InputSender
from virtualchain.writing.waiting import Wait
from virtualchain.writing.wallet import Fee, Outpoint

Amount = int | str
"""Satoshi, or text as on the command line: `0.001` bitcoins, `546sat`."""


def send(
    app: object,
    opcode: bytes | str | None = None,
    fields: Mapping[str, object] | None = None,
    /,
    *,
    to: Mapping[str, Amount] | Iterable[tuple[str, Amount]] = (),
    burn: Amount | None = None,
    sender: str | None = None,
    coins: Sequence[Outpoint] = (),
    change: str | None = None,
    change_at: int | None = None,
    replaces: str | None = None,
    wallet: str | None = None,
    fee_rate: Decimal | int | str | None = None,
    target: int | None = None,
    max_fee: Amount = MOST_FEE,
    anyway: bool = False,
    dry_run: bool = False,
    wait: bool = False,
    timeout: float | None = None,
    database: str | None = None,
    bitcoin: str | NodeSource = "http://127.0.0.1:8332",
    cookie: Path | None = None,
    say: Say = lambda _: None,
    **more_fields: object,
) -> Sent:
    """Send one input of an app, paid for and signed by a wallet of the node, and return what became of it.

    Fields are passed by name; those with the names of these parameters, in the mapping `fields`. The outputs
    after the payload's are `to`, by address, `burn`, and the change, or have the change at `change_at`.
    `sender` is the address of the first input; the change returns to it, or to `change`. `coins` are the
    first inputs, if they are to be certain ones: txid and number. `replaces` names the
    unconfirmed transaction whose coins are spent instead. `fee_rate` is in satoshi per vbyte. `database` is
    that of a deployment with the app; None is the embedded one. With `wait`, returns when the app has
    accepted or refused the input, when it is lost, or after `timeout` seconds: see `Sent.status`. `say` gets
    what happens meanwhile.

    Raises UsageError for a wrong request, InputRefused if the app would refuse the input, which is then not
    sent unless `anyway`, Halted, NodeError and StoreError.
    """
    contract = read_contract(app)
    rate = None if fee_rate is None else read_fee_rate(str(fee_rate))
    if rate is not None and target is not None:
        raise UsageError("send takes fee_rate or target, not both")
    terms = Terms(Fee(rate, target), _satoshi(max_fee), anyway)
    url = resolve(database)
    payments = to.items() if isinstance(to, Mapping) else to
    with (
        _source(bitcoin, cookie) as source,
        closing(InputSender(contract, source, database=url, wallet=wallet, terms=terms, say=say)) as through,
    ):
        began = source.tip()
        order = through.order(
            opcode,
            {**(fields or {}), **more_fields},
            to=[(address, _satoshi(amount)) for address, amount in payments],
            burn=None if burn is None else _satoshi(burn),
            sender=sender,
            coins=coins,
            change=change,
            change_at=change_at,
            replaces=replaces,
        )
        sent = through.send(order, dry_run=dry_run)
        if wait and not dry_run:
            Wait(sent, contract, source, url, began=began, say=say).until_decided(timeout)
        return sent


def _satoshi(amount: Amount) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int | str):
        raise UsageError(f"an amount is an int, in satoshi, or text, not a {type(amount).__name__}")
    return read_amount(amount if isinstance(amount, str) else f"{amount}sat")


@contextmanager
def _source(bitcoin: str | NodeSource, cookie: Path | None) -> Iterator[NodeSource]:
    if isinstance(bitcoin, NodeSource):
        yield bitcoin
        return
    with closing(open_source(bitcoin, cookie)) as source:
        assert isinstance(source, NodeSource), "it is a node"
        yield source
