"""The option `run --metrics`: the server of metrics and probes beside a writer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.output import say
from virtualchain.errors import UsageError
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from virtualchain.cli.options import Options
    from virtualchain.engine.measures import Measures

HOST: Final = "127.0.0.1"
"""Where it listens if only a port is named."""


def read_address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    """Read a port, or an address and a port: 9108, 0.0.0.0:9108, [::1]:9108."""
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host.strip("[]")
    is_port = port.isascii() and port.isdigit() and int(port) < 2**16
    if not is_port or (colon and not name) or (":" in host and not is_bracketed):
        raise click.BadParameter(
            f"{value!r} is no port: write 9108, 0.0.0.0:9108 or [::1]:9108", context, parameter
        )
    return name or HOST, int(port)


@contextmanager
def exporting(
    options: "Options", measures: "Measures", address: tuple[str, int] | None, ready_lag: int
) -> Iterator[None]:
    """Answer monitors meanwhile; not without an address. Raises UsageError if that is not possible."""
    if address is None:
        yield
        return
    try:
        from virtualchain.operating.exporter import Exporter
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("virtualchain"):
            raise
        raise UsageError(
            f"--metrics needs {error.name}, which is missing: pip install 'virtualchain[metrics]'"
        ) from error
    exporter = Exporter(measures, options.database, *address, ready_lag=ready_lag)
    with exporter.running():
        say(Notice(f"metrics are at {exporter.url}", "serving", url=exporter.url))
        yield
