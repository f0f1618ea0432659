"""Alarms: what rings at a time, exactly once, whichever process sweeps: timers, timeouts, schedules.

An alarm belongs to an owner (an execution, a schedule) and has a name of its own there; the part before the first `:`
tells whose it is. When its time comes, a sweep takes it away and tells `Rang` in one commit with what follows.
"""
