"""The example keeps its word on both engines: a worker dies, and every execution completes and replays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 120
EXECUTIONS, WORKERS = 12, 3


def clean_environment() -> dict[str, str]:
    """No settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST")}


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run the example to its end, with no settings but those given."""
    command = [sys.executable, str(ROOT / "examples" / "run_workflow.py"), *words]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=SECONDS)


def figures(printed: str) -> dict[str, str]:
    """The summary table."""
    pairs = [line.rsplit(None, 1) for line in printed.splitlines() if "  " in line]
    return {name.strip(): value for name, value in pairs}


async def test_a_killed_worker_costs_no_execution(fresh_url: str) -> None:
    done = run("--executions", str(EXECUTIONS), "--workers", str(WORKERS), "--database-url", fresh_url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = figures(done.stdout)
    assert [found[name] for name in ("executions", "completed", "verified")] == [str(EXECUTIONS)] * 3
    assert "killed worker-" in done.stdout
    assert int(found["lease expired"]) >= 1
    assert int(found["retries"]) > int(found["lease expired"])  # cards that failed at first, too
    assert found["dead letters"] == "0"
    assert found["transitions"] == found["items"]  # no node was done twice, none left out


async def test_an_ir_that_the_service_refuses_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"workflow_id": "bad", "version": "1", "nodes": {}, "edges": []}')
    done = run("--ir", str(tmp_path / "bad.json"), "--executions", "1")
    assert done.returncode != 0
    assert "started" not in done.stdout
    assert "definition/invalid: " in done.stderr and "Traceback" not in done.stderr


def test_a_file_or_a_server_that_is_not_there_is_one_line() -> None:
    done = run("--ir", "nowhere.json")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "nowhere.json: No such file or directory\n")


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's own modules, as its script sees them."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def edges(*pairs: str) -> list[dict[str, str]]:
    """`a>b` as an edge."""
    return [dict(zip(("from", "to"), pair.split(">"), strict=True)) for pair in pairs]


def walk(document: dict[str, object], order: list[str]) -> list[str]:
    """End the nodes in `order`; what is running after each, and what waits in brackets."""
    from workflow.graph import Graph

    graph = Graph(document)
    position = {"running": [str(document["start_node"])], "waiting": []}
    seen = []
    for node in order:
        position, _ = graph.advance(position, node, graph.targets(node, {}))
        seen.append(" ".join([*position["running"], *(f"({one})" for one in position["waiting"])]))
    return seen


def plain(*nodes: str) -> dict[str, object]:
    return {node: {"id": node, "kind": {"type": "tool"}} for node in nodes}


def test_a_join_waits_for_every_branch_in_whatever_order_they_end() -> None:
    ways = edges("a>b", "a>c", "b>d", "c>d", "d>end")
    document = {"start_node": "a", "nodes": plain("a", "b", "c", "d"), "edges": ways}
    assert walk(document, ["a", "b", "c", "d"]) == ["b c", "c (d)", "d", ""]
    assert walk(document, ["a", "c", "b", "d"]) == ["b c", "b (d)", "d", ""]


def test_a_join_waits_for_a_branch_that_is_longer_than_the_others() -> None:
    ways = edges("a>b", "a>c", "c>x", "x>d", "b>d", "d>end")
    document = {"start_node": "a", "nodes": plain("a", "b", "c", "x", "d"), "edges": ways}
    assert walk(document, ["a", "b", "c", "x", "d"]) == ["b c", "c (d)", "x (d)", "d", ""]


def test_where_alternatives_meet_nobody_is_waited_for() -> None:
    decision = {"type": "condition", "branches": [{"condition": "state.no", "target": "b"}, {"target": "c"}]}
    nodes = plain("a", "b", "c", "d") | {"a": {"id": "a", "kind": decision}}
    document = {"start_node": "a", "nodes": nodes, "edges": edges("a>b", "a>c", "b>d", "c>d", "d>end")}
    assert walk(document, ["a", "c", "d"]) == ["c", "d", ""]


def test_a_loop_enters_its_head_again() -> None:
    document = {"start_node": "a", "nodes": plain("a", "b"), "edges": edges("a>b", "b>a")}
    assert walk(document, ["a", "b", "a"]) == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("condition", "truth"),
    [
        ("state.x == 1", True), ("state.x == 2", False), ("state.x != 2", True), ("state.x >= 1", True),
        ("state.name == 'ada'", True), ('state.name == "ada"', True), ("state.deep.er == true", True),
        ("state.deep.er", True), ("state.x", False), ("state.missing == null", False), ("state.name < 3", False),
        ("nonsense", False), ("state.x == ", False), ("state.x == oops", False), (None, False), (7, False),
    ],
)  # fmt: skip
def test_a_condition_holds_or_it_does_not(condition: object, truth: bool) -> None:
    from workflow.conditions import holds

    assert holds(condition, {"x": 1, "name": "ada", "deep": {"er": True}}) is truth
