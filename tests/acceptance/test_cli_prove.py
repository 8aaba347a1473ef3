"""The commands prove and check-proof: the one has a deployment, the other nothing but a hash."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.acceptance.conftest import Inside, check_one_line
from virtualchain import App, Rejected, StateEngine
from virtualchain.consensus.proof_file import LONGEST
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

BLOCK = 102
LAST = 106


class Deployment(NamedTuple):
    """A database with an app at block 106, whose block 102 has two ops and a rejection."""

    url: str
    node: FakeNode
    trusted: str


def texts() -> App:
    """Return an app that keeps nothing, and makes an op of each word of a text."""
    app = App("texts", magic=b"tx")
    app.add(
        b"o",
        fields=["text"],
        parse=lambda payload: {"text": payload.decode()},
        check=lambda op, state: op["text"] != "no" or Rejected("we do not take no"),
        commit=lambda op, state: [{"text": word} for word in op["text"].split()],
    )
    return app


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer) -> Iterator[Deployment]:
    """Provide the deployment, which the tests leave unchanged."""
    url = database_server.clone()
    with FakeNode() as node:
        node.mine([node.send(b"txo" + text) for text in (b"one", b"no", b"two \x1b[31mred")], n=5)
        with StateEngine(texts(), database=url, source=node.url, confirmations=0) as engine:
            assert engine.build() == LAST
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT consensus_hash FROM virtualchain.apps").fetchone()
        assert row is not None
        yield Deployment(url, node, row[0])
    database_server.drop(url)


@pytest.fixture
def command(inside: Inside, deployment: Deployment) -> Inside:
    """Provide the command line with the deployment's database and node as its settings."""
    inside.set(VIRTUALCHAIN_DATABASE=deployment.url, VIRTUALCHAIN_BITCOIN=deployment.node.url)
    return inside


def made(command: Inside, *arguments: object) -> str:
    """Make a proof; return the file's content."""
    done = command("prove", "texts", BLOCK, *arguments)
    assert done.out.count("\n") == 1
    return done.out


