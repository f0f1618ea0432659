"""The flags of every command that works on a store: one for each setting, made from the settings themselves."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from service.settings import FIELDS, Loaded, load

GROUP = Group("Settings", help="Each over holdfast.toml and the environment; see docs/settings.md.", sort_key=1)
FILE = Annotated[Path | None, Parameter(group=GROUP, help="Read settings from this TOML file.")]


STORES = ("database_url", "sqlite_", "postgres_", "bootstrap_")
"""How the settings begin that mean something where nobody is served."""


def flag(name: str, shown: bool) -> tuple[str, Any, Any]:
    """One setting as a field; its text is read and checked with all the others, by `load`."""
    field = FIELDS[name]
    said = str(field.default).lower() if field.kind is bool else field.default
    default = f" [default: {'empty' if said == '' else said}]"
    named = Parameter(group=GROUP, help=field.meaning + default, show_default=False, show=shown)
    return name, Annotated[str | None, named], dataclasses.field(default=None)


if TYPE_CHECKING:

    class Given:
        """The flags that were given."""

    class GivenToStore(Given):
        """The same, of a command whose help shows those of a store alone."""
else:
    config = ("config", FILE, dataclasses.field(default=None))
    named = {"__module__": __name__}  # else cyclopts cannot see into it
    Given = dataclasses.make_dataclass("Given", [config, *(flag(name, True) for name in FIELDS)], namespace=named)
    few = [flag(name, name.startswith(STORES)) for name in FIELDS]
    GivenToStore = dataclasses.make_dataclass("GivenToStore", [config, *few], namespace=named)

Flags = Annotated[Given | None, Parameter(name="*")]
StoreFlags = Annotated[GivenToStore | None, Parameter(name="*")]


def settings(flags: Given | None) -> Loaded:
    """The settings from all four sources."""
    given = dict(vars(flags)) if flags is not None else {}
    return load(given.pop("config", None), os.environ, given)
