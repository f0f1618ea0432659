"""What a worker is handed with its workflow tasks: each run as it stands, and its log after what the worker has.

It is read after the claim, and for all the claims of a turn of the loop together. One answer holds at most
`HISTORY_MAX` events, and no more once these come to `HISTORY_BYTES`; what does not fit is read from
`GET /v1/executions/{id}/events`. A worker that remembers more than there is, or an event that was written at another
time, remembers another log, one from before a store was put back: it gets this one from its beginning.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from backends.protocol import Row, StateBackend, Tx
from service.history.model import ShownEvent, show_event
from service.kernel.together import Together

HISTORY_MAX, HISTORY_BYTES = 10_000, 8_388_608
PAGE_EVENTS = 64
"""How many events are read at a time, whatever their size."""
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
    long logs hold nobody up, and large ones nobody's memory."""
    runs = list(dict.fromkeys(one.mark for answer in asked for one in answer))
    tenants = sorted({tenant for tenant, *_ in runs})

    async def begin(tx: Tx) -> tuple[dict[Key, Row], Reading]:
        found = await tx.all("read_task_heads", rows=runs)
        heads = {(row[0], row[1]): row[4:] for row in found}
        marks = {(row[0], row[1], row[2]): row[3] for row in found}
        reading = Reading([spans_of(answer, heads, marks) for answer in asked])
        await reading.go_on(tx)
        return heads, reading

    heads, reading = await backend.read(begin, tenants=tenants)
    while reading.page:
        await asyncio.sleep(0)
        await backend.read(reading.go_on, tenants=tenants)
    return [
        [History(heads.get(span[:2]), span.seen, reading.logs[span]) for span in answer] for answer in reading.answers
    ]


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


class Reading:
    """The events that some answers ask for, read a page at a time until each answer has all of them, or as many bytes
    as it may. `page` is what comes next."""

    def __init__(self, answers: list[list[Span]]) -> None:
        self.answers = answers
        self.logs: dict[Span, list[ShownEvent]] = {span: [] for answer in answers for span in answer}
        self._room = [HISTORY_BYTES] * len(answers)
        self._asking: dict[Span, list[int]] = {span: [] for span in self.logs}
        for place, answer in enumerate(answers):
            for span in answer:
                self._asking[span].append(place)
        self._pages = self._cut()
        self.page: dict[Key, tuple[Span, Span]] = next(self._pages, {})

    async def go_on(self, tx: Tx) -> None:
        """Read the page."""
        found: dict[Key, list[Row]] = {key: [] for key in self.page}
        if self.page:
            for row in await tx.all("read_task_events", rows=[part for _, part in self.page.values()]):
                found[row[0], row[1]].append(row[2:])
        for key, (span, _) in self.page.items():
            self.logs[span] += [show_event(row) for row in self._that_fit(span, found[key])]
        self.page = next(self._pages, {})

    def _that_fit(self, span: Span, rows: Sequence[Row]) -> Iterator[Row]:
        """The rows up to the one that fills the last of the answers that ask for them."""
        asking = self._asking[span]
        room = max(self._room[place] for place in asking)
        for row in rows:
            if room <= 0:
                return
            yield row
            size = sum(len(value) for value in row if type(value) is bytes)
            room -= size
            for place in asking:
                self._room[place] -= size

    def _cut(self) -> Iterator[dict[Key, tuple[Span, Span]]]:
        """Pages of parts of the spans, each run once in a page, as long as an answer has room for them."""
        page: dict[Key, tuple[Span, Span]] = {}
        size = 0
        for span in self.logs:
            at = span.seen
            while at < span.until and any(self._room[place] > 0 for place in self._asking[span]):
                if size >= PAGE_EVENTS or span[:2] in page:
                    yield page
                    page, size = {}, 0
                    continue
                part = Span(*span[:2], at, min(span.until, at + PAGE_EVENTS - size))
                page[span[:2]] = span, part
                size += part.until - at
                at = part.until
        if page:
            yield page
