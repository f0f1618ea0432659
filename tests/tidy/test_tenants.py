"""No statement reaches into another tenant: every tenant's table in every statement is bound by tenant_id."""

from importlib import import_module

import pytest
from sqlglot import exp

from backends.statements import texts
from service.executions.facets import AMONG
from service.kernel import filters
from tests.tidy import house
from tests.tidy.tenancy import TENANT, Reader, parse

ACROSS = {
    "expired_leases": "a sweep: ids only; each row is then loaded, locked and judged under its own tenant_id",
    "due_items": "a sweep: ids only, as above",
    "due_items_of_all": "a sweep: each row is judged, and written, under its own tenant_id",
    "due_jobs": "a sweep: ids only, as above",
    "due_alarms": "a sweep: names only, as above",
    "lost_workers": "a sweep: ids only, as above",
    "any_tally_change": "a sweep: whether there is anything to fold",
    "tally_changes_to_fold": "a sweep: adds up what commits said, each under the tenant_id that it carries",
    "tenants_with_due_alarms": "a sweep: the ids of tenants only; what is due is then found under each one's tenant_id",
    "tenants_with_due_deletions_of_namespaces": "a sweep: the ids of tenants only, as above",
    "tenants_with_due_items": "a sweep: the ids of tenants only, as above",
    "tenants_with_due_redrives": "a sweep: the ids of tenants only, as above",
    "tenants_with_expired_leases": "a sweep: the ids of tenants only, as above",
    "expire_idempotency_keys": "a sweep: deletes by age alone; nothing is read",
    "expire_queue_rates": "a sweep: as above",
    "read_tokens_by_id": "a token's public id is unique over all tenants and says whose it is, before anybody is known",
    "list_audit_chains": "the doctor, with the store in hand, verifies every chain; each is then read under its own id",
    "tenants_with_oldest": "a sweep: ids and ages only; executions are then read and removed under their own tenant_id",
    "audit_to_trim": "a sweep: ids only; each chain is then trimmed under its own tenant_id",
    "count_tokens": "the doctor, as above; three numbers, no rows",
    "count_ending_tokens": "a sweep: numbers by tenant for the server's log, no row",
    "list_broken_logs": "the doctor, as above; ids only, of what is broken",
    "list_lost_logs": "the doctor, as above; ids only, of what is broken",
    "list_broken_counts": "the doctor, as above; ids only, of what is broken",
    "list_unsettled": "the doctor, as above; ids only, of what is broken",
    "list_tenants": "the system's administrators list tenants; the row is the tenant",
}
"""Statements that look across tenants on purpose, and why they may."""


def faults(text: str, where: str = "1 = 1") -> list[str]:
    """What a statement leaves unbound."""
    return Reader(house.tenant_tables()).read(parse(text, where))


STATEMENTS = [(name, engine, text) for name, of in texts().items() for engine, text in of.items()]


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, _, text in STATEMENTS], ids=[f"{n}{e}" for n, e, _ in STATEMENTS]
)
def test_each_tenants_table_is_bound(name: str, text: str) -> None:
    if name not in ACROSS:
        assert not faults(text)


def test_the_list_of_statements_across_tenants_only_shrinks() -> None:
    bound = [name for name in ACROSS if name in texts() and not any(faults(text) for text in texts()[name].values())]
    gone = [name for name in ACROSS if name not in texts()]
    assert not bound, f"these are bound and need no exception: {bound}"
    assert not gone, f"these no longer exist: {gone}"


def test_a_filter_by_label_or_attribute_stays_in_the_tenant() -> None:
    """A facet is an EXISTS written in Python; it is read inside every list that takes it."""
    vocabulary = import_module("service.executions.routes").VOCABULARY
    for facet in ("attr.customer = 'a'", "label.team <> 'b'", "NOT attr.size > 3 OR status = 'failed'"):
        where = filters.compile(facet, vocabulary).sql
        assert "facets" in where
        for name in [*AMONG, *AMONG.values()]:
            for text in texts()[name].values():
                assert not faults(text, where), (name, facet)


