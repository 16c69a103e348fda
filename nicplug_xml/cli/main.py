"""The command ``nicplug``: arguments to calls, results to text, errors to exit codes."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in nicplug_xml.cli.arguments
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


#: The commands that do without libvirt.
_OFFLINE = ("validate", "rewrite", "restore", "completion")

#: Seconds that a call of libvirt's may go on after the user has interrupted it.
_PATIENCE = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: the command line without the program's name; None for the process's own.
    :returns: the exit code: 0 done, 1 refused or failed, 2 bad usage, 128 and the number of the signal
        that interrupted (Ctrl-C: 130).
    """
    from nicplug_xml.errors import NicplugError, UsageError

    is_process = arguments is None
    if arguments is None:
        _never_collect()
        _print_utf8()
        arguments = sys.argv[1:]
    _open_closed_streams()
    try:
        code = _run(arguments, is_process)
        # What cannot be written is to be told here, and not when the interpreter ends.
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _failed(str(error), 2)
    except NicplugError as error:
        return _failed(str(error), 1)
    except BrokenPipeError:
        # The reader has gone, as with "| head": nothing is wrong, and nobody is there to be told.
        _drop_output()
        return 1
    except UnicodeEncodeError as error:
        return _failed(f"{error.object!a} is not UTF-8, which libvirt's names are in", 1)
    except (OSError, UnicodeError) as error:
        name = getattr(error, "filename", None)
        said = getattr(error, "strerror", None) or str(error)
        if name is not None:
            return _failed(f"{name or repr(name)}: {said}", 1)
        _drop_output()
        return _failed(f"input or output failed: {said}", 1)
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "nicplug_xml"):
            raise
        hint = "install nicplug again, with pip, and with it what it needs"
        if module.startswith("libvirt"):
            module = "libvirt"
            hint = "install libvirt-python and libvirt's client library (Debian: python3-libvirt, libvirt0)"
        return _failed(f"the Python module {module} cannot be loaded: {error}; {hint}", 1)
    except KeyboardInterrupt as interruption:
        return _failed("interrupted", 128 + (interruption.args or (2,))[0])


def _run(arguments: Sequence[str], is_process: bool) -> int:
    if arguments and arguments[0] == "__complete":
        from nicplug_xml.cli.completing import complete

        return complete(arguments[1:])
    from nicplug_xml.cli.arguments import parse

    try:
        options = parse(arguments)
    except SystemExit as error:
        return int(error.code or 0)

    if options.command not in _OFFLINE:
        _load_libvirt()
        if is_process:
            _interrupt_when_ended()
    import warnings

    from nicplug_xml.cli.commands import COMMANDS

    warnings.showwarning = lambda message, *_: print(f"nicplug: warning: {message}", file=sys.stderr)
    warnings.simplefilter("always", UserWarning)
    return COMMANDS[options.command](options)


def _load_libvirt() -> None:
    """Have another processor load libvirt's libraries while our own modules are read: each takes as long."""
    import ctypes

    # Who loads a library meanwhile waits for these: what has some itself is to be there before.
    import json  # noqa: F401
    import os
    import typing  # noqa: F401
    from importlib.machinery import PathFinder
    from threading import Thread

    found = [PathFinder.find_spec(name) for name in ("libvirtmod", "libvirtmod_qemu")]
    files = [os.fsencode(spec.origin) for spec in found if spec and spec.origin]
    # Of C's own dlopen Python does not wait for the end, as it would of ctypes.CDLL.
    dlopen = ctypes.CDLL(None).dlopen

    def load() -> None:
        for file in files:
            dlopen(file, os.RTLD_NOW)

    Thread(target=load).start()


def _never_collect() -> None:
    """Collect no garbage, neither while modules load nor at the end: all that there is stays until then."""
    import atexit
    import gc

    gc.disable()
    atexit.register(gc.freeze)


def _print_utf8() -> None:
    """Print UTF-8 in every locale, as virsh does and XML says of itself, and names of files as they are."""
    from io import TextIOWrapper

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _interrupt_when_ended() -> None:
    """Have SIGTERM and SIGHUP interrupt as Ctrl-C does: what is half done is taken back."""
    import os
    import signal
    from contextlib import suppress
    from threading import Thread

    told, tell = os.pipe()
    for end in (told, tell):
        os.set_blocking(end, False)

    def interrupt(number: int, _frame: object) -> NoReturn:
        with suppress(BlockingIOError):  # two at once
            os.read(told, 64)
        raise KeyboardInterrupt(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup has SIGHUP ignored.
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)
    signal.set_wakeup_fd(tell)
    Thread(target=_end_when_stuck, args=(told,), daemon=True).start()


def _end_when_stuck(told: int) -> None:
    """End the process when it is interrupted, and Python does not get to that: libvirt does not answer.

    :param told: what the numbers of signals can be read from, until Python gets to them.
    """
    import os
    import time
    from select import POLLIN, poll

    signals = poll()
    signals.register(told, POLLIN)
    while signals.poll():
        time.sleep(_PATIENCE)
        if signals.poll(0):
            message = "interrupted while libvirt does not answer; what came of it, 'nicplug list' tells later"
            os._exit(_failed(message, 128 + os.read(told, 1)[0]))


def _open_closed_streams() -> None:
    """Give a program that was started with closed standard streams empty ones."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open("/dev/null", mode))  # noqa: SIM115 (it is to stay open)


def _drop_output() -> None:
    """Keep what is still buffered from being written, and failing, once more when the interpreter ends."""
    import os
    from contextlib import suppress

    with suppress(AttributeError, OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(message: str, code: int) -> int:
    from nicplug_xml.cli import colours

    error = colours.paint("error:", "bad") if colours.wanted(sys.stderr) else "error:"
    print(f"nicplug: {error} " + " ".join(message.split()), file=sys.stderr)
    return code
