"""What goes into a store comes out of it: types, counts, order."""

from typing import Any

import pytest

from backends.protocol import Row, StateBackend, Tx
from tests.conformance.conftest import Says
from tests.conformance.jobs import adding, finding, job, step

TEXTS = (
    "plain",
    "12",
    "1.0",
    "",
    " ",
    "null",
    "über",
    "e\u0301",
    "😀👩‍👩‍👧",
    "'; --",
    "a\nb\tc",
    "\\x00",
    "\uffff",
    "{1,2}",
)
NUMBERS = (0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
BYTES = (b"", b"\x00", b"a\x00b\x00", bytes(range(256)), b"\\x41", '{"a":"😀"}'.encode(), b"12")


@pytest.mark.parametrize("value", TEXTS)
async def test_text_comes_back_as_it_went_in(store: StateBackend, tenant: str, value: str) -> None:
    await store.write(adding(job(tenant, value, kind=value)))
    row = await store.read(finding(tenant, value))
    assert row is not None
    assert (row[1], row[2]) == (value, value)
    assert type(row[1]) is str


@pytest.mark.parametrize("value", NUMBERS)
async def test_a_number_comes_back_as_it_went_in(store: StateBackend, tenant: str, value: int) -> None:
    await store.write(adding(job(tenant, "n", total=value)))
    row = await store.read(finding(tenant, "n"))
    assert row is not None
    assert (row[5], type(row[5])) == (value, int)


@pytest.mark.parametrize("value", BYTES)
async def test_bytes_come_back_as_they_went_in(store: StateBackend, tenant: str, value: bytes) -> None:
    await store.write(adding(job(tenant, "b", detail=value)))
    row = await store.read(finding(tenant, "b"))
    assert row is not None
    assert (row[4], type(row[4])) == (value, bytes)


async def test_null_is_none_in_every_column_that_allows_it(store: StateBackend, tenant: str) -> None:
    async def work(tx: Tx) -> None:
        await tx.many("insert_queues", [[tenant, "q", None, None, 1]])
        await tx.many("insert_events", [[tenant, "e", 1, "k", None, 1, "me", None, None, None]])

    async def read(tx: Tx) -> tuple[list[Row], list[Row]]:
        queues = await tx.all("load_queues", rows=[[tenant, "q"]])
        return queues, await tx.all("load_events", rows=[[tenant, "e", 1]])

    await store.write(work)
    queues, events = await store.read(read)
    assert [tuple(row) for row in queues] == [(tenant, "q", None, None, 1)]
    assert [tuple(row) for row in events] == [(tenant, "e", 1, "k", None, None, None, None)]


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 1000])
async def test_a_set_of_any_size_is_written_whole_and_counted(store: StateBackend, tenant: str, count: int) -> None:
    rows = [job(tenant, f"j{n:04}", total=n) for n in range(count)]
    assert await store.write(adding(*rows)) == count

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("load_jobs", rows=[row[:2] for row in rows])

    found = await store.read(read)
    assert sorted((row[1], row[5]) for row in found) == [(f"j{n:04}", n) for n in range(count)]


@pytest.mark.parametrize("count", [0, 1, 256, 1000])
async def test_a_list_parameter_takes_any_number_of_values(
    store: StateBackend, tenant: str, says: Says, count: int
) -> None:
    says(
        "queues_named",
        "SELECT s.queue FROM shelves s WHERE s.tenant_id = :tenant_id AND s.queue IN :names[] ORDER BY s.queue",
    )
    names = [f"q{n}'\"," for n in range(1000)]

    async def write(tx: Tx) -> int:
        return await tx.many("insert_shelves", [[tenant, name, ""] for name in names])

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("queues_named", tenant_id=tenant, names=names[:count])

    await store.write(write)
    assert [row[0] for row in await store.read(read)] == sorted(names[:count])


async def test_text_is_ordered_by_its_bytes(store: StateBackend, tenant: str) -> None:
    names = [
        "a",
        "B",
        "Z",
        "_",
        "z",
        "é",
        "e\u0301",
        "10",
        "2",
        "~",
        "-",
        "😀",
        "\uffff",
        "aa",
        "a b",
        "ä",
        "ß",
        "ss",
        "A",
    ]

    async def write(tx: Tx) -> int:
        return await tx.many("insert_shelves", [[tenant, name, ""] for name in names])

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("shelves_of_tenants", rows=[[tenant]])

    await store.write(write)
    assert [row[1] for row in await store.read(read)] == sorted(names, key=str.encode)


