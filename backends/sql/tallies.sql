-- name: insert_tally_changes
-- What a commit adds to tallies and takes from them: rows of its own, so it waits for no other.
WITH rows(tenant_id TEXT, id TEXT, namespace TEXT, status TEXT, count BIGINT) AS (:rows)
INSERT INTO tally_changes (tenant_id, id, namespace, status, count)
SELECT tenant_id, id, namespace, status, count FROM rows;

-- name: tally_changes_to_fold
-- A page of what commits have added, of any tenant, locked: two sweepers fold different ones. Not of a tenant that is
-- being imported.
SELECT c.tenant_id, c.id, c.namespace, c.status, c.count
  FROM tally_changes c
 WHERE NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = c.tenant_id AND t.version = 0)
 ORDER BY c.tenant_id, c.id
 LIMIT :limit FOR UPDATE OF c SKIP LOCKED;

-- name: any_tally_change
-- Whether there is anything to fold.
SELECT 1 FROM tally_changes c
 WHERE NOT EXISTS (SELECT 1 FROM tenants t WHERE t.tenant_id = c.tenant_id AND t.version = 0)
 LIMIT 1;

-- name: fold_tallies
-- Add to the totals.
WITH rows(tenant_id TEXT, namespace TEXT, status TEXT, count BIGINT) AS (:rows)
INSERT INTO tallies (tenant_id, namespace, status, count)
SELECT tenant_id, namespace, status, count FROM rows WHERE tenant_id IS NOT NULL
    ON CONFLICT (tenant_id, namespace, status) DO UPDATE SET count = tallies.count + excluded.count;

-- name: delete_tally_changes
-- What has been folded, in the same transaction.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
DELETE FROM tally_changes WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM rows);

-- name: read_tallies
-- How many executions of a namespace have each status, to the last commit.
SELECT c.status, sum(c.count)
  FROM (SELECT t.status, t.count FROM tallies t WHERE t.tenant_id = :tenant_id AND t.namespace = :namespace
         UNION ALL
        SELECT d.status, d.count FROM tally_changes d BY KEY WHERE d.tenant_id = :tenant_id AND d.namespace = :namespace) AS c
 GROUP BY c.status
 ORDER BY c.status;
