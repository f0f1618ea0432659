"""What an operator may set: every default, range and meaning is a line of `Settings`, and nowhere else.

Four sources, each over the one before: defaults, a TOML file, the environment (`HOLDFAST__PORT`), flags (`--port`).
`load` checks each of them, also where a later one wins, and refuses with every error at once; a Settings that code
constructs itself is not checked. The name has two underscores because Kubernetes gives every pod beside a service named
`holdfast` a `HOLDFAST_PORT=tcp://…` that nobody meant for us.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Struct

from service.tokens.secret import mask

PREFIX = "HOLDFAST__"
DEFAULT_FILE = Path("holdfast.toml")
NETWORKS = r"^[0-9A-Fa-f.:/, ]*$"
ROLE = r"^[a-z_][a-z0-9_]{0,62}$"
SECRET = frozenset({"database_url"})  # may hold a password: never printed as it is


def means(meaning: str) -> Meta:
    """Any value of the type."""
    return Meta(description=meaning)


def between(low: int, high: int, meaning: str) -> Meta:
    """An integer from `low` to `high`, both included."""
    return Meta(ge=low, le=high, description=meaning)


def text(pattern: str, takes: str, meaning: str) -> Meta:
    """A text that matches `pattern`, which a person reads as `takes`."""
    return Meta(pattern=pattern, description=meaning, extra={"takes": takes})


class Settings(Struct, frozen=True, kw_only=True):
    """All settings, flat. The unit, where there is one, ends the name."""

    # Where it listens and what it says
    host: Annotated[str, text(r"^\S+$", "an address or a host name", "Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, between(0, 65_535, "Port to listen on; 0 takes a free one.")] = 7400
    docs: Annotated[bool, means("Serve the API reference at /docs.")] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], means("The least important line that is logged.")
    ] = "info"
    log_format: Annotated[Literal["text", "json"], means("Log for people (text) or for programs (json).")] = "text"
    drain_delay_seconds: Annotated[
        int, between(0, 600, "Time at shutdown in which /readyz says no and all else goes on, for balancers to notice.")
    ] = 0
    drain_seconds: Annotated[int, between(0, 3600, "Time that requests under way get to finish at shutdown.")] = 10
    tls_certificate_file: Annotated[
        str, means("Serve HTTPS with this certificate (PEM, the chain after it); empty: plain HTTP.")
    ] = ""
    tls_key_file: Annotated[str, means("The certificate's private key (PEM, not encrypted).")] = ""

    # What a connection may take
    connections_max: Annotated[int, between(1, 1_000_000, "Most connections at once; beyond it: 503.")] = 10_000
    head_seconds_max: Annotated[
        int, between(1, 600, "Time a caller has to send a request's headers, the first from the start; beyond it: 408.")
    ] = 15
    idle_seconds_max: Annotated[int, between(1, 3600, "Time a connection stays open between two requests.")] = 75

    # What a request may cost
    body_bytes_max: Annotated[int, between(1024, 67_108_864, "Largest request body; beyond it: 413.")] = 1_048_576
    body_seconds_max: Annotated[int, between(1, 600, "Time a caller has to send the whole body.")] = 15
    wait_ms_max: Annotated[int, between(0, 600_000, "Longest long poll a caller may ask for.")] = 60_000
    scan_seconds_max: Annotated[
        int, between(0, 3600, "Time that one statement of a filtered list may take; beyond it: 422. 0 is without end.")
    ] = 10
    rates: Annotated[
        Literal["process", "shared"],
        means("Whether requests_per_second holds for each process by itself, or for all processes on a Postgres."),
    ] = "process"
    parked_max: Annotated[
        int, between(1, 1_000_000, "Long polls and streams waiting, of one tenant as many as are free; else 503.")
    ] = 8_000
    idempotency_hours: Annotated[int, between(1, 720, "How long the answer to an Idempotency-Key is kept.")] = 24

    # The database
    database_url: Annotated[
        str,
        text(
            r"^(sqlite:///|postgres(ql)?://).",
            "a URL sqlite:///… or postgresql://…",
            "The database; its password is never printed.",
        ),
    ] = "sqlite:///holdfast.db"
    sqlite_synchronous: Annotated[
        Literal["FULL", "NORMAL"],
        means("FULL syncs each commit; NORMAL is faster, but a power cut or system crash loses the last commits."),
    ] = "FULL"
    sqlite_path_lock: Annotated[bool, means("Lock the file, so that a second server says so and exits.")] = True
    postgres_connections_max: Annotated[int, between(2, 1000, "Most connections in the pool of this process.")] = 16
    postgres_batches_in_flight: Annotated[
        int,
        between(1, 64, "Batches committing at once; fewer than postgres_connections_max, so that reads get through."),
    ] = 2
    postgres_batch_commands_max: Annotated[int, between(1, 1000, "Most commands of one transaction on Postgres.")] = 256
    postgres_lock_ms_max: Annotated[
        int, between(10, 50_000, "Time that a write waits for a lock held by another session; beyond it: 503.")
    ] = 5_000
    postgres_pooler: Annotated[
        Literal["none", "transaction"],
        means("'transaction' where a pooler in transaction mode, such as PgBouncer, stands before the database."),
    ] = "none"
    postgres_app_role: Annotated[
        str, text(ROLE, "a role's name of a–z 0–9 _", "Role that acts for named tenants; `migrate` makes it.")
    ] = "holdfast_app"
    postgres_sweep_role: Annotated[
        str, text(ROLE, "a role's name of a–z 0–9 _", "Role that acts for every tenant; `migrate` makes it.")
    ] = "holdfast_sweep"
    postgres_unfenced: Annotated[
        bool, means("Serve also where Postgres does not keep tenants apart by row level security.")
    ] = False

    # Batches and sweeps
    batch_commands_max: Annotated[
        int, between(1, 1000, "Most commands of one transaction on SQLite; the loop waits for it.")
    ] = 256
    queue_commands_max: Annotated[
        int, between(1, 1_000_000, "Commands waiting for a batch, of one tenant as many as are free; else 503.")
    ] = 10_000
    sweep: Annotated[
        bool, means("Whether `serve` sweeps; false where `holdfast scheduler` does, which never asks for this.")
    ] = True
    sweep_interval_ms: Annotated[int, between(10, 60_000, "Time between two sweeps.")] = 500
    sweep_lease_ms: Annotated[
        int,
        between(500, 60_000, "Time after which another process on a Postgres sweeps, when the one that did is gone."),
    ] = 3_000

    # What is kept
    execution_days: Annotated[
        int, between(0, 36_500, "Days that executions are kept after their end; 0 keeps all of them.")
    ] = 0

    # The audit log
    audit_days: Annotated[int, between(0, 36_500, "Days that lines of audit logs are kept; 0 keeps all of them.")] = 0

    # Tokens
    bootstrap_token_file: Annotated[
        str, means("Read the first system token (holds_…) from this file; empty: mint one and print it.")
    ] = ""
    token_days_default: Annotated[int, between(1, 3650, "Life of a token that is created without an expiry.")] = 90
    token_days_max: Annotated[
        int, between(0, 3650, "Longest life of a token that is minted or rotated; 0: any, and one that never ends.")
    ] = 0
    token_warning_days: Annotated[
        int, between(0, 365, "Answers to a token that ends within so many days say so in Holdfast-Token-Expires.")
    ] = 14
    argon2_memory_kib: Annotated[int, between(8, 4_194_304, "Memory of one Argon2id hash.")] = 19_456
    argon2_time: Annotated[int, between(1, 100, "Passes of one Argon2id hash.")] = 2
    argon2_workers: Annotated[int, between(1, 64, "Threads that verify tokens not seen before.")] = 2
    argon2_queue_max: Annotated[int, between(1, 10_000, "Verifications waiting for a thread; beyond it: 503.")] = 64
    failures_per_minute: Annotated[
        int, between(1, 1_000_000, "Invalid tokens taken from one source address; beyond it: 429.")
    ] = 120
    trusted_proxies: Annotated[
        str,
        text(
            NETWORKS,
            "addresses and networks, separated by commas",
            "Proxies whose X-Forwarded-For says where a request comes from; empty: nobody's does.",
        ),
    ] = ""

    def __repr__(self) -> str:
        """Safe to log: secrets are masked."""
        return f"Settings({', '.join(f'{name}={masked(name, getattr(self, name))}' for name in FIELDS)})"


class Field(NamedTuple):
    """One setting as data; `takes` says in words what `hint` accepts."""

    hint: Any
    kind: type
    takes: str
    choices: tuple[str, ...]
    default: Any
    meaning: str


def _field(name: str, hint: Any, default: Any) -> Field:
    base, meta = get_args(hint)
    choices = get_args(base) if get_origin(base) is Literal else ()
    if choices:
        takes = "one of " + ", ".join(map(repr, choices))
    elif base is bool:
        takes = "true or false"
    elif base is int:
        takes = f"a whole number from {meta.ge} to {meta.le}"
    else:
        takes = (meta.extra or {}).get("takes", "text")
    return Field(hint, str if choices else base, takes, choices, default, meta.description)


FIELDS: dict[str, Field] = {
    name: _field(name, hint, getattr(Settings(), name))
    for name, hint in get_type_hints(Settings, include_extras=True).items()
}


class Loaded(Struct, frozen=True):
    """The settings and, for each, where its value came from: `default`, `toml:<file>`, `environment:…` or `flag:…`."""

    settings: Settings
    origins: dict[str, str]


class SettingsError(Exception):
    """The settings cannot be used; `errors` has a sentence for each thing wrong, never the text of a secret."""

    def __init__(self, errors: list[str]) -> None:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n  - ".join([f"{count} in the settings:", *errors]))
        self.errors = errors


class _Source(NamedTuple):
    """Offered values by field name; `spell` gives a name as this source writes it, `origin` where its value is from."""

    offered: Mapping[str, Any]
    spell: Callable[[str], str]
    origin: Callable[[str], str]


def load(toml_path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Loaded:
    """Settings from defaults < TOML < environment < flags, or a SettingsError with every problem of every source.

    The file is `toml_path`, else `HOLDFAST_CONFIG`, else `./holdfast.toml` if there is one. `flags` is keyed by field
    name; None means not given, and a text is read as the environment's would be.
    """
    errors: list[str] = []
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    for source in (_toml(toml_path, environ, errors), _environment(environ), _flags(flags)):
        for name, value in source.offered.items():
            if problem := _problem(name, value, source):
                errors.append(problem)
            else:
                values[name], origins[name] = value, source.origin(name)
    errors += _one_underscore(environ)
    settings = Settings(**values)
    if settings.postgres_batches_in_flight >= settings.postgres_connections_max:
        errors.append(_too_few_connections(settings, origins))
    if wrong := _not_networks(settings.trusted_proxies):
        errors.append(f"trusted_proxies: {wrong} ({origins['trusted_proxies']})")
    if bool(settings.tls_certificate_file) != bool(settings.tls_key_file):
        errors.append("tls_certificate_file and tls_key_file: give both, for HTTPS, or neither")
    if errors:
        raise SettingsError(errors)
    return Loaded(settings, origins)


def masked(name: str, value: object) -> str:
    """`value` as it may be printed: the passwords of a database URL become `***`, in doubt too much of it. A token that
    was given in place of its file's name is masked as everywhere."""
    shown = str(value).lower() if isinstance(value, bool) else mask(str(value))
    if name not in SECRET or shown.startswith("sqlite:"):
        return shown
    shown = re.sub(r"^((?:[^:/]+:/+)?+[^:]*):.*@", r"\1:***@", shown, flags=re.DOTALL)
    return re.sub(r"([?&]([^=&]*)=)[^&]*", lambda pair: _without_password(*pair.group(0, 1, 2)), shown)


