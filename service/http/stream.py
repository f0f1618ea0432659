"""Answers of any length, sent as they are made."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import structlog
from litestar.types import Receive, Scope, Send

from backends.errors import StoreError
from service.errors import StateError
from service.http.answer import NO_STORE, NOSNIFF, Header
from service.kernel import request_id

log = structlog.get_logger()
NDJSON = "application/x-ndjson"
LINES: tuple[Header, ...] = ((b"content-type", NDJSON.encode()), NO_STORE)


class Stream:
    """An ASGI application that sends parts as they come.

    Once the first is on its way there is no other status to give: what cannot be made to its end is cut off, the
    connection with it, so that no part passes for the whole. Once the caller has hung up nothing more is made.
    """

    def __init__(self, parts: AsyncIterator[bytes], headers: Sequence[Header] = LINES) -> None:
        self.parts, self.headers = parts, headers

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.headers, NOSNIFF, (request_id.HEADER, request_id.current())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            async for part in self.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0)  # neither making nor sending need ever wait: others have their turn
                if gone.done():
                    return
        except (StateError, StoreError) as error:
            log.warning("an answer was cut off", error=str(error))
            return
        finally:
            gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def nothing() -> AsyncIterator[bytes]:
    """The parts of a stream of which only the head is asked for."""
    return
    yield


async def hung_up(receive: Receive) -> None:
    """Return once the caller is no longer there."""
    while (await receive())["type"] != "http.disconnect":
        pass
