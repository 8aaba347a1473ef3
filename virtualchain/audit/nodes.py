"""Compare two deployments: the first block at which they differ, then the input or op, then the row.

Only views are read, so a reader's role suffices on both sides, and each side is seen at one moment. Blocks
and consensus hashes commit to all that came before them: the first different one is found by bisection. State
hashes and inputs may differ for a while only, so they are compared by digests over stretches of blocks, which
each server computes of its own rows. Then only the stretch that differs is read.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from psycopg import sql

from virtualchain.audit.different_row import DifferentRow
from virtualchain.audit.fault import OnProgress, ignore
from virtualchain.audit.sides import SIDES, Side, opened
from virtualchain.consensus import ops_hash
from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.store.sql import queries

_Q = queries("nodes")
_STRETCH: Final = 1000
"""Blocks whose digests are compared at once."""
_DECLARED: Final = {
    "version": "version",
    "fingerprint": "declared rules",
    "code_digest": "code",
    "rule": "payload rule",
    "magics": "magics",
    "first_block_id": "first block",
    "valid_window": "window",
}
"""What makes two apps of one name different, with the words for it."""
_SHOWN: Final = frozenset({"version", "first_block_id"})
"""Of these, both values are shown."""
_PLACE: Final = (
    "version",
    "fingerprint",
    "code_digest",
    "block_id",
    "consensus_hash",
    "state_hash",
    "status",
)
"""What is reported of an app on each side."""
_JUDGED: Final = {"is_judged": sql.SQL(_Q["is_judged"])}


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first block at which two nodes differ, and what does."""

    what: str
    """tape, rules, state, or log: then the digests of one node do not follow from what it has."""
    block_id: int
    message: str
    txindex: int | None = None
    txid: str | None = None
    input: Json | None = None
    """The first input that differs, as each side has it; null on a side that does not have it."""
    op: Json | None = None
    """The first candidate that the sides judged differently, with both verdicts."""
    row: Json | None = None
    """The first different row: table, key if it is known, and the row on each side."""


