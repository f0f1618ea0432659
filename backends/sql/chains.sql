-- name: read_chain
-- The chain that a run belongs to: its first run's id, when the run began that has this id now, and whether that
-- is another one, which began after this run. Nothing of one without a first event, which is being removed.
SELECT u.first_id, f.created_at, CASE WHEN e.created_at < f.created_at THEN 1 ELSE 0 END
  FROM runs u
  JOIN executions e ON e.tenant_id = u.tenant_id AND e.id = u.id
  JOIN events v ON v.tenant_id = u.tenant_id AND v.execution_id = u.id AND v.sequence = 1
  LEFT JOIN executions f ON f.tenant_id = u.tenant_id AND f.id = u.first_id
 WHERE u.tenant_id = :tenant_id AND u.id = :execution_id;

-- name: list_chain
-- The runs of a chain in their order, but for those that are being removed. Those of another chain whose first run had
-- the same id before, or has it since, began before or after these.
SELECT u.place, u.id, e.workflow_id, e.status, u.attempt, u.previous_id, u.next_id, e.sequence, e.created_at, e.completed_at
  FROM runs u
  JOIN executions e ON e.tenant_id = u.tenant_id AND e.id = u.id
  JOIN events v ON v.tenant_id = u.tenant_id AND v.execution_id = u.id AND v.sequence = 1
 WHERE u.tenant_id = :tenant_id AND u.first_id = :first_id AND u.place > :place AND e.created_at >= :since
   AND e.created_at < :until
 ORDER BY u.place
 LIMIT :limit;

-- name: read_outcome_of_chain
-- How the last run of a chain stands, or has ended; which runs are of the chain is told as by list_chain.
SELECT e.id, e.status, e.result, e.error, e.sequence, e.completed_at
  FROM runs u
  JOIN executions e ON e.tenant_id = u.tenant_id AND e.id = u.id
  JOIN events v ON v.tenant_id = u.tenant_id AND v.execution_id = u.id AND v.sequence = 1
 WHERE u.tenant_id = :tenant_id AND u.first_id = :first_id AND e.created_at >= :since AND e.created_at < :until
 ORDER BY u.place DESC
 LIMIT 1;

-- name: read_outcome
-- How an execution that is no run of a workflow stands, or has ended. One without a first event is being removed.
SELECT e.id, e.status, e.result, e.error, e.sequence, e.completed_at
  FROM executions e
  JOIN events v ON v.tenant_id = e.tenant_id AND v.execution_id = e.id AND v.sequence = 1
 WHERE e.tenant_id = :tenant_id AND e.id = :execution_id;
