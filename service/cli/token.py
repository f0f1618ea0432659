"""`holdfast token`: over HTTP, except `bootstrap`, which needs the store in hand."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from service.cli.options import StoreFlags, settings
from service.cli.refused import Refused
from service.cli.remote import SERVER, Server, Target, print_json
from service.cli.store import refuse_missing
from service.settings import Settings

app = App("token", help="Mint, list, rotate, revoke tokens.")
Role = Literal["owner", "operator", "developer", "worker", "reviewer", "viewer", "auditor", "admin", "scheduler"]
Tenant = Annotated[
    str | None, Parameter(help="For the system's administrator: whose token; `system` for the system's own.")
]
Days = Annotated[int | None, Parameter(help="Days until its end; without it, as many as the server gives.")]
DaysInHand = Annotated[int | None, Parameter(help="Days until its end; without it, 90.")]
Begin = Annotated[
    str | None, Parameter(help="When it begins to work: 2027-02-19T09:30Z, 2027-02-19; UTC unless it says otherwise.")
]
Never = Annotated[bool, Parameter(negative=(), help="The token never expires.")]


@app.command
def mint(
    name: str,
    *,
    role: Role,
    tenant: Tenant = None,
    queue: Annotated[
        list[str] | None, Parameter(help="A glob of queues that a worker may use; may be repeated.", negative=())
    ] = None,
    network: Annotated[
        list[str] | None,
        Parameter(help="A network from which alone it may be used, 10.0.0.0/8; may be repeated.", negative=()),
    ] = None,
    not_before: Begin = None,
    days: Days = None,
    never_expires: Never = False,
    server: Target = SERVER,
) -> None:
    """Mint a token; its secret is printed once."""
    body: dict[str, Any] = {"name": name, "role": role, "tenant_id": tenant, "queues": queue or []}
    body |= {"expires_in_days": days, "never_expires": never_expires, "networks": network or []}
    body["not_before"] = None if not_before is None else millis(not_before)
    minted(server, server.ask("POST", "/v1/tokens", body))


@app.command(name="list")
def list_tokens(*, tenant: Tenant = None, expiring: str | None = None, server: Target = SERVER) -> None:
    """List tokens.

    Parameters
    ----------
    expiring
        Only those that end within this time: `14d`, `2w`, or a number of days.
    """
    from service.cli.table import print_table

    within = None if expiring is None else days_of(expiring)
    items = server.pages("/v1/tokens", tenant_id=tenant, expiring_within=within)
    if server.json:
        print_json(items)
    else:
        heads = ("Id", "Name", "Role", "Tenant", "Networks", "Begins", "Expires", "Last used", "From", "Revoked")
        print_table(heads, map(row, items))


def days_of(text: str) -> int:
    """`14d`, `2w` or `14` in days."""
    found = re.fullmatch(r"([0-9]{1,4})([dw]?)", text)
    if found is None:
        raise Refused(f"--expiring takes days or weeks, such as 14d or 2w; {text!r} is neither", 2)
    return int(found[1]) * (7 if found[2] == "w" else 1)


def millis(text: str) -> int:
    """A time as people write it, in milliseconds since the epoch."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"--not-before takes a time, such as 2027-02-19T09:30Z; {text!r} is none", 2) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def row(token: Any) -> tuple[object, ...]:
    """A token as a line of the list."""
    from service.cli.table import moment

    begins, ends, used, revoked = (
        moment(token[name]) for name in ("not_before", "expires_at", "last_used_at", "revoked_at")
    )
    whose, source, networks = token["tenant_id"] or "system", token["last_used_from"], " ".join(token["networks"])
    named = token["id"], token["name"], token["role"], whose, networks
    return *named, begins, ends or "never", used, source, revoked


@app.command
def revoke(token_id: str, *, descendants: bool = False, tenant: Tenant = None, server: Target = SERVER) -> None:
    """End a token; the next request with it is refused.

    Parameters
    ----------
    descendants
        End also the tokens of the same tenant that it minted, and those that these minted.
    """
    from service.cli.table import plain

    asked = "true" if descendants else None
    path = f"/v1/tokens/{quote(token_id, safe='')}"
    answer = server.ask("DELETE", path, tenant_id=tenant, descendants=asked)
    if server.json:
        print_json(answer)
    else:
        print(f"The token {answer['id']} ({plain(answer['name'])}) is revoked.")


@app.command
def rotate(
    token_id: str,
    *,
    tenant: Tenant = None,
    grace_seconds: int | None = None,
    days: Days = None,
    server: Target = SERVER,
) -> None:
    """Mint a token in place of another, which ends when the new one is first used.

    Parameters
    ----------
    grace_seconds
        How long the old token lives if the new one is not used.
    """
    body = {"grace_seconds": grace_seconds, "expires_in_days": days}
    given = {name: value for name, value in body.items() if value is not None}
    path = f"/v1/tokens/{quote(token_id, safe='')}/rotate"
    minted(server, server.ask("POST", path, given, tenant_id=tenant))


@app.command
def bootstrap(
    *, name: str = "bootstrap", days: DaysInHand = None, never_expires: Never = False, flags: StoreFlags = None
) -> None:
    """Mint a system admin token with the store in hand: no token is needed, the server need not run."""
    import asyncio

    from service.cli.first_token import show

    found = settings(flags).settings
    refuse_unfit(name, days, never_expires)
    refuse_longer(found, days, never_expires)
    text = asyncio.run(another(found, name, None if never_expires else days or 90))
    show("System admin token", text)


def refuse_unfit(name: str, days: int | None, never_expires: bool) -> None:
    """What a server would refuse to mint is not minted without one either."""
    from service.tokens.model import DAYS_MAX, NAME_MAX

    if not 1 <= len(name) <= NAME_MAX:
        raise Refused(f"--name takes 1 to {NAME_MAX} characters; this has {len(name)}", 2)
    if days is not None and never_expires:
        raise Refused("a token that never expires has no --days; leave one of the two out", 2)
    if days is not None and not 1 <= days <= DAYS_MAX:
        raise Refused(f"--days takes a whole number from 1 to {DAYS_MAX}; {days} is none", 2)


def refuse_longer(found: Settings, days: int | None, never_expires: bool) -> None:
    """A life beyond what the settings allow, likewise."""
    if (most := found.token_days_max) and (never_expires or (days or 0) > most):
        asked = "--never-expires" if never_expires else f"--days {days}"
        raise Refused(f"a token may live {most} days here (token_days_max), less than {asked}; ask for less", 2)


async def another(found: Settings, name: str, days: int | None) -> str:
    """A new administrator's token in the store as it is; its schema must fit."""
    import msgspec

    from service.main import running
    from service.tokens import bootstrap as tokens

    refuse_missing(found)
    async with running(msgspec.structs.replace(found, sweep=False), migrate=False) as services:
        return await tokens.bootstrap(services, name=name, days=days)


def minted(server: Server, answer: Any) -> None:
    """A new token and, this once, its secret."""
    from service.cli.first_token import show
    from service.cli.table import moment

    if server.json:
        print_json(answer)
        return
    token = answer["token"]
    if answer["secret"] is None:
        raise Refused(f"the token {token['id']} was minted before, and its secret shown then; rotate it")
    ends = moment(token["expires_at"])
    whose = (
        f"{token['role']} of {token['tenant_id'] or 'the system'}, {f'until {ends} UTC' if ends else 'without an end'}"
    )
    show(f"Token {token['id']} ({whose})", answer["secret"])
