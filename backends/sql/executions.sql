-- name: load_executions
-- Executions by id, or by one of their items, locked in the order of their ids. An item never changes its execution.
WITH rows(tenant_id TEXT, id TEXT, item_id TEXT) AS (:rows)
SELECT e.tenant_id, e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence,
       e.snapshot_sequence, e.snapshot_events, e.snapshot_bytes, e.snapshot_keep, e.unfolded_bytes, e.open_items,
       e.digest, e.created_at, e.started_at, e.updated_at, e.completed_at
  FROM rows r
  LEFT JOIN work_items w ON w.tenant_id = r.tenant_id AND w.id = r.item_id
  JOIN executions e ON e.tenant_id = r.tenant_id AND e.id = CASE WHEN r.id IS NULL THEN w.execution_id ELSE r.id END
 ORDER BY e.tenant_id, e.id FOR UPDATE OF e;

-- name: insert_executions
-- New runs, as young as they are. A second start with the same id is refused here, whichever process it came through.
WITH rows(tenant_id TEXT, id TEXT, namespace TEXT, workflow_id TEXT, version TEXT, status TEXT, queue TEXT, parent_id
          TEXT, segment BIGINT, sequence BIGINT, snapshot_events BIGINT, snapshot_bytes BIGINT, snapshot_keep BIGINT,
          unfolded_bytes BIGINT, open_items BIGINT, digest TEXT, labels BYTEA, attributes BYTEA, created_at BIGINT,
          started_at BIGINT) AS (:rows)
INSERT INTO executions (tenant_id, id, namespace, workflow_id, version, status, queue, parent_id, segment, sequence,
                        snapshot_events, snapshot_bytes, snapshot_keep, unfolded_bytes, open_items, digest, labels,
                        attributes, created_at, started_at, updated_at, snapshot_sequence)
SELECT tenant_id, id, namespace, workflow_id, version, status, queue, parent_id, segment, sequence, snapshot_events,
       snapshot_bytes, snapshot_keep, unfolded_bytes, open_items, digest, labels, attributes, created_at, started_at,
       created_at, 0
  FROM rows;

-- name: update_executions
-- Move executions to another status, only from the sequence they were decided on. Result, error and the times of start
-- and end go with the status.
WITH rows(tenant_id TEXT, id TEXT, status TEXT, sequence BIGINT, snapshot_sequence BIGINT, unfolded_bytes
          BIGINT, open_items BIGINT, result BYTEA, error BYTEA, started_at BIGINT, updated_at BIGINT, completed_at
          BIGINT, was_sequence BIGINT) AS (:rows)
UPDATE executions
   SET status = rows.status, sequence = rows.sequence, snapshot_sequence = rows.snapshot_sequence,
       unfolded_bytes = rows.unfolded_bytes, open_items = rows.open_items, result = rows.result, error = rows.error,
       started_at = rows.started_at, updated_at = rows.updated_at, completed_at = rows.completed_at
  FROM rows
 WHERE executions.tenant_id = rows.tenant_id AND executions.id = rows.id AND executions.sequence = rows.was_sequence;

-- name: advance_executions
-- Move executions on within their status: only what every event moves, only from the sequence they were decided on.
WITH rows(tenant_id TEXT, id TEXT, sequence BIGINT, snapshot_sequence BIGINT, unfolded_bytes BIGINT, open_items
          BIGINT, updated_at BIGINT, was_sequence BIGINT) AS (:rows)
UPDATE executions
   SET sequence = rows.sequence, snapshot_sequence = rows.snapshot_sequence, unfolded_bytes = rows.unfolded_bytes,
       open_items = rows.open_items, updated_at = rows.updated_at
  FROM rows
 WHERE executions.tenant_id = rows.tenant_id AND executions.id = rows.id AND executions.sequence = rows.was_sequence;

-- name: load_attributed
-- Labels and attributes; the execution's own row is locked before.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT e.tenant_id, e.id, e.labels, e.attributes
  FROM rows r
  JOIN executions e ON e.tenant_id = r.tenant_id AND e.id = r.id
 ORDER BY e.tenant_id, e.id;

-- name: update_attributed
-- Write labels and attributes, under the lock of the execution's row.
WITH rows(tenant_id TEXT, id TEXT, labels BYTEA, attributes BYTEA) AS (:rows)
UPDATE executions SET labels = rows.labels, attributes = rows.attributes
  FROM rows
 WHERE executions.tenant_id = rows.tenant_id AND executions.id = rows.id;

-- name: load_states
-- State documents, locked: the execution's lock may be waited for in the same statement, and each is as it is then.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT s.tenant_id, s.execution_id, s.state, s.sequence
  FROM rows r
  JOIN states s ON s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id
 ORDER BY s.tenant_id, s.execution_id FOR UPDATE OF s;

