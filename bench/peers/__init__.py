"""Other job and workflow systems beside this one: the same Postgres, the same payload, as many jobs, in one run.

`run` compares; `ours` is this side, over HTTP with token and tenant; `with_*` are programs that run in an environment
of their own (`room`), so nothing here imports them, and of the bench they import `work` alone.
"""
