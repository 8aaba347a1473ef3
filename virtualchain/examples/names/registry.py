"""The registry's state as its rules ask for it: every question that a rule asks of the tables, by name.

Questions about time are answered for the block before the one at hand (`names.md` §2), so that what
begins in a block does not count within it.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from virtualchain.examples.names import lifetime
from virtualchain.examples.names.encoding import namespace_of
from virtualchain.examples.names.params import WINDOW, Epoch, Params
from virtualchain.model import Json
from virtualchain.store.sql import queries
from virtualchain.store.state import State

_Q = queries("names")
_FIELDS = {"owner": "address", "owner_script": "sender", "txindex": "vtxindex"}
"""Columns that have other names than the network's fields."""

Accepted = Sequence[Json]
"""Operations of the block at hand, as they were accepted."""


class Registry:
    """The state in front of one operation; `accepted` are those before it in the block."""

    def __init__(self, state: State, params: Params, accepted: Accepted = ()) -> None:
        self._state = state
        self.params = params
        self.accepted = accepted
        self.height: int = state.block_id
        """The block at hand."""
        self.before = self.height - 1
        """The height at which the state is looked at."""

    @property
    def epoch(self) -> Epoch:
        """The epoch of the block at hand."""
        return self.params.epoch(self.height)

    # Namespaces.

    def namespace(self, namespace_id: str) -> Json | None:
        """Give a namespace that was ever revealed."""
        return _record(self._state.one(_Q["namespace"], {"namespace_id": namespace_id}))

    def revealed(self, namespace_id: str) -> Json | None:
        """Give a namespace that takes imports."""
        namespace = self.namespace(namespace_id)
        is_revealed = namespace and lifetime.is_revealed(namespace, self.before, self.params)
        return namespace if is_revealed else None

    def ready(self, namespace_id: str) -> Json | None:
        """Give a namespace in which anyone may register names: this counts at once."""
        namespace = self.namespace(namespace_id)
        return namespace if namespace and namespace["op"] == lifetime.READY else None

    def keyring(self, namespace_id: str) -> frozenset[str]:
        """Give the addresses that may import; none before the first import."""
        rows = self._state.query(_Q["keyring"], {"namespace_id": namespace_id})
        return frozenset(row["address"] for row in rows)

    # Names.

    def name(self, name: str) -> Json | None:
        """Give a name that was ever registered, live or not."""
        return _record(self._state.one(_Q["name"], {"name": name}))

    def live_name_of(self, name_hash128: str) -> Json | None:
        """Give the live name that has a hash."""
        record = _record(self._state.one(_Q["name_of_hash128"], {"name_hash128": name_hash128}))
        return record if record and self.is_live(record) else None

    def is_live(self, record: Json) -> bool:
        """Whether a name is registered."""
        return lifetime.is_live(record, self.before, self.params)

    def is_live_now(self, record: Json) -> bool:
        """Whether a name is registered at the height of the block at hand itself."""
        return lifetime.is_live(record, self.height, self.params)

    def is_in_grace(self, record: Json) -> bool:
        """Whether a name waits for its renewal."""
        return lifetime.is_in_grace(record, self.height, self.params)

    def owned(self, script: str) -> list[Json]:
        """Give the names that a script owns, sorted: live and not revoked."""
        rows = self._state.query(_Q["names_of_owner"], {"owner_script": script})
        return [record for record in _records(rows) if self.is_live(record)]

    def owns(self, script: str, record: Json) -> bool:
        """Whether a script owns a name."""
        return record["sender"] == script and not record["revoked"] and self.is_live(record)

    def count(self, script: str) -> int:
        """Count what a script owns, and what it has registered in this very block."""
        registered = [op for op in self.accepted if op["op"] == ":" and op["sender"] == script]
        return len(self.owned(script)) + len(registered)

    # Preorders.

    def find_preorder(self, preorder_hash: str, kind: str) -> Json | None:
        """Give the oldest open preorder of a kind (`?` or `*`), unless its name or namespace is there."""
        used = self._names_of if kind == "?" else self._namespaces_of
        if used(preorder_hash):
            return None
        wanted = {"preorder_hash": preorder_hash, "op": kind}
        for row in self._state.query(_Q["preorders"], wanted):
            lasts = self.epoch.preorder_lifetime
            if lasts is None or row["block_number"] + lasts >= self.height:
                return row
        return None

    def _names_of(self, preorder_hash: str) -> bool:
        rows = self._state.query(_Q["names_of_preorder"], {"preorder_hash": preorder_hash})
        return any(self.is_live(record) for record in _records(rows))

    def _namespaces_of(self, preorder_hash: str) -> bool:
        wanted = {"preorder_hash": preorder_hash}
        return bool(self._state.query(_Q["namespaces_of_preorder"], wanted))

    # Consensus hashes.

    def is_fresh(self, consensus_hash: str) -> bool:
        """Whether a consensus hash is one of the last 24 blocks'."""
        return self._state.is_fresh(consensus_hash)

    def fresh_hashes(self) -> Iterator[str]:
        """Give the consensus hashes of the last 24 blocks, the youngest first, each once."""
        seen = set()
        for block_id in range(self.before, self.height - WINDOW - 1, -1):
            consensus_hash = self._state.consensus_hash(block_id)
            if consensus_hash is not None and consensus_hash not in seen:
                seen.add(consensus_hash)
                yield consensus_hash

    # What reducers do.

    def keep_name(self, record: Json) -> None:
        """Make a name what an operation says, and keep the event."""
        namespace = self.namespace(namespace_of(record["name"]))
        assert namespace is not None, "names are registered in namespaces that are there"
        lives = {
            **record,
            "namespace_op": namespace["op"],
            **{key: namespace[key] for key in ("reveal_block", "ready_block", "lifetime")},
        }
        row = {
            **record,
            # Exactly, whatever the double: numeric takes every digit of it.
            "op_fee": Decimal(record["op_fee"]),
            "expires_at": lifetime.expires_at(lives, self.height, self.params),
            "block_id": self.height,
        }
        self._state.execute(_Q["keep_name"], row)
        self._state.execute(_Q["add_event"], row)

    def keep_namespace(self, record: Json) -> None:
        """Make a namespace what an operation says; its names may live longer for it."""
        self._state.execute(_Q["keep_namespace"], record)
        self.reckon_expiry([record["namespace_id"]])

    def reckon_every_expiry(self) -> None:
        """Say anew when names expire: an epoch began, and others may live than a block before."""
        self.reckon_expiry(row["namespace_id"] for row in self._state.query(_Q["all_namespaces"]))

    def reckon_expiry(self, namespace_ids: Iterable[str]) -> None:
        """Say anew when the names of some namespaces expire, of those that live."""
        rows = self._state.query(_Q["names_of_namespaces"], {"namespace_ids": list(namespace_ids)})
        changed = {
            row["name"]: expiry
            for row in rows
            if self.is_live_now(row)
            and (expiry := lifetime.expires_at(row, self.height, self.params)) != row["expires_at"]
        }
        if changed:
            self._state.execute(
                _Q["set_expiry"], {"names": list(changed), "expiries": list(changed.values())}
            )

    def add_preorder(self, record: Json) -> None:
        """Keep a preorder."""
        self._state.execute(_Q["add_preorder"], record)

    def drop_preorders(self, preorder_hash: str) -> None:
        """Remove a preorder that was used, and whatever else has its hash."""
        self._state.execute(_Q["drop_preorders"], {"preorder_hash": preorder_hash})

    def add_to_keyring(self, namespace_id: str, addresses: Sequence[str]) -> None:
        """Let addresses import names into a namespace, for good."""
        self._state.execute(
            _Q["add_to_keyring"], {"namespace_id": namespace_id, "addresses": list(addresses)}
        )

    def add_announcement(self, record: Json) -> None:
        """Keep an announcement."""
        self._state.execute(_Q["add_announcement"], record)


def _record(row: Json | None) -> Json | None:
    """Give a row with the network's names of its fields."""
    return None if row is None else {_FIELDS.get(column, column): value for column, value in row.items()}


def _records(rows: Iterable[Json]) -> list[Json]:
    return [record for row in rows if (record := _record(row)) is not None]