def _without_password(pair: str, key: str, name: str) -> str:
    """`&key=value` of a URL's query; a `name` may have any of its letters escaped (`%70assword`)."""
    return f"{key}***" if "pass" in unquote(name).lower() else pair


def describe(loaded: Loaded) -> list[tuple[str, str, str, str]]:
    """(name, value, origin, meaning) of every setting in the order of `Settings`, secrets masked."""
    return [
        (name, masked(name, getattr(loaded.settings, name)), loaded.origins[name], field.meaning)
        for name, field in FIELDS.items()
    ]


def as_markdown() -> str:
    """The whole of `docs/settings.md`."""
    rows = (
        f"| `{name}` | {f'`{masked(name, field.default)}`' if field.default != '' else 'empty'} "
        f"| {field.takes} | {field.meaning} |"
        for name, field in FIELDS.items()
    )
    return _MARKDOWN_HEAD + "\n".join(rows) + "\n"


_MARKDOWN_HEAD = """\
# Settings

A setting has one value from four sources, each over the one before: its default, a TOML file, the environment, a flag.

| Source | Written |
|---|---|
| TOML | `port = 7400`, flat; the file is `--config`, else `HOLDFAST_CONFIG`, else `./holdfast.toml` if there is one |
| environment | `HOLDFAST__PORT=7400`, with two underscores |
| flag | `--port 7400` |

A key or variable that is not a setting, or a value that is not taken, is an error; all errors are told at once.
`holdfast config show --origins` prints every value and where it came from.

| Setting | Default | Takes | Meaning |
|---|---|---|---|
"""


