"""Health, version, jobs: for operators and probes."""

import msgspec

from backends.protocol import Row, Tx
from service import __version__
from service.errors import StateError, not_found
from service.http.answer import NO_STORE, Answer
from service.http.endpoint import PUBLIC, Call, Endpoint
from service.kernel.jobs import CancelJob, Job
from service.operations.model import Process, ShownJob, Sweeping, show
from service.operations.rules import reached

METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct, frozen=True):
    """That the process answers."""

    status: str


class Version(msgspec.Struct, frozen=True):
    """What runs here."""

    name: str
    version: str
    store: str


async def healthz(_call: Call) -> Health:
    """The process answers; the store is not asked."""
    return Health("ok")


async def readyz(call: Call) -> Health:
    """The store answers and the server is not draining. Asked while the first token is being printed, it waits for
    that: whoever goes by it finds the token."""
    if call.services.introduced is not None:
        await call.services.introduced.wait()
    if call.services.draining:
        raise StateError("server/draining", "The server is shutting down.", retry_after=1)
    await call.services.backend.ping()
    return Health("ready")


async def version(call: Call) -> Version:
    """Name, version, kind of store."""
    return Version("holdfast", __version__, call.services.backend.name)


async def sweeper(call: Call) -> Sweeping:
    """Which process sweeps, of all that would."""
    now, holding = call.services.backend.now(), await call.services.lease.holding()
    if holding is None:
        return Sweeping(False, None, None, None, None, now)
    return Sweeping(True, holding.holder, holding.epoch, holding.since, holding.expires_at, now)


async def metrics(call: Call) -> Answer:
    """What this process counted."""
    from service.operations import exposition  # it takes a tenth of a start to import what few ask for

    services = call.services
    process = Process(__version__, services.backend.name, services.kernel.waiting, services.wakes.waiting)
    told = exposition.text(services.kernel.metrics, process)
    return Answer(200, told, [(b"content-type", METRICS.encode()), NO_STORE])


async def job(call: Call) -> ShownJob:
    """One job."""

    async def read(tx: Tx) -> Row | None:
        return await tx.one("read_job", tenant_id=call.who.tenant_id, id=call.path["id"])

    row = await call.services.backend.read(read, tenants=call.who.reach)
    if row is None or not reached(call.who, Job(*row)):
        raise not_found("job", call.path["id"])
    return show(Job(*row))


async def cancel(call: Call) -> ShownJob:
    """Stop a job."""
    return await call.run(CancelJob(call.path["id"]))  # type: ignore[no-any-return]


ENDPOINTS = [
    Endpoint("GET", "/healthz", "health", PUBLIC, "Does the process answer?", healthz, reply=Health, writes=False),
    Endpoint(
        "GET",
        "/readyz",
        "ready",
        PUBLIC,
        "Does the store answer?",
        readyz,
        reply=Health,
        writes=False,
        errors=("store/unavailable", "server/draining"),
    ),
    Endpoint("GET", "/version", "version", PUBLIC, "What runs here?", version, reply=Version, writes=False),
    Endpoint(
        "GET", "/v1/sweeper", "getSweeper", "sweep", "Which process sweeps", sweeper, reply=Sweeping, writes=False
    ),
    Endpoint(
        "GET",
        "/metrics",
        "getMetrics",
        "sweep",
        "Numbers of this process, for Prometheus",
        metrics,
        writes=False,
        media=METRICS,
    ),
    Endpoint(
        "GET",
        "/v1/jobs/{id}",
        "getJob",
        "job.read",
        "One job",
        job,
        reply=ShownJob,
        writes=False,
        errors=("not-found",),
    ),
    Endpoint(
        "POST",
        "/v1/jobs/{id}/cancel",
        "cancelJob",
        "job.operate",
        "Stop a job",
        cancel,
        reply=ShownJob,
        errors=("not-found", "job/ended", "job/final"),
    ),
]
