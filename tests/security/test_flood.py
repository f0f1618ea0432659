"""Floods of tokens that are not ours: nobody else is kept out, nothing fails, argon2 does not run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from threading import Event
from typing import Any

import httpx
import pytest

from service.errors import StateError
from service.tokens.secret import _checksum, mint, reject_tag
from service.tokens.verify import check
from tests.conftest import Api, Service, serving

MOST = 5
ATTACKER, BYSTANDER = "203.0.113.66", "203.0.113.7"
MINUTE_MS = 60_000


class Flooded:
    """A service that takes few failures a minute; a tenant, and everything that argon2 was asked."""

    def __init__(self, service: Service, api: Api) -> None:
        self.service, self.api = service, api
        self.argon2: list[str] = []
        verifier = service.services.tokens.verifier
        service.clock.now -= service.clock.now % MINUTE_MS

        def counted(secret: str, stored: str) -> bool:
            self.argon2.append(secret)
            return check(secret, stored)

        verifier._check = counted

    def at(self, source: str, **headers: str) -> httpx.AsyncClient:
        """A client at an address, without a token."""
        transport = httpx.ASGITransport(app=self.service.app, raise_app_exceptions=False, client=(source, 4711))  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://holdfast", headers=headers)

    async def ask(self, token: str, source: str = ATTACKER, **headers: str) -> httpx.Response:
        """Who am I, asked with a token."""
        async with self.at(source, authorization=f"Bearer {token}", **headers) as client:
            return await client.get("/v1/tokens/self")

    async def report(self, token: str, source: str = ATTACKER) -> httpx.Response:
        """A token that was found in the open."""
        async with self.at(source) as client:
            return await client.post("/v1/tokens:revoke-exposed", json={"token": token})

    async def minted(self, role: str = "viewer") -> str:
        """A token of the tenant that nobody has shown yet."""
        return await self.service.token(self.api.tenant, role)

    async def throttled(self, source: str = ATTACKER) -> None:
        """Let the source guess until it is told to wait."""
        for _ in range(MOST):
            assert (await self.ask(mint("tenant")[0], source)).status_code == 401
        assert (await self.ask(mint("tenant")[0], source)).status_code == 429


@pytest.fixture
async def flooded(fresh_url: str) -> AsyncIterator[Flooded]:
    async with serving(fresh_url, failures_per_minute=MOST) as service:
        yield Flooded(service, await service.tenant())


def guess(token: str) -> str:
    """The same id with another secret, and a right CRC."""
    body = token[:23] + mint("tenant")[0][23:66]
    return body + _checksum(body)


def bad_crc(token: str) -> str:
    """The token with its last character wrong."""
    return token[:-1] + ("0" if token[-1] != "0" else "1")


KINDS: dict[str, Callable[[str], str]] = {
    "bad shape": lambda token: token[:40],
    "bad CRC": bad_crc,
    "unknown id": lambda _: mint("tenant")[0],
    "wrong secret": guess,
    "wrong kind": lambda token: "holds_" + token[6:66] + _checksum("holds_" + token[6:66]),
}
COUNTED = ("unknown id", "wrong secret", "wrong kind")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_flood_runs_no_argon2_and_fails_nothing(kind: str, flooded: Flooded) -> None:
    victim = await flooded.minted()
    statuses = [(await flooded.ask(KINDS[kind](victim))).status_code for _ in range(MOST * 3)]
    assert statuses == ([401] * MOST + [429] * MOST * 2 if kind in COUNTED else [401] * MOST * 3)
    assert flooded.argon2 == []
    assert (await flooded.ask(victim)).status_code == 200
    assert len(flooded.argon2) == 1


@pytest.mark.parametrize("kind", COUNTED)
async def test_a_source_that_floods_is_told_when_to_come_back(kind: str, flooded: Flooded) -> None:
    victim = await flooded.minted()
    flooded.service.clock.advance(15_000)
    for _ in range(MOST):
        assert (await flooded.ask(KINDS[kind](victim))).json()["code"] == "auth/invalid"
    answer = await flooded.ask(KINDS[kind](victim))
    assert (answer.status_code, answer.json()["code"]) == (429, "auth/throttled")
    assert answer.headers["retry-after"] == "45"
    assert (await flooded.ask(KINDS[kind](victim), BYSTANDER)).status_code == 401, "others are not told"
    flooded.service.clock.advance(45_000)
    assert (await flooded.ask(KINDS[kind](victim))).status_code == 401


async def test_guessing_at_a_token_locks_nobody_out(flooded: Flooded) -> None:
    victim = await flooded.minted()
    for source in (ATTACKER, BYSTANDER):
        for _ in range(MOST * 2):
            assert (await flooded.ask(guess(victim), source)).status_code in (401, 429)
    for source in (ATTACKER, BYSTANDER, "198.51.100.1"):
        assert (await flooded.ask(victim, source)).status_code == 200


async def test_a_token_that_was_never_seen_gets_in_from_the_address_of_a_flood(flooded: Flooded) -> None:
    tokens = [await flooded.minted() for _ in range(4)]
    await flooded.throttled()
    answers = await asyncio.gather(*(flooded.ask(token) for token in tokens for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await flooded.ask(mint("tenant")[0])).status_code == 429, "and the flood is still told to wait"


async def test_a_revoked_token_from_the_address_of_a_flood_is_told_that_it_was_revoked(flooded: Flooded) -> None:
    token = await flooded.minted()
    await flooded.api.ok("DELETE", f"/v1/tokens/{token[6:22]}")
    await flooded.throttled()
    assert (await flooded.ask(token)).json()["code"] == "auth/revoked"


async def test_valid_and_invalid_tokens_at_once_are_each_answered_rightly(flooded: Flooded) -> None:
    valid = [await flooded.minted() for _ in range(8)]
    strangers = [make(valid[0]) for make in KINDS.values() for _ in range(20)]
    answers = await asyncio.gather(*(flooded.ask(token) for token in [*strangers, *valid * 3]))
    assert {answer.status_code for answer in answers[: len(strangers)]} == {401, 429}
    assert {answer.status_code for answer in answers[len(strangers) :]} == {200}
    assert len(flooded.argon2) <= len(valid)


async def test_look_ups_of_a_flood_share_their_reads(flooded: Flooded, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, reads = flooded.service.services.backend, []
    read = backend.read

    async def counted(work: Any, **how: Any) -> Any:
        reads.append(work)
        return await read(work, **how)

    monkeypatch.setattr(backend, "read", counted)
    await asyncio.gather(*(flooded.ask(mint("tenant")[0]) for _ in range(100)))
    assert len(reads) <= 5


async def test_look_ups_of_a_source_that_floods_wait_for_each_other_and_for_nobody_else(
    flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, over = [await flooded.minted() for _ in range(2)], asyncio.Event()
    await flooded.throttled()
    directory, reads = flooded.service.services.tokens, []

    async def rest() -> None:
        await over.wait()

    async def counted(ids: list[str]) -> Any:
        reads.append(len(ids))
        return await directory._read_rows(ids)

    flood = directory._rows_of_floods
    monkeypatch.setattr(flood, "_rest", rest)
    monkeypatch.setattr(flood, "_read", counted)
    asked = []
    for text in (mint("tenant")[0], guess(tokens[0]), mint("tenant")[0], tokens[0]):
        asked.append(asyncio.create_task(flooded.ask(text)))
        await asyncio.sleep(0)
    assert (await flooded.ask(tokens[1], BYSTANDER)).status_code == 200
    assert (await flooded.ask(mint("tenant")[0], BYSTANDER)).status_code == 401
    async with asyncio.timeout(10):
        while len(flood._asked) < 4:
            await asyncio.sleep(0)
    over.set()
    assert [answer.status_code for answer in await asyncio.gather(*asked)] == [429, 429, 429, 200]
    assert reads == [4]


async def test_a_forged_reject_tag_costs_one_argon2_and_no_token_its_turn(
    flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has stolen the store can search for a secret with the right tag; here the search is spared."""
    victim = await flooded.minted()
    forged = guess(victim)
    tag = reject_tag(victim[6:22], victim[23:66])

    def tag_of(token_id: str, secret: str) -> bytes:
        return tag if secret == forged[23:66] else reject_tag(token_id, secret)

    monkeypatch.setattr("service.tokens.verify.reject_tag", tag_of)
    statuses = {(await flooded.ask(forged)).status_code for _ in range(MOST * 3)}
    assert (statuses, flooded.argon2) == ({401, 429}, [forged[23:66]])
    assert (await flooded.ask(victim)).status_code == 200


