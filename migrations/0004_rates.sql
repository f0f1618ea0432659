-- When a tenant's bucket of requests is empty again (microseconds), for limits that all processes share.
CREATE TABLE rates (
  tenant_id TEXT NOT NULL PRIMARY KEY,
  empty_at BIGINT NOT NULL
);
