"""A text that does not fit is refused in words that say what would, never with a regular expression."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import pytest

from service.http import contract
from service.http.words import in_words
from service.kernel.ids import Glob, Id
from service.tenants.model import TenantId
from service.tokens.model import Cidr
from tests.conftest import Api

ID = "Expected a text of 1–128 characters: A–Z a–z 0–9 . _ ~ -; the first one of A–Z a–z 0–9"
NAME = "Expected a text of 1–128 characters: A–Z a–z 0–9 _ . : -; the first one of A–Z a–z 0–9 _"


def patterns(part: Any) -> Iterator[str]:
    """Every pattern in a document."""
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        for one in part.values():
            yield from patterns(one)
    elif isinstance(part, list):
        for one in part:
            yield from patterns(one)


def refused(kind: Any, value: Any) -> str:
    """What is said of a value that is not of a kind."""
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(value, kind)
    return in_words(str(error.value))


def test_every_pattern_of_the_contract_is_told_in_words() -> None:
    found = set(patterns(contract.document()))
    assert len(found) > 6
    for pattern in found:
        said = refused(Annotated[str, msgspec.Meta(pattern=pattern)], "é'\"\n")
        assert said.startswith("Expected a text of ") and not set("^$[{\\") & set(said), (pattern, said)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Id, ID),
        (TenantId, "Expected a text of 1–63 characters: a–z 0–9 -"),
        (Glob, "Expected a text of 1–128 characters: A–Z a–z 0–9 _ . : * ? | -; the first one of A–Z a–z 0–9 _ * ?"),
        (Cidr, "Expected a text of 2–45 characters: 0–9 A–F a–f : .; then, if at all, / and 1–3 characters: 0–9"),
    ],
)
def test_the_words_say_how_many_characters_of_which(kind: Any, said: str) -> None:
    assert refused(kind, "b@d id") == said


async def test_an_id_that_cannot_be_is_told_what_it_may_hold(api: Api) -> None:
    async def told(path: str, body: Any) -> list[Any]:
        return list((await api.refused("POST", path, "request/invalid", json=body))["errors"])

    body = {"workflow_id": "wf", "execution_id": "a b"}
    assert await told("/v1/executions", body) == [{"pointer": "/execution_id", "detail": ID}]
    body = {"worker_id": "w", "queues": ["ok", "a b"]}
    [wrong] = await told("/v1/work-items:claim", body)
    assert wrong["pointer"] == "/queues/1" and "* ?" in wrong["detail"]
    body = {"workflow_id": "wf", "labels": {"a b": "c"}}
    assert await told("/v1/executions", body) == [{"pointer": "/labels", "detail": f"Of a key in it: {NAME}"}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/queues/{}/pause"), ("POST", "/v1/executions/run/signals/{}"), ("PUT", "/v1/definitions/{}/1"),
        ("PUT", "/v1/workers/{}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [".a", "-a", "a%20b", "%C3%A9"])
async def test_a_name_in_a_path_that_cannot_be_is_told_what_it_may_hold(
    api: Api, method: str, path: str, name: str
) -> None:
    said = (await api.refused(method, path.format(name), "request/malformed", json={}))["detail"]
    assert "1–128 of A–Z a–z 0–9 _" in said and "first" in said and not set("^$[{\\") & set(said)
