"""A deployment checks itself: what another node printed is expected here, and a difference is loud."""

import json
from pathlib import Path

from tests.acceptance.conftest import Inside, mine_notes
from virtualchain.checkpoint.signing import make_key
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")


def test_what_a_node_prints_is_what_another_expects(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """A lie in it stops the app; `status --check` says so by its exit code, with and without the list."""
    mine_notes(fake_node, "one", "two")
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    inside("sync", *APP, *common)
    inside("status", *common, "--check")
    good, lie = inside.folder / "good.json", inside.folder / "lie.json"
    good.write_text(inside("consensus", "--json", *common).out)
    document = json.loads(good.read_text())
    document["apps"][0]["state_hash"] = "00" * 32
    lie.write_text(json.dumps(document))
    mine_notes(fake_node, "three")
    inside("sync", *APP, *common, "--expect", good.name)
    done = inside("status", *common, "--check", "--expect", lie.name, code=1)
    assert f"{lie} expects {'00' * 32}" in done.err
    mine_notes(fake_node, "four")
    done = inside("sync", *APP, *common, "--expect", lie.name, code=4)
    assert f"but {lie} expects {'00' * 32}" in done.err
    done = inside("status", *common, "--check", "--json", code=1)
    (app,) = json.loads(done.out)["apps"]
    assert (app["status"], app["unexpected"]["origin"]) == ("halted", str(lie))
    assert "UNEXPECTED" in inside("status", *common).out
    inside("resume", "notes", *common)
    done = inside("sync", *APP, *common, "--expect", lie.name, "--on-unexpected", "continue")
    assert "expects" in done.err
    (app,) = json.loads(inside("status", *common, "--json").out)["apps"]
    assert (app["status"], app["block_id"]) == ("running", fake_node.height)


def test_a_mismatch_stays_on_record_while_its_block_does(
    inside: Inside, fake_node: FakeNode, database_url: str
) -> None:
    """Commands that compare nothing neither clear it nor halt an app that is to continue."""
    mine_notes(fake_node, "one", "two")
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    inside("sync", *APP, *common)
    document = json.loads(inside("consensus", "--json", *common).out)
    document["apps"][0]["state_hash"] = "00" * 32
    (inside.folder / "lie.json").write_text(json.dumps(document))
    at = fake_node.height
    mine_notes(fake_node, "three", "four")
    inside("sync", *APP, *common, "--expect", "lie.json", "--on-unexpected", "continue")
    inside("rollback", at + 1, *APP, *common)
    inside("status", *common, "--check", code=1)
    (app,) = json.loads(inside("status", *common, "--json").out)["apps"]
    assert (app["status"], app["unexpected"]["block_id"]) == ("running", at)
    inside("rollback", at - 1, *APP, *common)
    inside("status", *common, "--check")


def test_a_list_can_be_signed(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """With keys to trust, a list without the signature of one of them is a mistake, not an expectation."""
    mine_notes(fake_node, "one")
    common = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", 0)
    inside("sync", *APP, *common)
    public = make_key(inside.folder / "key")
    signed, unsigned = inside.folder / "signed.json", inside.folder / "unsigned.json"
    signed.write_text(inside("consensus", *common, "--sign", "key").out)
    unsigned.write_text(inside("consensus", *common, "--json").out)
    Path(inside.folder / "virtualchain.toml").write_text(f'[virtualchain]\ntrust = ["{public}"]\n')
    inside("sync", *APP, *common, "--expect", signed.name)
    done = inside("sync", *APP, *common, "--expect", unsigned.name, code=2)
    assert "signed by nobody" in done.err


def test_a_wrong_choice_is_a_usage_error(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """Neither is guessed."""
    common = (*APP, "--bitcoin", fake_node.url, "--database", database_url)
    done = inside("sync", *common, "--on-unexpected", "ignore", code=2)
    assert "--on-unexpected must be halt or continue" in done.err
    done = inside("sync", *common, "--expect", "ftp://somewhere", code=2)
    assert "--expect must be files" in done.err
