"""Who sweeps, told to those who see to it."""

from backends.protocol import StateBackend
from service.kernel.lease import LEASE_MS, Lease
from tests.conftest import serving


def other(backend: StateBackend) -> Lease:
    """Another process's hand on the lease."""
    return Lease(backend, holder="elsewhere/7/0a1b2c3d")


async def test_nobody_sweeps_until_somebody_does(fresh_url: str) -> None:
    async with serving(fresh_url) as service:
        admin = service.client(service.admin)
        assert (await admin.get("/v1/sweeper")).json() == {
            "held": False, "holder": None, "epoch": None, "since": None, "expires_at": None, "now": service.clock.now,
        }  # fmt: skip
        await service.services.lease.keep()
        began = service.clock.now
        service.clock.advance(1)
        shown = (await admin.get("/v1/sweeper")).json()
        sqlite = service.services.backend.name == "sqlite"
        assert shown == {
            "held": True, "holder": service.services.lease.holder, "epoch": 1, "since": began,
            "expires_at": None if sqlite else began + LEASE_MS, "now": began + 1,
        }  # fmt: skip


async def test_every_process_of_a_postgres_tells_of_the_one_that_sweeps(fresh_url: str, engine: str) -> None:
    """On SQLite there is no other."""
    async with serving(fresh_url) as service:
        scheduler = service.client(await service.token("", "scheduler"))
        await other(service.services.backend).keep()
        shown = (await scheduler.get("/v1/sweeper")).json()
        assert shown["holder"] == ("elsewhere/7/0a1b2c3d" if engine == "postgres" else None)
        service.clock.advance(LEASE_MS)
        assert not (await scheduler.get("/v1/sweeper")).json()["held"]
