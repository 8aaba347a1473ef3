"""`Handler`: a base class for handlers that are checked by a type checker."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    from virtualchain.app.handlers import Rejected
    from virtualchain.store.state import State

Op = TypeVar("Op", bound=Mapping[str, Any])


class Handler(Generic[Op]):
    """What a handler class may have, for an op of a type, such as a TypedDict.

    ::

        class Message(TypedDict):
            author: str
            text: str

        @app.opcode(b"s", fields=["author", "text"])
        class Sign(Handler[Message]):
            def parse(self, payload: bytes, senders: list[Sender]) -> Message | Rejected: ...
            def check(self, op: Message, state: State) -> bool | Rejected: ...
            def commit(self, op: Message, state: State, block_id: int) -> None: ...

    A type checker then reports a method with other leading arguments, or that returns something else, at its
    line. It is no more than that: a class without this base is a handler, too, and `check`, `commit` and
    `encode` may be missing.
    """

    if TYPE_CHECKING:
        parse: Callable[Concatenate[bytes, ...], Op | Rejected | None]
        check: Callable[Concatenate[Op, State, ...], bool | Rejected] | str | Path
        commit: (
            Callable[Concatenate[Op, State, ...], Op | Sequence[Op] | Rejected | Literal[False] | None]
            | str
            | Path
        )
        encode: Callable[..., bytes]
