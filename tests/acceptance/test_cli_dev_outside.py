"""What dev shows to the world outside of its prompt: the form for inputs, and a real node."""

import re
import time
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from tests.acceptance.conftest import Commands
from tests.support.developing import PREMINED, Dev, save
from virtualchain.testing.bitcoind import find_bitcoind


def post(url: str, origin: str | None = None, **fields: str) -> tuple[int, str]:
    """Send a form; return the status and the page that follows."""
    headers = {"Origin": origin or url.rpartition("/")[0]}
    try:
        with urlopen(Request(url, urlencode(fields).encode(), headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_the_form(cli: Commands, start: Callable[..., Dev]) -> None:
    """It sends what a line would, stays when the app changes, and takes nothing from elsewhere."""
    dev = start()
    form = dev.next("pages")["form"]
    dev.next("loaded")

    def page(url: str = form) -> str:
        with urlopen(url, timeout=20) as answer:
            return str(answer.read().decode())

    [token] = set(re.findall(r'name="token" value="([^"]+)"', page()))
    sent = {"opcode": "0x73", "field.message": "<b>it's</b>", "sender": "bob", "to": "carol=1", "way": "send"}
    status, shown = post(form, token=token, **sent)
    assert (status, dev.next("send")["inputs"][0]["verdict"]) == (200, "accepted")
    assert "block 102: s (sign) accepted" in shown
    assert "&lt;b&gt;it&#39;s&lt;/b&gt;" in shown
    assert "<b>" not in shown
    assert post(form, token=token, way="mine", argument="2")[0] == 200
    assert dev.next("mine")["last"] == 104
    assert "is not hex" in post(form, token=token, way="send", hex="zz", sender="bob")[1]

    for refused in (
        post(form, origin="http://evil.example", token=token, way="mine", argument="1"),
        post(form, origin="null", token=token, way="mine", argument="1"),
        post(form, way="mine", argument="1"),
        post(form, token="guess", way="mine", argument="1"),
    ):
        assert refused[0] == 403
    other = Request(form, headers={"Host": "evil.example"})
    with pytest.raises(HTTPError) as misdirected:
        urlopen(other, timeout=20)
    assert misdirected.value.code == 421
    misdirected.value.close()

    save(cli.folder / "guestbook.py", 'b"s"', 'b"w"')
    dev.next("loaded")
    while 'value="0x77"' not in page():
        time.sleep(0.02)
    assert "/apps/guestbook" in page(form.removesuffix("dev"))
    save(cli.folder / "guestbook.py", "class Sign:", "class Sign")
    dev.next("failed")
    assert "line 8" in page()
    assert dev.do("ops")["rows"] == []
    dev.kill()
    _wait_until_gone(form)


@pytest.mark.node
def test_a_real_node(cli: Commands, start: Callable[..., Dev]) -> None:
    """Bitcoind takes the chain's blocks and forks, what its wallets send is mined, and it ends with dev."""
    program = find_bitcoind()
    if program is None:
        pytest.skip("no bitcoind: name one in the environment variable BITCOIND, or put it on PATH")
    cli.environment["BITCOIND"] = str(program)  # it may have been found in the user's cache
    dev = start("--no-pages", "--node", "bitcoind")
    assert dev.next("loaded")["block_id"] == PREMINED + 1
    node = dev.do("status")["node"]
    assert dev.do("send sign message=Hello")["inputs"][0]["verdict"] == "accepted"
    cli.environment["VIRTUALCHAIN_DATABASE_FILE"] = ".virtualchain/dev/database"
    cli("send", "guestbook", "sign", "message=from a wallet", "--bitcoin", node, "--wallet", "bob")
    assert dev.do("mine")["inputs"][0]["fields"]["message"] == "from a wallet"
    assert dev.do("fork 1")["undone"]["ops"] == 1
    assert dev.do("send sign message=at-last --sender carol")["inputs"][0]["verdict"] == "accepted"
    assert dev.rows() == ["Hello", "at-last"]
    dev.kill()
    _wait_until_gone(re.sub("//.*@", "//", node))


def _wait_until_gone(url: str) -> None:
    """Wait until nothing answers at an address: a process that was killed leaves no other one."""
    deadline = time.monotonic() + 30
    while _answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        urlopen(url, timeout=5).close()
    except HTTPError as error:
        error.close()
        return True
    except OSError:
        return False
    return True
