"""What a probe may rely on, without a token."""

import pytest

from service import __version__
from tests.conftest import Api, Service


@pytest.mark.parametrize(("path", "said"), [("/healthz", "ok"), ("/readyz", "ready")])
async def test_a_probe_needs_no_token(service: Service, path: str, said: str) -> None:
    answer = await service.client(None).get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": said})


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
