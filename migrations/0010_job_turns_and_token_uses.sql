-- Whose jobs are due, tenant by tenant.
CREATE INDEX jobs_of_tenant ON jobs (tenant_id, kind, due_at, id) WHERE status = 'running';

-- Where a token was last used from, and by which program, as of last_used_at.
ALTER TABLE tokens ADD COLUMN last_used_from TEXT;
ALTER TABLE tokens ADD COLUMN last_used_agent TEXT;
