"""The command line `holdfast`: one module per noun, loaded when its command is called."""

import os
import sys


def main() -> int:
    """Run the command that the arguments name; its exit code. What was to be expected is one sentence on stderr."""
    from service.cli.commands import app
    from service.cli.refused import explained

    try:
        app(exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `holdfast token list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        refused = explained(error)
        if refused is None:
            raise
        print(f"holdfast: {refused}", file=sys.stderr)
        return refused.code
    return 0
