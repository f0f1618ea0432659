"""What a probe may rely on, without a token."""

from pathlib import Path

import pytest

from service import __version__
from tests.conftest import Api, Service
from tests.races.server import Server


@pytest.mark.parametrize(("path", "said"), [("/healthz", "ok"), ("/readyz", "ready")])
async def test_a_probe_needs_no_token(service: Service, path: str, said: str) -> None:
    answer = await service.client(None).get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": said})


class Introduced(Server):
    """A server that notes, once it has been introduced, whether `/readyz` had said yes before."""

    program = """
import asyncio, sys, msgspec
from service.main import run
from service.settings import Settings

async def asked(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %s HTTP/1.1\\r\\nhost: h\\r\\nconnection: close\\r\\n\\r\\n" % path)
    await reader.read()
    writer.close()

async def ready(services, port):
    probe = asyncio.ensure_future(asked(port, b"/readyz"))
    for _ in range(50):
        await asked(port, b"/healthz")
    print("ready before it was introduced" if probe.done() else "introduced first", file=sys.stderr, flush=True)
    print(port, flush=True)

run(msgspec.json.decode(sys.argv[1], type=Settings), ready)
"""


async def test_a_server_is_ready_once_its_first_token_is_printed_and_not_before(fresh_url: str, tmp_path: Path) -> None:
    server = Introduced(fresh_url, tmp_path / "server.log")
    try:
        await server.start()
        assert "introduced first" in server.log.read_text()
    finally:
        assert await server.terminate() == 0


async def test_the_version_names_the_kind_of_store_and_nothing_else_of_it(service: Service, engine: str) -> None:
    answer = await service.client(None).get("/version")
    assert answer.json() == {"name": "holdfast", "version": __version__, "store": engine}


async def test_the_audit_log_tells_of_changes_in_the_order_in_which_they_were_made(api: Api) -> None:
    for name in ("first", "second"):
        await api.ok("POST", "/v1/tokens", json={"name": name, "role": "viewer"})
    lines = (await api.ok("GET", "/v1/audit"))["items"]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["detail"]["name"] for line in lines if line["action"] == "token.minted"][-2:] == ["first", "second"]


async def test_another_tenants_job_is_not_there(api: Api, other: Api) -> None:
    await api.refused("GET", "/v1/jobs/none", "not-found")
    assert (await other.http.get("/v1/jobs/none")).status_code == 404
