"""Cases for comparing checkers: good proofs in every spelling, and proofs changed in every part.

A part is changed in the object or in the text. In the object, the trusted hash often follows the change, so
that only the checks that no hash makes are left.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.support import independent_proofs as rules
from tests.support.proof_cases import (
    NAMES,
    TEXTS,
    chain_proof,
    hex_of,
    made_op,
    op_list,
    op_proof,
    row_proof,
    state_root,
)


@dataclass(frozen=True, eq=False)
class Case:
    """A file, the hash that is trusted, and what else is known, under the names of the options."""

    name: str
    data: bytes
    trusted: str
    known: dict[str, Any] = field(default_factory=dict)


Make = Callable[[Random], tuple[Any, str]]
"""Makes a good proof and its trusted hash."""
_MAKES: list[Make] = [op_proof, op_list, chain_proof, row_proof]


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yield so many cases: about a third good, the others changed."""
    random = Random(seed)
    for _ in range(count):
        make = random.choices(_MAKES, [3, 2, 4, 5])[0]
        proof, trusted = make(random)
        known = _known(random, proof) if random.random() < 0.4 else {}
        change = random.choices([spelled, changed, rewritten], [5, 8, 4])[0]
        name, data, trusted = change(random, proof, trusted)
        yield Case(f"{make.__name__}, {name}", data, trusted, known)


def _known(random: Random, proof: Any) -> dict[str, Any]:
    """Return options, of which most agree with the proof."""
    right: dict[str, Any]
    if "state" in proof:
        state = proof["state"]
        right = {"app": state["app"], "at": state["block_id"], "table": proof["table"], "key": proof["key"]}
    else:
        network = random.choice(["regtest", "mainnet", "signet-01234567"])
        right = {"app": proof["app"], "at": proof["hops"][0]["block_id"], "network": network}
        right["absent"] = made_op(random).hex()
        if "spv" in proof:
            last = rules.sha256d(bytes.fromhex(proof["spv"]["headers"][-1]))[::-1].hex()
            right |= {"network": proof["spv"]["network"], "header": last}
    known = {name: right[name] for name in random.sample(sorted(right), random.randrange(1, 3))}
    wrong = {"app": "other", "at": 5, "absent": random.choice(proof.get("ops") or ["613a"]), "table": "other"}
    wrong |= {"header": hex_of(random, 32), "key": [*proof.get("key", []), "1"]}
    if random.random() < 0.3:
        name = random.choice(sorted(wrong))
        known[name] = wrong[name]
    return known


# Good ones


def spelled(random: Random, proof: Any, trusted: str) -> tuple[str, bytes, str]:
    """Write the proof in one of the ways in which JSON can be written."""
    text = _write(random, _shuffled(random, proof) if random.random() < 0.3 else proof)
    if random.random() < 0.2 and not re.search(r'\\|"[^"]*[:,{][^"]*"', text):  # outside of strings alone
        text = re.sub("(?<=[,:{])", lambda _: random.choice(["", " ", "\n", "\t\r"]), text)
    return "good", text.encode(), trusted


def _write(random: Random, proof: Any) -> str:
    return json.dumps(proof, ensure_ascii=random.random() < 0.5, indent=random.choice([None, None, 1, "\t"]))


def _shuffled(random: Random, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shuffled(random, value[name]) for name in random.sample(list(value), len(value))}
    return [_shuffled(random, one) for one in value] if isinstance(value, list) else value


# Changes of the object