PLANTED = {
    "no predicate at all": "SELECT w.id FROM work_items w WHERE w.status = 'ready'",
    "another parameter": "SELECT w.id FROM work_items w WHERE w.tenant_id = :id",
    "a comparison that is no equality": "SELECT w.id FROM work_items w WHERE w.tenant_id > :tenant_id",
    "OR-ed away": "SELECT w.id FROM work_items w WHERE w.tenant_id = :tenant_id OR w.status = 'ready'",
    "negated": "SELECT w.id FROM work_items w WHERE NOT w.tenant_id = :tenant_id",
    "a join by id alone": """
        SELECT e.id FROM executions e JOIN events v ON v.execution_id = e.id WHERE e.tenant_id = :tenant_id""",
    "a comma join": "SELECT e.id FROM executions e, events v WHERE e.tenant_id = :tenant_id AND v.execution_id = e.id",
    "two tables bound to each other only": """
        SELECT e.id FROM executions e JOIN events v ON v.tenant_id = e.tenant_id WHERE e.id = :id""",
    "bound only by a left join's condition": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        SELECT e.id FROM executions e LEFT JOIN rows r ON r.tenant_id = e.tenant_id""",
    "a full join": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        SELECT e.id FROM rows r FULL JOIN executions e ON e.tenant_id = r.tenant_id""",
    "a sub-select": """
        SELECT e.id, (SELECT count(*) FROM work_items w WHERE w.execution_id = e.id)
          FROM executions e WHERE e.tenant_id = :tenant_id""",
    "a sub-select of an EXISTS": """
        SELECT e.id FROM executions e
         WHERE e.tenant_id = :tenant_id AND EXISTS (SELECT 1 FROM facets f WHERE f.execution_id = e.id)""",
    "a sub-select in a join's condition": """
        WITH rows(tenant_id TEXT, execution_id TEXT) AS (:rows)
        SELECT v.sequence FROM rows r JOIN events v ON v.tenant_id = r.tenant_id AND v.execution_id = r.execution_id
           AND v.sequence > (SELECT min(s.sequence) FROM snapshots s WHERE s.execution_id = r.execution_id)""",
    "a derived table": """
        SELECT n.queue FROM (SELECT DISTINCT s.queue FROM shelves s WHERE s.queue > :after) AS n""",
    "one arm of a union": """
        SELECT w.id FROM work_items w WHERE w.tenant_id = :tenant_id
        UNION ALL SELECT d.id FROM work_items d WHERE d.status = 'dead'""",
    "a recursion that leaves its tenant": """
        WITH RECURSIVE walk(tenant_id, other) AS (
          SELECT e.tenant_id, e.parent_id FROM executions e WHERE e.tenant_id = :tenant_id
           UNION ALL SELECT walk.other, walk.tenant_id FROM walk)
        SELECT e.id FROM walk JOIN executions e ON e.tenant_id = walk.tenant_id""",
    "a batch of its own in a derived table": """
        SELECT k.id FROM (WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
                          SELECT w.id FROM rows r JOIN work_items w ON w.id = r.id) AS k""",
    "a column of the batch that is no tenant": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        SELECT e.id FROM rows r JOIN executions e ON e.tenant_id = r.id""",
    "the outer UPDATE": """
        WITH rows(tenant_id TEXT, id TEXT, status TEXT) AS (:rows)
        UPDATE executions SET status = rows.status FROM rows WHERE executions.id = rows.id""",
    "an UPDATE bound only in its sub-select": """
        UPDATE work_items SET status = 'ready'
         WHERE id IN (SELECT w.id FROM work_items w WHERE w.tenant_id = :tenant_id)""",
    "an UPDATE that moves a row to another tenant": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        UPDATE jobs SET tenant_id = rows.id FROM rows WHERE jobs.tenant_id = rows.tenant_id""",
    "a DELETE": "DELETE FROM facets WHERE execution_id = :execution_id",
    "a DELETE whose list is not bound": """
        DELETE FROM jobs WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM jobs WHERE due_at < :now)""",
    "a DELETE whose columns are crossed": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        DELETE FROM jobs WHERE (id, tenant_id) IN (SELECT tenant_id, id FROM rows)""",
    "an INSERT without the column": """
        WITH rows(id TEXT) AS (:rows) INSERT INTO shelves (queue, requires) SELECT id, id FROM rows""",
    "an INSERT of something else": """
        WITH rows(tenant_id TEXT, id TEXT) AS (:rows)
        INSERT INTO jobs (tenant_id, id) SELECT id, tenant_id FROM rows""",
    "an INSERT of a free parameter": "INSERT INTO secrets (tenant_id, name) VALUES (:name, :tenant_id)",
    "an upsert over tenants": """
        INSERT INTO tokens (tenant_id, id) VALUES (:tenant_id, :id)
            ON CONFLICT (id) DO UPDATE SET name = excluded.name""",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_a_planted_statement_is_caught(text: str) -> None:
    assert faults(text)


def predicates(tree: exp.Expression) -> list[exp.Expression]:
    """Every equality or IN of a statement with a tenant_id on one of its sides; in a text that is put together of it,
    it binds nothing."""
    both = [
        (node, [side for side in (node.this, node.args.get("expression")) if side])
        for node in tree.find_all(exp.EQ, exp.In)
    ]
    return [
        node
        for node, sides in both
        if any(
            one.name == TENANT
            for side in sides
            for one in side.find_all(exp.Column)
            if not one.find_ancestor(exp.DPipe)
        )
    ]


def test_every_predicate_is_missed_when_it_is_taken_away() -> None:
    """The check against itself: no statement of ours passes once any one of its tenant predicates is gone."""
    taken = 0
    for name, _, text in STATEMENTS:
        for index in range(0 if name in ACROSS else len(predicates(parse(text)))):
            tree = parse(text)
            predicates(tree)[index].replace(exp.true())
            assert Reader(house.tenant_tables()).read(tree), f"{name}: predicate {index} could go unnoticed"
            taken += 1
    assert taken > 50