async def test_when_argon2_is_full_newcomers_wait_and_those_who_are_known_go_on(fresh_url: str) -> None:
    async with serving(fresh_url, argon2_workers=1, argon2_queue_max=3) as service:
        flooded = Flooded(service, await service.tenant())
        tokens, known = [await flooded.minted() for _ in range(6)], flooded.api.owner_token
        assert (await flooded.ask(known)).status_code == 200
        gate = Event()

        def slow(secret: str, stored: str) -> bool:
            assert gate.wait(10), "nobody opened the gate"
            return check(secret, stored)

        service.services.tokens.verifier._check = slow
        waiting = [asyncio.create_task(flooded.ask(token)) for token in tokens]
        async with asyncio.timeout(10):
            while sum(task.done() for task in waiting) < 4:
                await asyncio.sleep(0)
        assert (await flooded.ask(known)).status_code == 200
        refused = [task.result() for task in waiting if task.done()]
        assert {(one.status_code, one.json()["code"], one.headers["retry-after"]) for one in refused} == {
            (503, "auth/busy", "1")
        }
        assert (await flooded.ask(guess(tokens[0]))).status_code == 401, "who is wrong is refused as ever"
        gate.set()
        answers = await asyncio.gather(*waiting)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
        assert {(await flooded.ask(token)).status_code for token in tokens} == {200}