def changed(random: Random, proof: Any, trusted: str) -> tuple[str, bytes, str]:
    """Change one or two parts of the object."""
    changes = []
    for _ in range(random.choice([1, 1, 1, 2])):
        holders = list(_holders(proof))
        chosen = random.choice(sorted({name for _, name in holders}, key=str))  # rare keys as often as others
        holder, name = random.choice([one for one in holders if one[1] == chosen])
        changes.append(f"{name}: {_change(random, holder, name)}")
    if random.random() < 0.8:
        trusted = _follow(proof) or trusted
    text = json.dumps(proof, ensure_ascii=random.random() < 0.5)
    text = re.sub('"@@raw (.*?)@@"', lambda match: json.loads(f'"{match[1]}"'), text)
    return str(changes), text.encode("utf-8", "surrogatepass"), trusted


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every object and list with each of its keys or places."""
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from _holders(value[name])


def _follow(proof: Any) -> str | None:
    """Return the hash of a changed proof, and let its hops lead there; None if that cannot be."""
    try:
        if "state" in proof:
            return state_root(proof)
        made, above = None, [None, *proof["hops"][:-1]]
        proof["hops"][-1]["ops_hash"] = rules.ops_hash_of([bytes.fromhex(op) for op in proof["ops"]]).hex()
        for hop, before in zip(reversed(proof["hops"]), reversed(above), strict=True):
            prior = [bytes.fromhex(one) for one in hop["prior"].values()]
            made = rules.consensus_hash_of(bytes.fromhex(hop["ops_hash"]), prior).hex()
            if before is not None:
                before["prior"][str(hop["block_id"])] = made
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None
    return made


def _change(random: Random, holder: Any, name: Any) -> str:
    value = holder[name]
    if random.random() < 0.15:
        return _move(random, holder, name)
    if random.random() < 0.1:
        new: Any = random.choice(
            [None, True, False, 0, 1, "", "0", [], {}, [value], {"a": value}, str(value)]
        )
    elif value is None:
        new = random.choice(["", 0, "null", [], False])
    elif isinstance(value, int):
        new = _other_number(random, value)
    elif isinstance(value, str):
        new = _other_text(random, value)
    elif isinstance(value, list):
        new = _other_list(random, value)
    else:
        new = random.choice([dict(reversed(value.items())), list(value.values()), [], {}, None, True, ""])
    holder[name] = new
    return f"{value!r:.60} -> {new!r:.60}"


def _move(random: Random, holder: Any, name: Any) -> str:
    """Remove, move or repeat an item; remove, rename or add a key."""
    value = holder.pop(name)
    kind = random.choice(["removed", "moved", "added"])
    if isinstance(holder, list):
        for _ in range(["removed", "moved", "added"].index(kind)):
            holder.insert(random.randrange(len(holder) + 1), value)
    elif kind == "moved":
        holder[random.choice([str(name).upper(), f"{name} ", f"0{name}", f"{name}.0", "__proto__"])] = value
    elif kind == "added":
        holder[name] = value
        extra: list[str] = ["__proto__", "constructor", "toString", "x", "", "spv", "-1", "5", "toJSON"]
        holder.setdefault(random.choice(extra), random.choice([None, value, {}]))
    return kind


def _other_number(random: Random, value: int) -> Any:
    """Return another number, or text that `changed` writes without quotes."""
    if random.random() < 0.1:
        forms = ["{}.0", "{}e0", "-{}", "-0", "0{}", "+{}", "{}.", "1e400", "{}E+0", "0x{}", "{}n", "9" * 400]
        return f"@@raw {random.choice([*forms, 'NaN', 'Infinity', '1_0']).format(value)}@@"
    limits = [0, 1, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**64]
    return random.choice([value + 1, value - 1, value + 2, 2 * value, value ^ 4, *limits])


def _other_text(random: Random, value: str) -> str:
    if re.fullmatch("(?:[0-9a-f]{2})+", value) and random.random() < 0.85:
        at = random.randrange(len(value))
        flipped = value[:at] + f"{int(value[at], 16) ^ 1:x}" + value[at + 1 :]
        longer = [value + "00", "00" + value, value + "\n", " " + value, "0x" + value, value * 2]
        shorter = [value[:-1], value[2:], value[:64], ""]
        others = [value.upper(), bytes.fromhex(value)[::-1].hex(), hex_of(random, len(value) // 2), flipped]
        return random.choice(
            [*longer, *shorter, *others, value[:at] + "g" + value[at + 1 :], "\uff10" + value[1:]]
        )
    networks = ["mainnet", "signet-0a03cf40", "signet-01234567", "signet-0123456A", "testnet4", "main"]
    raw = [r'"\ud83d"', r'"\ud83d\ude00"', r'"\x"', '"\t"', "'a'", r'"\u00e"', r'"\u00E9"']
    longer = [value + "a", value + "\x00", value + "\ud800", "\udc00\ud800", "e\u0301" + value]
    others = [value[:-1], value.upper(), *random.sample(TEXTS + NAMES, 3), *(f"@@raw {one}@@" for one in raw)]
    return random.choice([*networks, *longer, *others])


def _other_list(random: Random, value: list[Any]) -> list[Any]:
    repeated = value[-random.choice([1, 2, 4]) :]
    extra: Any = random.choice([None, "", "00" * 32, "613a", {}, 0])
    shuffled = random.sample(value, len(value))
    return random.choice(
        [[], value[::-1], value[:-1], value[1:], [*value, *repeated], shuffled, [*value, extra]]
    )


# Changes of the text


def rewritten(random: Random, proof: Any, trusted: str) -> tuple[str, bytes, str]:
    """Change the text, or the trusted hash."""
    text = _write(random, proof)
    if random.random() < 0.1:
        other = [
            trusted.upper(),
            trusted[:-1],
            trusted + "00",
            "",
            trusted[:32],
            trusted[::-1],
            trusted + "\n",
        ]
        return "other hash", text.encode(), random.choice([*other, hex_of(random, len(trusted) // 2)])
    change = random.choice(_REWRITES)
    new = change(random, text)
    return change.__name__, new.encode() if isinstance(new, str) else new, trusted


def _replace(random: Random, text: str, pattern: str, replace: Callable[[re.Match[str]], str]) -> str:
    """Replace one of the matches of a pattern."""
    match = random.choice(list(re.finditer(pattern, text)))
    return text[: match.start()] + replace(match) + text[match.end() :]


def _key_twice(random: Random, text: str) -> str:
    value = random.choice(["0", "null", '"a:b"', "{}"])
    return _replace(
        random, text, r'"(?:[^"\\]|\\.)*"(?=\s*:)', lambda match: f"{match[0]}:{value},{match[0]}"
    )


def _number_spelled(random: Random, text: str) -> str:
    def other(match: re.Match[str]) -> str:
        return str(_other_number(random, int(match[0]))).removeprefix("@@raw ").removesuffix("@@")

    return _replace(random, text, r"(?<=[\s:\[,{])\d+(?=[\s,\]}])", other)


def _escaped(random: Random, text: str) -> str:
    """Write a character as an escape, which changes nothing."""
    form = random.choice(["\\u{:04x}", "\\u{:04X}"])
    return _replace(
        random, text, '(?<=[":])[a-z0-9](?=[a-z0-9_]*")', lambda match: form.format(ord(match[0]))
    )


def _more_before(random: Random, text: str) -> bytes:
    more = [b"\xef\xbb\xbf", b" ", b"\n", b"\x00", b"\xc2\xa0", b"\x0b", b"//\n", b"{}"]
    return random.choice(more) + text.encode()


def _more_after(random: Random, text: str) -> bytes:
    more = [b"\n", b" \t\r\n", b"\x00", b"\x0c", b"\xc2\xa0", b",", b"}", b"null", b"\xe2\x80\xa8"]
    return text.encode() + random.choice(more)


def _cut(random: Random, text: str) -> bytes:
    return text.encode()[: random.randrange(len(text))]


def _more_within(random: Random, text: str) -> bytes:
    data = text.encode()
    at = random.randrange(len(data))
    wrong = [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x00"]
    return data[:at] + random.choice([*wrong, b"\\", b'"', b" ", b",", b"0", b"-", b":", b"\\:"]) + data[at:]


def _other_bit(random: Random, text: str) -> bytes:
    data = bytearray(text.encode())
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _other_encoding(random: Random, text: str) -> bytes:
    return text.encode(random.choice(["utf-16", "utf-16-le", "utf-32", "utf-7"]))


def _other_syntax(random: Random, text: str) -> str:
    old, new = random.choice([(",", ",,"), ("]", ",]"), (":", "="), ('"', "'"), ("{", "{,"), ("}", ",}")])
    return text.replace(old, new, 1)


def _other_format(random: Random, text: str) -> str:
    return text.replace(
        *random.choice([("-1", "-2"), ("virtual", "Virtual"), ("row-", ""), ("-proof", "-row-proof")]), 1
    )


def _other_value(random: Random, text: str) -> str:
    deep = [5000 * "[", 5000 * "[" + 5000 * "]", 5000 * '{"a":']
    alone = [
        "",
        "[]",
        "null",
        "5",
        '""',
        "{}",
        "undefined",
        "true",
        f"[{text}]",
        text + text,
        json.dumps(text),
    ]
    formats = ['"virtualchain-proof-1"', '"virtualchain-row-proof-1"', "1", '{"a":"virtualchain-proof-1"}']
    return random.choice([*deep, *alone, *(f'{{"format":{one}}}' for one in formats)])


_REWRITES: list[Callable[[Random, str], str | bytes]] = [
    _key_twice,
    _number_spelled,
    _number_spelled,
    _escaped,
    _more_before,
    _more_after,
    _cut,
    _more_within,
    _other_bit,
    _other_encoding,
    _other_syntax,
    _other_format,
    _other_value,
]
