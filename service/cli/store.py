"""`holdfast migrate` and `holdfast init`: what is done to a store without serving it."""

import asyncio

from service.cli.options import Flags, settings
from service.settings import Settings


def migrate(*, flags: Flags = None) -> None:
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


def init(*, flags: Flags = None) -> None:
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
