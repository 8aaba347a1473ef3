"""A second opinion on the rules of Runes: all of them in one place, written from the specification alone.

It shares no code with `virtualchain.examples.runes`, and prefers the specification's own words and loops to
speed. docs/protocol/runes.md has the sections that the comments name.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.testing.wire import read_transaction

U32, U64, U128 = 2**32 - 1, 2**64 - 1, 2**128 - 1
START = {"mainnet": 840_000, "testnet3": 2_520_000, "testnet4": 0, "signet": 0, "regtest": 0}
Id = tuple[int, int]


def first(letters: int) -> int:
    """Return the first number of a length."""
    return sum(26**power for power in range(1, letters))


RESERVED = first(27)


# Reading (sections 2 and 3).


def read_script(script: bytes) -> list[bytes | int | None]:
    """List pushes as bytes, other opcodes as ints, and a read error as a last None."""
    parts: list[bytes | int | None] = []
    while script:
        code, script = script[0], script[1:]
        if code >= 79:
            parts.append(code)
            continue
        size = code
        if code > 75:
            width = {76: 1, 77: 2, 78: 4}[code]
            if len(script) < width:
                return [*parts, None]
            size, script = int.from_bytes(script[:width], "little"), script[width:]
        if len(script) < size:
            return [*parts, None]
        parts.append(script[:size])
        script = script[size:]
    return parts


def read_integers(payload: bytes) -> list[int] | None:
    """Return all integers; None if one is invalid."""
    integers, groups = [], []
    for byte in payload:
        groups.append(byte & 127)
        if len(groups) > 19 or (len(groups) == 19 and byte & 0x7C):
            return None
        if byte < 128:
            integers.append(sum(group << 7 * place for place, group in enumerate(groups)))
            groups = []
    return None if groups else integers


def cenotaph(flaw: str, rune: int | None = None, mint: Id | None = None) -> dict[str, Any]:
    """Return a malformed message."""
    return {"flaw": flaw, "rune": rune, "mint": mint}


def read_message(scripts: list[bytes]) -> dict[str, Any] | None:
    """Return what a transaction says: a dict, with `flaw` if it is a cenotaph; None if nothing."""
    for script in scripts:
        parts = read_script(script)
        if parts[:2] == [0x6A, 0x5D]:
            break
    else:
        return None
    pushed = b""
    for part in parts[2:]:
        if not isinstance(part, bytes):
            return cenotaph("invalid-script" if part is None else "opcode")
        pushed += part
    integers = read_integers(pushed)
    if integers is None:
        return cenotaph("varint")
    return _message(integers, len(scripts))


def _message(integers: list[int], nout: int) -> dict[str, Any]:  # noqa: C901 - in one place, on purpose
    values: list[tuple[int, int]] = []
    edicts: list[tuple[Id, int, int]] = []
    flaws = []
    while integers:
        if integers[0] == 0:
            flaws += _edicts(integers[1:], nout, edicts)
            break
        if len(integers) == 1:
            flaws.append("truncated-field")
            break
        values.append((integers[0], integers[1]))
        integers = integers[2:]

    def take(tag: int, count: int = 1, most: int = U128) -> list[int] | None:
        here = [place for place, (each, _) in enumerate(values) if each == tag][:count]
        taken = [values[place][1] for place in here]
        if len(taken) < count or max(taken) > most:
            return None
        for place in reversed(here):
            del values[place]
        return taken

    def one(tag: int, most: int = U128) -> int | None:
        return (take(tag, 1, most) or [None])[0]  # type: ignore[list-item]

    flags = one(2) or 0
    etching: dict[str, Any] | None = None
    if flags % 2:
        etching = {
            "divisibility": one(1, 38),
            "premine": one(6),
            "rune": one(4),
            "spacers": one(3, 2**27 - 1),
        }
        symbol = next((value for tag, value in values if tag == 5), None)
        is_scalar = symbol is not None and (symbol < 0xD800 or 0xDFFF < symbol <= 0x10FFFF)
        etching["symbol"] = one(5) if is_scalar else None
        etching["turbo"] = bool(flags & 4)
        etching["terms"] = None
        if flags & 2:
            names = ("cap", "amount", "height_start", "height_end", "offset_start", "offset_end")
            etching["terms"] = {
                name: one(tag, U128 if tag < 12 else U64)
                for name, tag in zip(names, range(8, 20, 2), strict=True)
            }
        terms = etching["terms"] or {}
        supply = (etching["premine"] or 0) + (terms.get("cap") or 0) * (terms.get("amount") or 0)
        if supply > U128:
            flaws.append("supply-overflow")
        flags = flags >> 3 << 3
    pair = [value for tag, value in values if tag == 20][:2]
    is_id = len(pair) == 2 and pair[0] <= U64 and pair[1] <= U32 and not (pair[0] == 0 and pair[1] > 0)
    mint = tuple(take(20, 2) or ()) if is_id else None
    pointer = one(22, min(U32, nout - 1))
    if flags:
        flaws.append("unrecognized-flag")
    if any(tag % 2 == 0 for tag, _ in values):
        flaws.append("unrecognized-even-tag")
    if flaws:
        return {"flaw": flaws[0], "rune": None if etching is None else etching["rune"], "mint": mint}
    return {"edicts": edicts, "etching": etching, "mint": mint, "pointer": pointer}


def _edicts(integers: list[int], nout: int, edicts: list[tuple[Id, int, int]]) -> list[str]:
    block = tx = 0
    for at in range(0, len(integers), 4):
        group = integers[at : at + 4]
        if len(group) < 4:
            return ["trailing-integers"]
        tx = group[1] if group[0] else tx + group[1]
        block += group[0]
        if block > U64 or tx > U32 or (block == 0 and tx > 0):
            return ["edict-rune-id"]
        if group[3] > nout:
            return ["edict-output"]
        edicts.append(((block, tx), group[2], group[3]))
    return []


# State (sections 4 to 9).


UNCOMMON_GOODS = {
    "block": 1,
    "etching": "00" * 32,
    "number": 0,
    "rune": 2055900680524219742,
    "spacers": 128,
    "divisibility": 0,
    "symbol": 0x29C9,
    "terms": {
        "amount": 1,
        "cap": U128,
        "height_start": 840_000,
        "height_end": 1_050_000,
        "offset_start": None,
        "offset_end": None,
    },
    "premine": 0,
    "mints": 0,
    "burned": 0,
    "turbo": True,
    "timestamp": 0,
}
"""The rune that is there before mainnet's first block (section 10)."""


