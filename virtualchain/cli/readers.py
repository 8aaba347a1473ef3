"""The commands that make and unmake roles which only read: db grant-reader, db revoke-reader."""

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import click

from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_fields, write_json
from virtualchain.cli.read import chosen_apps, open_reading

if TYPE_CHECKING:
    from virtualchain.store.roles import Reader


@click.command(cls=Command)
@click.argument("role")
@click.option("--login", is_flag=True, help="Let it log in, with a new password, which is printed once.")
@pass_given
def grant_reader(given: Given, role: str, login: bool) -> None:
    """Make ROLE a reader: of the views of all apps, or of those named by --app, and of nothing else.

    A role that is not there is made. Apps that are named later add up; apps that are installed later, and
    new builds, are granted by themselves. What PostgreSQL leaves to everybody is taken away as far as that
    is ours; what remains is told.
    """
    from virtualchain.store.database import connect_migrator, resolve
    from virtualchain.store.migrate import migrate
    from virtualchain.store.roles import grant_reader as grant

    url = resolve(given.settings.database)
    migrate(url)
    with open_reading(given) as connection:
        apps = chosen_apps(given, connection)
    _harden_embedded(given)
    with connect_migrator(url) as connection:
        reader = grant(connection, role, apps, login=login)
    shown = _url_of(url, reader)
    if given.settings.json:
        told = {"role": role, "apps": apps, "login": reader.logs_in, "url": shown}
        write_json({**told, "remains": list(reader.remains)})
        return
    write_fields(
        f"{role} reads the views of {', '.join(apps) if apps else 'all apps'}",
        {
            "logs in": "yes" if reader.logs_in else "no: --login lets it, or GRANT it to a role that does",
            **({} if shown is None else {"url": shown}),
            "may besides": "; ".join(reader.remains),
        },
    )


@click.command(cls=Command)
@click.argument("role")
@pass_given
def revoke_reader(given: Given, role: str) -> None:
    """Take from ROLE what grant-reader gave it; the role itself stays."""
    from virtualchain.store.database import connect_migrator, resolve
    from virtualchain.store.roles import revoke_reader as revoke

    url = resolve(given.settings.database)
    with open_reading(given), connect_migrator(url) as connection:
        revoke(connection, role)
    if given.settings.json:
        write_json({"role": role})
    else:
        click.echo(f"{role} reads nothing here any more; DROP ROLE removes it")


def _harden_embedded(given: Given) -> None:
    """On our own server, take from everybody what only its superuser can take."""
    from virtualchain.store.embedded.server import DATABASE, EmbeddedServer
    from virtualchain.store.roles import harden

    if given.settings.database is None:
        with EmbeddedServer().connect_superuser(DATABASE) as connection, connection.transaction():
            harden(connection)


def _url_of(url: str, reader: "Reader") -> str | None:
    """Give the URL by which a new reader logs in."""
    from psycopg.conninfo import make_conninfo

    if reader.password is None:
        return None
    if not url.startswith(("postgresql://", "postgres://")):
        return make_conninfo(url, user=reader.role, password=reader.password)
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(reader.role, safe='')}:{reader.password}@{place}").geturl()
