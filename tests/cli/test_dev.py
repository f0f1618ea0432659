"""`holdfast dev`: everything to try things on, on this machine only, and nothing left of it."""

import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Command, start


def stores(folder: Path) -> list[Path]:
    """Temporary stores that are there: of the server that was started in the folder, not of others beside it."""
    return list(folder.glob("holdfast-dev-*"))


def test_dev_shows_an_execution_to_whoever_pastes_its_command(tmp_path: Path) -> None:
    with start(tmp_path, "dev") as server:
        assert len(stores(tmp_path)) == 1
        assert server.url.startswith("http://127.0.0.1:")
        assert "lost at exit" in server.said
        [token] = server.tokens
        assert f"{server.url}/docs\n" in server.said
        [line] = [line for line in server.said.splitlines() if "curl" in line]
        *_, header, address = shlex.split(line)
        assert header == f"Authorization: Bearer {token}"
        status, shown = server.ask(token, "GET", address.removeprefix(server.url))
        assert (status, shown["status"], shown["workflow_id"], shown["open_items"]) == (200, "running", "greeting", 1)
        claim = {"worker_id": "w", "queues": ["*"]}
        [item] = server.ask(token, "POST", "/v1/work-items:claim", claim)[1]["items"]
        assert (item["execution_id"], item["node_id"]) == (shown["execution_id"], "draft")
        assert server.stop() == 0
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("stdout", "stderr")] == []


@pytest.mark.parametrize("words", [("--host", "0.0.0.0"), ("--database-url", "sqlite:///kept.db")])
def test_dev_refuses_to_be_more_than_it_is(holdfast: Command, tmp_path: Path, words: tuple[str, str]) -> None:
    done = holdfast("dev", "--port", "0", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("holdfast: dev ") and "use `holdfast serve`" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_sample_is_a_valid_definition() -> None:
    from service.cli.sample import DEFINITION, VERSION, WORKFLOW
    from service.definitions.ir import problems

    assert problems(DEFINITION, WORKFLOW, VERSION) == []
