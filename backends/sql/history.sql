-- name: insert_events
-- Append to logs. The sequences were given out under the executions' locks; a double one is refused here.
WITH rows(tenant_id TEXT, execution_id TEXT, sequence BIGINT, kind TEXT, body BYTEA, at BIGINT, actor TEXT, node_id TEXT,
          work_item_id TEXT, causation_id TEXT) AS (:rows)
INSERT INTO events (tenant_id, execution_id, sequence, kind, body, at, actor, node_id, work_item_id, causation_id)
SELECT tenant_id, execution_id, sequence, kind, body, at, actor, node_id, work_item_id, causation_id FROM rows;

-- name: insert_events @postgres
-- The same. A transaction that has its id already may wait for a lock while younger ones write to the log that it is to
-- write to, and commit: its events stand behind theirs in the feed, under the newest id that had ended by then.
WITH rows(tenant_id TEXT, execution_id TEXT, sequence BIGINT, kind TEXT, body BYTEA, at BIGINT, actor TEXT, node_id TEXT,
          work_item_id TEXT, causation_id TEXT) AS (:rows)
INSERT INTO events (tenant_id, execution_id, sequence, kind, body, at, actor, node_id, work_item_id, causation_id,
                    commit_id)
SELECT tenant_id, execution_id, sequence, kind, body, at, actor, node_id, work_item_id, causation_id,
       (SELECT holdfast_feed_base() + GREATEST(pg_current_xact_id()::text::bigint,
                                               pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1))
  FROM rows;

-- name: load_events
-- Events by sequence, for a fold.
WITH rows(tenant_id TEXT, execution_id TEXT, sequence BIGINT) AS (:rows)
SELECT v.tenant_id, v.execution_id, v.sequence, v.kind, v.body, v.node_id, v.work_item_id, v.causation_id
  FROM rows r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id AND v.sequence = r.sequence
 ORDER BY v.tenant_id, v.execution_id, v.sequence;

-- name: events_since_snapshots
-- The events after the newest snapshot: what a fold at the end of the log needs.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT v.tenant_id, v.execution_id, v.sequence, v.kind, v.body, v.node_id, v.work_item_id, v.causation_id
  FROM rows r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id
   AND v.sequence > (SELECT COALESCE(MAX(s.sequence), 0) FROM snapshots s
                      WHERE s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id)
 ORDER BY v.tenant_id, v.execution_id, v.sequence;

-- name: events_since_snapshots @postgres
-- The same. Where a log is read from stands apart,
-- because row level security lets no sub-query bound the walk of an index.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows),
folded(tenant_id, execution_id, sequence) AS MATERIALIZED
  (SELECT r.tenant_id, r.execution_id, (SELECT COALESCE(MAX(s.sequence), 0) FROM snapshots s
                                         WHERE s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id) FROM rows r)
SELECT v.tenant_id, v.execution_id, v.sequence, v.kind, v.body, v.node_id, v.work_item_id, v.causation_id
  FROM folded r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id AND v.sequence > r.sequence
 ORDER BY v.tenant_id, v.execution_id, v.sequence;

-- name: events_of_executions
-- Whole logs: for a fold below the newest snapshot, which only a caller by hand asks for.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT v.tenant_id, v.execution_id, v.sequence, v.kind, v.body, v.node_id, v.work_item_id, v.causation_id
  FROM rows r
  JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id
 ORDER BY v.tenant_id, v.execution_id, v.sequence;

-- name: kept_snapshots
-- All the snapshots of an execution: a few, the older ones are dropped as new ones are written.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT s.tenant_id, s.execution_id, s.sequence, s.body, s.created_at
  FROM rows r
  JOIN snapshots s ON s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id
 ORDER BY s.tenant_id, s.execution_id, s.sequence;

-- name: insert_snapshots
-- A new snapshot, under the execution's lock.
WITH rows(tenant_id TEXT, execution_id TEXT, sequence BIGINT, body BYTEA, created_at BIGINT) AS (:rows)
INSERT INTO snapshots (tenant_id, execution_id, sequence, body, created_at)
SELECT tenant_id, execution_id, sequence, body, created_at FROM rows;

-- name: delete_snapshots
-- The oldest of more than are kept.
WITH rows(tenant_id TEXT, execution_id TEXT, sequence BIGINT) AS (:rows)
DELETE FROM snapshots
 WHERE (tenant_id, execution_id, sequence) IN (SELECT tenant_id, execution_id, sequence FROM rows);

-- name: read_events
-- A page of one execution's log.
SELECT v.sequence, v.kind, v.body, v.at, v.actor, v.node_id, v.work_item_id, v.causation_id
  FROM events v
 WHERE v.tenant_id = :tenant_id AND v.execution_id = :execution_id AND v.sequence > :after
 ORDER BY v.sequence
 LIMIT :limit;

-- name: read_sequence
-- Where an execution's log ends, and its status; nothing of one without a first event, which is being removed.
SELECT e.sequence, e.status
  FROM executions e
  JOIN events v ON v.tenant_id = e.tenant_id AND v.execution_id = e.id AND v.sequence = 1
 WHERE e.tenant_id = :tenant_id AND e.id = :execution_id;

-- name: read_feed
-- A page of a tenant's events in commit order. SQLite commits in order: `position` alone is the order, every `commit_id` is
-- 0, and only an equality lets its index reach the position without walking all that stands before it.
SELECT v.commit_id, v.position, v.execution_id, v.sequence, v.kind, v.body, v.at, v.actor, v.node_id, v.work_item_id,
       v.causation_id
  FROM events v
 WHERE v.tenant_id = :tenant_id AND v.commit_id = 0 AND v.position > :position AND {where}
 ORDER BY v.position
 LIMIT :limit;

-- name: read_feed @postgres
-- A page of a tenant's events in commit order, below the horizon.
SELECT v.commit_id, v.position, v.execution_id, v.sequence, v.kind, v.body, v.at, v.actor, v.node_id, v.work_item_id,
       v.causation_id
  FROM events v
 WHERE v.tenant_id = :tenant_id AND (v.commit_id, v.position) > (:commit_id, :position) AND v.commit_id < :horizon
   AND {where}
 ORDER BY v.commit_id, v.position
 LIMIT :limit;

-- name: feed_end
-- Where a tenant's feed ends, below the horizon.
SELECT v.commit_id, v.position
  FROM events v
 WHERE v.tenant_id = :tenant_id AND v.commit_id < :horizon
 ORDER BY v.commit_id DESC, v.position DESC
 LIMIT 1;

-- name: read_snapshot_latest
-- The newest snapshot of an execution at or below a sequence.
SELECT s.sequence, s.body, s.created_at
  FROM snapshots s
 WHERE s.tenant_id = :tenant_id AND s.execution_id = :execution_id AND s.sequence <= :sequence
 ORDER BY s.sequence DESC
 LIMIT 1;

-- name: read_snapshots
-- The snapshots that are kept, oldest first.
SELECT s.sequence, s.body, s.created_at
  FROM snapshots s
 WHERE s.tenant_id = :tenant_id AND s.execution_id = :execution_id AND s.sequence > :after
 ORDER BY s.sequence
 LIMIT :limit;
