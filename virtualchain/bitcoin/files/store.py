"""The blocks of some files, found and read: one pass over their headers, and a look at what is appended."""

import threading
from typing import Final

from virtualchain.bitcoin.files.folder import BlockFolder
from virtualchain.bitcoin.files.framing import FramedFile, Framing, read_part
from virtualchain.bitcoin.files.index import BlockIndex, Place
from virtualchain.bitcoin.header import HEADER_SIZE, display, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.errors import MalformedBlock

LARGEST_BLOCK: Final = 4_000_000
"""Bytes: a byte weighs at least one unit (BIP 141)."""


class BlockStore:
    """Files of blocks and the index over them, which is asked and changed under `lock` only."""

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

    def look(self) -> None:
        """Take into the index what the files hold by now; raises NodeError."""
        with self.lock:
            listing = self.folder.look()
            self.has_undo = listing.has_undo
            for number, size in listing.blocks.items():
                file = self._files.get(number)
                if file is None or not file.is_unchanged(size):
                    self._take(number, file)

    def find(self, block_hash: str) -> int | None:
        """Find a block's number by its hash as people read it."""
        try:
            computed = bytes.fromhex(block_hash)[::-1]
        except ValueError:
            return None
        with self.lock:
            return self.index.find(computed)

    def place(self, number: int) -> Place:
        """Tell where a block lies."""
        with self.lock:
            return self.index.place(number)

    def hash(self, number: int) -> str:
        """Give a block's hash as people read it."""
        with self.lock:
            return display(self.index.hash(number))

    def read(self, number: int) -> bytes:
        """Read a block; raises MissingData, and MalformedBlock where another one lies there by now."""
        return self.part(number, 0, self.place(number).length)

    def part(self, number: int, start: int, length: int) -> bytes:
        """Read some of a block's bytes, as `read`; from the start on, the header is compared."""
        raw = self._part(number, start, length)
        if start == 0 and not self._has_header_of(number, raw):
            # A node that crashed may have put its last blocks in another order.
            with self.lock:
                self._take(self.place(number).file, None)
            raw = self._part(number, start, length)
            if not self._has_header_of(number, raw):
                place = self.place(number)
                raise MalformedBlock(
                    f"{self.folder.block_file(place.file)} has no more block {self.hash(number)} at byte "
                    f"{place.offset}: was it replaced? Start virtualchain anew"
                )
        return raw

    def _part(self, number: int, start: int, length: int) -> bytes:
        place = self.place(number)
        path = self.folder.block_file(place.file)
        return read_part(path, place.offset + start, min(length, place.length - start), self.key)

    def _has_header_of(self, number: int, raw: bytes) -> bool:
        with self.lock:
            return sha256d(raw[:HEADER_SIZE]) == self.index.hash(number)

    def _take(self, number: int, file: FramedFile | None) -> None:
        """Take a file's new blocks into the index; all of them where it was not read before."""
        if file is None:
            file = self._files[number] = FramedFile(self.folder.block_file(number), self._framing)
        for frame in file.new_frames():
            self.index.add(frame.head, Place(number, frame.offset, frame.length))
