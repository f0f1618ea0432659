"""A token that has ended is refused by the next request: whatever it asks, whichever process it asks, who hears or not.

No process is told of a revocation and none needs to be: a token's standing is read when it matters. So it holds as
well while the connection that carries wake-ups between processes is cut.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from service.http.contract import examples
from tests.conftest import new_store, with_database
from tests.races.server import http, new_tenant, prepared, serving_process
from tests.security.test_matrix import OPERATIONS, PRIVATE, ROLES, ROW_OF, ROWS, code, path_of

PATIENCE = 20.0
PROCESSES = 3
POOL = 4
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'"
EXAMPLES = examples()

# ── every operation ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
async def ended(service: Any) -> dict[tuple[str, str], httpx.AsyncClient]:
    """For each role a token that was proven and then ended, by hand or by its time."""
    api, found = await service.tenant(), {}
    admin = service.client(service.admin)
    for role in ROLES:
        own = role not in ("admin", "scheduler")
        tenant, manager = (api.tenant, api.http) if own else ("", admin)
        whose = "" if own else "?tenant_id=system"
        for how in ("revoked", "expired"):
            text = await service.token(tenant, role)
            client = found[role, how] = service.client(text)
            assert (await client.get("/v1/tokens/self")).status_code == 200
            path = f"/v1/tokens/{text[6:22]}"
            if how == "revoked":
                answer = await manager.delete(path + whose)
            else:
                answer = await manager.post(f"{path}/rotate{whose}", json={"grace_seconds": 0})
            assert answer.status_code < 300, answer.text
    return found


def body_of(operation: str) -> Any:
    """A body that the operation takes; None where it takes none."""
    example = EXAMPLES.get(operation)
    return None if example is None or OPERATIONS[operation].body is None else example.request


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("operation", PRIVATE)
async def test_no_operation_serves_a_token_that_has_ended(
    operation: str, how: str, ended: dict[tuple[str, str], httpx.AsyncClient]
) -> None:
    body = body_of(operation)
    path = path_of(operation)
    if operation == "storeDefinition":  # what the path says is held against the body before anything is looked up
        path = f"/v1/definitions/{body['workflow_id']}/{body['version']}"
    for role in ROLES:
        answer = await ended[role, how].request(OPERATIONS[operation].method, path, json=body)
        allowed = role in ROWS[ROW_OF[operation]].split()
        assert (answer.status_code, code(answer)) == (401, f"auth/{how}"), f"{role} (allowed: {allowed})"
        assert 'error="invalid_token", error_description="' in answer.headers["www-authenticate"]


# ── three processes on one Postgres ────────────────────────────────────────────────────────────────────────────────


class Doors:
    """Server processes on one database; `cut` takes away the connections on which they hear of one another."""

    def __init__(self, bases: list[str], admin: str, url: str, server: str) -> None:
        self.bases, self.url, self.server = bases, url, server
        self._stack = contextlib.AsyncExitStack()
        self.token, self.admin = admin, self.client(0, admin)

    def client(self, door: int, token: str) -> httpx.AsyncClient:
        """A client of one process."""
        made = http(self.bases[door], token)
        self._stack.push_async_callback(made.aclose)
        return made

    def each(self, token: str) -> list[httpx.AsyncClient]:
        """A client of each process."""
        return [self.client(door, token) for door in range(len(self.bases))]

    async def warm(self) -> None:
        """Until every process has all the connections that it may have: after a cut it could make no other."""
        clients, name = self.each(self.token), self.url.partition("?")[0].rpartition("/")[2]
        db = await asyncpg.connect(with_database(self.server, "postgres"))
        try:
            async with asyncio.timeout(PATIENCE):
                while await db.fetchval(SESSIONS, name) < len(self.bases) * (POOL + 1):  # and one that listens
                    await asyncio.gather(*(client.get("/v1/tenants") for client in clients * 2 * POOL))
        finally:
            await db.close()

    async def cut(self) -> None:
        """Let nobody connect any more, and end every session that listens; those that serve requests stay."""
        name = self.url.partition("?")[0].rpartition("/")[2]
        db = await asyncpg.connect(with_database(self.server, "postgres"))
        try:
            await db.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
            found = await db.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = $1 AND (query ILIKE '%pg_notify%' OR query ILIKE 'listen%')",
                name,
            )
            assert len(found) == len(self.bases), "every process listened, and none does now"
        finally:
            await db.close()

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(scope="module", params=["heard", "cut"])
async def doors(
    request: pytest.FixtureRequest, postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Doors]:
    """Three processes, hearing of one another or not."""
    url, folder = await new_store(postgres_server), tmp_path_factory.mktemp("doors")
    admin = await prepared(url)
    async with contextlib.AsyncExitStack() as stack:
        few = {"postgres_connections_max": POOL}
        servers = [serving_process(url, folder / f"log{n}", **few) for n in range(PROCESSES)]
        bases = [(await stack.enter_async_context(server)).base for server in servers]
        doors = Doors(bases, admin, url, postgres_server)
        stack.push_async_callback(doors.close)
        await doors.warm()
        if request.param == "cut":
            await doors.cut()
        yield doors


REQUESTS: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/tokens/self", None),
    ("GET", "/v1/executions", None),
    ("POST", "/v1/executions", {"workflow_id": "w"}),
    ("POST", "/v1/executions:batch", [{"workflow_id": "w"}]),
    ("POST", "/v1/work-items:claim", {"worker_id": "w", "queues": ["q"]}),
)


async def served(client: httpx.AsyncClient) -> list[str]:
    """What became of one request of each kind: the code of its refusal, or that it was served."""
    answers = [await client.request(method, path, json=body) for method, path, body in REQUESTS]
    return ["served" if answer.status_code < 300 else answer.json()["code"] for answer in answers]


async def test_the_next_request_is_refused_by_every_process(doors: Doors) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    owner = doors.client(0, await new_tenant(doors.admin, tenant))
    for number in range(12):
        body = {"name": "x", "role": "owner"}
        token = (await owner.post("/v1/tokens", json=body)).json()
        clients = doors.each(token["secret"])
        for client in clients:
            assert await served(client) == ["served"] * len(REQUESTS)
        ender = clients[number % PROCESSES] if number % 2 else owner
        path = "/v1/tokens/self" if number % 2 else f"/v1/tokens/{token['token']['id']}"
        assert (await ender.delete(path)).status_code == 200
        for client in clients:
            assert await served(client) == ["auth/revoked"] * len(REQUESTS)


async def test_requests_under_way_at_every_process_are_never_served_after_the_answer(doors: Doors) -> None:
    """Each process is asked without a pause; what is sent after the revocation was answered is refused."""
    owner = doors.client(0, await new_tenant(doors.admin, f"t-{uuid.uuid4().hex[:8]}"))
    token = (await owner.post("/v1/tokens", json={"name": "x", "role": "owner"})).json()
    loop, revoked_at = asyncio.get_running_loop(), asyncio.Event()
    late: list[str] = []
    seen: set[str] = set()

    async def hammer(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
        after = 0
        while after < 10:
            began = revoked_at.is_set()
            answer = await client.request(method, path, json=body)
            seen.add(path if answer.status_code < 300 else answer.json()["code"])
            after += began
            if began and answer.status_code != 401:
                late.append(f"{path}: {answer.status_code}")

    hammers = [
        loop.create_task(hammer(client, *REQUESTS[kind])) for client in doors.each(token["secret"]) for kind in (0, 2)
    ]
    async with asyncio.timeout(PATIENCE):
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        await owner.delete(f"/v1/tokens/{token['token']['id']}")
        revoked_at.set()
        await asyncio.gather(*hammers)
    assert late == []
    assert seen == {"/v1/tokens/self", "/v1/executions", "auth/revoked"}


async def test_what_is_parked_at_every_process_is_sent_away(doors: Doors) -> None:
    owner = doors.client(0, await new_tenant(doors.admin, f"t-{uuid.uuid4().hex[:8]}"))
    run = (await owner.post("/v1/executions", json={"workflow_id": "w"})).json()["execution_id"]
    token = (await owner.post("/v1/tokens", json={"name": "x", "role": "owner"})).json()
    clients = doors.each(token["secret"])
    body = {"worker_id": "w", "queues": ["q"], "wait_ms": 60_000}
    claims = [asyncio.create_task(client.post("/v1/work-items:claim", json=body)) for client in clients]
    begun = [asyncio.Event() for _ in clients]
    tails = [asyncio.create_task(tailed(client, run, flag)) for client, flag in zip(clients, begun, strict=True)]
    async with asyncio.timeout(PATIENCE):
        for flag in begun:
            await flag.wait()
        assert (await owner.delete(f"/v1/tokens/{token['token']['id']}")).status_code == 200
        logged = await owner.post(f"/v1/executions/{run}/events", json={"events": [{"kind": "secret.later"}]})
        item = (await owner.post("/v1/work-items", json={"queue": "q"})).json()["id"]
        assert logged.status_code == 201
        for answer in await asyncio.gather(*claims):
            assert (answer.status_code, answer.json()["code"]) == (401, "auth/revoked")
        for text in await asyncio.gather(*tails):
            assert "event: goodbye" in text and '"code":"auth/revoked"' in text
            assert "secret.later" not in text, "what is logged after the revocation is not told"
    assert (await owner.get(f"/v1/work-items/{item}")).json()["status"] == "ready", "and nothing is leased to it"


async def tailed(client: httpx.AsyncClient, run: str, begun: asyncio.Event) -> str:
    """Everything that a stream says, to its end."""
    said = ""
    async with client.stream("GET", f"/v1/executions/{run}/events:tail") as answer:
        async for part in answer.aiter_text():
            said += part
            if "execution.started" in said:
                begun.set()
    return said


async def test_the_first_use_at_one_process_ends_the_old_token_at_all(doors: Doors) -> None:
    owner = doors.client(0, await new_tenant(doors.admin, f"t-{uuid.uuid4().hex[:8]}"))
    for used_at in range(PROCESSES):
        old = (await owner.post("/v1/tokens", json={"name": "x", "role": "owner"})).json()
        old_clients = doors.each(old["secret"])
        for client in old_clients:
            assert await served(client) == ["served"] * len(REQUESTS)
        new = (await owner.post(f"/v1/tokens/{old['token']['id']}/rotate", json={})).json()
        new_clients = doors.each(new["secret"])
        for client in old_clients:
            assert await served(client) == ["served"] * len(REQUESTS), "the new one was not used"
        assert await served(new_clients[used_at]) == ["served"] * len(REQUESTS)
        for client in old_clients:
            assert await served(client) == ["auth/revoked"] * len(REQUESTS)
        for client in new_clients:
            assert await served(client) == ["served"] * len(REQUESTS)


async def test_a_suspended_tenant_is_written_by_no_process(doors: Doors) -> None:
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    clients = doors.each(await new_tenant(doors.admin, tenant))
    for client in clients:
        assert await served(client) == ["served"] * len(REQUESTS)
    assert (await doors.admin.patch(f"/v1/tenants/{tenant}", json={"status": "suspended"})).status_code == 200
    for client in clients:
        said = await served(client)
        assert said[:3] == ["served", "served", "tenant/suspended"] and said[4] == "tenant/suspended"
