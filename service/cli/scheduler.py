"""`holdfast scheduler`."""

from typing import Any

from service import __version__
from service.cli.ended import in_peace
from service.cli.options import Flags, settings
from service.cli.output import announce
from service.cli.refused import Refused
from service.settings import masked


def scheduler(*, flags: Flags = None) -> None:
    """Sweep a Postgres store, and serve nobody: leases that ran out, timers, schedules, jobs; until SIGTERM, SIGHUP or
    Ctrl-C.

    Start as many as you like: one at a time sweeps, another follows within 5 s when it is gone, at once when it is
    stopped. Servers beside it sweep as well unless they are started with `--sweep false`.
    """
    with in_peace():
        start(flags)


def start(flags: Flags) -> None:
    """Do so; importing what sweeps takes a while as well."""
    from service import main
    from service.logging import set_up

    found = settings(flags).settings
    if found.database_url.startswith("sqlite:"):
        raise Refused(
            "a SQLite file belongs to one process, which sweeps it itself: start `holdfast serve` with sweep = true; "
            "`holdfast scheduler` is for Postgres",
            2,
        )
    set_up(found.log_level, found.log_format)

    def ready(services: Any) -> None:
        store = masked("database_url", found.database_url)
        announce(f"Holdfast {__version__} schedules {store} as {services.lease.holder}")

    main.run_scheduler(found, ready)
