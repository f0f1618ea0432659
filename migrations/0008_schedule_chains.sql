-- The run that an occurrence has come to, of those that it went on in; empty as long as there is no other than its first.
ALTER TABLE schedule_runs ADD COLUMN latest_id TEXT NOT NULL DEFAULT '';
