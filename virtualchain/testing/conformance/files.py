"""Read files of recordings: JSON, plain or compressed with gzip, whose parts are read with type checks."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.errors import UsageError

T = TypeVar("T")

_GZIP_MAGIC: Final = b"\x1f\x8b"


class MalformedScenario(UsageError):
    """A file without scenarios, or a scenario that cannot be replayed; the message says where it is wrong."""


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read a file; raises MalformedScenario."""
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        return json.loads(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedScenario(f"the file cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedScenario(f"the file is not valid JSON: {error}") from error


class JsonObject:
    """A JSON object whose fields are read with type checks; errors name its location."""

    def __init__(self, content: object, location: str) -> None:
        if not isinstance(content, dict):
            raise MalformedScenario(f"{location}: not a JSON object")
        self.content: dict[str, object] = content
        self.location = location

    def get(self, key: str, kind: type[T]) -> T:
        """Return a required field."""
        value: object = self.content.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise MalformedScenario(
                f"{self.location}: {key} is {excerpt(value)}, not of type {kind.__name__}"
            )
        return value

    def get_or(self, key: str, kind: type[T], default: T) -> T:
        """Return a field, or the default if it is missing."""
        return default if self.content.get(key) is None else self.get(key, kind)


def excerpt(value: object) -> str:
    """Return the beginning of a value as Python writes it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
