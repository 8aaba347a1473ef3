"""Progress: what is said, and how often."""

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
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put a clock of the test's in place of the real one."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def block(block_id: int, stable_tip: int, inputs: int = 0) -> Progress:
    """Make what the engine tells of a block."""
    header = NETWORKS["regtest"].genesis_hash
    return Progress(Block(block_id, header, header, header, 0, 0, b""), inputs, stable_tip)


def test_without_a_terminal_a_line_is_said_now_and_then(clock: Clock, capsys: Capture) -> None:
    """Every ten seconds: where it is, how fast, how long it takes yet."""
    with Reporter() as reporter:
        for number in range(250):
            clock.now += 0.1
            reporter.block(block(number, 12_000, inputs=2))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0] == "virtualchain: block 100 of 12,000, 10 blocks/s, 20 inputs/s, 20 min left"


def test_an_app_that_catches_up_is_named(clock: Clock, capsys: Capture) -> None:
    """At first and now and then, at its own rate, up to the tape's tip."""
    with Reporter() as reporter:
        reporter.block(block(5000, 12_000))
        for number in range(150):
            clock.now += 0.1
            reporter.catching_up(replace(block(number, 5000, inputs=1), app="notes"))
    assert capsys.readouterr().err.splitlines() == [
        "virtualchain: app notes catches up along the tape to block 5,000",
        "virtualchain: notes: block 99 of 5,000, 10 blocks/s, 10 inputs/s, 8 min left",
    ]
    assert (reporter.meter.blocks, reporter.last) == (1, 5000)


def test_the_end_is_where_it_was_asked_for(clock: Clock, capsys: Capture) -> None:
    """`--to` below the stable tip."""
    with Reporter(to=500) as reporter:
        reporter.block(block(300, 10_000))
        clock.now += 10
        reporter.block(block(400, 10_000))
    assert "block 400 of 500, 0 blocks/s" in capsys.readouterr().err


def test_rates_are_those_of_the_last_half_minute(clock: Clock) -> None:
    """Empty early blocks do not count for ever."""
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
    """Further down it does not."""
    with Reporter(follows=True) as reporter:
        for number in (1, 90, 91, 100):
            reporter.block(block(number, 100, inputs=number % 90))
    said = [line.split(" (")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == ["virtualchain: block 91", "virtualchain: block 100"]
    assert reporter.last == 100


def test_news_is_said_once(clock: Clock, capsys: Capture) -> None:
    """What is waited for when it changes, and each halted app."""
    halted = {"notes": AppHalted("app notes is halted", {})}
    with Reporter(follows=True) as reporter:
        for reason in ("a", "a", "b", "a"):
            reporter.waiting(reason)
        reporter.halted(halted)
        reporter.halted(halted)
    assert capsys.readouterr().err.splitlines() == [
        *("virtualchain: a", "virtualchain: b", "virtualchain: a"),
        "virtualchain: app notes is halted. The other apps go on",
    ]


def test_on_a_terminal_a_bar_moves(clock: Clock, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes away before anything else is said, and at the end."""
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


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (90_000, "25 h 0 min")],
)
def test_durations_are_told_roughly(seconds: float, told: str) -> None:
    """Nobody needs the seconds of a day."""
    assert progress._duration(seconds) == told
