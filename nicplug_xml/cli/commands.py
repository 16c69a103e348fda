"""The commands: each calls the API once and prints what it returns."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nicplug_xml import operations
from nicplug_xml.backends import bridge, cable, direct, netdev, network, ovs, user
from nicplug_xml.cli import output
from nicplug_xml.cli.colours import wanted
from nicplug_xml.document import check, decode
from nicplug_xml.errors import NicplugError, UsageError
from nicplug_xml.host.connection import find_domain, open_connection, silence_libvirt
from nicplug_xml.host.errors import translated
from nicplug_xml.model import Backend, InterfaceStatus
from nicplug_xml.planes import PLANES

if TYPE_CHECKING:
    import argparse

    import libvirt

    from nicplug_xml.plan import Plan

#: Names that the schema allows for whatever can be named.
_PLAIN = re.compile("[A-Za-z0-9_.-]+")


def _validate(options: argparse.Namespace) -> int:
    from nicplug_xml.cli import validating

    _require_plane(options.plane)
    return validating.run(options)


def _rewrite(options: argparse.Namespace) -> int:
    from nicplug_xml.rewrite import to_stock

    _require_plane(options.plane)
    return _translate(options, lambda xml: to_stock(xml, plane=options.plane, parking=options.parking))


def _restore(options: argparse.Namespace) -> int:
    from nicplug_xml.rewrite import to_extended

    return _translate(options, to_extended)


def _define(options: argparse.Namespace) -> int:
    return _make(options, operations.define, "defined")


def _create(options: argparse.Namespace) -> int:
    return _make(options, operations.create, "started")


def _dumpxml(options: argparse.Namespace) -> int:
    dom = find_domain(_connect(options), options.domain)
    xml = operations.xml_desc(dom, 2 * options.inactive | 1 * options.security_info)
    if options.json:
        print(json.dumps({"domain": dom.name(), "xml": xml}))
    else:
        print(xml, end="" if xml.endswith("\n") else "\n")
    return 0


def _edit(options: argparse.Namespace) -> int:
    from nicplug_xml.cli.editor import Terminal, definition, live_interface
    from nicplug_xml.editing import edit

    conn = _connect(options)
    dom = find_domain(conn, options.domain)
    subject = definition(dom, conn) if options.live is None else live_interface(dom, options.live)
    said = edit(subject, Terminal(dom.name()))
    print(json.dumps({"domain": dom.name(), "result": said}) if options.json else said)
    return 0


def _list(options: argparse.Namespace) -> int:
    found = sorted(_interfaces(options), key=lambda one: str(one[0].name()))
    statuses = [status for _, nics in found for status in nics]
    if options.json:
        print(json.dumps([output.status_json(status) for status in statuses], indent=2))
    else:
        print(output.status_table(statuses, coloured=wanted(sys.stdout)))
    return 0


def _watch(options: argparse.Namespace) -> int:
    from nicplug_xml.cli import changes
    from nicplug_xml.watching import watch

    silence_libvirt()
    told = watch(
        options.connect,
        domains=options.domains,
        reconnect=not options.no_reconnect,
        readonly=options.readonly,
    )
    coloured = wanted(sys.stdout)
    try:
        for change in told:
            line = changes.line(change, coloured=coloured)
            print(json.dumps(changes.as_json(change)) if options.json else line, flush=True)
    except KeyboardInterrupt:
        pass  # that is how one ends it
    return 0


def _graph(options: argparse.Namespace) -> int:
    from nicplug_xml.cli.graph import picture, renderer, write

    render = renderer(options)
    write(render(picture(_interfaces(options), inactive=options.inactive)), options.output)
    return 0


def _completion(options: argparse.Namespace) -> int:
    from nicplug_xml.cli.shells import script

    text = script(options.shell)
    print(json.dumps({"shell": options.shell, "script": text}) if options.json else text.rstrip("\n"))
    return 0


def _attach(options: argparse.Namespace) -> int:
    plan = partial(
        operations.plan_attach,
        interface=options.interface,
        backend=_backend(options),
        announce=not options.no_announce,
        fds=options.fd,
        link=options.link,
    )
    return _carry_out(options, plan)


def _detach(options: argparse.Namespace) -> int:
    return _carry_out(options, partial(operations.plan_detach, interface=options.interface))


def _set_link(options: argparse.Namespace) -> int:
    up = options.state == "up"
    return _carry_out(options, partial(operations.plan_set_link, interface=options.interface, up=up))


def _update(options: argparse.Namespace) -> int:
    xml, announce = _read(options.file)[0], not options.no_announce
    return _carry_out(options, partial(operations.plan_update, xml=xml, announce=announce))


def _demo(options: argparse.Namespace) -> int:
    from nicplug_xml.demo import demo

    return demo(as_json=options.json)


#: What carries out each command that `nicplug_xml.cli.arguments` knows.
COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "validate": _validate,
    "rewrite": _rewrite,
    "restore": _restore,
    "define": _define,
    "create": _create,
    "edit": _edit,
    "dumpxml": _dumpxml,
    "list": _list,
    "watch": _watch,
    "graph": _graph,
    "attach-backend": _attach,
    "detach-backend": _detach,
    "set-link": _set_link,
    "update-device": _update,
    "completion": _completion,
    "demo": _demo,
}


def _connect(options: argparse.Namespace) -> libvirt.virConnect:
    silence_libvirt()
    return open_connection(options.connect, readonly=getattr(options, "readonly", False))


def _interfaces(options: argparse.Namespace) -> list[tuple[libvirt.virDomain, list[InterfaceStatus]]]:
    """Return the domains that are named, or all, each with what is true of its interfaces."""
    conn = _connect(options)
    with translated():
        # Of all, those that have a definition: VIR_CONNECT_LIST_DOMAINS_PERSISTENT.
        domains = [find_domain(conn, name) for name in options.domains] or conn.listAllDomains(
            4 * options.inactive
        )
    found = []
    for dom in domains:
        try:
            found.append((dom, operations.interfaces(dom, inactive=options.inactive)))
        except NicplugError as error:
            with translated():
                if options.domains or not conn.isAlive():
                    raise
            warnings.warn(f"a domain is left out: {error}", stacklevel=2)  # it may have ended just now
    return found


def _flags(dom: libvirt.virDomain, options: argparse.Namespace) -> int:
    """Return VIR_DOMAIN_AFFECT_* of the flags, with virsh's meaning of --persistent and --current."""
    if options.current and (options.live or options.config or options.persistent):
        raise UsageError("--current excludes --live, --config and --persistent", hint="leave one out")
    flags = 1 * options.live | 2 * (options.config or options.persistent)
    with translated():
        return int(flags | bool(options.persistent and dom.isActive()))


