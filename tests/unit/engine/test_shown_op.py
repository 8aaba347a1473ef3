"""An op makes its senders when somebody looks at them, and is otherwise like any dict."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from virtualchain.engine.candidates import Candidate, Showing
from virtualchain.engine.shown_op import ENGINE_KEYS, ShownOp, fields_of, is_as_made
from virtualchain.model import Input

Op = dict[str, Any]

SENDERS = "virtualchain_senders"
EAGER: Op = {
    "name": "a",
    "virtualchain_txid": "ab",
    "virtualchain_txindex": 3,
    "virtualchain_opcode": b"o",
    SENDERS: [{"value": 5}],
    "virtualchain_fee": 7,
}
LOOKS: list[Callable[[Op], object]] = [
    lambda op: op[SENDERS],
    lambda op: op.get(SENDERS),
    lambda op: op.get(SENDERS, 1),
    list,
    lambda op: list(reversed(op)),
    lambda op: list(op.keys()),
    lambda op: list(op.values()),
    lambda op: list(op.items()),
    dict,
    lambda op: {**op},
    lambda op: op | {"more": 1},
    lambda op: {"more": 1} | op,
    lambda op: op.copy(),
    copy.copy,
    copy.deepcopy,
    lambda op: pickle.loads(pickle.dumps(op)),
    repr,
    str,
    lambda op: json.dumps(op, default=repr),
    sorted,
    lambda op: op == EAGER,
    lambda op: op != EAGER,
    lambda op: f"{op[SENDERS]}",
    lambda op: "{virtualchain_senders}".format(**op),
    "{virtualchain_senders}".format_map,
]
CHANGES: list[Callable[[Op], object]] = [
    lambda op: op.update(more=1),
    lambda op: op.__ior__({"more": 1}),
    lambda op: op.setdefault(SENDERS, []),
    lambda op: op.setdefault("more", []),
    lambda op: op.pop(SENDERS),
    lambda op: op.pop(SENDERS, None),
    lambda op: op.pop("name"),
    lambda op: op.pop("virtualchain_fee"),
    lambda op: op.popitem(),
    lambda op: op.clear(),
    lambda op: op.__delitem__(SENDERS),
    lambda op: op.__delitem__("virtualchain_fee"),
    lambda op: op.__setitem__(SENDERS, "others"),
    lambda op: op[SENDERS].append("another"),
]
UNTOUCHED: list[Callable[[Op], object]] = [
    lambda op: op["name"],
    lambda op: op.get("name"),
    lambda op: op.get("none"),
    lambda op: "name" in op,
    lambda op: "none" in op,
    lambda op: SENDERS in op,
    len,
    bool,
    lambda op: op.__setitem__("name", "b"),
    lambda op: op.__setitem__("more", 1),
    fields_of,
]


def shown() -> ShownOp:
    """Return an op whose senders were not looked at."""
    others = {name: value for name, value in EAGER.items() if name != SENDERS}
    return ShownOp(others, lambda: copy.deepcopy(EAGER[SENDERS]))


@pytest.mark.parametrize("act", [*LOOKS, *CHANGES, *UNTOUCHED])
def test_an_op_is_like_a_dict(act: Callable[[Op], object]) -> None:
    """Whatever is done to it has the same result, and leaves the same op, also in the order of its keys."""
    eager, lazy = copy.deepcopy(EAGER), shown()
    assert act(lazy) == act(eager)
    assert list(lazy.items()) == list(eager.items())
    lazy, eager = shown(), copy.deepcopy(EAGER)
    lazy["late"] = eager["late"] = 1  # before anybody looks
    assert act(lazy) == act(eager)
    assert list(lazy.items()) == list(eager.items())


@pytest.mark.parametrize("act", UNTOUCHED)
def test_what_does_not_look_at_the_senders(act: Callable[[Op], object]) -> None:
    """It does not make them."""
    op = shown()
    act(op)
    assert not op.has_senders


def test_senders_are_made_once() -> None:
    """What is changed in them stays, and they are gone for good if they are removed."""
    op = shown()
    op[SENDERS].append("another")
    assert op[SENDERS] == [{"value": 5}, "another"]
    del op[SENDERS]
    assert SENDERS not in op
    with pytest.raises(KeyError, match=SENDERS):
        op[SENDERS]
    with pytest.raises(KeyError, match="none"):
        shown()["none"]


@pytest.mark.parametrize(
    "fields",
    [{SENDERS: "mine", "a": 1}, {"virtualchain_fee": 0, "a": 1}, {"virtualchain_fee": 0, SENDERS: 1}],
)
def test_senders_are_those_of_the_transaction(fields: Op) -> None:
    """Whatever an app has put in their place, and it is theirs."""
    source = Input(1, 3, "ab", b"", (), (), (), 7, b"")
    candidate = Candidate(source, b"o", b"x", op=fields)
    candidate.showing = Showing(with_heights=False, tracks=False)
    candidate.complete()
    engine = {**EAGER, SENDERS: []}
    del engine["name"]
    assert list(candidate.op.items()) == list({**fields, **engine}.items())


def test_two_ops_are_compared() -> None:
    """Also if the senders of neither were looked at."""
    assert shown() == shown()
    assert (shown() != shown()) is False
    assert shown() in [{}, shown()]


def test_senders_that_cannot_be_made() -> None:
    """The op stays as it was, and they can be asked for again."""
    answers: Iterator[Exception | list[Op]] = iter([RecursionError(), [{"value": 5}]])

    def make() -> list[Op]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    op = ShownOp({name: value for name, value in EAGER.items() if name != SENDERS}, make)
    with pytest.raises(RecursionError):
        op[SENDERS]
    assert list(op.items()) == list(EAGER.items())


@pytest.mark.parametrize(
    "act", [lambda op: op.name, lambda op: {op}, lambda op: op + 1, lambda op: op["none"], lambda op: op[[]]]
)
def test_errors_say_that_it_is_a_dict(act: Callable[[Op], object]) -> None:
    """An app's record has the text of the error."""
    with pytest.raises(Exception) as of_dict:  # noqa: PT011 - whichever it is
        act(copy.deepcopy(EAGER))
    with pytest.raises(of_dict.type) as of_op:
        act(shown())
    assert str(of_op.value) == str(of_dict.value)


def test_an_op_within_itself() -> None:
    """It is copied as a dict is."""
    op = shown()
    op["itself"] = op
    for copied in (copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert type(copied) is dict
        assert copied["itself"] is copied


def test_its_type_makes_dicts() -> None:
    """Code that copies nested values calls the type of each."""
    kind: Any = type(shown())
    assert kind(EAGER) == kind(EAGER.items()) == kind(**EAGER) == EAGER
    assert kind() == {}
    assert kind.fromkeys("ab", 1) == {"a": 1, "b": 1}


def test_fields_are_what_the_engine_did_not_add() -> None:
    """An app may return an op of its own, with keys of the engine or without."""
    assert fields_of(shown()) == fields_of(EAGER) == fields_of({"name": "a"}) == {"name": "a"}
    assert fields_of(dict.fromkeys(ENGINE_KEYS, 1)) == {}


def test_an_op_as_it_was_made() -> None:
    """Neither a change of a value nor of the order goes unnoticed."""
    changed, reordered, looked_at = shown(), shown(), shown()
    changed[SENDERS][0]["value"] = 6
    reordered["name"] = reordered.pop("name")
    assert looked_at[SENDERS]
    assert is_as_made(shown(), shown())
    assert is_as_made(looked_at, shown())
    assert not is_as_made(changed, shown())
    assert not is_as_made(reordered, shown())
