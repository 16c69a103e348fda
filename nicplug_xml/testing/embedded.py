"""libvirt's QEMU driver inside this process: no daemon, and nothing left when it is closed.

Authority: https://libvirt.org/drvqemu.html, "embedded driver".
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nicplug_xml.errors import UnsupportedError
from nicplug_xml.host.connection import silence_libvirt, start_event_loop
from nicplug_xml.testing.commands import kill_users_of, program, share_capabilities
from nicplug_xml.testing.guest import remove_domain
from nicplug_xml.testing.namespace import state_directory

if TYPE_CHECKING:
    import libvirt

#: Runs QEMU as the root that we are, without labels, and with no helper daemon for its output.
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
security_default_confined = 0
stdio_handler = "file"
namespaces = []
"""

_PR_SET_CHILD_SUBREAPER = 36
_REAP_EVERY = 0.05


@contextmanager
def embedded_connection() -> Iterator[libvirt.virConnect]:
    """Open libvirt's embedded QEMU driver on a directory of its own.

    Call :func:`~nicplug_xml.testing.namespace.isolate` first when guests are to use bridges or taps. There is
    no network driver in it: ``<interface type='network'>`` needs a daemon. At the end all its guests are
    gone. libvirt keeps its embedded driver, and with it the directory, until the process ends; then the
    directory goes too. Only one such block can be open at a time.

    :returns: the connection, to ``qemu:///embed``.
    :raises UnsupportedError: libvirt has no embedded driver here; the message says why.
    """
    program("qemu-system-x86_64")
    root = _root()
    try:
        conn = _open(root)
        try:
            yield conn
        finally:
            remove_domains(conn)
            conn.close()
    finally:
        kill_users_of(root)


@cache
def _root() -> Path:
    # Removed when the process ends, for a process can have the embedded driver on one directory only.
    directory = ExitStack()
    root = directory.enter_context(state_directory())
    atexit.register(directory.close)
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(QEMU_CONF)
    share_capabilities(root / "cache" / "qemu")
    _adopt_guests(root)
    return root


def remove_domains(conn: libvirt.virConnect) -> None:
    """Destroy and undefine all domains of a connection of ours; one that resists is passed over."""
    import libvirt

    for dom in conn.listAllDomains():
        with suppress(libvirt.libvirtError):
            remove_domain(dom)


def _open(root: Path) -> libvirt.virConnect:
    _import_libvirt(root / "libvirt.log")
    import libvirt

    silence_libvirt()
    start_event_loop()
    try:
        return libvirt.open(f"qemu:///embed?root={root}")
    except libvirt.libvirtError as error:
        raise UnsupportedError(
            f"libvirt's embedded QEMU driver does not open: {error}",
            hint="install the Debian packages libvirt-daemon-driver-qemu and libvirt-daemon-system",
        ) from error


def _adopt_guests(root: Path) -> None:
    # A guest's QEMU is an orphan, and so is one that is only probed. libvirt waits, up to 40 s each, until
    # its parent has taken note. The machine's process 1 may be slow at that, and in a container it may
    # be a program that never does.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_reap, args=(root,), name="guests", daemon=True).start()


def _reap(root: Path) -> None:
    running: set[int] = set()
    while True:
        time.sleep(_REAP_EVERY)
        running |= _pids_in(root)
        running = {pid for pid in running if not _has_ended(pid)}


def _pids_in(root: Path) -> set[int]:
    guests, probed = f"{root}/run/qemu", f"{root}/lib/qemu"
    files = [f"{guests}/{name}" for name in _names(guests) if name.endswith(".pid")]
    files += [f"{probed}/{name}/qmp.pid" for name in _names(probed) if name.startswith("qmp-")]
    pids = set()
    for file in files:
        # It may be gone already, or not be written yet.
        with suppress(OSError, ValueError), open(file) as text:
            pids.add(int(text.read()))
    return pids


def _names(directory: str) -> list[str]:
    # A glob takes a millisecond, and this is asked twenty times a second. Nothing may end that: where this
    # process has no descriptor left for a moment, the next time will do.
    with suppress(OSError):
        return os.listdir(directory)
    return []


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _import_libvirt(log: Path) -> None:
    # libvirt looks at this variable when it is imported. Where that was done before, the driver's warnings go
    # to standard error. It must not stay: a child that cannot open the file could not use libvirt at all.
    outputs = "LIBVIRT_LOG_OUTPUTS"
    if outputs in os.environ:
        return
    os.environ[outputs] = f"3:file:{log}"
    try:
        import libvirt  # noqa: F401
    finally:
        del os.environ[outputs]
