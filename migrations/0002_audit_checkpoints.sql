-- Where an act came from: the id of its request, and the address that sent it.
ALTER TABLE audit ADD COLUMN request_id TEXT;
ALTER TABLE audit ADD COLUMN source TEXT;

-- Where the kept part of a tenant's audit chain begins: the last line that retention let go, and its hash.

CREATE TABLE audit_checkpoints (
  tenant_id TEXT NOT NULL PRIMARY KEY,
  sequence BIGINT NOT NULL,
  hash TEXT NOT NULL,
  at BIGINT NOT NULL
);
