"""Plug and unplug on plane hub in process, against the bare monitor commands and calls that it issues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from figures import Figure, Goal
from timing import Variant, milliseconds, side_by_side, timed

from nicplug_xml import attach_backend, detach_backend, metadata, plan_attach, plan_detach
from nicplug_xml.backends import bridge, user
from nicplug_xml.host.tap import open_tap
from nicplug_xml.steps import Check, Monitor, OpenTap, Record, SendDescriptor, UpdateDevice

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.model import Backend
    from nicplug_xml.plan import Plan

_LIVE = 1  # VIR_DOMAIN_AFFECT_LIVE
_ELEMENT = 2  # VIR_DOMAIN_METADATA_ELEMENT
_LOOK = json.dumps({"execute": "human-monitor-command", "arguments": {"command-line": "info network"}})


def measure(dom: libvirt.virDomain, mac: str, place: str, rounds: int) -> list[Figure]:
    """Measure on an unplugged NIC of a running guest; it is unplugged again afterwards.

    :param dom: the guest, on embedded libvirt.
    :param mac: of the NIC, on plane hub.
    :param place: a bridge to plug it into.
    :param rounds: how many rounds count.
    """
    figures = []
    for name, backend in (("user", user.backend()), ("bridge", bridge.backend(place))):
        plug = _Bare(dom, plan_attach(dom, mac, backend, announce=False))
        attach_backend(dom, mac, backend, announce=False)
        plug.note()
        unplug = _Bare(dom, plan_detach(dom, mac))
        detach_backend(dom, mac)
        unplug.note()
        own, bare = side_by_side(rounds, _nicplug(dom, mac, backend), _round(plug, unplug))
        figures += [
            Figure(
                f"hub, {name}: {what}", milliseconds(own[what]), milliseconds(bare[what]),
                "the same calls", goal=Goal("≤", 1.3),
            )
            for what in ("attach", "detach")
        ]  # fmt: skip
    return figures


def _nicplug(dom: libvirt.virDomain, mac: str, backend: Backend) -> Variant:
    return _round(
        lambda: attach_backend(dom, mac, backend, announce=False),
        lambda: detach_backend(dom, mac),
    )


def _round(attach: Callable[[], object], detach: Callable[[], object]) -> Variant:
    return lambda: {"attach": timed(attach), "detach": timed(detach)}


class _Bare:
    """The calls of a plan, with all arguments known before; and before and after them what nicplug reads."""

    def __init__(self, dom: libvirt.virDomain, plan: Plan) -> None:
        self._dom = dom
        self._entries = ""
        self._descriptors: dict[str, int] = {}
        self._calls = [call for step in plan.steps for call in self._of(step)]

    def note(self) -> None:
        """Take what is recorded now for what is to be recorded."""
        self._entries = str(self._dom.metadata(_ELEMENT, metadata.URI, _LIVE))

    def __call__(self) -> None:
        self._read()
        for call in self._calls:
            call()
        self._read()

    def _of(self, step: object) -> list[Callable[[], object]]:
        if isinstance(step, OpenTap):
            return [lambda: self._open(step)]
        if isinstance(step, SendDescriptor):
            request = json.dumps({"execute": "getfd", "arguments": {"fdname": step.name}})
            return [lambda: self._send(request, step.name)]
        if isinstance(step, Monitor):
            request = json.dumps({"execute": step.command, "arguments": step.arguments})
            return [lambda: self._ask(request)]
        if isinstance(step, UpdateDevice):
            return [lambda: self._dom.updateDeviceFlags(step.xml, _LIVE)]
        if isinstance(step, Record):
            return [self._record]
        assert isinstance(step, Check), step
        return []

    def _open(self, step: OpenTap) -> None:
        (self._descriptors[step.names[0]],) = open_tap(step.bridge, step.mac, step.isolated)

    def _send(self, request: str, name: str) -> None:
        import libvirt_qemu

        descriptor = self._descriptors.pop(name)
        libvirt_qemu.qemuMonitorCommandWithFiles(self._dom, request, [descriptor], 0)
        os.close(descriptor)

    def _ask(self, request: str) -> None:
        import libvirt_qemu

        reply = json.loads(libvirt_qemu.qemuMonitorCommand(self._dom, request, 0))
        if "error" in reply:
            raise RuntimeError(f"QEMU refuses {request}: {reply['error']}")

    def _record(self) -> None:
        self._dom.metadata(_ELEMENT, metadata.URI, _LIVE)
        self._dom.setMetadata(_ELEMENT, self._entries, metadata.PREFIX, metadata.URI, _LIVE)

    def _read(self) -> None:
        self._dom.isActive()
        self._dom.XMLDesc()
        self._ask(_LOOK)
