"""`holdfast tenant`: over HTTP, as the system's administrator."""

from typing import Any, Literal
from urllib.parse import quote

from cyclopts import App

from service.cli.remote import SERVER, Server, Target, print_json

app = App("tenant", help="Create, list, show, suspend, resume tenants.")


@app.command
def create(tenant_id: str, *, name: str | None = None, server: Target = SERVER) -> None:
    """Make a tenant."""
    body = {"id": tenant_id} | ({"name": name} if name is not None else {})
    told(server, server.ask("POST", "/v1/tenants", body))


@app.command(name="list")
def list_tenants(
    *, status: Literal["active", "suspended", "archived", "deleting"] | None = None, server: Target = SERVER
) -> None:
    """List tenants."""
    from service.cli.table import moment, print_table

    items = server.pages("/v1/tenants", status=status)
    if server.json:
        print_json(items)
        return
    rows = [(one["id"], one["name"], one["status"], moment(one["created_at"])) for one in items]
    print_table(("Id", "Name", "Status", "Created"), rows)


@app.command
def show(tenant_id: str, *, server: Target = SERVER) -> None:
    """Show a tenant, its limits and what it uses of them."""
    from service.cli.table import moment, print_table

    tenant, usage = server.ask("GET", path(tenant_id)), server.ask("GET", f"{path(tenant_id)}/usage")
    if server.json:
        print_json({"tenant": tenant, "usage": usage})
        return
    print(f"{tenant['id']} ({tenant['name']}): {tenant['status']}, created {moment(tenant['created_at'])} UTC\n")
    rows = [(name, usage.get(name), "no limit" if most is None else most) for name, most in tenant["limits"].items()]
    print_table(("Of", "In use", "Limit"), rows)


@app.command
def suspend(tenant_id: str, *, server: Target = SERVER) -> None:
    """Suspend a tenant: it is read, nothing changes."""
    told(server, server.ask("PATCH", path(tenant_id), {"status": "suspended"}))


@app.command
def resume(tenant_id: str, *, server: Target = SERVER) -> None:
    """Make a suspended tenant active again."""
    told(server, server.ask("PATCH", path(tenant_id), {"status": "active"}))


def path(tenant_id: str) -> str:
    """Where a tenant is."""
    return f"/v1/tenants/{quote(tenant_id, safe='')}"


def told(server: Server, tenant: Any) -> None:
    """How a tenant stands now."""
    if server.json:
        print_json(tenant)
    else:
        print(f"The tenant {tenant['id']} is {tenant['status']}.")
