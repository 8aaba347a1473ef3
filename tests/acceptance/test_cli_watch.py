"""The command watch, as a process that follows a deployment and is ended by a signal."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.acceptance.conftest import Commands
from tests.support.moving import an_app, story
from virtualchain import StateEngine
from virtualchain.testing import FakeNode


@contextmanager
def watching(cli: Commands, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command; it is interrupted at the end, and must end well."""
    command = [sys.executable, "-m", "virtualchain", "watch", *arguments]
    with subprocess.Popen(
        command,
        cwd=cli.folder,
        env=cli.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0


def lines(process: subprocess.Popen[str], until: str) -> list[str]:
    """Read what is printed up to the line that has a text in it."""
    assert process.stdout is not None
    found = [process.stdout.readline()]
    while until not in found[-1] and found[-1]:
        found.append(process.stdout.readline())
    return found


def test_blocks_and_rollbacks_are_printed(cli: Commands, fake_node: FakeNode, database_url: str) -> None:
    """A line a block, with its ops and what they did below; as JSON an object a line."""
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        fake_node.mine([fake_node.send(b"mvoadd a")])
        engine.build()
        first = str(fake_node.height)
        options = ("--database", database_url, "--from", first)
        with (
            watching(cli, *options, "--app", "plain") as for_people,
            watching(cli, *options, "--json") as for_programs,
        ):
            told = lines(for_people, "owners")
            assert told[0].startswith(f"block {first} {fake_node.tip}: 1 op, 2 changes")
            assert told[1].startswith("  plain op o ")
            assert (
                told[2].startswith('  plain insert marks {"place": 1} {"raw": "\\\\\\\\x00ff"')
                or "note" in told[2]
            )
            assert told[3] == '  plain insert owners {"name": "a"} {"rank": 1}\n'
            fake_node.mine([fake_node.send(b"mvonote a")])
            engine.build()
            assert 'note: "block 102" -> "block 102+"' in lines(for_people, "update")[-1]
            before = lines(for_programs, fake_node.tip)  # it has come as far before the fork
            fake_node.reorg(1)
            story(fake_node, 1, 1)
            engine.build()
            assert lines(for_people, "rolled back")[-1].startswith(f"rolled back to block {first} ")
            events = [json.loads(line) for line in [*before, *lines(for_programs, fake_node.tip)]]
    assert [(event["event"], event["block_id"]) for event in events] == [
        ("block", 102),
        ("block", 103),
        ("rollback", 102),
        ("block", 103),
        ("block", 104),
        ("block", 105),
    ]
    assert events[0]["changes"][1]["new"] == {"name": "a", "rank": 1}
    assert events[0]["ops"][0]["fields"] == {"do": "add", "name": "a"}


def test_a_block_whose_changes_are_forgotten_is_refused(
    cli: Commands, fake_node: FakeNode, database_url: str
) -> None:
    """The message says from where on they are kept."""
    story(fake_node, 1, 30)
    with StateEngine(
        an_app(), database=database_url, source=fake_node.url, confirmations=0, history=10
    ) as engine:
        engine.build()
    done = cli("watch", "--database", database_url, "--from", "50", code=2)
    assert "is kept from block 122 on: begin there, not with 50" in done.err
