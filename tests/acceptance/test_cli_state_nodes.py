"""State nodes on the command line: a crawler, what follows it, and what says so."""

import json
from pathlib import Path

from tests.acceptance.conftest import Inside
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer


def test_a_crawler_and_a_state_node(
    inside: Inside, fake_node: FakeNode, database_url: str, database_server: DatabaseServer, tmp_path: Path
) -> None:
    """One keeps the tape and applies nothing, or some apps only; the other one follows it without a node."""
    config = tmp_path / "virtualchain.toml"
    config.write_text('[[apps]]\nuse = "apps:plain"\n[[apps]]\nuse = "apps:notes"\napply = false\n')
    fake_node.mine([fake_node.send(b"stohello")])
    inside.set(VIRTUALCHAIN_DATABASE=database_url, VIRTUALCHAIN_BITCOIN=fake_node.url)
    done = inside("sync", "--no-apply", "--confirmations", "0")
    assert "plain" not in done.out
    assert "103 blocks and 1 input" in done.out
    shown = inside("status", "--confirmations", "0")
    assert "the inputs of notes, plain, not applied here" in shown.out
    assert "block 102" in shown.out
    assert "leave one" in inside("sync", "--no-apply", "--from-checkpoint", "https://host/f", code=2).err
    assert "leave one" in inside("run", "--no-apply", "--pending", code=2).err
    done = inside("sync", "--confirmations", "0", "--json")
    assert [app["name"] for app in json.loads(done.out)["apps"]] == ["plain"]

    follower = database_server.clone()
    try:
        inside.set(VIRTUALCHAIN_DATABASE=follower, VIRTUALCHAIN_BITCOIN="", VIRTUALCHAIN_TAPE=database_url)
        config.write_text('[[apps]]\nuse = "apps:notes"\n')
        done = inside("sync")
        assert "is believed that it left out no input" in done.err
        assert inside("sql", "SELECT text FROM notes.notes", "--json").out.count("hello") == 1
        assert "upstream" in inside("status").out
        assert "blocks come from the upstream" in inside("doctor", code=None).out
        assert "a tape sends nothing" in inside("send", "notes", "o", "text=x", code=2).err
        assert "both given" in inside("sync", "--bitcoin", fake_node.url, "--tape", database_url, code=2).err
        assert "postgresql://user:password@host/name" in inside("sync", "--tape", "http://host", code=2).err
    finally:
        database_server.drop(follower)
