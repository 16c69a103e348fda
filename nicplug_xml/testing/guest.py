"""The tiny guest: its image, its domain XML, and a hand inside the running guest."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID, uuid5
from xml.sax.saxutils import escape, quoteattr

from nicplug_xml.errors import NotFoundError, OperationError, UnsupportedError
from nicplug_xml.testing.channel import Channel
from nicplug_xml.testing.commands import cache_directory, tail
from nicplug_xml.testing.namespace import run_outside

if TYPE_CHECKING:
    import libvirt

_READY = "nicplug-guest: ready "
_EVENT = re.compile(r"^nicplug-guest: (\w+) at=([\d.]+)(.*)$", re.MULTILINE)
_POLL = 0.02
#: What makes a UUID of a domain's name, always the same one.
_NAMES = UUID("5ad8e1e2-6b0c-4c9e-9b0e-6e6963706c75")
# Hardening, self-tests and calibration serve no test here, and are about a quarter of an emulated boot.
_KERNEL_OPTIONS = (
    "quiet mitigations=off nokaslr init_on_alloc=0 noreplace-smp "
    "cryptomgr.notests tsc=reliable no_timer_check"
)

_LIST_NICS = """
for path in /sys/class/net/*; do
    [ "$path" != /sys/class/net/lo ] || continue
    carrier=0
    read -r mac <$path/address && read -r index <$path/ifindex || continue
    read -r carrier <$path/carrier
    echo "$mac ${path##*/} $index ${carrier:-0}"
done 2>/dev/null
:
"""


class GuestImage(NamedTuple):
    """The files that the tiny guest boots from."""

    kernel: Path
    initrd: Path


class GuestNic(NamedTuple):
    """A NIC as the guest sees it: its name there, its index there, and whether it has a carrier."""

    name: str
    ifindex: int
    carrier: bool


class GuestEvent(NamedTuple):
    """A line of the guest's log.

    :param at: seconds since the guest's power-on.
    :param kind: ``ready``; ``added``, ``removed``, ``carrier`` of a NIC; ``uevent`` of a hotplug.
    :param fields: the rest, by name: of a NIC ``name``, ``index``, ``mac``, ``carrier`` (``up`` or ``down``)
        and ``changes``; of an uevent ``action``, ``subsystem`` and ``path``.
    """

    at: float
    kind: str
    fields: dict[str, str]


class Pings(NamedTuple):
    """How many pings were sent and how many were answered; true when any was.

    :param output: what the guest's ``ping`` printed.
    """

    sent: int
    received: int
    output: str

    def __bool__(self) -> bool:
        return self.received > 0


class Commands(Protocol):
    """A way to run commands inside a guest, as :class:`~nicplug_xml.testing.channel.Channel` is one."""

    def request(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a command; see :meth:`nicplug_xml.testing.channel.Channel.request`."""


def guest_image() -> GuestImage:
    """Find the tiny guest's kernel and initial RAM disk, and build them first where they are missing or old.

    They are kept in ``guest`` below :func:`~nicplug_xml.testing.commands.cache_directory`. Building takes
    some 5 seconds and needs the network (Debian's package archive).

    :returns: the two files.
    :raises UnsupportedError: they cannot be built here; the message says which Debian package is missing.
    """
    place = cache_directory() / "guest"
    try:
        run_outside(["sh", str(_image_file("build")), str(place)])
    except OperationError as error:
        raise UnsupportedError(f"cannot build the guest image: {error}") from error
    return GuestImage(place / "vmlinux", place / "initrd")


def init_script() -> Path:
    """Find the tiny guest's process 1.

    :raises UnsupportedError: it is not there.
    """
    return _image_file("init")


def _image_file(name: str) -> Path:
    here = Path(__file__).resolve().parent
    in_wheel = here / "guest_image" / name
    in_checkout = here.parents[1] / "tests" / "guest" / name
    for file in (in_wheel, in_checkout):
        if file.exists():
            return file
    raise UnsupportedError(
        f"the guest image's file '{name}' is not at {in_wheel}", hint="install nicplug again"
    )


def console_path(name: str, workdir: Path) -> Path:
    """Tell which file holds the log of a guest that :func:`guest_xml` describes."""
    return workdir / f"{name}.log"


def channel_path(name: str, workdir: Path) -> Path:
    """Tell which socket leads to the command channel of a guest that :func:`guest_xml` describes."""
    return workdir / f"{name}.sock"


