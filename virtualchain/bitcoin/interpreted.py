"""Stands in for Cython's own module while a module is interpreted: its types and locks mean nothing then."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class _Lock:
    """A lock that is never held: `with nogil` as a statement, `@nogil` as a decorator."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...

    def __call__(self, function: F) -> F:
        return function


def _types(*_types: object, **_variables: object) -> Callable[[F], F]:
    """Leave a function as it is, whatever the C types of its variables are."""
    return lambda function: function


def cfunc(function: F) -> F:
    """Leave a function as it is: compiled, only its own module can call it."""
    return function


compiled: Final = False
nogil: Final = _Lock()
gil: Final = _Lock()
locals = returns = exceptval = _types  # noqa: A001 - the names that Cython gives them
