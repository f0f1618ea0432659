"""`holdfast token …` and `holdfast tenant …` against a running server."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli.conftest import Command, Running

Admin = Callable[..., str]


@pytest.fixture
def admin(holdfast: Command, served: Running) -> Admin:
    """A command as the system's administrator that must succeed; what it prints."""

    def run(*words: str) -> str:
        done = holdfast(*words, HOLDFAST_URL=served.url, HOLDFAST_TOKEN=served.tokens[0])
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture
def tenant(admin: Admin) -> str:
    """A tenant of the test's own."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert admin("tenant", "create", name, "--name", "Acme") == f"The tenant {name} is active.\n"
    return name


def as_json(text: str) -> Any:
    return json.loads(text)


def test_a_tenant_is_listed_shown_suspended_and_resumed(admin: Admin, tenant: str) -> None:
    assert tenant in admin("tenant", "list")
    assert admin("tenant", "suspend", tenant) == f"The tenant {tenant} is suspended.\n"
    suspended = as_json(admin("tenant", "list", "--status", "suspended", "--json"))
    assert tenant in [one["id"] for one in suspended] and {one["status"] for one in suspended} == {"suspended"}
    assert admin("tenant", "resume", tenant) == f"The tenant {tenant} is active.\n"
    still = as_json(admin("tenant", "list", "--status", "suspended", "--json"))
    assert [one["id"] for one in still] == [one["id"] for one in suspended if one["id"] != tenant]
    assert admin("tenant", "show", tenant).startswith(f"{tenant} (Acme): active")


def test_a_minted_token_works_until_it_is_revoked(admin: Admin, tenant: str, served: Running) -> None:
    out = admin("token", "mint", "ci", "--role", "worker", "--tenant", tenant, "--queue", "a*", "--queue", "b")
    [secret] = [word for word in out.split() if word.startswith("holdt_")]
    status, own = served.ask(secret, "GET", "/v1/tokens/self")
    assert (status, own["role"], own["queues"], own["tenant_id"]) == (200, "worker", ["a*", "b"], tenant)
    listing = admin("token", "list", "--tenant", tenant)
    assert own["id"] in listing and secret not in listing
    assert admin("token", "revoke", own["id"], "--tenant", tenant) == f"The token {own['id']} (ci) is revoked.\n"
    assert served.ask(secret, "GET", "/v1/tokens/self")[0] == 401


def test_a_token_may_have_networks_and_a_beginning(
    admin: Admin, tenant: str, served: Running, holdfast: Command
) -> None:
    words = ("token", "mint", "ci", "--role", "viewer", "--tenant", tenant, "--json")
    made = as_json(admin(*words, "--network", "10.1.0.0/16", "--network", "127.0.0.1"))
    assert made["token"]["networks"] == ["10.1.0.0/16", "127.0.0.1/32"]
    assert served.ask(made["secret"], "GET", "/v1/tokens/self")[0] == 200
    begins = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    later = as_json(admin(*words, "--not-before", begins))
    assert served.ask(later["secret"], "GET", "/v1/tokens/self")[1]["code"] == "auth/not-yet"
    listing = admin("token", "list", "--tenant", tenant)
    assert "10.1.0.0/16 127.0.0.1/32" in listing and begins.replace("T", " ") + ":00" in listing
    zoned = as_json(admin(*words, "--not-before", f"{begins}+01:00"))["token"]["not_before"]
    assert later["token"]["not_before"] - zoned == 3_600_000
    wrong = holdfast("token", "mint", "ci", "--role", "viewer", "--not-before", "soon", HOLDFAST_TOKEN="holds_x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "holdfast: --not-before takes a time, such as 2027-02-19T09:30Z; 'soon' is none\n"


def test_a_name_that_others_chose_gives_the_terminal_no_orders(
    admin: Admin, tenant: str, served: Running, holdfast: Command
) -> None:
    """A tenant names its tokens, and the system's administrator lists them."""
    owner = as_json(admin("token", "mint", "owner", "--role", "owner", "--tenant", tenant, "--json"))["secret"]
    order = "\x1b]0;gone\x07\x1b[2J\x9b31m\u202ered\r\n"
    status, made = served.ask(owner, "POST", "/v1/tokens", {"name": order, "role": "viewer"})
    assert status == 201
    heard = admin("token", "list", "--tenant", tenant) + admin("token", "list", "--tenant", tenant, "--json")
    heard += admin("token", "revoke", made["token"]["id"], "--tenant", tenant)
    assert "red" in heard and not set("\x1b\x07\x9b\u202e\r") & set(heard)


