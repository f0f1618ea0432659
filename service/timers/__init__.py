"""Timers: what a workflow waits for until a time. Each fires once, in the order of their times, or is cancelled.

Events: `timer.scheduled`, `timer.fired`, `timer.cancelled`.
"""
