"""The commands of the embedded server: db start, stop, status, url; and those of roles that read."""

import click

from virtualchain.cli.options import Given, Group, pass_given
from virtualchain.cli.output import write_fields, write_json
from virtualchain.cli.readers import grant_reader, revoke_reader


@click.group(cls=Group)
def db() -> None:
    """Manage the embedded PostgreSQL server, and who may read the database.

    The server is the database where no --database is given. It starts when a command needs it, and outlives
    the command; psql and other clients reach it through its URL. Readers are granted in any database.
    """


@db.command()
@pass_given
def start(given: Given) -> None:
    """Start the server; the first time, make its data folder."""
    from virtualchain.store.embedded.server import EmbeddedServer

    EmbeddedServer().start()
    _write_status(given)


@db.command()
@pass_given
def stop(given: Given) -> None:
    """Stop the server, ending its connections."""
    from virtualchain.store.embedded.server import EmbeddedServer

    EmbeddedServer().stop()
    _write_status(given)


@db.command()
@pass_given
def status(given: Given) -> None:
    """Show whether the server runs, and where."""
    _write_status(given)


@db.command()
@click.argument("name", default="virtualchain")
@pass_given
def url(given: Given, name: str) -> None:
    """Print the server's URL, password included; start it where it does not run.

    NAME is the database that the URL leads to: virtualchain, unless another is named.
    """
    from virtualchain.store.embedded.server import EmbeddedServer

    server = EmbeddedServer()
    server.start()
    found = server.url_for(name)
    if given.settings.json:
        write_json({"url": found})
    else:
        click.echo(found)


def _write_status(given: Given) -> None:
    from virtualchain.store.embedded.server import EmbeddedServer

    found = EmbeddedServer().status()
    address = found.address
    if given.settings.json:
        write_json(
            {
                "running": found.running,
                "host": None if address is None else "127.0.0.1",
                "port": None if address is None else address.port,
                "folder": str(found.folder),
                "log": str(found.log),
            }
        )
        return
    write_fields(
        f"embedded server: {'running' if found.running else 'not running'}",
        {
            "address": None if address is None else f"127.0.0.1:{address.port}",
            "folder": found.folder,
            "log": found.log,
        },
    )


db.add_command(grant_reader)
db.add_command(revoke_reader)
