"""Settings: four sources, one value each, every error at once, no password printed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.settings import FIELDS, Loaded, Settings, SettingsError, as_markdown, describe, load, masked

SETTINGS_DOC = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(toml: str = "", environ: dict[str, str] | None = None, **flags: Any) -> Loaded:
    """Load with `toml` as the text of a file `given.toml`."""
    Path("given.toml").write_text(toml, "utf-8")
    return load(Path("given.toml"), environ or {}, flags)


def errors_of(toml: str = "", environ: dict[str, str] | None = None, **flags: Any) -> list[str]:
    with pytest.raises(SettingsError) as refusal:
        loaded(toml, environ, **flags)
    return refusal.value.errors


def test_with_no_source_every_setting_is_its_default() -> None:
    result = load(None, {}, {})
    assert result.settings == Settings()
    assert set(result.origins.values()) == {"default"}
    assert tuple(result.origins) == Settings.__struct_fields__


def test_every_default_passes_its_own_check() -> None:
    for field in FIELDS.values():
        assert msgspec.convert(field.default, field.hint) == field.default


def test_each_source_wins_over_the_one_before_and_the_origin_says_so() -> None:
    toml = "port = 1\nbatch_commands_max = 1\nqueue_commands_max = 1"
    environ = {"HOLDFAST__BATCH_COMMANDS_MAX": "2", "HOLDFAST__QUEUE_COMMANDS_MAX": "2"}
    result = loaded(toml, environ, queue_commands_max=3)
    names = ("wait_ms_max", "port", "batch_commands_max", "queue_commands_max")
    assert [getattr(result.settings, name) for name in names] == [60_000, 1, 2, 3]
    assert [result.origins[name] for name in names] == [
        "default",
        "toml:given.toml",
        "environment:HOLDFAST__BATCH_COMMANDS_MAX",
        "flag:--queue-commands-max",
    ]


def test_the_file_is_the_one_given_else_the_one_named_else_the_one_lying_there() -> None:
    for port, file in enumerate(("holdfast.toml", "named.toml", "given.toml"), start=1):
        Path(file).write_text(f"port = {port}", "utf-8")
    named = {"HOLDFAST_CONFIG": "named.toml"}
    assert load(Path("given.toml"), named, {}).settings.port == 3
    assert load(None, named, {}).settings.port == 2
    assert load(None, {"HOLDFAST_CONFIG": ""}, {}).origins["port"] == "toml:holdfast.toml"


def test_a_file_that_was_named_must_be_there() -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: cannot be opened: No such file"):
        load(None, {"HOLDFAST_CONFIG": "missing.toml"}, {})


def test_a_link_to_a_file_that_is_gone_is_told_of() -> None:
    """Who serves with defaults instead serves another store."""
    Path("holdfast.toml").symlink_to("away.toml")
    with pytest.raises(SettingsError, match=r"holdfast\.toml: cannot be opened: No such file"):
        load(None, {}, {})


@pytest.mark.parametrize("content", [b"port = ", b"host = '\xff'", b"port = " + b"9" * 5000, b"port = " + b"[" * 5000])
def test_a_file_that_is_not_toml_is_refused_beside_the_other_errors(content: bytes) -> None:
    Path("bad.toml").write_bytes(content)
    with pytest.raises(SettingsError) as refusal:
        load(Path("bad.toml"), {"HOLDFAST__PORT": "x"}, {})
    assert refusal.value.errors[0].startswith("bad.toml: is not TOML: ")
    assert refusal.value.errors[1].startswith("port: ")


def test_an_unknown_name_is_refused_with_the_nearest_one_as_that_source_writes_it() -> None:
    assert errors_of("databse_url = 'x'", {"HOLDFAST__PROT": "1"}, log_levle="info") == [
        "databse_url: unknown setting (toml:given.toml); did you mean 'database_url'?",
        "HOLDFAST__PROT: unknown setting (environment:HOLDFAST__PROT); did you mean 'HOLDFAST__PORT'?",
        "--log-levle: unknown setting (flag:--log-levle); did you mean '--log-level'?",
    ]


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert errors_of("zzzz = 1") == ["zzzz: unknown setting (toml:given.toml)"]


def test_a_variable_with_one_underscore_is_told_of() -> None:
    """A server that did not hear of HOLDFAST_DATABASE_URL would serve an empty file instead."""
    assert errors_of(environ={"HOLDFAST_DATABASE_URL": "postgresql://me:hunter2@host/db", "HOLDFAST_TOKEN": "x"}) == [
        "HOLDFAST_DATABASE_URL: unknown setting (environment:HOLDFAST_DATABASE_URL);"
        " did you mean 'HOLDFAST__DATABASE_URL'?"
    ]


def test_a_variable_in_the_wrong_case_is_unknown() -> None:
    [error] = errors_of(environ={"HOLDFAST__port": "1"})
    assert error.startswith("HOLDFAST__port: unknown") and error.endswith("did you mean 'HOLDFAST__PORT'?")


def test_the_variable_kubernetes_sets_for_a_service_named_holdfast_is_not_ours() -> None:
    assert loaded(environ={"HOLDFAST_PORT": "tcp://10.0.0.1:7400"}).settings.port == 7400


def test_a_choice_is_refused_with_the_choices_and_the_nearest_one() -> None:
    assert errors_of("log_level = 'warn'\nsqlite_synchronous = 'normal'") == [
        "log_level: 'warn' is not one of 'debug', 'info', 'warning', 'error' (toml:given.toml); "
        "did you mean 'warning'?",
        "sqlite_synchronous: 'normal' is not one of 'FULL', 'NORMAL' (toml:given.toml); did you mean 'NORMAL'?",
    ]


def test_every_error_of_every_source_is_listed_also_where_a_later_source_wins() -> None:
    errors = errors_of("port = '80'\nsweep = 1\nnope_nope = 1", {"HOLDFAST__PORT": "many"}, port=80, log_format="xml")
    assert [error.split(":")[0] for error in errors] == ["port", "sweep", "nope_nope", "port", "log_format"]
    assert str(SettingsError(errors)).count("\n") == 5


@pytest.mark.parametrize(
    "toml", ["port = true", "port = 1.0", "port = '1'", "port = [1]", "host = 1", "docs = 'true'", "[log_level]"]
)
def test_toml_must_have_the_type(toml: str) -> None:
    assert len(errors_of(toml)) == 1


@pytest.mark.parametrize(("raw", "value"), [("true", True), ("1", True), ("FALSE", False), ("0", False)])
def test_a_boolean_is_read_from_text(raw: str, value: bool) -> None:
    assert loaded(environ={"HOLDFAST__SWEEP": raw}).settings.sweep is value
    assert loaded(sweep=value).settings.sweep is value


@pytest.mark.parametrize("raw", ["", "yes", "2", "truee"])
def test_other_words_are_no_boolean(raw: str) -> None:
    assert errors_of(environ={"HOLDFAST__SWEEP": raw}) == [
        f"sweep: {raw!r} is not true or false (environment:HOLDFAST__SWEEP)"
    ]


@pytest.mark.parametrize("raw", ["", "1.5", "1_000", "0x10", "٣", "9" * 5000, "\udcff"])
def test_other_texts_are_no_integer(raw: str) -> None:
    assert len(errors_of(environ={"HOLDFAST__PORT": raw})) == 1


def test_an_integer_is_read_from_text() -> None:
    assert loaded(environ={"HOLDFAST__PORT": " 80 "}).settings.port == 80
    assert loaded(port="81").settings.port == 81


def test_a_text_stays_as_it_was_written() -> None:
    assert loaded(environ={"HOLDFAST__BOOTSTRAP_TOKEN_FILE": "1"}).settings.bootstrap_token_file == "1"


def test_a_number_out_of_range_is_refused_with_the_range() -> None:
    assert errors_of("port = 65536", {"HOLDFAST__BATCH_COMMANDS_MAX": "-1"}) == [
        "port: 65536 is not a whole number from 0 to 65535 (toml:given.toml)",
        "batch_commands_max: -1 is not a whole number from 1 to 1000 (environment:HOLDFAST__BATCH_COMMANDS_MAX)",
    ]


def test_batches_leave_a_connection_for_reads() -> None:
    assert errors_of("postgres_connections_max = 2") == [
        "postgres_batches_in_flight: 2 (default) is not fewer than postgres_connections_max, 2 (toml:given.toml)"
    ]


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert loaded("port = 1", port=None).origins["port"] == "toml:given.toml"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hunter2@h:5432/db", "postgresql://u:***@h:5432/db"),
        ("postgresql://u:sec:r@et/se@h1,h2:5433/db", "postgresql://u:***@h1,h2:5433/db"),
        ("postgresql://:hunter2@h/db", "postgresql://:***@h/db"),
        ("postgresql://h/db?user=u&password=hunter2&sslmode=require", None),
        ("postgresql://h/db?user=u&%70ass%57ORD=hunter2", None),
        ("postgresql://u@h1:5432,h2:5433/db", "postgresql://u@h1:5432,h2:5433/db"),
        ("sqlite:////tmp/a:b@c.db", "sqlite:////tmp/a:b@c.db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str | None) -> None:
    assert masked("database_url", url) == (shown or url.replace("hunter2", "***"))
    result = loaded(database_url=url)
    assert result.settings.database_url == url
    printed = f"{result} {describe(result)}"
    assert "hunter2" not in printed and "sec:r@et" not in printed


def test_a_refused_database_url_is_not_repeated() -> None:
    [error] = errors_of(database_url="mysql://u:hunter2@h/db")
    assert error == (
        "database_url: the value (not shown) is not a URL sqlite:///… or postgresql://… (flag:--database-url)"
    )


def test_describe_gives_value_origin_and_meaning_of_every_setting() -> None:
    rows = describe(loaded(docs=False))
    assert [name for name, *_ in rows] == list(FIELDS)
    assert ("docs", "false", "flag:--docs", "Serve the API reference at /docs.") in rows
    assert all(meaning.endswith(".") and "\n" not in meaning for *_, meaning in rows)


def test_the_committed_reference_is_the_generated_one() -> None:
    assert SETTINGS_DOC.read_text("utf-8") == as_markdown(), "write service.settings.as_markdown() to docs/settings.md"
