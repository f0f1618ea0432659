"""The body of a request: whole, in time, not too large, and JSON by its own word.

Nearly always it is there already. Where it is not, the reader is stepped once by hand, and only if it has to wait is it
awaited under a timeout: no clock is set for nothing.
"""

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from types import coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from service.errors import StateError
from service.http.exchange import Exchange

T = TypeVar("T")
JSON_PATCH = b"application/json-patch+json"
"""A patch that is JSON and another than ours: taken for one of ours it would put its operations in place of a state."""


async def read_body(
    headers: Mapping[bytes, bytes], receive: Receive, settings: Any, *, expects: bool, exchange: Exchange | None = None
) -> bytes:
    """The whole body; 400, 408, 413 or 415 when it cannot be had. Where none is expected an empty object is none."""
    most, said = settings.body_bytes_max, length(headers)
    if said is not None and said > most:
        raise too_large(most)
    body = None if exchange is None else exchange.whole()
    if body is None:
        body = await within(gather(receive, most), settings.body_seconds_max)
    elif len(body) > most:
        raise too_large(most)
    if said is not None and said != len(body):
        raise StateError("request/malformed", f"Content-Length says {said} bytes; the body has {len(body)}.")
    if body and expects:
        check_media(headers)
    elif body.strip() not in (b"", b"{}"):
        raise StateError("request/malformed", "This operation takes no body, and would do nothing with it; send none.")
    return body


def length(headers: Mapping[bytes, bytes]) -> int | None:
    """What Content-Length says; 400 for one that is not a length."""
    said = headers.get(b"content-length")
    if said is None:
        return None
    if not said.isdigit() or len(said) > 18:
        raise StateError("request/malformed", "Content-Length is not a number of bytes.")
    return int(said)


async def gather(receive: Receive, most: int) -> bytes:
    """The body's parts, counted as they come."""
    message: Any = await receive()
    body = message.get("body", b"")
    if not message.get("more_body") and message["type"] == "http.request" and len(body) <= most:
        return bytes(body)
    parts, size = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body") and size <= most:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] == "http.disconnect":
        raise StateError("request/malformed", "The connection was closed before the body was complete.")
    if size > most:
        raise too_large(most)
    return b"".join(parts)


def too_large(most: int) -> StateError:
    """413, with the limit."""
    return StateError("request/too-large", f"A body may have {most} bytes; send less, or in parts.", limit=most)


def check_media(headers: Mapping[bytes, bytes]) -> None:
    """The body must say that it is JSON, and must not be compressed."""
    media = headers.get(b"content-type", b"")
    if media != b"application/json":
        media = media.split(b";")[0].strip().lower()
        if media == JSON_PATCH:
            said = (
                "A JSON Patch (RFC 6902) is not taken; send a merge patch (RFC 7396), as application/merge-patch+json."
            )
            raise StateError("request/media-type", said)
        if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
            said = media.decode("latin-1") or "nothing"
            raise StateError("request/media-type", f"The body must be application/json; {said} was said.")
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise StateError("request/media-type", "The body must not be compressed.")


async def within(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What `work` returns; 408 when it takes longer. Costs a clock only if `work` has to wait."""
    try:
        waited = work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    try:
        async with asyncio.timeout(seconds):
            return await resumed(work, waited)
    except TimeoutError:
        raise StateError("request/timeout", f"The body did not come within {seconds} seconds.") from None


@coroutine
def resumed(work: Coroutine[Any, Any, T], waited: Any) -> Generator[Any, Any, T]:
    """`work` from its first wait on: what it waits for goes out to the loop, what comes back goes in."""
    while True:
        try:
            try:
                sent = yield waited
            except BaseException as thrown:
                waited = work.throw(thrown)
            else:
                waited = work.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
