"""The protocol's constants, and what differs between networks and epochs, as data.

The values are those of docs/protocol/names.md. Amounts are in satoshis; heights are Bitcoin block heights.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from virtualchain.bitcoin.networks import Network, network

BITCOIN: Final = 100_000_000
MAX_NAMES: Final = 25
"""The most names that an owner may have: further ones are refused."""
WINDOW: Final = 24
"""The number of blocks for which a consensus hash stays fresh."""
BURN_SCRIPT: Final = "76a914" + "00" * 20 + "88ac"
"""Pay-to-public-key-hash of the all-zero hash, for which nobody has a key: burned fees go there."""
SNAPSHOT: Final = "17ac43c1d8549c3181b200f1bf97eb7d"
"""The consensus hash that all of these chains start from."""
DEFAULT_FIRST_BLOCK: Final = 256
DEFAULT_EPOCH1_END: Final = 436_650
DEFAULT_REVEAL_EXPIRE: Final = 144
"""The defaults of the network's own test runs."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The rules that changed over time, as they hold up to a height."""

    last_block: int | None
    """The last height of the epoch; None if it has no end."""
    has_multisig: bool
    """Whether a name may be registered for, or transferred from, a p2sh script."""
    lifetime_multiplier: int = 1
    """The factor for the lifetime of a favored namespace."""
    price_multiplier: float = 1.0
    """The factor for the prices of and in a favored namespace."""
    other_price_multiplier: float = 1.0
    """The same for every other namespace."""
    versions: frozenset[int] = frozenset({1})
    """The namespace versions that may be revealed."""
    grace: int = 0
    """The number of blocks after its expiry in which a name can still be renewed, but nothing else."""
    has_positions: bool = False
    """Whether recipients and fees are found by their position among the outputs; if so, registrations may
    carry a value, and renewals may change owner and value."""
    preorder_lifetime: int | None = None
    """The number of blocks for which a preorder can be used; None if it never ages."""
    has_whole_prices: bool = False
    """Whether prices are integers."""


@dataclass(frozen=True, slots=True)
class Params:
    """One network's parameters, from which `make_app` builds an app."""

    network: Literal["mainnet", "regtest"]
    first_block: int
    epochs: tuple[Epoch, ...]
    favored: frozenset[str]
    """The namespaces that an epoch's multipliers apply to."""
    reveal_expire: int
    """The number of blocks within which a revealed namespace must be made ready."""
    import_children: int
    """The number of child keys of the importer's key that may also import names."""
    one_letter_price: int
    """The price of a namespace of one character."""
    initial_snapshots: Mapping[int, str] = field(default_factory=dict)
    announcers: tuple[str, ...] = ("judecn.id", "muneeb.id", "shea256.id")
    """The names whose owners may announce."""
    creator_fees_period: int = 52_595
    """The number of blocks after its reveal for which fees in a namespace of version 2 go to its creator."""

    def epoch(self, height: int) -> Epoch:
        """Return the epoch of a height."""
        return next(epoch for epoch in self.epochs if epoch.last_block is None or height <= epoch.last_block)

    def lifetime_multiplier(self, namespace_id: str, height: int) -> int:
        """Return the factor for a namespace's lifetime at a height."""
        return self.epoch(height).lifetime_multiplier if namespace_id in self.favored else 1

    def price_multiplier(self, namespace_id: str, height: int) -> float:
        """Return the factor for a namespace's prices at a height."""
        epoch = self.epoch(height)
        return epoch.price_multiplier if namespace_id in self.favored else epoch.other_price_multiplier

    @property
    def bitcoin(self) -> Network:
        """The Bitcoin network, which decides the version bytes of addresses."""
        return network(self.network)

    def fingerprint(self) -> str:
        """Return 12 hex digits that identify these parameters; they enter the app's version.

        They cover the values here, and both names and values in `Epoch`: renaming a field of `Epoch` would
        change the version of every app.
        """
        parts = [
            repr(tuple(getattr(self, name) for name in self.__slots__ if name not in _UNORDERED)),
            repr(sorted(self.favored)),
            repr(sorted(self.initial_snapshots.items())),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


_UNORDERED: Final = {"favored", "initial_snapshots"}


def _snapshots(first_block: int) -> Mapping[int, str]:
    return MappingProxyType({first_block - back: SNAPSHOT for back in (4, 3, 2, 1)})


def _later_epoch(last_block: int | None, *, epoch: Literal[3, 4]) -> Epoch:
    """Return an epoch whose rules are known from the network's source only: no recorded run covers it."""
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
        _later_epoch(547_921, epoch=3),
        _later_epoch(599_866, epoch=4),
        _later_epoch(None, epoch=4),
    ),
    favored=frozenset({"id"}),
    reveal_expire=52_595,
    import_children=300,
    one_letter_price=400 * BITCOIN,
    initial_snapshots=_snapshots(373_601),
)
"""The main network."""


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
    """Return the parameters of the network's own test runs, with some of them changed.

    The pairs are for epochs 1 and 2. `later`, if not empty, replaces epoch 2.
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
        favored=frozenset({"id", "test"}),
        reveal_expire=namespace_reveal_expire,
        import_children=5,
        one_letter_price=41 * BITCOIN,
        initial_snapshots=_snapshots(first_block) if initial_snapshots is None else initial_snapshots,
    )
