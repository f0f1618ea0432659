-- The core: who (tenants, tokens, audit), what (definitions), runs (executions, states, events, snapshots), work.
-- Times are milliseconds since the epoch, UTC. JSON is opaque bytes. Keys begin with tenant_id.

CREATE TABLE tenants (
  tenant_id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'archived', 'deleting')),
  policy BYTEA,
  limits TEXT NOT NULL,
  version BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

-- The tenant '' holds system tokens and the system's audit log; it is never listed.
INSERT INTO tenants (tenant_id, name, status, policy, limits, version, created_at, updated_at)
VALUES ('', 'system', 'active', NULL, '{}', 1, 0, 0), ('default', 'default', 'active', NULL, '{}', 1, 0, 0);

CREATE TABLE tokens (
  tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  queues TEXT NOT NULL,
  verifier TEXT NOT NULL,
  reject_tag BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  created_by TEXT,
  expires_at BIGINT,
  last_used_at BIGINT,
  revoked_at BIGINT,
  revoked_by TEXT,
  replaces TEXT,
  replaced_by TEXT,
  PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX tokens_by_id ON tokens (id);

CREATE TABLE audit_heads (
  tenant_id TEXT NOT NULL PRIMARY KEY,
  sequence BIGINT NOT NULL,
  hash TEXT NOT NULL
);

CREATE TABLE audit (
  tenant_id TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  detail BYTEA,
  hash TEXT NOT NULL,
  PRIMARY KEY (tenant_id, sequence)
);

CREATE TABLE idempotency_keys (
  tenant_id TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status BIGINT NOT NULL,
  body BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE workflows (
  tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id),
  workflow_id TEXT NOT NULL,
  revision BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, workflow_id)
);

CREATE TABLE definitions (
  tenant_id TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  version TEXT NOT NULL,
  revision BIGINT NOT NULL,
  digest TEXT NOT NULL,
  body BYTEA NOT NULL,
  validated BIGINT NOT NULL,
  snapshot_events BIGINT NOT NULL,
  snapshot_bytes BIGINT NOT NULL,
  snapshot_keep BIGINT NOT NULL,
  start BYTEA,
  created_at BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  PRIMARY KEY (tenant_id, workflow_id, version),
  FOREIGN KEY (tenant_id, workflow_id) REFERENCES workflows (tenant_id, workflow_id)
);
CREATE INDEX definitions_by_age ON definitions (tenant_id, created_at, workflow_id, version);

-- Half of each page is left free (Postgres): an update that moves no indexed column then stays on its page and touches no
-- index, even when one transaction updates every row of a page.
CREATE TABLE executions (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  version TEXT,
  status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled',
                                         'terminated', 'timed_out', 'limit_exceeded')),
  queue TEXT,
  parent_id TEXT,
  segment BIGINT NOT NULL,
  sequence BIGINT NOT NULL,
  snapshot_sequence BIGINT NOT NULL,
  snapshot_events BIGINT NOT NULL,
  snapshot_bytes BIGINT NOT NULL,
  snapshot_keep BIGINT NOT NULL,
  unfolded_bytes BIGINT NOT NULL,
  open_items BIGINT NOT NULL,
  digest TEXT NOT NULL,
  labels BYTEA,
  attributes BYTEA,
  result BYTEA,
  error BYTEA,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  updated_at BIGINT NOT NULL,
  completed_at BIGINT,
  PRIMARY KEY (tenant_id, id)
)
-- @postgres
WITH (fillfactor = 50)
-- @end
;
CREATE INDEX executions_by_age ON executions (tenant_id, created_at, id);
CREATE INDEX executions_by_workflow ON executions (tenant_id, workflow_id, created_at, id);
-- Most rows end as completed; leaving them out keeps every other status cheap to find and to count.
CREATE INDEX executions_by_status ON executions (tenant_id, status, created_at, id) WHERE status <> 'completed';
CREATE INDEX executions_by_parent ON executions (tenant_id, parent_id, created_at, id) WHERE parent_id IS NOT NULL;

-- An execution has a row here once its state was written; until then it is {}.
CREATE TABLE states (
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  state BYTEA NOT NULL,
  sequence BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, execution_id)
);

CREATE TABLE facets (
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  family TEXT NOT NULL,
  name TEXT NOT NULL,
  text_value TEXT,
  number_value BIGINT,
  PRIMARY KEY (tenant_id, execution_id, family, name)
);
CREATE INDEX facets_by_text ON facets (tenant_id, family, name, text_value, execution_id);
CREATE INDEX facets_by_number ON facets (tenant_id, family, name, number_value, execution_id) WHERE number_value IS NOT NULL;

