-- From which networks a token may be used ('[]': from any), and from when on.
ALTER TABLE tokens ADD COLUMN networks TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tokens ADD COLUMN not_before BIGINT;
