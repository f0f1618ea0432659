-- name: load_schedules
-- Schedules, locked: whoever fires one decides alone.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT s.tenant_id, s.id, s.namespace, s.spec, s.workflow_type, s.task_queue, s.input, s.attributes, s.memo, s.overlap,
       s.catch_up_ms, s.paused, s.note, s.next_at, s.runs, s.missed, s.skipped, s.refusal, s.digest, s.revision,
       s.created_at, s.updated_at
  FROM rows r
  JOIN schedules s ON s.tenant_id = r.tenant_id AND s.id = r.id
 ORDER BY s.tenant_id, s.id FOR UPDATE OF s;

-- name: insert_schedules
-- New schedules; an id that is taken is refused here.
WITH rows(tenant_id TEXT, id TEXT, namespace TEXT, spec BYTEA, workflow_type TEXT, task_queue TEXT, input BYTEA,
          attributes BYTEA, memo BYTEA, overlap TEXT, catch_up_ms BIGINT, paused BIGINT, note TEXT, next_at BIGINT,
          runs BIGINT, missed BIGINT, skipped BIGINT, refusal TEXT, digest TEXT, revision BIGINT, created_at BIGINT,
          updated_at BIGINT) AS (:rows)
INSERT INTO schedules (tenant_id, id, namespace, spec, workflow_type, task_queue, input, attributes, memo, overlap,
                       catch_up_ms, paused, note, next_at, runs, missed, skipped, refusal, digest, revision, created_at,
                       updated_at)
SELECT tenant_id, id, namespace, spec, workflow_type, task_queue, input, attributes, memo, overlap, catch_up_ms, paused,
       note, next_at, runs, missed, skipped, refusal, digest, revision, created_at, updated_at
  FROM rows;

-- name: update_schedules
-- Schedules changed or moved on, from the revision they were read at.
WITH rows(tenant_id TEXT, id TEXT, spec BYTEA, workflow_type TEXT, task_queue TEXT, input BYTEA, attributes BYTEA,
          memo BYTEA, overlap TEXT, catch_up_ms BIGINT, paused BIGINT, note TEXT, next_at BIGINT, runs BIGINT,
          missed BIGINT, skipped BIGINT, refusal TEXT, revision BIGINT, updated_at BIGINT, was_revision BIGINT)
          AS (:rows)
UPDATE schedules
   SET spec = rows.spec, workflow_type = rows.workflow_type, task_queue = rows.task_queue, input = rows.input,
       attributes = rows.attributes, memo = rows.memo, overlap = rows.overlap, catch_up_ms = rows.catch_up_ms,
       paused = rows.paused, note = rows.note, next_at = rows.next_at, runs = rows.runs, missed = rows.missed,
       skipped = rows.skipped, refusal = rows.refusal, revision = rows.revision, updated_at = rows.updated_at
  FROM rows
 WHERE schedules.tenant_id = rows.tenant_id AND schedules.id = rows.id AND schedules.revision = rows.was_revision;

-- name: delete_schedules
-- Schedules that are wanted no more, under their locks.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
DELETE FROM schedules
 WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM rows);

-- name: load_schedule_runs
-- Occurrences by the execution. Not locked: an update is held to what was read.
WITH rows(tenant_id TEXT, schedule_id TEXT, execution_id TEXT) AS (:rows)
SELECT o.tenant_id, o.schedule_id, o.execution_id, o.number, o.nominal_at, o.status, o.started_at, o.ended_at,
       o.followed, o.dropped, o.latest_id
  FROM rows r
  JOIN schedule_runs o
    ON o.tenant_id = r.tenant_id AND o.schedule_id = r.schedule_id AND o.execution_id = r.execution_id
 ORDER BY o.tenant_id, o.schedule_id, o.execution_id;

-- name: open_runs_of_schedules
-- What a schedule has started and has not ended, and what waits for that.
WITH rows(tenant_id TEXT, schedule_id TEXT) AS (:rows)
SELECT o.tenant_id, o.schedule_id, o.execution_id, o.number, o.nominal_at, o.status, o.started_at, o.ended_at,
       o.followed, o.dropped, o.latest_id
  FROM rows r
  JOIN schedule_runs o ON o.tenant_id = r.tenant_id AND o.schedule_id = r.schedule_id AND o.ended_at IS NULL
 ORDER BY o.tenant_id, o.schedule_id, o.execution_id;

