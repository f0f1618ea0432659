"""The tree of commands. A command is named by where it lives, so that only the one that is called is imported."""

from cyclopts import App

from service import __version__

app = App(
    "holdfast", help="The state service: tenants, executions, events, leased work.", version=f"holdfast {__version__}"
)
app.command("service.cli.serve:serve", name="serve", help="Migrate and serve; a new store prints its first token.")
app.command("service.cli.scheduler:scheduler", name="scheduler", help="Sweep a Postgres store, and serve nobody.")
app.command("service.cli.store:migrate", name="migrate", help="Bring the schema of a store up to date.")
app.command("service.cli.store:init", name="init", help="Migrate and mint the first token, without serving.")
app.command("service.cli.store:backup", name="backup", help="Copy a SQLite store, served or not, to a new file.")
app.command("service.cli.token:app", name="token", help="Mint, list, rotate, revoke tokens.")
app.command("service.cli.tenant:app", name="tenant", help="Create, list, change, export, import tenants.")
app.command("service.cli.audit:app", name="audit", help="Verify and export audit logs.")
app.command("service.cli.config:app", name="config", help="Show the settings.")
app.command("service.cli.doctor:doctor", name="doctor", help="Examine a store: schema, engine, audit log, tokens.")
app.command("service.cli.openapi:openapi", name="openapi", help="Print the OpenAPI document.")
app.command("service.cli.dev:dev", name="dev", help="Serve from a temporary store, to try things on.")


@app.command
def version() -> None:
    """Print the version."""
    print(f"holdfast {__version__}")
