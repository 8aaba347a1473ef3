"""A second, in-memory implementation of the name registry, written from docs/protocol/names.md.

It shares no rule with the app, so a mistake goes unnoticed only if it was made twice. It reads no
transactions: it is passed operations.
"""

from copy import deepcopy
from typing import Any

from virtualchain import consensus
from virtualchain.examples.names.params import Params
from virtualchain.examples.names.reading import hash128

Op = dict[str, Any]
_NAME = "name value_hash sender sender_pubkey address block_number preorder_block_number first_registered"
_NAME += " last_renewed revoked op txid vtxindex op_fee importer importer_address"
_SPACE = "namespace_id preorder_hash version sender sender_pubkey address recipient recipient_address"
_SPACE += " block_number reveal_block op txid vtxindex lifetime coeff base buckets"
_SPACE += " nonalpha_discount no_vowel_discount"
FIELDS = {
    "?": "preorder_hash consensus_hash sender sender_pubkey address block_number op txid vtxindex op_fee",
    "*": "preorder_hash consensus_hash op op_fee txid vtxindex block_number sender sender_pubkey address",
    "&": _SPACE,
    "!": f"{_SPACE} ready_block",
    ":": f"{_NAME} sender address",
    ";": f"{_NAME} sender address",
    "+": f"{_NAME} mark consensus_hash",
    ">": f"{_NAME} mark transfer_hash keep_data",
    "~": _NAME,
}


