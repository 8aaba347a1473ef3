"""The command `preview`, and pending inputs: on a real node, beside a running writer."""

import json

import pytest

from tests.acceptance.conftest import Commands, Place, check_one_line

pytestmark = pytest.mark.node

NOTARY = "virtualchain.examples.notary"
DOCUMENT = "sha256=" + "ab" * 32


def test_an_input_is_foreseen_sent_and_seen_on_its_way(cli: Commands, place: Place) -> None:
    """Preview, pending view and watch say the same of an input, before it is in a block."""
    writer = cli.start("run", "--pending", "--app", NOTARY, *place.options)
    writer.until(lambda: "notary" in cli("status", *place.options).out)
    watch = cli.start("watch", "--pending", "--json", *place.options)
    foreseen = json.loads(cli("preview", NOTARY, "claim", DOCUMENT, "--json", *place.options).out)
    assert (foreseen["verdict"], foreseen["step"], foreseen["reason"]) == ("accepted", None, None)
    assert [(change["table"], change["action"]) for change in foreseen["changes"]] == [
        ("documents", "insert")
    ]
    sent = json.loads(cli("send", NOTARY, "claim", DOCUMENT, "--json", *place.options).out)

    def pending() -> list[dict[str, str]]:
        statement = "SELECT txid, verdict, changes -> 0 ->> 'action' AS action FROM virtualchain.pending"
        return list(json.loads(cli("sql", statement, "--json", *place.options).out))

    writer.until(lambda: pending() != [])
    assert pending() == [{"txid": sent["txid"], "verdict": "accepted", "action": "insert"}]
    rows = "SELECT owner FROM notary.documents_pending"
    assert json.loads(cli("sql", rows, "--json", *place.options).out) == [{"owner": sent["sender"]}]
    again = cli("preview", NOTARY, "claim", DOCUMENT, *place.options).out
    assert "notary c: refused in block" in again
    assert "claimed in block" in again
    refused = json.loads(cli("send", NOTARY, "claim", DOCUMENT, "--json", *place.options, code=1).out)
    assert (refused["status"], refused["verdict"], refused["step"]) == ("unsent", "refused", "check")
    assert (sent["verdict"], sent["changes"][0]["action"]) == ("accepted", "insert")
    mine = cli("preview", NOTARY, "revoke", DOCUMENT, "--sender", sent["sender"], *place.options).out
    assert "update documents" in mine
    whole = cli("preview", NOTARY, "--tx", sent["raw"], "--json", *place.options).out
    assert json.loads(whole)["txid"] == sent["txid"]
    place.mine()
    writer.until(lambda: pending() == [])
    writer.signal()
    events = [json.loads(line) for line in watch.signal().out.splitlines()]
    shown = [event for event in events if event["event"] == "pending" or event.get("ops")]
    assert [event["event"] for event in shown] == ["pending", "block", "pending"]
    assert shown[0]["inputs"][0]["txid"] == sent["txid"]
    assert shown[2] == {
        "event": "pending",
        "inputs": [],
        "gone": [{"app": "notary", "txid": sent["txid"], "payload_index": 0}],
    }


def test_mistakes_are_one_line(cli: Commands, place: Place) -> None:
    """What cannot be previewed is said in a line, with exit code 2."""
    cli("sync", "--app", NOTARY, *place.options)
    for arguments, complaint in (
        (("claim", DOCUMENT, "--tx", "00"), "--tx is a whole transaction"),
        (("--tx", "zz"), "that is not a transaction in hex"),
        (("shout", DOCUMENT), "app notary has no opcode 'shout'"),
        (("claim", "sha=1"), "unknown: sha"),
        (("claim", DOCUMENT, "--sender", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"), "is not an address"),
    ):
        check_one_line(cli("preview", NOTARY, *arguments, *place.options, code=2), complaint)