def guest_xml(
    name: str,
    interfaces_xml: str,
    *,
    workdir: Path,
    memory_mib: int = 160,
    devices_xml: str = "",
    image: GuestImage | None = None,
) -> str:
    """Describe a tiny guest as a libvirt domain, without hardware acceleration: it boots in some 2 s anyway.

    :param name: of the domain; its UUID is made of it, always the same one.
    :param interfaces_xml: its ``<interface>`` elements, taken as they are.
    :param workdir: directory for its log and its command channel, with a short path.
    :param memory_mib: its memory in MiB.
    :param devices_xml: other elements of ``<devices>``, taken as they are.
    :param image: what it boots; that of :func:`guest_image` unless told.
    :returns: the domain XML (libvirt's domain format, https://libvirt.org/formatdomain.html).
    """
    kernel, initrd = image or guest_image()
    return f"""<domain type='qemu'>
  <name>{escape(name)}</name>
  <uuid>{uuid5(_NAMES, name)}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{escape(str(kernel))}</kernel>
    <initrd>{escape(str(initrd))}</initrd>
    <cmdline>console=ttyS0 {_KERNEL_OPTIONS}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='file'>
      <source path={quoteattr(str(console_path(name, workdir)))} append='on'/>
      <target port='0'/>
    </serial>
    <serial type='unix'>
      <source mode='bind' path={quoteattr(str(channel_path(name, workdir)))}/>
      <target port='1'/>
    </serial>
    {interfaces_xml}
    {devices_xml}
  </devices>
</domain>
"""


def boot_guest(
    conn: libvirt.virConnect,
    name: str,
    interfaces_xml: str,
    *,
    workdir: Path,
    define: Callable[[libvirt.virConnect, str], libvirt.virDomain] | None = None,
    memory_mib: int = 160,
    devices_xml: str = "",
    start: Callable[[libvirt.virDomain, Path], libvirt.virDomain] | None = None,
) -> Guest:
    """Define a tiny guest and start it; it is not waited for.

    :param conn: a connection to a QEMU driver.
    :param name: of the domain.
    :param interfaces_xml: see :func:`guest_xml`, as are ``workdir``, ``memory_mib`` and ``devices_xml``.
    :param define: makes a domain of the XML, ``virConnect.defineXML`` unless told; a domain that it has
        started already is not started again, so ``virConnect.createXML`` fits as well.
    :param start: starts it, given the domain and the file of its log, as
        :meth:`nicplug_xml.testing.saved_boots.SavedBoots.start`; ``virDomain.create`` unless told.
    :returns: the guest.
    :raises libvirt.libvirtError: libvirt refused it; the domain is not left defined.
    """
    xml = guest_xml(name, interfaces_xml, workdir=workdir, memory_mib=memory_mib, devices_xml=devices_xml)
    dom = define(conn, xml) if define else conn.defineXML(xml)
    console = console_path(name, workdir)
    try:
        if not dom.isActive():
            if start is None:
                dom.create()
            else:
                dom = start(dom, console)
    except BaseException:
        remove_domain(dom)
        raise
    return Guest(dom, console, channel_path(name, workdir))


def remove_domain(dom: libvirt.virDomain) -> None:
    """Destroy and undefine a domain, whatever state it is in; one that is gone already is fine.

    Where its connection is dead, as after a restart of the daemon, that is done over another one.

    :raises libvirt.libvirtError: libvirt could not.
    """
    import libvirt

    def unless_gone(call: Callable[[], object]) -> None:
        try:
            call()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise

    def destroy() -> None:
        try:
            dom.destroy()
        except libvirt.libvirtError:
            # It did not run, or has ended meanwhile: a libvirtd that has just started may see that first.
            if dom.isActive():
                raise

    def undefine() -> None:
        if not dom.isPersistent():
            return
        # What libvirt would not undefine otherwise, containers have none of; and their driver takes no flags.
        if dom.OSType() == "exe":
            dom.undefine()
            return
        dom.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        )

    try:
        alive = dom.connect().isAlive()
    except libvirt.libvirtError:
        alive = True  # whoever opened it has closed it, and the domain keeps it open
    if not alive:
        with closing(libvirt.open(dom.connect().getURI())) as conn:
            unless_gone(lambda: remove_domain(conn.lookupByUUIDString(dom.UUIDString())))
        return
    unless_gone(destroy)
    unless_gone(undefine)


