-- name: ping
-- Does the store answer?
SELECT 1;

-- name: feed_horizon
-- Below which commit the event feed is settled. SQLite commits in order, so there is no horizon.
SELECT 1;

-- name: feed_horizon @postgres
-- The oldest transaction that may still commit: events of it and of younger ones are not yet shown.
SELECT holdfast_feed_base() + pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: engine_version
-- The version of the engine, as it counts itself.
SELECT sqlite_version();

-- name: engine_version @postgres
-- As a number: 160004 is 16.4.
SELECT current_setting('server_version_num');

-- name: engine_faults
-- What is broken in the file: one line 'ok', or a line for each fault. Reads the whole file.
SELECT q.integrity_check FROM pragma_integrity_check AS q;

-- name: engine_faults @postgres
-- Postgres looks after its pages itself.
SELECT 'ok';

-- name: engine_settings
-- Isolation, synchronous_commit and whether the role is a superuser: Postgres's; SQLite has none of them.
SELECT '', '', '';

-- name: engine_settings @postgres
-- As this session has them from the server, the database and the role.
SELECT current_setting('default_transaction_isolation'), current_setting('synchronous_commit'),
       current_setting('is_superuser');
