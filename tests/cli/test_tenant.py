"""`holdfast tenant export` and `import`: a file from one server, a tenant in another."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, Running, headers, start


def test_the_first_tenant_is_shown_without_a_day_on_which_nobody_made_it(holdfast: Command, served: Running) -> None:
    done = holdfast("tenant", "show", "default", **at(served))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("default (default): active\n")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Another served store."""
    with start(tmp_path_factory.mktemp("elsewhere"), "serve") as server:
        yield server


def at(server: Running, token: str | None = None) -> dict[str, str]:
    """The environment of a command to a server, by default as its administrator."""
    return {"HOLDFAST_URL": server.url, "HOLDFAST_TOKEN": token or server.tokens[0]}


def owner(server: Running, tenant: str) -> str:
    """A tenant's owner, minted by the administrator."""
    body = {"tenant_id": tenant, "role": "owner", "name": "o"}
    return str(server.ask(server.tokens[0], "POST", "/v1/tokens", body)[1]["secret"])


def furnished(server: Running, tenant: str) -> str:
    """A tenant with some work in it; its owner's token."""
    assert server.ask(server.tokens[0], "POST", "/v1/tenants", {"id": tenant})[0] == 201
    token = owner(server, tenant)
    items = [{"queue": "q", "payload": {"n": n}} for n in range(1_000)]
    assert server.ask(token, "POST", "/v1/work-items:batch", items)[0] == 200
    return token


def items(server: Running, token: str) -> list[Any]:
    """What is ready."""
    return list(server.ask(token, "GET", "/v1/work-items?limit=1000")[1]["items"])


def test_a_tenant_moves_to_another_server(
    holdfast: Command, served: Running, elsewhere: Running, tmp_path: Path
) -> None:
    token = furnished(served, "mover")
    assert holdfast("tenant", "suspend", "mover", **at(served)).returncode == 0
    done = holdfast("tenant", "export", "mover", "--output", "m.ndjson", "--reason", "a move", **at(served))
    assert (done.returncode, done.stderr) == (0, "")
    rows = len((tmp_path / "m.ndjson").read_text().splitlines()) - 1
    assert done.stdout == f"{rows:,} rows of the tenant mover are in m.ndjson.\n"
    done = holdfast("tenant", "import", "m.ndjson", **at(elsewhere))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"The tenant mover is suspended.\n{rows:,} rows were imported.\n"
    assert holdfast("tenant", "resume", "mover", **at(elsewhere)).returncode == 0
    assert items(elsewhere, owner(elsewhere, "mover")) == items(served, token)
    again = holdfast("tenant", "import", "m.ndjson", **at(elsewhere))
    assert (again.returncode, "tenant/exists" in again.stderr) == (1, True)


def test_a_row_travels_as_it_stands_in_the_file_and_not_spelt_longer(
    holdfast: Command, served: Running, elsewhere: Running
) -> None:
    """A state of 600 kB that is no ASCII fits a request as UTF-8, and not as escapes, three times as long."""
    token = furnished(served, "wordy")
    assert served.ask(token, "POST", "/v1/executions", {"workflow_id": "wf", "execution_id": "e"})[0] == 201
    with contextlib.closing(served.connect()) as connection:
        state = f'"{"é" * 300_000}"'.encode()
        connection.request("PUT", "/v1/executions/e/state", state, headers(token))
        assert connection.getresponse().status == 200
    assert holdfast("tenant", "export", "wordy", "--output", "w.ndjson", **at(served, token)).returncode == 0
    done = holdfast("tenant", "import", "w.ndjson", **at(elsewhere))
    assert (done.returncode, done.stderr) == (0, "")
    there = elsewhere.ask(owner(elsewhere, "wordy"), "GET", "/v1/executions/e")
    assert there == served.ask(token, "GET", "/v1/executions/e")


def test_an_owner_exports_without_a_reason_and_an_administrator_does_not(
    holdfast: Command, served: Running, tmp_path: Path
) -> None:
    token = furnished(served, "owned")
    assert holdfast("tenant", "export", "owned", "--output", "o.ndjson", **at(served, token)).returncode == 0
    refused = holdfast("tenant", "export", "owned", "--output", "a.ndjson", **at(served))
    assert (refused.returncode, "auth/forbidden" in refused.stderr) == (1, True)
    assert refused.stderr.endswith("; an administrator exports a tenant with --reason\n")
    assert [path.name for path in tmp_path.iterdir()] == ["o.ndjson"]


def test_a_file_that_was_changed_or_cut_off_is_not_sent(
    holdfast: Command, served: Running, elsewhere: Running, tmp_path: Path
) -> None:
    token = furnished(served, "spoilt")
    holdfast("tenant", "export", "spoilt", "--output", "s.ndjson", **at(served, token))
    file = tmp_path / "s.ndjson"
    lines = file.read_text().splitlines(keepends=True)
    for changed, said in (
        (lines[:-1], "were changed or cut off"),
        ([*lines[:-1], lines[-1][:-20]], "is no row of a tenant"),
        ([lines[0], *[line.replace('n\\": 7}', 'n\\": 8}') for line in lines[1:]]], "the rows of work_items"),
        ([lines[0].replace('"spoilt"', '"somebody"'), *lines[1:]], "its manifest was changed"),
        ([json.dumps({"format": "other"}), *lines[1:]], "does not begin with the manifest"),
        ([], "does not begin with the manifest"),
    ):
        assert changed != lines
        file.write_text("".join(changed))
        done = holdfast("tenant", "import", "s.ndjson", **at(elsewhere))
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr and done.stderr.count("\n") == 1
    assert elsewhere.ask(elsewhere.tokens[0], "GET", "/v1/tenants/spoilt")[0] == 404
