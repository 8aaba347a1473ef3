"""Payload rules: which output counts, what a rule is called, and whether a byte search may precede it."""

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import P2PKH, op_return
from virtualchain.bitcoin.payload import first_op_return, last_op_return, watch
from virtualchain.errors import UsageError


def outputs(*scripts: bytes) -> list[dict[str, Any]]:
    """Give outputs as a payload rule gets them; it reads nothing but the script."""
    return [{"n": n, "script_pubkey": script.hex()} for n, script in enumerate(scripts)]


def test_last_op_return_finds_what_the_reference_network_found() -> None:
    """Every recorded case of output scripts gives the recorded payload."""
    cases = json.loads(gzip.decompress(shared("consensus/nulldata.json.gz").read_bytes()))["cases"]
    assert len(cases) > 60
    for case in cases:
        scripts = [bytes.fromhex(script) for script in case["output_scripts"]]
        expected = bytes.fromhex(case["nulldata"]) if case["found"] else None
        assert last_op_return(outputs(*scripts)) == expected, case["note"]


def test_the_last_of_several_op_returns_counts() -> None:
    """An output that is no OP_RETURN does not matter, wherever it stands."""
    assert last_op_return(outputs(op_return(b"ida"), op_return(b"idb"), P2PKH)) == b"idb"


def test_a_malformed_last_op_return_hides_a_good_one() -> None:
    """Nothing is found behind the last OP_RETURN's back."""
    assert last_op_return(outputs(op_return(b"ida"), b"\x6a\x51")) is None


def test_first_op_return_finds_the_first_that_starts_with_the_magic() -> None:
    """Foreign and malformed OP_RETURNs are passed over."""
    rule = first_op_return(b"id")
    scripts = (b"\x6a", op_return(b"xxa"), P2PKH, op_return(b"ida"), op_return(b"idb"))
    assert rule(outputs(*scripts)) == b"ida"
    assert rule(outputs(P2PKH, op_return(b"i"))) is None


def test_first_op_return_takes_any_of_several_magics() -> None:
    """The first output wins, not the first magic."""
    assert first_op_return(b"aa", b"bb")(outputs(op_return(b"bb1"), op_return(b"aa1"))) == b"bb1"


@pytest.mark.parametrize("magics", [(), ("id",), (b"id", None)])
def test_first_op_return_without_magic_bytes_is_refused(magics: tuple[Any, ...]) -> None:
    """A mistake in an app shows where the app is written and not at its first block."""
    with pytest.raises(UsageError, match="magic bytes"):
        first_op_return(*magics)


def test_a_shipped_rule_as_class_attribute_is_called_with_the_outputs_alone() -> None:
    """An app may say `find_payload = last_op_return` in its class body."""

    class App:
        find_payload = last_op_return

    assert App().find_payload(outputs(op_return(b"ida"))) == b"ida"


def test_a_watch_without_a_rule_takes_the_last_op_return() -> None:
    """The default has a name of its own and is safe behind the byte search."""
    found = watch(b"id", None, "names")
    assert (found.magic, found.rule, found.prefilter) == (b"id", "last_op_return", True)
    assert found.find_payload is last_op_return


def test_a_shipped_rule_keeps_its_name_whoever_owns_the_watch() -> None:
    """Two apps with the same rule and magic share what was looked for."""
    first, second = (watch(b"id", first_op_return(b"id", b"aa"), owner) for owner in ("names", "dns"))
    assert first.rule == second.rule == "first_op_return:6161,6964"
    assert first.prefilter


def test_rules_for_different_magics_have_different_names() -> None:
    """With another magic beside it a rule finds less, so coverage must not be shared."""
    assert first_op_return(b"id").name != first_op_return(b"id", b"aa").name
    assert first_op_return(b"id", b"aa").name == first_op_return(b"aa", b"id").name


def test_a_rule_of_the_apps_own_is_named_after_it_and_sees_every_transaction() -> None:
    """Nobody knows what bytes it looks for."""

    def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        return None

    found = watch(b"id", find, "names")
    assert (found.rule, found.prefilter) == ("app:names", False)


def test_an_empty_magic_switches_the_byte_search_off() -> None:
    """There is nothing to search for."""
    assert not watch(b"", None, "names").prefilter
