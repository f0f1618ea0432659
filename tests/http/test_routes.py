"""Two ways lead to an endpoint, and both to the same one."""

from typing import Any

import pytest

from service import capabilities
from service.http.routes import Routes

ENDPOINTS = capabilities.endpoints()
ROUTES = Routes(ENDPOINTS)


def filled(path: str) -> tuple[str, dict[str, str]]:
    """A path with something in each of its braces, and what."""
    parts = {part[1:-1]: f"some-{part[1:-1]}" for part in path.split("/") if part.startswith("{")}
    return path.format(**parts), parts


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.operation)
def test_a_path_leads_to_its_endpoint_or_to_the_router(endpoint: Any) -> None:
    path, parts = filled(endpoint.path)
    found = ROUTES.find(endpoint.method, path)
    unusual = "{" in endpoint.path and (not path.startswith("/v1/") or path.count("/") > 4 or len(parts) > 1)
    assert found == (None if unusual else (endpoint, parts))


def test_what_is_asked_most_does_not_go_by_the_router() -> None:
    asked = ("startExecution", "claimWork", "completeWork", "transition", "appendEvents", "getExecution")
    operations = {one.operation: one for one in ENDPOINTS}
    for operation in asked:
        endpoint = operations[operation]
        assert ROUTES.find(endpoint.method, filled(endpoint.path)[0]) is not None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/executions"), ("HEAD", "/v1/executions"), ("OPTIONS", "/v1/executions"), ("GET", "/v1/nothing"),
        ("GET", "/v1/executions/"), ("POST", "/v1/executions//events"), ("POST", "/v2/executions/a/events"),
        ("POST", "/v1/executions/a/events/"), ("POST", "/v1/executions/a/"), ("POST", "/v1/executions/a/nothing"),
        ("POST", "/v1/executions/a/events/b"), ("GET", "/v1/executions/a/events:none"), ("GET", ""), ("GET", "*"),
        ("POST", "/v1"), ("get", "/v1/executions"),
    ],
)  # fmt: skip
def test_anything_else_is_for_the_router_to_answer(method: str, path: str) -> None:
    assert ROUTES.find(method, path) is None


def test_a_name_that_is_a_path_of_its_own_is_not_taken_for_an_id() -> None:
    found = ROUTES.find("GET", "/v1/tokens/self")
    assert found is not None and (found[0].operation, found[1]) == ("getOwnToken", {})
