"""What operators read."""

import msgspec

from service.kernel.jobs import Job


class ShownJob(msgspec.Struct, frozen=True):
    """A job and how far it is."""

    id: str
    kind: str
    status: str
    detail: msgspec.Raw
    total: int
    done: int
    created_at: int
    updated_at: int


class Sweeping(msgspec.Struct, frozen=True):
    """Which process sweeps (`host/process id/…`), under which epoch of the lease, since when and, on Postgres, until
    when if it does not go on; `held` is false and the rest null when nobody does. `now` is the store's clock."""

    held: bool
    holder: str | None
    epoch: int | None
    since: int | None
    expires_at: int | None
    now: int


class Process(msgspec.Struct, frozen=True):
    """What runs, how many commands wait in it for a transaction and how many requests are parked."""

    version: str
    store: str
    waiting: int
    parked: int


def show(job: Job) -> ShownJob:
    """A job as it is answered."""
    return ShownJob(
        job.id, job.kind, job.status, msgspec.Raw(job.detail), job.total, job.done, job.created_at, job.updated_at
    )