def _require_plane(plane: str | None) -> None:
    if plane not in (None, "auto", *PLANES):
        raise UsageError(f"there is no plane '{plane}'", hint=f"use auto or {', '.join(PLANES)}")


def _backend(options: argparse.Namespace) -> Backend | str | None:
    makers: dict[str, Callable[[str], Backend]] = {
        "bridge": bridge.backend,
        "network": network.backend,
        "ovs": lambda name: ovs.backend(name, options.interfaceid),
        "direct": lambda device: direct.backend(device, options.mode or "bridge"),
        "cable": _cable,
        "netdev": netdev.backend,
    }
    if options.mode and options.direct is None:
        raise UsageError("--mode says nothing without --direct", hint="add --direct DEV")
    if options.interfaceid is not None and not (options.ovs and options.interfaceid):
        raise UsageError("--interfaceid takes a UUID, and --ovs", hint="add --ovs BRIDGE")
    for name in (*makers, "user", "fd") if options.file is not None else ():
        if getattr(options, name) not in (None, False, []):
            raise UsageError(f"FILE is not allowed with --{name}", hint="name one backend")
    backend: Backend | None = user.backend() if options.user else None
    for name, make in makers.items():
        value = getattr(options, name)
        if value == "":
            raise UsageError(f"--{name} names nothing", hint="is a variable of your shell's empty?")
        if value is not None:
            backend = make(value)
    document = None if options.file is None else _read(options.file)[0]
    if options.vlan:
        if document is not None:
            backend = Backend.of(document)
        if backend is None:
            raise UsageError("--vlan needs a backend", hint="name it: --bridge, --network or FILE")
        backend = backend.with_vlan(options.vlan)
    if backend is None:
        return document
    plain = all(map(_PLAIN.fullmatch, backend.source.values()))
    # A document is held against the schema, which takes as long to load as all else; plain names need not be.
    return backend if plain and not (options.vlan or options.interfaceid) else backend.to_xml()


def _cable(end: str) -> Backend:
    # A domain's name may have slashes, an interface's has none.
    domain, slash, interface = end.rpartition("/")
    if not (domain and slash and interface):
        raise UsageError("--cable takes both ends of the way", hint="say DOMAIN/INTERFACE, as in vm2/ua-nic0")
    return cable.backend(domain, interface)


def _carry_out(options: argparse.Namespace, operation: Callable[..., Plan]) -> int:
    dom = find_domain(_connect(options), options.domain)
    make = partial(operation, dom, flags=_flags(dom, options))
    if options.dry_run:
        plan = make()
        steps = {"summary": plan.summary, "steps": [step.describe() for step in plan.steps]}
        print(json.dumps(steps, indent=2) if options.json else plan)
        return 0
    status = operations.plan_and_carry_out(dom, make)
    print(json.dumps(output.status_json(status), indent=2) if options.json else output.sentence(status))
    return 0


def _make(options: argparse.Namespace, make: Callable[..., libvirt.virDomain], verb: str) -> int:
    _require_plane(options.plane)
    text = _read(options.file)[0]
    dom = make(_connect(options), text, plane=options.plane, check=not options.skip_validate)
    if options.json:
        print(json.dumps({"domain": dom.name(), "uuid": dom.UUIDString()}))
    else:
        print(f"Domain '{dom.name()}' {verb} from {options.file}")
    return 0


def _translate(options: argparse.Namespace, translation: Callable[[str], str]) -> int:
    text, encoding = _read(options.file)
    if options.json:
        print(json.dumps({"xml": translation(text)}))
    else:
        sys.stdout.buffer.write(translation(text).encode(encoding, "xmlcharrefreplace"))
    return 0


def _bytes(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    with open(name, "rb") as file:
        return file.read()


def _read(name: str) -> tuple[str, str]:
    """Return a document's text and its encoding; what is wrong with it is told with its name."""
    try:
        text, encoding = decode(_bytes(name))
        check(text)
        return text, encoding
    except NicplugError as error:
        raise type(error)(f"{name}: {error.what}", hint=error.hint) from error
