"""What to do about each refusal: a sentence or two for every code of `service.errors.CODES`, for `/problems/{code}`."""

REMEDIES: dict[str, str] = {
    "request/malformed": (
        "Compare the path, the query parameters and the headers with the operation in /openapi.json; `detail` "
        "names the one that cannot be read."
    ),
    "request/json": (
        "Send one JSON document in UTF-8: no byte order mark, no NUL, no half surrogate pairs, at most 100 levels "
        "deep, integers within 64 bits."
    ),
    "request/filter": (
        "Compare the filter with the grammar in `detail`. Fields that a list does not know are refused, never ignored."
    ),
    "request/cursor": (
        "Start again without a cursor. A cursor belongs to one tenant, one list and one filter, and cannot be "
        "written by hand."
    ),
    "request/route": "Compare the path with /openapi.json. Ids in a path must be percent-encoded.",
    "request/method": "The path exists with another method; see /openapi.json.",
    "request/timeout": (
        "Send headers and body at once, over a connection that carries them. Operators may raise `head_seconds_max` "
        "and `body_seconds_max`."
    ),
    "request/too-long": "Shorten the path: the ids in it have at most 256 characters each.",
    "request/headers": "Send fewer or shorter headers; cookies, for one, mean nothing here.",
    "request/too-large": (
        "Send less, or in parts. Large things belong into a blob store, with their address in the payload. "
        "Operators may raise `body_bytes_max`."
    ),
    "request/media-type": "Send `Content-Type: application/json`, uncompressed.",
    "request/invalid": (
        "Correct every place that `errors` lists; each has a JSON pointer and a sentence. The same request will be "
        "refused again."
    ),
    "request/too-slow": (
        "Narrow it: ask for a status, a queue or a workflow besides the filter, or filter by a label or an attribute, "
        "which have an index. Operators may raise `scan_seconds_max`."
    ),
    "auth/missing": (
        "Send `Authorization: Bearer hold…`. An owner mints tokens with POST /v1/tokens; the first one is printed by "
        "`holdfast serve` or `holdfast init`, on a new store."
    ),
    "auth/malformed": "The header must read `Authorization: Bearer` and the token, separated by one space.",
    "auth/invalid": (
        "Check that the token was copied whole (72 characters) and belongs to this service. If it is lost, an "
        "owner mints another."
    ),
    "auth/not-yet": "Wait until `not_before`, in milliseconds since the epoch, or use another token until then.",
    "auth/expired": (
        "Mint a new token. To be in time next time, rotate: the old token works until the new one is first used."
    ),
    "auth/revoked": "Use another token. A revoked one never works again.",
    "auth/forbidden": (
        "Use a token whose role holds the permission that `permission` names; `role` is what this one has. /docs "
        "lists the roles of every operation. The system's administrator mints such a token for a tenant (`POST "
        "/v1/tokens` with its `tenant_id`), or reads the tenant with the headers `Holdfast-Tenant` and "
        "`Holdfast-Reason`."
    ),
    "auth/queue": (
        "The token is limited to the queues in `queues`. Claim from those, or have a token minted with a glob that "
        "matches."
    ),
    "auth/network": (
        "The token works from its own networks alone, and `source` is none of them. Ask from there, or have a token "
        "minted for the network that you are in; behind a proxy, operators set `trusted_proxies`. A token for others "
        "is minted within `networks`."
    ),
    "auth/throttled": "Wait `retry_after` seconds, and correct the token before trying again.",
    "auth/busy": "Wait `retry_after` seconds and repeat. Tokens that were used lately do not wait.",
    "tenant/suspended": (
        "Reading still works. Ask an administrator to make the tenant active again; leases lapse by themselves "
        "meanwhile."
    ),
    "tenant/archived": (
        "Reading still works. An archived tenant is changed again only after an administrator makes it active."
    ),
    "tenant/exists": "Choose another id, or read the tenant that has this one.",
    "not-found": (
        "Check the id, and that the token belongs to the right tenant: what is another tenant's looks exactly like "
        "what is missing."
    ),
    "version/mismatch": (
        "Somebody changed it meanwhile. Read it again, apply your change to what is there now, and send the new "
        "version."
    ),
    "sequence/mismatch": (
        "Somebody wrote to the log meanwhile. Read from `current_sequence`, decide again, and send the new "
        "`expected_sequence`. A tail from behind the end is of another log, from before the store was put back: forget "
        "what was seen, and begin at 0."
    ),
    "namespace/unknown": (
        "Make it with POST /v1/namespaces, or leave the namespace out: `main` is always there. A misspelt one would "
        "otherwise be a place where no worker looks."
    ),
    "namespace/exists": "Choose another name, or use the namespace that has this one; `main` need not be made.",
    "namespace/in-use": (
        "List what is open (GET /v1/executions?namespace=…), let it end or terminate it, and then delete the "
        "namespace again."
    ),
    "namespace/deleting": (
        "Wait until the job that `job_id` names has ended (GET /v1/jobs/{id}), then make the namespace again; or use "
        "another one."
    ),
    "definition/conflict": "Versions are immutable. Store the changed document under a new version.",
    "definition/in-use": "Let the executions of this version end and their retention pass, or keep the version.",
    "definition/invalid": (
        "Correct every place that `errors` lists. For a format of your own, store it with `validate=false`."
    ),
    "execution/conflict": (
        "The id names a run that was started with other arguments. Choose another id, or read the run that has it."
    ),
    "execution/terminal": (
        "The run has ended and stays so; `outcome` says how. If it was your own earlier call that ended it, all is "
        "well."
    ),
    "execution/transition": "See `current_status`, and move to a status that can follow it.",
    "state/not-an-array": (
        "Append to a path that holds an array, or to one that is not there yet; or replace what is there."
    ),
    "state/path": "Read the state and name a path that leads through objects, and array indexes that exist.",
    "snapshot/ahead": "Ask for a sequence that the log has reached: at most `current_sequence`.",
    "lease/stale": (
        "Stop: the lease ran out or was taken back, and another worker may have the item. Write nothing more for "
        "it, and claim again."
    ),
    "lease/not-held": "Nobody holds the item. Claim it first; the claim gives the epoch that every write needs.",
    "lease/settled": (
        "The item was settled already, by a request that said something else. See `outcome`; do not try again."
    ),
    "schedule/conflict": "The id names another schedule. Choose another id, or change that one by PATCH.",
    "signal/conflict": "The `signal_id` names a signal with other contents; a new signal needs a new id.",
    "workflow/nondeterminism": (
        "The workflow's code changed while this run was under way, or it is not deterministic: time, chance and I/O "
        "belong into activities or side effects. Deploy the code that began the run; `before` and `now` tell what it "
        "asked for."
    ),
    "workflow/unseen": (
        "Claim the run's task again, replay what came since `seen`, and settle it with the `history_sequence` at which "
        "that ends; then the run can go on in another."
    ),
    "work/conflict": (
        "See in `detail` what stands in the way: an item of the same id with other contents (choose another id, or "
        "leave it out), an open one with the same dedup key (wait until it has ended), or a workflow, which alone "
        "settles its tasks."
    ),
    "work/terminal": (
        "The item has ended; see `current_status`. To run the work again, requeue the dead letter or enqueue a new "
        "item."
    ),
    "dead-letter/settled": "Somebody requeued or discarded it already; see `current_status`.",
    "job/ended": "Read the job; `current_status` says how it ended. What it did is done.",
    "job/final": "Let it run to its end; GET /v1/jobs/{id} shows how far it is.",
    "import/part": "Send the part that `next_part` names. To send the last one again does no harm.",
    "import/ended": (
        "Begin again with the manifest: an import waits a quarter of an hour for its next part, and then its rows go. "
        "The id is free again a little later."
    ),
    "import/unfit": (
        "Correct what `errors` lists: export again if the file was changed or cut off, from a store of the same schema."
    ),
    "token/conflict": "The token was revoked; mint a new one.",
    "idempotency/mismatch": "Use a new key for a new request, or repeat the first request exactly.",
    "limit/running-executions": "Let runs end, or ask an administrator for a higher limit. Starting again later works.",
    "limit/definitions": "Delete versions that nothing uses, or ask an administrator for a higher limit.",
    "limit/ready-work-items": (
        "Add workers or wait until they catch up, then enqueue again; or ask an administrator for a higher limit."
    ),
    "limit/events-per-execution": "Continue the work in a new execution; a log of this length is slow to replay.",
    "limit/payload-bytes": (
        "Keep large content elsewhere and put its address into the payload; or ask an administrator for a higher limit."
    ),
    "limit/state-bytes": (
        "Keep large content elsewhere and its address in the state; or ask an administrator for a higher limit."
    ),
    "limit/tokens": "Revoke tokens that are no longer used, or ask an administrator for a higher limit.",
    "limit/namespaces": "Delete a namespace that is no longer used, or ask an administrator for a higher limit.",
    "limit/workers": (
        "Register again under the id that the worker had before, wait until lost ones are forgotten (ten minutes), or "
        "ask an administrator for a higher limit."
    ),
    "limit/requests-per-second": (
        "Wait `retry_after` seconds. Batch endpoints carry up to 1,000 commands in one request."
    ),
    "store/unavailable": (
        "Nothing was changed. Repeat after `retry_after` seconds, with growing delays; operators look at the database."
    ),
    "store/outcome-unknown": (
        "The change is whole or absent. Repeat the same request with the same Idempotency-Key or id: it will not "
        "be done twice."
    ),
    "store/corrupt": (
        "Nothing was changed, and nothing will be until an operator has examined the store (`holdfast doctor`) and "
        "restored a backup (docs/backup.md). Then repeat the request."
    ),
    "store/full": "Nothing was changed. An operator must free space; then repeat the request.",
    "server/busy": "Nothing was changed. Wait `retry_after` seconds and repeat, with growing delays.",
    "server/draining": "The server is going away. Repeat the request; a load balancer will send it elsewhere.",
    "server/error": (
        "This is a fault of the service, not of the request. Tell the operator when it happened; the log has the "
        "details."
    ),
}
