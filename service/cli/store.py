"""`holdfast migrate`, `holdfast init`, `holdfast backup`: what is done to a store with the store in hand."""

import asyncio
from pathlib import Path
from urllib.parse import quote

from service.cli.ended import through_the_door
from service.cli.options import StoreFlags, settings
from service.cli.refused import Refused
from service.settings import Settings


def migrate(*, flags: StoreFlags = None) -> None:
    """Bring the schema of the store up to date."""
    count = asyncio.run(applied(settings(flags).settings))
    print("The schema is up to date." if not count else f"Applied {count} migration{'s' if count > 1 else ''}.")


async def applied(found: Settings) -> int:
    """Migrate; how many migrations that took."""
    from service.main import open_store

    backend = await open_store(found)
    try:
        return await backend.migrate()
    finally:
        await backend.close()


def init(*, flags: StoreFlags = None) -> None:
    """Bring the schema up to date and mint the system admin token, without serving."""
    found = settings(flags).settings
    if not asyncio.run(initialised(found)):
        print("The store has had a system admin token before; `holdfast token bootstrap` mints another.")


async def initialised(found: Settings) -> bool:
    """Migrate and bootstrap; False when there was an administrator already."""
    import msgspec

    from service.cli.first_token import introduce
    from service.main import running

    async with running(msgspec.structs.replace(found, sweep=False)) as services:
        return await introduce(services, found)


def missing(found: Settings) -> str | None:
    """That there is no SQLite file yet: opening it would make one."""
    from backends import sqlite_path

    if not found.database_url.startswith("sqlite:///"):
        return None
    path = sqlite_path(found.database_url)
    if path.exists() or path.with_name(path.name + "-wal").exists():  # what a WAL alone means is said by who opens it
        return None
    return f"there is no file {path}; `holdfast init` makes one"


def refuse_missing(found: Settings) -> None:
    """See to it that a command that needs a store makes none."""
    if (nothing := missing(found)) is not None:
        raise Refused(nothing)


def backup(file: Path, /, *, flags: StoreFlags = None) -> None:
    """Copy a SQLite store as of now into a new file, whether it is served or not, and check every page of the copy.

    Parameters
    ----------
    file
        Where the copy goes; nothing may be there yet. To restore it, see docs/backup.md.
    """
    from service.main import copy_store

    found = settings(flags).settings
    if not found.database_url.startswith("sqlite:"):
        raise Refused("backup copies SQLite stores; use pg_dump or pg_basebackup for Postgres", 2)
    with through_the_door():
        size = copy_store(found, file)
    url = f"sqlite:///{quote(str(file))}"
    print(f"Copied {size:,} bytes to {file}; `holdfast doctor --database-url {url}` examines the copy.")