def _toml(path: Path | None, environ: Mapping[str, str], errors: list[str]) -> _Source:
    named = path or (Path(environ["HOLDFAST_CONFIG"]) if environ.get("HOLDFAST_CONFIG") else None)
    file = named or DEFAULT_FILE
    offered: dict[str, Any] = {}
    if named or os.path.lexists(file):  # a link that leads nowhere is there, and is told of
        try:
            offered = tomllib.loads(file.read_text("utf-8"))
        except OSError as error:
            errors.append(f"{file}: cannot be opened: {error.strerror}")
        except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, too many digits or lists in lists
            errors.append(f"{file}: is not TOML: {error}")
    return _Source(offered, str, lambda _: f"toml:{file}")


def _environment(environ: Mapping[str, str]) -> _Source:
    def spell(name: str) -> str:
        return PREFIX + name.swapcase()  # its own inverse, so a name in the wrong case stays unknown

    given = {key.removeprefix(PREFIX).swapcase(): raw for key, raw in environ.items() if key.startswith(PREFIX)}
    return _Source(_parsed(given), spell, lambda name: f"environment:{spell(name)}")


def _one_underscore(environ: Mapping[str, str]) -> list[str]:
    """Settings that would go unheard for want of the second underscore; Kubernetes' own is nobody's mistake."""
    return [
        f"{name}: unknown setting (environment:{name}); did you mean '{PREFIX}{field.upper()}'?"
        for field in FIELDS
        if (name := f"{PREFIX[:-1]}{field.upper()}") in environ and not environ[name].startswith(("tcp:", "udp:"))
    ]


