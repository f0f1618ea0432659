"""`holdfast tenant`: over HTTP, as the system's administrator; a tenant's owner may export it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from service.cli.refused import Refused
from service.cli.remote import SERVER, Server, Target, print_json

if TYPE_CHECKING:
    from service.portability.model import Manifest

app = App("tenant", help="Create, list, change, export, import tenants.")


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
    from service.cli.table import moment, plain, print_table

    tenant, usage = server.ask("GET", path(tenant_id)), server.ask("GET", f"{path(tenant_id)}/usage")
    if server.json:
        print_json({"tenant": tenant, "usage": usage})
        return
    created = moment(tenant["created_at"])
    since = f", created {created} UTC" if created else ""
    print(f"{tenant['id']} ({plain(tenant['name'])}): {tenant['status']}{since}\n")
    unset = {"execution_days": "the server's"}
    rows = [
        (name, usage.get(name), unset.get(name, "no limit") if most is None else most, told_near(name in usage["near"]))
        for name, most in tenant["limits"].items()
    ]
    print_table(("Of", "In use", "Limit", ""), rows)


def told_near(near: bool) -> str:
    """What is said beside a limit."""
    return "nearly reached" if near else ""


@app.command
def suspend(tenant_id: str, *, server: Target = SERVER) -> None:
    """Suspend a tenant: it is read, nothing changes."""
    told(server, server.ask("PATCH", path(tenant_id), {"status": "suspended"}))


@app.command
def resume(tenant_id: str, *, server: Target = SERVER) -> None:
    """Make a suspended tenant active again."""
    told(server, server.ask("PATCH", path(tenant_id), {"status": "active"}))


@app.command
def archive(tenant_id: str, *, server: Target = SERVER) -> None:
    """Archive a tenant: it is read, nothing changes, and nobody expects it to."""
    told(server, server.ask("PATCH", path(tenant_id), {"status": "archived"}))


@app.command
def export(
    tenant_id: str,
    *,
    output: Annotated[Path, Parameter(help="Write to this new file.")],
    reason: Annotated[str | None, Parameter(help="Why; needed by an administrator, and told to the tenant.")] = None,
    server: Target = SERVER,
) -> None:
    """Export everything that a tenant has but its tokens, as of one moment, as lines of JSON."""
    headers = {} if reason is None else {"holdfast-tenant": tenant_id, "holdfast-reason": reason}
    try:
        server.download(f"{path(tenant_id)}/export", output, headers)
    except Refused as refusal:
        if reason is None and (server.token or "").startswith("holds_"):
            raise Refused(f"{refusal}; an administrator exports a tenant with --reason", refusal.code) from None
        raise
    rows = rows_in(read(output))
    if server.json:
        print_json({"tenant_id": tenant_id, "rows": rows, "output": str(output)})
    else:
        print(f"{rows:,} rows of the tenant {tenant_id} are in {output}.")


@app.command(name="import")
def import_tenant(file: Path, *, server: Target = SERVER) -> None:
    """Import a tenant from a file. Nobody can use it until all of it is there; after an interruption, run it again.

    It comes without tokens: mint one with `holdfast token mint … --tenant`.
    """
    manifest = read(file)
    began = server.ask("POST", "/v1/imports", manifest_in(file))
    send(server, file, began["id"], began["next_part"])
    told(server, server.ask("POST", f"/v1/imports/{quote(began['id'], safe='')}/finish"))
    if not server.json:
        print(f"{rows_in(manifest):,} rows were imported.")


def read(file: Path) -> "Manifest":
    """The manifest of an export, all of which is in the file."""
    from service.portability.exported import NotAnExport, examined

    try:
        with file.open("rb") as lines:
            return examined(lines)
    except NotAnExport as error:
        raise Refused(f"{file}: {error}; export again") from None


def manifest_in(file: Path) -> Any:
    """The first line of an export, as it is sent."""
    import json

    with file.open("rb") as lines:
        return json.loads(next(lines))


def send(server: Server, file: Path, import_id: str, part: int) -> None:
    """The parts of an import from the next one on. A row goes as it stands in the file: spelt in another way it may be
    several times as long, and too long for the server."""
    from service.portability.exported import parts_of

    with file.open("rb") as lines:
        next(lines)
        for number, (table, rows) in enumerate(parts_of(lines), 1):
            if number >= part:
                body = b'{"part":%d,"table":"%s","rows":[%s]}' % (number, table.encode(), b",".join(rows))
                server.ask("POST", f"/v1/imports/{quote(import_id, safe='')}/parts", body)


def rows_in(manifest: "Manifest") -> int:
    """How many rows an export has."""
    return sum(table.rows for table in manifest.tables.values())


def path(tenant_id: str) -> str:
    """Where a tenant is."""
    return f"/v1/tenants/{quote(tenant_id, safe='')}"


def told(server: Server, tenant: Any) -> None:
    """How a tenant stands now."""
    if server.json:
        print_json(tenant)
    else:
        print(f"The tenant {tenant['id']} is {tenant['status']}.")
