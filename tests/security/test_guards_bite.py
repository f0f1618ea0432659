"""The matrices of roles and tenants cover every operation: one that is added, and told to nobody, makes them fail."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service import capabilities
from service.http.endpoint import LIMIT, Call, Endpoint
from service.kernel.principal import PERMITS

HERE = Path(__file__).parent
REAL = capabilities.endpoints


async def handle(_call: Call) -> Any:
    """Never called."""


NEW = Endpoint("GET", "/v1/novelties/{id}", "getNovelty", next(iter(PERMITS)), "New", handle, reply=dict[str, Any])
LISTED = Endpoint("GET", "/v1/novelties", "listNovelties", next(iter(PERMITS)), "All", handle, query=(LIMIT,))


def reread(name: str, monkeypatch: pytest.MonkeyPatch, *more: Endpoint) -> ModuleType:
    """The tests of a file as they are when the service has these operations too."""
    monkeypatch.setattr(capabilities, "endpoints", lambda: [*REAL(), *more])
    spec = importlib.util.spec_from_file_location(f"reread_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


GUARDS = {
    "an operation without a role": ("test_matrix", "test_every_operation_has_a_row_and_every_row_an_operation", NEW),
    "an object": ("test_other_tenants", "test_every_operation_that_names_an_object_is_tried", NEW),
    "a list": ("test_other_tenants", "test_every_list_is_tried", LISTED),
}


@pytest.mark.parametrize("kind", GUARDS)
def test_a_new_route_that_nobody_spoke_of_fails(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, test, added = GUARDS[kind]
    getattr(reread(file, monkeypatch), test)()
    with pytest.raises(AssertionError):
        getattr(reread(file, monkeypatch, added), test)()


def test_a_new_route_is_fuzzed_and_searched_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """These read the list of operations themselves."""
    assert NEW in reread("test_leaks", monkeypatch, NEW).ENDPOINTS
    names = {endpoint.operation for endpoint in REAL()}
    from tests.security import test_openapi_fuzz

    assert set(test_openapi_fuzz.OPERATIONS) == names
