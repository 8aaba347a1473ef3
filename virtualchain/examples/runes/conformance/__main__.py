"""`python -m virtualchain.examples.runes.conformance FILE …`: check vectors and recorded scenarios."""

import sys
from collections.abc import Sequence
from typing import Final

from virtualchain.examples.runes.conformance.checking import SUITE
from virtualchain.testing.conformance.command import run

_DESCRIPTION: Final = (
    "Check the rules of Runes against recordings of the reference: messages, names and integers one by one, "
    "and blocks through the engine, with the whole state compared after each. The exit status is 1 if any "
    "differs, 2 if a file cannot be read."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all files; return the exit status: 1 if anything failed, 2 for an unreadable file."""
    module = "virtualchain.examples.runes.conformance"
    return run(SUITE, module, _DESCRIPTION, arguments, status_of_unreadable=2)


if __name__ == "__main__":
    sys.exit(main())
