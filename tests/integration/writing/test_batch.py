"""Many inputs from one file: all checked before the first is sent, and none sent twice."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.writing.conftest import World, document
from virtualchain.errors import InputRefused, NodeUnavailable, UsageError, VirtualchainError
from virtualchain.writing.batch import Batch, open_results, read_lines
from virtualchain.writing.orders import Sent
from virtualchain.writing.policy import LongChain
from virtualchain.writing.sending import InputSender

pytestmark = pytest.mark.node


def csv(*rows: Sequence[object]) -> bytes:
    """Write rows as CSV."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def claims(prefix: str, n: int, **columns: str) -> bytes:
    """Write a batch of claims, whose other columns are the same in each line."""
    rows = [("claim", document(f"{prefix} {number}"), *columns.values()) for number in range(n)]
    header = ["opcode", "sha256", *(f"--{name}" for name in columns)]
    return csv(header, *rows)


def run(
    sender: InputSender, data: bytes, file: Path, *, waits: bool = False, **options: Any
) -> Iterator[Sent]:
    """Check and send a batch."""
    batch = Batch(sender, read_lines(data), **options)
    with open_results(file) as done:
        batch.check(done)
        for _, sent in batch.run(done, waits=waits):
            yield sent


def mempool(world: World) -> set[str]:
    """Return the ids of the node's unconfirmed transactions."""
    return set(world.node.rpc("getrawmempool"))


def test_lines_are_sent_in_order_and_once(world: World, tmp_path: Path) -> None:
    """A second run sends nothing, and has the same transactions; a line that has changed is an error."""
    me, you = world.paid_address(), world.address()
    data = csv(
        ("opcode", "sha256", "--to", "--sender", "--burn"),
        ("claim", document("batch"), "", me, "0.001"),
        (),
        ("transfer", document("batch"), f"{you}=1000sat  {me}=0.0001", me, ""),
    )
    sender = world.sender()
    first = list(run(sender, data, tmp_path / "results"))
    assert [sent.status for sent in first] == ["sent", "sent"]
    assert mempool(world) >= {sent.txid for sent in first}
    again = list(run(world.sender(), data, tmp_path / "results"))
    assert [sent.txid for sent in again] == [sent.txid for sent in first]
    world.mine()
    assert [sent.txid for sent in run(world.sender(), data, tmp_path / "results")] == [s.txid for s in first]
    with pytest.raises(UsageError, match="line 2 of the batch was sent already, and says something else now"):
        list(run(world.sender(), data.replace(b"0.001", b"0.002"), tmp_path / "results"))
    assert mempool(world) == set()


def test_one_wrong_line_and_nothing_is_sent(world: World, tmp_path: Path) -> None:
    """Each mistake is found before the first line is sent, and its line is named."""
    me = world.paid_address()
    good = ("claim", document("never"), "", me)
    header = ("opcode", "sha256", "--to", "--sender")
    for bad, complaint in {
        ("claim", "zz", "", me): "line 3: app notary, c .*64 hex digits",
        ("sell", document("x"), "", me): "line 3: app notary has no opcode",
        ("claim", "", "", me): "line 3: app notary, c .*missing: sha256",
        ("claim", document("x"), "nonsense=1", me): "line 3: 'nonsense' is not an address",
        ("claim", document("x"), f"{me}=x", me): "line 3: 'x' is not an amount",
        ("claim", document("x"), f"{me}=9000000", me): "has not enough coins",
        ("claim", document("x"), "", world.address()): "line 3: .* has no coin to send from",
        (
            "claim",
            document("never"),
            "",
            me,
        ): "would refuse 1 of the inputs: line 3 at check: claimed in block",
        ("revoke", document("x"), "", me): "would refuse 1 of the inputs: line 3 at check: nobody claimed",
        ("claim", document("x"), ""): "line 3 has 3 cells, and its header 4",
    }.items():
        with pytest.raises(VirtualchainError, match=complaint):
            list(run(world.sender(), csv(header, good, bad), tmp_path / "results"))
        assert not (tmp_path / "results").exists() or not (tmp_path / "results").read_text()
    assert mempool(world) == set()


