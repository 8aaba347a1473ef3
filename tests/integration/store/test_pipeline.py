"""What is sent ahead over a session leaves it as ordinary use would: nothing is lost, stuck or kept."""

import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count

import psycopg
import pytest

from virtualchain.store.database import connect_writer
from virtualchain.store.pipeline import (
    _FLUSHED_TOGETHER,
    Answer,
    EarlierFailed,
    Pipeline,
    pipeline_of,
)
from virtualchain.store.sql import statement

PREPARED = "SELECT count(*) FROM pg_prepared_statements"


@pytest.fixture
def session(database_url: str) -> Iterator[psycopg.Connection]:
    """Return a session that can send ahead."""
    with closing(connect_writer(database_url)) as connection:
        yield connection


@pytest.fixture
def pipeline(session: psycopg.Connection) -> Pipeline:
    """Return the pipeline of the session."""
    return pipeline_of(session)


def count_prepared(session: psycopg.Connection) -> int:
    """Count the prepared statements that the server keeps for a session."""
    row = session.execute(PREPARED.encode()).fetchone()
    assert row is not None
    return int(row[0])


def send_many(pipeline: Pipeline) -> None:
    """Send some statements, and wait for them."""
    for number in range(500):
        pipeline.send(b"SELECT $1::integer", [number])
    pipeline.wait()


