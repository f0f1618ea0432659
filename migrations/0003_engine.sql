-- The durable engine: executions that workflow code drives (runs), what that code asked for (steps), what rings at a time.

-- One row an execution that a workflow drives, beside its head. task_id is its one open workflow task, if there is one;
-- woken_at is the sequence of the last event that the workflow must see, seen of
-- the last one that it had seen when it last submitted. first_id and place find the runs of a chain in order.
CREATE TABLE runs (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  task_id TEXT,
  woken_at BIGINT NOT NULL,
  submits BIGINT NOT NULL,
  seen BIGINT NOT NULL,
  open_steps BIGINT NOT NULL,
  alarms BIGINT NOT NULL,
  cancel_requested_at BIGINT,
  first_id TEXT NOT NULL,
  previous_id TEXT,
  next_id TEXT,
  place BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  parent_seq BIGINT,
  close_policy TEXT,
  options BYTEA NOT NULL,
  memo BYTEA,
  PRIMARY KEY (tenant_id, id)
)
-- @postgres
WITH (fillfactor = 50)
-- @end
;
CREATE INDEX runs_of_chain ON runs (tenant_id, first_id, place, id);

-- What a workflow asked for, by its own counter: activities, timers, children, side effects, signals to others.
CREATE TABLE steps (
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  seq BIGINT NOT NULL,
  name TEXT NOT NULL,
  digest TEXT NOT NULL,
  said BYTEA NOT NULL,
  status TEXT NOT NULL,
  ref TEXT,
  detail BYTEA,
  created_at BIGINT NOT NULL,
  ended_at BIGINT,
  PRIMARY KEY (tenant_id, execution_id, kind, seq)
);
CREATE INDEX steps_open ON steps (tenant_id, execution_id, kind, seq) WHERE status = 'open';

-- The signals that came with an id of their own: a repeat is recognised, whatever became of the first.
CREATE TABLE signals (
  tenant_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  signal_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  sequence BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, execution_id, signal_id)
);

-- What rings at a time: timers, timeouts, schedules. A sweep finds what is due by time.
CREATE TABLE alarms (
  tenant_id TEXT NOT NULL,
  owner_id TEXT NOT NULL,
  name TEXT NOT NULL,
  due_at BIGINT NOT NULL,
  detail BYTEA,
  PRIMARY KEY (tenant_id, owner_id, name)
);
CREATE INDEX alarms_due ON alarms (due_at, tenant_id, owner_id, name);
