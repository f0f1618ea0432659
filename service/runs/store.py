"""The tables of runs and their steps."""

from service.kernel.tables import Group, Key, Table
from service.runs.model import OF_TASK, OPEN_STEPS, Run, Step


def of_run(step: Step) -> Key | None:
    """The group of a run's open steps that a step belongs to."""
    return (step.tenant_id, step.execution_id) if step.status == "open" else None


TABLES = [
    Table(
        Run,
        ("tenant_id", "id"),
        25,
        "load_runs",
        "insert_runs",
        "update_runs",
        paths={OF_TASK: lambda key: (key[0], None, key[1])},
        guarded=True,
        current=True,
        wide=1,
    ),
    Table(
        Step,
        ("tenant_id", "execution_id", "kind", "seq"),
        26,
        "load_steps",
        "insert_steps",
        "update_steps",
        groups=(Group(OPEN_STEPS, "open_steps_of_executions", of_run),),
        guarded=True,
        current=True,
    ),
]