@dataclass
class Model:
    """The state of one chain, and its blocks."""

    network: str
    entries: dict[Id, dict[str, Any]] = field(default_factory=dict)
    balances: dict[str, dict[Id, int]] = field(default_factory=dict)
    heights: dict[str, int] = field(default_factory=dict)
    """Of the blocks that hold transactions, by txid."""

    def __post_init__(self) -> None:
        if self.network == "mainnet":
            self.entries[1, 0] = deepcopy(UNCOMMON_GOODS)

    def minimum(self, height: int) -> int:
        """Return the smallest number that can be etched."""
        start, at = START[self.network], min(height + 1, U32)
        if at < start:
            return first(13)
        step = (at - start) // 17500
        if step >= 12:
            return 0
        high, low = first(13 - step), first(12 - step)
        return high - (high - low) * ((at - start) % 17500) // 17500

    def commits(self, raw: bytes, number: int, height: int, scripts: dict[str, tuple[bytes, int]]) -> bool:
        """Check the witnesses for a push of the number."""
        expected = number.to_bytes(16, "little").rstrip(b"\0")
        for spending in read_inputs(raw):
            items = list(spending.witness)
            if len(items) >= 2 and items[-1][:1] == b"\x50":
                del items[-1]
            if len(items) < 2:
                continue
            script, mined = scripts[f"{spending.txid}:{spending.vout}"]
            is_taproot = len(script) == 34 and script[:2] == b"\x51\x20"
            if expected in read_script(items[-2]) and mined <= height - 5 and is_taproot:
                return True
        return False

    def execute(  # noqa: C901, PLR0912 - in one place, on purpose
        self, raw: bytes, height: int, tx: int, time: int, spent: dict[str, tuple[bytes, int]]
    ) -> None:
        """Execute one transaction; `spent` has script and height of what it spends."""
        parsed = read_transaction(raw)
        txid, scripts = parsed.txid[::-1].hex(), [script for _, script in parsed.outputs]
        message = read_message(scripts)
        unalloc: dict[Id, int] = {}
        for spending in read_inputs(raw):
            for rune, amount in self.balances.pop(f"{spending.txid}:{spending.vout}", {}).items():
                unalloc[rune] = unalloc.get(rune, 0) + amount
        if message is not None and message["mint"] is not None:
            entry = self.entries.get(message["mint"])
            if entry is not None and self.can_mint(entry, height):
                entry["mints"] += 1
                rune = message["mint"]
                unalloc[rune] = unalloc.get(rune, 0) + (entry["terms"]["amount"] or 0)
        own = None
        if message is not None and self.can_etch(message, raw, height, tx, spent):
            own = (height, tx)
            etching = message.get("etching") or {}
            unalloc[own] = unalloc.get(own, 0) + (etching.get("premine") or 0)
        received: dict[int, dict[Id, int]] = {}

        def give(output: int, rune: Id, amount: int) -> None:
            amount = min(amount, unalloc.get(rune, 0))
            unalloc[rune] = unalloc.get(rune, 0) - amount
            held = received.setdefault(output, {})
            held[rune] = held.get(rune, 0) + amount

        payable = [output for output, script in enumerate(scripts) if script[:1] != b"\x6a"]
        for name, amount, output in (message or {}).get("edicts", []):
            named = own if name == (0, 0) else name
            if named is None or not unalloc.get(named):
                continue
            rune = named
            if output < len(scripts):
                give(output, rune, amount or unalloc[rune])
            elif amount:
                for each in payable:
                    give(each, rune, amount)
            elif payable:
                share, more = divmod(unalloc[rune], len(payable))
                for place, each in enumerate(payable):
                    give(each, rune, share + (place < more))
        if own is not None:
            assert message is not None
            self.add_entry(own, message, txid, time)
        burned: dict[Id, int] = {}
        rest = None
        if message is None or "flaw" not in message:
            rest = (message or {}).get("pointer")
            rest = (payable or [None])[0] if rest is None else rest  # type: ignore[list-item]
        for rune, amount in list(unalloc.items()):
            if rest is None:
                burned[rune] = burned.get(rune, 0) + amount
            else:
                give(rest, rune, amount)
        for output, amounts in received.items():
            for rune, amount in amounts.items():
                if output not in payable:
                    burned[rune] = burned.get(rune, 0) + amount
                elif amount:
                    self.balances.setdefault(f"{txid}:{output}", {})[rune] = amount
        for rune, amount in burned.items():
            if amount:
                self.entries[rune]["burned"] += amount
        self.heights[txid] = height

    def can_mint(self, entry: dict[str, Any], height: int) -> bool:
        """Check a rune's terms."""
        terms = entry["terms"]
        if terms is None:
            return False
        limits: dict[str, list[int]] = {"start": [], "end": []}
        for side, values in limits.items():
            if terms[f"height_{side}"] is not None:
                values.append(terms[f"height_{side}"])
            if terms[f"offset_{side}"] is not None:
                values.append(min(entry["block"] + terms[f"offset_{side}"], U64))
        is_open = all(height >= start for start in limits["start"]) and all(
            height < end for end in limits["end"]
        )
        return is_open and entry["mints"] < (terms["cap"] or 0)

    def can_etch(
        self, message: dict[str, Any], raw: bytes, height: int, tx: int, spent: dict[str, tuple[bytes, int]]
    ) -> bool:
        """Check whether the etching of a message is accepted."""
        if "flaw" in message:
            rune = message["rune"]
            if rune is None:
                return False
        elif message["etching"] is None:
            return False
        else:
            rune = message["etching"]["rune"]
        if rune is None:
            return True
        is_taken = any(entry["rune"] == rune for entry in self.entries.values())
        is_free = self.minimum(height) <= rune < RESERVED and not is_taken
        return is_free and tx > 0 and self.commits(raw, rune, height, spent)

    def add_entry(self, own: Id, message: dict[str, Any], txid: str, time: int) -> None:
        """Add a rune."""
        etching = message.get("etching") or {"rune": message.get("rune")}
        nameless = RESERVED + own[0] * 2**32 + own[1]
        self.entries[own] = {
            "block": own[0],
            "etching": txid,
            "number": len(self.entries),
            "rune": nameless if etching["rune"] is None else etching["rune"],
            "spacers": etching.get("spacers") or 0,
            "divisibility": etching.get("divisibility") or 0,
            "symbol": etching.get("symbol"),
            "terms": etching.get("terms"),
            "premine": etching.get("premine") or 0,
            "mints": 0,
            "burned": 0,
            "turbo": etching.get("turbo", False),
            "timestamp": time,
        }
