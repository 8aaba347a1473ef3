"""The form of `virtualchain dev` in a real browser: with scripts and without, looked at and read aloud."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from playwright.sync_api import Browser, expect

from tests.support.browsing import NARROW, OF_A_LOOK, WIDE, chromium, open_tab, visit
from virtualchain.app.declarations import read_contract
from virtualchain.dev.described import describe
from virtualchain.dev.failures import Failure
from virtualchain.dev.pages import Form
from virtualchain.examples import notary
from virtualchain.web.application import make_application
from virtualchain.web.gate import Gate, hosts_of
from virtualchain.web.serving import listen

if TYPE_CHECKING:
    from virtualchain.model import Json

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00"


class Session:
    """What the form asks: it notes the words, and answers with hostile text."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.failure: Failure | None = None

    def __call__(self, what: str, argument: Any) -> Any:
        """Answer as the session does."""
        if what == "do":
            self.words.append(argument)
            return len(self.words)
        outcome: Json | None = None
        if argument is not None:
            line = " ".join(self.words[int(argument) - 1])
            lines = ["block 102: c (claim) accepted", f"  op {HOSTILE}"]
            outcome = {"ok": True, "line": line, "lines": lines, "block_id": 102}
        return {
            "app": describe(read_contract(notary.app, "regtest")),
            "height": 101,
            "held": 1,
            "failure": None if self.failure is None else self.failure.as_dict(),
            "halted": None,
            "outcome": outcome,
        }


@contextmanager
def shown(session: Session) -> Iterator[str]:
    """Serve the form with the explorer's style sheet; yield the beginning of its URLs."""

    def no_database() -> str:
        raise AssertionError("no page of the explorer is opened")

    hosts = hosts_of("127.0.0.1")
    explorer = make_application(no_database, hosts=hosts)
    form = Gate(Form(session, "secret").application, hosts=hosts, rate=None)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        is_form = scope["type"] == "http" and scope["path"] == "/dev"
        await (form if is_form else explorer)(scope, receive, send)

    opened = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(application, lifespan="on", log_level="warning"))
    thread = threading.Thread(target=lambda: server.run(sockets=[opened]), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser for all tests of this file."""
    with chromium() as started:
        yield started


def test_the_form_in_a_browser(browser: Browser) -> None:
    """It is sent by keyboard, shows what came of it as text, and has nothing that axe or the policy minds."""
    session = Session()
    with shown(session) as base, open_tab(browser) as tab, visit(tab, base) as visitor:
        assert visitor.goto("/dev") == 200
        page = visitor.page
        claim = page.get_by_role("region", name="claim")
        claim.get_by_label("sha256").fill("aa" * 32)
        claim.get_by_label("Sender").fill("bob")
        claim.get_by_label("Pay, after the payload").fill("carol=546sat dave=1")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").filter(has_text="accepted")).to_be_visible()
        assert session.words == [
            [
                "send",
                "--sender=bob",
                "--to=carol=546sat",
                "--to=dave=1",
                "--",
                "0x63",
                f"sha256={'aa' * 32}",
            ]
        ]
        assert "<img src=x" in visitor.main
        page.get_by_role("button", name="Fork").click()
        expect(page.get_by_role("status").filter(has_text="fork 1")).to_be_visible()
        session.failure = Failure(HOSTILE, "mend it", "/app.py", 3, "commit", HOSTILE, {"op": HOSTILE})
        visitor.goto("/dev?result=1")
        expect(page.get_by_role("alert")).to_contain_text("The app on disk is not the one that is loaded")
        wrong = visitor.look(WIDE, "light", "dev", rules=())
        wrong += visitor.look(NARROW, "dark", "dev", rules=OF_A_LOOK)
        assert wrong == []


def test_the_form_without_scripts(browser: Browser) -> None:
    """Nothing of it needs JavaScript; a field that is left out is not sent if it is optional."""
    session = Session()
    with shown(session) as base, open_tab(browser, scripts=False) as tab, visit(tab, base) as visitor:
        visitor.goto("/dev")
        page = visitor.page
        page.get_by_label("Payload in hex, with magic and opcode").fill("6e74")
        page.get_by_role("region", name="A whole payload").get_by_role("button", name="Preview").click()
        assert "accepted" in visitor.main
        page.get_by_label("Blocks to mine").fill("3")
        page.get_by_role("button", name="Mine").click()
        assert session.words == [["preview", "--hex=6e74", "--sender=alice", "--"], ["mine", "3"]]
