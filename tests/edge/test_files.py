"""A server that may not open as many files as it would has fewer connections, and refuses where it would fail."""

import errno
import resource

import pytest

from service.main import OWN_FILES, with_files
from service.settings import Settings
from tests.conftest import Api

OWN = OWN_FILES + Settings().postgres_connections_max


@pytest.mark.parametrize(
    ("files", "connections"), [(10_000 + OWN, 10_000), (resource.RLIM_INFINITY, 10_000), (1_024, 1_024 - OWN), (60, 15)]
)
def test_there_are_as_many_connections_as_leave_files_for_the_rest(
    files: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, files))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert with_files(Settings()).connections_max == connections
    able = 10_000 + OWN if files == resource.RLIM_INFINITY else files
    assert asked == [(able, files)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_where_no_file_can_be_opened_the_caller_is_told_to_come_back(
    api: Api, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, "Too many open files")

    await api.start()
    await api.start()
    monkeypatch.setattr(api.service.services.cursors, "seal", fails)
    problem = await api.refused("GET", "/v1/executions?limit=1", "server/busy")
    assert (problem["status"], problem["retry_after"]) == (503, 1)
