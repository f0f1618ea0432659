"""Workers: who works for a tenant, on which queues, at what, and whether they are still heard of.

A worker registers under the name that it claims by, and is `alive` as long as it is heard of; after three missed
heartbeats it is `lost`: it must register again, and ten minutes later it is gone from the list. What it held is taken
back when its leases run out, whether it registered or not: registering is for those who look. It appends no events.
"""
