"""How pages write values: numbers and times as people do, and text from the chain so that it is harmless.

Whatever comes from the chain or from whoever asks goes through `shown`: nothing in it can hide, reorder its
neighbors, or look like something that it is not.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from markupsafe import Markup, escape

from virtualchain.app.fields import opcode_text
from virtualchain.bitcoin.parameters import COIN

CUT: Final = 80
"""Characters of a value that a list shows."""
WHOLE: Final = 20_000
"""Characters of a value that its own page shows."""
_TAIL: Final = 8
"""Characters at the end of a hash that are always shown."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_IGNORED: Final = frozenset(
    (
        0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0xFFFC,
        *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
    )
)  # fmt: skip
"""Letters and marks that nobody sees."""
_HEX: Final = re.compile(r"[0-9a-f]{32,128}", re.ASCII)
_SPACE: Final = Markup('<span class="esc">\\x20</span>')
"""A space at the end of a value, which nobody would see."""
_TOKEN: Final = re.compile(r"(?=.*[0-9])[\\A-Za-z0-9:]{20,}", re.ASCII)
"""What reads best in letters of one width: hashes, addresses, bytes."""
_OPENINGS: Final = frozenset("a an as at block format history no not the there this to too write".split())
_PAIRS: Final = 8
"""Fields of an op that a list shows."""
_MARKS: Final = 2
"""Accents on one letter that are shown as such; more of them would run over the lines around them."""
_DIGITS: Final = 300
"""Digits of an integer that are grouped: longer ones are text."""
_NOTHING: Final = "\N{EN DASH}"
_FEW: Final = 1_000_000
"""Satoshis up to which an amount is written in satoshis."""


def shown(value: object, limit: int | None = None, *, lines: bool = False) -> Markup:
    r"""Write text that may come from anyone; after `limit` characters it ends with an ellipsis.

    What cannot be seen, or changes how its neighbors are read, becomes an escape such as \u202e. Line breaks
    are kept if `lines`.
    """
    text = value if isinstance(value, str) else str(value)
    is_cut = limit is not None and len(text) > limit
    if is_cut:
        text = text[:limit]
    if text.isascii() and text.isprintable():
        return escape(f"{text}…") if is_cut else escape(text)
    parts: list[str] = []
    marks = 0
    for character in text:
        if character == "\n" and lines:
            parts.append("\n")
            continue
        category = _category(character)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if category in _INVISIBLE or category == "!" or marks > _MARKS:
            parts.append(f'<span class="esc">{_escaped(character)}</span>')
        else:
            parts.append(str(escape(character)))
    if is_cut:
        parts.append("…")
    return Markup("".join(parts))  # noqa: S704 - each part is escaped


@lru_cache(maxsize=4096)
def _category(character: str) -> str:
    """Return the general category of a character; "!" if it is one that nobody sees."""
    category = unicodedata.category(character)
    if ord(character) in _IGNORED or (category == "Zs" and character != " "):
        return "!"
    return category


def _escaped(character: str) -> str:
    code = ord(character)
    short = {0x00: "\\0", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(code)
    return short or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def text(value: object, limit: int = CUT) -> Markup:
    """Write a value of a row or a field, cut to `limit` characters; null and empty text are visible."""
    if value is None:
        return Markup('<span class="null">null</span>')
    written = plain(value)
    if written == "":
        return Markup('<span class="null">empty</span>')
    if written[:1] == " " or written[-1:] == " ":
        middle = written.strip(" ")
        before = len(written) - len(written.lstrip(" "))
        after = len(written) - before - len(middle)
        inner = _SPACE * min(before, limit) + shown(middle, limit) + _SPACE * min(after, limit)
        return Markup(f'<span class="text" dir="ltr">{inner}</span>')  # noqa: S704 - each part is escaped
    kind = "text token" if _TOKEN.fullmatch(written[:200]) else "text"
    content = shown(written, limit)
    return Markup(f'<span class="{kind}" dir="ltr">{content}</span>')  # noqa: S704 - the content is escaped


def whole(value: object, limit: int = WHOLE) -> Markup:
    """Write a value with all of it: what is long or has lines stands in a box, folded if it is very long."""
    if value is None or plain(value) == "":
        return text(value)
    written = plain(value)
    if len(written) <= 2 * CUT and "\n" not in written:
        return text(written, len(written))
    box = Markup('<pre tabindex="0">{}</pre>').format(shown(written, limit, lines=True))
    if len(written) > limit:
        box += Markup('<p class="age">The first {} of {} characters.</p>').format(
            number(limit), number(len(written))
        )
    if len(written) <= 10 * CUT:
        return box
    summary = Markup('{} <span class="age">({} characters)</span>').format(
        shown(written, CUT), number(len(written))
    )
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, box)