def test_an_owners_token_is_revoked_with_what_it_minted(admin: Admin, tenant: str, served: Running) -> None:
    owner = as_json(admin("token", "mint", "owner", "--role", "owner", "--tenant", tenant, "--json"))
    body = {"name": "heir", "role": "viewer"}
    status, heir = served.ask(owner["secret"], "POST", "/v1/tokens", body)
    assert (status, served.ask(heir["secret"], "GET", "/v1/tokens/self")[0]) == (201, 200)
    admin("token", "revoke", owner["token"]["id"], "--tenant", tenant, "--descendants")
    assert served.ask(heir["secret"], "GET", "/v1/tokens/self")[0] == 401


def test_a_rotated_token_ends_when_the_new_one_is_used(admin: Admin, tenant: str, served: Running) -> None:
    old = as_json(admin("token", "mint", "ci", "--role", "viewer", "--tenant", tenant, "--never-expires", "--json"))
    own = served.ask(served.tokens[0], "GET", "/v1/tokens/self")[1]
    assert old["token"]["expires_at"] == own["expires_at"]  # never, as far as its maker's own end allows
    new = as_json(admin("token", "rotate", old["token"]["id"], "--tenant", tenant, "--json"))
    assert served.ask(old["secret"], "GET", "/v1/tokens/self")[0] == 200
    assert served.ask(new["secret"], "GET", "/v1/tokens/self")[0] == 200
    assert served.ask(old["secret"], "GET", "/v1/tokens/self")[0] == 401


def test_tokens_that_end_soon_are_listed(admin: Admin, tenant: str, holdfast: Command) -> None:
    for name, days in (("soon", "10"), ("later", "60")):
        admin("token", "mint", name, "--role", "viewer", "--tenant", tenant, "--days", days)
    for within, names in (("14d", {"soon"}), ("2w", {"soon"}), ("90", {"soon", "later"}), ("9d", set())):
        found = as_json(admin("token", "list", "--tenant", tenant, "--expiring", within, "--json"))
        assert {token["name"] for token in found} == names, within
    wrong = holdfast("token", "list", "--expiring", "soon", HOLDFAST_TOKEN="holds_x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "holdfast: --expiring takes days or weeks, such as 14d or 2w; 'soon' is neither\n"


def test_a_refusal_of_the_server_is_told_in_its_own_words(holdfast: Command, served: Running) -> None:
    done = holdfast("tenant", "show", "nobody", HOLDFAST_URL=served.url, HOLDFAST_TOKEN=served.tokens[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "holdfast: There is no tenant 'nobody' here. (not-found)\n"


def test_without_a_token_or_a_server_one_sentence_says_what_to_do(holdfast: Command) -> None:
    without = holdfast("tenant", "list")
    assert (without.returncode, without.stdout) == (2, "")
    assert without.stderr == "holdfast: no token was given; set HOLDFAST_TOKEN or give --token\n"
    away = holdfast("tenant", "list", "--url", "http://127.0.0.1:1", HOLDFAST_TOKEN="holds_x")
    assert (away.returncode, away.stdout) == (1, "")
    assert away.stderr.startswith("holdfast: no server answers at http://127.0.0.1:1 ") and "--url" in away.stderr
