"""How the processes of a test run (xdist's workers) share the tests: whole modules, the longest first, so that nobody
is left alone with a long one at the end."""

from functools import cached_property
from typing import Any

from xdist.scheduler import LoadScopeScheduling

LONG = {
    "audit/test_behaviour": 10, "children/test_behaviour": 10, "cli/test_audit": 10, "cli/test_backup": 15,
    "cli/test_doctor": 20, "cli/test_serve": 10, "cli/test_tenant": 10, "cli/test_token": 10,
    "conformance/test_transactions": 10, "edge/test_drain": 20, "edge/test_slow": 60, "examples/test_run_engine": 20,
    "examples/test_run_workflow": 20, "faults/test_claims": 10, "faults/test_clock": 10,
    "faults/test_engine_killed": 10, "faults/test_postgres_restarted": 20, "faults/test_proxy_cuts": 10,
    "faults/test_schedulers": 15, "faults/test_server_killed": 10, "faults/test_sqlite_second_server": 10,
    "faults/test_standby_promoted": 20, "faults/test_worker_killed": 15, "http/test_hostile": 50,
    "http/test_hostile_fields": 25, "kernel/test_rota": 10, "namespaces/test_killed": 10,
    "portability/test_behaviour": 40, "portability/test_beside": 10, "portability/test_killed": 25,
    "races/test_engine": 25, "races/test_executions": 10, "races/test_limits": 15, "races/test_work": 10,
    "retention/test_behaviour": 10, "retention/test_half_removed": 15, "retention/test_killed": 15,
    "schedules/test_times": 10, "security/test_flood": 10, "security/test_leaks": 15, "security/test_matrix": 15,
    "security/test_openapi_fuzz": 60, "security/test_other_tenants": 20, "security/test_revocation": 30,
    "simulator/test_mutants": 15, "simulator/test_simulator": 10, "tenants/test_killed": 15, "walk/test_walk": 60,
}  # fmt: skip
"""About how many seconds a module takes, where its number of tests does not tell. Nothing but the order hangs on it."""
USUAL = 0.03


class Shares(LoadScopeScheduling):
    """`--dist loadscope`, but that whoever is free takes the longest module that is left."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]  # what a test is given may have colons too

    def _assign_work_unit(self, node: Any) -> None:
        """As the library has it, which searches its whole list for each test that it hands out."""
        module = max(self.workqueue, key=self._seconds)
        tests = self.assigned_work.setdefault(node, {})[module] = self.workqueue.pop(module)
        node.send_runtest_some([self._numbers[test] for test, done in tests.items() if not done])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each test, the same for all workers."""
        return {test: number for number, test in enumerate(self.collection)}

    def _seconds(self, module: str) -> float:
        return LONG.get(module.removeprefix("tests/").removesuffix(".py"), 0) + USUAL * len(self.workqueue[module])
