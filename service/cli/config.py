"""`holdfast config`."""

import json
from typing import Literal

from cyclopts import App

from service.cli.options import Flags, settings
from service.cli.output import print_document
from service.settings import Loaded, describe, masked

app = App("config", help="Show the settings.")


@app.command
def show(*, origins: bool = False, format: Literal["table", "toml", "json"] = "table", flags: Flags = None) -> None:
    """Print every setting as the other commands would take it; passwords are masked.

    Parameters
    ----------
    origins
        Say for each where it comes from: a default, a file, the environment or a flag.
    format
        For people, for `holdfast.toml`, or for programs.
    """
    SHOWN[format](settings(flags), origins)


def table(loaded: Loaded, origins: bool) -> None:
    """Columns, for people."""
    from service.cli.table import print_table

    rows = [(name, value, origin) if origins else (name, value) for name, value, origin, _ in describe(loaded)]
    print_table(("Setting", "Value", "Origin") if origins else ("Setting", "Value"), rows)


def toml(loaded: Loaded, origins: bool) -> None:
    """Lines that `holdfast.toml` can hold."""
    for name, value in values(loaded).items():
        line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
        print_document(line + (f"  # {loaded.origins[name]}" if origins else "") + "\n")


def as_json(loaded: Loaded, origins: bool) -> None:
    """One object, for programs."""
    found = values(loaded)
    both = {name: {"value": value, "origin": loaded.origins[name]} for name, value in found.items()}
    print_document(json.dumps(both if origins else found, indent=2, ensure_ascii=False) + "\n")


def values(loaded: Loaded) -> dict[str, object]:
    """Every setting as it may be printed, in its own type."""
    typed = {name: getattr(loaded.settings, name) for name in loaded.origins}
    return {name: masked(name, value) if isinstance(value, str) else value for name, value in typed.items()}


SHOWN = {"table": table, "toml": toml, "json": as_json}
