"""The block files on disk: their paths, the network that they belong to, and the blocks read from them.

They are bitcoind's data folder, its `blocks` folder, or one file in the same format. All headers are read
once; later only what was appended is read.
"""

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.block import LARGEST_BLOCK
from virtualchain.bitcoin.files.framing import KEY_SIZE, FramedFile, Framing, deobfuscate, read_part
from virtualchain.bitcoin.files.index import BlockIndex, Place
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, sha256d
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import MalformedBlock, NodeError, NodeUnavailable, UsageError

_NAME: Final = re.compile(r"(blk|rev)([0-9]{5,})\.dat")


@dataclass(frozen=True, slots=True)
class Listing:
    """The files that exist now."""

    blocks: dict[int, int]
    """The size of each block file by its number, in order."""
    has_undo: bool
    """Whether there is any file of undo data."""


class BlockFolder:
    """Numbered block files, and the files of undo data that belong to them."""

    def __init__(self, path: Path, *, is_file: bool) -> None:
        self.path = path
        """The name in messages: the folder, or the single file."""
        self._folder = path.parent if is_file else path
        self._single = path if is_file else None
        match = _NAME.fullmatch(path.name) if is_file else None
        self._number = int(match[2]) if match and match[1] == "blk" else None

    def block_file(self, number: int) -> Path:
        """Return the path of a block file."""
        return self._single or self._folder / f"blk{number:05}.dat"

    def undo_file(self, number: int) -> Path:
        """Return the path of the undo data for a block file, which may not exist."""
        return self._folder / f"rev{number:05}.dat"

    def list_files(self) -> Listing:
        """List the files; raises NodeError if the folder cannot be read."""
        try:
            if self._single is not None:
                number = self._number or 0
                has_undo = self._number is not None and self.undo_file(number).exists()
                return Listing({number: self._single.stat().st_size}, has_undo)
            with os.scandir(self._folder) as entries:
                files = [(entry, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
            sizes = {int(match[2]): entry.stat().st_size for entry, match in files if match[1] == "blk"}
        except OSError as error:
            raise NodeError(f"{self.path} cannot be read: {error.strerror}") from error
        return Listing(dict(sorted(sizes.items())), any(match[1] == "rev" for _, match in files))

    def key(self) -> bytes:
        """Read the key that obfuscates the files, empty if they are plain; raises NodeError."""
        path = self._folder / "xor.dat"
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise NodeError(f"{path} cannot be read: {error.strerror}") from error
        if len(key) != KEY_SIZE:
            raise NodeError(f"{path} has {len(key)} bytes, but a key has {KEY_SIZE}: is it bitcoind's?")
        return key if any(key) else b""


def find_folder(path: Path, network: Network | None) -> BlockFolder:
    """Find the blocks at `path`: a file, a `blocks` folder, or a data folder with the blocks of `network`.

    Raises UsageError if there are none or those of several networks, NodeError if they cannot be read.
    """
    try:
        if path.is_file():
            return BlockFolder(path, is_file=True)
        if not path.is_dir():
            raise UsageError(
                f"there is no {path}: give bitcoind's `blocks` folder, or a file in the same format"
            )
        if _has_blocks(path):
            return BlockFolder(path, is_file=False)
        candidates = NETWORKS.values() if network is None else [network]
        folders = [folder for each in candidates if _has_blocks(folder := path / each.subfolder / "blocks")]
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    if not folders:
        of_network = "" if network is None else f" of {network.name}"
        raise UsageError(
            f"{path} holds no blocks{of_network}: there is no blk00000.dat in it or in a node's subfolders"
        )
    if len(folders) > 1:
        raise UsageError(f"{path} holds the blocks of several networks: choose one with --network")
    return BlockFolder(folders[0], is_file=False)


def find_network(folder: BlockFolder, requested: Network | None) -> tuple[Network, bytes]:
    """Determine from the first bytes of the files their network, and the key for reading them.

    Raises NodeError for another network than `requested`, UsageError for files in another format,
    NodeUnavailable if nothing has been written yet.
    """
    key = folder.key()
    for number, size in folder.list_files().blocks.items():
        path = folder.block_file(number)
        start = read_part(path, 0, min(size, 4), b"")
        if not any(start):
            continue
        # A plain file may be next to the key of other files.
        possible = {start, deobfuscate(start, 0, key)}
        for known in NETWORKS.values():
            if known.message_start in possible:
                if requested not in {None, known}:
                    raise NodeError(f"{path} is of {known.name}, but {requested.name} was asked for")
                return known, b"" if start == known.message_start else key
        raise UsageError(f"{path} begins with {start.hex()}, not with the message start of a known network")
    raise NodeUnavailable(f"{folder.path} holds no block yet")


def _has_blocks(folder: Path) -> bool:
    return folder.is_dir() and any(
        file.name.startswith("blk") and _NAME.fullmatch(file.name) for file in folder.iterdir()
    )


class BlockStore:
    """Block files and the index of their blocks, which is read and changed only under `lock`."""

    def __init__(self, folder: BlockFolder, network: Network, key: bytes) -> None:
        self.folder = folder
        self.network = network
        self.key = key
        self.index = BlockIndex()
        self.lock = threading.RLock()
        self.has_undo = False
        """Whether there are files of undo data."""
        self._framing = Framing(network, key, HEADER_SIZE + 1, LARGEST_BLOCK, head=HEADER_SIZE)
        self._files: dict[int, FramedFile] = {}

    def __str__(self) -> str:
        return str(self.folder.path)

    def refresh(self) -> None:
        """Add to the index the blocks that were written since the last call; raises NodeError."""
        with self.lock:
            listing = self.folder.list_files()
            self.has_undo = listing.has_undo
            for number, size in listing.blocks.items():
                file = self._files.get(number)
                if file is None or not file.is_unchanged(size):
                    self._index_file(number, file)

    def find(self, block_hash: str) -> int | None:
        """Find a block's number by its hash in display order."""
        try:
            computed = bytes.fromhex(block_hash)[::-1]
        except ValueError:
            return None
        with self.lock:
            return self.index.find(computed)

    def place(self, number: int) -> Place:
        """Return where a block's bytes are."""
        with self.lock:
            return self.index.place(number)

    def hash(self, number: int) -> str:
        """Return a block's hash in display order."""
        with self.lock:
            return display_hash(self.index.hash(number))

    def read(self, number: int) -> bytes:
        """Read a block; raises MissingData, and MalformedBlock if another block has replaced it."""
        return self.part(number, 0, self.place(number).length)

    def part(self, number: int, start: int, length: int) -> bytes:
        """Read some of a block's bytes, like `read`; the header is checked only if `start` is 0."""
        raw = self._part(number, start, length)
        if start == 0 and not self._has_header_of(number, raw):
            # A node that crashed may have rewritten its last blocks in another order.
            with self.lock:
                self._index_file(self.place(number).file, None)
            raw = self._part(number, start, length)
            if not self._has_header_of(number, raw):
                place = self.place(number)
                raise MalformedBlock(
                    f"{self.folder.block_file(place.file)} no longer has block {self.hash(number)} at byte "
                    f"{place.offset}: was it replaced? Restart virtualchain"
                )
        return raw

    def _part(self, number: int, start: int, length: int) -> bytes:
        place = self.place(number)
        path = self.folder.block_file(place.file)
        return read_part(path, place.offset + start, min(length, place.length - start), self.key)

    def _has_header_of(self, number: int, raw: bytes) -> bool:
        with self.lock:
            return sha256d(raw[:HEADER_SIZE]) == self.index.hash(number)

    def _index_file(self, number: int, file: FramedFile | None) -> None:
        """Add a file's new blocks to the index, or all of its blocks if `file` is None."""
        if file is None:
            file = self._files[number] = FramedFile(self.folder.block_file(number), self._framing)
        for frame in file.new_frames():
            self.index.add(frame.head, Place(number, frame.offset, frame.length))
