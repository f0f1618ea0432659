-- name: ping
-- Does the store answer?
SELECT 1;

-- name: feed_horizon
-- Below which commit the event feed is settled. SQLite commits in order, so there is no horizon.
SELECT 1;

-- name: feed_horizon @postgres
-- The oldest transaction that may still commit: events of it and of younger ones are not yet shown.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
