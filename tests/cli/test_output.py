"""What commands print, wherever it goes: a narrow terminal, a full disk, nowhere."""

import errno
import gc
import io
import os
import subprocess
import sys

import pytest

from service.cli import main
from service.cli.first_token import show
from service.cli.output import announce, open_the_closed
from service.cli.refused import Refused, explained
from service.cli.remote import Server, Told
from service.cli.remote import said as refusal
from service.cli.table import print_table
from service.http.contract import text
from tests.cli.conftest import ROOT, Command, Running, environment

WIDE = ("Id", "Name", "Role", "Revoked")
ROWS = [("t" * 40, "ci", "worker", None), ("u" * 40, "", "viewer", "2026-11-22")]


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str) -> str:
    """A table in a terminal of so many columns, without colours."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(WIDE, ROWS)
    return capsys.readouterr().out


def test_a_row_that_does_not_fit_into_a_terminal_is_a_list_of_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = printed(monkeypatch, capsys, "50").split("\n\n")
    assert first == f"Id       {'t' * 40}\nName     ci\nRole     worker"
    assert second == f"Id       {'u' * 40}\nRole     viewer\nRevoked  2026-11-22\n"
    head, _, *rows = printed(monkeypatch, capsys, "120").splitlines()
    assert head.split() == list(WIDE)
    assert [row.split()[1:] for row in rows] == [["ci", "worker", "–"], ["viewer", "2026-11-22"]]


def test_an_output_that_has_no_room_is_said_in_one_line() -> None:
    refused = explained(OSError(errno.ENOSPC, "No space left on device"))
    assert str(refused) == "the output cannot be written: No space left on device; make room and ask again"
    assert explained(OSError(errno.EBADF, "Bad file descriptor")) is None, "that would be a fault of ours"


def test_an_output_that_came_closed_says_nothing_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    open_the_closed()
    with sys.stdout as found:
        print_table(WIDE, ROWS)
    assert found.name == os.devnull


@pytest.mark.parametrize("letters", ["ascii", "latin-1"])
def test_what_the_locale_has_no_letters_for_is_written_as_escapes(letters: str) -> None:
    """Documents for programs are UTF-8 wherever they are printed."""
    for words, said in (
        ("config show --host ☃", b"\\u2603  "),
        ("config show --format json --host ☃", '"host": "☃",'.encode()),
        ("config show --format toml --host ☃", 'host = "☃"\n'.encode()),
        ("openapi", text().encode()),
    ):
        command = [sys.executable, "-m", "service", *words.split()]
        done = subprocess.run(command, cwd=ROOT, env=environment(PYTHONIOENCODING=letters), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b""), words
        assert said in done.stdout, words


def test_a_table_has_a_dash_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written := io.BytesIO(), "ascii"))
    print_table(WIDE, ROWS)
    sys.stdout.flush()
    assert written.getvalue().splitlines()[2].split()[-3:] == [b"worker", b"|", b"-"]


def test_nobody_to_read_where_it_serves_is_no_reason_not_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart on a full disk: the log of the server is redirected there."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        announce("served")
        announce("and goes on")


def test_a_token_that_could_not_be_printed_is_said_to_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(Refused, match=r"No space left on device\) and is lost; make room and mint another") as told:
            show("System admin token", "holds_secret")
    assert "holds_secret" not in str(told.value)


def test_a_command_that_is_broken_off_while_it_loads_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading:
        def __getattr__(self, _name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "service.cli.commands", Loading())
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    assert main() == 130


def test_a_command_called_wrongly_says_what_is_wrong_and_where_to_read(holdfast: Command) -> None:
    for words, said in (
        (("backup", "a.db", "b.db"), "`holdfast backup` takes no 'b.db'; see `holdfast backup --help`"),
        (("backup",), "FILE requires an argument; see `holdfast backup --help`"),
        (("tenant", "list", "--url", "http://127.0.0.1:1/v1", "--token", "t"), "it reads http://host:port"),
    ):
        done = holdfast(*words)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert said in done.stderr


@pytest.mark.parametrize("words", ["tenant show", "token revoke", "token list --tenant"])
def test_a_word_that_is_no_text_is_said_to_be_none(holdfast: Command, words: str) -> None:
    done = holdfast(*words.split(), "\udcff", HOLDFAST_TOKEN="holds_x", HOLDFAST_URL="http://127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("holdfast: an argument or a variable is not text")


def test_a_server_that_does_not_speak_tls_is_told_from_one_that_is_away(holdfast: Command, served: Running) -> None:
    url = served.url.replace("http:", "https:")
    done = holdfast("tenant", "list", "--url", url, HOLDFAST_TOKEN="holds_x")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{url} is not spoken to over TLS" in done.stderr and "begin with http:" in done.stderr


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"{}", "the server answered without 'items'; is it a Holdfast server, of this version?"),
        (b"[]", "answered 200 with JSON that is no object; is it a Holdfast server?"),
        (b"<html>", "answered 200 with something that is not JSON; is it a Holdfast server?"),
    ],
)
def test_an_answer_of_another_server_is_told_as_such(answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "_send", lambda *_: (200, answer))
    with pytest.raises(Refused) as told:
        Server(token="t").pages("/v1/tenants")
    assert said in str(told.value)


def test_a_refusal_gives_the_terminal_no_orders() -> None:
    errors = [{"pointer": "/a\x1b[2J", "detail": "b\r"}, {"pointer": "/c", "detail": "d"}]
    problem = Told(detail="what\x1b]0;is\x07", code="request/invalid", errors=errors)
    assert refusal(422, problem) == "what�]0;is� (request/invalid)\n  - /a�[2J: b�\n  - /c: d"


def test_the_help_of_what_serves_nobody_shows_no_setting_of_a_server(holdfast: Command) -> None:
    said = holdfast("doctor", "--help").stdout
    assert "--database-url" in said and "--port" not in said
    assert "Exit code 1 if anything fails" in said
    assert holdfast("doctor", "--port", "1").returncode == 1, "whoever gives all commands the same flags may go on"
