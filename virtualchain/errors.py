"""The errors that virtualchain raises, as one tree.

::

    VirtualchainError
    ├── UsageError            the request is wrong or impossible            exit 2
    │   └── InvalidApp        an implementation or its projections break the contract
    ├── NodeError             the Bitcoin node                              exit 3
    │   ├── NodeUnavailable   it does not answer now; a retry may help
    │   │   └── UpstreamLacks another deployment's tape, which is followed, lacks what is needed
    │   ├── MalformedBlock    bytes that are not a block or a transaction
    │   └── MissingData       it does not have the data (pruned, never connected)
    ├── StoreError            the database                                  exit 3
    │   ├── DatabaseUnavailable  it cannot be reached now; a retry may help
    │   │   └── NotPrimary       it accepts no writes: a standby, or a primary that was left behind
    │   ├── InUse             someone holds what is to be replaced; a retry may help
    │   ├── BuildChanged      another process swapped or dropped the build
    │   ├── WriterBusy        another process writes to this deployment     exit 5
    │   └── DamagedTables     its tables disagree, with each other or with the digests  exit 1
    ├── Halted                nothing more can be done without an operator  exit 4
    │   ├── AppHalted         an app's callback failed; its block was undone for it
    │   └── DeepFork          the node's chain left the branch that was taken
    ├── Unserializable        a value that cannot be stored or hashed
    │   └── InvalidOp         one that only the app's author can have put there
    ├── InputRefused          an input that its app would refuse            exit 1
    ├── BuildsDiffer          two builds of an app disagree                 exit 1
    ├── NodesDiffer           two nodes disagree                            exit 1
    ├── UntrustedImport       an export that does not lead to a trusted hash  exit 1
    ├── InvalidProof          a proof that does not hold                    exit 1
    ├── DamagedExport         files that differ from what was exported      exit 1
    └── InvalidCheckpoint     a checkpoint that does not hold               exit 1

Each class carries the exit code that the command line ends with.
"""

import json
from collections.abc import Mapping
from typing import Self

_LONGEST_QUOTE = 200
"""Characters of a value that a message shows."""


def quoted(value: object) -> str:
    """Write a value into a message: text in quotes, bytes as text or in hex, anything else as JSON.

    What is too long is cut, and control characters are escaped.
    """
    match value:
        case str():
            text = value
        case bytes() if value.isascii() and "".join(value.decode("ascii").split()).isprintable():
            text = value.decode("ascii")
        case bytes():
            return f"0x{value[: _LONGEST_QUOTE // 2].hex()}" + (
                "..." if len(value) > _LONGEST_QUOTE // 2 else ""
            )
        case _:
            return _cut(json.dumps(value, default=str, ensure_ascii=False))
    return f"'{_cut(text)}'"


def _cut(text: str) -> str:
    short = text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


class VirtualchainError(Exception):
    """Base of all errors of virtualchain."""

    exit_code = 1


class UsageError(VirtualchainError):
    """The request is wrong or impossible; the message says what to do instead."""

    exit_code = 2


class InvalidApp(UsageError):
    """An implementation, or one of its projections, breaks the contract."""


class NodeError(VirtualchainError):
    """The Bitcoin node refused, failed, or gave an answer that no node should."""

    exit_code = 3


class NodeUnavailable(NodeError):
    """The node cannot be reached, or is busy or starting: the same request may succeed later."""


class UpstreamLacks(NodeUnavailable):
    """The tape that is followed was not searched for what an app needs, or lacks it."""


class MalformedBlock(NodeError):
    """Bytes that are not the block, header or transaction they should be."""


class MissingData(NodeError):
    """The node does not have the block or its undo data (pruned, or never connected)."""


class StoreError(VirtualchainError):
    """The database cannot be reached or used."""

    exit_code = 3

    @classmethod
    def from_database(cls, error: BaseException, what: str = "the database") -> Self:
        """Describe a failure that the driver reported, on one line; `what` failed."""
        return cls(f"{what} failed: {' '.join(str(error).split())}")


class DatabaseUnavailable(StoreError):
    """The database cannot be reached, or is starting: the same request may succeed later."""


class NotPrimary(DatabaseUnavailable):
    """The server accepts no writes now: it is a standby, or was replaced by one that was promoted."""


class InUse(StoreError):
    """Views or tables that are to be replaced are in use: the same request may succeed later."""


class BuildChanged(StoreError):
    """Another process swapped or dropped the build that this one works on."""


class WriterBusy(StoreError):
    """Another process writes to this deployment."""

    exit_code = 5


class DamagedTables(StoreError):
    """Tables disagree with each other or with the digests; the message says where."""

    exit_code = 1


class Halted(VirtualchainError):
    """Nothing more can be done until an operator decides."""

    exit_code = 4


class UnexpectedDigest(VirtualchainError):
    """An app has another digest than the one that is expected at a block."""


class AppHalted(Halted):
    """A callback of an app raised; the block was undone for that app, which stays where it is.

    `record` says where and why, as `virtualchain.apps` shows it.
    """

    def __init__(self, message: str, record: Mapping[str, object]) -> None:
        super().__init__(message)
        self.record = dict(record)


class DeepFork(Halted):
    """The node follows another branch than the one whose blocks were taken."""


class Unserializable(VirtualchainError, ValueError):
    """A value that cannot be stored or hashed; the message names its field."""


class InvalidOp(Unserializable):
    """An op that only the app's author can have made: a hashed field is missing, or a type is not JSON's."""


class InputRefused(VirtualchainError):
    """An input that its app would refuse, as things are; it was not sent.

    `details` describes it as `send --json` does, unless it is one of a batch.
    """

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})


class InvalidProof(VirtualchainError):
    """A proof that does not show what it claims: malformed, incomplete, or not for the trusted hash."""


class BuildsDiffer(VirtualchainError):
    """Two builds of an app were compared and disagree."""


class NodesDiffer(VirtualchainError):
    """Two nodes were compared and disagree."""


class UntrustedImport(VirtualchainError):
    """An export does not lead to the hash that is trusted."""


class DamagedExport(VirtualchainError):
    """A file of an export differs from its manifest or holds impossible values; the message names it."""


class InvalidSignature(VirtualchainError):
    """A signature that is not one, or is not by a key that is trusted."""


class UnreadableList(VirtualchainError):
    """A list of expected digests that cannot be read now, or is not such a list."""

    exit_code = 2


class DownloadFailed(VirtualchainError):
    """A file cannot be downloaded now; what has arrived is kept, and the same command continues."""

    exit_code = 3


class InvalidCheckpoint(VirtualchainError):
    """A checkpoint that is broken, or disagrees with itself, its digests or its signatures."""
