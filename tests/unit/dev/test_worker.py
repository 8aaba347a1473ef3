"""The process of one load: what it answers when a call fails."""

import psycopg
import pytest

from virtualchain.dev.messages import Problem
from virtualchain.dev.worker import answer_of
from virtualchain.errors import NodeUnavailable, StoreError


def test_a_failing_database_is_a_problem_and_no_end() -> None:
    """A server that ends, or a node that does not answer, is reported; a mistake of ours is not hidden."""

    def fail(error: Exception) -> None:
        raise error

    lost = answer_of(fail, psycopg.OperationalError("server closed\nthe connection"))
    assert isinstance(lost, Problem)
    assert lost.exit_code == StoreError.exit_code
    assert lost.message.startswith("the database does not work: server closed the connection; write `reload`")
    assert answer_of(fail, NodeUnavailable("it hangs")) == Problem("it hangs", NodeUnavailable.exit_code)
    assert answer_of(len, "abc") == 3
    with pytest.raises(ZeroDivisionError):
        answer_of(fail, ZeroDivisionError())