def _flags(flags: Mapping[str, Any]) -> _Source:
    def spell(name: str) -> str:
        return "--" + name.replace("_", "-")

    given = {name: value for name, value in flags.items() if value is not None}
    return _Source(_parsed(given), spell, lambda name: f"flag:{spell(name)}")


def _parsed(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _parse(name, raw) if isinstance(raw, str) else raw for name, raw in given.items()}


def _parse(name: str, raw: str) -> Any:
    """`raw` by the field's type; as it is where it cannot be read, for the check to refuse."""
    kind = FIELDS[name].kind if name in FIELDS else str
    word = raw.strip().lower()
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(word, raw)
    if kind is int and re.fullmatch(r"-?[0-9]{1,18}", word):
        return int(word)
    return raw


def _problem(name: str, value: Any, source: _Source) -> str | None:
    """Why `value` cannot be taken, as a sentence that begins with the name; None if it can."""
    if name not in FIELDS:
        near = difflib.get_close_matches(name.lower(), FIELDS, n=1)
        hint = f"; did you mean {source.spell(near[0])!r}?" if near else ""
        return f"{source.spell(name)}: unknown setting ({source.origin(name)}){hint}"
    field = FIELDS[name]
    try:
        msgspec.convert(value, field.hint)
        return None
    except (msgspec.ValidationError, UnicodeEncodeError):
        near = difflib.get_close_matches(str(value), field.choices, n=1) if field.choices else []
        near = near or [choice for choice in field.choices if choice.lower() == str(value).lower()]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        offered = "the value (not shown)" if name in SECRET else repr(value)
        return f"{name}: {offered} is not {field.takes} ({source.origin(name)}){hint}"


def _not_networks(text: str) -> str | None:
    """What is no network in a list of them."""
    try:
        [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError as error:
        return str(error)
    return None


def _too_few_connections(settings: Settings, origins: Mapping[str, str]) -> str:
    batches, connections = settings.postgres_batches_in_flight, settings.postgres_connections_max
    return (
        f"postgres_batches_in_flight: {batches} ({origins['postgres_batches_in_flight']}) is not fewer than "
        f"postgres_connections_max, {connections} ({origins['postgres_connections_max']})"
    )
