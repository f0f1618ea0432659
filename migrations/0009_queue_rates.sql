-- What became of the items of each queue, ten seconds at a time: written every few seconds by each process for what its
-- own commits did, forgotten after two minutes. `bucket` is when the ten seconds began.
CREATE TABLE queue_rates (
  tenant_id TEXT NOT NULL,
  bucket BIGINT NOT NULL,
  queue TEXT NOT NULL,
  enqueued BIGINT NOT NULL,
  claimed BIGINT NOT NULL,
  completed BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  PRIMARY KEY (tenant_id, bucket, queue)
);
CREATE INDEX queue_rates_by_age ON queue_rates (bucket, tenant_id, queue) WHERE tenant_id > '';
