"""The tree of commands. A command is named by where it lives, so that only the one that is called is imported."""

from cyclopts import App

from service import __version__

app = App(
    "holdfast", help="The state service: tenants, executions, events, leased work.", version=f"holdfast {__version__}"
)
SERVE = """Migrate and serve; a new store prints its first token.

Serves until SIGTERM, SIGHUP or Ctrl-C, which drain: requests under way finish, waiting ones are answered, the exit code
is 0.
"""
SCHEDULER = """Sweep a Postgres store, and serve nobody.

Takes back leases that ran out, rings timers and schedules, carries jobs on, until SIGTERM, SIGHUP or Ctrl-C. Start as
many as you like: one at a time sweeps, another follows when it is gone. Start the servers beside it with
`--sweep false`.
"""
BACKUP = """Copy a SQLite store, served or not, to a new file.

Every page of the copy is checked. For Postgres use pg_dump or pg_basebackup.
"""
DOCTOR = """Examine a store: schema, engine, audit log, tokens.

Exit code 1 if anything fails. A SQLite file is examined while no server runs on it; of one that is served, examine a
copy that `holdfast backup` makes.
"""
DEV = """Serve from a temporary store, to try things on.

On 127.0.0.1 only, with a token, a definition and an execution to look at. Everything is lost at the end.
"""
app.command("service.cli.serve:serve", name="serve", help=SERVE)
app.command("service.cli.scheduler:scheduler", name="scheduler", help=SCHEDULER)
app.command("service.cli.store:migrate", name="migrate", help="Bring the schema of a store up to date.")
app.command("service.cli.store:init", name="init", help="Migrate and mint the first token, without serving.")
app.command("service.cli.store:backup", name="backup", help=BACKUP)
app.command("service.cli.token:app", name="token", help="Mint, list, rotate, revoke tokens.")
app.command("service.cli.tenant:app", name="tenant", help="Create, list, change, export, import tenants.")
app.command("service.cli.audit:app", name="audit", help="Verify and export audit logs.")
app.command("service.cli.config:app", name="config", help="Show the settings.")
app.command("service.cli.doctor:doctor", name="doctor", help=DOCTOR)
app.command("service.cli.openapi:openapi", name="openapi", help="Print the OpenAPI document.")
app.command("service.cli.dev:dev", name="dev", help=DEV)


@app.command
def version() -> None:
    """Print the version."""
    print(f"holdfast {__version__}")
