"""Alarms: what rings at a time, exactly once, whichever process sweeps: timers, timeouts, schedules.

An alarm belongs to an owner (an execution, a schedule) and has a name of its own there: `<kind>`, or `<kind>:<seq>…`
for a step of a run. When its time comes, a sweep takes it away and tells `Rang` in one commit with what follows.
"""
