"""Fixtures of the name registry's tests."""

from collections.abc import Iterator

import pytest

from tests.support.names_chain import NamesChain, names_chain
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify
from virtualchain.examples.names import make_app, regtest


@pytest.fixture
def chain(database_url: str) -> Iterator[NamesChain]:
    """Open an empty registry on regtest, and verify its tables at the end."""
    with names_chain(database_url) as opened:
        yield opened
    assert verify(database_url, [read_contract(make_app(regtest()))]).faults == []
