"""Clients that can be told to stop while their server goes on."""

from typing import Any

import httpx

from tests.faults.ledger import Gone, Ledger


class Restful(Ledger):
    """A ledger that, once `resting`, sends nothing more; its clients end as if the server had gone."""

    resting = False

    async def send(self, http: httpx.AsyncClient, method: str, path: str, body: Any, key: str | None = None) -> Any:
        """Send a change while there is to be load."""
        if self.resting:
            raise Gone
        return await super().send(http, method, path, body, key)
