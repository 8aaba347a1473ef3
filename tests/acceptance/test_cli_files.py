"""The options --blocks and --verify: blocks from files, and blocks checked against their headers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Commands, Inside, check_one_line
from tests.support.servers import value
from tests.support.shared_data import shared
from virtualchain.bitcoin.header import HEADER_SIZE
from virtualchain.bitcoin.networks import network
from virtualchain.testing import ChainBuilder, FakeNode

TEXTS = "SELECT string_agg(text, ',' ORDER BY block_id) FROM notes.notes"


@pytest.fixture
def chain(tmp_path: Path) -> ChainBuilder:
    """Create a chain of 103 blocks with an op in each of the last two, saved in the file `chain`."""
    builder = ChainBuilder()
    for text in (b"one", b"two"):
        builder.mine([builder.send(b"sto" + text)])
    builder.save(tmp_path / "chain")
    return builder


@pytest.fixture
def common(database_url: str) -> tuple[Any, ...]:
    """Return the options of every command here."""
    return ("--app", "apps", "--database", database_url, "--confirmations", 0)


def test_sync_and_status_read_a_file(
    inside: Inside, chain: ChainBuilder, database_url: str, common: tuple[Any, ...]
) -> None:
    """Files work like a node, and a second sync finds nothing to do."""
    done = inside("sync", *common, "--blocks", "chain", "--verify", "merkle")
    assert "104 blocks and 2 inputs in " in done.out
    assert value(database_url, TEXTS) == "one,two"
    assert "0 blocks and 0 inputs in " in inside("sync", *common, "--blocks", "chain").out
    status = json.loads(inside("status", *common, "--blocks", "chain", "--json").out)
    assert status["tip"] == {"block_id": chain.height, "hash": chain.tip}
    assert [app["lag"] for app in status["apps"]] == [0]


@pytest.mark.parametrize("way", ["environment", "file"])
def test_path_and_verification_can_be_set_elsewhere(
    inside: Inside, chain: ChainBuilder, tmp_path: Path, common: tuple[Any, ...], way: str
) -> None:
    """They are read from the environment and from virtualchain.toml, whose paths are relative to the file."""
    if way == "environment":
        inside.set(VIRTUALCHAIN_BLOCKS="chain", VIRTUALCHAIN_VERIFY="merkle")
    else:
        (tmp_path / "virtualchain.toml").write_text("[virtualchain]\nblocks = 'chain'\nverify = 'merkle'\n")
    assert f"{chain.height + 1} blocks" in inside("sync", *common).out


def test_the_first_blocks_of_bitcoin(inside: Inside, database_url: str) -> None:
    """Six hundred blocks of mainnet are synced from one file."""
    path = shared("mainnet/blocks-0-599.dat")
    example = ("--app", "virtualchain.examples.notary", "--database", database_url)
    done = inside("sync", *example, "--blocks", path, "--verify", "merkle", "--network", "mainnet")
    assert "594 blocks and 0 inputs in " in done.out
    assert str(value(database_url, "SELECT hash FROM virtualchain.blocks WHERE block_id = 170")).startswith(
        "00000000d1145790a8694403d4063f32"
    )


def test_run_follows_a_file_that_grows(
    cli: Commands, chain: ChainBuilder, tmp_path: Path, database_url: str, common: tuple[Any, ...]
) -> None:
    """It waits for the first block in a folder, and processes the blocks that are appended later."""
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "blk00000.dat").touch()
    process = cli.start("run", *common, "--blocks", "blocks")
    process.until_said("holds no block yet")
    shutil.copy(tmp_path / "chain", tmp_path / "blocks" / "blk00000.dat")
    process.until_said("waiting for block 104: the node is at block 103")
    chain.mine([chain.send(b"stothree")])
    chain.save(tmp_path / "blocks" / "blk00000.dat")
    process.until_said("waiting for block 105")
    assert process.signal().code == 0
    assert value(database_url, TEXTS) == "one,two,three"


def test_a_sync_from_a_node_continues_after_files(
    inside: Inside, chain: ChainBuilder, tmp_path: Path, database_url: str, common: tuple[Any, ...]
) -> None:
    """An option replaces the source of the settings, and the sync continues from it."""
    (tmp_path / "virtualchain.toml").write_text("[virtualchain]\nblocks = 'chain'\n")
    inside("sync", *common)
    with FakeNode(chain=chain) as node:
        node.mine([node.send(b"stothree")])
        inside("sync", *common, "--bitcoin", node.url)
    assert value(database_url, TEXTS) == "one,two,three"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--blocks", "gone"), 2, "gone: give bitcoind's `blocks` folder, or a file in the same format"),
        (("--blocks", "."), 2, "holds no blocks: there is no blk00000.dat in it or in a node's subfolders"),
        (
            ("--blocks", "apps.py"),
            2,
            "apps.py begins with 0a696d70, not with the message start of a known network",
        ),
        (("--blocks", "chain", "--bitcoin", "http://x"), 2, "--bitcoin and --blocks are both given"),
        (("--blocks", "chain", "--verify", "all"), 2, "--verify must be off, headers or merkle"),
        (("--blocks", "chain", "--network", "signet"), 3, "chain is of regtest, but signet was asked for"),
        (("--blocks", "empty"), 3, "empty holds no block yet"),
        (("--blocks", "mixed"), 3, "mixed holds blocks of mainnet among those of regtest"),
    ],
)
def test_mistakes_get_one_line(
    inside: Inside,
    chain: ChainBuilder,
    tmp_path: Path,
    common: tuple[Any, ...],
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    """The line contains the path and the reason, and the exit code tells usage from source errors."""
    (tmp_path / "empty").touch()
    foreign = network("mainnet").message_start + bytes(100)
    (tmp_path / "mixed").write_bytes((tmp_path / "chain").read_bytes() + foreign)
    check_one_line(inside("sync", *common, *arguments, code=code), complaint)


def test_a_block_with_wrong_transactions_ends_with_3(
    inside: Inside, chain: ChainBuilder, tmp_path: Path, database_url: str, common: tuple[Any, ...]
) -> None:
    """With --verify, a block whose transactions do not match its header is reported and not processed."""
    blocks = chain.raw_blocks()
    blocks[-1] = blocks[-1][:HEADER_SIZE] + blocks[-2][HEADER_SIZE:]
    ChainBuilder.from_blocks("regtest", blocks).save(tmp_path / "forged")
    done = inside("sync", *common, "--blocks", "forged", "--verify", "merkle", code=3)
    assert f"forged: block 103 ({chain.tip}) does not have the transactions that it commits to" in done.err
    assert value(database_url, TEXTS) == "one"