def sentence(message: str) -> str:
    """Write a message of virtualchain's as a sentence of its own; a name at its beginning stays as it is."""
    first = message.split(" ", 1)[0]
    begun = message[:1].upper() + message[1:] if first in _OPENINGS else message
    return begun if not begun or begun.endswith((".", "?", "!")) else f"{begun}."


def message(words: str, limit: int = 2000) -> Markup:
    """Write a message of virtualchain's as a sentence, with its commands, which are in backticks, as such."""
    parts = sentence(words)[:limit].split("`")
    if len(parts) % 2 == 0:
        return shown("`".join(parts))
    return Markup().join(
        Markup("<code>{}</code>").format(shown(part)) if place % 2 else shown(part)
        for place, part in enumerate(parts)
    )


def cell(value: object, limit: int = CUT) -> Markup:
    """Write a value of a row in a table: a long run of hex digits like a hash, all else cut to `limit`."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return short_hash(value)
    return text(value, limit)


def brief(fields: Any, limit: int = CUT) -> Markup:  # noqa: ANN401 - JSON
    """Write an op's fields, or a row's key, on one line: names and values, each cut."""
    if isinstance(fields, list) and len(fields) == 1:
        fields = fields[0]
    if not isinstance(fields, dict):
        return text(fields, limit)
    pairs = [
        Markup('<span class="pair"><span class="age">{}</span> {}</span>').format(
            shown(name, 40), cell(value, limit)
        )
        for name, value in list(fields.items())[:_PAIRS]
    ]
    if len(fields) > _PAIRS:
        pairs.append(Markup('<span class="age">and {} more</span>').format(len(fields) - _PAIRS))
    return Markup(" ").join(pairs) if pairs else Markup('<span class="null">no fields</span>')


def difference(change: Mapping[str, Any]) -> Markup:
    """Write what a change did to a row: the columns that differ, or all if it was created or deleted."""
    old, new = change["old"] or {}, change["new"] or {}
    names = [name for name in dict.fromkeys((*old, *new)) if name not in change["key"] or not (old and new)]
    parts = []
    for name in names:
        if old and new and old.get(name) == new.get(name):
            continue
        before = Markup("<del>{}</del>").format(cell(old[name])) if name in old else Markup()
        after = Markup("<ins>{}</ins>").format(cell(new[name])) if name in new else Markup()
        parts.append(
            Markup('<span class="pair"><span class="age">{}</span> {} {}</span>').format(
                shown(name, 60), before, after
            )
        )
    return Markup(" ").join(parts)


def plain(value: object) -> str:
    r"""Return a value as text, as PostgreSQL writes it: bytes as \x00ff, nested values as JSON."""
    match value:
        case str():
            return value
        case bytes() | bytearray() | memoryview():
            return f"\\x{bytes(value).hex()}"
        case bool():
            return "true" if value else "false"
        case dict() | list():
            return pretty(value)
        case Decimal():
            return f"{value:f}" if value.is_finite() and abs(value.adjusted()) < _DIGITS else str(value)
    return str(value)


def pretty(value: object) -> str:
    """Write JSON over several lines if it is nested, with all digits of its numbers."""
    try:
        flat = json.dumps(value, ensure_ascii=False, default=_json_number)
        return (
            flat
            if len(flat) <= CUT
            else json.dumps(value, ensure_ascii=False, indent=2, default=_json_number)
        )
    except RecursionError:
        return "(nested too deeply to be shown)"


def _json_number(value: object) -> object:
    return plain(value)


def number(value: Any) -> str:  # noqa: ANN401 - whatever counts
    """Write a number with separators between thousands."""
    if value is None:
        return _NOTHING
    return f"{value:,}"


def counted(count: int, thing: str) -> str:
    """Write a number of things, with the plural if there is not exactly one."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def short_hash(value: str | None, *, zeros: bool = False) -> Markup:
    """Write a hash so that its middle is hidden, but copied with it; of a block hash, its zeros as well."""
    if not value:
        return Markup('<span class="null">none</span>')
    if len(value) <= 2 * _TAIL:
        return Markup("<code>{}</code>").format(shown(value))
    kind = "hash tail-only" if zeros else "hash"
    head, tail = shown(value[:-_TAIL]), shown(value[-_TAIL:])
    parts = f'<span class="head">{head}</span><span>{tail}</span>'
    return Markup(f'<code class="{kind}" title="{escape(value)}">{parts}</code>')  # noqa: S704 - escaped