@pytest.mark.parametrize("arrives", [False, True])
def test_an_interrupted_run_continues_with_what_it_had_signed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    """Whether or not the transaction had arrived, that one is sent, and no other for its line."""
    monkeypatch.setattr("virtualchain.writing.sending._PAUSES", (0.0,))
    data = claims(f"interrupted {arrives}", 3)
    sender = world.sender()
    ask = sender.source.rpc.call_once
    handed: list[str] = []

    def call_once(method: str, *parameters: object) -> Any:
        if method == "sendrawtransaction":
            handed.append(str(parameters[0]))
            if len(handed) == 2:
                if arrives:
                    ask(method, *parameters)
                raise NodeUnavailable("the cable is cut")
        return ask(method, *parameters)

    monkeypatch.setattr(sender.source.rpc, "call_once", call_once)
    with pytest.raises(NodeUnavailable, match=r"line 3: .*1 of 3 inputs are sent; run it again"):
        list(run(sender, data, tmp_path / "results"))
    done = list(run(world.sender(), data, tmp_path / "results"))
    assert done[1].raw.hex() == handed[1]
    assert len({sent.txid for sent in done} & mempool(world)) == 3
    world.mine()


def test_what_the_node_refused_is_made_again(world: World, tmp_path: Path) -> None:
    """A transaction that certainly never arrived does not stand in the way of another one."""
    data = claims("refused", 1)
    sender = world.sender()
    with open_results(tmp_path / "results") as done:
        batch = Batch(sender, read_lines(data))
        (line,) = read_lines(data)
        dry = sender.send(sender.order("claim", {"sha256": document("refused 0")}), dry_run=True)
        world.node.rpc("sendall", [world.address()], wallet="payer")
        with pytest.raises(VirtualchainError):
            sender.hand_over(dry, note=lambda sent: done.add(line, sent))
        assert done.of(line) is None
        world.mine(101)
        assert [sent.status for _, sent in batch.run(done)] == ["sent"]
    assert [json.loads(text)["status"] for text in (tmp_path / "results").read_text().splitlines()] == [
        "signed",
        "refused",
        "signed",
        "sent",
    ]
    world.mine()


def test_long_chains_stop_a_run_or_wait_for_a_block(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sender's inputs depend on each other, and the node takes 25 of them; a run continues later."""
    me = world.paid_address()
    data = claims("chain", 27, sender=me)
    with pytest.raises(LongChain, match=r"line 27: .*25 of 27 inputs are sent; run it again"):
        list(run(world.sender(), data, tmp_path / "results"))
    sender = world.sender()
    monkeypatch.setattr(sender.source, "wait", lambda _: world.mine())
    done = list(run(sender, data, tmp_path / "results", waits=True))
    assert len({sent.txid for sent in done}) == 27
    world.mine()


def test_two_runs_at_once(world: World, tmp_path: Path) -> None:
    """A file of results has one run at a time; one that is another file is refused."""
    with open_results(tmp_path / "results"), pytest.raises(UsageError, match="another run is writing"):
        list(run(world.sender(), claims("twice", 1), tmp_path / "results"))
    for text in (
        "not JSON\n",
        '{"line": 1}\n',
        '{"line": 2, "digest": "x", "raw": "", "status": "new"}\n',
        "[]\n",
    ):
        (tmp_path / "other").write_text(text)
        with pytest.raises(UsageError, match="is not a file of results"):
            list(run(world.sender(), claims("twice", 1), tmp_path / "other"))
    (tmp_path / "cut").write_text('{"line": 2, "dig')
    with pytest.raises(UsageError, match="ends in the middle of a line"):
        list(run(world.sender(), claims("twice", 1), tmp_path / "cut"))
    with pytest.raises(UsageError, match="cannot be used for results"):
        list(run(world.sender(), claims("twice", 1), tmp_path / "no" / "folder"))


def test_refused_lines_are_sent_anyway(world: World, tmp_path: Path) -> None:
    """On demand, and with a remark."""
    data = csv(("opcode", "sha256"), ("revoke", document("nobody's")))
    with pytest.raises(InputRefused):
        list(run(world.sender(), data, tmp_path / "results"))
    (sent,) = run(world.sender(anyway=True), data, tmp_path / "results", say=world.remarks.append)
    assert sent.status == "sent"
    assert any("would refuse 1 of the inputs" in line for line in world.remarks)
    world.mine()
