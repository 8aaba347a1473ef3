"""The fingerprint and the code digest of an unchanged app are the same in every release, on every Python.

If a value below differs, deployments refuse their apps, or warn of changed code, after an upgrade of
virtualchain or of Python. Unless the app itself was changed, it is the engine that must be corrected.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.support.golden_apps import APPS
from tests.unit.app.test_code import pythons
from virtualchain.app.declarations import read_contract
from virtualchain.loading import load_app

GOLDEN: Final = {
    "guestbook": (
        "0b0a2d36b853d3dbe94d2f4cf201b10193ed1871d6594d1107b81e4a2d956c40",
        "last_op_return",
        "d0601d1921e4e85fd9ed277edf58ccec63dd0c991570f92e0bbbfd2791c0ee2c",
    ),
    "declared": (
        "f2512bcfc472de412939d39dd640c7e8973e998e7fbea69aadadccbc4f81c97b",
        "first_op_return:6131",
        "26eb679577176cdcd492fc4f8fe3c3b9e3f967dbfd41b442276b1329870fefab",
    ),
    "everything": (
        "14d768417a88ad367bfe24de4de599a8f8368f04204c099ff3b3ff0cb9fbe4e0",
        "last_op_return",
        "17291b682f21086d5183cbb33f01d2e72280324b209ae94e4cfef2c91c5ef817",
    ),
    "shipped_rule": (
        "b5a371be3464c3523a531a592fa4f46e7354d25d39c8c992032a64d68f776c09",
        "last_op_return",
        "13999eb8bf421baf93aad3ff89b9efc67ada247fd162848a4ed0f4bf96597c1d",
    ),
    "own_rule": (
        "05b8995cde68cacfd076f00fe9cea1cce458c28fec1fffb111a1ea5690bf0f1a",
        "code:7ca7d18b6d7e8c89dc642f88db12e8aea685f6093f899e42d17be185fbdb1e45",
        "69761e73f06d925bde37ee27ec2be9a79c2dffbf6ad597e16b33b01e29757aa9",
    ),
    "closure_rule": (
        "c5795cff14f436efee8d57209bbbadb8a774bc80021d562d02156ca6d787688f",
        "code:738892be61f3aded62a8bc1a6873264f850471cd71df43c2dd5a631f8b2a2afe",
        "51b44cf0c420cc007939d32a094282f7952c59e58c919b1384f887ab2da121d9",
    ),
    "object_rule": (
        "9bf64ddfce66816371f3cf38c89ff178f70c8d93c137d1bbcd07db169f34a36c",
        "code:26a09124c044f9a826396d64017b83e8760dfd343de273df3127475a96c6af89",
        "d704a7816c2b36b6b20bcbbf8f563018f5bed805c117ca110c32226a8e3e6752",
    ),
    "sourceless_rule": (
        "8019d63d4dfa3d3529e2c19d876e0717f9d75f8a207dba87b9378773fa1feba7",
        "code:0217649fc985a82e212bb0334d52972d9e641e5638a2f3ca204384d12ca04fa3",
        "",  # compiled code is that of one Python version
    ),
    "published": (
        "55b0ac9cd66f31a6da1d10d7e78468e796c4b57eec202a410df94e93299a8dc3",
        "last_op_return",
        "2b5722de165fad925c830930c8d19d9067266e5ed35a31e8dde41c351e33e27c",
    ),
    "engine": (
        "493015ca5c35e8cec2fe8873909af301a0824f10e0743cc392649e6927305087",
        "last_op_return",
        "a64f203a527f06997ec1907e3e3d3ced3fb453b709fab678e6715ecbf35acb2e",
    ),
}
"""By name, the fingerprint, the name of the payload rule, and the code digest, if it is to last."""
EXAMPLES: Final = {
    "virtualchain.examples.notary": (
        "002b0f48dc73cb670c519e815427eaee80c5c054d05f8febd9ecb2c2881d22d5",
        "last_op_return",
        "9549f5c92721c41fa122a514bcf2c6256e04c0ec838830059e11f3cc37d7f0d7",
    ),
    "virtualchain.examples.names": (
        "c07569e8adc97aa4e72f4a8d4a526b0c65a2dc5b8f415a3e5186750eec5c11a0",
        "last_op_return",
        "11f54010cd3ab4c38443abc2e20c2e137dc1f169299b7018488ff76724770e2c",
    ),
}
"""The same of the examples. A change of their code, but not of their rules, changes the last of the three."""
_ALL: Final = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.support.golden_apps import APPS
from virtualchain.app.declarations import read_contract
contracts = {name: read_contract(app) for name, app in APPS.items()}
print(json.dumps({name: [c.fingerprint(), c.rule, c.code_digest()] for name, c in contracts.items()}))
"""


def lasting(name: str, identity: Sequence[str]) -> tuple[str, ...]:
    """Leave out the digest of code that has no source."""
    return (*identity[:2], "" if name == "sourceless_rule" else identity[2])


def identity(app: object) -> tuple[str, str, str]:
    """Return what a deployment knows of an app."""
    contract = read_contract(app)
    return contract.fingerprint(), contract.rule, contract.code_digest()


@pytest.mark.parametrize("name", APPS)
def test_the_identity_of_an_unchanged_app_is_the_recorded_one(name: str) -> None:
    """Declarations and code of every kind are described as they were when they were recorded."""
    assert lasting(name, identity(APPS[name])) == GOLDEN[name]


@pytest.mark.parametrize("use", EXAMPLES)
def test_the_identity_of_an_example_is_the_recorded_one(use: str) -> None:
    """The apps that come along are known to deployments by these values."""
    assert identity(load_app(use)) == EXAMPLES[use]


@pytest.mark.parametrize("options", [[], ["-O"], ["-OO"], ["-X", "utf8=0"], ["-B"]], ids=" ".join)
def test_the_identity_is_the_same_in_another_process(options: list[str]) -> None:
    """Neither optimization nor the encoding, the hash seed or a cached file matter."""
    command = [sys.executable, *options, "-c", _ALL, str(Path(__file__).parents[3])]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert {name: lasting(name, values) for name, values in json.loads(done.stdout).items()} == GOLDEN


def test_the_identity_is_the_same_on_other_pythons() -> None:
    """Every installed version of Python that can import the engine computes the recorded values."""
    compared = 0
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in pythons():
        command = [python, "-c", _ALL, str(Path(__file__).parents[3])]
        done = subprocess.run(command, capture_output=True, check=False, text=True, env=environment)
        if "ImportError" not in done.stderr and "ModuleNotFoundError" not in done.stderr:
            identities = json.loads(done.stdout)
            assert {name: lasting(name, values) for name, values in identities.items()} == GOLDEN, python
            compared += 1
    if not compared:
        pytest.skip("no other Python version can import the engine")
