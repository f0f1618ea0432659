"""Tenants: who shares this service without ever meeting.

A tenant is `active`, `suspended` (it is read, nothing changes, leases lapse by themselves), `archived`, or `deleting`
(a job takes its rows away; the id is not used again while any remain). Its limits are held inside the transactions that
would pass them. The tenant `default` is there from the first migration.
"""
