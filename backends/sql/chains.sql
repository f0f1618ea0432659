-- name: read_chain
-- The chain that a run belongs to; nothing of one without a first event, which is being removed.
SELECT u.first_id
  FROM runs u
  JOIN events v ON v.tenant_id = u.tenant_id AND v.execution_id = u.id AND v.sequence = 1
 WHERE u.tenant_id = :tenant_id AND u.id = :execution_id;

-- name: list_chain
-- The runs of a chain in their order, but for those that are being removed.
SELECT u.place, u.id, e.workflow_id, e.status, u.attempt, u.previous_id, u.next_id, e.sequence, e.created_at, e.completed_at
  FROM runs u
  JOIN executions e ON e.tenant_id = u.tenant_id AND e.id = u.id
  JOIN events v ON v.tenant_id = u.tenant_id AND v.execution_id = u.id AND v.sequence = 1
 WHERE u.tenant_id = :tenant_id AND u.first_id = :first_id AND u.place > :place
 ORDER BY u.place
 LIMIT :limit;
