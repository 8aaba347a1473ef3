"""The block files on disk: their paths, the network that they belong to, and the blocks read from them.

They are bitcoind's data folder, its `blocks` folder, or one file in the same format. All headers are read
once; later only what was appended is read.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.auxpow import has_auxpow
from virtualchain.bitcoin.difficulty import check_work
from virtualchain.bitcoin.encoding import plain_block, read_whole_header
from virtualchain.bitcoin.files.framing import (
    FRAME_SIZE,
    KEY_SIZE,
    Frame,
    FramedFile,
    Framing,
    deobfuscate,
    read_part,
)
from virtualchain.bitcoin.files.index import BlockIndex, Place
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, read_header, sha256d
from virtualchain.bitcoin.layout import LARGEST_BLOCK
from virtualchain.bitcoin.networks import NETWORKS, Network, every_network, signet
from virtualchain.errors import MalformedBlock, MissingData, NodeError, NodeUnavailable, UsageError
from virtualchain.model import Block

_NAME: Final = re.compile(r"(blk|rev)([0-9]{5,})\.dat")
NO_PARENT: Final = "00" * 32
"""The hash that a genesis block names as its parent."""
_UNKNOWN: Final = -1
"""The height of a block whose place in the chain is not known yet."""
_START_SIZE: Final = FRAME_SIZE + HEADER_SIZE
_USUAL_HEADER: Final = 4096
"""Bytes that nearly every header with an AuxPoW fits into."""
_SEARCH_BUDGET: Final = 1 << 28
"""Bytes that are checked in one pass over a file for nothing, before its search ends: whoever fills blocks
with what resembles blocks must not keep the reader busy."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files that exist now."""

    blocks: dict[int, os.stat_result]
    """The status of each block file by its number, in order."""
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
                return Listing({number: self._single.stat()}, has_undo)
            with os.scandir(self._folder) as entries:
                files = [(entry, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
            blocks = {int(match[2]): entry.stat() for entry, match in files if match[1] == "blk"}
        except OSError as error:
            raise NodeError(f"{self.path} cannot be read: {error.strerror}") from error
        return Listing(dict(sorted(blocks.items())), any(match[1] == "rev" for _, match in files))

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
        folders = _folders(path, NETWORKS.values() if network is None else [network])
        if network is None:
            signets = sorted(path.glob(f"{NETWORKS['signet'].subfolder}_*"))
            folders += [folder / "blocks" for folder in signets if _has_blocks(folder / "blocks")]
        if not folders and network is None:  # extensions are not loaded where none is needed
            folders = _folders(path, every_network())
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    if not folders:
        of_network = "" if network is None else f" of {network.name}"
        raise UsageError(
            f"{path} holds no blocks{of_network}: there is no blk00000.dat in it or in a node's subfolders"
        )
    if len(folders) > 1 and network is None:
        raise UsageError(f"{path} holds the blocks of several networks: choose one with --network")
    return BlockFolder(folders[0], is_file=False)


def find_network(folder: BlockFolder, requested: Network | None) -> tuple[Network, bytes]:
    """Determine from the first record of the files their network, and the key for reading them.

    Raises NodeError for another network than `requested`, UsageError for files in another format,
    NodeUnavailable if nothing has been written yet.
    """
    key = folder.key()
    for number, status in folder.list_files().blocks.items():
        path = folder.block_file(number)
        start = read_part(path, 0, min(status.st_size, _START_SIZE), b"")
        if not any(start):
            continue
        # A plain file may be next to the key of other files. A key may begin with zeros: then the message
        # start is the same with and without it, and the first block shows which it is.
        plain = {each: deobfuscate(start, 0, each) for each in dict.fromkeys([key, b""])}
        candidates = {each: known for each, text in plain.items() if (known := _network_of(text, requested))}
        if not candidates:
            raise UsageError(
                f"{path} begins with {start[:4].hex()}, not with the message start of a known network"
            )
        fitting = (each for each, known in candidates.items() if _begins_with_block(path, each, known))
        used = next(fitting, next(iter(candidates)))
        if requested is not None and candidates[used].name != requested.name:
            raise NodeError(f"{path} is of {candidates[used].name}, but {requested.name} was asked for")
        return requested or candidates[used], used
    raise NodeUnavailable(f"{folder.path} holds no block yet")


def _network_of(start: bytes, requested: Network | None) -> Network | None:
    """Determine the network of a file by its first bytes; None if they are not a known one's.

    Several regtests have the same message start, which only their genesis blocks tell apart, and Namecoin's
    not even that: it has to be requested. A custom signet's message start says nothing to who does not know
    its challenge, but its genesis block is that of all signets.
    """
    if requested is not None and start[:4] == requested.message_start:
        return requested
    block_hash = display_hash(sha256d(start[FRAME_SIZE:_START_SIZE]))
    first = None
    for known in every_network():
        if start[:4] == known.message_start:
            if block_hash == known.genesis_hash:
                return known
            first = first or known
    if first is not None:
        return first
    return signet(start[:4]) if block_hash == NETWORKS["signet"].genesis_hash else None


def _begins_with_block(path: Path, key: bytes, network: Network) -> bool:
    """Check whether a file, read with a key, begins with a block that passes the gate."""
    try:
        length = int.from_bytes(read_part(path, 4, 4, key), "little")
        raw = read_part(path, FRAME_SIZE, min(length, LARGEST_BLOCK), key)
        CheckedBlock(read_whole_header(_UNKNOWN, raw, network), raw, network, "merkle")
    except (MalformedBlock, MissingData):
        return False
    return True


def _folders(path: Path, known: Iterable[Network]) -> list[Path]:
    """Return the folders with blocks that nodes of these networks keep in a data folder."""
    subfolders = []
    for network in known:
        subfolders.append(network.subfolder)
        if network.chain == "signet":  # older nodes keep all signets in one folder
            subfolders.append(NETWORKS["signet"].subfolder)
    folders = [path / subfolder / "blocks" for subfolder in dict.fromkeys(subfolders)]
    return [folder for folder in folders if _has_blocks(folder)]


def _has_blocks(folder: Path) -> bool:
    return folder.is_dir() and any(
        file.name.startswith("blk") and _NAME.fullmatch(file.name) for file in folder.iterdir()
    )


class BlockStore:
    """Block files and the index of their blocks, which is read and changed only under `lock`.

    A place that still holds its block is never given up for another one. Records that were found by
    searching a file are blocks only if they pass the gate.
    """

    def __init__(self, folder: BlockFolder, network: Network, key: bytes) -> None:
        self.folder = folder
        self.network = network
        self.key = key
        self.index = BlockIndex(network)
        self.lock = threading.RLock()
        self.has_undo = False
        """Whether there are files of undo data."""
        self.refused: MalformedBlock | None = None
        """Why the first record without proof of work was refused."""
        self.searched: set[int] = set()
        """The blocks that were only found by searching, not in a record's regular place."""
        self._framing = Framing(network, key, HEADER_SIZE + 1, LARGEST_BLOCK, head=HEADER_SIZE)
        self._files: dict[int, FramedFile] = {}
        self._copies: dict[int, list[Place]] = {}
        """Further places of blocks that were seen more than once."""
        self._changed: set[int] = set()
        """The files in which a block was not where it had been."""
        self._spent_budget = 0

    def __str__(self) -> str:
        return str(self.folder.path)

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs to read the same blocks, wherever the files are by then."""
        return {name: value for name, value in vars(self).items() if name not in {"lock", "_files"}}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state, lock=threading.RLock(), _files={})

    def refresh(self) -> None:
        """Bring the index up to date with the files; raises NodeError.

        Blocks that were written since the last call are added. If a file was overwritten, because the node
        has forgotten its last blocks in a crash, the blocks that are gone are dropped.
        """
        with self.lock:
            listing = self.folder.list_files()
            self.has_undo = listing.has_undo
            for number, status in listing.blocks.items():
                file = self._files.get(number)
                if number in self._changed or file is None or not file.is_unchanged(status):
                    self._index_file(number)
            for number in self._changed:
                for each in self.index.in_file(number):
                    self._check_place(each)
            self._changed.clear()

    def find(self, block_hash: str) -> int | None:
        """Find a block's number by its hash in display order."""
        try:
            computed = bytes.fromhex(block_hash)[::-1]
        except ValueError:
            return None
        with self.lock:
            return self.index.find(computed)

    def place(self, number: int) -> Place:
        """Return where a block's bytes are; raises MissingData if the node has forgotten it."""
        with self.lock:
            if self.index.is_dropped(number):
                raise MissingData(f"{self} no longer holds block {self.hash(number)}: the node forgot it")
            return self.index.place(number)

    def hash(self, number: int) -> str:
        """Return a block's hash in display order."""
        with self.lock:
            return display_hash(self.index.hash(number))

    def read(self, number: int) -> bytes:
        """Read a block; raises MissingData, and MalformedBlock if another block has replaced it."""
        with self.lock:
            if number in self._copies:
                self._choose_copy(number)
        return self.part(number, 0, self.place(number).length)

    def part(self, number: int, start: int, length: int) -> bytes:
        """Read some of a block's bytes, like `read`; the header is checked only if `start` is 0."""
        raw = self._part(number, start, length)
        if start == 0 and not self._has_header_of(number, raw):
            # A node that crashed may have rewritten its last blocks in another order.
            with self.lock:
                file = self.place(number).file
                self._files.pop(file, None)
                self._index_file(file)
                self._changed.add(file)
            raw = self._part(number, start, length)
            if not self._has_header_of(number, raw):
                place = self.place(number)
                raise MalformedBlock(
                    f"{self.folder.block_file(place.file)} no longer has block {self.hash(number)} at byte "
                    f"{place.offset}: was it replaced? Restart virtualchain"
                )
        return raw

    def plain(self, number: int) -> bytes:
        """Read a block in Bitcoin's encoding; raises MissingData, MalformedBlock."""
        return plain_block(self.read(number), self.network)

    def plain_part(self, number: int, start: int, length: int) -> bytes:
        """Read some bytes of a block in Bitcoin's encoding."""
        if self.network.encodes_like_bitcoin:
            return self.part(number, start, length)
        return self.plain(number)[start : start + length]

    def start(self, number: int, length: int) -> bytes:
        """Read the 80 bytes of a block's header, and `length` bytes after it and its AuxPoW."""
        if self.network.auxpow_chain_id is None:
            return self.part(number, 0, HEADER_SIZE + length)
        header = self.header(number, _UNKNOWN)
        return header.header + self._part(number, HEADER_SIZE + len(header.auxpow), length)

    def header(self, number: int, height: int) -> Block:
        """Read a block's header as that of the block at `height`, with its AuxPoW."""
        return self._header(height, self.part(number, 0, HEADER_SIZE), self.place(number))

    def _header(self, height: int, head: bytes, place: Place) -> Block:
        """Read the header at a place, of which 80 bytes are known."""
        if self.network.auxpow_chain_id is None or not has_auxpow(head):
            return read_header(height, head)
        for length in (_USUAL_HEADER, place.length):
            raw = self._bytes_at(place, 0, min(length, place.length))
            try:
                return read_whole_header(height, raw, self.network)
            except MalformedBlock:
                if len(raw) == place.length:
                    raise
        raise AssertionError("the whole record was read")

    def _part(self, number: int, start: int, length: int) -> bytes:
        place = self.place(number)
        return self._bytes_at(place, start, min(length, place.length - start))

    def _bytes_at(self, place: Place, start: int, length: int) -> bytes:
        return read_part(self.folder.block_file(place.file), place.offset + start, length, self.key)

    def _has_header_of(self, number: int, raw: bytes) -> bool:
        with self.lock:
            return sha256d(raw[:HEADER_SIZE]) == self.index.hash(number)

    def _holds(self, number: int, place: Place) -> bool:
        """Check whether a block's header is at a place."""
        try:
            return self._has_header_of(number, self._bytes_at(place, 0, HEADER_SIZE))
        except MissingData:
            return False

    def _index_file(self, number: int) -> None:
        """Add a file's new blocks to the index."""
        file = self._files.get(number)
        if file is None:
            accept = partial(self._accept, number)
            file = self._files[number] = FramedFile(self.folder.block_file(number), self._framing, accept)
        self._spent_budget = 0
        for frame in file.new_frames():
            self._add(frame, Place(number, frame.offset, frame.length))
        if file.rewound:
            self._changed.add(number)

    def _add(self, frame: Frame, place: Place) -> None:
        try:
            header = self._header(_UNKNOWN, frame.head, place)
        except (MalformedBlock, MissingData) as error:
            self.refused = self.refused or MalformedBlock(str(error))
            return
        if header.prev_hash != NO_PARENT:  # another network's genesis block is reported, not ignored
            try:
                check_work(header, self.network)
            except MalformedBlock as error:
                self.refused = self.refused or error
                return
        number = self.find(header.hash)
        if frame.searched and number is None:
            self.searched.add(len(self.index))
        elif number is not None and not frame.searched:
            self.searched.discard(number)
        if number is None or self.index.is_dropped(number):
            self.index.add(frame.head, place)
        elif place != self.index.place(number):
            copies = self._copies.setdefault(number, [])
            if place not in copies:
                copies.append(place)
            self._check_place(number)

    def _accept(self, file: int, frame: Frame) -> bool:
        """Decide whether a record that was found by searching is a block that is needed."""
        place = Place(file, frame.offset, frame.length)
        try:
            header = self._header(_UNKNOWN, frame.head, place)
        except (MalformedBlock, MissingData):
            return False
        number = self.find(header.hash)
        if number is not None and not self.index.is_dropped(number):
            known = self.index.place(number)
            if known == place:
                return True
            if self._holds(number, known):
                return False
        try:
            check_work(header, self.network)
            if self._spent_budget > _SEARCH_BUDGET:
                return False
            self._spent_budget += place.length
            CheckedBlock(header, self._bytes_at(place, 0, place.length), self.network, "merkle")
        except (MalformedBlock, MissingData):
            return False
        self._spent_budget -= place.length
        return True

    def _check_place(self, number: int) -> None:
        """If a block is no longer in its place, take another one where it is; drop it if there is none."""
        if self._holds(number, self.index.place(number)):
            return
        copies = [place for place in self._copies.pop(number, []) if self._holds(number, place)]
        if not copies:
            self.index.drop(number)
            return
        self.index.add(self._bytes_at(copies[0], 0, HEADER_SIZE), copies[0])
        if copies[1:]:
            self._copies[number] = copies[1:]

    def _choose_copy(self, number: int) -> None:
        """Of several places of a block, keep the first one that holds all of it."""
        places = [self.index.place(number), *self._copies.pop(number)]
        height = self.index.height(number)
        for place in places:
            with suppress(MalformedBlock, MissingData):
                raw = self._bytes_at(place, 0, place.length)
                header = read_whole_header(height, raw, self.network)
                if self._has_header_of(number, raw):
                    CheckedBlock(header, raw, self.network, "merkle")
                    self.index.add(header.header, place)
                    return
