"""Lists of expected snapshots: what another node printed with `consensus --json`, perhaps signed.

The format is in `docs/protocol/digests.md`. Nothing here decides about the state; the engine compares.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from virtualchain.background import begin
from virtualchain.checkpoint.manifest import Signature
from virtualchain.checkpoint.signing import check_signatures, sign
from virtualchain.errors import InvalidSignature, UnreadableList, quoted
from virtualchain.model import Expected, Json

_LARGEST: Final = 2**24
"""Bytes: a longer list is refused."""
_TIMEOUT: Final = 30.0
"""Seconds within which a URL must have answered."""
_DIGITS: Final = {"block_hash": 64, "ops_hash": 64, "consensus_hash": 32, "state_hash": 64}
_KEYS: Final = {"name", "block_id", *_DIGITS}
_HIGHEST: Final = 2**31 - 1


def read_lists(places: Iterable[str], trusted: Sequence[str] = ()) -> dict[str, list[Expected]]:
    """Read lists of expected snapshots from files and URLs; return what they say, by app.

    If any keys are trusted, one of them must have signed each list. Raises UnreadableList, which names the
    place, for one that cannot be read or is not such a list, and UsageError for a key that cannot be read.
    """
    expected: dict[str, list[Expected]] = {}
    for where in places:
        place = _without_secrets(where)
        try:
            for name, one in _read(_content(where), place, trusted):
                expected.setdefault(name, []).append(one)
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            text = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
            raise UnreadableList(f"the expected digests at {place} cannot be read: {text}") from error
        except (ValueError, RecursionError, InvalidSignature) as error:
            raise UnreadableList(f"{place} is not a list of expected digests: {error}") from error
    return expected


def _without_secrets(place: str) -> str:
    """Return a URL without login and query, which may hold a token: readers see who expects what."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def signed_list(apps: Sequence[Json], files: Iterable[Path]) -> Json:
    """Return a list of snapshots, signed with the key in each file."""
    signatures = sign(_signed_bytes(apps), files)
    return {"apps": list(apps), "signatures": [asdict(item) for item in signatures]}


def _content(place: str) -> bytes:
    if "://" in place:
        if not place.startswith(("http://", "https://")):
            raise ValueError("it can be a file, or be read over http or https")
        try:
            content = begin(partial(_download, place)).result(_TIMEOUT)
        except TimeoutError as error:
            raise TimeoutError(f"there was no complete answer within {_TIMEOUT:.0f} seconds") from error
    else:
        with Path(place).open("rb") as file:
            content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST:,} bytes")
    return content


def _download(url: str) -> bytes:
    """Read a URL; whoever has no more time for it does not wait for the end, as an answer may drip."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - it is one of http or https
            content: bytes = answer.read(_LARGEST + 1)
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer, too
        raise
    return content


def _read(content: bytes, place: str, trusted: Sequence[str]) -> Iterable[tuple[str, Expected]]:
    document = json.loads(content.decode("utf-8"))
    if not isinstance(document, dict) or not {"apps"} <= document.keys() <= {"apps", "signatures"}:
        raise ValueError('it must be an object with "apps", and "signatures" if it is signed')
    rows, signatures = document["apps"], document.get("signatures", [])
    if [type(rows), type(signatures)] != [list, list]:
        raise ValueError('"apps" and "signatures" must be arrays')
    check_signatures(_signed_bytes(rows), [_signature(item) for item in signatures], trusted)
    return [_expected(row, place) for row in rows]


def _signed_bytes(apps: Sequence[object]) -> bytes:
    return json.dumps({"apps": apps}, sort_keys=True, separators=(",", ":")).encode()


def _signature(item: object) -> Signature:
    fields = item if isinstance(item, dict) else {}
    key, signature = fields.get("public_key"), fields.get("signature")
    if fields.keys() != {"public_key", "signature"} or not (_is_hex(key, 64) and _is_hex(signature, 128)):
        raise ValueError(f"{quoted(str(item))} is not a signature")
    return Signature(str(key), str(signature))


def _expected(row: object, place: str) -> tuple[str, Expected]:
    if not isinstance(row, Mapping) or not {"name", "block_id"} <= row.keys() <= _KEYS:
        raise ValueError(f"an app must have name, block_id and some of {', '.join(_DIGITS)}")
    name, block_id = row["name"], row["block_id"]
    if [type(name), type(block_id)] != [str, int] or not -1 <= block_id <= _HIGHEST:
        raise ValueError("name must be text, and block_id a height")
    digests: dict[str, Any] = {key: row.get(key) for key in _DIGITS}
    for key, value in digests.items():
        if value is not None and not _is_hex(value, _DIGITS[key]):
            raise ValueError(f"{key} of app {name} must be {_DIGITS[key]} lower-case hex digits")
    del digests["ops_hash"]  # the consensus hash covers it
    if not any((digests["consensus_hash"], digests["state_hash"])):
        raise ValueError(f"app {name} has neither a consensus hash nor a state hash at block {block_id}")
    return name, Expected(block_id, origin=place, **digests)


def _is_hex(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None
