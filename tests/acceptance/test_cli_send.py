"""The command `send` as a user types it: through a wallet of a real node, beside a running writer."""

import base64
import hashlib
import json
import os

import pytest

from tests.acceptance.conftest import Commands, Inside, Place, check_one_line
from virtualchain.testing import FakeNode

pytestmark = pytest.mark.node

NOTARY = "virtualchain.examples.notary"


def document(text: str) -> str:
    """Return a field with a document's hash."""
    return f"sha256={hashlib.sha256(text.encode()).hexdigest()}"


def test_two_commands(cli: Commands, place: Place) -> None:
    """One terminal runs the app, the other sends an input and waits until the app has accepted it."""
    writer = cli.start("run", "--app", NOTARY, *place.options)
    writer.until(lambda: "notary" in cli("status", *place.options).out)
    me = place.address()
    sending = cli.start(
        "send",
        NOTARY,
        "claim",
        document("mine"),
        "--to",
        f"{me}=0.01",
        "--wait",
        "--timeout",
        "60",
        *place.options,
    )
    sending.until_said("is in the mempool of")
    place.mine()
    done = sending.end()
    assert done.code == 0, done.err
    assert f"notary c: accepted in block {place.node.rpc('getblockcount')}" in done.out
    refused = cli("send", NOTARY, "claim", document("mine"), *place.options, code=1)
    check_one_line(refused, "app notary would refuse c at check: claimed in block")
    assert place.node.rpc("getrawmempool") == []
    writer.signal()


def test_a_psbt_and_a_batch(inside: Inside, place: Place) -> None:
    """A signer elsewhere gets a file and returns one; a CSV file is sent line by line, and only once."""
    inside("sync", "--app", NOTARY, *place.options)
    file = inside.folder / "claim.psbt"
    unsigned = json.loads(
        inside("send", NOTARY, "claim", document("psbt"), "--psbt", file, "--json", *place.options).out
    )
    assert (unsigned["status"], unsigned["preview"]["verdict"]) == ("unsigned", "accepted")
    check_one_line(inside("send", NOTARY, "--broadcast", file, *place.options, code=2), "sign it first")
    again = inside("send", NOTARY, "claim", document("psbt"), "--psbt", file, *place.options, code=2)
    check_one_line(again, "exists: choose another name")
    signed = place.node.rpc("walletprocesspsbt", base64.b64encode(file.read_bytes()).decode())["psbt"]
    file.write_text(signed)
    sent = json.loads(inside("send", NOTARY, "--broadcast", file, "--json", *place.options).out)
    assert sent["status"] == "sent"
    batch = inside.folder / "batch.csv"
    fields = [document(name).partition("=")[2] for name in ("first", "second")]
    batch.write_text("opcode,sha256\n" + "".join(f"claim,{field}\n" for field in fields))
    dry = inside("send", NOTARY, "--batch", batch, "--dry-run", *place.options)
    assert "2 inputs checked, and none sent" in dry.err
    lines = inside("send", NOTARY, "--batch", batch, *place.options).out.splitlines()
    assert [line.split()[0:2] + line.split()[3:] for line in lines] == [
        ["line", "2:", "sent"],
        ["line", "3:", "sent"],
    ]
    repeated = inside("send", NOTARY, "--batch", batch, "--json", *place.options).out.splitlines()
    assert [json.loads(line)["txid"] for line in repeated] == [line.split()[2] for line in lines]
    place.mine()
    inside("sync", "--app", NOTARY, *place.options)
    waited = inside("send", NOTARY, "--batch", batch, "--wait", "--json", *place.options).out.splitlines()
    assert [json.loads(line)["status"] for line in waited] == ["accepted", "accepted"]
    by_name = inside("send", "notary", "claim", document("first"), "--app", NOTARY, *place.options, code=1)
    check_one_line(by_name, "app notary would refuse c at check")


def test_mistakes_give_one_line(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """Options that exclude each other, and values that cannot be, are reported before a node is asked."""
    options = ("--bitcoin", fake_node.url, "--database", database_url)
    for arguments, complaint in {
        ("claim", "--psbt", "a", "--broadcast", "b"): "use either --psbt or --broadcast",
        ("claim", "--fee-rate", "1", "--target", "2"): "use either --fee-rate or --target",
        ("claim", "--psbt", "a", "--wait"): "--psbt sends nothing to wait for",
        ("claim", "--timeout", "1"): "--timeout needs --wait",
        ("claim", "--results", "a"): "--results needs --batch",
        ("claim", "--broadcast", "a"): "--broadcast sends what is in the file",
        ("claim", "--batch", "a"): "with --batch, opcodes, fields and outputs are in the file's columns",
        ("claim", "--fee-rate", "x"): "'x' is not a fee rate",
        ("claim", "--max-fee", "0.000000001"): "'0.000000001' is not an amount",
        ("claim", "sha256"): "'sha256' is not a field: write FIELD=VALUE",
        ("claim", "sha256=1", "sha256=2"): "field 'sha256' is written twice",
        ("claim", "--to", "x"): "'x' is not a payment: write ADDRESS=AMOUNT",
    }.items():
        done = inside("send", NOTARY, *arguments, *options, code=2)
        check_one_line(done, complaint)
    assert "there is no module nonesuch" in inside("send", "nonesuch", "x", *options, code=2).err
    blocks = inside("send", NOTARY, "claim", "--blocks", os.devnull, "--database", database_url, code=2)
    check_one_line(blocks, "block files send nothing")
    missing = inside(
        "send", NOTARY, "claim", "--bitcoin", "http://a:b@127.0.0.1:1", "--database", database_url, code=3
    )
    check_one_line(missing, "is it running?")
