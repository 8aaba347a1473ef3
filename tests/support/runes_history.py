"""Random chains of Runes transactions, as scenarios: the model says what state they lead to."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.support.runes_chain import (
    ETCHING,
    OP_RETURN,
    TAPROOT,
    TERMS,
    TURBO,
    Coin,
    Spent,
    coinbase,
    coins_of,
    commit,
    fresh_coin,
    owner,
    prevouts_of,
    runestone,
    script_of,
    transaction,
)
from tests.support.runes_model import START, U32, U64, U128, Model, first

Script = bytes


@dataclass
class History:
    """Makes blocks on top of each other; the same seed makes the same blocks."""

    seed: int
    network: str = "regtest"
    height: int = 100
    coins: list[Coin] = field(default_factory=list)
    """Outputs that nothing spends so far."""

    def __post_init__(self) -> None:
        self.dice = Random(f"runes {self.seed}")
        self.model = Model(self.network)
        self._salt = self._numbers = 0

    def scenario(self, blocks: int, branches: Sequence[int] = ()) -> dict[str, Any]:
        """Make a scenario of so many blocks, and branches of the given lengths on top."""
        made: dict[str, Any] = {
            "name": f"history-{self.seed}",
            "network": self.network,
            "initial": {"entries": {}, "balances": {}},
            "blocks": [self.block() for _ in range(blocks)],
            "branches": [],
        }
        fork = deepcopy((self.model, self.coins, self.height))
        for length in branches:
            self.model, self.coins, self.height = deepcopy(fork)
            made["branches"].append([self.block() for _ in range(length)])
        return made

    def block(self) -> dict[str, Any]:
        """Make the next block."""
        before = deepcopy((self.model.entries, self.model.balances))
        time = 1_700_000_000 + 600 * self.height + self.dice.randrange(-5000, 5000)
        self._salt += 1
        outputs = (
            [self._recipient()] if self.dice.random() < 0.7 else [*self._outputs(), self._message(2, [])]
        )
        txs = [coinbase(self.height, outputs, self._salt)]
        prevouts: dict[str, list[Any]] = {}
        self._execute(txs[0], 0, time, {})
        for _ in range(self.dice.randrange(7)):
            inputs = self._inputs()
            outputs = self._outputs()
            if self.dice.random() < 0.8:
                place = self.dice.randint(0, len(outputs))
                outputs.insert(place, self._message(len(outputs) + 1, inputs))
            self._salt += 1
            txs.append(transaction(inputs, outputs, self._salt))
            spent = prevouts_of(inputs)
            self._execute(txs[-1], len(txs) - 1, time, spent)
            prevouts |= spent
        self.height += 1
        return {
            "height": self.height - 1,
            "time": time,
            "txs": [raw.hex() for raw in txs],
            "prevouts": prevouts,
            "expect": change(before[0], before[1], self.model),
        }

    def _execute(self, raw: bytes, tx: int, time: int, spent: dict[str, list[Any]]) -> None:
        known = {key: (bytes.fromhex(script), height) for key, (_, script, height) in spent.items()}
        self.model.execute(raw, self.height, tx, time, known)
        self.coins = [coin for coin in self.coins if coin.key not in spent]
        self.coins += coins_of(raw, self.height)

    def _inputs(self) -> list[Spent]:
        holders = [coin for coin in self.coins if coin.key in self.model.balances]
        chosen = self.dice.sample(holders, min(len(holders), self.dice.choice((0, 1, 1, 2, 3))))
        old = [coin for coin in self.coins if coin.script == TAPROOT and coin not in chosen]
        if old and self.dice.random() < 0.3:
            chosen.append(self.dice.choice(old))
        return [Spent(coin) for coin in chosen] or [Spent(self._coin(1, owner("x")))]

    def _coin(self, age: int, script: Script) -> Coin:
        """Return a coin that no transaction has made, of a block so many below the next one."""
        self._numbers += 1
        return fresh_coin(self.height - age, script, f"{self.seed} {self._numbers}")

    def _outputs(self) -> list[Script]:
        return [self._recipient() for _ in range(self.dice.choice((0, 1, 1, 2, 2, 3, 5)))]

    def _recipient(self) -> Script:
        if self.dice.random() < 0.2:
            return TAPROOT
        if self.dice.random() < 0.1:
            return OP_RETURN + self.dice.choice((b"", b"\x04\1\2\3\4", b"\x5d\x51", b"\xff"))
        return owner(self.dice.choice(("ann", "bob", "cat", "dan")))

    def _message(self, outputs: int, inputs: list[Spent]) -> Script:
        """Write a message; an etching of a name adds an input that commits to it."""
        dice, fields = self.dice, dict[str, Any]()
        if dice.random() < 0.35:
            fields |= self._etching(inputs)
        if dice.random() < 0.5:
            fields["mint"] = self._mint()
        if dice.random() < 0.3:
            fields["pointer"] = dice.randrange(outputs + (dice.random() < 0.05))
        edicts = self._edicts(outputs) if dice.random() < 0.6 else []
        extra = dice.choice(((),) * 20 + ((126, 0), (127, 0), (9, 9), (2**70, 3)))
        script = runestone(edicts, extra, **fields)
        if dice.random() < 0.04:
            script = dice.choice(
                (script + b"\x51", script + b"\x05a", script[:-1], script_of([4]), b"\x6a\x5d")
            )
        return script

    def _etching(self, inputs: list[Spent]) -> dict[str, Any]:
        dice = self.dice
        flags, fields = ETCHING, dict[str, Any]()
        if dice.random() < 0.7:
            flags |= TERMS
            fields |= {"cap": dice.choice((0, 1, 2, 9, 9, U32)), "amount": dice.choice((0, 1, 7, 1000, U64))}
            for side in ("start", "end"):
                if dice.random() < 0.3:
                    fields[f"height_{side}"] = self.height + dice.randrange(-2, 8)
                if dice.random() < 0.3:
                    fields[f"offset_{side}"] = dice.choice((0, 1, 2, 5, 9, 50, U64, dice.choice((3, U128))))
        if dice.random() < 0.5:
            number = max(self.model.minimum(self.height), first(dice.randint(1, 14)) + dice.randrange(40))
            fields["rune"] = number - (dice.random() < 0.1)
            script = TAPROOT if dice.random() < 0.9 else owner("ann")
            coin = self._coin(dice.choice((4, 5, 5, 5, 6, 9)), script)
            place = dice.randint(0, len(inputs))
            inputs.insert(place, commit(fields["rune"] + (dice.random() < 0.05), coin))
        for name, values in {
            "divisibility": (0, 2, 38, 39),
            "spacers": (1, 5, 2**27 - 1, 2**27),
            "symbol": (0, 36, 0x1F600, 0xD800),
            "premine": (0, 1, 100, 12345, 10**9, U128 - 10, dice.choice((5, U128))),
        }.items():
            if dice.random() < 0.5:
                fields[name] = dice.choice(values)
        return {"flags": flags | (TURBO if dice.random() < 0.3 else 0), **fields}

    def _mint(self) -> tuple[int, int]:
        runes = [rune for rune, entry in self.model.entries.items() if entry["terms"]]
        return self.dice.choice([*runes[-6:], (self.height, 1), (1, 0)])

    def _edicts(self, outputs: int) -> list[tuple[int, int, int, int]]:
        dice, written = self.dice, []
        runes = [*list(self.model.entries)[-8:], (0, 0), (0, 0), (self.height, 1)]
        before = (0, 0)
        for rune in sorted(dice.choice(runes) for _ in range(dice.randrange(5))):
            step = rune[0] - before[0]
            written.append(
                (
                    step,
                    rune[1] if step else rune[1] - before[1],
                    dice.choice((0, 0, 1, 3, 50, 1000, U128)),
                    dice.randint(0, outputs + (dice.random() < 0.02)),
                )
            )
            before = rune
        return written


def change(
    entries: dict[tuple[int, int], Any], balances: dict[str, dict[tuple[int, int], int]], model: Model
) -> dict[str, Any]:
    """Return what has changed since, as a scenario has it."""
    return {
        "entries": {
            f"{rune[0]}:{rune[1]}": entry_of(entry)
            for rune, entry in model.entries.items()
            if entries.get(rune) != entry
        },
        "added": {
            key: [[f"{rune[0]}:{rune[1]}", str(amount)] for rune, amount in sorted(amounts.items())]
            for key, amounts in model.balances.items()
            if key not in balances
        },
        "removed": [key for key in balances if key not in model.balances],
    }


def entry_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry as a scenario has it; it has no name in letters."""
    terms = entry["terms"]
    if terms is not None:
        texts = {name: None if value is None else str(value) for name, value in terms.items()}
        windows = {side: [texts[f"{side}_start"], texts[f"{side}_end"]] for side in ("height", "offset")}
        terms = {"amount": texts["amount"], "cap": texts["cap"], **windows}
    numbers = {name: str(entry[name]) for name in ("block", "rune", "premine", "mints", "burned")}
    return {**entry, **numbers, "terms": terms}


__all__ = ["START", "History"]
