"""The flags of every command that works on a store: one for each setting, made from the settings themselves."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from service.settings import FIELDS, Loaded, load

GROUP = Group("Settings", help="Each over holdfast.toml and the environment; see docs/settings.md.", sort_key=1)
FILE = Annotated[Path | None, Parameter(group=GROUP, help="Read settings from this TOML file.")]


def flag(name: str) -> tuple[str, Any, Any]:
    """One setting as a field; its text is read and checked with all the others, by `load`."""
    field = FIELDS[name]
    shown = str(field.default).lower() if field.kind is bool else field.default
    default = f" [default: {'empty' if shown == '' else shown}]"
    named = Parameter(group=GROUP, help=field.meaning + default, show_default=False)
    return name, Annotated[str | None, named], dataclasses.field(default=None)


if TYPE_CHECKING:

    class Given:
        """The flags that were given."""
else:
    config = ("config", FILE, dataclasses.field(default=None))
    named = {"__module__": __name__}  # else cyclopts cannot see into it
    Given = dataclasses.make_dataclass("Given", [config, *map(flag, FIELDS)], namespace=named)

Flags = Annotated[Given | None, Parameter(name="*")]


def settings(flags: Given | None) -> Loaded:
    """The settings from all four sources."""
    given = dict(vars(flags)) if flags is not None else {}
    return load(given.pop("config", None), os.environ, given)
