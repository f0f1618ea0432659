"""Signals: what somebody tells a running workflow, durable before the workflow waits for it.

A signal is an event; workers replay them in the order of the log. With a `signal_id` a repeat changes nothing. Events:
`signal.received`, `signal.awaited`, `signal.sent`.
"""
