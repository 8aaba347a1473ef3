"""Fixtures of the name registry's tests."""

from collections.abc import Iterator

import pytest

from tests.support.names_chain import NamesChain, names_chain


@pytest.fixture
def chain(database_url: str) -> Iterator[NamesChain]:
    """Open an empty registry on regtest."""
    with names_chain(database_url) as opened:
        yield opened
