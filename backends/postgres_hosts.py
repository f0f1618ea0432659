"""Which host of a URL that names several: whichever takes writes, asked all at once.

After a failover the standby that was promoted is found, and a host that swallows packets, as a machine without power
does, keeps nobody from the next. Nothing is decided from a replica, so one is refused unless the URL itself says
otherwise (`target_session_attrs`).
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg


async def connect(url: str, **options: Any) -> Any:
    """A connection to the host that takes writes; options and errors are those of asyncpg's own `connect`."""
    if "target_session_attrs=" not in url:
        options["target_session_attrs"] = "read-write"
    tries = [asyncio.ensure_future(asyncpg.connect(one, **options)) for one in hosts(url)]
    found = None
    try:
        pending = set(tries)
        while pending and found is None:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            found = next((one for one in done if one.exception() is None), None)
        return (found or tries[0]).result()
    finally:
        for one in tries:
            if one is not found:
                one.cancel()
                one.add_done_callback(put_away)


def hosts(url: str) -> list[str]:
    """`url` once for each of the hosts between its commas. ValueError for a port that is none."""
    parts = urlsplit(url)
    who, at, names = parts.netloc.rpartition("@")
    found = [parts._replace(netloc=who + at + name) for name in names.split(",")]
    for one in found:
        _ = one.port  # judged as it is asked for
    return [url] if len(found) == 1 else [urlunsplit(one) for one in found]


def put_away(late: "asyncio.Future[Any]") -> None:
    """Close a connection that came after another one."""
    if not late.cancelled() and late.exception() is None:
        late.result().terminate()