async def test_whoever_fills_the_queue_of_argon2_keeps_no_other_tenant_out(fresh_url: str) -> None:
    async with serving(fresh_url, argon2_workers=1, argon2_queue_max=5) as service:
        loud, quiet = Flooded(service, await service.tenant()), Flooded(service, await service.tenant())
        tokens, newcomer = [await loud.minted() for _ in range(12)], await quiet.minted()
        gate = Event()

        def slow(secret: str, stored: str) -> bool:
            assert gate.wait(10), "nobody opened the gate"
            return check(secret, stored)

        service.services.tokens.verifier._check = slow
        waiting = [asyncio.create_task(loud.ask(token)) for token in tokens]
        async with asyncio.timeout(10):
            while sum(task.done() for task in waiting) < 9:
                await asyncio.sleep(0)
        other = asyncio.create_task(quiet.ask(newcomer, BYSTANDER))
        async with asyncio.timeout(10):
            while len(service.services.tokens.verifier._flights) < 4:
                await asyncio.sleep(0)
        gate.set()
        assert (await other).status_code == 200
        statuses = sorted([answer.status_code for answer in await asyncio.gather(*waiting)])
        assert statuses == [200] * 3 + [503] * 9


async def test_a_store_that_is_away_is_never_told_as_a_wrong_token(
    flooded: Flooded, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, token = flooded.service.services.backend, await flooded.minted()

    async def away(_work: Any, **_how: Any) -> Any:
        raise StateError("store/unavailable", "The store is away.", retry_after=1)

    with monkeypatch.context() as patch:
        patch.setattr(backend, "read", away)
        for text in (token, guess(token), mint("tenant")[0]):
            answer = await flooded.ask(text)
            assert (answer.status_code, answer.json()["code"]) == (503, "store/unavailable")
            assert "retry-after" in answer.headers
    assert (await flooded.ask(token)).status_code == 200
    for _ in range(MOST):
        assert (await flooded.ask(mint("tenant")[0])).status_code == 401, "and nothing was counted"


# ── reports of exposed tokens ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [*KINDS, "no token at all"])
async def test_reports_that_are_not_ours_are_limited_by_source(kind: str, flooded: Flooded) -> None:
    victim = await flooded.minted()
    make = KINDS.get(kind, lambda _: "nonsense")
    statuses = [(await flooded.report(make(victim))).status_code for _ in range(MOST + 2)]
    assert statuses == [200] * MOST + [429] * 2
    answer = await flooded.report(make(victim))
    assert (answer.json()["code"], answer.headers["retry-after"]) == ("auth/throttled", "60")
    assert (await flooded.report(make(victim), BYSTANDER)).status_code == 200
    assert flooded.argon2 == []


async def test_a_true_report_is_taken_from_the_address_of_a_flood(flooded: Flooded) -> None:
    tokens = [await flooded.minted() for _ in range(MOST + 3)]
    await flooded.throttled()
    for token in tokens:
        assert (await flooded.report(token)).status_code == 200
        assert (await flooded.ask(token, BYSTANDER)).json()["code"] == "auth/revoked"
    lines = [line for line in (await flooded.api.ok("GET", "/v1/audit"))["items"] if line["action"] == "token.revoked"]
    assert [line["target"] for line in lines] == [token[6:22] for token in tokens]
    assert all(line["detail"] == {"exposed": True} for line in lines)


# ── proxies ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_invented_address_does_not_get_around_the_limit(flooded: Flooded) -> None:
    for number in range(MOST):
        await flooded.ask(mint("tenant")[0], **{"x-forwarded-for": f"192.0.2.{number}"})
    answer = await flooded.ask(mint("tenant")[0], **{"x-forwarded-for": "192.0.2.99"})
    assert answer.status_code == 429


async def test_behind_a_trusted_proxy_each_address_has_a_limit_of_its_own(fresh_url: str) -> None:
    async with serving(fresh_url, failures_per_minute=MOST, trusted_proxies="10.0.0.0/8") as service:
        flooded = Flooded(service, await service.tenant())

        async def ask(said: str) -> int:
            answer = await flooded.ask(mint("tenant")[0], "10.0.0.1", **{"x-forwarded-for": said})
            return answer.status_code

        assert [await ask(f"1.1.1.{number}, {ATTACKER}") for number in range(MOST + 1)] == [401] * MOST + [429]
        assert await ask(BYSTANDER) == 401
