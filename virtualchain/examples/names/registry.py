"""The registry's state: what rules ask of the tables, and what operations write to them.

Questions about time are answered as of the block before the one being processed, so that what begins in a
block does not count within it (docs/protocol/names.md).
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from virtualchain.examples.names import rules
from virtualchain.examples.names.params import WINDOW, Epoch, Params
from virtualchain.examples.names.reading import namespace_of
from virtualchain.model import Json
from virtualchain.store.sql import queries
from virtualchain.store.state import State

_Q = queries("names")
_FIELDS = {"owner": "address", "owner_script": "sender", "txindex": "vtxindex"}
"""The network's names for columns that are named differently."""


class Registry:
    """The state as one operation sees it; `accepted` are the operations accepted earlier in its block."""

    def __init__(self, state: State, params: Params, accepted: Sequence[Json] = ()) -> None:
        self._state = state
        self.params = params
        self.accepted = accepted
        self.height: int = state.block_id
        """The block being processed."""
        self.previous_height = self.height - 1
        """The height as of which rules see the state."""

    @property
    def epoch(self) -> Epoch:
        """The epoch of the block being processed."""
        return self.params.epoch(self.height)

    # Namespaces.

    def namespace(self, namespace_id: str) -> Json | None:
        """Return a namespace that was ever revealed."""
        return _record(self._state.one(_Q["namespace"], {"namespace_id": namespace_id}))

    def revealed_namespace(self, namespace_id: str) -> Json | None:
        """Return a namespace if it accepts imports."""
        namespace = self.namespace(namespace_id)
        is_revealed = namespace and rules.is_revealed(namespace, self.previous_height, self.params)
        return namespace if is_revealed else None

    def ready_namespace(self, namespace_id: str) -> Json | None:
        """Return a namespace if anyone may register names in it; readiness counts at once."""
        namespace = self.namespace(namespace_id)
        return namespace if namespace and namespace["op"] == rules.READY else None

    def keyring(self, namespace_id: str) -> frozenset[str]:
        """Return the addresses that may import; empty before the first import."""
        rows = self._state.query(_Q["keyring"], {"namespace_id": namespace_id})
        return frozenset(row["address"] for row in rows)

    # Names.

    def name(self, name: str) -> Json | None:
        """Return a name that was ever registered, live or not."""
        return _record(self._state.one(_Q["name"], {"name": name}))

    def live_name_by_hash(self, name_hash128: str) -> Json | None:
        """Return the live name with a hash."""
        record = _record(self._state.one(_Q["name_of_hash128"], {"name_hash128": name_hash128}))
        return record if record and self.is_live(record) else None

    def is_live(self, record: Json) -> bool:
        """Check whether a name is registered."""
        return rules.is_live(record, self.previous_height, self.params)

    def is_live_now(self, record: Json) -> bool:
        """Check whether a name is registered as of the very block being processed."""
        return rules.is_live(record, self.height, self.params)

    def is_in_grace(self, record: Json) -> bool:
        """Check whether a name can only be renewed."""
        return rules.is_in_grace(record, self.height, self.params)

    def names_owned_by(self, script: str) -> list[Json]:
        """Return the live, unrevoked names of a script, sorted by name."""
        rows = self._state.query(_Q["names_of_owner"], {"owner_script": script})
        return [record for record in _records(rows) if self.is_live(record)]

    def owns(self, script: str, record: Json) -> bool:
        """Check whether a script owns a name."""
        return record["sender"] == script and not record["revoked"] and self.is_live(record)

    def count_names(self, script: str) -> int:
        """Count the names that a script owns and those it registered earlier in this block."""
        registered = [op for op in self.accepted if op["op"] == ":" and op["sender"] == script]
        return len(self.names_owned_by(script)) + len(registered)

    # Preorders.

    def find_preorder(self, preorder_hash: str, kind: str) -> Json | None:
        """Return the oldest open preorder of a kind (`?` or `*`) with a hash.

        There is none if a live name (for `?`) or any namespace (for `*`) already used that hash.
        """
        is_used = self._is_used_by_name if kind == "?" else self._is_used_by_namespace
        if is_used(preorder_hash):
            return None
        for row in self._state.query(_Q["preorders"], {"preorder_hash": preorder_hash, "op": kind}):
            lifetime = self.epoch.preorder_lifetime
            if lifetime is None or row["block_number"] + lifetime >= self.height:
                return row
        return None

    def _is_used_by_name(self, preorder_hash: str) -> bool:
        rows = self._state.query(_Q["names_of_preorder"], {"preorder_hash": preorder_hash})
        return any(self.is_live(record) for record in _records(rows))

    def _is_used_by_namespace(self, preorder_hash: str) -> bool:
        return bool(self._state.query(_Q["namespaces_of_preorder"], {"preorder_hash": preorder_hash}))

    # Consensus hashes.

    def is_fresh(self, consensus_hash: str) -> bool:
        """Check whether a consensus hash is one of the last 24 blocks'."""
        return self._state.is_fresh(consensus_hash)

    def fresh_hashes(self) -> Iterator[str]:
        """Yield the distinct consensus hashes of the last 24 blocks, newest first."""
        seen = set()
        for block_id in range(self.previous_height, self.height - WINDOW - 1, -1):
            consensus_hash = self._state.consensus_hash(block_id)
            if consensus_hash is not None and consensus_hash not in seen:
                seen.add(consensus_hash)
                yield consensus_hash

    # Writing.

    def store_name(self, record: Json) -> None:
        """Write a name as an operation left it, and record the event."""
        namespace = self.namespace(namespace_of(record["name"]))
        assert namespace is not None, "a name is only registered in a namespace that exists"
        record_with_terms = {
            **record,
            "namespace_op": namespace["op"],
            **{key: namespace[key] for key in ("reveal_block", "ready_block", "lifetime")},
        }
        row = {
            **record,
            # Decimal keeps every digit of a double, and so does the column's type, numeric.
            "op_fee": Decimal(record["op_fee"]),
            "expires_at": rules.expires_at(record_with_terms, self.height, self.params),
            "block_id": self.height,
        }
        self._state.execute(_Q["keep_name"], row)
        self._state.execute(_Q["add_event"], row)

    def store_namespace(self, record: Json) -> None:
        """Write a namespace as an operation left it, and update when its names expire."""
        self._state.execute(_Q["keep_namespace"], record)
        self.update_expiry([record["namespace_id"]])

    def update_every_expiry(self) -> None:
        """Recompute when names expire, in all namespaces, because a new epoch may change it."""
        self.update_expiry(row["namespace_id"] for row in self._state.query(_Q["all_namespaces"]))

    def update_expiry(self, namespace_ids: Iterable[str]) -> None:
        """Recompute when the live names of some namespaces expire."""
        rows = self._state.query(_Q["names_of_namespaces"], {"namespace_ids": list(namespace_ids)})
        changed = {
            row["name"]: expiry
            for row in rows
            if self.is_live_now(row)
            and (expiry := rules.expires_at(row, self.height, self.params)) != row["expires_at"]
        }
        if changed:
            self._state.execute(
                _Q["set_expiry"], {"names": list(changed), "expiries": list(changed.values())}
            )

    def add_preorder(self, record: Json) -> None:
        """Store a preorder."""
        self._state.execute(_Q["add_preorder"], record)

    def drop_preorders(self, preorder_hash: str) -> None:
        """Remove a preorder that was used, and all others with its hash."""
        self._state.execute(_Q["drop_preorders"], {"preorder_hash": preorder_hash})

    def add_to_keyring(self, namespace_id: str, addresses: Sequence[str]) -> None:
        """Let addresses import names into a namespace, for good."""
        self._state.execute(
            _Q["add_to_keyring"], {"namespace_id": namespace_id, "addresses": list(addresses)}
        )

    def add_announcement(self, record: Json) -> None:
        """Store an announcement."""
        self._state.execute(_Q["add_announcement"], record)


def _record(row: Json | None) -> Json | None:
    """Return a row with the network's field names."""
    return None if row is None else {_FIELDS.get(column, column): value for column, value in row.items()}


def _records(rows: Iterable[Json]) -> list[Json]:
    return [record for row in rows if (record := _record(row)) is not None]
