"""The pages: they serve what they need themselves, let nothing else in, and explain every problem."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from service.errors import CODES
from service.http import contract
from service.http.pages import routes
from service.http.remedies import REMEDIES
from tests.conftest import Api, Service

PAGES = Path(routes.__file__).parent
HTML = {"accept": "text/html,application/xhtml+xml"}


def test_there_is_a_remedy_for_every_code_and_for_nothing_else() -> None:
    assert set(REMEDIES) == set(CODES)


def test_a_remedy_is_a_sentence() -> None:
    for code, remedy in REMEDIES.items():
        assert remedy[0].isupper() and remedy.endswith("."), code


async def test_the_contract_is_public_and_the_one_that_is_published(service: Service) -> None:
    answer = await service.client(None).get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(contract.text())


async def test_the_docs_are_a_page_that_lets_nothing_foreign_in(service: Service) -> None:
    answer = await service.client(None).get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("page", ["docs.html", "problem.html", "docs.css", "docs.js", "icon.svg"])
def test_no_page_mentions_another_host(page: str) -> None:
    text = (PAGES / page).read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|\burl\(", text)


@pytest.mark.parametrize("page", ["docs.html", "problem.html"])
def test_a_page_has_no_inline_style_or_script(page: str) -> None:
    text = (PAGES / page).read_text()
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", text)


def test_the_script_never_writes_html_nor_stores_anything() -> None:
    text = (PAGES / "docs.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|localStorage|sessionStorage|cookie", text
    )


@pytest.mark.parametrize("page", ["docs.html", "problem.html"])
async def test_every_part_of_a_page_is_served(service: Service, page: str) -> None:
    parts = set(re.findall(r'(?:src|href)="(/pages/[^"]+)"', (PAGES / page).read_text()))
    assert parts
    for part in parts:
        answer = await service.client(None).get(part)
        assert answer.status_code == 200, part
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["routes.py", "..%2froutes.py", "docs.html", "nothing"])
async def test_no_other_file_is_served(service: Service, name: str) -> None:
    answer = await service.client(None).get(f"/pages/{name}")
    assert answer.status_code == 404


async def test_the_docs_can_be_switched_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    off = msgspec.structs.replace(service.services.settings, docs=False)
    monkeypatch.setattr(service.services, "settings", off)
    http = service.client(None)
    assert (await http.get("/docs")).json()["code"] == "request/route"
    assert (await http.get("/openapi.json")).status_code == 200


@pytest.mark.parametrize("code", CODES)
async def test_the_type_of_a_problem_leads_to_its_explanation(service: Service, code: str) -> None:
    found = (await service.client(None).get(f"/problems/{code}")).json()
    status, title = CODES[code]
    assert found == {
        "type": f"/problems/{code}",
        "code": code,
        "status": status,
        "title": title,
        "remedy": REMEDIES[code],
    }


async def test_a_browser_gets_the_explanation_as_a_page(service: Service) -> None:
    answer = await service.client(None).get("/problems/idempotency/mismatch", headers=HTML)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "accept"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "<h1>" in answer.text and "Use a new key" in answer.text


async def test_every_problem_renders_as_a_page(service: Service) -> None:
    http = service.client(None)
    for code in CODES:
        answer = await http.get(f"/problems/{code}", headers=HTML)
        assert answer.status_code == 200 and f"<code>{code}</code>" in answer.text and "`" not in answer.text


@pytest.mark.parametrize("path", ["/problems/none/such", "/problems/none", "/problems/%3Cscript%3E"])
async def test_a_problem_that_does_not_exist_is_not_found(service: Service, path: str) -> None:
    answer = await service.client(None).get(path, headers=HTML)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_real_refusal_names_a_page_that_exists(api: Api) -> None:
    problem = await api.refused("GET", "/v1/executions/none", "not-found")
    assert (await api.http.get(problem["type"])).json()["code"] == "not-found"
