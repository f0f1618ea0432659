"""The whole service inside this process, called as a server would call it: for what is counted, not timed."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from bench.seam import CountedBackend, Tally
from bench.server import TENANT
from service.kernel import run
from service.main import application, compose, open_store
from service.settings import Settings
from service.tokens import uses
from service.tokens.bootstrap import bootstrap
from service.work import throughput

NOW = 1_800_000_000_000
"""The clock starts here and moves a millisecond each time it is read: ids stay in order, and what is remembered for a
while is still remembered at the end."""


class Inside:
    """A running service, its engine, a token of its one tenant, and the tally of its store."""

    def __init__(self, app: Any, engine: str, token: str, tally: Tally) -> None:
        self._app, self.engine, self.tally = app, engine, tally
        self._headers = [
            (b"host", b"bench"),
            (b"authorization", f"Bearer {token}".encode()),
            (b"content-type", b"application/json"),
        ]

    async def post(self, path: str, body: object) -> Any:
        """The JSON of the answer to one request, which must succeed."""
        raw, sent = msgspec.json.encode(body), []
        messages = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("bench", 80),
            "headers": [*self._headers, (b"content-length", str(len(raw)).encode())],
        }  # fmt: skip
        await self._app(scope, receive, send)
        answer = b"".join(message.get("body", b"") for message in sent)
        if sent[0]["status"] >= 300:
            raise RuntimeError(f"POST {path}: {sent[0]['status']} {answer[:500]!r}")
        return msgspec.json.decode(answer)


@contextlib.asynccontextmanager
async def inside(url: str) -> AsyncIterator[Inside]:
    """The service over the empty store at `url`, at default settings but for cheap hashing and no sweeps."""
    uses.FLUSH_SECONDS = throughput.FLUSH_SECONDS = 3_600.0  # nothing is written behind a count's back
    run.LONG = 3_600.0  # seconds: a busy machine splits no batch
    settings = Settings(database_url=url, argon2_memory_kib=8, argon2_time=1, sweep=False)
    backend, tally = await open_store(settings, itertools.count(NOW).__next__), Tally()
    try:
        await backend.migrate()
        counted: Any = CountedBackend(backend, tally)
        services = await compose(settings, counted)
        token = await bootstrap(services, tenant_id=TENANT, role="owner", name="bench")
        try:
            yield Inside(application(services), backend.name, token, tally)
        finally:
            await services.kernel.close()
            services.tokens.verifier.close()
    finally:
        await backend.close()
