-- On which shelves something stands ready under a concurrency key, for when the key becomes free: one look a shelf, however
-- much stands there.
CREATE INDEX work_ready_by_key ON work_items (tenant_id, concurrency_key, queue, requires, priority DESC, ready_at, id)
  WHERE concurrency_key IS NOT NULL AND status = 'ready';
