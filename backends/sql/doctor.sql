-- name: list_broken_logs
-- Executions whose log is not 1 … sequence: it has a gap, or ends before or behind. One that has ended and is being
-- removed has the sequence 0 and no first event: what is left of it is right. Reads every log; for the doctor.
SELECT e.tenant_id, e.id
  FROM executions e JOIN tenants t ON t.tenant_id = e.tenant_id AND t.status <> 'deleting'
 WHERE CASE WHEN e.sequence = 0
            THEN e.completed_at IS NULL
                 OR EXISTS (SELECT 1 FROM events v
                             WHERE v.tenant_id = e.tenant_id AND v.execution_id = e.id AND v.sequence = 1)
            ELSE e.sequence <> (SELECT count(*) FROM events v
                                 WHERE v.tenant_id = e.tenant_id AND v.execution_id = e.id
                                   AND v.sequence BETWEEN 1 AND e.sequence)
                 OR EXISTS (SELECT 1 FROM events v
                             WHERE v.tenant_id = e.tenant_id AND v.execution_id = e.id AND v.sequence > e.sequence)
       END
 ORDER BY e.tenant_id, e.id LIMIT :limit;

-- name: list_lost_logs
-- Executions that are named by a first event and are not there. Reads every log; for the doctor.
SELECT v.tenant_id, v.execution_id
  FROM events v JOIN tenants t ON t.tenant_id = v.tenant_id AND t.status <> 'deleting'
 WHERE v.sequence = 1
   AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.tenant_id = v.tenant_id AND e.id = v.execution_id)
 ORDER BY v.tenant_id, v.execution_id LIMIT :limit;

-- name: list_broken_counts
-- Executions that go on and count other open items than there are; for the doctor.
SELECT e.tenant_id, e.id
  FROM executions e JOIN tenants t ON t.tenant_id = e.tenant_id AND t.status <> 'deleting'
 WHERE e.status IN ('pending', 'running', 'paused')
   AND e.open_items <> (SELECT count(*) FROM work_items w
                         WHERE w.tenant_id = e.tenant_id AND w.execution_id = e.id
                           AND w.status IN ('ready', 'delayed', 'leased'))
 ORDER BY e.tenant_id, e.id LIMIT :limit;

-- name: list_unsettled
-- Open items of executions whose log says that they are completed. Reads every log; for the doctor.
SELECT w.tenant_id, w.id
  FROM events v
  JOIN tenants t ON t.tenant_id = v.tenant_id AND t.status <> 'deleting'
  JOIN work_items w ON w.tenant_id = v.tenant_id AND w.id = v.work_item_id
 WHERE v.kind = 'work.completed' AND w.execution_id = v.execution_id AND w.status IN ('ready', 'delayed', 'leased')
 ORDER BY w.tenant_id, w.id LIMIT :limit;
