-- Schedules: what starts workflows at times, and what became of the last ones that they started.

-- next_at is the nominal time of the next occurrence, NULL when there is none or the schedule is paused; its alarm rings
-- then, or a little later by the jitter. runs counts the occurrences that were written down.
CREATE TABLE schedules (
  tenant_id TEXT NOT NULL,
  id TEXT NOT NULL,
  namespace TEXT NOT NULL,
  spec BYTEA NOT NULL,
  workflow_type TEXT NOT NULL,
  task_queue TEXT NOT NULL,
  input BYTEA,
  attributes BYTEA,
  memo BYTEA,
  overlap TEXT NOT NULL,
  catch_up_ms BIGINT NOT NULL,
  paused BIGINT NOT NULL,
  note TEXT,
  next_at BIGINT,
  runs BIGINT NOT NULL,
  missed BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  refusal TEXT,
  digest TEXT NOT NULL,
  revision BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX schedules_by_age ON schedules (tenant_id, created_at, id);

-- One row an occurrence, as long as it is open or among the last ones. With followed, another waits for its end; with
-- dropped, it is forgotten when it ends.
CREATE TABLE schedule_runs (
  tenant_id TEXT NOT NULL,
  schedule_id TEXT NOT NULL,
  execution_id TEXT NOT NULL,
  number BIGINT NOT NULL,
  nominal_at BIGINT NOT NULL,
  status TEXT NOT NULL,
  started_at BIGINT,
  ended_at BIGINT,
  followed BIGINT NOT NULL,
  dropped BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, schedule_id, execution_id)
);
CREATE INDEX schedule_runs_by_number ON schedule_runs (tenant_id, schedule_id, number);
CREATE INDEX schedule_runs_open ON schedule_runs (tenant_id, schedule_id) WHERE ended_at IS NULL;
