"""The tutorial, executed from its first block to its last, as a newcomer would."""

import re
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pages import ROOT, Shell, code_blocks, environment, write_block
from virtualchain.scaffold.project import create
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
ON_A_NODE = "## A real node"
INSTALL = "pip install"
DEV = "virtualchain dev\n"
SERVE = "virtualchain serve\n"
LATER = {"pytest\n": "\n", "--update-golden\nmypy": "--update-golden -q -k 'fork_decides or comes_back'"}
"""The rest of this is tried by tests/acceptance/test_init_projects.py."""


def test_the_project_grows_as_the_tutorial_says(tmp_path: Path, database_url: str) -> None:
    """From `init` to a page: each change fits the file that it is for, and tests and checkers pass."""
    variables = {"DEV": f"virtualchain dev --no-pages --database {database_url}_dev"}
    with Shell(tmp_path, tmp_path / "output", variables) as shell:
        before, _, _ = PAGE.partition(ON_A_NODE)
        shown = _follow(before, tmp_path / "points", shell)
    assert "refused at check: the sender has 70 points" in shown
    assert re.findall(r"^bcrt1\w+ +(\d+) ", shown, re.MULTILINE) == ["70", "30", "100"]
    assert "2 passed" in shown
    _check_style(tmp_path / "points")


@pytest.mark.node
def test_the_app_runs_on_a_node_as_the_tutorial_says(
    tmp_path: Path, bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """Inputs, a fork, a page in the explorer, and an upgrade; only node and database are ours."""
    client = Path(str(find_bitcoind())).with_name("bitcoin-cli")
    if not client.is_file():
        pytest.skip("there is no bitcoin-cli beside bitcoind")
    node = bitcoind_factory("-fallbackfee=0.0001")
    before, heading, after = PAGE.partition(ON_A_NODE)
    project = tmp_path / "points"
    create("points", project, "poin")
    for block in code_blocks(before):
        if block.language not in {"sh", "text"}:
            write_block(project, block)
    variables = {
        "VIRTUALCHAIN_DATABASE": database_url,
        "VIRTUALCHAIN_BITCOIN": f"http://127.0.0.1:{node.port}",
        "VIRTUALCHAIN_COOKIE": str(node.cookie),
    }
    with Shell(project, tmp_path / "output", variables) as shell:
        shell.run(f'bitcoin-cli() {{ "{client}" -datadir="{node.datadir}" -rpcport={node.port} "$@"; }}')
        shell.run("bitcoind() { :; }")
        shown = _follow(heading + after, project, shell)
    assert re.findall(r"^\w{30,}  (\d+)$", shown, re.MULTILINE) == ["30", "70", "100"]
    assert "undone: 1 block, 1 op" in shown
    assert '"memo": "coffee", "amount": 30' in shown
    assert "points runs version 2" in shown
    _check_style(project)


def _follow(text: str, project: Path, shell: Shell) -> str:
    """Do what a part of the page says; return what its commands print."""
    shown = ""
    for block in code_blocks(text):
        if block.language == "text":  # what is typed into the program that was started last
            shown += shell.run(f"$DEV <<'END'\n{block.text}END\n")
        elif block.language != "sh":
            write_block(project, block)
        elif block.text == DEV:
            continue
        elif block.text == SERVE:
            _look(shell)
        else:
            lines = [line for line in block.text.splitlines(keepends=True) if not line.startswith(INSTALL)]
            commands = "".join(lines)
            for command, shorter in LATER.items():
                commands = commands.replace(command, shorter)
            shown += shell.run(commands)
    return shown


def _look(shell: Shell) -> None:
    """Serve the explorer, look at the app's own page, and end the server."""
    shell.run("virtualchain serve --port 0 > served 2>&1 & server=$!")
    address = shell.run("until grep -o 'http://[0-9.:]*' served; do sleep 0.05; kill -0 $server; done")
    base = address.split()[0]
    with urllib.request.urlopen(f"{base}/apps/points/pages/account") as answer:
        assert "70 points" in answer.read().decode()
    owner = shell.run("echo $me").strip()
    with urllib.request.urlopen(f"{base}/apps/points/pages/account/{owner}") as answer:
        assert "coffee" in answer.read().decode()
    shell.run("kill $server; wait $server || true")


def _check_style(project: Path) -> None:
    """Check that the tutorial's code is formatted as the project's own."""
    for arguments in (("check",), ("format", "--check")):
        done = subprocess.run(
            ["ruff", *arguments, "."],
            cwd=project,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
