"""The tables of schedules and of their last occurrences."""

from service.kernel.tables import Group, Table
from service.schedules.model import ALL_RUNS, OPEN_RUNS, PAGE, RUNS_PAGE, Schedule, ScheduleRun


def schedule_key(run: ScheduleRun) -> tuple[str, str]:
    """The schedule of an occurrence."""
    return run.tenant_id, run.schedule_id


TABLES = [
    Table(
        Schedule,
        ("tenant_id", "id"),
        46,
        "load_schedules",
        "insert_schedules",
        "update_schedules",
        "delete_schedules",
    ),
    Table(
        ScheduleRun,
        ("tenant_id", "schedule_id", "execution_id"),
        47,
        "load_schedule_runs",
        "insert_schedule_runs",
        "update_schedule_runs",
        "delete_schedule_runs",
        groups=(
            Group(OPEN_RUNS, "open_runs_of_schedules", lambda run: None if run.ended_at else schedule_key(run)),
            Group(RUNS_PAGE, "runs_of_schedules_by_page", lambda run: (*schedule_key(run), run.number // PAGE)),
            Group(ALL_RUNS, "runs_of_schedules", schedule_key),
        ),
    ),
]