def whole_hash(value: str | None) -> Markup:
    """Write a hash with all its digits, to be copied."""
    if not value:
        return Markup('<span class="null">none</span>')
    return Markup('<code class="whole" data-copy>{}</code>').format(shown(value))


def as_bytes(value: object) -> bytes:
    r"""Return bytes, also those that are written as \x00ff or plain hex."""
    if isinstance(value, str):
        try:
            return bytes.fromhex(value.removeprefix("\\x"))
        except ValueError:
            return value.encode("utf-8", "replace")
    return b"" if value is None else bytes(value)  # type: ignore[call-overload]


def opcode(value: object, payload: object = b"") -> str:
    """Write an opcode: a printable character as itself, any other byte as hex."""
    return opcode_text(as_bytes(value), None if payload is None else b"")


def readable(value: object) -> str | None:
    """Return bytes as text if they are UTF-8 of which nearly all can be printed; None otherwise."""
    content = as_bytes(value)
    try:
        decoded = content.decode()
    except UnicodeDecodeError:
        return None
    visible = sum(character.isprintable() or character in "\n\t" for character in decoded)
    return decoded if decoded and visible >= 0.8 * len(decoded) else None


def size(count: int | None) -> str:
    """Write a number of bytes."""
    if count is None:
        return _NOTHING
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return counted(count, "byte") if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("there is a largest unit")


def amount(satoshis: int | None, unit: str = "BTC") -> str:
    """Write an amount: few satoshis as such, more of them, and those of other chains, with all digits."""
    if satoshis is None:
        return _NOTHING
    satoshis = int(satoshis)
    if abs(satoshis) < _FEW and unit == "BTC":
        return f"{satoshis:,} sat"
    whole_coins, rest = divmod(abs(satoshis), COIN)
    return f"{'-' if satoshis < 0 else ''}{whole_coins:,}.{rest:08d} {unit}".rstrip()


def duration(value: object) -> str:
    """Write a duration, of seconds or an interval, with about two digits."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else _seconds(value)
    if seconds is None:
        return _NOTHING if value is None else str(value)
    if seconds < 9.95:
        return f"{seconds * 1000:.0f} ms" if seconds < 0.995 else f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    days, minutes = divmod(round(seconds / 60), 24 * 60)
    hours, minutes = divmod(minutes, 60)
    if days > 9:
        return f"{days:,} days"
    if days:
        return f"{counted(days, 'day')} {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _seconds(value: object) -> float | None:
    """Read seconds, or an interval such as 1 day 02:03:04.5."""
    if isinstance(value, int | float | Decimal):
        return float(value)
    words = str(value).split()
    try:
        days = float(words[0]) if len(words) > 1 and words[1].startswith("day") else 0.0
        hours, minutes, seconds = words[-1].split(":") if ":" in words[-1] else ("0", "0", "0")
        return days * 86_400 + float(hours) * 3600 + float(minutes) * 60 + float(seconds)
    except (ValueError, IndexError):
        return None


def as_time(value: object) -> datetime | None:
    """Read a time, as JSON or PostgreSQL writes it; None if Python has no such time."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def moment(value: object, *, age: bool = True, seconds: bool = False) -> Markup:
    """Write a time, and how long ago that is."""
    if value is None:
        return Markup('<span class="null">unknown</span>')
    time = as_time(value)
    if time is None:
        return text(value)
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC" if seconds else "%Y-%m-%d %H:%M UTC")
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    element = Markup(f'<time datetime="{exact}">{written}</time>')  # noqa: S704 - both are made here
    return element + Markup(' <span class="age">{}</span>').format(ago(time)) if age else element


def ago(value: object) -> str:
    """Write how long ago a time is."""
    time = as_time(value)
    if time is None:
        return ""
    seconds = (datetime.now(UTC) - time).total_seconds()
    if seconds < -60:
        return f"in {duration(-seconds)}"
    return "just now" if seconds < 60 else f"{duration(seconds)} ago"


FILTERS: Final = {
    "shown": shown, "message": message, "text": text, "cell": cell, "brief": brief,
    "difference": difference, "whole": whole, "plain": plain, "pretty": pretty, "number": number,
    "counted": counted, "hash": short_hash, "whole_hash": whole_hash, "opcode": opcode,
    "readable": readable, "size": size, "amount": amount, "duration": duration, "moment": moment,
    "ago": ago, "bytes": as_bytes,
}  # fmt: skip
