"""`holdfast serve`."""

from typing import Any

from service import __version__
from service.cli.ended import in_peace
from service.cli.options import Flags, settings
from service.cli.output import announce
from service.settings import Settings, masked


def serve(*, flags: Flags = None) -> None:
    """Bring the schema up to date and serve until SIGTERM, SIGHUP or Ctrl-C.

    On a store that never had one, a system admin token is printed, once. Each of the three drains: requests under way
    finish, waiting ones are answered, the exit code is 0, as it is where there was nothing to drain yet.
    """
    with in_peace():
        start(flags)


def start(flags: Flags) -> None:
    """Do so; importing what is served takes a while as well."""
    from service import main
    from service.cli.first_token import introduce
    from service.logging import set_up

    found = settings(flags).settings
    set_up(found.log_level, found.log_format)

    async def ready(services: Any, port: int) -> None:
        await introduce(services, found)
        store = masked("database_url", found.database_url)
        announce(f"Holdfast {__version__} serves {store} at {url(found, port)}")

    main.run(found, ready)


def url(found: Settings, port: int) -> str:
    """Where the service answers."""
    host = f"[{found.host}]" if ":" in found.host else found.host
    scheme = "https" if found.tls_certificate_file else "http"
    return f"{scheme}://{host}:{port}"
