"""Redriving dead letters: a job that requeues all that match, page by page.

A page is read without locks and then run as a command, which judges each dead letter again under its lock and moves the
job in the same commit. Whoever finds the job due takes its next page; two at once do it once. A page looks at so many
dead letters, whether they match or not, and the job moves past all of them: what a page costs does not depend on how
few match.
"""

from collections.abc import Sequence

import msgspec

from backends.protocol import Row, StateBackend, Tx, Where
from service.kernel import filters
from service.kernel.jobs import Job
from service.kernel.principal import internal
from service.kernel.run import Kernel
from service.work.model import Letter, Redrive, RedrivePage
from service.work.vocabulary import VOCABULARY

PAGE = 200
"""How many dead letters of a page are requeued at most."""
LOOKED_AT = 2_000
"""How many dead letters a page looks at."""


def condition(detail: Redrive) -> Where:
    """Which dead letters a redrive takes, as a predicate; StateError `request/filter` for a filter that cannot be
    used."""
    sql, params = "(1 = 1)", {}
    if detail.filter is not None:
        predicate = filters.compile(detail.filter, VOCABULARY)
        sql, params = predicate.sql, dict(predicate.params)
    for name, value in (("queue", detail.queue), ("error_type", detail.error_type)):
        if value is not None:
            sql, params = f"({sql} AND w.{name} = :w_{name})", {**params, f"w_{name}": value}
    return sql, params


async def count(backend: StateBackend, tenant_id: str, detail: Redrive) -> int:
    """How many dead letters match."""
    where = condition(detail)

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("count_dead_letters", where=where, tenant_id=tenant_id)

    [[found]] = await backend.read(read, tenants=[tenant_id], scan=True)
    return int(found)


async def page(backend: StateBackend, kernel: Kernel, job: Job) -> None:
    """The next page of a job."""
    detail = msgspec.json.decode(job.detail, type=Redrive)
    where, size = condition(detail), min(PAGE, detail.rate_per_second or PAGE)

    async def read(tx: Tx) -> list[Row]:
        return await tx.all(
            "dead_letters_to_redrive", where=where, tenant_id=job.tenant_id, at=detail.at, after=detail.after,
            until=detail.until, limit=LOOKED_AT,
        )  # fmt: skip

    rows = await backend.read(read, tenants=[job.tenant_id], scan=True)
    await kernel.run(internal(job.tenant_id), page_of(job.id, (detail.at, detail.after), rows, size))


def page_of(job_id: str, position: tuple[int, str], rows: Sequence[Row], size: int) -> RedrivePage:
    """The command for the dead letters that follow `position`: (settled_at, id, dedup_key, whether it matches). It
    takes the first `size` that match, and ends at the last that was looked at."""
    letters = [(at, Letter(*row[:3])) for at, row in enumerate(rows, 1) if row[3]][:size]
    looked_at = letters[-1][0] if len(letters) == size else len(rows)
    end = (rows[looked_at - 1][0], rows[looked_at - 1][1]) if looked_at else position
    last = looked_at == len(rows) < LOOKED_AT
    return RedrivePage(job_id, position, tuple(letter for _, letter in letters), end, last)
