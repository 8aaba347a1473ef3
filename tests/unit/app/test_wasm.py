"""Modules: what one may have, what it can do, and that all else halts the app and is never a verdict."""

import pickle
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wasm import FUEL, State, compiled, run, wat
from virtualchain import wasm_app
from virtualchain.app.declarations import read_contract
from virtualchain.app.wasm.module import Module, ModuleFailed
from virtualchain.app.wasm.packing import pack, unpack
from virtualchain.engine.judge import must_judge
from virtualchain.errors import InvalidApp


def call(name: str, *arguments: int) -> str:
    """Write a call of the engine."""
    return f"(call ${name} {' '.join(f'(i32.const {argument})' for argument in arguments)})"


def put_bytes(at: int, data: bytes) -> str:
    """Write a part of a module: some bytes in its memory."""
    escaped = "".join(f"\\{byte:02x}" for byte in data)
    return f'(data (i32.const {at}) "{escaped}")'


def app(text: str, **options: Any) -> Any:
    """Declare an app of a module."""
    return wasm_app(compiled(text), "it", magic=b"it", opcodes={b"x": ["a", "b"]}, **options)


ACCOUNTS, NAMES, NOTHING = (0, 8), (8, 5), (0, 0)
"""Where `wat` has the names of the tables, and of nothing."""
NEXT = f"(drop {call('next', 1024, 1024)})"
REFUSE = call("refuse", 16, 3)
LOOP = "(loop $more {} (br $more))"
GROWING = '(memory (export "memory") 1 2)'
PACKED = st.lists(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"))
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value.adjusted()) < 400)
)


@given(values=PACKED)
def test_values_cross_and_come_back(values: list[object]) -> None:
    """Each type is read as it was written."""
    assert unpack(pack(values)) == values


@given(data=st.binary(max_size=40))
def test_any_bytes_are_values_or_an_error(data: bytes) -> None:
    """Nothing that a module writes does anything but that."""
    try:
        unpack(data)
    except ValueError:
        return


@pytest.mark.parametrize("digits", ["1_0", "1e9", "NaN", "\u0663", "1" * 1001, "", "1.2.3", "Infinity"])
def test_a_numeric_is_digits(digits: str) -> None:
    """What Python would read beyond that is refused."""
    encoded = digits.encode()
    with pytest.raises(ValueError, match="a numeric is not"):
        unpack(b"\6" + len(encoded).to_bytes(4, "little") + encoded)
    assert unpack(b"\6\5\0\0\0-1.50") == [Decimal("-1.50")]


