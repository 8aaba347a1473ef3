"""`python -m virtualchain.examples.names.conformance FILE …`: replay recorded scenarios, and compare."""

import sys
from collections.abc import Sequence
from typing import Final

from virtualchain.examples.names.conformance.checking import SUITE
from virtualchain.testing.conformance.command import run

_DESCRIPTION: Final = (
    "Replay recorded runs of the name registry through the engine, and compare verdicts, "
    "operations, ops hashes and consensus hashes block by block. The exit status is 1 if any differs."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the scenarios of all files; return exit status 1 if any failed, 3 without a database."""
    module = "virtualchain.examples.names.conformance"
    return run(SUITE, module, _DESCRIPTION, arguments, status_of_unreadable=1)


if __name__ == "__main__":
    sys.exit(main())
