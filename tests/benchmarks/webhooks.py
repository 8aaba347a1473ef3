"""Webhooks: events a second to a receiver that fails a third of the time, and restarts: none is lost.

python -m tests.benchmarks.webhooks --events 10000
"""

import argparse
import sys
import threading
import time

from tests.benchmarks.environment import temporary_server
from tests.support.moving import an_app
from tests.support.receivers import Receiver, unreliable, webhook
from virtualchain import StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.webhooks.deliverer import Deliverer


def measure(url: str, receiver: Receiver, events: int, name: str, *, restarts: bool) -> float:
    """Deliver everything from the first block on, and return how many seconds that takes."""
    reports: list[str] = []
    with receiver:
        started = time.monotonic()
        with Deliverer(url, [webhook(receiver, name=name, from_block=0)], reports.append):
            done = threading.Event()

            def restart() -> None:
                while not done.wait(3):
                    receiver.stop()
                    time.sleep(0.3)
                    receiver.start()

            thread = threading.Thread(target=restart)
            if restarts:
                thread.start()
            try:
                receiver.wait(lambda receiver: len(receiver.events) >= events, 3600)
            finally:
                done.set()
                if restarts:
                    thread.join()
        seconds = time.monotonic() - started
    assert receiver.blocks == sorted(set(receiver.blocks)), "out of order"
    assert len(receiver.events) == events, "lost or doubled"
    assert not receiver.complaints, receiver.complaints
    return seconds


def deliveries(server: DatabaseServer, events: int) -> dict[str, tuple[float, int]]:
    """Return the seconds and the attempts for so many events, by kind of receiver."""
    node, url = FakeNode(), server.clone()
    results = {}
    try:
        for number in range(events):
            node.mine([node.send(f"mvoadd {number}".encode())])
        with StateEngine(an_app(), database=url, source=node.url, confirmations=0, history=None) as engine:
            engine.build()
        for name, receiver in (("reliable", Receiver()), ("unreliable", unreliable(1))):
            seconds = measure(url, receiver, events, name, restarts=name == "unreliable")
            results[name] = seconds, len(receiver.attempts)
    finally:
        node.close()
        server.drop(url)
    return results


def main() -> None:
    """Measure both kinds of receiver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000)
    events: int = parser.parse_args().events
    with temporary_server() as server:
        for name, (seconds, attempts) in deliveries(server, events).items():
            rate = f"{events} events in {seconds:.1f} s, {events / seconds:.0f}/s"
            sys.stdout.write(f"{name}: {rate}, {attempts} attempts\n")


if __name__ == "__main__":
    main()