REFUSED = {
    "imports wasi_snapshot_preview1.fd_write": '(module (import "wasi_snapshot_preview1" "fd_write" (func)))',
    "imports virtualchain.clock": '(module (import "virtualchain" "clock" (func (result i32))))',
    "imports next with other parameters": '(module (import "virtualchain" "next" (func (result i64))))',
    "it has (i32, i32) -> (i32)": '(module (import "virtualchain" "next" (func (param i32))))',
    "imports virtualchain.memory": '(module (import "virtualchain" "memory" (memory 1 1)))',
    "has no export memory": '(module (func (export "block") (param i32 i64 i32)))',
    "has a memory that can grow": wat("", memory=GROWING),
    "or of more than 256 pages": wat("", memory='(memory (export "memory") 257 257)'),
    "has a table that can grow": wat("", extra="(table 1 funcref)"),
    "has a start function": wat("", extra="(func $f) (start $f)"),
    "has no exported function block": '(module (memory (export "memory") 1 1))',
    "exports block with other parameters": '(module (memory (export "memory") 1 1) (func (export "block")))',
    "exports keys with other parameters": wat("", extra='(func (export "keys"))'),
    "has a function of 90002 bytes; one has at most 65536": wat("(drop (i32.const 1))" * 30_000),
    "has too many variables in large functions": wat(
        "", extra=f"(func {'(local i32)' * 2000} {'(drop (local.get 1999))' * 5000})" * 2
    ),
}
OFF = {
    "SIMD": wat("", extra="(func (param v128))"),
    "threads": wat("", memory='(memory (export "memory") 1 1 shared)'),
    "a memory of 64 bits": wat("", memory='(memory (export "memory") i64 1 1)'),
    "two memories": wat("", extra="(memory 1 1)"),
    "tail calls": wat("", extra="(func $f (return_call $f))"),
    "several results": wat("", extra="(func (result i32 i32) (i32.const 1) (i32.const 1))"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_module_that_may_not_run_is_refused_when_it_is_declared(message: str) -> None:
    """The message says what it has that it may not have."""
    with pytest.raises(InvalidApp) as refused:
        app(REFUSED[message])
    assert message in str(refused.value)


@pytest.mark.parametrize("feature", OFF)
def test_what_may_differ_between_machines_is_off(feature: str) -> None:
    """A module that uses it is no module that may run here."""
    with pytest.raises(InvalidApp, match="is not a module that may run here"):
        app(OFF[feature])


def test_only_a_module_of_some_size_is_taken() -> None:
    """Neither text, nor what is too large, nor a file that is not there."""
    modules: dict[str | bytes, str] = {
        b"(module)": "is not a WebAssembly module",
        b"\0asm" + bytes(1 << 20): "has 1048580 bytes; a module has at most",
        "nowhere.wasm": "cannot read the module 'nowhere.wasm'",
    }
    for module, message in modules.items():
        with pytest.raises(InvalidApp, match=message):
            wasm_app(module, "it", magic=b"it", opcodes={b"x": []})
    with pytest.raises(InvalidApp, match="a module cannot have tracks"):
        app(wat(""), tracks="coins")


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    module = compiled(wat(""))
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    with pytest.raises(InvalidApp, match=r"pip install 'virtualchain\[wasm\]'"):
        wasm_app(module, "it", magic=b"it", opcodes={b"x": []})


def test_the_module_is_part_of_the_identity() -> None:
    """Another module or other fuel is another app; the same ones in another process are not."""
    one, same, other = (read_contract(app(text)) for text in (wat(""), wat(""), wat(REFUSE)))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.code_digest() == same.code_digest() != other.code_digest()
    assert read_contract(app(wat(""), fuel=FUEL + 1)).code_digest() != one.code_digest()
    module = Module.of(compiled(wat("")), "it.wasm")
    again = pickle.loads(pickle.dumps(module))
    assert again == module
    assert not again.wants_keys


KEY, ROW, OP = pack([5]), pack([5, "hi"]), pack([1, "b"])
PUT = call("put", *ACCOUNTS, 2048, len(ROW))
GET = call("get", *ACCOUNTS, 2100, len(KEY), 4000, 100)
ACCEPT = call("accept", 2200, len(OP))
HELD = put_bytes(2048, ROW) + put_bytes(2100, KEY) + put_bytes(2200, OP)


def test_what_an_input_changes_is_seen_by_the_next_and_dropped_if_it_is_refused() -> None:
    """An accepted input has its writes and its op; a refused one leaves nothing; each sees those before."""
    mark = f"(if (i32.ge_s {GET} (i32.const 0)) (then (i32.store8 (i32.const 2062) (i32.const 33))))"
    gone = f"(if (i32.eq {GET} (i32.const -1)) (then {ACCEPT}))"
    delete = call("delete", *ACCOUNTS, 2100, len(KEY))
    body = NEXT + PUT + REFUSE + (NEXT + mark + PUT + ACCEPT) * 2 + NEXT + delete + gone + NEXT
    refused, first, second, third = run(wat(body, extra=HELD), 4)
    assert (refused.reason, refused.writes) == ("why", ())
    assert first.op == {"a": 1, "b": "b"}
    assert first.writes == (("accounts", (5,), {"id": 5, "note": "hi"}),)
    assert second.writes == (("accounts", (5,), {"id": 5, "note": "!i"}),)
    assert third.writes == (("accounts", (5,), None),)


def test_a_row_is_read_and_too_little_room_is_said() -> None:
    """What is returned is the length that it takes, or -1 if there is no row, or can be none."""
    keys = [KEY, KEY, pack([6]), pack([2**62]), pack(["a\0"]), b"\4\1\0\0\0\xff"]
    places = [2048 + 32 * number for number in range(len(keys))]
    stores = []
    for number, (place, key) in enumerate(zip(places, keys, strict=True)):
        table = ACCOUNTS if number < 4 else NAMES
        got = call("get", *table, place, len(key), 4000, 100 if number else 2)
        stores.append(f"(i32.store8 (i32.const {3000 + number}) {got})")
    body = NEXT + "".join(stores) + call("refuse", 3000, len(keys))
    state = State(accounts={(5,): {"id": 5, "note": "hi"}})
    (verdict,) = run(wat(body, extra="".join(map(put_bytes, places, keys))), state=state)
    assert verdict.reason == b"\x10\x10\xff\xff\xff\xff".decode(errors="replace")


LARGE = {(5,): {"id": 5, "note": "x" * 50_000}}


def test_a_row_costs_its_bytes_even_if_there_is_no_room_for_it() -> None:
    """What the engine reads and keeps is paid for, so that few calls cannot take all memory."""
    get = f"(drop {call('get', *ACCOUNTS, 2100, len(KEY), *NOTHING)})"
    body = NEXT + get + REFUSE
    run(wat(body, extra=HELD), state=State(accounts=LARGE), fuel=600_000)
    with pytest.raises(ModuleFailed, match="has used up its fuel"):
        run(wat(body, extra=HELD), state=State(accounts=LARGE), fuel=400_000)


def test_a_block_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are read, read ahead or put count, and a row that is read again does not."""
    want = call("want", *ACCOUNTS, 2100, len(KEY))
    get = f"(drop {call('get', *ACCOUNTS, 2100, len(KEY), *NOTHING)})"
    delete = call("delete", *ACCOUNTS, 2100, len(KEY))
    monkeypatch.setattr("virtualchain.app.wasm.host._MOST_KEPT", 90_000)
    run(wat(NEXT + get * 3 + PUT * 3 + delete + ACCEPT, extra=HELD), state=State(accounts=LARGE))
    message = "has more than 0 MiB of rows, keys and ops in one block"
    with pytest.raises(ModuleFailed, match=message):
        run(wat(NEXT + PUT * 180 + ACCEPT, extra=HELD))
    with pytest.raises(ModuleFailed, match=message):
        run(wat(NEXT + delete * 180 + ACCEPT, extra=HELD))
    with pytest.raises(ModuleFailed, match=message):
        run(wat("", keys=NEXT + want * 2, extra=HELD), state=State(accounts=LARGE))
    monkeypatch.setattr("virtualchain.app.wasm.host._MOST_KEPT", 40_000)
    with pytest.raises(ModuleFailed, match=message):
        run(wat(NEXT + get + REFUSE, extra=HELD), state=State(accounts=LARGE))


def test_a_row_has_so_many_bytes() -> None:
    """However large the memory is."""
    memory = '(memory (export "memory") 2 2)'
    with pytest.raises(ModuleFailed, match="65537 bytes; the most are 65536"):
        run(wat(NEXT + call("put", *ACCOUNTS, 0, 65_537), memory=memory))


def test_rows_are_named_before_the_block() -> None:
    """With an export `keys`, all that the block wants is read at once; it decides nothing."""
    want = call("want", *ACCOUNTS, 2100, len(KEY))
    state = State()
    run(wat(NEXT + REFUSE, keys=NEXT + want + NEXT, extra=HELD), state=state)
    assert state.read == [{"accounts": [(5,)]}]
    with pytest.raises(ModuleFailed, match="calls refuse, and there is no input to be decided"):
        run(wat(NEXT + REFUSE, keys=NEXT + REFUSE))
    with pytest.raises(ModuleFailed, match="calls want outside of keys"):
        run(wat(NEXT + want, extra=HELD))


def test_a_module_keeps_nothing_from_one_block_to_the_next() -> None:
    """Each block has a new instance: what a global or the memory had is gone."""
    count = "(global.set $n (i32.add (global.get $n) (i32.const 1)))"
    store = "(i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (global.get $n)))"
    text = wat(f"{count} {store} {NEXT} {REFUSE}", extra="(global $n (mut i32) (i32.const 0))")
    assert [run(text)[0].reason, run(text)[0].reason] == ["xhy", "xhy"]


def test_the_block_is_passed_and_a_nan_has_one_form() -> None:
    """Floats have the results of the standard, and the bits of a NaN are always the same."""
    nan = "(i64.reinterpret_f64 (f64.div (f64.neg (f64.const 0)) (f64.const 0)))"
    is_canonical = f"(i64.eq {nan} (i64.const 0x7ff8000000000000))"
    passed = (
        "(i32.and (i32.and (i32.eq (local.get $block) (i32.const 7))"
        "(i32.eq (local.get $count) (i32.const 1)))"
        "(i64.eq (local.get $time) (i64.const 1700000000)))"
    )
    body = f"{NEXT} (if (i32.and {passed} {is_canonical}) (then {REFUSE}))"
    assert run(wat(body))[0].reason == "why"


CUT, RANGE, BYTES, NUL = b"\4\xff\xff\xff\x7f", pack(["a", 2**15]), pack([b"", 1]), pack(["a\0", 1])
DATA = {2048: CUT, 2100: RANGE, 2200: BYTES, 2300: NUL}
ENDED = "calls refuse, and there is no input to be decided"
HALTS: dict[str, tuple[str, str]] = {
    "an endless loop": (LOOP.format(""), "fuel"),
    "an endless loop of calls": (NEXT + LOOP.format(f"(drop {call('is_text', 0, 1)})"), "used up its fuel"),
    "expensive bytes": (NEXT + LOOP.format(f"(drop {call('is_text', 0, 65536)})"), "used up its fuel"),
    "a trap": ("unreachable", "unreachable"),
    "a division by zero": ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "divide by zero"),
    "endless recursion": ("(call $deep)", "stack"),
    "a pointer beyond the memory": ("(drop (i32.load (i32.const 65536)))", "out of bounds"),
    "room beyond the memory": (f"(drop {call('next', 65530, 100)})", "names 32 bytes at 65530"),
    "room that wraps": (f"(drop {call('next', -1, -1)})", "bytes at 4294967295"),
    "text beyond the memory": (f"(drop {call('is_text', 65530, 100)})", "names 100 bytes at 65530"),
    "a reason that wraps": (NEXT + call("refuse", -1, 5), "names 5 bytes at 4294967295"),
    "too little room": (f"(drop {call('next', 1024, 31)})", "has room for 31 bytes"),
    "an undecided input": (NEXT, "has decided 0 of 1 inputs"),
    "the next before the last": (NEXT + NEXT, "has neither accepted nor refused this one"),
    "two verdicts": (NEXT + REFUSE + REFUSE, ENDED),
    "a verdict too early": (REFUSE, ENDED),
    "a verdict too late": (NEXT + REFUSE + NEXT + REFUSE, ENDED),
    "another table": (NEXT + call("put", 16, 3, *NOTHING), "no such table"),
    "a row of no values": (NEXT + call("put", *ACCOUNTS, *NOTHING), "0 values for 2"),
    "a row that is cut": (NEXT + call("put", *ACCOUNTS, 2048, len(CUT)), "a value ends after the end"),
    "a row out of range": (NEXT + call("put", *NAMES, 2100, len(RANGE)), "out of range"),
    "a key of two values": (
        f"{NEXT} (drop {call('get', *ACCOUNTS, 2100, len(RANGE), *NOTHING)})",
        "consists of id",
    ),
    "an op of no fields": (NEXT + call("accept", *NOTHING), "not those of the op's fields"),
    "an op with bytes": (NEXT + call("accept", 2200, len(BYTES)), "not those of the op's fields"),
    "an op with a NUL": (NEXT + call("accept", 2300, len(NUL)), "not those of the op's fields"),
}


@pytest.mark.parametrize("name", HALTS)
def test_what_a_module_may_not_do_is_never_a_verdict(name: str) -> None:
    """It ends the call with an error that says what it did, and at which input."""
    body, message = HALTS[name]
    extra = "(func $deep (call $deep))" + "".join(put_bytes(place, data) for place, data in DATA.items())
    with pytest.raises(ModuleFailed, match=r"it\.wasm") as failed:
        run(wat(body, extra=extra))
    assert message in str(failed.value)


def test_a_block_without_inputs_does_not_begin_a_turn() -> None:
    """A module costs nothing there; any other `scan` is called for every block."""
    assert not must_judge(read_contract(app(wat(""))), ())
    other = app(wat(""))
    other.scan(lambda ops, state: None, from_block=5)
    assert must_judge(read_contract(other), ())


def test_a_long_reason_is_cut_and_an_empty_one_is_none() -> None:
    """A module cannot make the engine keep more, and bytes that are not text do not halt the app."""
    first, second = run(wat(NEXT + call("refuse", 0, 65536) + NEXT + call("refuse", *NOTHING) + NEXT), 2)
    assert len(first.reason or "") == 1000
    assert second.reason == "refused"


def test_a_fault_of_the_database_comes_through_as_it_is() -> None:
    """The engine tries the block again: it must see what failed."""

    class Away(Exception):
        """The database is away."""

    class Broken(State):
        def table(self, name: str) -> Any:
            raise Away

    with pytest.raises(Away):
        run(wat(f"{NEXT} (drop {GET})", extra=HELD), state=Broken())
