"""The first token of a store, however many start at once."""

import asyncio

from service.main import running
from service.tokens.bootstrap import first_admin, has_admin
from tests.conftest import settings_for


async def test_of_many_that_start_at_once_one_gets_the_first_token(fresh_url: str) -> None:
    async with running(settings_for(fresh_url)) as services:
        assert not await has_admin(services)
        minted = await asyncio.gather(*(first_admin(services) for _ in range(8)))
        assert sum(text is not None for text in minted) == 1
        assert await has_admin(services)
        assert await first_admin(services) is None
