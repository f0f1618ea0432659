-- name: load_workflows
-- Workflows, locked: whoever stores a version of one gives out its next revision.
WITH rows(tenant_id TEXT, workflow_id TEXT) AS (:rows)
SELECT w.tenant_id, w.workflow_id, w.revision
  FROM rows r
  JOIN workflows w ON w.tenant_id = r.tenant_id AND w.workflow_id = r.workflow_id
 ORDER BY w.tenant_id, w.workflow_id FOR UPDATE OF w;

-- name: insert_workflows
-- The first version of a workflow.
WITH rows(tenant_id TEXT, workflow_id TEXT, revision BIGINT) AS (:rows)
INSERT INTO workflows (tenant_id, workflow_id, revision)
SELECT tenant_id, workflow_id, revision FROM rows;

-- name: update_workflows
-- A later version, from the revision it was decided on.
WITH rows(tenant_id TEXT, workflow_id TEXT, revision BIGINT, was_revision BIGINT) AS (:rows)
UPDATE workflows SET revision = rows.revision
  FROM rows
 WHERE workflows.tenant_id = rows.tenant_id AND workflows.workflow_id = rows.workflow_id
   AND workflows.revision = rows.was_revision;

-- name: load_definitions
-- Versions without their bodies. Held (KEY SHARE) against deletion only, for a version never changes.
WITH rows(tenant_id TEXT, workflow_id TEXT, version TEXT) AS (:rows)
SELECT d.tenant_id, d.workflow_id, d.version, d.revision, d.digest, d.validated, d.snapshot_events, d.snapshot_bytes,
       d.snapshot_keep, d.start, d.created_at, d.created_by
  FROM rows r
  JOIN definitions d ON d.tenant_id = r.tenant_id AND d.workflow_id = r.workflow_id AND d.version = r.version
 ORDER BY d.tenant_id, d.workflow_id, d.version FOR KEY SHARE OF d;

-- name: lock_definitions
-- Versions about to be deleted: starts that hold one are waited for, so that the count after this sees what they wrote.
WITH rows(tenant_id TEXT, workflow_id TEXT, version TEXT) AS (:rows)
SELECT d.tenant_id, d.workflow_id, d.version
  FROM rows r
  JOIN definitions d ON d.tenant_id = r.tenant_id AND d.workflow_id = r.workflow_id AND d.version = r.version
 ORDER BY d.tenant_id, d.workflow_id, d.version FOR UPDATE OF d;

-- name: insert_definitions
-- A new version.
WITH rows(tenant_id TEXT, workflow_id TEXT, version TEXT, revision BIGINT, digest TEXT, body BYTEA, validated BIGINT,
          snapshot_events BIGINT, snapshot_bytes BIGINT, snapshot_keep BIGINT, start BYTEA, created_at BIGINT,
          created_by TEXT) AS (:rows)
INSERT INTO definitions (tenant_id, workflow_id, version, revision, digest, body, validated, snapshot_events,
                         snapshot_bytes, snapshot_keep, start, created_at, created_by)
SELECT tenant_id, workflow_id, version, revision, digest, body, validated, snapshot_events, snapshot_bytes, snapshot_keep,
       start, created_at, created_by
  FROM rows;

-- name: delete_definitions
-- A version that nothing uses, as the count under its lock has shown, and the store once more.
WITH rows(tenant_id TEXT, workflow_id TEXT, version TEXT) AS (:rows)
DELETE FROM definitions
 WHERE (tenant_id, workflow_id, version) IN (SELECT tenant_id, workflow_id, version FROM rows)
   AND NOT EXISTS (SELECT 1 FROM executions e
                    WHERE e.tenant_id = definitions.tenant_id AND e.workflow_id = definitions.workflow_id
                      AND e.version = definitions.version);

-- name: count_uses
-- How many executions are pinned to a version, counted up to a few.
WITH rows(tenant_id TEXT, workflow_id TEXT, version TEXT) AS (:rows)
SELECT r.tenant_id, r.workflow_id, r.version,
       (SELECT count(*) FROM (SELECT 1 FROM executions e
                               WHERE e.tenant_id = r.tenant_id AND e.workflow_id = r.workflow_id
                                 AND e.version = r.version LIMIT 10) AS some_of_them)
  FROM rows r
 ORDER BY r.tenant_id, r.workflow_id, r.version;

-- name: read_definition
-- One version with its body.
SELECT d.workflow_id, d.version, d.revision, d.digest, d.validated, d.created_at, d.created_by, d.body
  FROM definitions d
 WHERE d.tenant_id = :tenant_id AND d.workflow_id = :workflow_id AND d.version = :version;

-- name: read_definition_latest
-- The version that was stored last.
SELECT d.workflow_id, d.version, d.revision, d.digest, d.validated, d.created_at, d.created_by, d.body
  FROM definitions d
 WHERE d.tenant_id = :tenant_id AND d.workflow_id = :workflow_id
 ORDER BY d.revision DESC
 LIMIT 1;

-- name: list_definitions
-- Versions by age, newest first, after a position.
SELECT d.workflow_id, d.version, d.revision, d.digest, d.validated, d.created_at, d.created_by
  FROM definitions d
 WHERE d.tenant_id = :tenant_id AND (d.created_at, d.workflow_id, d.version) < (:at, :workflow_id, :version) AND {where}
 ORDER BY d.created_at DESC, d.workflow_id DESC, d.version DESC
 LIMIT :limit;