-- name: runs_of_schedules_by_page
-- Twenty occurrences of a schedule, by their numbers.
WITH rows(tenant_id TEXT, schedule_id TEXT, page BIGINT) AS (:rows)
SELECT o.tenant_id, o.schedule_id, o.execution_id, o.number, o.nominal_at, o.status, o.started_at, o.ended_at,
       o.followed, o.dropped, o.latest_id
  FROM rows r
  JOIN schedule_runs o ON o.tenant_id = r.tenant_id AND o.schedule_id = r.schedule_id AND o.number >= r.page * 20
       AND o.number < r.page * 20 + 20
 ORDER BY o.tenant_id, o.schedule_id, o.execution_id;

-- name: runs_of_schedules
-- Every occurrence of a schedule that is still written down.
WITH rows(tenant_id TEXT, schedule_id TEXT) AS (:rows)
SELECT o.tenant_id, o.schedule_id, o.execution_id, o.number, o.nominal_at, o.status, o.started_at, o.ended_at,
       o.followed, o.dropped, o.latest_id
  FROM rows r
  JOIN schedule_runs o ON o.tenant_id = r.tenant_id AND o.schedule_id = r.schedule_id
 ORDER BY o.tenant_id, o.schedule_id, o.execution_id;

-- name: insert_schedule_runs
-- New occurrences; one that is there already is refused here.
WITH rows(tenant_id TEXT, schedule_id TEXT, execution_id TEXT, number BIGINT, nominal_at BIGINT, status TEXT,
          started_at BIGINT, ended_at BIGINT, followed BIGINT, dropped BIGINT, latest_id TEXT) AS (:rows)
INSERT INTO schedule_runs (tenant_id, schedule_id, execution_id, number, nominal_at, status, started_at, ended_at,
                           followed, dropped, latest_id)
SELECT tenant_id, schedule_id, execution_id, number, nominal_at, status, started_at, ended_at, followed, dropped,
       latest_id
  FROM rows;

-- name: update_schedule_runs
-- Occurrences moved on, from what was read of them.
WITH rows(tenant_id TEXT, schedule_id TEXT, execution_id TEXT, number BIGINT, status TEXT, started_at BIGINT,
          ended_at BIGINT, followed BIGINT, dropped BIGINT, latest_id TEXT, was_status TEXT, was_followed BIGINT,
          was_dropped BIGINT, was_latest_id TEXT) AS (:rows)
UPDATE schedule_runs
   SET number = rows.number, status = rows.status, started_at = rows.started_at, ended_at = rows.ended_at,
       followed = rows.followed, dropped = rows.dropped, latest_id = rows.latest_id
  FROM rows
 WHERE schedule_runs.tenant_id = rows.tenant_id AND schedule_runs.schedule_id = rows.schedule_id
   AND schedule_runs.execution_id = rows.execution_id AND schedule_runs.status = rows.was_status
   AND schedule_runs.followed = rows.was_followed AND schedule_runs.dropped = rows.was_dropped
   AND schedule_runs.latest_id = rows.was_latest_id;

-- name: delete_schedule_runs
-- Occurrences that are forgotten. One that is gone already, or has moved on, makes the batch try again.
WITH rows(tenant_id TEXT, schedule_id TEXT, execution_id TEXT, was_status TEXT, was_followed BIGINT) AS (:rows)
DELETE FROM schedule_runs
 WHERE (tenant_id, schedule_id, execution_id, status, followed)
       IN (SELECT tenant_id, schedule_id, execution_id, was_status, was_followed FROM rows);

-- name: read_schedule
-- A schedule as it is shown.
SELECT s.id, s.namespace, s.spec, s.workflow_type, s.task_queue, s.input, s.attributes, s.memo, s.overlap, s.catch_up_ms,
       s.paused, s.note, s.next_at, s.runs, s.missed, s.skipped, s.refusal, s.revision, s.created_at, s.updated_at
  FROM schedules s
 WHERE s.tenant_id = :tenant_id AND s.id = :id;

-- name: read_schedule_runs
-- The last occurrences of a schedule, the newest first.
SELECT o.execution_id, o.nominal_at, o.status, o.started_at, o.ended_at,
       CASE o.latest_id WHEN '' THEN o.execution_id ELSE o.latest_id END
  FROM schedule_runs o
 WHERE o.tenant_id = :tenant_id AND o.schedule_id = :id
 ORDER BY o.number DESC
 LIMIT 20;

-- name: list_schedules
-- Schedules by age, newest first, after a position.
SELECT s.id, s.namespace, s.spec, s.workflow_type, s.task_queue, s.input, s.attributes, s.memo, s.overlap, s.catch_up_ms,
       s.paused, s.note, s.next_at, s.runs, s.missed, s.skipped, s.refusal, s.revision, s.created_at, s.updated_at
  FROM schedules s
 WHERE s.tenant_id = :tenant_id AND (s.created_at, s.id) < (:at, :id) AND {where}
 ORDER BY s.created_at DESC, s.id DESC
 LIMIT :limit;