async def test_text_is_compared_by_its_bytes(store: StateBackend, tenant: str, says: Says) -> None:
    says(
        "queues_after",
        "SELECT s.queue FROM shelves s WHERE s.tenant_id = :tenant_id AND s.queue > :after ORDER BY s.queue",
    )

    async def work(tx: Tx) -> list[Row]:
        await tx.many("insert_shelves", [[tenant, name, ""] for name in ("a", "B", "é", "z")])
        return await tx.all("queues_after", tenant_id=tenant, after="Z")

    assert [row[0] for row in await store.write(work)] == ["a", "z", "é"]


async def test_a_write_says_how_many_rows_it_touched(store: StateBackend, tenant: str, says: Says) -> None:
    says("bump", "UPDATE jobs SET done = done + :by WHERE tenant_id = :tenant_id AND total < :under")
    says("drop", "DELETE FROM jobs WHERE tenant_id = :tenant_id AND total < :under")

    async def work(tx: Tx) -> list[int]:
        await tx.many("insert_jobs", [job(tenant, f"j{n}", total=n) for n in range(5)])
        return [
            await tx.run("bump", tenant_id=tenant, under=3, by=1),
            await tx.run("bump", tenant_id=tenant, under=0, by=1),
            await tx.run("drop", tenant_id=tenant, under=2),
            await tx.run("drop", tenant_id=tenant, under=2),
        ]

    assert await store.write(work) == [3, 0, 2, 0]


async def test_a_guard_that_does_not_hold_touches_nothing(store: StateBackend, tenant: str) -> None:
    rows = [job(tenant, f"j{n}", done=n) for n in range(3)]
    await store.write(adding(*rows))

    async def work(tx: Tx) -> int:
        return await tx.many(
            "update_jobs", [step(rows[0], 10, was=0), step(rows[1], 11, was=0), step(rows[2], 12, was=2)]
        )

    assert await store.write(work) == 2
    found: list[Any] = [await store.read(finding(tenant, f"j{n}")) for n in range(3)]
    assert [row[6] for row in found] == [10, 1, 12]


async def test_one_is_the_first_row_and_none_when_there_is_none(store: StateBackend, tenant: str, says: Says) -> None:
    says("first_job", "SELECT j.id FROM jobs j WHERE j.tenant_id = :tenant_id ORDER BY j.id")
    await store.write(adding(job(tenant, "b"), job(tenant, "a")))

    async def read(tx: Tx) -> tuple[Row | None, Row | None]:
        return await tx.one("first_job", tenant_id=tenant), await tx.one("first_job", tenant_id=tenant + "x")

    first, none = await store.read(read)
    assert first is not None
    assert (tuple(first), none) == (("a",), None)


async def test_a_parameter_may_be_named_twice(store: StateBackend, tenant: str, says: Says) -> None:
    says(
        "twice",
        "SELECT j.id FROM jobs j WHERE j.tenant_id = :tenant_id AND (j.total = :n OR j.done = :n) ORDER BY j.id",
    )

    async def work(tx: Tx) -> list[Row]:
        await tx.many("insert_jobs", [job(tenant, "a", total=7), job(tenant, "b", done=7), job(tenant, "c")])
        return await tx.all("twice", tenant_id=tenant, n=7)

    assert [row[0] for row in await store.write(work)] == ["a", "b"]


async def test_a_filter_goes_where_the_statement_has_a_place_for_it(
    store: StateBackend, tenant: str, says: Says
) -> None:
    says("some_jobs", "SELECT j.id FROM jobs j WHERE j.tenant_id = :tenant_id AND {where} ORDER BY j.id LIMIT :limit")
    await store.write(adding(*(job(tenant, f"j{n}", total=n) for n in range(4))))

    async def read(tx: Tx) -> list[Row]:
        return await tx.all("some_jobs", where=("j.total >= :least", {"least": 2}), tenant_id=tenant, limit=10)

    for scan in (False, True):
        assert [row[0] for row in await store.read(read, scan=scan)] == ["j2", "j3"]
