"""The schema, forward only: `0001_core.sql`, `0002_….sql`; one file for both engines.

To add one: take the next number, write it as for Postgres with the types TEXT, BIGINT and BYTEA only; what one engine
alone needs stands between `-- @sqlite` or `-- @postgres` and `-- @end`. Never edit a file that has been released: its
checksum is in every store. Every key of a tenant's table begins with `tenant_id`. The text must not hold a `;` inside a
literal.
"""
