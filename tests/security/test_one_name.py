"""One thing has one name: whoever guards a path in front of the server, or compares what was sent, is not led round."""

import base64

import httpx
import pytest

from tests.conftest import Api
from tests.http.conftest import request

OTHER_NAMES = (
    "//v1/tokens/self", "/v1//tokens/self", "/v1/tokens//self", "/v1%2ftokens/self", "/v1/tokens%2Fself",
    "%2fv1/tokens/self", "/v1/tokens/self/", "/v1/tokens/self//", "/v1/tokens/self%2f", "///v1/tokens/self",
)  # fmt: skip


@pytest.mark.parametrize("path", OTHER_NAMES)
async def test_a_path_has_no_second_spelling_by_slashes(path: str, api: Api) -> None:
    assert (await request(api.service.app, "GET", "/v1/tokens/self", api.owner_token)).status == 200
    for token in (None, api.owner_token):
        (await request(api.service.app, "GET", path, token)).refused("request/route")


@pytest.mark.parametrize("way", ["%2f", "%2F", "/"])
async def test_an_act_is_reached_by_its_own_path_alone(way: str, api: Api) -> None:
    run = (await api.start())["execution_id"]
    path = f"/v1/executions/{run}{way}transitions"
    body = b'{"changes":[{"type":"append","kind":"noted"}]}'
    reply = await request(api.service.app, "POST", path, api.owner_token, body)
    assert (reply.status, len(await api.events(run))) == ((200, 2) if way == "/" else (404, 1))


async def page(api: Api, cursor: str) -> httpx.Response:
    """The next page of the list of executions."""
    return await api.http.get("/v1/executions", params={"limit": "1", "cursor": cursor})


async def test_a_cursor_has_one_spelling(api: Api) -> None:
    """What is dropped when it is read could be put in between."""
    for _ in range(3):
        await api.start()
    cursor = (await api.ok("GET", "/v1/executions?limit=1"))["next_cursor"]
    assert (await page(api, cursor)).status_code == 200
    spare = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    last = [cursor[:-1] + other for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    same = [one for one in last if one != cursor and base64.urlsafe_b64decode(one + "=" * (-len(one) % 4)) == spare]
    put_in = [f"{cursor[:7]}{what}{cursor[7:]}" for what in ("\n", "!", " ", "=")]
    for other in [*put_in, *same, cursor + "=", cursor + "==", cursor + "*", "." + cursor, cursor + "é", cursor + " "]:
        answer = await page(api, other)
        assert (answer.status_code, answer.json()["code"]) == (400, "request/cursor"), other


@pytest.mark.parametrize("between", ["\xa0", " \xa0", "\x85", "\x1c "])
async def test_a_token_comes_after_spaces_alone(between: str, api: Api) -> None:
    for text in (f"Bearer {between}{api.owner_token}", f"Bearer {api.owner_token}{between}"):
        headers = [(b"authorization", text.encode("latin-1"))]
        reply = await request(api.service.app, "GET", "/v1/tokens/self", None, None, headers)
        assert reply.status in (400, 401), text
