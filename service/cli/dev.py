"""`holdfast dev`: a service to try things on, gone when it ends."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from service.cli.ended import in_peace
from service.cli.options import Flags, settings
from service.cli.refused import Refused
from service.settings import Loaded, Settings

HOST = "127.0.0.1"
TENANT = "default"


def dev(*, flags: Flags = None) -> None:
    """Serve on 127.0.0.1 from a temporary store, with a token, a definition and an execution ready to look at.

    Everything is lost at exit.
    """
    with in_peace(), tempfile.TemporaryDirectory(prefix="holdfast-dev-") as folder:
        from service import main  # which takes a while as well
        from service.logging import set_up

        found = throw_away(settings(flags), Path(folder))
        set_up(found.log_level, found.log_format)

        async def ready(services: Any, port: int) -> None:
            await welcome(services, f"http://{HOST}:{port}")

        main.run(found, ready)
    print("Stopped; everything is gone.")


def throw_away(loaded: Loaded, folder: Path) -> Settings:
    """The settings with a store in `folder`; refused where they want to be reached from elsewhere, or keep a store."""
    found, origins = loaded.settings, loaded.origins
    if found.host not in (HOST, "localhost"):
        raise Refused(f"dev listens on {HOST} only, not on {found.host!r} ({origins['host']}); use `holdfast serve`", 2)
    if origins["database_url"].startswith("flag:"):
        raise Refused("dev keeps nothing, so it takes no --database-url; use `holdfast serve`", 2)
    return msgspec.structs.replace(
        found, host=HOST, database_url=f"sqlite:///{folder / 'dev.db'}", bootstrap_token_file=""
    )


async def welcome(services: Any, url: str) -> None:
    """Make something to look at, and say how to."""
    from service.cli import sample
    from service.tokens.bootstrap import bootstrap

    token = await bootstrap(services, tenant_id=TENANT, role="owner", name="dev")
    execution = await sample.started(services, TENANT)
    docs = f"The API, to read and to try with that token: {url}/docs\n\n" if services.settings.docs else ""
    print(
        f"Holdfast for development at {url} (this machine only).\n"
        "The store is temporary: everything is lost at exit.\n\n"
        f"Owner token of the tenant {TENANT!r}:\n\n    {token}\n\n"
        f"An execution of the definition {sample.WORKFLOW}/{sample.VERSION} has begun; look at it:\n\n"
        f"    curl -s -H 'Authorization: Bearer {token}' {url}/v1/executions/{execution}\n\n"
        f"{docs}Ctrl-C ends it.",
        flush=True,
    )