class Guest:
    """A running tiny guest, and what is seen from inside it.

    :param dom: its domain, also as the attribute ``dom``.
    :param console: the file with its log, also as the attribute ``console``.
    :param channel: the socket of its command channel, or another way to run commands in it.
    """

    def __init__(self, dom: libvirt.virDomain, console: Path, channel: Path | Commands) -> None:
        self.dom = dom
        self.console = console
        self._channel = Channel(channel) if isinstance(channel, Path) else channel

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def name(self) -> str:
        """The domain's name."""
        return str(self.dom.name())

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until the guest answers commands, after a start, a reset or a restore.

        :param timeout: seconds; a guest takes 2 to 3 on an idle machine.
        :raises TimeoutError: it did not; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        patience = 0.5
        while time.monotonic() < deadline:
            if _READY not in self.log():
                time.sleep(_POLL)
                continue
            try:
                # The log may be that of an earlier start: then this goes unanswered, and is asked again; of a
                # guest that is slow ever later, for what was asked before keeps it busy as well.
                self._channel.request(":", timeout=patience)
            except (TimeoutError, ConnectionError):
                patience = min(2 * patience, 10)
                continue
            return
        raise self._late(f"was not ready within {timeout} s")

    def run(self, command: str, timeout: float = 10) -> str:
        """Run a command in the guest's ``sh``; all of busybox is there.

        A process left running in the background keeps running; its output is lost.

        :param command: one or more lines, up to 4000 bytes.
        :param timeout: seconds, at least 1.
        :returns: what it printed, on both outputs.
        :raises OperationError: its exit status is not zero; the message has the status and what it printed.
        :raises TimeoutError: it took too long; the message has the end of the guest's log.
        """
        status, output = self._request(command, timeout)
        if status != 0:
            raise OperationError(
                f"'{command}' in guest {self.name} ended with status {status}: {output.strip()}"
            )
        return output

    def log(self) -> str:
        """Return what the guest has logged: its kernel's messages and its events, since the first start."""
        try:
            return self.console.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def events(self, kind: str | None = None) -> list[GuestEvent]:
        """Return the events that the guest has logged, oldest first.

        The field ``changes`` counts all changes of carrier so far: of changes that follow one another within
        milliseconds, the guest may log the last alone.

        :param kind: only those of this kind.
        """
        found = [
            GuestEvent(float(at), event, dict(field.split("=", 1) for field in rest.split() if "=" in field))
            for event, at, rest in _EVENT.findall(self.log().replace("\r", ""))
        ]
        return [event for event in found if kind in (None, event.kind)]

    def interfaces(self) -> dict[str, GuestNic]:
        """Return the NICs that the guest has now, by MAC address in lower case."""
        nics = {}
        for line in self.run(_LIST_NICS).splitlines():
            mac, name, index, carrier = line.split()
            nics[mac] = GuestNic(name, int(index), carrier == "1")
        return nics

    def nic(self, nic: str) -> GuestNic:
        """Find one of the guest's NICs.

        :param nic: its MAC address, or its name in the guest.
        :raises NotFoundError: the guest has no such NIC.
        """
        nics = self.interfaces()
        for mac, found in nics.items():
            if nic.lower() == mac or nic == found.name:
                return found
        there = ", ".join(f"{found.name} ({mac})" for mac, found in nics.items()) or "none"
        raise NotFoundError(f"guest {self.name} has no NIC '{nic}'", hint=f"it has: {there}")

    def carrier(self, nic: str) -> bool:
        """Tell whether a NIC has a carrier, as the guest sees it now.

        :param nic: its MAC address, or its name in the guest.
        :raises NotFoundError: the guest has no such NIC.
        """
        return self.nic(nic).carrier

    def wait_carrier(self, nic: str, up: bool, timeout: float = 10) -> None:
        """Wait until the guest sees a carrier, or none.

        :param nic: its MAC address, or its name in the guest.
        :param up: what to wait for.
        :param timeout: seconds.
        :raises NotFoundError: the guest has no such NIC.
        :raises TimeoutError: it did not come to it; the message has the end of the guest's log.
        """
        deadline = time.monotonic() + timeout
        while self.carrier(nic) != up:
            if time.monotonic() > deadline:
                raise self._late(f"saw {'no' if up else 'a'} carrier on {nic} for {timeout} s")
            time.sleep(_POLL)

    def set_address(self, nic: str, address: str) -> None:
        """Give a NIC an address, besides those that it has.

        :param nic: its MAC address, or its name in the guest.
        :param address: with the length of the prefix, as ``192.0.2.2/24``.
        :raises NotFoundError: the guest has no such NIC.
        :raises OperationError: the guest refused it.
        """
        self.run(f"ip addr add {address} dev {self.nic(nic).name}")

    def ping(self, address: str, *, count: int = 1, interval: float = 0.2, timeout: float = 2) -> Pings:
        """Ping from the guest.

        :param address: whom.
        :param count: how many times.
        :param interval: seconds between two of them.
        :param timeout: seconds to wait for the answers after the last one.
        :returns: how many were sent and answered; nobody answering is a result, not an error.
        :raises TimeoutError: the guest itself did not answer.
        """
        limit = max(1, round(count * interval + timeout))
        ping = f"ping -c {count} -i {interval} -W {max(1, round(timeout))} -w {limit} {address}"
        _, output = self._request(ping, limit + 5)
        counts = re.search(r"(\d+) packets transmitted, (\d+) packets received", output)
        sent, received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
        return Pings(sent, received, output)

    def remove(self) -> None:
        """Destroy and undefine the guest; its log stays."""
        remove_domain(self.dom)

    def _request(self, command: str, timeout: float) -> tuple[int, str]:
        try:
            return self._channel.request(command, timeout)
        except (TimeoutError, ConnectionError) as error:
            raise self._late(f"did not finish '{command}' within {timeout} s ({error})") from error

    def _late(self, what: str) -> TimeoutError:
        return TimeoutError(f"guest {self.name} {what}; the end of {self.console}:\n{tail(self.log())}")