-- commit_id and position give the tenant's feed an order that is safe under concurrent commits: SQLite commits in order,
-- Postgres shows an event once no older transaction can still commit.
CREATE TABLE events (
-- @sqlite
  position BIGINT PRIMARY KEY AUTOINCREMENT,
  commit_id BIGINT NOT NULL DEFAULT 0,
-- @postgres
  position BIGINT GENERATED ALWAYS AS IDENTITY,
  commit_id BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
-- @end
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  kind TEXT NOT NULL,
  body BYTEA,
  at BIGINT NOT NULL,
  actor TEXT NOT NULL,
  node_id TEXT,
  work_item_id TEXT,
  causation_id TEXT,
-- @sqlite
  UNIQUE (tenant_id, execution_id, sequence)
-- @postgres
  PRIMARY KEY (tenant_id, execution_id, sequence)
-- @end
);
CREATE INDEX events_feed ON events (tenant_id, commit_id, position);

CREATE TABLE snapshots (
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  body BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, execution_id, sequence),
  FOREIGN KEY (tenant_id, execution_id) REFERENCES executions (tenant_id, id)
);

CREATE TABLE queues (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  paused_at BIGINT,
  note TEXT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, name)
);

-- A shelf is a queue and one set of required capabilities: a claim looks only at shelves whose set it offers, so an item
-- that needs more never hides what stands behind it.
CREATE TABLE shelves (
  tenant_id TEXT NOT NULL,
  queue TEXT NOT NULL,
  requires TEXT NOT NULL,
  PRIMARY KEY (tenant_id, queue, requires)
);

CREATE TABLE work_items (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  execution_id TEXT,
  node_id TEXT,
  queue TEXT NOT NULL,
  requires TEXT NOT NULL,
  drives TEXT NOT NULL CHECK (drives IN ('nothing', 'activity', 'decision', 'execution')),
  payload BYTEA,
  priority BIGINT NOT NULL,
  ready_at BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  max_attempts BIGINT NOT NULL,
  retry BYTEA,
  dedup_key TEXT,
  concurrency_key TEXT,
  status TEXT NOT NULL CHECK (status IN ('ready', 'delayed', 'leased', 'completed', 'dead', 'cancelled', 'discarded')),
  worker_id TEXT,
  token_id TEXT,
  epoch BIGINT NOT NULL,
  lease_ms BIGINT,
  expires_at BIGINT,
  progress BYTEA,
  errors BYTEA,
  error_type TEXT,
  result BYTEA,
  digest TEXT NOT NULL,
  settle_digest TEXT,
  settle_reply BYTEA,
  cancel_requested_at BIGINT,
  created_at BIGINT NOT NULL,
  settled_at BIGINT,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX work_ready ON work_items (tenant_id, queue, requires, priority DESC, ready_at, id) WHERE status = 'ready';
CREATE INDEX work_delayed ON work_items (tenant_id, queue, requires, ready_at, id) WHERE status = 'delayed';
CREATE INDEX work_due ON work_items (ready_at, tenant_id, id) WHERE status = 'delayed';
CREATE INDEX work_leased ON work_items (expires_at, tenant_id, id) WHERE status = 'leased';
CREATE INDEX work_dead ON work_items (tenant_id, settled_at, id) WHERE status = 'dead';
CREATE INDEX work_of_execution ON work_items (tenant_id, execution_id, id) WHERE execution_id IS NOT NULL;
CREATE UNIQUE INDEX work_dedup ON work_items (tenant_id, dedup_key)
  WHERE dedup_key IS NOT NULL AND status IN ('ready', 'delayed', 'leased');
-- At most one lease a concurrency key: of two processes that claim at once, the store refuses one.
CREATE UNIQUE INDEX work_concurrency ON work_items (tenant_id, concurrency_key)
  WHERE concurrency_key IS NOT NULL AND status = 'leased';

CREATE TABLE jobs (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'cancelled', 'failed')),
  detail BYTEA NOT NULL,
  total BIGINT NOT NULL,
  done BIGINT NOT NULL,
  due_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX jobs_running ON jobs (due_at, tenant_id, id) WHERE status = 'running';

-- One row a name: which process runs a sweep, until when.
CREATE TABLE sweep_leases (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  holder TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, name)
);

-- What the service keeps to itself: the key that seals cursors.
CREATE TABLE secrets (
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  value BYTEA NOT NULL,
  PRIMARY KEY (tenant_id, name)
);
