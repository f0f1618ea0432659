"""Holdfast, the service. This page is the map.

Layers, each knowing only those above it in this list:

    errors, settings     what can go wrong (`CODES`), what may be set
    kernel/              commands become commits: batches, rows, facts, events, limits, audit
    http/                endpoints, problem documents, lists, the OpenAPI document
    <capability>/        listed in `capabilities`: ground (tenants, tokens, definitions) ← spine (executions, history,
                         work, transitions) ← guests (all others)
    main, cli/           the composition root and the command line

Neither kernel nor http knows a capability. The spine never names a guest: it tells facts, guests listen. Only `main`
connects to a store.

Files of a capability, always the same:

    __init__   one paragraph: what it is, its states, its events
    model      Structs: rows, commands, replies, facts; the status table
    rules      pure: which rows a command needs (`keys`), what it does to them (`decide`)
    store      its tables: the statements that load, insert, update, delete
    claims     only where the database chooses rows: what is ready, what has expired
    routes     its endpoints: path, permission, body, answer, errors, declared once
    examples   a request and an answer of each endpoint, for the OpenAPI document
    sweeps     only where time passes

and, where one needs more, files named after what they hold: `routes_items`, `rules_settling`.

From an operation to its rule, in two steps: its tag in `openapi/openapi.json` is its capability; there its `Endpoint`
in `routes` names the command, and the command's `Rule`, at the end of `rules`, the functions that say what it needs and
what it does.

The path of a request, in the order in which to read:

    http.app.respond → tokens.directory.authenticate → an endpoint's handler → kernel.run.Kernel: the batch
    → kernel.working_set (load) → rules.decide over a kernel.view.View → kernel.working_set (flush) → commit → answer

To add a capability: `migrations/000n_<name>.sql` → `backends/sql/<name>.sql` → `service/<name>/` with the files above →
its name in `capabilities` → `tests/<name>/` → `holdfast openapi --output openapi/openapi.json`. No file grows but the
list, and no method is ever added to the seam (`backends.protocol`). `tests/tidy` holds the house to this page.
"""

__version__ = "0.1.0"
