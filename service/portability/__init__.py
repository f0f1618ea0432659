"""Portability: a tenant as a file, and a file as a tenant of another store, SQLite or Postgres alike.

An export is one snapshot of everything that a tenant has but its tokens, as lines of JSON after a manifest with the
count and the digest of each table. Ids and sequences stay what they are; a lease does not travel: its item is ready
again under a risen epoch, so that whoever holds it in the old store has lost it in the new one.

An import is begun with the manifest, written in parts, and finished; until then the tenant is `deleting`, which nobody
can use, and its job `tenant.import` takes its rows away again unless a next part comes in time. So whatever dies, the
tenant is there whole or goes. The audit logs tell of it: `tenant.exported` in the tenant's, the rest in the system's.
"""
