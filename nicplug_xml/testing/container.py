"""The tiny container: the user land of the tiny guest in a container of libvirt's LXC driver.

Authority: https://libvirt.org/drvlxc.html; virDomainLxcOpenNamespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import proxy
from xml.sax.saxutils import escape, quoteattr

from nicplug_xml.errors import UnsupportedError
from nicplug_xml.testing.commands import program
from nicplug_xml.testing.guest import Guest, init_script, remove_domain

if TYPE_CHECKING:
    import libvirt

#: Directories that process 1 or libvirt mount something on, or write to.
_DIRECTORIES = ("bin", "dev", "etc", "proc", "run", "sys", "tmp")

# Ends as the guest's command channel does: with the command's status, or killed, together with all that it
# started in the foreground, when it takes longer than it may. It sleeps without a process to outlive it.
_RUN = """
if [ "$(cut -d ' ' -f 22 /proc/1/stat)" != "$(cat /run/ready)" ]; then
    echo not ready
    exit 1
fi 2>/dev/null
exec 4<>/run/nothing
setsid sh -c "$1" </dev/null 4>&- &
group=$!
{ read -r -t "$2" nothing <&4; kill -KILL "-$group"; } >/dev/null 2>&1 &
guard=$!
wait "$group"
status=$?
kill "$guard" 2>/dev/null
exit $status
"""
_NOT_READY = "not ready\n"
_KILLED = 128 + 9

#: What process 1 has, too.
_ENVIRONMENT = {"PATH": "/bin:/sbin", "HOME": "/", "TERM": "linux"}

#: The kernel's names of namespaces, and nsenter's.
_NAMESPACES = {"mnt": "mount", "net": "net", "pid": "pid", "ipc": "ipc", "uts": "uts"}


def container_root(name: str, workdir: Path) -> Path:
    """Tell which directory is the root of a container that :func:`container_xml` describes."""
    return workdir / f"{name}.root"


def container_xml(
    name: str, interfaces_xml: str, *, workdir: Path, memory_mib: int = 160, devices_xml: str = ""
) -> str:
    """Describe a tiny container as a libvirt domain; its files are not made.

    :param name: of the domain.
    :param interfaces_xml: its ``<interface>`` elements, taken as they are.
    :param workdir: directory for its files.
    :param memory_mib: its memory in MiB.
    :param devices_xml: other elements of ``<devices>``, taken as they are.
    :returns: the domain XML (libvirt's domain format, https://libvirt.org/formatdomain.html).
    """
    return f"""<domain type='lxc'>
  <name>{escape(name)}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64'>exe</type>
    <init>/init</init>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <filesystem type='mount'>
      <source dir={quoteattr(str(container_root(name, workdir)))}/>
      <target dir='/'/>
    </filesystem>
    <console type='pty'/>
    {interfaces_xml}
    {devices_xml}
  </devices>
</domain>
"""


def boot_container(
    conn: libvirt.virConnect,
    name: str,
    interfaces_xml: str,
    *,
    workdir: Path,
    define: Callable[[libvirt.virConnect, str], libvirt.virDomain] | None = None,
    memory_mib: int = 160,
    devices_xml: str = "",
) -> Container:
    """Define a tiny container and start it; it is not waited for.

    :param conn: a connection to libvirt's LXC driver, over a UNIX socket.
    :param name: of the domain.
    :param interfaces_xml: see :func:`container_xml`, as are ``workdir``, ``memory_mib`` and ``devices_xml``.
    :param define: as for :func:`~nicplug_xml.testing.guest.boot_guest`.
    :returns: the container.
    :raises libvirt.libvirtError: libvirt refused it; the domain is not left defined.
    :raises UnsupportedError: busybox-static is not installed, or the machine has no control groups for it.
    """
    root = container_root(name, workdir)
    _make_root(root)
    xml = container_xml(name, interfaces_xml, workdir=workdir, memory_mib=memory_mib, devices_xml=devices_xml)
    dom = define(conn, xml) if define else conn.defineXML(xml)
    try:
        if not dom.isActive():
            _start(dom)
    except BaseException:
        remove_domain(dom)
        raise
    return Container(dom, root)


class Container(Guest):
    """A running tiny container: a :class:`~nicplug_xml.testing.guest.Guest` in all that can be seen of it.

    :param dom: its domain, also as the attribute ``dom``.
    :param root: the directory that is its root.
    """

    def __init__(self, dom: libvirt.virDomain, root: Path) -> None:
        # A circle would keep the domain, and its connection to libvirt, until Python looks for circles.
        super().__init__(dom, root / "log", _Entrance(proxy(self)))


class _Entrance:
    """Commands in a container, run by entering its namespaces.

    :param container: the container; its domain may change.
    """

    def __init__(self, container: Guest) -> None:
        self._container = container

    def request(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a command in the container; as :meth:`nicplug_xml.testing.channel.Channel.request`.

        :raises ConnectionError: the container does not run, or process 1 in it is not ready.
        """
        limit = max(1, round(timeout))
        namespaces = self._open()
        started = time.monotonic()
        try:
            # Into a file: what the command leaves running in the background may hold on to it.
            with tempfile.TemporaryFile() as output:
                ended = subprocess.run(
                    [*_enter(namespaces), "/bin/busybox", "sh", "-c", _RUN, "sh", command, str(limit)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=namespaces,
                    timeout=limit + 30, check=False, env=_ENVIRONMENT,
                )  # fmt: skip
                output.seek(0)
                printed = output.read().decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(str(error)) from error
        finally:
            for namespace in namespaces:
                os.close(namespace)
        if ended.returncode < 0:
            raise ConnectionError("the container went away before it answered")
        if (ended.returncode, printed) == (1, _NOT_READY):
            raise ConnectionError("the container has just been started")
        if ended.returncode == _KILLED and time.monotonic() - started >= limit:
            raise TimeoutError("it was killed")
        return ended.returncode, printed

    def _open(self) -> list[int]:
        import libvirt
        import libvirt_lxc

        try:
            return list(libvirt_lxc.lxcOpenNamespace(self._container.dom, 0))
        except libvirt.libvirtError as error:
            raise ConnectionError(str(error)) from error


def _start(dom: libvirt.virDomain) -> None:
    import libvirt

    try:
        dom.create()
    except libvirt.libvirtError as error:
        if "cgroups controller mount" not in str(error):
            raise
        raise UnsupportedError(
            f"libvirt starts no container here: {error}",
            hint="the control groups memory, cpuacct and devices have to be of version 1",
        ) from error


def _enter(namespaces: list[int]) -> list[str]:
    enter = [program("nsenter")]
    for namespace in namespaces:
        path = f"/proc/self/fd/{namespace}"
        kind = os.readlink(path).partition(":")[0]
        # Containers without <idmap> are in our own user namespace, which nobody can enter again.
        if kind in _NAMESPACES:
            enter.append(f"--{_NAMESPACES[kind]}={path}")
    return [*enter, "--"]


def _make_root(root: Path) -> None:
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise UnsupportedError(
            f"a container needs {busybox}", hint="install the Debian package busybox-static"
        )
    for name in _DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    shutil.copy(init_script(), root / "init")