def test_a_proof_is_made_and_checked(
    command: Inside, deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash to trust is on standard error; the check needs no settings, and takes standard input, too."""
    done = command("prove", "texts", BLOCK, 0)
    hint = f"whoever checks it trusts the hash of texts at block {LAST}: {deployment.trusted}"
    assert done.err == f"virtualchain: {hint}\n"
    (tmp_path / "proof.json").write_text(done.out)
    for name in ("DATABASE", "BITCOIN"):
        monkeypatch.delenv(f"VIRTUALCHAIN_{name}")
    arguments = ("--trust", deployment.trusted)
    assert command("check-proof", "proof.json", *arguments).out == (
        "the proof holds\n"
        "  proven      a block of the trusted history has this op\n"
        "  op          6f3a333a6f6e65 (o:3:one)\n"
        "  block       102 (the prover's word)\n"
        "  trusted at  block 106 (the prover's word)\n"
        "  app         texts (the prover's word)\n"
    )
    known = command("check-proof", "-", *arguments, "--of", "texts", "--at", LAST, stdin=done.out).out
    assert "  trusted at  block 106 (as required)\n  app         texts (as required)\n" in known
    assert "block       102 (the prover's word)" in known
    upper = command("check-proof", "-", "--trust", deployment.trusted.upper(), "--json", stdin=done.out)
    assert json.loads(upper.out) == {
        "kind": "op",
        "app": "texts",
        "first_block_id": 0,
        "trusted_block_id": LAST,
        "block_id": BLOCK,
        "op": "6f3a333a6f6e65",
        "ops": ["6f3a333a6f6e65", "6f3a333a74776f", "6f3a383a1b5b33316d726564"],
        "spv": None,
        "absent": None,
    }
    assert upper.err == ""


def test_a_height_is_certain_only_for_the_trusted_hash_itself(
    command: Inside, deployment: Deployment
) -> None:
    """A proof of one hop from a known height leaves nothing of it to the prover."""
    proof = made(command, "--from", BLOCK)
    with psycopg.connect(deployment.url) as connection:
        row = connection.execute(
            "SELECT consensus_hash FROM virtualchain.snapshots WHERE block_id = 102"
        ).fetchone()
    assert row is not None
    printed = command("check-proof", "-", "--trust", row[0], "--at", BLOCK, stdin=proof).out
    assert "  block       102 (as required)\n" in printed
    printed = command("check-proof", "-", "--trust", row[0], stdin=proof).out
    assert "  block       102 (the prover's word)\n" in printed


def test_parts_and_lists_and_absences(command: Inside, deployment: Deployment) -> None:
    """Control characters of a stranger do not reach the terminal."""
    trust = ("check-proof", "-", "--trust", deployment.trusted)
    part = command(*trust, stdin=made(command, 2, "--part", 1)).out
    assert "  op          6f3a383a1b5b33316d726564 (o:8:\\x1b[31mred)\n" in part
    whole = made(command)
    absent = command(*trust, "--absent", "6F3A323A6E6F", stdin=whole).out
    assert "  proven      a block of the trusted history has these ops and no other\n" in absent
    assert "  op 2        6f3a383a1b5b33316d726564" in absent
    assert "  absent      6f3a323a6e6f (o:2:no)\n" in absent
    printed = json.loads(command(*trust, "--absent", "6f3a323a6e6f", "--json", stdin=whole).out)
    assert (printed["kind"], printed["op"], printed["absent"]) == ("ops", None, "6f3a323a6e6f")
    empty = command("prove", "texts", BLOCK + 1)
    assert "has no op\n" in command(*trust, "--absent", "6f3a323a6e6f", stdin=empty.out).out
    done = command(*trust, "--absent", "6f3a333a6f6e65", stdin=whole, code=1)
    check_one_line(done, "the op is not absent")
    assert done.out == ""
    check_one_line(command(*trust, "--absent", "6f3", stdin=whole, code=2), "--absent 6f3")
    check_one_line(command(*trust, "--absent", "6f3a323a6e6f", stdin=made(command, 0), code=1), "whole list")


def test_the_transaction_and_its_work_are_shown(command: Inside, deployment: Deployment) -> None:
    """From the node's block and the tape's headers, up to its tip or to a block."""
    trust = ("check-proof", "-", "--trust", deployment.trusted)
    node = deployment.node
    with psycopg.connect(deployment.url) as connection:
        row = connection.execute(
            "SELECT txid, block_hash, txindex FROM virtualchain.ops WHERE vtxindex = 0"
        ).fetchone()
    assert row is not None
    txid, block_hash, txindex = row
    for arguments, last in (
        (("--spv",), LAST),
        (("--spv", "--spv-to", 104), 104),
        (("--spv-to", BLOCK), BLOCK),
    ):
        proof = made(command, 0, *arguments)
        printed = json.loads(command(*trust, "--json", "--network", "regtest", stdin=proof).out)["spv"]
        assert printed == {
            "network": "regtest",
            "block_hash": block_hash,
            "txindex": txindex,
            "txid": txid,
            "last_block_id": last,
            "last_block_hash": printed["last_block_hash"],
            "blocks_on_top": last - BLOCK,
            "work_on_top": f"{2 * (last - BLOCK):x}",
        }
    proof = made(command, 0, "--spv")
    text = command(*trust, "--header", node.tip.upper(), stdin=proof).out
    for line in (
        f"  transaction  {txid}, transaction {txindex} of block {block_hash}\n",
        "  made the op  the transaction (the prover's word)\n",
        "  network      regtest (the prover's word)\n",
        "  work         4 blocks on top of it, which take 2^3.0 hashes\n",
        f"  leads to     {node.tip}, block {LAST} (as required)\n",
    ):
        assert line in text
    for refused, reason in (
        (("--header", "ab" * 32), "not to the trusted one"),
        (("--network", "mainnet"), "the headers are of regtest, not of mainnet"),
    ):
        check_one_line(command(*trust, *refused, stdin=proof, code=1), reason)
    plain = made(command, 0)
    check_one_line(command(*trust, "--header", node.tip, stdin=plain, code=1), "shows no headers")
    done = command(*trust, "--network", "regtest", stdin=plain, code=1)
    check_one_line(done, "shows no headers, and so does not show the network")
    command.set(VIRTUALCHAIN_NETWORK="mainnet")  # a setting for other commands requires nothing
    command(*trust, stdin=plain)


def test_the_block_may_come_from_files(command: Inside, deployment: Deployment, tmp_path: Path) -> None:
    """The proof is the same; --json changes nothing."""
    deployment.node.chain.save(tmp_path / "blocks.dat")
    from_node = made(command, 0, "--spv")
    command.set(VIRTUALCHAIN_BITCOIN="http://user:password@127.0.0.1:1")
    assert made(command, 0, "--spv", "--blocks", "blocks.dat", "--json") == from_node


def test_requests_that_cannot_be_met_are_one_line(command: Inside) -> None:
    """Nothing is on standard output then."""
    for arguments, reason in (
        (("other", BLOCK, 0), "has no app other"),
        (("texts", 1000, 0), "has no block 1000"),
        (("texts", BLOCK, 1), "was rejected at check: we do not take no"),
        (("texts", BLOCK, 7), "no op with the vtxindex 7"),
        (("texts", BLOCK, 0, "--part", 1), "there is no part 1"),
        (("texts", BLOCK, 0, "--from", 101), "not at block 101"),
        (("texts", BLOCK, "--spv"), "name it by its VTXINDEX"),
        (("texts", BLOCK, 0, "--spv-to", 101), "they cannot end at block 101"),
        (("texts", BLOCK, 0, "--spv-to", LAST + 1), f"they cannot end at block {LAST + 1}"),
    ):
        done = command("prove", *arguments, code=2)
        check_one_line(done, reason)
        assert done.out == ""
    command.set(VIRTUALCHAIN_BITCOIN="http://user:password@127.0.0.1:1")
    assert command("prove", "texts", BLOCK, 0, "--spv", code=3).out == ""
    assert command("prove", "texts", BLOCK, 0).out


def test_proofs_that_do_not_hold_are_one_line(
    command: Inside, deployment: Deployment, tmp_path: Path
) -> None:
    """A wrong hash, another app or height, changed parts, and what is not a proof; the exit code is 1."""
    proof = made(command, 0)
    trust = ("--trust", deployment.trusted)
    changed = json.loads(proof)
    changed["ops"][0] = "6f3a333a7369"
    other: dict[str, Any] = {**json.loads(proof), "format": "virtualchain-proof-9\x1b[31m"}
    for text, arguments, reason in (
        (proof, ("--trust", "ab" * 16), "do not produce the trusted hash"),
        (proof, (*trust, "--of", "other"), "not of 'other'"),
        (proof, (*trust, "--at", "105"), "the trusted hash is that of 105"),
        (json.dumps(changed), trust, "do not produce its ops hash"),
        (json.dumps(other), trust, "which this version does not read"),
        (proof * 2, trust, "not JSON"),
        (proof.replace('"app"', '"app":"x","app"'), trust, "twice"),
        (proof.replace(":106,", ":106.0,"), trust, "the number '106.0'"),
        ("", trust, "not JSON"),
        ("[]", trust, "must be an object"),
        ("{}", trust, "which this version does not read"),
    ):
        done = command("check-proof", "-", *arguments, stdin=text, code=1)
        check_one_line(done, reason)
        assert done.out == ""
    (tmp_path / "long").write_bytes(b" " * (LONGEST + 1))
    check_one_line(command("check-proof", "long", *trust, code=1), "more than 67,108,864 bytes")
    for file in ("missing", ".", "a\0b"):
        check_one_line(command("check-proof", file, *trust, code=2), "cannot be read")
    assert "--trust" in command("check-proof", "-", stdin=proof, code=2).err
    for text in ("", "ab", deployment.trusted + "0", deployment.trusted[:-1] + "\n", "é" * 32):
        done = command("check-proof", "-", "--trust", text, stdin=proof, code=2)
        check_one_line(done, "write the hash as 32 or 64 hex digits")
    check_one_line(
        command("check-proof", "-", *trust, "--header", "ab", stdin=proof, code=2), "--header 'ab'"
    )


def test_the_check_loads_neither_database_nor_engine(command: Inside, deployment: Deployment) -> None:
    """It can be run where nothing but Python and this package is installed."""
    proof = made(command, 0, "--spv")
    heavy = ("psycopg", "alembic", "sqlalchemy", "sqlglot", "virtualchain.engine", "virtualchain.store")
    code = (
        "import sys; from virtualchain.proof.checking import check_file\n"
        f"check_file(sys.stdin.buffer.read(), {deployment.trusted!r})\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=proof, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
