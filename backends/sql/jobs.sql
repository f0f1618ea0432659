-- name: load_jobs
-- Jobs, locked: one page at a time.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT j.tenant_id, j.id, j.kind, j.status, j.detail, j.total, j.done, j.due_at, j.created_at, j.updated_at
  FROM rows r
  JOIN jobs j ON j.tenant_id = r.tenant_id AND j.id = r.id
 ORDER BY j.tenant_id, j.id FOR UPDATE OF j;

-- name: insert_jobs
-- A new job.
WITH rows(tenant_id TEXT, id TEXT, kind TEXT, status TEXT, detail BYTEA, total BIGINT, done BIGINT, due_at BIGINT,
          created_at BIGINT, updated_at BIGINT) AS (:rows)
INSERT INTO jobs (tenant_id, id, kind, status, detail, total, done, due_at, created_at, updated_at)
SELECT tenant_id, id, kind, status, detail, total, done, due_at, created_at, updated_at FROM rows;

-- name: update_jobs
-- A page done, from where the job stood.
WITH rows(tenant_id TEXT, id TEXT, status TEXT, detail BYTEA, total BIGINT, done BIGINT, due_at BIGINT,
          updated_at BIGINT, was_done BIGINT, was_status TEXT) AS (:rows)
UPDATE jobs
   SET status = rows.status, detail = rows.detail, total = rows.total, done = rows.done, due_at = rows.due_at,
       updated_at = rows.updated_at
  FROM rows
 WHERE jobs.tenant_id = rows.tenant_id AND jobs.id = rows.id AND jobs.done = rows.was_done
   AND jobs.status = rows.was_status;

-- name: due_jobs
-- Jobs of one kind, of any tenant, whose next page is due. Not of a tenant that is being imported.
SELECT j.tenant_id, j.id, j.kind, j.status, j.detail, j.total, j.done, j.due_at, j.created_at, j.updated_at
  FROM jobs j
 WHERE j.status = 'running' AND j.due_at <= :now AND j.kind = :kind
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = j.tenant_id AND t.version = 0)
 ORDER BY j.due_at, j.tenant_id, j.id
 LIMIT :limit;

-- name: due_jobs_of_tenant
-- Those of one tenant.
SELECT j.tenant_id, j.id, j.kind, j.status, j.detail, j.total, j.done, j.due_at, j.created_at, j.updated_at
  FROM jobs j
 WHERE j.tenant_id = :tenant_id AND j.status = 'running' AND j.due_at <= :now AND j.kind = :kind
   AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = j.tenant_id AND t.version = 0)
 ORDER BY j.due_at, j.id
 LIMIT :limit;

-- name: read_job
-- One job.
SELECT j.tenant_id, j.id, j.kind, j.status, j.detail, j.total, j.done, j.due_at, j.created_at, j.updated_at
  FROM jobs j
 WHERE j.tenant_id = :tenant_id AND j.id = :id;