@dataclass(slots=True)
class AppComparison:
    """An app that both nodes have."""

    name: str
    sides: dict[str, Json]
    """By side: version, fingerprint, code digest, and the last block with its digests."""
    first: int | None = None
    last: int | None = None
    """The blocks that were compared; None if there is none that both have taken."""
    divergence: Divergence | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Comparison:
    """Two nodes, compared as far as both have come."""

    network: str
    tapes: dict[str, Json]
    """By side: the first and the last block of the tape."""
    fork: Divergence | None = None
    """The first block of the tapes that is not the same; apps are compared below it."""
    apps: list[AppComparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def divergence(self) -> Divergence | None:
        """What differs first: of the apps, in the order of their names, or else the tapes."""
        divergences = [app.divergence for app in self.apps if app.divergence is not None]
        return min(divergences, key=lambda each: each.block_id, default=self.fork)


def compare_nodes(
    url: str, other: str, apps: Sequence[str] = (), on_progress: OnProgress = ignore
) -> Comparison:
    """Compare the deployment at `url` with the one at `other`: all apps that both have, or those named.

    Different tips are not a difference: what both have taken is compared. Raises UsageError if they follow
    different networks or an app that is named is not on both, StoreError if a database cannot be read.
    """
    with ExitStack() as stack:
        sides = tuple(stack.enter_context(opened(each)) for each in (url, other))
        return _Nodes(sides, on_progress).compare(apps)


class _Nodes:
    """Both sides of a comparison."""

    def __init__(self, sides: tuple[Side, ...], on_progress: OnProgress) -> None:
        self._sides = sides
        self._on_progress = on_progress

    def compare(self, names: Sequence[str]) -> Comparison:
        """Compare the tapes, then the apps."""
        chains = [next(iter(side.rows("deployment")), None) for side in self._sides]
        here, there = chains
        if here is None or there is None:
            raise UsageError("one of the databases follows no chain yet: there is nothing to compare")
        if here != there:
            raise UsageError(
                f"the nodes follow different networks: here {here['network']} (genesis "
                f"{here['genesis_hash']}), there {there['network']} (genesis {there['genesis_hash']})"
            )
        tapes = [side.rows("tape")[0] for side in self._sides]
        result = Comparison(here["network"], dict(zip(SIDES, tapes, strict=True)))
        result.fork = self._fork(tapes, result.notes)
        apps = [{row["name"]: row for row in side.rows("apps")} for side in self._sides]
        for name in dict.fromkeys(names) or sorted(apps[0].keys() | apps[1].keys()):
            missing = [side for side, known in zip(SIDES, apps, strict=True) if name not in known]
            if missing and names:
                raise UsageError(f"there is no app {name} {' and none '.join(missing)}")
            if missing:
                result.notes.append(f"app {name} is not installed {missing[0]}: it was not compared")
                continue
            rows = [known[name] for known in apps]
            last = None if result.fork is None else result.fork.block_id - 1
            result.apps.append(_App(self._sides, rows, tapes, last, self._on_progress).compare())
        return result

    def _fork(self, tapes: Sequence[Json], notes: list[str]) -> Divergence | None:
        """Find the first block of the tapes that differs: each block commits to the one before it."""
        bounds = _common([tape["first"] for tape in tapes], [tape["last"] for tape in tapes])
        if bounds is None:
            notes.append("the tapes have no block in common: only digests were compared")
            return None
        first, last = bounds
        block_id = self._first_different(first, last, lambda side, at: side.value("block_hash", block_id=at))
        if block_id > last:
            return None
        hashes = [side.value("block_hash", block_id=block_id) for side in self._sides]
        where = (
            "the first that both have"
            if block_id == first
            else f"block {block_id - 1} is the last common one"
        )
        return Divergence(
            "tape",
            block_id,
            f"the nodes are on different chains ({where}): it is {hashes[0]} here, {hashes[1]} there",
        )

    def _first_different(self, first: int, last: int, value: Callable[[Side, int], object]) -> int:
        return _bisect(first, last, lambda at: value(self._sides[0], at) != value(self._sides[1], at))


def _bisect(first: int, last: int, differs: Callable[[int], bool]) -> int:
    """Return the first block at which something differs that then differs for good; else `last` + 1."""
    if not differs(last):
        return last + 1
    while first < last:
        middle = (first + last) // 2
        if differs(middle):
            last = middle
        else:
            first = middle + 1
    return last


def _common(firsts: Sequence[int | None], lasts: Sequence[int | None]) -> tuple[int, int] | None:
    """Return the range that two ranges have in common; None if there is none."""
    begins, ends = [each for each in firsts if each is not None], [each for each in lasts if each is not None]
    if len(begins) < len(firsts) or len(ends) < len(lasts) or max(begins) > min(ends):
        return None
    return max(begins), min(ends)


class _App:
    """An app on both nodes."""

    def __init__(
        self,
        sides: tuple[Side, ...],
        rows: Sequence[Json],
        tapes: Sequence[Json],
        last: int | None,
        on_progress: OnProgress,
    ) -> None:
        self._sides = sides
        self._rows = rows
        self._tapes = tapes
        self._last = last
        self._on_progress = on_progress
        self._name: str = rows[0]["name"]
        self._magics = sorted({bytes.fromhex(magic) for row in rows for magic in row["magics"]})
        places = [{key: row[key] for key in _PLACE} for row in rows]
        self._result = AppComparison(self._name, dict(zip(SIDES, places, strict=True)))

    def compare(self) -> AppComparison:
        """Find the first block at which the sides differ, and describe what does."""
        result = self._result
        lasts = [row["block_id"] for row in self._rows]
        if self._last is not None:
            lasts = [None if last is None else min(last, self._last) for last in lasts]
        bounds = _common([row["first_digests"] for row in self._rows], lasts)
        if bounds is None:
            result.notes.append("there is no block that both have taken")
            return result
        first, last = result.first, result.last = bounds
        split = _bisect(first, last, self._consensus_differs)
        different = self._first_stretch("digest_sums", "digests", first, split - 1, _differs)
        block_id = split if different is None else different
        taped = self._taped(min(block_id, last))
        if taped is not None:
            wrong = self._first_stretch("input_sums", "inputs", *taped, _input_differs)
            if wrong is not None:
                result.divergence = self._input_divergence(wrong)
                return result
        if block_id <= last:
            result.divergence = self._divergence(block_id)
        elif parts := self._declared_differently():
            result.notes.append(f"all is the same, but these differ: {', '.join(parts)}")
        return result

    def _consensus_differs(self, block_id: int) -> bool:
        hashes = [side.value("consensus_hash", app=self._name, block_id=block_id) for side in self._sides]
        return hashes[0] != hashes[1] or hashes[0] is None

    def _taped(self, last: int) -> tuple[int, int] | None:
        """Return the blocks up to one in which both tapes have the app's inputs."""
        firsts = [
            max(row["base_block_id"] + 1, tape["first"], side.value("pruned_below") or 0)
            if tape["first"] is not None
            else None
            for row, tape, side in zip(self._rows, self._tapes, self._sides, strict=True)
        ]
        bounds = _common(firsts, [last, last])
        if bounds is None:
            self._result.notes.append("the tapes do not have its inputs in common: they were not compared")
        return bounds

    # Looking for the block

    def _first_stretch(
        self,
        sums: str,
        query: str,
        first: int,
        last: int,
        differs: Callable[[Json | None, Json | None], bool],
    ) -> int | None:
        """Return the first block of a range in which the sides' rows differ; None if there is none."""
        if first > last:
            return None
        place = {"app": self._name, "magics": self._magics}
        parts = {**_JUDGED, "size": sql.Literal(_STRETCH)}
        both = [side.each(sums, parts, first=first, last=last, **place) for side in self._sides]
        for (number, *ours), (_, *theirs) in zip(*both, strict=True):
            end = min((number + 1) * _STRETCH - 1, last)
            self._on_progress(f"{self._name}: {query} of block {end:,}")
            if ours[0] == theirs[0] and not _value_differs(ours[1], theirs[1]):
                continue
            for pair in self._pairs(query, max(number * _STRETCH, first) if number else first, end):
                if differs(*pair):
                    return int((pair[0] or pair[1] or {})["block_id"])
        return None

    def _pairs(self, query: str, first: int, last: int) -> Iterator[tuple[Json | None, Json | None]]:
        """Yield the rows of both sides beside each other, in chain order."""
        place: Json = {"app": self._name, "magics": self._magics, "first": first, "last": last}
        ours, theirs = (
            {(row["block_id"], row.get("txindex")): row for row in side.rows(query, _JUDGED, **place)}
            for side in self._sides
        )
        for key in sorted(ours.keys() | theirs.keys()):
            yield ours.get(key), theirs.get(key)

    # Describing what differs

    def _input_divergence(self, block_id: int) -> Divergence:
        pairs = self._pairs("inputs", block_id, block_id)
        ours, theirs = next(pair for pair in pairs if _input_differs(*pair))
        known = ours or theirs or {}
        if ours is None or theirs is None:
            message = f"the tape has no such input {SIDES[0] if ours is None else SIDES[1]}"
        else:
            columns = [name for name in ours if _value_differs(ours[name], theirs[name])]
            message = f"the tapes have different inputs there: {', '.join(columns)} differ"
        return Divergence(
            "tape",
            block_id,
            message,
            txindex=known["txindex"],
            txid=known["txid"],
            input=dict(zip(SIDES, (ours, theirs), strict=True)),
        )

    def _divergence(self, block_id: int) -> Divergence:
        """Describe a block in which both sides have the same inputs, as far as both have them."""
        digests = [
            next(iter(side.rows("digests", app=self._name, first=block_id, last=block_id)), None)
            for side in self._sides
        ]
        ours, theirs = digests
        verdicts = [self._verdicts(side, block_id) for side in self._sides]
        for side, digest, judged in zip(SIDES, digests, verdicts, strict=True):
            fault = _log_fault(digest, [op for op in judged.values() if op["canonical"] is not None])
            if fault is not None:
                return Divergence("log", block_id, f"{side}, {fault}: `virtualchain verify` shows more")
        assert ours is not None
        assert theirs is not None
        for key in sorted(verdicts[0].keys() | verdicts[1].keys()):
            a, b = (judged.get(key) for judged in verdicts)
            if _verdict_of(a) != _verdict_of(b):
                return self._op_divergence(block_id, a, b)
        if ours["ops_hash"] is None or theirs["ops_hash"] is None:
            what = "they began with different consensus hashes" + self._other_rules()
            return Divergence("rules", block_id, what)
        if ours["consensus_hash"] != theirs["consensus_hash"]:
            message = (
                "both have the same ops and the same digests before, but other consensus hashes: those of "
                "one are damaged, or it began elsewhere; `virtualchain verify` on both shows which"
            )
            what = "rules" if self._declared_differently() else "log"
            return Divergence(what, block_id, message + self._other_rules())
        return self._state_divergence(block_id)

    def _verdicts(self, side: Side, block_id: int) -> dict[tuple[int, int], Json]:
        rows = side.rows("verdicts", app=self._name, block_id=block_id)
        return {(row["txindex"], row["payload_index"]): row for row in rows}

    def _op_divergence(self, block_id: int, ours: Json | None, theirs: Json | None) -> Divergence:
        known = ours or theirs or {}
        verdicts = [None if row is None else row["verdict"] for row in (ours, theirs)]
        words = [
            "not a candidate" if each is None else "accepted" if "accepted" in each else "rejected"
            for each in verdicts
        ]
        how = f"{words[0]} here, {words[1]} there"
        if words == ["accepted", "accepted"]:
            how = "accepted on both, but as other ops"
        op = {"payload_index": known["payload_index"], **dict(zip(SIDES, verdicts, strict=True))}
        return Divergence(
            "rules",
            block_id,
            f"the same transaction of the same tape was judged differently: {how}{self._other_rules()}",
            txindex=known["txindex"],
            txid=known["txid"],
            op=op,
        )

    def _declared_differently(self) -> list[str]:
        """Name what the sides' apps declare differently, and whether their code differs."""
        ours, theirs = self._rows
        return [
            words + (f" {ours[key]} here, {theirs[key]} there" if key in _SHOWN else "")
            for key, words in _DECLARED.items()
            if ours[key] != theirs[key]
        ]

    def _other_rules(self) -> str:
        """Describe what may be why the sides differ."""
        parts = self._declared_differently()
        if not parts:
            return (
                "; version, declared rules and code are the same: the app is not deterministic, or what one "
                "node has was changed, which `virtualchain verify --deep` on both shows"
            )
        return f"; these differ: {', '.join(parts)}"

    def _state_divergence(self, block_id: int) -> Divergence:
        """Name the first different row after a block whose ops are the same."""
        message = "both accepted the same ops, but have other rows afterwards" + self._other_rules()
        tables = [
            {row["name"]: row for row in side.rows("views", schema=app["schema"])}
            for side, app in self._both()
        ]
        if not tables[0] and not tables[1]:
            return Divergence(
                "state", block_id, f"{message}; its state is a file of its own, which has no rows"
            )
        for name in sorted(tables[0].keys() | tables[1].keys()):
            columns = [known.get(name, {}).get("columns") for known in tables]
            if columns[0] != columns[1]:
                return Divergence("state", block_id, f"{message}; table {name} is not the same on both")
        unread = sorted({name for known in tables for name, row in known.items() if not row["is_readable"]})
        if unread:
            self._result.notes.append(f"this role may not read {', '.join(unread)} on both sides")
        readable = [name for name in tables[0] if name not in unread]
        row, note = DifferentRow(self._sides, self._rows).find(block_id, tables[0], readable)
        return Divergence("state", block_id, message if note is None else f"{message}; {note}", row=row)

    def _both(self) -> Iterator[tuple[Side, Json]]:
        return zip(self._sides, self._rows, strict=True)


def _differs(ours: Json | None, theirs: Json | None) -> bool:
    return ours != theirs


def _input_differs(ours: Json | None, theirs: Json | None) -> bool:
    if ours is None or theirs is None:
        return True
    return any(_value_differs(ours[name], theirs[name]) for name in ours)


def _value_differs(ours: object, theirs: object) -> bool:
    """Return whether two values that both sides know differ: only apps that need heights have them kept."""
    return ours is not None and theirs is not None and ours != theirs


def _verdict_of(row: Json | None) -> object:
    """Return what must be the same on both sides: the reason of a rejection is text for people."""
    if row is None:
        return None
    return row["vtxindex"], row["canonical"], {**row["verdict"], "reason": None}


def _log_fault(digests: Json | None, ops: Sequence[Json]) -> str | None:
    """Describe what is wrong with a block's digests, as far as its ops show."""
    if digests is None:
        return "its digests are missing"
    if digests["ops_hash"] is None:
        return None
    in_order = sorted(ops, key=lambda op: op["vtxindex"])
    computed = ops_hash(text for op in in_order for text in op["canonical"])
    if computed != digests["ops_hash"]:
        return f"its ops hash is {digests['ops_hash']}, but its ops have {computed}"
    return None
