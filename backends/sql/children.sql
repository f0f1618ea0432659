-- name: list_children
-- The children that a run has started, by its counter, each with where its newest run stands, if that is still there.
SELECT s.seq, s.name, s.ref, s.status, e.status, s.created_at, s.ended_at
  FROM steps s
  LEFT JOIN executions e ON e.tenant_id = s.tenant_id AND e.id = s.ref AND e.sequence <> 0
 WHERE s.tenant_id = :tenant_id AND s.execution_id = :execution_id AND s.kind = 'child' AND s.seq > :seq
 ORDER BY s.seq
 LIMIT :limit;
