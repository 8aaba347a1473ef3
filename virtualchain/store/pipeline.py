"""Statements that are sent ahead: without waiting for the answers to those before.

This is libpq's pipeline mode. The driver has one of its own, which asks the operating system twice for each
statement, and prepares all statements again after a rollback; here a statement costs a fifth of that.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait

from virtualchain.store.patience import Session
from virtualchain.store.sql import Statement, queries, statement
from virtualchain.store.values import use_fixed_types

_Q = queries("pipeline")
_SAVEPOINT, _UNDO, _RELEASE = map(statement, (_Q["savepoint"], _Q["undo"], _Q["release"]))
_MOST_PREPARED: Final = 200
"""Statements that the session keeps prepared."""
_MOST_UNANSWERED: Final = 1_000
"""Statements after which the server is waited for."""
_MOST_UNSENT: Final = 4_000_000
"""Bytes of parameters after which it is, so that neither side has to keep more."""
_ROWS_AT_ONCE: Final = 1_000
"""Rows of a result that are turned into values at once."""
_FLUSHED_TOGETHER: Final = 8
"""Statements that a server which is at work gets together: to send one takes as long as to write it."""
_LOOKS: Final = 60
"""How often an answer is looked for before the operating system is asked to say when it is there: most come
within that time, and it takes as long again until a process that sleeps goes on."""
_SUCCESS: Final = frozenset({ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY})


class EarlierFailed(psycopg.OperationalError):
    """A statement that was not waited for has failed, of an earlier block or of an earlier part of this one.

    Nothing since then counts, and it is no fault of whoever notices it. In a new session, where each block is
    waited for, what has failed fails by itself.
    """


class Answer:
    """What the server answers to one statement; it is there after `Pipeline.wait`."""

    __slots__ = ("_pipeline", "call", "forget", "owner", "result")

    def __init__(self, pipeline: "Pipeline", forget: Callable[[], object] | None) -> None:
        self._pipeline = pipeline
        self.owner, self.call = pipeline.owner, pipeline.call
        self.forget = forget
        self.result: PGresult | None = None

    @property
    def count(self) -> int:
        """How many rows the statement returned, or affected; -1 for a statement that does neither."""
        result = self._result()
        if result.status == ExecStatus.TUPLES_OK:
            return result.ntuples
        return -1 if result.command_tuples is None else result.command_tuples

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows; raise psycopg.ProgrammingError for a statement that has none."""
        result = self._result()
        if result.status != ExecStatus.TUPLES_OK:
            status = (result.command_status or b"").decode()
            raise psycopg.ProgrammingError(f"the statement returns no rows ({status})")
        return self._pipeline.load(result, 0, result.ntuples)

    def each(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of `rows`, of which only some are made at once."""
        result = self._result()
        for first in range(0, result.ntuples, _ROWS_AT_ONCE):
            yield from self._pipeline.load(result, first, min(first + _ROWS_AT_ONCE, result.ntuples))

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dicts by column; of columns with one name the last counts."""
        rows = self.rows()
        if not rows:
            return []
        result = self._result()
        names = [(result.fname(place) or b"").decode() for place in range(result.nfields)]
        return [dict(zip(names, row, strict=True)) for row in rows]

    @property
    def types(self) -> list[str]:
        """The types of the columns, as the catalog names them; unknown ones by their number."""
        result = self._result()
        numbers = [result.ftype(place) for place in range(result.nfields)]
        known = {number: psycopg.adapters.types.get(number) for number in numbers}
        return [str(number) if (info := known[number]) is None else info.name for number in numbers]

    def _result(self) -> PGresult:
        if self.result is None:
            raise psycopg.OperationalError("no answer has come")
        return self.result


class _Sync:
    """The point at which the server has answered everything before."""

    def __init__(self, owner: object) -> None:
        self.owner = owner


class Pipeline:
    """Sends statements over a session; any other use of the session waits for them first.

    `owner` is whose statements these are: a block's, or those of what follows in it on a part that is in
    flight. If one of another owner fails, EarlierFailed is raised by everything that follows: the session is
    good for nothing any more. `call` is the number of the callback's call that they belong to, None for the
    engine's own; `failed_call` is that of the last one that failed. `meanwhile` is what is to be sent while
    somebody waits for rows that are read ahead: it is called once.
    """

    def __init__(self, session: Session) -> None:
        self.owner: object = None
        self.call: int | None = None
        self.failed_call: int | None = None
        self.meanwhile: Callable[[], object] | None = None
        self._session = session
        self._pgconn = session.pgconn
        self._lock = session.lock
        """The driver's: whoever uses the session has it."""
        self._unanswered: deque[Answer | _Sync] = deque()
        self._prepared: OrderedDict[tuple[bytes, tuple[int, ...]], bytes] = OrderedDict()
        self._obsolete: list[bytes] = []
        """Prepared statements that the server keeps, because it could not drop them."""
        self._number = 0
        self._size = 0
        self._unflushed = 0
        """How often `flush` was called since the server got what was sent."""
        self._is_at_work = False
        """Whether the server got statements since all were answered."""
        self._error: psycopg.Error | None = None
        self._earlier: EarlierFailed | None = None
        self._is_active = False
        context = psycopg.RawCursor(session)
        use_fixed_types(context.adapters)
        self._writer, self._reader = Transformer(context), Transformer(context)
        if session.prepare_threshold is not None:
            # If the driver has prepared any, it has the server drop all after a rollback, ours too.
            # So it does that now, and prepares nothing any more.
            with session.transaction(force_rollback=True):
                pass
            session.prepare_threshold = None
        session.before_use = self._leave  # which the driver calls with its lock held

    @property
    def is_broken(self) -> bool:
        """Whether a statement of an earlier owner has failed."""
        return self._earlier is not None

    def run(self, statement: Statement, parameters: Mapping[str, object] | None = None) -> Answer:
        """Send a statement with parameters by name; the answer comes later."""
        return self.send(statement.text, [parameters[name] for name in statement.names] if parameters else ())

    def send(self, text: bytes, values: Sequence[object] = ()) -> Answer:
        """Send one statement with parameters by number, prepared; the answer comes later."""
        with self._lock:
            return self._send(text, values)

    def _send(self, text: bytes, values: Sequence[object]) -> Answer:
        if self._earlier is not None:
            raise self._earlier
        if len(self._unanswered) >= _MOST_UNANSWERED or self._size >= _MOST_UNSENT:
            self._wait()
        self._enter()
        writer = self._writer
        parameters = writer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        self._size += sum(len(parameter) for parameter in parameters if parameter is not None)
        name = self._prepare(text, writer.types or ())
        self._pgconn.send_query_prepared(name, parameters, writer.formats)
        return self._expect()

    def flush(self) -> None:
        """Have the server begin with what was sent, soon if it is at work; `sync` and `wait` do at once."""
        self._unflushed += 1
        if self._is_at_work and self._unflushed < _FLUSHED_TOGETHER:
            return
        self._unflushed, self._is_at_work = 0, True
        with self._lock:
            self._pgconn.flush()

    def sync(self) -> None:
        """Have the server end what it was sent; without an open transaction, that is one."""
        with self._lock:
            self._sync()

    def wait(self) -> None:
        """Wait until the server has done all that was sent; raise the first error."""
        with self._lock:
            self._wait()

    def wait_for(self, answer: Answer) -> None:
        """Wait until the server has done all that was sent, up to this answer; raise the first error."""
        self.sync()
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        with self._lock:
            self._wait(answer)

    def leave(self) -> None:
        """Wait as `wait` does, and have the session used by others."""
        with self._lock:
            self._leave()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Close the session at Ctrl-C and the like: what was sent, and what answered, may not be noted."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self._session.close()
            raise

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo everything sent inside if it ends with an exception, for which everything is waited for."""
        self.run(_SAVEPOINT)
        try:
            with self.interruptible():
                yield
                self.wait()
        except BaseException:
            if not self._session.closed:
                self.undo(_UNDO)
                self.run(_RELEASE)
            raise
        self.run(_RELEASE)

    def undo(self, statement: Statement) -> None:
        """Run a statement that undoes others, whatever has become of them."""
        try:
            self.wait()
        except EarlierFailed:
            raise
        except psycopg.Error:
            pass
        self.run(statement)
        self.wait()

    def forget(self) -> None:
        """Have all statements prepared again, because tables are made again."""
        with self._lock:
            self._deallocate(len(self._prepared))

    def load(self, result: PGresult, first: int, end: int) -> list[tuple[Any, ...]]:
        """Turn a part of a result into rows."""
        self._reader.set_pgresult(result)
        return self._reader.load_rows(first, end, tuple)

    def _sync(self) -> None:
        if self._is_active and self._unanswered and not isinstance(self._unanswered[-1], _Sync):
            if self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")
            self._pgconn.pipeline_sync()
            self._unanswered.append(_Sync(self.owner))
            self._pgconn.flush()

    def _wait(self, until: Answer | None = None) -> None:
        if self._unanswered and (until is None or until.result is None):
            if until is None:
                self._sync()
                self._size = 0
            with self.interruptible():
                self._session.exchange(self._read(until))
            self._unflushed, self._is_at_work = 0, bool(self._unanswered)
        if self._earlier is not None:
            raise self._earlier
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _leave(self) -> None:
        if self._is_active or self._earlier is not None:
            try:
                self._wait()
            finally:
                if self._is_active and not self._unanswered and self._pgconn.status != ConnStatus.BAD:
                    self._pgconn.exit_pipeline_mode()
                    self._is_active = False

    def _enter(self) -> None:
        if not self._is_active:
            self._pgconn.enter_pipeline_mode()
            self._is_active = True

    def _prepare(self, text: bytes, types: tuple[int, ...]) -> bytes:
        """Return the name of a prepared statement; have it prepared if it is not."""
        key = text, types
        name = self._prepared.get(key)
        if name is not None:
            self._prepared.move_to_end(key)
            return name
        is_full = len(self._prepared) >= _MOST_PREPARED
        if is_full or self._obsolete:
            self._deallocate(_MOST_PREPARED // 2 if is_full else 0)
        self._number += 1
        name = self._prepared[key] = b"vc_%d" % self._number
        self._pgconn.send_prepare(name, text, types)
        self._expect(lambda: self._prepared.pop(key, None))
        return name

    def _deallocate(self, count: int) -> None:
        """Have the server drop the statements that were not used for longest, and those that it kept."""
        self._wait()  # in a failed transaction they might not have been prepared, and would not be dropped
        self._obsolete += [self._prepared.popitem(last=False)[1] for _ in range(count)]
        if self._pgconn.transaction_status == TransactionStatus.INERROR:
            return  # in which the server drops nothing, and what ends it must run: they are dropped later
        self._enter()
        while self._obsolete:
            name = self._obsolete.pop()
            self._pgconn.send_query_params(b"DEALLOCATE " + name, None)
            self._expect(partial(self._obsolete.append, name))

    def _expect(self, forget: Callable[[], object] | None = None) -> Answer:
        answer = Answer(self, forget)
        self._unanswered.append(answer)
        return answer

    def _read(self, until: Answer | None) -> Generator[Wait, Ready, None]:
        """Exchange data with the server until all has been answered, or all up to an answer."""
        pgconn = self._pgconn
        waits_for = Wait.RW if pgconn.flush() else Wait.R
        looks = _LOOKS
        while True:
            while not pgconn.is_busy():  # something may have been received before
                self._take(pgconn.get_result())
                if not self._unanswered or (until is not None and self._has_ended(until)):
                    return
            if looks and waits_for == Wait.R:
                looks -= 1
                pgconn.consume_input()
                continue
            ready = yield waits_for
            if ready and ready & Ready.R:  # after Ctrl-C, the driver resumes this with None
                pgconn.consume_input()
            if waits_for == Wait.RW:
                waits_for = Wait.RW if pgconn.flush() else Wait.R

    def _has_ended(self, answer: Answer) -> bool:
        """Return whether an answer is complete: what ends it must be read before anything else is sent."""
        return answer.result is not None and self._unanswered[0] is not answer

    def _take(self, result: PGresult | None) -> None:
        """Take the next result; None ends those of a statement."""
        answer = self._unanswered[0]
        if result is None:
            if isinstance(answer, Answer) and answer.result is not None:
                self._unanswered.popleft()
            elif self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")
        elif isinstance(answer, _Sync):
            if result.status == ExecStatus.PIPELINE_SYNC:
                self._unanswered.popleft()
            else:  # a transaction of statements without BEGIN could not end
                self._fail(answer.owner, None, result)
        else:
            answer.result = result
            if result.status not in _SUCCESS:
                self._note_failure(answer, result)

    def _note_failure(self, answer: Answer, result: PGresult) -> None:
        if answer.forget is not None:
            answer.forget()
        if result.status == ExecStatus.PIPELINE_ABORTED:
            return  # because of the error before
        self._fail(answer.owner, answer.call, result)

    def _fail(self, owner: object, call: int | None, result: PGresult) -> None:
        error = psycopg.errors.error_from_result(result, encoding="utf-8")
        if owner is self.owner:
            if self._error is None:
                self._error, self.failed_call = error, call
        elif self._earlier is None:
            self._earlier = EarlierFailed(f"of an earlier block, or part of one: {error}")
            self._earlier.__cause__ = error


def pipeline_of(connection: psycopg.Connection) -> Pipeline:
    """Return the pipeline of a session of ours; it has one."""
    assert isinstance(connection, Session), "a session of `database`"
    pipeline = connection.ahead
    if not isinstance(pipeline, Pipeline):
        pipeline = connection.ahead = Pipeline(connection)
    return pipeline