def test_ctrl_c_ends_a_wait(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """The session is closed, because nobody knows what was answered; no other error hides the reason."""
    pipeline.send(b"SELECT pg_sleep(60)")
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            pipeline.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert session.closed


def test_statements_put_together_from_values_do_not_pile_up(
    session: psycopg.Connection, pipeline: Pipeline
) -> None:
    """The server keeps a bounded number, also when they are sent after a failure."""
    for attempt in range(4):
        for number in range(150):
            pipeline.send(b"SELECT %d" % (attempt * 1000 + number))
        pipeline.wait()
        pipeline.send(b"BEGIN")
        with suppress(psycopg.errors.DivisionByZero):
            pipeline.send(b"SELECT 1 / 0")
            for number in range(150, 300):
                pipeline.send(b"SELECT %d" % (attempt * 1000 + number))
            pipeline.wait()
        with suppress(psycopg.errors.InFailedSqlTransaction):
            for number in range(300, 500):
                pipeline.send(b"SELECT %d" % (attempt * 1000 + number))
            pipeline.wait()
        pipeline.send(b"ROLLBACK")
        pipeline.wait()
        assert count_prepared(session) <= 202
    pipeline.forget()
    assert count_prepared(session) <= 1


def test_what_the_driver_had_prepared_before_the_pipeline_was_there(session: psycopg.Connection) -> None:
    """It is dropped, or else the driver would drop everything after a rollback, also what we prepared."""
    for _ in range(10):
        session.execute("SELECT 1")
    assert count_prepared(session) > 0
    pipeline = pipeline_of(session)
    assert count_prepared(session) == 0
    send_many(pipeline)
    with session.transaction(force_rollback=True):
        session.execute("SELECT 1")
    assert count_prepared(session) > 0
    pipeline.forget()
    send_many(pipeline)


def test_ordinary_use_follows_what_was_sent(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """Cursors, COPY, transactions, rows one by one and notifications work as in any session."""
    pipeline.send(b"CREATE TEMP TABLE t (k integer)")
    with session.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
        for number in range(3):
            copy.write_row((number,))
    pipeline.send(b"INSERT INTO t VALUES (3)")
    with session.cursor() as cursor:
        assert [row[0] for row in cursor.stream("SELECT k FROM t ORDER BY k")] == [0, 1, 2, 3]
    pipeline.send(b"INSERT INTO t VALUES (4)")
    with session.transaction():
        session.execute("INSERT INTO t VALUES (5)")
        pipeline.send(b"INSERT INTO t VALUES (6)")
    pipeline.send(b"LISTEN here")
    payloads: list[str] = []
    session.add_notify_handler(lambda notify: payloads.append(notify.payload))
    session.execute("SELECT pg_notify('here', 'there')")
    assert payloads == ["there"]
    pipeline.send(b"INSERT INTO t VALUES (7)")
    session.cancel_safe()
    with session.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s)", [(8,), (9,)])
    pipeline.send(b"DELETE FROM t WHERE k = $1", [9])
    with session.pipeline():
        assert session.execute("SELECT count(*) FROM t").fetchone() == (9,)


def test_a_session_that_was_ended_says_so(database_url: str, session: psycopg.Connection) -> None:
    """What waits raises at once, and so does what follows."""
    pipeline = pipeline_of(session)
    pipeline.owner = object()
    with psycopg.connect(database_url, autocommit=True) as other:
        pipeline.send(b"SELECT 1")
        other.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            send_many(pipeline)
        with pytest.raises(psycopg.OperationalError):
            pipeline.leave()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_many_and_large_answers(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """Neither parameters nor rows that fill every buffer on the way stop both sides."""
    large = "x" * 3_000_000
    answers = [pipeline.send(b"SELECT $1::text FROM generate_series(1, 4)", [large]) for _ in range(12)]
    pipeline.wait()
    assert all(answer.rows() == [(large,)] * 4 for answer in answers)
    answers = [pipeline.send(b"SELECT $1::bigint", [number]) for number in range(5_000)]
    pipeline.wait()
    assert [answer.rows()[0][0] for answer in answers] == list(range(5_000))


def test_a_failure_of_an_earlier_owner_sticks(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """Each use of the session raises it, whoever hides it meanwhile."""
    pipeline.owner = object()
    pipeline.send(b"SELECT 1 / 0")
    pipeline.sync()
    pipeline.owner = object()
    pipeline.send(b"SELECT 2")
    for _ in range(3):
        with pytest.raises(EarlierFailed):
            session.execute("SELECT 1")
        with pytest.raises(EarlierFailed):
            pipeline.send(b"SELECT 3")


def test_some_answers_are_waited_for(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """What is sent meanwhile is answered later, whether or not its answer has come with the first one."""
    sent: list[Answer] = []

    def send(pause: float) -> None:
        sent.append(pipeline.send(b"SELECT 2 FROM pg_sleep($1::text::float8)", [str(pause)]))

    def send_and_wait() -> None:
        send(0)
        pipeline.wait()
        send(0)

    for pause in (0.0, 0.05, 0.0):
        first = pipeline.send(b"SELECT 1")
        pipeline.meanwhile = partial(send, pause)
        pipeline.wait_for(first)
        assert first.rows() == [(1,)]
        assert sent[-1].result is None or not pause
        time.sleep(0.01)  # so that the driver may have received both
        pipeline.wait_for(first)  # it is there
    pipeline.wait()
    first = pipeline.send(b"SELECT 1")
    pipeline.meanwhile = send_and_wait
    pipeline.wait_for(first)
    assert first.rows() == [(1,)]
    pipeline.wait()
    assert [answer.rows() for answer in sent] == [[(2,)]] * 5
    assert session.execute("SELECT 3").fetchone() == (3,)


def test_a_failure_among_what_is_waited_for(session: psycopg.Connection, pipeline: Pipeline) -> None:
    """It is raised, and what was sent meanwhile follows it; the session can be used after an undo."""
    begin, rollback = (statement(text) for text in ("BEGIN", "ROLLBACK"))
    pipeline.run(begin)
    wrong = pipeline.send(b"SELECT 1 / 0")
    pipeline.meanwhile = partial(pipeline.send, b"SELECT 2")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline.wait_for(wrong)
    pipeline.undo(rollback)
    assert session.execute("SELECT 3").fetchone() == (3,)


def test_the_server_begins_before_it_is_waited_for(database_url: str, pipeline: Pipeline) -> None:
    """At once if it has nothing to do, and then with several statements at a time."""
    numbers = count()

    def send() -> None:
        pipeline.send(b"SELECT pg_advisory_lock(77, $1::integer)", [next(numbers)])
        pipeline.flush()

    with psycopg.connect(database_url, autocommit=True) as observer:

        def held() -> int:
            row = observer.execute("SELECT count(*) FROM pg_locks WHERE classid = 77").fetchone()
            assert row is not None
            return int(row[0])

        def wait_for(locks: int) -> None:
            deadline = time.monotonic() + 10
            while held() < locks:
                assert time.monotonic() < deadline, f"{locks} locks are not taken"
                time.sleep(0.01)

        for _ in range(2):
            before = held()
            send()
            wait_for(before + 1)
            for _ in range(_FLUSHED_TOGETHER - 1):
                send()
            assert held() == before + 1
            send()
            wait_for(before + 1 + _FLUSHED_TOGETHER)
            send()
            pipeline.wait()
            assert held() == before + 2 + _FLUSHED_TOGETHER


@pytest.mark.parametrize("prepared", range(195, 203))
def test_a_transaction_is_undone_whatever_is_prepared(
    session: psycopg.Connection, pipeline: Pipeline, prepared: int
) -> None:
    """The server drops no statement in an aborted transaction, and must not be asked to."""
    begin, savepoint, undo, rollback = (
        statement(text) for text in ("BEGIN", "SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK")
    )
    pipeline.run(begin)
    pipeline.run(savepoint)
    for number in range(prepared - 3):
        pipeline.send(b"SELECT %d" % number)
    pipeline.send(b"SELECT 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline.wait()
    pipeline.undo(undo)
    wrong = pipeline.send(b"SELECT 2 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline.wait()
    assert wrong.result is not None
    pipeline.undo(rollback)
    assert session.execute("SELECT 3").fetchone() == (3,)
    send_many(pipeline)
    pipeline.send(b"SELECT 4")
    pipeline.wait()
    assert count_prepared(session) <= 200
