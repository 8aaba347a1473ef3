"""The errors that virtualchain raises, one tree.

::

    VirtualchainError
    ├── UsageError            what the user asked for cannot be             exit 2
    │   └── InvalidApp        an implementation or its projections break the contract
    ├── NodeError             the Bitcoin node                              exit 3
    │   ├── NodeUnavailable   it does not answer now; trying again may help
    │   ├── MalformedBlock    bytes that are no block or no transaction
    │   └── MissingData       it does not have what was asked for (pruned, never connected)
    ├── StoreError            the database                                  exit 3
    │   └── WriterBusy        another process writes to this deployment     exit 5
    ├── Halted                nothing more can be done without an operator  exit 4
    │   ├── AppHalted         an app's callback failed; its block was undone for it
    │   └── DeepFork          the node's chain left the one that was taken
    ├── Unserialisable        a value that cannot be stored or hashed
    ├── BuildsDiffer          two builds of an app do not agree             exit 1
    ├── InvalidProof          a proof that does not hold                    exit 1
    ├── DamagedExport         files that are not what was exported          exit 1
    └── InvalidCheckpoint     a checkpoint that does not hold               exit 1

Every class carries the exit code that the command line ends with.
"""

from collections.abc import Mapping


class VirtualchainError(Exception):
    """Base of all errors of virtualchain."""

    exit_code = 1


class UsageError(VirtualchainError):
    """What was asked for is wrong or impossible; the message says what to do instead."""

    exit_code = 2


class InvalidApp(UsageError):
    """An implementation, or a projection of it, breaks the contract."""


class NodeError(VirtualchainError):
    """The Bitcoin node refused, failed, or answered what no node should."""

    exit_code = 3


class NodeUnavailable(NodeError):
    """The node cannot be reached or is busy or starting: the same request may succeed later."""


class MalformedBlock(NodeError):
    """Bytes that are not the block, header or transaction they should be."""


class MissingData(NodeError):
    """The node does not have the block or its undo data (pruned, or never connected)."""


class StoreError(VirtualchainError):
    """The database cannot be reached or used."""

    exit_code = 3


class WriterBusy(StoreError):
    """Another process is writing to this deployment."""

    exit_code = 5


class Halted(VirtualchainError):
    """Nothing more can be done until an operator has decided."""

    exit_code = 4


class AppHalted(Halted):
    """A callback of an app raised; the block was undone for that app, which stays behind.

    `record` says where and why, as `virtualchain.apps` shows it.
    """

    def __init__(self, message: str, record: Mapping[str, object]) -> None:
        super().__init__(message)
        self.record = dict(record)


class DeepFork(Halted):
    """The node follows another branch than the one whose blocks were taken."""


class Unserialisable(VirtualchainError, ValueError):
    """A value that cannot be stored or hashed; the message names its field."""


class InvalidProof(VirtualchainError):
    """A proof that does not show what it claims: malformed, incomplete, or not of the trusted hash."""


class BuildsDiffer(VirtualchainError):
    """Two builds of an app that were held against each other do not agree."""


class DamagedExport(VirtualchainError):
    """A file of an export is not what its manifest says, or says what cannot be; the message names it."""


class InvalidCheckpoint(VirtualchainError):
    """A checkpoint that is broken, or not what it, its digests or its signatures say."""
