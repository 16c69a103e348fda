"""The command ``nicplug``: arguments to calls, results to text, errors to exit codes."""

from __future__ import annotations

import os
import sys

from nicplug_xml.cli.arguments import parse

TYPE_CHECKING = False  # as in nicplug_xml.cli.arguments
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line without the program's name; None for the process's own.
    :returns: the exit code: 0 done, 1 refused or failed, 2 bad usage, 130 interrupted.
    """
    options = parse(sys.argv[1:] if arguments is None else arguments)

    import warnings

    from nicplug_xml.cli.commands import COMMANDS
    from nicplug_xml.errors import NicplugError

    warnings.showwarning = lambda message, *_: print(f"nicplug: warning: {message}", file=sys.stderr)
    warnings.simplefilter("always", UserWarning)
    try:
        return COMMANDS[options.command](options)
    except NicplugError as error:
        return _failed(str(error), 1)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader has gone, as with "| head"; nothing more can be written, at exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return _failed(f"{error.filename or options.command}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _failed("interrupted; what had been begun was undone", 130)


def _failed(message: str, code: int) -> int:
    print("nicplug: error: " + " ".join(message.split()), file=sys.stderr)
    return code
