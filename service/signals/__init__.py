"""Signals: what somebody tells a running workflow, durable before the workflow waits for it.

A signal is an event; workers replay them in the order of the log. With a `signal_id` a repeat changes nothing, also in
a run that the signal was carried over to. To a run that has ended it is refused, with the `next_id` that it went on in.
Events: `signal.received`, `signal.sent`, `signal.failed`.
"""
