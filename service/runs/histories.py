"""What a worker is handed with its workflow tasks: each run as it stands, and its log after what the worker has.

It is read after the claim, and for all the claims of a turn of the loop together. One answer holds at most
`HISTORY_MAX` events; what does not fit is read from `GET /v1/executions/{id}/events`. A worker that remembers more than
there is, or an event that was written at another time, remembers another log, one from before a store was put back: it
gets this one from its beginning.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from backends.protocol import Row, StateBackend, Tx
from service.history.model import ShownEvent, show_event
from service.kernel.together import Together

HISTORY_MAX = 10_000
LANES, AT_ONCE = 4, 256
NAME = "histories"
SEQUENCE = 4
"""Where a head has the end of its log."""
Key = tuple[str, str]
Mark = tuple[str, str, int]
"""An event: tenant, execution, sequence."""


class Asked(NamedTuple):
    """A run, how far the worker says that it has its log, and when it says that the last event of that was written."""

    tenant_id: str
    execution_id: str
    after: int
    at: int | None = None

    @property
    def mark(self) -> Mark:
        """The event that the worker had better have seen; the sequence 0, which none has, if it does not say."""
        return self.tenant_id, self.execution_id, 0 if self.at is None else self.after


class Span(NamedTuple):
    """A part of a log: the events after `seen`, up to `until`; there are no gaps."""

    tenant_id: str
    execution_id: str
    seen: int
    until: int


class History(NamedTuple):
    """A run's row, as `read_task_heads` gives it after tenant and id, None if it went away; and the part of its log
    that comes after the sequence `after`."""

    head: Row | None
    after: int
    events: Sequence[ShownEvent]


async def histories(services: Any, asked: Sequence[Asked]) -> list[History]:
    """What one answer may hold of the runs that are asked for, in their order."""
    together: Together[Sequence[Asked], list[History]] | None = services.extra.get(NAME)
    if together is None:
        together = services.extra[NAME] = Together(partial(read, services.backend), lanes=LANES, batch=AT_ONCE)
    return await together.ask(asked) if asked else []


async def read(backend: StateBackend, asked: Sequence[Sequence[Asked]]) -> list[list[History]]:
    """The histories of many answers: all runs and the first page of events at once; further pages one by one, so that
    long logs hold nobody up."""
    runs = list(dict.fromkeys(one.mark for answer in asked for one in answer))
    tenants = sorted({tenant for tenant, *_ in runs})

    async def begin(tx: Tx) -> tuple[dict[Key, Row], list[list[Span]], list[list[Span]], dict[Span, list[ShownEvent]]]:
        found = await tx.all("read_task_heads", rows=runs)
        heads = {(row[0], row[1]): row[4:] for row in found}
        marks = {(row[0], row[1], row[2]): row[3] for row in found}
        spans = [spans_of(answer, heads, marks) for answer in asked]
        first, *rest = [*pages(spans)] or [[]]
        return heads, spans, rest, await events(tx, first)

    heads, spans, rest, logs = await backend.read(begin, tenants=tenants)
    for page in rest:
        await asyncio.sleep(0)
        logs |= await backend.read(partial(events, page=page), tenants=tenants)
    return [[History(heads.get(span[:2]), span.seen, logs.get(span, ())) for span in answer] for answer in spans]


def spans_of(asked: Sequence[Asked], heads: Mapping[Key, Row], marks: Mapping[Mark, int | None]) -> list[Span]:
    """What each run's part of one answer is: all that the worker has not, as long as there is room; of a log that ends
    before what the worker says to have, or has another event there, all. `marks` says when events were written."""
    room, found = HISTORY_MAX, []
    for one in asked:
        head = heads.get((one.tenant_id, one.execution_id))
        end = 0 if head is None else head[SEQUENCE]
        known = one.after <= end and (one.at is None or one.at == marks.get(one.mark))
        seen = one.after if known else 0
        size = min(end - seen, room)
        found.append(Span(one.tenant_id, one.execution_id, seen, seen + size))
        room -= size
    return found


def pages(spans: Iterable[Iterable[Span]]) -> Iterator[list[Span]]:
    """The spans that are not empty, in pages of about `HISTORY_MAX` events, each run once in a page."""
    page: dict[Key, Span] = {}
    size = 0
    for span in dict.fromkeys(span for answer in spans for span in answer):
        if span.until == span.seen:
            continue
        if size >= HISTORY_MAX or span[:2] in page:
            yield list(page.values())
            page, size = {}, 0
        page[span[:2]] = span
        size += span.until - span.seen
    if page:
        yield list(page.values())


async def events(tx: Tx, page: Sequence[Span]) -> dict[Span, list[ShownEvent]]:
    """The events of a page, each run once in it."""
    found: dict[Key, list[ShownEvent]] = {span[:2]: [] for span in page}
    if page:
        for row in await tx.all("read_task_events", rows=page):
            found[row[0], row[1]].append(show_event(row[2:]))
    return {span: found[span[:2]] for span in page}
