"""What the kernel joins: macvlans, and redirects between two devices of this host.

The authority is rtnetlink(7) and the kernel's drivers/net/macvlan.c.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import TYPE_CHECKING

from nicplug_xml import joints
from nicplug_xml.backends.bridge import HINT
from nicplug_xml.errors import NotFoundError, OperationError, UnsupportedError
from nicplug_xml.host import sysfs
from nicplug_xml.host.locking import locked
from nicplug_xml.host.netlink import index_of
from nicplug_xml.joints import Joint
from nicplug_xml.planes import tap

if TYPE_CHECKING:
    from nicplug_xml.endpoints import OvsPort
    from nicplug_xml.host.rtnetlink import Rtnetlink

#: What the kernel says where something is in the way of a macvlan or macvtap, without saying what.
IN_THE_WAY = (errno.EINVAL, errno.EBUSY, errno.EADDRINUSE)

#: Flags that a device gets for a NIC, and loses with it, by what its joint says.
_CHANGES = {"down": sysfs.IFF_UP, "promisc": sysfs.IFF_PROMISC}


class Kernel:
    """The kernel of this host, by one netlink session that opens when it is first needed."""

    _session: Rtnetlink | None = None

    def require_here(self, device: str, mac: str) -> None:
        """Check that a NIC's host device is one of this host's.

        :raises UnsupportedError: it is not.
        """
        if not is_host_device(device, mac):
            raise UnsupportedError(
                f"{device or 'the NIC'} is no device of this host, and this takes the kernel of its host",
                hint="run nicplug there; a bridge or network, which libvirt itself joins, works from here",
            )

    def require_device(self, name: str, mtu: int) -> None:
        """Check that there is a network device, and that it passes Ethernet frames of an MTU.

        :raises NotFoundError: there is none of that name.
        :raises UnsupportedError: its MTU is smaller, or its frames are no Ethernet's.
        """
        index_of(name)
        if not sysfs.is_ethernet(name):
            # The kernel redirects them all the same, without the headers that the other end needs.
            raise UnsupportedError(
                f"device '{name}' passes no Ethernet frames, as a loopback or a tunnel of packets does not",
                hint="name one that does: 'ip link' shows it with 'link/ether'",
            )
        if (its := sysfs.mtu(name)) < mtu:
            raise UnsupportedError(
                f"device '{name}' has an MTU of {its}, and the NIC one of {mtu}",
                hint=f"'ip link set {name} mtu {mtu}', or a smaller <mtu> for the NIC",
            )

    def set_mtu(self, device: str, mac: str, mtu: int) -> None:
        """Set the MTU of a NIC's host device, if it is one of this host's.

        :raises OperationError: the kernel refuses.
        """
        if is_host_device(device, mac):
            self._netlink.set_mtu(index_of(device), mtu)

    def add_macvlan(self, name: str, lower: str, mode: str, mac: str, mtu: int) -> None:
        """Make a macvlan that is down, and of which the host's own stack sees nothing.

        It passes on the guest's own address and what is for all; of groups all, for the guest may be in any.
        The device below is put up where it is down.

        :param mtu: its MTU; 0 for that of the device below.
        :raises NotFoundError: there is no device of that name to be below.
        :raises UnsupportedError: another NIC is joined to that, and gets all of its frames.
        :raises OperationError: the kernel refuses.
        """
        from nicplug_xml.host.rtnetlink import RefusedError

        self.require_device(lower, mtu)
        below = index_of(lower)
        self.require_frames(lower, name)
        if index := sysfs.index(name):
            # Names are given in turn: this one was left by somebody who was killed in between, or is a port's
            # that Open vSwitch is about to let go of.
            self._netlink.delete(index)
        # In mode passthru it has the address of the device below.
        addresses = mac, sysfs.address(lower)
        for left in filter(joints.is_named_as_ours, sysfs.uppers(lower)):
            # In the way as well: of a guest that ended while nobody was there to clear away.
            index = sysfs.index(left)
            if index and sysfs.address(left) in addresses and not self._holder(index)[0]:
                self._netlink.delete(index)
        try:
            self._netlink.add_macvlan(name, below, mode, mac, mtu)
        except RefusedError as error:
            if error.code not in IN_THE_WAY:
                raise
            raise OperationError(error.what, hint=in_the_way(lower)) from error
        try:
            silence(name)
            if not sysfs.is_up(lower):
                # libvirt does so as well, and leaves it up.
                self._netlink.set_flags(below, sysfs.IFF_UP, sysfs.IFF_UP)
            if mode == "passthru":
                # The device below has it as well, until the macvlan goes; what can't is promiscuous at least.
                with suppress(RefusedError):
                    self._netlink.set_address(index_of(name), mac)
        except OperationError:
            self._netlink.delete(index_of(name))
            raise

    def require_frames(self, device: str, name: str = "") -> None:
        """Check that a macvlan or macvtap on a device would get any frames: no NIC is joined to the device.

        :param name: the macvlan's; that of a NIC takes the place of the NIC's own joint.
        :raises UnsupportedError: a NIC is, and gets all of them.
        """
        holder, _ = self._holder(sysfs.index(device))
        if holder and not joints.is_helper(name, holder):
            raise _held(device, holder)

    def make_port(self, name: str, port: OvsPort, mac: str, mtu: int, domain: str) -> None:
        """Make an internal port of Open vSwitch, of which the host's own stack sees nothing.

        :param mtu: its MTU; 0 for that of the bridge.
        :param domain: UUID of the domain that it is for.
        :raises NicplugError: it cannot be made; then there is none.
        """
        from nicplug_xml.host.ovsdb import add_port, delete_port, ports_of

        for left in filter(joints.is_named_as_ours, ports_of(mac, domain)):
            # Of a guest that ended while nobody was there to clear away: else there are two of one id.
            if left != name and not self._holder(sysfs.index(left))[0]:
                delete_port(left)
        add_port(name, port, mac=mac, domain=domain, mtu=mtu or None)
        try:
            silence(name)
        except OperationError:
            delete_port(name)
            raise

    def join(self, device: str, joint: Joint) -> None:
        """Redirect all frames of a NIC's host device and of a joint's to each other; or make it a port.

        Of a cable, this is the one end: its frames go to the other.

        :raises UnsupportedError: another NIC is joined to one of the devices.
        :raises OperationError: the kernel refuses; then all is as before.
        """
        nic = index_of(device)
        holder, how = self._holder(nic)
        if how is not None and how.kind == "device":
            # Out of the parking place, a container's device is one like any other.
            raise _held(device, holder)
        if joint.kind == "bridge":
            self._join_bridge(device, joint)
            return
        other = index_of(joint.device)
        joint, before = self.owned(joint)._replace(ifindex=other), sysfs.alias(device)
        # Of somebody else's device, the NICs of several domains may be plugged in and out at once.
        with _locked(other) if joint.kind == "device" else nullcontext():
            joint = self._redirect(device, joint, before)
        self._leave(before, joint)

    def _redirect(self, device: str, joint: Joint, before: str) -> Joint:
        """Redirect the frames of a NIC's host device and of a joint's; return the joint as it is noted.

        :param before: the alias of the NIC's host device.
        """
        netlink, nic, other = self._netlink, index_of(device), joint.ifindex
        former = joints.parse(before)
        again = former is not None and (former.kind, former.ifindex) == ("device", other)
        if joint.kind == "port":
            from nicplug_xml.host.ovsdb import socket_directory

            # Who lets go of it may have another environment, and so may who comes back to it.
            joint = joint._replace(mode=joint.mode or socket_directory())
        flags, anew = sysfs.IFF_UP, False
        if joint.kind == "device":
            anew = not netlink.redirected(other)
            self._require_free(joint, device)
            # Sysfs would also tell of what others have done that may go at any time, a macvlan on it say.
            its = netlink.flags(other)
            # The guest's MAC is not the device's.
            flags |= sysfs.IFF_PROMISC
            joint = joint.with_changes(word for word, flag in _CHANGES.items() if not its & flag)
            if former is not None and again:
                # What is so already was made so for this, or was not.
                joint = joint.with_changes(former.changes)
        try:
            netlink.set_alias(nic, str(joint))
            # The other end of a cable is joined by a step of its own.
            if joint.kind != "cable":
                if self._redirect_back(joint, device, anew):
                    # It was put into that mode for who has left it so.
                    joint = joint.with_changes(("promisc",))
                    netlink.set_alias(nic, str(joint))
                netlink.set_flags(other, flags, flags)
            netlink.redirect(nic, other)
        except BaseException:
            with suppress(Exception):
                netlink.set_alias(nic, before)
                if not again:
                    self.release(joint)
            raise
        return joint

    def rejoin(self, device: str, joint: Joint) -> None:
        """Join a NIC's host device to what it was joined to before; if it has gone, let go of that.

        Its alias, by which others would have cleared that away, told of something else when it went.

        :raises NicplugError: as `join` and `release`.
        """
        if sysfs.exists(device):
            self.join(device, joint)
        else:
            self.release(joint)

    def owned(self, joint: Joint) -> Joint:
        """Return a joint with what is noted of the NIC's own domain; nothing where that is not known."""
        return joint

    def part(self, device: str, joint: Joint) -> None:
        """End what `join` has made; a device of ours stays, for what is joined to it next.

        :raises OperationError: the kernel refuses.
        """
        if joint.kind == "bridge":
            if sysfs.master(device) == joint.device:
                self._netlink.set_master(index_of(device), 0)
            if joints.parse_port(sysfs.alias(device)):
                self._netlink.set_alias(index_of(device), "")
            return
        nic = sysfs.index(device)
        if nic:
            joint = joint_of(device) or joint
            self._netlink.stop_redirect(nic)
        if not joint.is_ours:
            self.release(joint, device)
        # Last: until then, whoever is killed leaves word of what there is to clear away.
        if nic and joints.parse(sysfs.alias(device)):
            self._netlink.set_alias(nic, "")

    def release(self, joint: Joint, leaving: str = "") -> None:
        """Let go of a joint's device: one of ours is deleted, and to another one nothing is redirected.

        One that another NIC is joined to by now stays as that needs it.

        :param leaving: the host device of the NIC that leaves it, where its alias still tells of that.
        :raises OperationError: the kernel or Open vSwitch refuses.
        """
        if joint.kind == "port":
            from nicplug_xml.host.ovsdb import delete_port

            delete_port(joint.device, joint.mode)
            return
        index = 0 if joint.kind == "cable" else sysfs.index(joint.device)
        if joint.ifindex and index != joint.ifindex:
            # What was made anew by that name is another's; what was renamed has the index that it had.
            index = joint.ifindex if joint.kind == "device" and name_of(joint.ifindex) else 0
        if not index:
            return
        if joint.is_ours:
            self._netlink.delete(index)
            return
        with _locked(index):
            holder, its = self._holder(index)
            if its is not None and holder != leaving:
                self._hand_over(holder, its, joint.changes)
                return
            self._netlink.stop_redirect(index)
            # What is on it by now, a macvlan of the NIC's next place say, needs it up.
            kept = {"down"} if sysfs.uppers(name_of(index)) else set()
            if change := sum(_CHANGES[word] for word in joint.changes - kept):
                self._netlink.set_flags(index, 0, change)

    def set_carrier(self, device: str, up: bool) -> None:
        """Set a container's host device up or down, which is a carrier at the container's end, or none.

        :raises OperationError: the kernel refuses.
        """
        if up:
            # Each time, the host's IPv6 would ask the container for routers.
            silence(device)
        self._netlink.set_flags(index_of(device), sysfs.IFF_UP if up else 0, sysfs.IFF_UP)

    def put_into_bridge(self, device: str, bridge: str, isolated: bool) -> None:
        """Make a device a port of a bridge, as libvirt would."""
        port = index_of(device)
        self._netlink.set_master(port, index_of(bridge))
        self._netlink.isolate(port, isolated)

    def _join_bridge(self, device: str, joint: Joint) -> None:
        if not sysfs.is_bridge(joint.device):
            raise NotFoundError(f"there is no bridge '{joint.device}'", hint=HINT)
        silence(device)
        netlink, nic = self._netlink, index_of(device)
        before, alias, isolated = sysfs.master(device), sysfs.alias(device), sysfs.is_isolated(device)
        address = sysfs.address(device)
        try:
            if address < "fa":
                # A bridge that nobody gave an address takes the lowest of its ports', and would take this
                # one's, and lose it again. Those of libvirt's taps begin with "fe", or "fa".
                netlink.set_address(nic, "fe" + address[2:])
            netlink.set_master(nic, index_of(joint.device))
            netlink.set_alias(nic, str(joint))
            netlink.isolate(nic, joint.place == "isolated")
            if joints.parse(alias):
                netlink.stop_redirect(nic)
        except BaseException:
            with suppress(Exception):
                netlink.set_master(nic, index_of(before) if before else 0)
                netlink.set_alias(nic, alias)
                if before:
                    netlink.isolate(nic, isolated)
            raise
        self._leave(alias, joint)

    def _require_free(self, joint: Joint, device: str) -> None:
        """Check that a joint's device is no NIC's, and that no NIC but that of `device` is joined to it."""
        if joint.device == device:
            raise UnsupportedError(f"device '{device}' is the NIC's own", hint="name another one")
        holder, its = self._holder(joint.ifindex)
        if its is not None and (holder, its.kind) != (device, "device"):
            raise _held(joint.device, holder)
        uppers = sysfs.uppers(joint.device)
        for upper in uppers:
            above, _ = self._holder(sysfs.index(upper))
            if above not in ("", device):
                raise _held(joint.device, above)
            if sysfs.is_macvtap(upper):
                raise _shared(joint.device, f"is below {upper}")
        # Those of planes hub and swap are to be seen by what they need of the device, in mode passthrough by
        # nothing: whoever looks on needs the same.
        groups = sysfs.IFF_ALLMULTI
        passes = sysfs.flags(joint.device) & groups
        if passes and not (holder or uppers or self._netlink.flags(joint.ifindex) & groups):
            raise _shared(joint.device, "passes all groups, as for a macvtap of plane hub or swap")
        if not holder and (bridge := sysfs.master(joint.device)):
            raise UnsupportedError(
                f"device '{joint.device}' is a port of {bridge}, which would get none of its frames",
                hint=_instead_of_port(bridge),
            )

    def _redirect_back(self, joint: Joint, device: str, anew: bool) -> bool:
        """Redirect the frames of a joint's device to a NIC's; with `anew` only if they go nowhere yet.

        :returns: whether they went to a NIC that has gone, and nobody had cleared that away.
        """
        netlink, other, nic = self._netlink, joint.ifindex, index_of(device)
        try:
            netlink.redirect(other, nic, anew=anew)
        except OperationError:
            if not anew:
                raise
            # Another NIC may have come first since we looked. It has said so before it came.
            self._require_free(joint, device)
            netlink.stop_redirect(other)
            netlink.redirect(other, nic, anew=True)
            return True
        return False

    def _holder(self, index: int) -> tuple[str, Joint | None]:
        """Return the host device of the NIC that a device is joined to, and how, as both say; or nothing.

        The device itself tells whom to ask: to ask all that there are would take longer the more there are.
        """
        name = name_of(self._netlink.redirected(index))
        joint = joints.parse(sysfs.alias(name)) if name else None
        return (name, joint) if joint is not None and joint.ifindex == index else ("", None)

    def _hand_over(self, holder: str, joint: Joint, changes: Collection[str]) -> None:
        """Note how the device which a NIC is joined to was changed for another one, for who parts it."""
        if joint.kind == "device" and changes:
            self._netlink.set_alias(index_of(holder), str(joint.with_changes(changes)))

    def _leave(self, alias: str, joint: Joint) -> None:
        """Let go of a device that is not ours, as soon as the NIC is joined to another one.

        :param alias: the alias that the NIC's device had: only there it stands how the other one was found.
        """
        before = joints.parse(alias)
        if before is not None and before.kind == "device" and before.device != joint.device:
            self.release(before)

    def close(self) -> None:
        """End the netlink session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    @property
    def _netlink(self) -> Rtnetlink:
        if self._session is None:
            from nicplug_xml.host.rtnetlink import Rtnetlink

            self._session = Rtnetlink()
        return self._session


def _locked(index: int) -> AbstractContextManager[None]:
    """Keep everybody else from joining a NIC to a device, and from parting one from it."""
    return locked(f"device-{index}")


def _held(device: str, holder: str) -> UnsupportedError:
    return UnsupportedError(
        f"device '{device}' is joined to {holder}, the device of another NIC",
        hint=f"unplug that NIC first: 'nicplug list' says which domain has {holder}",
    )


def _shared(device: str, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"device '{device}' {why}, which would get none of its frames",
        hint=f"unplug that NIC first: 'nicplug list' and 'virsh domiflist' show who is on {device}",
    )


def _instead_of_port(bridge: str) -> str:
    """Say what to plug a NIC into instead of a port of a bridge."""
    if bridge in tap.PARKING_PLACES:
        return "it is the device of another NIC: use a cable to that"
    return f"plug the NIC into {bridge}, or use a cable if the device is another NIC's"


def in_the_way(device: str) -> str:
    """Say what may be in the way of a macvlan or macvtap on a device."""
    if bridge := sysfs.master(device):
        return f"{device} is a port of {bridge}: {_instead_of_port(bridge)}"
    return f"in mode passthrough {device} is one NIC's alone, and in the others each MAC is there once"


def joint_of(device: str) -> Joint | None:
    """Return what a host device is joined to, or None: what its alias says.

    The redirect itself is asked as well: somebody may have renamed the other device, or taken it to another
    network namespace, may have given this one another alias, or have ended the redirect.
    """
    alias = sysfs.alias(device)
    joint = joints.parse(alias)
    if joint is None and (not alias or joints.parse_port(alias)):
        return None
    from nicplug_xml.host.rtnetlink import Rtnetlink

    with closing(Rtnetlink()) as netlink:
        index = netlink.redirected(nic) if (nic := sysfs.index(device)) else 0
        is_cut = joint is not None and joint.kind == "cable" and netlink.redirected(index) != nic
    if joint is not None and is_cut:
        return joint._replace(gone=True)  # its other end has left it, or was never plugged in
    if joint is not None and index and sysfs.index(joint.device) == joint.ifindex:
        return joint  # of two redirects in turn, the alias tells of the later one
    name = name_of(index)
    if joint is None:
        return Joint(_kind_of(name, device), name, ifindex=index) if name else None
    if not name or index != joint.ifindex:
        # A device that was made anew has another index, and no redirect leads to it or from it.
        return joint._replace(gone=True)
    # Open vSwitch goes on knowing its port by the name that it was made by.
    return joint if joint.kind == "port" else joint._replace(device=name)


def _kind_of(name: str, device: str) -> str:
    """Return the kind of the joint of a NIC's device to that one, where nothing but the redirect tells."""
    if joints.is_helper(name, device):
        index, below = sysfs.indexes(name)
        return "port" if index == below else "macvlan"
    back = joints.parse(sysfs.alias(name))
    return "cable" if back is not None and (back.kind, back.device) == ("cable", device) else "device"


