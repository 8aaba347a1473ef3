"""Deployments of Names and Runes with what their pages show, served."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from tests.support.names_chain import ALICE, BOB, names_chain
from tests.support.runes_chain import ETCHING, TERMS, Spent, commit, fresh_coin, owner, runestone, txid_of
from tests.support.runes_engine import runes_chain
from tests.support.serving import served
from virtualchain.app.declarations import read_contract
from virtualchain.examples import names, runes
from virtualchain.examples.runes.names import number_of
from virtualchain.testing.database import DatabaseServer

NAME: Final = "AAAAAAAAAAAAAAB"


class OfRunes(NamedTuple):
    """A served deployment of Runes."""

    base: str
    database: str
    etched: int
    etching: str


@contextmanager
def names_served(server: DatabaseServer) -> Iterator[str]:
    """Serve a registry in which a name was registered, changed, transferred and revoked."""
    url = server.clone()
    with names_chain(url) as chain:
        chain.open_namespace("test", lifetime=30)
        chain.own("first.test", "second.test")
        chain.mine_accepted(chain.update("first.test"))
        chain.mine_accepted(chain.transfer("first.test", ALICE, BOB))
        chain.mine_accepted(chain.revoke("first.test", BOB))
        with served(url, contracts={"names": read_contract(names.app)}) as base:
            yield base
    server.drop(url)


@contextmanager
def runes_served(server: DatabaseServer) -> Iterator[OfRunes]:
    """Serve a rune that was etched, minted, burned and handed on, with an odd symbol."""
    url = server.clone()
    ann, bob = owner("ann"), owner("bob")
    with runes_chain(url) as chain:
        terms = {"cap": 3, "amount": 50, "offset_end": 100}
        fields = {
            "rune": number_of(NAME),
            "spacers": 1,
            "divisibility": 2,
            "symbol": ord("<"),
            "premine": 123450,
        }
        stone = runestone([(0, 0, 23450, 2)], (), flags=ETCHING | TERMS, **fields, **terms)
        etching = chain.tx([commit(number_of(NAME), fresh_coin(90))], stone, ann, bob)
        etched = chain.mine(etching)
        mint = chain.tx([Spent(fresh_coin(90))], runestone(mint=(etched, 1)), bob)
        chain.mine(mint)
        burned = chain.tx([Spent(chain.coins(mint, etched + 1)[1])], runestone([(etched, 1, 25, 0)]), bob)
        chain.mine(burned)
        with served(url, contracts={"runes": read_contract(runes.app)}) as base:
            yield OfRunes(base, url, etched, txid_of(etching))
    server.drop(url)
