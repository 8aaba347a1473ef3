r"""The example `points` with the same rules as a WebAssembly module, written in C.

It is compiled with Debian's `clang` and `lld`, in this folder:

    clang --target=wasm32 -O2 -nostdlib -mbulk-memory -Wl,--no-entry,--strip-all \
        -Wl,--initial-memory=262144,--max-memory=262144 -o points.wasm points.c
"""

from pathlib import Path

from virtualchain import wasm_app

app = wasm_app(
    "points.wasm",
    "points",
    magic=b"pt",
    projections=str(Path(__file__).parents[1] / "points.sql"),
    opcodes={
        b"i": ["issuer", "name", "amount"],
        b"t": ["sender", "recipient", "name", "amount"],
    },
    layouts={b"i": "name text(..20), amount u32", b"t": "name text(..20), amount u32"},
)
