-- name: load_tokens
-- Tokens, locked.
WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
SELECT k.tenant_id, k.id, k.name, k.role, k.queues, k.verifier, k.reject_tag, k.created_at, k.created_by,
       k.expires_at, k.last_used_at, k.revoked_at, k.revoked_by, k.replaces, k.replaced_by, k.last_used_from,
       k.last_used_agent, k.networks, k.not_before
  FROM rows r
  JOIN tokens k ON k.tenant_id = r.tenant_id AND k.id = r.id
 ORDER BY k.tenant_id, k.id FOR UPDATE OF k;

-- name: tokens_minted_by
-- The tokens that tokens of the same tenant minted, whether or not they still work, locked.
WITH rows(tenant_id TEXT, created_by TEXT) AS (:rows)
SELECT k.tenant_id, k.id, k.name, k.role, k.queues, k.verifier, k.reject_tag, k.created_at, k.created_by,
       k.expires_at, k.last_used_at, k.revoked_at, k.revoked_by, k.replaces, k.replaced_by, k.last_used_from,
       k.last_used_agent, k.networks, k.not_before
  FROM rows r
  JOIN tokens k ON k.tenant_id = r.tenant_id AND k.created_by = r.created_by
 ORDER BY k.tenant_id, k.id FOR UPDATE OF k;

-- name: insert_tokens
-- A new token. Its public id is unique over all tenants: a request finds its tenant by it.
WITH rows(tenant_id TEXT, id TEXT, name TEXT, role TEXT, queues TEXT, verifier TEXT, reject_tag BYTEA, created_at
          BIGINT, created_by TEXT, expires_at BIGINT, last_used_at BIGINT, revoked_at BIGINT, revoked_by TEXT,
          replaces TEXT, replaced_by TEXT, last_used_from TEXT, last_used_agent TEXT, networks TEXT, not_before BIGINT)
          AS (:rows)
INSERT INTO tokens (tenant_id, id, name, role, queues, verifier, reject_tag, created_at, created_by, expires_at,
                    last_used_at, revoked_at, revoked_by, replaces, replaced_by, last_used_from, last_used_agent,
                    networks, not_before)
SELECT tenant_id, id, name, role, queues, verifier, reject_tag, created_at, created_by, expires_at, last_used_at,
       revoked_at, revoked_by, replaces, replaced_by, last_used_from, last_used_agent, networks, not_before
  FROM rows;

-- name: update_tokens
-- A token's life moves on, under its lock.
WITH rows(tenant_id TEXT, id TEXT, verifier TEXT, expires_at BIGINT, last_used_at BIGINT, revoked_at BIGINT,
          revoked_by TEXT, replaces TEXT, replaced_by TEXT, last_used_from TEXT, last_used_agent TEXT) AS (:rows)
UPDATE tokens
   SET verifier = rows.verifier, expires_at = rows.expires_at, last_used_at = rows.last_used_at,
       revoked_at = rows.revoked_at, revoked_by = rows.revoked_by, replaces = rows.replaces,
       replaced_by = rows.replaced_by, last_used_from = rows.last_used_from, last_used_agent = rows.last_used_agent
  FROM rows
 WHERE tokens.tenant_id = rows.tenant_id AND tokens.id = rows.id;

-- name: read_tokens_by_id
-- Tokens by their public ids, which alone say whose they are.
SELECT k.tenant_id, k.id, k.name, k.role, k.queues, k.verifier, k.reject_tag, k.created_at, k.created_by,
       k.expires_at, k.last_used_at, k.revoked_at, k.revoked_by, k.replaces, k.replaced_by, k.last_used_from,
       k.last_used_agent, k.networks, k.not_before
  FROM tokens k
 WHERE k.id IN :ids[]
 ORDER BY k.id;

-- name: read_token
-- One token of a tenant.
SELECT k.tenant_id, k.id, k.name, k.role, k.queues, k.verifier, k.reject_tag, k.created_at, k.created_by,
       k.expires_at, k.last_used_at, k.revoked_at, k.revoked_by, k.replaces, k.replaced_by, k.last_used_from,
       k.last_used_agent, k.networks, k.not_before
  FROM tokens k
 WHERE k.tenant_id = :tenant_id AND k.id = :id;

-- name: list_tokens
-- A tenant's tokens, oldest first, after a position.
SELECT k.tenant_id, k.id, k.name, k.role, k.queues, k.verifier, k.reject_tag, k.created_at, k.created_by,
       k.expires_at, k.last_used_at, k.revoked_at, k.revoked_by, k.replaces, k.replaced_by, k.last_used_from,
       k.last_used_agent, k.networks, k.not_before
  FROM tokens k
 WHERE k.tenant_id = :tenant_id AND (k.created_at, k.id) > (:at, :id) AND {where}
 ORDER BY k.created_at, k.id
 LIMIT :limit;

-- name: count_tokens
-- Of the tokens of all tenants that work: how many never expire, how many end before a time, how many are the system's
-- administrators'.
SELECT count(CASE WHEN k.expires_at IS NULL THEN 1 END), count(CASE WHEN k.expires_at <= :before THEN 1 END),
       count(CASE WHEN k.tenant_id = '' AND k.role = 'admin' THEN 1 END)
  FROM tokens k
 WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now);

-- name: count_ending_tokens
-- Of how many tokens that work each tenant learns that they end before a time, most first; with each the number of all
-- such tokens and of all such tenants.
SELECT k.tenant_id, count(*), CAST(sum(count(*)) OVER () AS BIGINT), count(*) OVER ()
  FROM tokens k
 WHERE k.revoked_at IS NULL AND k.expires_at > :now AND k.expires_at <= :before
 GROUP BY k.tenant_id
 ORDER BY count(*) DESC, k.tenant_id
 LIMIT :limit;

-- name: count_bootstrap
-- Whether a system administrator's token was ever minted.
SELECT count(*) FROM tokens k WHERE k.tenant_id = '' AND k.role = 'admin';
