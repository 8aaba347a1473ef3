"""Many inputs from a CSV file: all checked before the first is sent, and none sent twice.

A file of results notes each transaction before it is handed to the node, and again afterwards. A second run
skips what was sent, and hands over the very transaction that an interrupted run had signed.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from virtualchain.app.encoding import find_opcode
from virtualchain.app.field_text import read_fields
from virtualchain.bitcoin.transaction import read_transaction, write_transaction
from virtualchain.bitcoin.unsigned import unlock
from virtualchain.engine.preview import preview_transactions
from virtualchain.errors import InputRefused, UsageError, VirtualchainError, quoted
from virtualchain.model import SpentOutput, TxIn
from virtualchain.writing.amounts import read_amount, split_payment, write_amount
from virtualchain.writing.orders import Order, Say, Sent, one_line
from virtualchain.writing.policy import LongChain
from virtualchain.writing.sending import InputSender
from virtualchain.writing.wallet import REPLACEABLE, Own

OPCODE: Final = "opcode"
"""The column with the opcode; all others that do not begin with -- are fields."""
TO: Final = "--to"
BURN: Final = "--burn"
SENDER: Final = "--sender"
"""The columns that are options of each line. There may be several payments in one, with blanks between."""
_MOST_SHOWN: Final = 10
"""Refused lines that an error shows."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the file."""

    number: int
    """Where it is in the file, from 1; the header is before it."""
    values: Mapping[str, str]
    """By column; empty cells are left out."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what it says."""
        return hashlib.sha256(json.dumps(sorted(self.values.items())).encode()).hexdigest()


def read_lines(data: bytes) -> list[Line]:
    """Read a CSV file in UTF-8 with a header; raises UsageError if it is not one."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        lines = []
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UsageError(
                    f"line {reader.line_num} has {len(cells)} cells, and its header {len(header)}"
                )
            values = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
            lines.append(Line(reader.line_num, values))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"the batch is not CSV in UTF-8: {error}") from error
    _check_header(header)
    if not lines:
        raise UsageError("the batch has no line after its header")
    return lines


def _check_header(header: Sequence[str]) -> None:
    repeated = sorted({name for name in header if header.count(name) > 1})
    unknown = [name for name in header if name.startswith("--") and name not in {TO, BURN, SENDER}]
    if not any(header):
        raise UsageError(f"the batch has no header: its first line names the columns, {OPCODE} and fields")
    if repeated or "" in header:
        raise UsageError(f"two columns of the batch are named {quoted(repeated[0] if repeated else '')}")
    if unknown:
        raise UsageError(
            f"the batch has a column {unknown[0]}: those that begin with -- are {TO}, {BURN}, {SENDER}"
        )


class Batch:
    """The lines of a file, and what became of those that were sent before."""

    def __init__(
        self,
        sender: InputSender,
        lines: Sequence[Line],
        *,
        from_address: str | None = None,
        change: str | None = None,
        say: Say = lambda _: None,
    ) -> None:
        """Read every line's order; `from_address` sends those that name no sender. Raises UsageError."""
        self._sender = sender
        self._lines = lines
        self._from = from_address
        self._change = change
        self._say = say
        self._orders = {line.number: self._order(line) for line in lines}

    def check(self, done: "Results") -> None:
        """Check all lines that are not sent yet: payloads, coins, and what the app makes of them together.

        Raises UsageError, and InputRefused if the app would refuse one.
        """
        left = [line for line in self._lines if done.of(line) is None]
        if not left:
            return
        payloads = []
        for line in left:
            with _at(line):
                payloads.append(self._sender.check(self._orders[line.number]))
        self._check_coins(left)
        if self._sender.database is not None:
            self._foresee(left, payloads)

    def run(self, done: "Results", *, waits: bool = False) -> Iterator[tuple[Line, Sent]]:
        """Send all lines in order, and yield what became of each; those sent before are `sent` again.

        With `waits`, blocks are waited for if the node takes no more transactions on top of unconfirmed ones.
        Raises what `InputSender.send` raises, with the line; what was sent before stays sent.
        """
        for sent, line in enumerate(self._lines):
            try:
                with _at(line):
                    yield line, self._send(line, done, waits=waits)
            except VirtualchainError as error:
                rest = f"{sent} of {len(self._lines)} inputs are sent; run it again to send the others"
                _reword(error, f"{error}; {rest}")
                raise

    def _order(self, line: Line) -> Order:
        contract = self._sender.contract
        with _at(line):
            opcode = find_opcode(contract, line.values.get(OPCODE))
            texts = {
                name: text
                for name, text in line.values.items()
                if name != OPCODE and not name.startswith("--")
            }
            burn = line.values.get(BURN)
            return self._sender.order(
                opcode,
                read_fields(contract, opcode, texts),
                to=[split_payment(text) for text in line.values.get(TO, "").split()],
                burn=None if burn is None else read_amount(burn),
                sender=line.values.get(SENDER, self._from),
                change=self._change,
            )

    def _check_coins(self, lines: Sequence[Line]) -> None:
        paid = sum(output.value for line in lines for output in self._orders[line.number].payments)
        wallet = self._sender.wallet
        wallet.require_signing()
        ready, _ = wallet.balance()
        network = self._sender.source.network
        if paid >= ready:
            raise UsageError(
                f"{wallet} has not enough coins: it can spend {write_amount(ready, network)}, and the "
                f"outputs of {len(lines)} inputs take {write_amount(paid, network)} and their fees"
            )
        for line in lines:
            address = self._orders[line.number].sender
            with _at(line):
                if address is not None and not wallet.coins_of(address):
                    raise UsageError(f"{address} has no coin to send from: pay something to it first")

    def _foresee(self, lines: Sequence[Line], outputs: Sequence[tuple[SpentOutput, ...]]) -> None:
        """Judge all inputs together, in transactions that are made up; raise InputRefused."""
        sender = self._sender
        assert sender.database is not None, "the caller has checked it"
        owners: dict[str | None, Own] = {}
        raws: list[bytes] = []
        spent: dict[tuple[str, int], SpentOutput] = {}
        numbers: dict[str, int] = {}
        for line, paid in zip(lines, outputs, strict=True):
            address = self._orders[line.number].sender
            if address not in owners:
                named = address or sender.wallet.some_address()
                if named is None:
                    return
                owners[address] = sender.wallet.own(named)
            own = owners[address]
            coin = (hashlib.sha256(f"{line.number} {line.digest}".encode()).hexdigest(), 0)
            script_sig, witness = unlock(own.script, own.keys, own.redeem_script)
            change = SpentOutput(10_000, own.script)
            raw = write_transaction([TxIn(*coin, script_sig, REPLACEABLE, witness)], [*paid, change])
            spent[coin] = SpentOutput(sum(item.value for item in paid) + 20_000, own.script, 2)
            raws.append(raw)
            numbers[read_transaction(raw, sender.source.network).txid] = line.number
        verdicts = preview_transactions(
            sender.database, sender.contract, raws, source=sender.source, spent=spent
        )
        refused = [
            f"line {numbers[verdict.txid]} at {verdict.step}: {one_line(str(verdict.reason))}"
            for verdict in verdicts
            if not verdict.is_accepted and verdict.payload is not None
        ]
        if not refused:
            return
        shown = "; ".join(refused[:_MOST_SHOWN])
        more = f"; and {len(refused) - _MOST_SHOWN} more" if len(refused) > _MOST_SHOWN else ""
        message = f"app {sender.contract.name} would refuse {len(refused)} of the inputs: {shown}{more}"
        if not sender.terms.anyway:
            raise InputRefused(f"{message}; nothing was sent (--anyway sends them)")
        self._say(message)

    def _send(self, line: Line, done: "Results", *, waits: bool) -> Sent:
        sender, order = self._sender, self._orders[line.number]
        before = done.of(line)
        if before is not None:
            return sender.resume(before.raw, lambda sent: done.add(line, sent), is_sent=before.is_sent)
        while True:
            try:
                sender.refresh()
                return sender.send(order, note=lambda sent: done.add(line, sent))
            except LongChain as error:
                if not waits:
                    raise
                self._say(f"line {line.number}: {error}")
                self._wait_for_block()

    def _wait_for_block(self) -> None:
        tip = self._sender.source.tip()
        while self._sender.source.tip() == tip:
            self._sender.source.wait(1.0)


