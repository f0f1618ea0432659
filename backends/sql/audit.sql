-- name: load_audit_heads
-- The ends of audit chains, locked: one line at a time.
WITH rows(tenant_id TEXT) AS (:rows)
SELECT h.tenant_id, h.sequence, h.hash
  FROM rows r
  JOIN audit_heads h ON h.tenant_id = r.tenant_id
 ORDER BY h.tenant_id FOR UPDATE OF h;

-- name: insert_audit_heads
-- A tenant's first line.
WITH rows(tenant_id TEXT, sequence BIGINT, hash TEXT) AS (:rows)
INSERT INTO audit_heads (tenant_id, sequence, hash) SELECT tenant_id, sequence, hash FROM rows;

-- name: update_audit_heads
-- The chain grows, from the end it was decided on.
WITH rows(tenant_id TEXT, sequence BIGINT, hash TEXT, was_sequence BIGINT) AS (:rows)
UPDATE audit_heads SET sequence = rows.sequence, hash = rows.hash
  FROM rows
 WHERE audit_heads.tenant_id = rows.tenant_id AND audit_heads.sequence = rows.was_sequence;

-- name: load_audit
-- Lines by sequence.
WITH rows(tenant_id TEXT, sequence BIGINT) AS (:rows)
SELECT a.tenant_id, a.sequence, a.at, a.actor, a.action, a.target, a.detail, a.hash
  FROM rows r
  JOIN audit a ON a.tenant_id = r.tenant_id AND a.sequence = r.sequence
 ORDER BY a.tenant_id, a.sequence;

-- name: insert_audit
-- New lines.
WITH rows(tenant_id TEXT, sequence BIGINT, at BIGINT, actor TEXT, action TEXT, target TEXT, detail BYTEA, hash TEXT)
     AS (:rows)
INSERT INTO audit (tenant_id, sequence, at, actor, action, target, detail, hash)
SELECT tenant_id, sequence, at, actor, action, target, detail, hash FROM rows;

-- name: list_audit_heads
-- The end of every chain, of all tenants; NULL where lines have none. Not of tenants whose rows are being taken away.
SELECT c.tenant_id, h.sequence, h.hash
  FROM (SELECT a.tenant_id FROM audit a UNION SELECT e.tenant_id FROM audit_heads e) AS c
  LEFT JOIN audit_heads h ON h.tenant_id = c.tenant_id
  LEFT JOIN tenants t ON t.tenant_id = c.tenant_id
 WHERE t.status IS NULL OR t.status <> 'deleting'
 ORDER BY c.tenant_id;

-- name: list_audit
-- A page of a tenant's chain, in order.
SELECT a.tenant_id, a.sequence, a.at, a.actor, a.action, a.target, a.detail, a.hash
  FROM audit a
 WHERE a.tenant_id = :tenant_id AND a.sequence > :after
 ORDER BY a.sequence
 LIMIT :limit;
