"""Rows to test a store with: jobs, whose columns are of every type, and shelves, whose keys are text."""

from collections.abc import Awaitable, Callable
from typing import Any

from backends.protocol import Row, StateBackend, Tx


def job(tenant: str, id: str, *, detail: bytes = b"{}", total: int = 0, done: int = 0, kind: str = "test") -> list[Any]:
    """The columns of a job that nobody runs."""
    return [tenant, id, kind, "completed", detail, total, done, 0, 0, 0]


def adding(*jobs: list[Any]) -> Callable[[Tx], Awaitable[int]]:
    """Work that inserts jobs."""

    async def work(tx: Tx) -> int:
        return await tx.many("insert_jobs", jobs)

    return work


def finding(tenant: str, id: str) -> Callable[[Tx], Awaitable[Row | None]]:
    """Work that reads a job."""

    async def work(tx: Tx) -> Row | None:
        return await tx.one("read_job", tenant_id=tenant, id=id)

    return work


async def exists(store: StateBackend, tenant: str, id: str) -> bool:
    """Whether a job was committed."""
    return await store.read(finding(tenant, id)) is not None


def step(row: list[Any], done: int, *, was: int) -> list[Any]:
    """The columns of `update_jobs`: to `done`, from `was`."""
    return [row[0], row[1], row[3], row[4], row[5], done, 0, 0, was, row[3]]