@contextmanager
def _at(line: Line) -> Iterator[None]:
    """Name the line in errors."""
    try:
        yield
    except VirtualchainError as error:
        if not str(error).startswith("line "):
            _reword(error, f"line {line.number}: {error}")
        raise


def _reword(error: VirtualchainError, message: str) -> None:
    """Replace an error's message, and leave the rest of it as it is."""
    error.args = (message, *error.args[1:])


@dataclass(frozen=True, slots=True)
class _Noted:
    digest: str
    raw: bytes
    is_sent: bool


class Results:
    """The file that notes what was signed and sent: a JSON object a line, of which the last one counts."""

    def __init__(self, file: IO[str], noted: dict[int, _Noted]) -> None:
        self._file = file
        self._noted = noted
        self.added: set[int] = set()
        """The lines that were noted since it was opened."""

    def of(self, line: Line) -> _Noted | None:
        """Return what was noted of a line; raises UsageError if it says something else now."""
        noted = self._noted.get(line.number)
        if noted is not None and noted.digest != line.digest:
            raise UsageError(
                f"line {line.number} of the batch was sent already, and says something else now: put new "
                "lines into a new file"
            )
        return noted

    def add(self, line: Line, sent: Sent) -> None:
        """Note a transaction, safely on the disk: signed, sent, or refused by the node."""
        entry = {
            "line": line.number,
            "digest": line.digest,
            "status": sent.status,
            "txid": sent.txid,
            "raw": sent.raw.hex(),
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.added.add(line.number)
        _note(self._noted, entry)


def _note(noted: dict[int, _Noted], entry: Mapping[str, Any]) -> None:
    number, status = int(entry["line"]), entry["status"]
    if status not in {"signed", "sent", "refused"}:
        raise ValueError(f"the status {status!r}")
    if status == "refused":
        noted.pop(number, None)
    else:
        noted[number] = _Noted(str(entry["digest"]), bytes.fromhex(entry["raw"]), status == "sent")


@contextmanager
def open_results(path: Path) -> Iterator[Results]:
    """Open a file of results, or make one; raises UsageError if it is not one, or another run has it open."""
    try:
        with path.open("a+", encoding="utf-8") as file:
            _lock(file, path)
            file.seek(0)
            yield Results(file, _read_results(file.read(), path))
    except OSError as error:
        raise UsageError(f"{path} cannot be used for results: {error.strerror or error}") from error


def _read_results(text: str, path: Path) -> dict[int, _Noted]:
    noted: dict[int, _Noted] = {}
    *lines, last = text.split("\n")
    if last:  # a line that was cut off: it was written before anything was handed over
        raise UsageError(f"{path} ends in the middle of a line: remove that line, of which nothing was sent")
    for line in lines:
        try:
            _note(noted, json.loads(line))
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{path} is not a file of results: name another with --results") from error
    return noted


def _lock(file: IO[str], path: Path) -> None:
    try:
        import fcntl  # noqa: PLC0415 - not every system has it
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UsageError(f"another run is writing {path}: wait until it has ended") from error
