-- Who works (workers), the parts of a tenant (namespaces), and what stats are counted by (tallies).

-- `main` has no row: every tenant has it. A namespace that is being deleted keeps its row until nothing of it is left.
CREATE TABLE namespaces (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  note TEXT,
  status TEXT NOT NULL CHECK (status IN ('active', 'deleting')),
  job_id TEXT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, name)
);
INSERT INTO namespaces (tenant_id, name, note, status, job_id, created_at)
SELECT used.tenant_id, used.namespace, NULL, 'active', NULL, min(used.created_at)
  FROM (SELECT tenant_id, namespace, created_at FROM executions WHERE namespace <> 'main'
         UNION ALL
        SELECT tenant_id, namespace, created_at FROM schedules WHERE namespace <> 'main') AS used
 GROUP BY used.tenant_id, used.namespace;

-- A worker says what it works on, and is heard of every heartbeat_ms; expires_at is three of them after the last time.
CREATE TABLE workers (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  identity TEXT NOT NULL,
  queues TEXT NOT NULL,
  types TEXT NOT NULL,
  activities TEXT NOT NULL,
  capacities TEXT NOT NULL,
  build_id TEXT,
  heartbeat_ms BIGINT NOT NULL,
  registered_at BIGINT NOT NULL,
  heartbeat_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX workers_due ON workers (expires_at, tenant_id, id);

-- The queues of each worker, as work items know them: who serves a queue.
CREATE TABLE worker_queues (
  tenant_id TEXT NOT NULL,
  queue TEXT NOT NULL,
  worker_id TEXT NOT NULL,
  PRIMARY KEY (tenant_id, queue, worker_id)
);
CREATE INDEX worker_queues_of_worker ON worker_queues (tenant_id, worker_id, queue);

-- How many executions of a namespace have a status: the totals, and what commits have added since. A commit only adds
-- rows, so commits never wait for each other here; a sweep folds them into the totals.
CREATE TABLE tallies (
  tenant_id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  status TEXT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, namespace, status)
);
INSERT INTO tallies (tenant_id, namespace, status, count)
SELECT tenant_id, namespace, status, count(*) FROM executions GROUP BY tenant_id, namespace, status;

CREATE TABLE tally_changes (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  status TEXT NOT NULL,
  count BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, id)
);

CREATE INDEX executions_of_namespace ON executions (tenant_id, namespace, status, id) WHERE namespace <> 'main';
CREATE INDEX schedules_of_namespace ON schedules (tenant_id, namespace, id);
