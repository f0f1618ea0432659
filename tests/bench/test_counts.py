"""What the hot commands cost the store is written down: a statement or a commit more is a change to decide on."""

from bench import counts


async def test_every_hot_command_costs_what_is_written_down(engine: str, fresh_url: str) -> None:
    found = await counts.costs(fresh_url, with_bytes=False)
    differs = counts.compared(engine, found)
    assert not differs, "\n".join([*differs, "if that is meant: python -m bench counts --write"])


def test_every_command_is_written_down_alone_and_fifty_in_a_request_on_both_engines() -> None:
    kept = counts.kept()
    assert set(kept) == {"sqlite", "postgres"}
    for found in kept.values():
        assert {command: set(sizes) for command, sizes in found.items()} == {
            command: set(counts.SIZES) for command in counts.COMMANDS
        }


def test_fifty_commands_of_a_request_are_one_commit_and_no_more_statements_than_one() -> None:
    for engine, found in counts.kept().items():
        for command, sizes in found.items():
            said = f"{engine} {command}"
            assert sizes["fifty"].commits == sizes["alone"].commits == 1, said
            assert sizes["fifty"].statements == sizes["alone"].statements, said
