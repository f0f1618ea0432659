"""`holdfast audit`: export over HTTP; verify with the store in hand, or an export without it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from service.cli.options import StoreFlags, settings
from service.cli.refused import Refused
from service.cli.remote import SERVER, Target
from service.cli.store import refuse_missing
from service.settings import Settings

if TYPE_CHECKING:
    from service.kernel.audit import Chain

app = App("audit", help="Verify and export audit logs.")


@app.command
def export(
    *,
    output: Annotated[Path | None, Parameter(help="Write to this new file; without it, to the terminal.")] = None,
    after: Annotated[int, Parameter(help="Only lines after this sequence, where an earlier export ended.")] = 0,
    server: Target = SERVER,
) -> None:
    """Export the audit log of the token's tenant (the system's, for a system token), as lines of JSON."""
    server.download(f"/v1/audit:export?after={after}", output)


@app.command
def verify(
    file: Annotated[Path | None, Parameter(help="An export to verify, without any store.")] = None,
    *,
    tenant: Annotated[str | None, Parameter(help="Only this tenant's chain; `system` for the system's.")] = None,
    flags: StoreFlags = None,
) -> None:
    """Verify every audit chain of a store, or an export. Exit code 1 if one is not whole.

    A SQLite file is examined while no server runs on it.
    """
    chains = of_file(file) if file is not None else asyncio.run(of_store(settings(flags).settings, tenant))
    for whose, chain in chains:
        print(f"{'FAIL' if chain.fault else 'ok':<5} the chain {whose} {chain.fault or said(chain)}")
    if any(chain.fault for _, chain in chains):
        raise Refused("an audit log is not whole; compare with a backup, and find out who could write to the store")


def said(chain: "Chain") -> str:
    """What is to be said of a whole chain. Whoever notes sequence and hash can hold a later one to them."""
    return f"is whole: {chain.lines} line(s), the last {chain.sequence} {chain.hash}"


def of_file(file: Path) -> "list[tuple[str, Chain]]":
    """The chain of an export."""
    from service.audit.exported import NotAnExport, verified
    from service.kernel.chain import named

    try:
        with file.open("rb") as lines:
            manifest, chain = verified(lines)
    except NotAnExport as error:
        raise Refused(f"{file}: {error}; export again") from None
    return [(named(manifest.tenant_id or ""), chain)]


async def of_store(found: Settings, tenant: str | None) -> "list[tuple[str, Chain]]":
    """The chains of a store, in one snapshot."""
    from service.kernel.chain import all_followed, followed, named
    from service.main import open_store

    refuse_missing(found)
    backend = await open_store(found)
    try:
        await backend.check()
        if tenant is None:
            return [(named(name), chain) for name, chain in await backend.read(all_followed, tenants=None, scan=True)]
        name = "" if tenant == "system" else tenant
        chain = await backend.read(lambda tx: followed(tx, name), tenants=None, scan=True)
        if not chain.sequence and not chain.fault:
            raise Refused(f"there is no audit log of a tenant {tenant!r} here; `holdfast tenant list` names them", 2)
        return [(named(name), chain)]
    finally:
        await backend.close()
