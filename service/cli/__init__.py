"""The command line `holdfast`: one module per noun, loaded when its command is called."""

import contextlib
import gc
import sys


def main() -> int:
    """Run the command that the arguments name; its exit code. What was to be expected is one sentence on stderr."""
    from service.cli.output import open_the_closed, say_no_more, spell_out

    open_the_closed()
    spell_out()
    gc.set_threshold(100_000, 20, 50)  # what imports make stays: to look for garbage in it is a seventh of a start

    try:
        from service.cli.commands import app  # a tenth of a second in which somebody may change their mind

        app(exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `holdfast token list | head`
        say_no_more()
        return 1
    except Exception as error:
        from service.cli.refused import explained
        from service.tokens.secret import mask

        refused = explained(error)
        if refused is None:
            raise
        if isinstance(error, OSError):
            say_no_more()
        with contextlib.suppress(OSError):
            print(mask(f"holdfast: {refused}"), file=sys.stderr)  # of a service, stderr is its log
        return refused.code
    return 0
