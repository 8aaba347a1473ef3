"""Payload rules: which output counts, how a rule is named, and whether a byte search may precede it."""

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
    """Make outputs as a payload rule gets them; it reads only the script."""
    return [{"n": n, "script_pubkey": script.hex()} for n, script in enumerate(scripts)]


def test_last_op_return_finds_what_the_reference_network_found() -> None:
    """Every recorded case of output scripts yields the recorded payload."""
    cases = json.loads(gzip.decompress(shared("consensus/nulldata.json.gz").read_bytes()))["cases"]
    assert len(cases) > 60
    for case in cases:
        scripts = [bytes.fromhex(script) for script in case["output_scripts"]]
        expected = bytes.fromhex(case["nulldata"]) if case["found"] else None
        assert last_op_return(outputs(*scripts)) == expected, case["note"]


def test_the_last_of_several_op_returns_counts() -> None:
    """An output that is not an OP_RETURN does not matter, wherever it is."""
    assert last_op_return(outputs(op_return(b"ida"), op_return(b"idb"), P2PKH)) == b"idb"


def test_a_malformed_last_op_return_hides_a_good_one() -> None:
    """The rule does not fall back to an earlier OP_RETURN."""
    assert last_op_return(outputs(op_return(b"ida"), b"\x6a\x51")) is None


def test_first_op_return_finds_the_first_that_starts_with_the_magic() -> None:
    """Foreign and malformed OP_RETURNs are skipped."""
    rule = first_op_return(b"id")
    scripts = (b"\x6a", op_return(b"xxa"), P2PKH, op_return(b"ida"), op_return(b"idb"))
    assert rule(outputs(*scripts)) == b"ida"
    assert rule(outputs(P2PKH, op_return(b"i"))) is None


def test_first_op_return_takes_any_of_several_magics() -> None:
    """The first output wins, not the first magic."""
    assert first_op_return(b"aa", b"bb")(outputs(op_return(b"bb1"), op_return(b"aa1"))) == b"bb1"


@pytest.mark.parametrize("magics", [(), ("id",), (b"id", None)])
def test_first_op_return_without_magic_bytes_is_rejected(magics: tuple[Any, ...]) -> None:
    """A mistake in an app is noticed when the app is defined, not at its first block."""
    with pytest.raises(UsageError, match="magic bytes"):
        first_op_return(*magics)


def test_a_shipped_rule_as_class_attribute_is_called_with_the_outputs_alone() -> None:
    """An app may set `find_payload = last_op_return` in its class body."""

    class App:
        find_payload = last_op_return

    assert App().find_payload(outputs(op_return(b"ida"))) == b"ida"


def test_a_watch_without_a_rule_takes_the_last_op_return() -> None:
    """The default has a name, and the byte search may precede it."""
    result = watch(b"id", None, "names")
    assert (result.magic, result.rule, result.prefilter) == (b"id", "last_op_return", True)
    assert result.find_payload is last_op_return


def test_a_shipped_rule_keeps_its_name_whoever_owns_the_watch() -> None:
    """Two apps with the same rule and magic share its coverage."""
    first, second = (watch(b"id", first_op_return(b"id", b"aa"), owner) for owner in ("names", "dns"))
    assert first.rule == second.rule == "first_op_return:6161,6964"
    assert first.prefilter


def test_rules_for_different_magics_have_different_names() -> None:
    """With a second magic a rule finds less of the first, so coverage must not be shared."""
    assert first_op_return(b"id").name != first_op_return(b"id", b"aa").name
    assert first_op_return(b"id", b"aa").name == first_op_return(b"aa", b"id").name


def test_an_apps_own_rule_has_the_given_name_and_sees_every_transaction() -> None:
    """It is not known which bytes the rule looks for."""

    def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        return None

    result = watch(b"id", find, "code:abc")
    assert (result.rule, result.prefilter) == ("code:abc", False)


def test_an_empty_magic_switches_the_byte_search_off() -> None:
    """Without a magic there are no bytes to search for."""
    assert not watch(b"", None, "names").prefilter
