-- The lease of the sweeps has an epoch, its fence, and says since when it is held.
ALTER TABLE sweep_leases ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sweep_leases ADD COLUMN since BIGINT NOT NULL DEFAULT 0;

-- What is due, tenant by tenant: when more is due than a page holds, tenants are served in turn.
CREATE INDEX alarms_of_tenant ON alarms (tenant_id, due_at, owner_id, name);
CREATE INDEX work_due_of_tenant ON work_items (tenant_id, ready_at, id) WHERE status = 'delayed';
CREATE INDEX work_leased_of_tenant ON work_items (tenant_id, expires_at, id, worker_id, queue, requires) WHERE status = 'leased';

-- The indexes by time are for whoever asks of all tenants, and says so (tenant_id > ''): for one tenant they would seem as
-- good to a planner, and lead past what all the others have due.
DROP INDEX alarms_due;
DROP INDEX work_due;
DROP INDEX work_leased;
CREATE INDEX alarms_due ON alarms (due_at, tenant_id, owner_id, name) WHERE tenant_id > '';
CREATE INDEX work_due ON work_items (ready_at, tenant_id, id) WHERE status = 'delayed' AND tenant_id > '';
CREATE INDEX work_leased ON work_items (expires_at, tenant_id, id) WHERE status = 'leased' AND tenant_id > '';
