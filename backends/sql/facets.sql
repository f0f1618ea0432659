-- name: executions_of_facet
-- The executions with a label or an attribute, as many as are asked for.
SELECT f.execution_id
  FROM facets f
 WHERE f.tenant_id = :tenant_id AND {where}
 LIMIT :limit;

-- name: list_executions_among
-- Of executions that are named: by age, newest first, after a position. The plus keeps SQLite from walking all by age, the
-- cross join from walking all that have a status.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM json_each(:ids[]) AS r
 CROSS JOIN executions e
 WHERE e.tenant_id = :tenant_id AND e.id = r.value AND (+e.created_at, e.id) < (:at, :id) AND e.sequence <> 0
   AND {where}
 ORDER BY +e.created_at DESC, e.id DESC
 LIMIT :limit;

-- name: list_executions_among @postgres
-- The same. A sub-query with a LIMIT is carried out by itself for each id: nothing but the key leads to its row.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM unnest(:ids::text[]) AS r(id)
 CROSS JOIN LATERAL (SELECT x.* FROM executions x WHERE x.tenant_id = :tenant_id AND x.id = r.id LIMIT 1) AS e
 WHERE (e.created_at, e.id) < (:at, :id) AND e.sequence <> 0 AND {where}
 ORDER BY e.created_at DESC, e.id DESC
 LIMIT :limit;

-- name: list_executions_oldest_among
-- Of executions that are named: by age, oldest first, after a position.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM json_each(:ids[]) AS r
 CROSS JOIN executions e
 WHERE e.tenant_id = :tenant_id AND e.id = r.value AND (+e.created_at, e.id) > (:at, :id) AND e.sequence <> 0
   AND {where}
 ORDER BY +e.created_at, e.id
 LIMIT :limit;

-- name: list_executions_oldest_among @postgres
-- The same, as above.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, e.created_at, 0
  FROM unnest(:ids::text[]) AS r(id)
 CROSS JOIN LATERAL (SELECT x.* FROM executions x WHERE x.tenant_id = :tenant_id AND x.id = r.id LIMIT 1) AS e
 WHERE (e.created_at, e.id) > (:at, :id) AND e.sequence <> 0 AND {where}
 ORDER BY e.created_at, e.id
 LIMIT :limit;

-- name: list_executions_updated_among
-- Of executions that are named: by last change, newest first, after a position; on SQLite position alone is the order.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, v.commit_id, v.position
  FROM json_each(:ids[]) AS r
 CROSS JOIN executions e
 CROSS JOIN events v
 WHERE e.tenant_id = :tenant_id AND e.id = r.value AND v.tenant_id = :tenant_id AND v.execution_id = e.id
   AND v.sequence = e.sequence AND +v.position < :position AND {where}
 ORDER BY +v.position DESC
 LIMIT :limit;

-- name: list_executions_updated_among @postgres
-- The same, by transaction and position.
SELECT e.id, e.namespace, e.workflow_id, e.version, e.status, e.queue, e.parent_id, e.segment, e.sequence, e.open_items,
       e.labels, e.attributes, e.created_at, e.started_at, e.updated_at, e.completed_at, v.commit_id, v.position
  FROM unnest(:ids::text[]) AS r(id)
 CROSS JOIN LATERAL (SELECT x.* FROM executions x WHERE x.tenant_id = :tenant_id AND x.id = r.id LIMIT 1) AS e
 CROSS JOIN LATERAL (SELECT y.commit_id, y.position FROM events y
                      WHERE y.tenant_id = :tenant_id AND y.execution_id = e.id AND y.sequence = e.sequence LIMIT 1) AS v
 WHERE (v.commit_id, v.position) < (:commit_id, :position) AND {where}
 ORDER BY v.commit_id DESC, v.position DESC
 LIMIT :limit;
