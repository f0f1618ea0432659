"""One side of the walk: a service over one engine, spoken to over HTTP, its ids and rows made comparable.

Ids that a server makes differ from side to side. The first time one is answered it gets a placeholder (`@1`, `@2`, …),
the same on both sides because both answer alike; requests name it by the placeholder.
"""

import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec

from backends.sqlite_file import open_to_read
from tests.conftest import Service
from tests.sqlite import named

MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
PLACEHOLDER = re.compile(r"@\d+")
TENANT = "walk"
TABLES = (
    "alarms", "audit", "definitions", "events", "executions", "facets", "idempotency_keys", "namespaces", "queues",
    "runs", "schedule_runs", "schedules", "shelves", "signals", "snapshots", "states", "steps", "tallies",
    "tally_changes", "work_items", "workflows",
)  # fmt: skip
UNLIKE = frozenset({"position", "commit_id", "hash", "digest", "settle_digest", "fingerprint"})
"""Columns that differ by nature: the feed's position, and digests of texts that hold server-made ids."""


class Ask(msgspec.Struct):
    """A request of the walk, as both sides get it: `op` is what it is counted as, and so are its `parts`; `system` asks
    as administrator."""

    op: str
    method: str
    path: str
    body: Any = None
    key: str | None = None
    system: bool = False
    parts: tuple[str, ...] = ()


class Told(msgspec.Struct):
    """An answer, made comparable."""

    status: int
    replayed: bool
    body: Any


def difference(left: Any, right: Any, at: str = "") -> str:
    """Where two answers, or two tables of rows, first differ."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        unlike = [(left[key], right[key], f"{at}/{key}") for key in left if left[key] != right[key]]
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        unlike = [(a, b, f"{at}/{n}") for n, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    else:
        if isinstance(left, list) and isinstance(right, list):
            left, right = ([one for one in a if one not in b] for a, b in ((left, right), (right, left)))
        return f"at {at or '/'}\n  sqlite:   {left}\n  postgres: {right}"
    return difference(*unlike[0]) if unlike else "nowhere"


class Side:
    """A service, its owner's client, and the names of what it made."""

    def __init__(self, service: Service, url: str, owner: str) -> None:
        self.service, self.url = service, url
        self.http, self.admin = service.client(owner), service.client(service.admin)
        self._names: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._actors: dict[str, str] = {}

    async def meet(self) -> None:
        """Learn the ids of the two tokens, which the log names as actors; make the namespace that is walked into."""
        await self.http.post("/v1/namespaces", json={"name": "ns"})
        for name, http in (("@owner", self.http), ("@admin", self.admin)):
            self._actors[(await http.get("/v1/tokens/self")).json()["id"]] = name

    async def send(self, ask: Ask) -> Told:
        """Send a request; its answer with placeholders."""
        http = self.admin if ask.system else self.http
        content = None if ask.body is None else self.named(json.dumps(ask.body))
        headers = {"content-type": "application/json"} if content is not None else {}
        if ask.key is not None:
            headers["idempotency-key"] = ask.key
        answer = await http.request(ask.method, self.named(ask.path), content=content, headers=headers)
        return self.told(answer)

    def told(self, answer: httpx.Response) -> Told:
        """An answer with placeholders; of a cursor only whether there is one."""
        body = json.loads(self.placed(answer.text, learn=True)) if answer.text else None
        if isinstance(body, dict) and "next_cursor" in body:
            body["next_cursor"] = body["next_cursor"] is not None
        return Told(answer.status_code, "idempotent-replayed" in answer.headers, body)

    def named(self, text: str) -> str:
        """A text with this side's own ids for the placeholders."""
        return PLACEHOLDER.sub(lambda found: self._made.get(found[0], found[0]), text)

    def placed(self, text: str, *, learn: bool = False) -> str:
        """A text with placeholders for this side's own ids; only an answer may bring new ones."""

        def place(found: re.Match[str]) -> str:
            if found[0] not in self._names and learn:
                name = f"@{len(self._made) + 1}"
                self._names[found[0]], self._made[name] = name, found[0]
            return self._names.get(found[0], "@unknown")

        text = MADE.sub(place, text)
        for own, name in self._actors.items():
            text = text.replace(own, name)
        return text

    async def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of the tenant, by plain SQL, made comparable and put in order.

        Ids that no answer has told yet are named in the order of their age, which is the same on both sides.
        """
        found = await self._select()
        values = (row[name] for rows in found.values() for row in rows for name in row.keys() - UNLIKE)
        for made in sorted({made for value in values for made in MADE.findall(self._text(value))}):
            self.placed(made, learn=True)
        return {table: sorted((self._comparable(row) for row in rows), key=repr) for table, rows in found.items()}

    async def _select(self) -> dict[str, list[dict[str, Any]]]:
        texts = {table: f"SELECT * FROM {table} WHERE tenant_id = '{TENANT}'" for table in TABLES}
        if not self.url.startswith("sqlite"):
            db = await asyncpg.connect(self.url)
            try:
                return {table: [dict(row) for row in await db.fetch(text)] for table, text in texts.items()}
            finally:
                await db.close()
        reader = open_to_read(Path(self.url.removeprefix("sqlite:///")))
        reader.row_trace = named
        try:
            return {table: reader.execute(text).fetchall() for table, text in texts.items()}
        finally:
            reader.close()

    def _comparable(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(value) for name, value in sorted(row.items()) if name not in UNLIKE}

    def _value(self, value: Any) -> Any:
        return self.placed(self._text(value)) if isinstance(value, str | bytes) else value

    @staticmethod
    def _text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else ""
