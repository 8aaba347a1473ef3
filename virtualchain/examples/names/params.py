"""What differs between networks and between epochs, as data: nothing in here decides anything.

Everything is from `names.md` §8 and §11; amounts are satoshi, heights are those of Bitcoin blocks.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from virtualchain.bitcoin.networks import Network, network

BITCOIN: Final = 100_000_000
MAX_NAMES: Final = 25
"""How many names one owner may hold before further ones are refused."""
WINDOW: Final = 24
"""For how many blocks a consensus hash stays fresh."""
SNAPSHOT: Final = "17ac43c1d8549c3181b200f1bf97eb7d"
"""The consensus hash that every one of these chains starts from."""
DEFAULT_FIRST_BLOCK: Final = 256
DEFAULT_EPOCH1_END: Final = 436_650
DEFAULT_REVEAL_EXPIRE: Final = 144
"""What the network's own test runs had, where they do not say."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The rules that hold up to a height, where they are not the same for ever."""

    last_block: int | None
    """The last height of the epoch; None where it goes on."""
    has_multisig: bool
    """Whether a name may be registered by, or transferred from, a p2sh script."""
    lifetime_multiplier: int = 1
    """By what the lifetime of a favoured namespace is multiplied."""
    price_multiplier: float = 1.0
    """By what prices of and in a favoured namespace are multiplied."""
    other_price_multiplier: float = 1.0
    """The same for every other namespace."""
    versions: frozenset[int] = frozenset({1})
    """The versions of namespaces that may be revealed."""
    grace: int = 0
    """For how many blocks an expired name still waits for its owner, who may only renew it."""
    has_positions: bool = False
    """Whether recipients and fees are found by their place among the outputs; registrations may carry a
    value, and renewals may change owner and value."""
    preorder_lifetime: int | None = None
    """For how many blocks a preorder can be used; None for ever."""
    has_whole_prices: bool = False
    """Whether prices are whole numbers."""


@dataclass(frozen=True, slots=True)
class Params:
    """One network's numbers: what `make_app` makes an app of."""

    network: Literal["mainnet", "regtest"]
    first_block: int
    epochs: tuple[Epoch, ...]
    favoured: frozenset[str]
    """The namespaces that an epoch's multipliers apply to."""
    reveal_expire: int
    """For how many blocks a revealed namespace may be made ready."""
    import_children: int
    """How many children of the revealer's key may import names."""
    one_letter_price: int
    """What a namespace of one character costs."""
    initial_snapshots: Mapping[int, str] = field(default_factory=dict)
    announcers: tuple[str, ...] = ("judecn.id", "muneeb.id", "shea256.id")
    """The names whose owners may announce."""
    creator_fees_period: int = 52_595
    """For how many blocks after its reveal a namespace of version 2 earns its own fees."""

    def epoch(self, height: int) -> Epoch:
        """Give the epoch of a height."""
        return next(epoch for epoch in self.epochs if epoch.last_block is None or height <= epoch.last_block)

    def lifetime_multiplier(self, namespace_id: str, height: int) -> int:
        """Give by what a namespace's lifetime is multiplied at a height."""
        return self.epoch(height).lifetime_multiplier if namespace_id in self.favoured else 1

    def price_multiplier(self, namespace_id: str, height: int) -> float:
        """Give by what prices are multiplied at a height."""
        epoch = self.epoch(height)
        return epoch.price_multiplier if namespace_id in self.favoured else epoch.other_price_multiplier

    @property
    def bitcoin(self) -> Network:
        """The Bitcoin network, whose version bytes addresses have."""
        return network(self.network)

    def fingerprint(self) -> str:
        """Tell sets of numbers apart: 12 hex digits that enter the app's version."""
        told = [
            repr(tuple(getattr(self, name) for name in self.__slots__ if name not in _UNORDERED)),
            repr(sorted(self.favoured)),
            repr(sorted(self.initial_snapshots.items())),
        ]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


_UNORDERED: Final = {"favoured", "initial_snapshots"}


def _snapshots(first_block: int) -> Mapping[int, str]:
    return MappingProxyType({first_block - back: SNAPSHOT for back in (4, 3, 2, 1)})


def _later(last_block: int | None, *, epoch: Literal[3, 4]) -> Epoch:
    """Give an epoch of §11, which is known from the source only: no recording covers it."""
    return Epoch(
        last_block,
        has_multisig=True,
        lifetime_multiplier=2,
        price_multiplier=0.1,
        other_price_multiplier=0.1,
        versions=frozenset({1, 2}),
        grace=5_000,
        has_positions=True,
        preorder_lifetime=144 if epoch == 4 else None,
        has_whole_prices=epoch == 4,
    )


MAINNET: Final = Params(
    network="mainnet",
    first_block=373_601,
    epochs=(
        Epoch(436_650, has_multisig=False),
        Epoch(488_500, has_multisig=True, lifetime_multiplier=2),
        _later(547_921, epoch=3),
        _later(599_866, epoch=4),
        _later(None, epoch=4),
    ),
    favoured=frozenset({"id"}),
    reveal_expire=52_595,
    import_children=300,
    one_letter_price=400 * BITCOIN,
    initial_snapshots=_snapshots(373_601),
)
"""The network that ran."""


def regtest(
    *,
    first_block: int = DEFAULT_FIRST_BLOCK,
    initial_snapshots: Mapping[int, str] | None = None,
    epoch1_end: int = DEFAULT_EPOCH1_END,
    lifetime_multiplier: tuple[int, int] = (1, 2),
    price_multiplier: tuple[float, float] = (1.0, 1.0),
    namespace_reveal_expire: int = DEFAULT_REVEAL_EXPIRE,
    later: tuple[Epoch, ...] = (),
) -> Params:
    """Give the numbers of the network's own test runs, changed as a run asks.

    The pairs are for epochs 1 and 2. `later` takes epoch 2's place, and gives its end to no other.
    """
    second = Epoch(
        None,
        has_multisig=True,
        lifetime_multiplier=lifetime_multiplier[1],
        price_multiplier=price_multiplier[1],
    )
    return Params(
        network="regtest",
        first_block=first_block,
        epochs=(
            Epoch(
                epoch1_end,
                has_multisig=False,
                lifetime_multiplier=lifetime_multiplier[0],
                price_multiplier=price_multiplier[0],
            ),
            *(later or (second,)),
        ),
        favoured=frozenset({"id", "test"}),
        reveal_expire=namespace_reveal_expire,
        import_children=5,
        one_letter_price=41 * BITCOIN,
        initial_snapshots=_snapshots(first_block) if initial_snapshots is None else initial_snapshots,
    )
