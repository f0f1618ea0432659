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
SELECT a.tenant_id, a.sequence, a.at, a.actor, a.action, a.target, a.detail, a.hash, a.request_id, a.source
  FROM rows r
  JOIN audit a ON a.tenant_id = r.tenant_id AND a.sequence = r.sequence
 ORDER BY a.tenant_id, a.sequence;

-- name: insert_audit
-- New lines.
WITH rows(tenant_id TEXT, sequence BIGINT, at BIGINT, actor TEXT, action TEXT, target TEXT, detail BYTEA, hash TEXT,
          request_id TEXT, source TEXT) AS (:rows)
INSERT INTO audit (tenant_id, sequence, at, actor, action, target, detail, hash, request_id, source)
SELECT tenant_id, sequence, at, actor, action, target, detail, hash, request_id, source FROM rows;

-- name: list_audit_chains
-- Whose chains there are, the system's first. Not of tenants whose rows are being taken away.
SELECT c.tenant_id
  FROM (SELECT a.tenant_id FROM audit a UNION SELECT e.tenant_id FROM audit_heads e
         UNION SELECT k.tenant_id FROM audit_checkpoints k) AS c
  LEFT JOIN tenants t ON t.tenant_id = c.tenant_id
 WHERE t.status IS NULL OR t.status <> 'deleting'
 ORDER BY c.tenant_id;

-- name: read_audit_ends
-- Both ends of a chain: where its head stands, and where its kept part begins; NULL for what there is not.
SELECT (SELECT h.sequence FROM audit_heads h WHERE h.tenant_id = :tenant_id),
       (SELECT h.hash FROM audit_heads h WHERE h.tenant_id = :tenant_id),
       (SELECT c.sequence FROM audit_checkpoints c WHERE c.tenant_id = :tenant_id),
       (SELECT c.hash FROM audit_checkpoints c WHERE c.tenant_id = :tenant_id);

-- name: count_audit_before
-- How many lines stand where none can be: before the kept part of a chain.
SELECT count(*) FROM audit a WHERE a.tenant_id = :tenant_id AND a.sequence <= :sequence;

-- name: list_audit
-- A page of a tenant's chain, in order.
SELECT a.tenant_id, a.sequence, a.at, a.actor, a.action, a.target, a.detail, a.hash, a.request_id, a.source
  FROM audit a
 WHERE a.tenant_id = :tenant_id AND a.sequence > :after
 ORDER BY a.sequence
 LIMIT :limit;

-- name: audit_to_trim
-- Whose oldest kept line is older than a time, after a tenant, of all tenants. Not of those whose rows are being taken
-- away. Where the kept part begins is said by CASE and not by arithmetic: a policy lets that bound an index.
SELECT h.tenant_id
  FROM audit_heads h
  LEFT JOIN audit_checkpoints c ON c.tenant_id = h.tenant_id
  JOIN tenants t ON t.tenant_id = h.tenant_id
 WHERE h.tenant_id > :after AND t.status <> 'deleting'
   AND (SELECT a.at
          FROM audit a
         WHERE a.tenant_id = h.tenant_id AND a.sequence > CASE WHEN c.sequence IS NULL THEN 0 ELSE c.sequence END
         ORDER BY a.sequence
         LIMIT 1) < :before
 ORDER BY h.tenant_id
 LIMIT :limit;

-- name: drop_audit
-- Let a chain's beginning go, up to a line.
DELETE FROM audit WHERE tenant_id = :tenant_id AND sequence <= :sequence;

-- name: put_audit_checkpoint
-- Where the kept part begins from now on.
INSERT INTO audit_checkpoints (tenant_id, sequence, hash, at) VALUES (:tenant_id, :sequence, :hash, :at)
    ON CONFLICT (tenant_id) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, at = excluded.at;
