"""What a definition must be, and that everything wrong with one is said at once."""

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.definitions.ir import BUILT_IN_POLICIES, RetryPolicy, kind_of, policy_of, problems

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "ir"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "b", "end"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)

INSANE: dict[str, list[Any]] = {
    "max_attempts": [None, 0, 1001, 1.0, "3", True, 10**400],
    "backoff": ["random", 1, ["fixed"], {}],
    "initial_delay_ms": [-1, 86_400_001, 1.5, False, "1"],
    "max_delay_ms": [999, -1, 5000.0, True, "x", []],
    "jitter": [0, 1, "true", {}],
}
NO_TIMEOUTS: list[Any] = [0, -1, -0.5, True, False, "5", [], {}, float("nan"), float("inf")]


def node(name: str, type_: str = "model", **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": {"type": type_}, **fields}


def edge(source: str, target: str, condition: Any = None) -> dict[str, Any]:
    return {"from": source, "to": target, "condition": condition}


def flow(*edges: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A document of these edges, its nodes those they start from, in order."""
    names = dict.fromkeys(each["from"] for each in edges)
    return {
        "workflow_id": "w",
        "version": "1",
        "start_node": next(iter(names), "a"),
        "nodes": {name: node(name) for name in names},
        "edges": list(edges),
        **fields,
    }


def chain() -> dict[str, Any]:
    return flow(edge("a", "b"), edge("b", "end"))


def with_node(**fields: Any) -> dict[str, Any]:
    document = chain()
    document["nodes"]["a"] |= fields
    return document


def pointers(document: Any, workflow_id: str | None = None, version: str | None = None) -> list[str]:
    return [where for where, _ in problems(document, workflow_id, version)]


def policy(**fields: Any) -> dict[str, Any]:
    return chain() | {"retry_policies": {"mine": {"max_attempts": 3} | fields}}


def test_a_sound_document_has_no_problems() -> None:
    assert problems(chain(), "w", "1") == []
    assert problems(chain(), None, None) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="the real documents are not part of a checkout")
def test_real_documents_pass() -> None:
    files = sorted(REAL.glob("*.json"))
    assert len(files) >= 2
    for file in files:
        document = json.loads(file.read_bytes())
        assert problems(document, document["workflow_id"], document["version"]) == []


@pytest.mark.parametrize("document", [None, True, 1, 1.5, "x", [], [{}]])
def test_a_document_that_is_no_object_has_one_problem_at_the_root(document: Any) -> None:
    assert pointers(document) == [""]


def test_an_empty_document_lacks_every_required_field() -> None:
    assert pointers({}) == ["/workflow_id", "/version", "/start_node", "/nodes", "/edges"]


def test_an_empty_graph_is_refused() -> None:
    assert pointers(chain() | {"nodes": {}, "edges": []}) == ["/start_node", "/nodes"]


def test_the_names_must_be_those_asked_for() -> None:
    assert pointers(chain(), "other", "2") == ["/workflow_id", "/version"]


@pytest.mark.parametrize(("version", "sound"), [("", False), ("v", True), ("0.1.0+sha", True), ("x" * 64, True)])
def test_a_version_is_any_string_of_up_to_64_characters(version: str, sound: bool) -> None:
    assert pointers(chain() | {"version": version}) == ([] if sound else ["/version"])
    assert pointers(chain() | {"version": "x" * 65}) == ["/version"]
    assert pointers(chain() | {"version": 1}) == ["/version"]


@pytest.mark.parametrize("version", ["latest", ".", "..", "a/b"])
@pytest.mark.parametrize("workflow_id", ["a b", ".a", "a/b", "é", "w" * 129, "w\n"])
def test_names_that_no_path_can_carry_are_refused(workflow_id: str, version: str) -> None:
    named = {"workflow_id": workflow_id, "version": version}
    assert pointers(chain() | named) == ["/workflow_id", "/version"]


@pytest.mark.parametrize("start", [None, 3, [], {}, "ghost", "end"])
def test_the_start_node_must_exist(start: Any) -> None:
    assert pointers(chain() | {"start_node": start}) == ["/start_node"]


@pytest.mark.parametrize("nodes", [None, [], "a", 0])
def test_nodes_must_be_an_object(nodes: Any) -> None:
    assert pointers(chain() | {"nodes": nodes}) == ["/nodes"]


@pytest.mark.parametrize("bad", [None, "a", [], 7])
def test_a_node_must_be_an_object(bad: Any) -> None:
    document = chain()
    document["nodes"]["a"] = bad
    assert pointers(document) == ["/nodes/a"]


@pytest.mark.parametrize("name", [None, "b", 1, [[]]])
def test_the_key_of_a_node_is_its_id(name: Any) -> None:
    assert pointers(with_node(id=name)) == ["/nodes/a/id"]


def test_a_node_needs_a_kind_with_a_type() -> None:
    assert pointers(with_node(kind=None)) == ["/nodes/a/kind"]
    assert pointers(with_node(kind="model")) == ["/nodes/a/kind"]
    assert pointers(with_node(kind={})) == ["/nodes/a/kind/type"]
    assert pointers(with_node(kind={"type": 1})) == ["/nodes/a/kind/type"]


def test_no_node_is_called_end() -> None:
    assert pointers(flow(edge("a", "end")) | {"nodes": {"a": node("a"), "end": node("end")}}) == ["/nodes/end"]


def test_kinds_are_open_and_nulls_and_extra_keys_are_kept() -> None:
    kind: dict[str, Any] = {"type": "quantum", "spin": None, "branches": None, "deep": {"x": []}}
    document = with_node(kind=kind, labels=None, retry_policy=None, node_timeout_secs=None, extra=[1])
    document |= {"retry_policies": None, "timeouts": None, "strategy_metadata": {}, "name": None}
    document["edges"][0]["extra"] = True
    before = copy.deepcopy(document)
    assert problems(document, "w", "1") == []
    assert document == before


@pytest.mark.parametrize("edges", [None, {}, "a", 1])
def test_edges_must_be_an_array(edges: Any) -> None:
    assert pointers(chain() | {"edges": edges}) == ["/edges"]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (None, ["/edges/2"]),
        (["a", "b"], ["/edges/2"]),
        ({}, ["/edges/2/from", "/edges/2/to"]),
        (edge("ghost", "b"), ["/edges/2/from"]),
        (edge("a", "ghost"), ["/edges/2/to"]),
        (edge("end", "b"), ["/edges/2/from"]),
        ({"from": ["a"], "to": {}}, ["/edges/2/from", "/edges/2/to"]),
    ],
)
def test_both_ends_of_an_edge_must_exist(bad: Any, expected: list[str]) -> None:
    document = chain()
    document["edges"].append(bad)
    assert pointers(document) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [("b", []), ("end", ["target"]), ("ghost", ["target"]), (4, ["target"]), (None, [])],
)
def test_a_branch_target_exists_and_has_an_edge(target: Any, expected: list[str]) -> None:
    document = with_node(kind={"type": "condition", "branches": ["odd", {"condition": None, "target": target}]})
    assert pointers(document) == [f"/nodes/a/kind/branches/1/{last}" for last in expected]


def test_a_branch_to_the_end_needs_only_its_edge() -> None:
    document = with_node(kind={"type": "condition", "branches": [{"target": "end"}]})
    document["edges"].append(edge("a", "end"))
    assert pointers(document) == []


def test_every_node_is_reachable_from_the_start() -> None:
    document = flow(edge("a", "end"), edge("b", "c"), edge("c", "end"))
    assert pointers(document) == ["/nodes/b", "/nodes/c"]


def test_a_node_without_an_outgoing_edge_is_told_how_to_go_on() -> None:
    document = chain()
    document["edges"].pop()
    ((where, what),) = problems(document, None, None)
    assert where == "/nodes/b"
    assert "no outgoing edge" in what
    assert '"end"' in what


def test_a_loop_nobody_leaves_has_no_way_to_the_end() -> None:
    document = flow(edge("a", "b"), edge("a", "end"), edge("b", "c"), edge("c", "b", "state.again"))
    assert pointers(document) == ["/nodes/b", "/nodes/c"]


def test_paths_are_not_judged_while_an_edge_is_broken() -> None:
    document = flow(edge("a", "ghost"), edge("b", "b", "x"))
    assert pointers(document) == ["/edges/0/to"]


def test_a_cycle_needs_a_condition() -> None:
    document = flow(edge("a", "b"), edge("b", "a"), edge("b", "end"))
    ((where, what),) = problems(document, None, None)
    assert where == "/edges/1"
    assert "'a' → 'b' → 'a'" in what


def test_a_node_that_leads_to_itself_is_a_cycle() -> None:
    assert pointers(flow(edge("a", "a"), edge("a", "end"))) == ["/edges/0"]
    assert pointers(flow(edge("a", "a", "state.again"), edge("a", "end"))) == []


def test_a_conditional_edge_makes_a_cycle_sound() -> None:
    assert pointers(flow(edge("a", "b"), edge("b", "a", "state.again"), edge("b", "end"))) == []


@pytest.mark.parametrize("kind", [{"type": "condition"}, {"type": "router", "branches": [{"target": "a"}]}])
def test_a_deciding_node_makes_a_cycle_sound(kind: dict[str, Any]) -> None:
    document = flow(edge("a", "b"), edge("b", "a"), edge("b", "end"))
    document["nodes"]["b"]["kind"] = kind
    assert pointers(document) == []


def test_a_condition_beside_a_cycle_does_not_excuse_it() -> None:
    document = flow(edge("a", "b"), edge("b", "a"), edge("a", "end", "x"), edge("b", "c", "x"), edge("c", "a", "x"))
    assert pointers(document) == ["/edges/1"]


def test_every_cycle_is_told_at_once() -> None:
    document = flow(edge("a", "b"), edge("b", "a"), edge("b", "c"), edge("c", "b"), edge("c", "a"), edge("c", "end"))
    told = pointers(document)
    assert sorted(told) == ["/edges/1", "/edges/3", "/edges/4"]
    for where in told:
        document["edges"][int(where.rsplit("/", 1)[1])]["condition"] = "state.again"
    assert pointers(document) == []


def test_a_diamond_is_no_cycle() -> None:
    assert pointers(flow(edge("a", "b"), edge("a", "c"), edge("b", "d"), edge("c", "d"), edge("d", "end"))) == []


@pytest.mark.parametrize("name", [*BUILT_IN_POLICIES, "mine", None])
def test_a_node_names_a_defined_or_built_in_policy(name: str | None) -> None:
    assert pointers(with_node(retry_policy=name) | {"retry_policies": {"mine": {"max_attempts": 1}}}) == []


@pytest.mark.parametrize("named", ["ghost", "", 3, True, []])
def test_an_undefined_policy_is_refused(named: Any) -> None:
    assert pointers(with_node(retry_policy=named)) == ["/nodes/a/retry_policy"]


def test_an_inline_policy_is_checked_like_any_other() -> None:
    assert pointers(with_node(retry_policy={"max_attempts": 2})) == []
    assert pointers(with_node(retry_policy={"jitter": 1})) == [
        "/nodes/a/retry_policy/max_attempts",
        "/nodes/a/retry_policy/jitter",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_attempts": 1},
        {"max_attempts": 1000},
        {"backoff": "fixed", "jitter": False, "retryable_on": ["x"]},
        {"initial_delay_ms": 0, "max_delay_ms": 0},
        {"initial_delay_ms": 86_400_000, "max_delay_ms": 86_400_000},
        {"backoff": None, "initial_delay_ms": None, "max_delay_ms": None, "jitter": None},
    ],
)
def test_a_sane_policy_passes(fields: dict[str, Any]) -> None:
    assert pointers(policy(**fields)) == []


@pytest.mark.parametrize(("field", "value"), [(field, bad) for field, values in INSANE.items() for bad in values])
def test_each_field_of_a_policy_is_refused_by_itself(field: str, value: Any) -> None:
    assert pointers(policy(**{field: value})) == [f"/retry_policies/mine/{field}"]


def test_a_number_too_long_to_print_is_refused_like_any_other() -> None:
    assert pointers(policy(max_attempts=10**5000)) == ["/retry_policies/mine/max_attempts"]


def test_a_first_delay_beyond_the_default_longest_one_needs_a_longest_one() -> None:
    assert pointers(policy(initial_delay_ms=400_000)) == ["/retry_policies/mine/max_delay_ms"]
    assert pointers(policy(initial_delay_ms=400_000, max_delay_ms=400_000)) == []


def test_policies_are_objects() -> None:
    assert pointers(chain() | {"retry_policies": []}) == ["/retry_policies"]
    assert pointers(chain() | {"retry_policies": {"x": None, "y/~": 3}}) == [
        "/retry_policies/x",
        "/retry_policies/y~1~0",
    ]


@pytest.mark.parametrize("seconds", [None, 1, 0.5, 10**400])
def test_timeouts_are_positive_numbers_or_null(seconds: Any) -> None:
    assert pointers(with_node(node_timeout_secs=seconds) | {"timeouts": {"run": seconds}}) == []


@pytest.mark.parametrize("seconds", NO_TIMEOUTS)
def test_anything_else_is_no_timeout(seconds: Any) -> None:
    document = with_node(node_timeout_secs=seconds) | {"timeouts": {"run": seconds}}
    assert pointers(document) == ["/nodes/a/node_timeout_secs", "/timeouts/run"]


def test_timeouts_are_an_object() -> None:
    assert pointers(chain() | {"timeouts": 5}) == ["/timeouts"]


def test_pointers_escape_slashes_and_tildes() -> None:
    document = flow(edge("a/~b", "end"))
    document["nodes"]["a/~b"]["id"] = "other"
    assert pointers(document) == ["/nodes/a~1~0b/id"]


def test_every_error_is_told_at_once() -> None:
    document = {
        "workflow_id": "w",
        "version": 1,
        "start_node": "ghost",
        "nodes": {
            "a": {"id": "x", "kind": {}, "retry_policy": "nope", "node_timeout_secs": 0},
            "b": node("b", "condition") | {"kind": {"type": "condition", "branches": [{"target": "c"}, {"target": 1}]}},
            "c": node("c"),
            "d": [],
        },
        "edges": [edge("a", "b"), edge("end", "b"), edge("c", "ghost"), "odd", edge("c", "c")],
        "retry_policies": {"p": {"backoff": "never", "initial_delay_ms": -1, "max_delay_ms": -1, "jitter": 0}},
        "timeouts": {"run": -1},
    }
    assert pointers(document, "other", "1") == [
        "/workflow_id",
        "/version",
        "/start_node",
        "/nodes/a/id",
        "/nodes/a/kind/type",
        "/nodes/a/retry_policy",
        "/nodes/a/node_timeout_secs",
        "/nodes/b/kind/branches/0/target",
        "/nodes/b/kind/branches/1/target",
        "/nodes/d",
        "/edges/1/from",
        "/edges/2/to",
        "/edges/3",
        "/retry_policies/p/max_attempts",
        "/retry_policies/p/backoff",
        "/retry_policies/p/initial_delay_ms",
        "/retry_policies/p/max_delay_ms",
        "/retry_policies/p/jitter",
        "/timeouts/run",
        "/edges/4",
    ]


def test_every_graph_error_is_told_at_once() -> None:
    document = flow(edge("a", "b"), edge("b", "a"), edge("b", "end"), edge("c", "d"))
    document["nodes"]["d"] = node("d")
    assert pointers(document) == ["/nodes/c", "/nodes/d", "/nodes/d", "/edges/1"]


def test_at_most_a_thousand_errors_are_listed() -> None:
    assert len(problems(chain() | {"edges": [None] * 5_000}, None, None)) == 1_000


def test_a_long_name_does_not_multiply_into_the_answer() -> None:
    name = "n" * 400_000
    document = flow(edge(name, "end"))
    document["nodes"][name]["kind"] = {"type": "condition", "branches": [{"target": "ghost"}] * 20_000}
    told = problems(document, None, None)
    assert 0 < sum(len(where) + len(what) for where, what in told) < 2_000_000


def long_chain() -> dict[str, Any]:
    return flow(*[edge(f"n{i}", f"n{i + 1}") for i in range(9_999)], edge("n9999", "end"))


def long_cycle() -> dict[str, Any]:
    back = [edge(f"n{i}", f"n{i // 2}") for i in range(40_000)]
    return flow(*[edge(f"n{i}", f"n{i + 1}") for i in range(39_999)], edge("n39999", "end"), *back)


def wide() -> dict[str, Any]:
    return flow(*[edge(f"n{i}", f"n{j}") for i in range(317) for j in range(i + 1, 317)], edge("n316", "end"))


@pytest.mark.parametrize(("make", "count"), [(long_chain, 0), (wide, 0), (long_cycle, 1_000)])
def test_a_large_graph_is_judged_in_a_moment(make: Callable[[], dict[str, Any]], count: int) -> None:
    document = make()
    begun = time.process_time()
    assert len(problems(document, "w", "1")) == count
    assert time.process_time() - begun < 15  # linear is about a second; what grows with the square takes minutes


def test_a_deep_value_anywhere_is_only_named() -> None:
    deep: Any = []
    for _ in range(sys.getrecursionlimit() * 3):
        deep = [deep]
    assert problems(chain() | {"version": deep, "edges": [deep], "start_node": deep}, "w", "1")
    assert problems(with_node(id=deep, kind=deep, retry_policy=deep, node_timeout_secs=deep), "w", "1")
    assert problems(policy(backoff=deep, max_attempts=deep, jitter=deep), "w", "1")


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_any_json_value_yields_a_list(document: Any) -> None:
    assert isinstance(problems(document, None, None), list)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_place_yields_a_list(data: st.DataObject) -> None:
    document = with_node(kind={"type": "condition", "branches": [{"target": "b"}]}, retry_policy={"max_attempts": 1})
    document |= {"retry_policies": {"mine": {"max_attempts": 3, "backoff": "fixed"}}, "timeouts": {"run": 1}}
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(JSON)
    for where, what in problems(document, "w", "1"):
        assert where == "" or where.startswith("/")
        assert what.endswith(".")
    for name in ("a", "b", "end"):
        assert isinstance(policy_of(document, name), RetryPolicy | None)
        assert isinstance(kind_of(document, name), str | None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.booleans()), max_size=14))
def test_a_cycle_without_a_condition_is_told_exactly_if_there_is_one(triples: list[tuple[int, int, bool]]) -> None:
    edges = [edge(str(a), "end" if b == 6 else str(b), "x" if conditional else None) for a, b, conditional in triples]
    document = flow(*edges, nodes={str(i): node(str(i)) for i in range(6)}, start_node="0")
    ways = {(a, b) for a, b, conditional in triples if not conditional}
    for k in range(6):
        ways |= {(a, b) for a in range(6) for b in range(6) if (a, k) in ways and (k, b) in ways}
    told = any(where.startswith("/edges/") for where in pointers(document))
    assert told == any((i, i) in ways for i in range(6))


def test_the_built_in_policies_are_what_they_are_called() -> None:
    attempts = {name: built_in.max_attempts for name, built_in in BUILT_IN_POLICIES.items()}
    assert attempts == {"no_retry": 1, "io_default": 5, "llm_default": 3}


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        BUILT_IN_POLICIES["no_retry"].max_attempts = 2  # type: ignore[misc] # that it is refused is the point
    assert msgspec.structs.replace(BUILT_IN_POLICIES["no_retry"], jitter=False).jitter is False


def test_the_policy_of_a_node_is_inline_or_its_own_or_built_in() -> None:
    own = {"retry_policies": {"mine": {"max_attempts": 7, "jitter": None, "x": 1}, "no_retry": {"max_attempts": 2}}}
    inline = {"max_attempts": 9, "backoff": "linear", "initial_delay_ms": 5, "max_delay_ms": 6, "jitter": False}
    assert policy_of(with_node(retry_policy=inline), "a") == RetryPolicy(9, "linear", 5, 6, False)
    assert policy_of(with_node(retry_policy="mine") | own, "a") == RetryPolicy(7)
    assert policy_of(with_node(retry_policy="no_retry") | own, "a") == RetryPolicy(2)
    assert policy_of(with_node(retry_policy="io_default") | own, "a") == BUILT_IN_POLICIES["io_default"]
    assert policy_of(with_node(retry_policy=None), "a") is None
    assert policy_of(chain(), "ghost") is None


def test_the_kind_of_a_node_is_its_type() -> None:
    assert kind_of(chain(), "a") == "model"
    assert kind_of(chain(), "ghost") is None
    assert kind_of({"nodes": []}, "a") is None