def port_of(device: str) -> Joint | None:
    """Return which bridge a container's host device is plugged into, or None: a parking place is none."""
    bridge = sysfs.master(device)
    if not sysfs.is_bridge(bridge) or bridge in (tap.NETWORK_BRIDGE, tap.PARKING_BRIDGE):
        return None
    return Joint("bridge", bridge, "isolated" if sysfs.is_isolated(device) else "")


def name_of(index: int) -> str:
    """Return the name of the network device that has that index, or an empty string."""
    from socket import if_indextoname

    try:
        return if_indextoname(index)
    except OSError as error:
        sysfs.require_descriptors(error)
        return ""


def is_host_device(device: str, mac: str) -> bool:
    """Whether `device` is here, and is what a guest's or a container's NIC with that MAC has on its host.

    A device of the same name on another host or in another namespace than libvirt's is not taken for it.
    """
    if sysfs.is_tap_of(device, mac):
        return True
    if not sysfs.exists(device):
        return False
    from nicplug_xml.host import peer

    return peer.address(device) == mac


def silence(device: str) -> None:
    """Keep the host's own stack from saying anything on a device of ours: no address of its own, no IPv6.

    :raises OperationError: it cannot be kept.
    """
    path = f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6"
    try:
        with open(path, "w") as file:
            file.write("1")
    except FileNotFoundError:  # the host has no IPv6
        return
    except OSError as error:
        raise OperationError(
            f"the host's IPv6 cannot be kept off {device}: {path}: {error.strerror}",
            hint="in a container, /proc/sys/net has to be writable",
        ) from error
