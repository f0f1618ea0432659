-- name: read_sweep
-- Who sweeps, under which epoch, since when and until when.
SELECT s.holder, s.epoch, s.since, s.expires_at
  FROM sweep_leases s
 WHERE s.tenant_id = :tenant_id AND s.name = :name;

-- name: take_sweep
-- Hold the sweeps under the next epoch: for the first of those who read the epoch before it, and only while nobody else's
-- time runs. One row, so one process.
INSERT INTO sweep_leases (tenant_id, name, holder, epoch, since, expires_at)
VALUES (:tenant_id, :name, :holder, :epoch, :now, :expires_at)
    ON CONFLICT (tenant_id, name) DO UPDATE
   SET holder = excluded.holder, epoch = excluded.epoch, since = excluded.since, expires_at = excluded.expires_at
 WHERE sweep_leases.epoch = :was_epoch
   AND (sweep_leases.expires_at <= :now OR sweep_leases.holder = excluded.holder);

-- name: renew_sweep
-- Hold the sweeps longer, under the epoch that is held: whoever was followed by another renews nothing.
WITH rows(tenant_id TEXT, name TEXT, holder TEXT, epoch BIGINT, expires_at BIGINT) AS (:rows)
UPDATE sweep_leases SET expires_at = rows.expires_at
  FROM rows
 WHERE sweep_leases.tenant_id = rows.tenant_id AND sweep_leases.name = rows.name
   AND sweep_leases.holder = rows.holder AND sweep_leases.epoch = rows.epoch;

-- name: release_sweep
-- Let go of the sweeps, under the epoch that is held, so that the next need not wait for the time to run out.
WITH rows(tenant_id TEXT, name TEXT, holder TEXT, epoch BIGINT) AS (:rows)
UPDATE sweep_leases SET expires_at = 0
  FROM rows
 WHERE sweep_leases.tenant_id = rows.tenant_id AND sweep_leases.name = rows.name
   AND sweep_leases.holder = rows.holder AND sweep_leases.epoch = rows.epoch;
