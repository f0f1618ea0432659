"""Schedules: what starts workflows at times, by a cron in a time zone or by an interval.

An occurrence is (schedule, nominal time), and its execution's id says so: whatever crashes and however many processes
sweep, it starts once. What overlaps is skipped, waits, or makes the others end, as the schedule says; what was missed
is made up for within the catch-up window, in order. It appends no events of its own.
"""