-- name: insert_states
-- A state written for the first time.
WITH rows(tenant_id TEXT, execution_id TEXT, state BYTEA, sequence BIGINT) AS (:rows)
INSERT INTO states (tenant_id, execution_id, state, sequence)
SELECT tenant_id, execution_id, state, sequence FROM rows;

-- name: update_states
-- A state written again, only over the one it was decided on.
WITH rows(tenant_id TEXT, execution_id TEXT, state BYTEA, sequence BIGINT, was_sequence BIGINT) AS (:rows)
UPDATE states SET state = rows.state, sequence = rows.sequence
  FROM rows
 WHERE states.tenant_id = rows.tenant_id AND states.execution_id = rows.execution_id
   AND states.sequence = rows.was_sequence;

-- name: facets_of_executions
-- All labels and attributes of executions, under the locks of their rows.
WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
SELECT f.tenant_id, f.execution_id, f.family, f.name, f.text_value, f.number_value
  FROM rows r
  JOIN facets f ON f.tenant_id = r.tenant_id AND f.execution_id = r.execution_id
 ORDER BY f.tenant_id, f.execution_id, f.family, f.name;

-- name: insert_facets
-- New labels and attributes.
WITH rows(tenant_id TEXT, execution_id TEXT, family TEXT, name TEXT, text_value TEXT, number_value BIGINT) AS (:rows)
INSERT INTO facets (tenant_id, execution_id, family, name, text_value, number_value)
SELECT tenant_id, execution_id, family, name, text_value, number_value FROM rows;

-- name: update_facets
-- Changed values, under the lock of the execution's row.
WITH rows(tenant_id TEXT, execution_id TEXT, family TEXT, name TEXT, text_value TEXT, number_value BIGINT) AS (:rows)
UPDATE facets SET text_value = rows.text_value, number_value = rows.number_value
  FROM rows
 WHERE facets.tenant_id = rows.tenant_id AND facets.execution_id = rows.execution_id AND facets.family = rows.family
   AND facets.name = rows.name;

-- name: delete_facets
-- Labels and attributes set to null.
WITH rows(tenant_id TEXT, execution_id TEXT, family TEXT, name TEXT) AS (:rows)
DELETE FROM facets
 WHERE (tenant_id, execution_id, family, name) IN (SELECT tenant_id, execution_id, family, name FROM rows);

-- name: read_execution
-- One execution as it is shown: its head, its state, and its input out of its first event. One without that is being
-- removed, and is not shown.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.result, e.error, e.created_at, e.started_at, e.updated_at, e.completed_at,
       s.state, v.body
  FROM executions e
  LEFT JOIN states s ON s.tenant_id = e.tenant_id AND s.execution_id = e.id
  JOIN events v ON v.tenant_id = e.tenant_id AND v.execution_id = e.id AND v.sequence = 1
 WHERE e.tenant_id = :tenant_id AND e.id = :id;

-- name: list_executions
-- By age, newest first, after a position. One that is being removed has the sequence 0, and is not shown.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM executions e
 WHERE e.tenant_id = :tenant_id AND (e.created_at, e.id) < (:at, :id) AND e.sequence <> 0 AND {where}
 ORDER BY e.created_at DESC, e.id DESC
 LIMIT :limit;

-- name: list_executions_oldest
-- By age, oldest first, after a position, in the same way.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM executions e
 WHERE e.tenant_id = :tenant_id AND (e.created_at, e.id) > (:at, :id) AND e.sequence <> 0 AND {where}
 ORDER BY e.created_at, e.id
 LIMIT :limit;

-- name: list_executions_updated
-- By last change, newest first. Every change is an event, so the feed is the order: an execution stands where its last
-- event does, and no index has to move with every transition; one that is being removed stands nowhere. On SQLite
-- position alone is the order: see `read_feed`.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, v.commit_id, v.position
  FROM events v
  JOIN executions e ON e.tenant_id = v.tenant_id AND e.id = v.execution_id AND e.sequence = v.sequence
 WHERE v.tenant_id = :tenant_id AND v.commit_id = 0 AND v.position < :position AND {where}
 ORDER BY v.position DESC
 LIMIT :limit;

-- name: list_executions_updated @postgres
-- The same, by transaction and position.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, v.commit_id, v.position
  FROM events v
  JOIN executions e ON e.tenant_id = v.tenant_id AND e.id = v.execution_id AND e.sequence = v.sequence
 WHERE v.tenant_id = :tenant_id AND (v.commit_id, v.position) < (:commit_id, :position) AND {where}
 ORDER BY v.commit_id DESC, v.position DESC
 LIMIT :limit;
