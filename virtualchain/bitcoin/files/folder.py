"""Which files hold the blocks: bitcoind's data folder, its `blocks` folder, or one file in the same form."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtualchain.bitcoin.files.framing import KEY_SIZE, read_part, unveil
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.errors import NodeError, NodeUnavailable, UsageError

_NAME: Final = re.compile(r"(blk|rev)([0-9]{5,})\.dat")


@dataclass(frozen=True, slots=True)
class Listing:
    """What files there are now."""

    blocks: dict[int, int]
    """The size of each file of blocks, by its number, in order."""
    has_undo: bool
    """Whether there is any file of undo data."""


class BlockFolder:
    """Files of blocks, numbered, and the files of undo data that belong to them."""

    def __init__(self, path: Path, *, is_file: bool) -> None:
        self.path = path
        """What messages name: the folder, or the one file."""
        self._folder = path.parent if is_file else path
        self._single = path if is_file else None
        match = _NAME.fullmatch(path.name) if is_file else None
        self._number = int(match[2]) if match and match[1] == "blk" else None

    def block_file(self, number: int) -> Path:
        """Tell where a file of blocks lies."""
        return self._single or self._folder / f"blk{number:05}.dat"

    def undo_file(self, number: int) -> Path:
        """Tell where the undo data of a file's blocks lie, if there are any."""
        return self._folder / f"rev{number:05}.dat"

    def look(self) -> Listing:
        """List the files; raises NodeError where the folder cannot be read."""
        try:
            if self._single is not None:
                number = self._number or 0
                has_undo = self._number is not None and self.undo_file(number).exists()
                return Listing({number: self._single.stat().st_size}, has_undo)
            with os.scandir(self._folder) as entries:
                found = [(entry, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
            sizes = {int(match[2]): entry.stat().st_size for entry, match in found if match[1] == "blk"}
        except OSError as error:
            raise NodeError(f"{self.path} cannot be read: {error.strerror}") from error
        return Listing(dict(sorted(sizes.items())), any(match[1] == "rev" for _, match in found))

    def key(self) -> bytes:
        """Read the key that obfuscates the files, empty where they are plain; raises NodeError."""
        path = self._folder / "xor.dat"
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise NodeError(f"{path} cannot be read: {error.strerror}") from error
        if len(key) != KEY_SIZE:
            raise NodeError(f"{path} has {len(key)} bytes, and a key has {KEY_SIZE}: is it bitcoind's?")
        return key if any(key) else b""


def find_folder(path: Path, network: Network | None) -> BlockFolder:
    """Find the blocks at `path`: a file, a `blocks` folder, or a data folder, there those of `network`.

    Raises UsageError where there are none, or where it is not clear which are meant; NodeError.
    """
    try:
        if path.is_file():
            return BlockFolder(path, is_file=True)
        if not path.is_dir():
            raise UsageError(
                f"there is no {path}: give a `blocks` folder of bitcoind, or a file of that form"
            )
        if _holds_blocks(path):
            return BlockFolder(path, is_file=False)
        known = NETWORKS.values() if network is None else [network]
        found = [folder for each in known if _holds_blocks(folder := path / each.subfolder / "blocks")]
    except OSError as error:
        raise NodeError(f"{path} cannot be read: {error.strerror}") from error
    if not found:
        of_it = "" if network is None else f" of {network.name}"
        raise UsageError(f"{path} holds no blocks{of_it}: neither blk00000.dat nor a node's folders with it")
    if len(found) > 1:
        raise UsageError(f"{path} holds the blocks of several networks: say which with --network")
    return BlockFolder(found[0], is_file=False)


def find_network(folder: BlockFolder, wanted: Network | None) -> tuple[Network, bytes]:
    """Tell by the first bytes which network the files are of, and the key that they are read with.

    Raises NodeError for another network than `wanted`, UsageError for files of another form, NodeUnavailable
    where nothing has been written yet.
    """
    key = folder.key()
    for number, size in folder.look().blocks.items():
        path = folder.block_file(number)
        start = read_part(path, 0, min(size, 4), b"")
        if not any(start):
            continue
        # A plain file may lie beside the key of others.
        plain = {start, unveil(start, 0, key)}
        for known in NETWORKS.values():
            if known.message_start in plain:
                if wanted not in {None, known}:
                    raise NodeError(f"{path} is of {known.name}, but {wanted.name} was asked for")
                return known, b"" if start == known.message_start else key
        raise UsageError(f"{path} begins with {start.hex()}, as the blocks of no network that we know")
    raise NodeUnavailable(f"{folder.path} holds no block yet")


def _holds_blocks(folder: Path) -> bool:
    return folder.is_dir() and any(
        file.name.startswith("blk") and _NAME.fullmatch(file.name) for file in folder.iterdir()
    )
