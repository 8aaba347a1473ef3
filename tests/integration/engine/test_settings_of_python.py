"""Settings of the process and its threads that change what Python computes are the same in all callbacks."""

import decimal
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App
from virtualchain.testing import FakeNode


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    digits = sys.get_int_max_str_digits()
    with decimal.localcontext():
        yield
    sys.set_int_max_str_digits(digits)


def test_the_context_of_decimal_and_the_digits_of_ints_decide_nothing(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Neither the process, nor another app, nor an earlier block can change them."""

    def parse(payload: bytes) -> dict[str, Any]:
        number, third = int(payload), str(Decimal(1) / 3)
        decimal.getcontext().prec = 3
        sys.set_int_max_str_digits(0)
        return {"last": number % 10, "third": third}

    apps = [App(name, magic=b"ar", max_payload=10_000) for name in ("one", "two")]
    for app in apps:
        app.add(b"i", parse=parse)
    decimal.getcontext().prec = 50
    sys.set_int_max_str_digits(0)
    for _ in range(2):
        fake_node.mine([fake_node.send(b"ari" + b"7" * 4_301)])
        fake_node.mine([fake_node.send(b"ari7")])
    run(*apps)
    assert decimal.getcontext().prec == 50
    assert query("SELECT app, block_id, fields FROM virtualchain.ops ORDER BY 1, 2") == [
        {"app": name, "block_id": block_id, "fields": {"last": 7, "third": "0." + "3" * 28}}
        for name in ("one", "two")
        for block_id in (103, 105)
    ]
    (rejection,) = query("SELECT count(*) AS n, min(reason) AS reason FROM virtualchain.rejections")
    assert rejection["n"] == 4
    assert "4300" in rejection["reason"]
