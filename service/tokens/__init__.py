"""Tokens: who may speak, for which tenant, in which role, until when.

A token is a public id, safe to log, and a secret that is shown once, when it is minted. The store keeps the id, an
argon2id verifier and a 4-byte reject tag, never the secret. A token is *active*, then *expiring* (its end is near, or a
rotation gave it a grace time; it still works), and at last *revoked* or past its expiry, for good. Its changes are told
to the audit log alone: tokens have no events. `secret` is the format, `verify` the proof of a secret, `matches` the
memory of such proofs.
"""
