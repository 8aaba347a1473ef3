"""Progress reports: their content and their frequency."""

from dataclasses import replace

import pytest

from virtualchain.bitcoin.networks import NETWORKS
from virtualchain.cli import progress
from virtualchain.cli.progress import Reporter
from virtualchain.engine.options import Progress
from virtualchain.errors import AppHalted
from virtualchain.model import Block

Capture = pytest.CaptureFixture[str]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the real clock."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def block(block_id: int, stable_tip: int, inputs: int = 0) -> Progress:
    """Create the engine's report of a block."""
    header = NETWORKS["regtest"].genesis_hash
    return Progress(Block(block_id, header, header, header, 0, 0, b""), inputs, stable_tip)


def test_without_a_terminal_a_line_appears_every_ten_seconds(clock: Clock, capsys: Capture) -> None:
    """The line has the block, the rates and the remaining time."""
    with Reporter() as reporter:
        for number in range(250):
            clock.now += 0.1
            reporter.block(block(number, 12_000, inputs=2))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "virtualchain: block 100 of 12,000, 10 blocks/s, 20 inputs/s, 20 min left"


def test_an_app_that_catches_up_is_reported(clock: Clock, capsys: Capture) -> None:
    """Its name, its own rate and its distance to the tape's tip are reported."""
    with Reporter() as reporter:
        reporter.block(block(5000, 12_000))
        for number in range(150):
            clock.now += 0.1
            reporter.catching_up(replace(block(number, 5000, inputs=1), app="notes"))
    assert capsys.readouterr().err.splitlines() == [
        "virtualchain: app notes is catching up from the tape to block 5,000",
        "virtualchain: notes: block 99 of 5,000, 10 blocks/s, 10 inputs/s, 8 min left",
    ]
    assert (reporter.meter.blocks, reporter.last) == (1, 5000)


def test_the_target_is_the_requested_block(clock: Clock, capsys: Capture) -> None:
    """With --to below the stable tip, progress is measured up to that block."""
    with Reporter(to=500) as reporter:
        reporter.block(block(300, 10_000))
        clock.now += 10
        reporter.block(block(400, 10_000))
    assert "block 400 of 500, 0 blocks/s" in capsys.readouterr().err


def test_rates_are_those_of_the_last_half_minute(clock: Clock) -> None:
    """Rates cover the last half minute, and totals cover everything."""
    meter = Reporter().meter
    for _ in range(1000):
        clock.now += 0.01
        meter.count(0)
    for _ in range(60):
        clock.now += 1
        meter.count(3)
    blocks, inputs = meter.rates()
    assert (round(blocks, 1), round(inputs)) == (1.0, 3)
    assert (meter.blocks, meter.inputs, round(meter.seconds)) == (1060, 180, 70)


def test_a_follower_names_every_block_at_the_tip(clock: Clock, capsys: Capture) -> None:
    """A follower reports every block near the stable tip, and not those further below."""
    with Reporter(follows=True) as reporter:
        for number in (1, 90, 91, 100):
            reporter.block(block(number, 100, inputs=number % 90))
    lines = [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["virtualchain: block 91", "virtualchain: block 100"]
    assert reporter.last == 100


def test_news_is_reported_once(clock: Clock, capsys: Capture) -> None:
    """A reason to wait is reported when it changes, and a halted app once."""
    halted = {"notes": AppHalted("app notes is halted", {})}
    with Reporter(follows=True) as reporter:
        for reason in ("a", "a", "b", "a"):
            reporter.waiting(reason)
        reporter.halted(halted)
        reporter.halted(halted)
    assert capsys.readouterr().err.splitlines() == [
        *("virtualchain: a", "virtualchain: b", "virtualchain: a"),
        "virtualchain: app notes is halted. The other apps continue",
    ]


def test_on_a_terminal_a_bar_moves(clock: Clock, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar disappears before any other message, and at the end."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Reporter(follows=True) as reporter:
        for number in range(50):
            clock.now += 0.2
            reporter.block(block(number, 1000))
        reporter.waiting("waiting for block 51")
    err = capsys.readouterr().err
    assert "block 49 of 1,000" in err
    assert "5 blocks/s, 0 inputs/s, 3 min left" in err
    assert err.index("block 49 of") < err.index("virtualchain: waiting for block 51")