class Model:
    """The state, advanced block by block."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.names: dict[str, Op] = {}
        self.namespaces: dict[str, Op] = {}
        self.preorders: list[Op] = []
        self.consensus: dict[int, str] = dict(params.initial_snapshots)
        self.keyring: dict[str, list[str]] = {}
        self.h = params.first_block - 1
        self.table: set[str] = set()

    # Predicates.

    def multiplier(self, namespace_id: str, x: int, pair: str) -> Any:
        """Return a multiplier at a height."""
        epoch = self.params.epochs[0 if x <= (self.params.epochs[0].last_block or 0) else 1]
        return getattr(epoch, pair) if namespace_id in {"id", "test"} else 1

    def live(self, row: Op | None, x: int) -> bool:
        """Check whether a name is registered as of height x."""
        if row is None or row["first_registered"] > x:
            return False
        space = self.namespaces[row["name"].split(".")[1]]
        if space["op"] == "!":
            term = space["lifetime"] * self.multiplier(space["namespace_id"], x, "lifetime_multiplier")
            return bool(space["ready_block"] + term > x or row["last_renewed"] + term >= x)
        return bool(space["reveal_block"] <= x < space["reveal_block"] + self.params.reveal_expire)

    def revealed(self, namespace_id: str) -> bool:
        """Check whether a namespace accepts imports."""
        space = self.namespaces.get(namespace_id)
        return (
            space is not None
            and space["op"] == "&"
            and space["reveal_block"] <= self.h - 1 < space["reveal_block"] + self.params.reveal_expire
        )

    def ready(self, namespace_id: str) -> bool:
        """Check whether a namespace is ready."""
        return namespace_id in self.namespaces and self.namespaces[namespace_id]["op"] == "!"

    def owns(self, script: str, row: Op | None) -> bool:
        """Check whether a script owns a name."""
        return (
            row is not None and self.live(row, self.h - 1) and not row["revoked"] and row["sender"] == script
        )

    def owned(self, script: str) -> list[Op]:
        """Return the names that a script owns."""
        return [row for row in self.names.values() if self.owns(script, row)]

    def find_preorder(self, digest: str, kind: str) -> Op | None:
        """Return the open preorder of a kind with a hash that is not in use."""
        if kind == "?" and any(
            row["preorder_hash"] == digest and self.live(row, self.h - 1) for row in self.names.values()
        ):
            return None
        if kind == "*" and any(space["preorder_hash"] == digest for space in self.namespaces.values()):
            return None
        return next((p for p in self.preorders if p["preorder_hash"] == digest and p["op"] == kind), None)

    def fresh(self) -> set[str]:
        """Return the consensus hashes of the last 24 blocks."""
        return {self.consensus[x] for x in range(self.h - 24, self.h) if x in self.consensus}

    def multisig(self) -> bool:
        """Check whether the epoch allows scripts to own names."""
        return self.h > (self.params.epochs[0].last_block or 0)

    def price(self, name: str, x: int) -> float:
        """Compute a name's price at height x."""
        label, namespace_id = name.split(".")
        space = self.namespaces[namespace_id]
        exponent = space["buckets"][len(label) - 1] if len(label) < 16 else space["buckets"][15]
        divisor = 1.0
        if not any(letter in "aeiouy" for letter in label):
            divisor = max(divisor, float(space["no_vowel_discount"]))
        if any(letter in "0123456789-_" for letter in label):
            divisor = max(divisor, float(space["nonalpha_discount"]))
        price = (float(space["coeff"] * space["base"] ** exponent) / divisor) * 100
        return float(max(price, 100) * self.multiplier(namespace_id, x, "price_multiplier"))

    def namespace_price(self, namespace_id: str) -> float:
        """Compute a namespace's price."""
        size = len(namespace_id)
        bitcoin = 41 if size == 1 else 40 if size < 4 else 4 if size < 8 else 0.4
        return bitcoin * 10**8 * float(self.multiplier(namespace_id, self.h, "price_multiplier"))

    # Blocks.

    def block(self, ops: list[Op]) -> tuple[list[bool], list[bytes], str, str]:
        """Process a block; return verdicts, serialized operations, ops hash and consensus hash."""
        self.h += 1
        listed: list[Op] = []
        marked: set[str] = set()
        self.table = set()
        for op in ops:
            if op["op"] in ":;&":
                key: str = op["namespace_id"] if op["op"] == "&" else op["name"]
                row = self.judge(op, listed)
                if row is not None and op["op"] != ";":
                    if key in self.table:
                        kinds = ("&",) if op["op"] == "&" else (":", ";")
                        marked |= {key for other in listed if other["key"] == key and other["op"] in kinds}
                        row = None
                    else:
                        self.table.add(key)
                listed.append({**(row or op), "key": key})
        self.table = marked
        accepted: list[Op] = []
        verdicts: list[bool] = []
        texts: list[bytes] = []
        for op in ops:
            row = self.judge(op, accepted)
            unique = {"?": "preorder_hash", "*": "preorder_hash", ":": "name", "&": "namespace_id"}
            if row is not None and op["op"] in unique:
                key = op[unique[op["op"]]]
                row = None if key in self.table else row
                self.table.add(key)
            verdicts.append(row is not None)
            if row is not None:
                accepted.append(row)
                texts += self.commit(op["op"][0], row)
        ops_hash = consensus.ops_hash(texts)
        prior = consensus.prior_block_ids(self.h, self.params.first_block)
        self.consensus[self.h] = consensus.consensus_hash(ops_hash, [self.consensus[x] for x in prior])
        return verdicts, texts, ops_hash, self.consensus[self.h]

    def judge(self, op: Op, accepted: list[Op]) -> Op | None:
        """Return the row that an operation makes, or None if it is refused; collisions are not considered."""
        rules = {
            "*": self.preorder_namespace,
            "&": self.reveal_namespace,
            "!": self.make_namespace_ready,
            "?": self.preorder_name,
            ":": self.register_or_renew,
            ";": self.import_name,
            "+": self.update_name,
            ">": self.transfer_name,
            "~": self.revoke_name,
        }
        row = rules[op["op"][0]](deepcopy(op), accepted)
        return None if row is None else {**row, "txid": op["txid"], "vtxindex": op["vtxindex"]}

    def commit(self, code: str, row: Op) -> list[bytes]:
        """Store a row; return what is hashed."""
        hashed = dict(row)
        if code in "?*":
            self.preorders.append(row)
        elif code in "&!":
            self.namespaces[row["namespace_id"]] = row
        else:
            self.names[row["name"]] = row
            hashed["op_fee"] = float(row["op_fee"]) if row["imported"] else row["op_fee"]
            if code == "+":
                hashed["mark"] = hash128(row["name"] + row["consensus_hash"])
            if code == ">":
                hashed["mark"] = hash128(row["name"])
                if row["consensus_hash"] is not None:
                    hashed["transfer_hash"] = row["consensus_hash"]
        if code == "&" or row["op"] == ":":
            self.preorders = [p for p in self.preorders if p["preorder_hash"] != row["preorder_hash"]]
        return [consensus.serialize_op(code.encode(), hashed, FIELDS[code].split())]

    def count(self, script: str, accepted: list[Op]) -> int:
        """Count owned names, and those registered earlier in the block."""
        return len(self.owned(script) + [o for o in accepted if o["op"] == ":" and o["sender"] == script])

    # The operations.

    def preorder_namespace(self, op: Op, accepted: list[Op]) -> Op | None:
        """Preorder a namespace (`*`)."""
        good = (
            self.find_preorder(op["preorder_hash"], "*") is None
            and op["consensus_hash"] in self.fresh()
            and op["op_fee"] is not None
            and not op["sender"].startswith("a914")
        )
        return {**op, "block_number": self.h} if good else None

    def preorder_name(self, op: Op, accepted: list[Op]) -> Op | None:
        """Preorder a name (`?`)."""
        good = (
            self.find_preorder(op["preorder_hash"], "?") is None
            and op["consensus_hash"] in self.fresh()
            and self.count(op["sender"], accepted) < 25
            and op["op_fee"] is not None
        )
        return {**op, "block_number": self.h} if good else None

    def reveal_namespace(self, op: Op, accepted: list[Op]) -> Op | None:
        """Reveal a namespace (`&`)."""
        space = op["namespace_id"]
        p = self.find_preorder(op["preorder_hash"], "*")
        if self.revealed(space) or self.ready(space) or p is None or op["version"] != 1:
            return None
        if p["op_fee"] < self.namespace_price(space):
            return None
        first: int = self.namespaces.get(space, p)["block_number"]
        return {**op, "block_number": first, "reveal_block": self.h, "ready_block": 0}

    def make_namespace_ready(self, op: Op, accepted: list[Op]) -> Op | None:
        """Make a namespace ready (`!`)."""
        row = self.namespaces.get(op["namespace_id"])
        if row is None or not self.revealed(op["namespace_id"]) or op["sender"] != row["recipient"]:
            return None
        return {**row, "op": "!", "ready_block": self.h, "sender": op["sender"]}

    def register_or_renew(self, op: Op, accepted: list[Op]) -> Op | None:  # noqa: PLR0911 - one return per rule
        """Register or renew a name (`:`)."""
        name, space = op["name"], op["name"].split(".")[1]
        row = self.names.get(name)
        live = self.live(row, self.h - 1)
        if (live and row is not None and row["revoked"]) or not self.ready(space):
            return None
        if self.count(op["recipient"], accepted) >= 25:
            return None
        if op["recipient"].startswith("a914") and not self.multisig():
            return None
        if live and row is not None:
            if not (self.owns(op["sender"], row) and self.owns(op["recipient"], row)):
                return None
            if op["op_fee"] is None or op["op_fee"] < self.price(name, self.h):
                return None
            return {**row, "op": "::", "last_renewed": self.h, "op_fee": op["op_fee"]}
        p = self.find_preorder(op["preorder_hash"], "?")
        if p is None or p["block_number"] < self.namespaces[space]["ready_block"]:
            return None
        if p["op_fee"] < self.price(name, p["block_number"]):
            return None
        return {
            "name": name,
            "value_hash": None,
            "importer": None,
            "importer_address": None,
            "consensus_hash": None,
            "revoked": False,
            "imported": False,
            "op": ":",
            "sender": op["recipient"],
            "address": op["recipient_address"],
            "sender_pubkey": op["sender_pubkey"],
            "preorder_hash": op["preorder_hash"],
            "block_number": (row or p)["block_number"],
            "preorder_block_number": p["block_number"],
            "op_fee": p["op_fee"],
            "first_registered": self.h,
            "last_renewed": self.h,
        }

    def import_name(self, op: Op, accepted: list[Op]) -> Op | None:
        """Import a name (`;`)."""
        name, space = op["name"], op["name"].split(".")[1]
        if op["sender_pubkey"] is None or not self.revealed(space):
            return None
        if space not in self.keyring:
            if op["address"] != self.namespaces[space]["recipient_address"]:
                return None
            self.keyring[space] = op["children"]
        if op["address"] not in self.keyring[space]:
            return None
        before = self.names.get(name)
        again = any(other["op"] == ";" and other["name"] == name for other in accepted)
        kept = before if before is not None and (again or self.live(before, self.h - 1)) else None
        heights = ("block_number", "preorder_block_number", "first_registered", "last_renewed")
        return {
            "name": name,
            "value_hash": op["value_hash"],
            "op": ";",
            "imported": True,
            "revoked": False,
            "sender": op["recipient"],
            "address": op["recipient_address"],
            "consensus_hash": None,
            "sender_pubkey": op["sender_pubkey"],
            "op_fee": self.price(name, self.h),
            "importer": op["sender"],
            "importer_address": op["address"],
            **{height: kept[height] if kept else self.h for height in heights},
            "preorder_hash": kept["preorder_hash"] if kept else op["preorder_hash"],
        }

    def update_name(self, op: Op, accepted: list[Op]) -> Op | None:
        """Update a name's value (`+`)."""
        owned = self.owned(op["sender"])
        if len(owned) > 25:
            return None
        for row in owned:
            for seen in self.fresh():
                if hash128(row["name"] + seen) == op["mark"] and self.ready(row["name"].split(".")[1]):
                    return {**row, "value_hash": op["value_hash"], "consensus_hash": seen, "op": "+"}
        return None

    def transfer_name(self, op: Op, accepted: list[Op]) -> Op | None:
        """Transfer a name (`>`)."""
        rows = [row for row in self.names.values() if hash128(row["name"]) == op["mark"]]
        if not rows or not self.owns(op["sender"], rows[0]) or op["sender"] == op["recipient"]:
            return None
        row = rows[0]
        if not self.ready(row["name"].split(".")[1]) or op["consensus_hash"] not in self.fresh():
            return None
        if len(self.owned(op["recipient"])) >= 25:
            return None
        if op["sender"].startswith("a914") and not self.multisig():
            return None
        new = {**row, "sender": op["recipient"], "address": op["recipient_address"], "sender_pubkey": None}
        new |= {"op": op["op"], "keep_data": op["keep_data"], "transfer_hash": op["consensus_hash"]}
        return new if op["keep_data"] else {**new, "value_hash": None}

    def revoke_name(self, op: Op, accepted: list[Op]) -> Op | None:
        """Revoke a name (`~`)."""
        row = self.names.get(op["name"])
        if row is None or not self.owns(op["sender"], row) or not self.live(row, self.h):
            return None
        if not self.ready(op["name"].split(".")[1]):
            return None
        return {**row, "revoked": True, "value_hash": None, "op": "~"}
