"""Values in a query are what the contract says they are, and nothing that merely looks like it."""

from typing import Annotated, Any

import msgspec
import pytest

from service.http.texts import of_text
from tests.conftest import Api

COUNT = Annotated[int, msgspec.Meta(ge=-5, le=1_000)]


@pytest.mark.parametrize(
    ("said", "kind", "value"),
    [
        ("10", int, 10),
        ("0", COUNT, 0),
        ("-5", COUNT, -5),
        ("true", bool, True),
        ("false", bool, False),
        ("1", str, "1"),
    ],
)
def test_what_the_contract_says_is_taken(said: str, kind: Any, value: Any) -> None:
    found = of_text(said, kind)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("said", ["1e1", "1E1", "1.0", "-0", "007", "+1", " 1", "1\n", "1_0", "٣", "0x1", "true", ""])
@pytest.mark.parametrize("kind", [int, COUNT])
def test_an_integer_is_decimal_digits(said: str, kind: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="decimal digits"):
        of_text(said, kind)


@pytest.mark.parametrize("said", ["1", "0", "TRUE", "True", "FALSE", "yes", "on", "null", ""])
def test_a_boolean_is_true_or_false(said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="`true` or `false`"):
        of_text(said, bool)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/executions?limit=1e1"), ("GET", "/v1/executions/run/events?after=1.0"),
        ("PUT", "/v1/definitions/wf/1?snapshot_keep=1e0"), ("PUT", "/v1/definitions/wf/1?validate=0"),
        ("DELETE", "/v1/tokens/other?descendants=TRUE"),
    ],
)  # fmt: skip
async def test_a_query_that_only_looks_like_one_is_refused_by_name(api: Api, method: str, path: str) -> None:
    name = path.partition("?")[2].partition("=")[0]
    problem = await api.refused(method, path, "request/malformed", **({"json": {}} if method == "PUT" else {}))
    assert (problem["status"], problem["parameter"]) == (400, name)
