"""Execute the README: write its files and run its commands, as a newcomer would."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.pages import environment
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS = "pip install -e '.[embedded,test]' && pytest"
PROJECT = "(cd points && pytest"
"""All of these tests are run by tests/acceptance/test_init_projects.py."""
DEMO = "pip install '.[embedded]' && virtualchain demo"


def blocks(language: str, text: str = README) -> list[str]:
    """Return a page's code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def home() -> Iterator[Path]:
    """Create a home for the embedded server that another user's server process can reach."""
    folder = Path(tempfile.mkdtemp(prefix="virtualchain-readme-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_tutorial_works_as_written(tmp_path: Path, fake_node: FakeNode, database_url: str) -> None:
    """The tutorial's files and commands work; only the node's address and the database are replaced."""
    for text in blocks("python"):
        name = text.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    fake_node.mine([fake_node.send(b"gbsHello from the README", sender="alice")])
    fake_node.mine([fake_node.send(b"gbs\xff", sender="bob")], n=7)
    commands = "".join(blocks("sh")).replace("http://user:password@127.0.0.1:18443", fake_node.url)
    commands = commands.replace(PROJECT, f"{PROJECT} -q -k paid")
    lines = [line for line in commands.splitlines() if line not in {TESTS, DEMO}]
    ran = subprocess.run(
        ["bash", "-euxc", "\n".join(lines)],
        cwd=tmp_path,
        env={**environment(), "VIRTUALCHAIN_DATABASE": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" passed") == 2
    assert "Hello from the README" in ran.stdout
    assert "utf-8" in ran.stdout


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    """The README shows these two commands first; CI runs the second, and the demo's own test the first."""
    assert blocks("sh")[:2] == [DEMO + "\n", TESTS + "\n"]


def test_the_demo_runs_without_a_database_server_or_node(home: Path) -> None:
    """`virtualchain demo` starts a server of its own and exits."""
    variables = {**environment(), "VIRTUALCHAIN_HOME": str(home)}
    command = DEMO.partition("&& ")[2].split()
    try:
        ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    finally:
        subprocess.run(["virtualchain", "db", "stop"], env=variables, capture_output=True, check=False)


@pytest.mark.node
def test_an_input_is_sent_as_the_page_for_authors_says(
    tmp_path: Path, bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """The commands work with Bitcoin Core's own client; only the addresses of node and database are ours."""
    client = Path(str(find_bitcoind())).with_name("bitcoin-cli")
    if not client.is_file():
        pytest.skip("there is no bitcoin-cli beside bitcoind")
    page = (ROOT / "docs" / "apps.md").read_text(encoding="utf-8")
    [commands] = blocks("sh", page.partition("## Sending an input")[2].partition("\n## ")[0])
    (tmp_path / "guestbook.py").write_text(blocks("python")[0])
    node = bitcoind_factory()
    script = (
        f'bitcoin-cli() {{ "{client}" -datadir="{node.datadir}" -rpcport={node.port} "$@"; }}\n{commands}'
    )
    ran = subprocess.run(
        ["bash", "-euxc", script],
        cwd=tmp_path,
        env={
            **environment(),
            "VIRTUALCHAIN_DATABASE": database_url,
            "VIRTUALCHAIN_BITCOIN": f"http://127.0.0.1:{node.port}",
            "VIRTUALCHAIN_COOKIE": str(node.cookie),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "inputs          1: 1 accepted\n" in ran.stdout
    assert f"code            {tmp_path / 'guestbook.py'}\n" in ran.stdout
