-- @postgres
-- What is added to the id of a transaction to place its events in the feed. A store that was restored into another
-- cluster has events of ids that are still to come there: `migrate` then puts this beyond them.
CREATE FUNCTION holdfast_feed_base() RETURNS BIGINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 0::bigint';
GRANT EXECUTE ON FUNCTION holdfast_feed_base() TO PUBLIC;
ALTER TABLE events ALTER COLUMN commit_id SET DEFAULT (holdfast_feed_base() + GREATEST(
  pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1));
-- @end
