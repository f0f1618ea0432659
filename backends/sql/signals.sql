-- name: load_signals
-- Signals that came with an id, under the locks of their executions.
WITH rows(tenant_id TEXT, execution_id TEXT, signal_id TEXT) AS (:rows)
SELECT s.tenant_id, s.execution_id, s.signal_id, s.digest, s.sequence
  FROM rows r
  JOIN signals s ON s.tenant_id = r.tenant_id AND s.execution_id = r.execution_id AND s.signal_id = r.signal_id
 ORDER BY s.tenant_id, s.execution_id, s.signal_id;

-- name: insert_signals
-- A signal's first coming.
WITH rows(tenant_id TEXT, execution_id TEXT, signal_id TEXT, digest TEXT, sequence BIGINT) AS (:rows)
INSERT INTO signals (tenant_id, execution_id, signal_id, digest, sequence)
SELECT tenant_id, execution_id, signal_id, digest, sequence FROM rows;
