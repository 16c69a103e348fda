"""What no grammar says: MACs, cables, names and planes, in one document and across several."""

from __future__ import annotations

import re
import time

import pytest

from nicplug_xml.checks import check
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.model import Problem
from nicplug_xml.rewrite import to_stock
from nicplug_xml.schema import validate

A, B, C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"


def domain(name: str, *interfaces: str, attributes: str = "type='kvm'", uuid: str = "") -> bytes:
    devices = "\n".join(interfaces)
    return (
        f"<domain {attributes}><name>{name}</name>{uuid and f'<uuid>{uuid}</uuid>'}<memory>1</memory>"
        f"<os><type>hvm</type></os><devices>\n{devices}\n</devices></domain>"
    ).encode()


def nic(mac: str = A, children: str = "", attributes: str = "connection='deferred'") -> str:
    return f"<interface {attributes}><mac address='{mac}'/>{children}</interface>"


def cable(mac: str, to: str, end: str, more: str = "") -> str:
    return nic(mac, f"<source domain='{to}' interface='{end}'/>{more}", "type='cable' connection='deferred'")


def found(*documents: bytes, plane: str | None = None) -> list[tuple[str, Problem]]:
    named = [(f"{number}.xml", document) for number, document in enumerate(documents, 1)]
    for _, document in named:
        assert validate(document) == [], "what is tested here is no matter of the grammar"
    return check(named, plane)


def codes(*documents: bytes, plane: str | None = None) -> list[tuple[str, str, int]]:
    return [(file, problem.code, problem.line) for file, problem in found(*documents, plane=plane)]


def test_nothing_is_wrong() -> None:
    assert codes(domain("a", nic(A), nic(B)), domain("b", nic(C))) == []


def test_same_mac_in_one_domain() -> None:
    (file, problem), *more = found(domain("a", nic(A), nic(B), nic(A.upper())))
    assert not more
    assert (file, problem.line, problem.code) == ("1.xml", 4, "duplicate-mac")
    assert problem.path == "/domain/devices/interface[3]/mac/@address"
    assert problem.message == f"MAC {A} is also that of a (line 2)"
    assert problem.column == nic(A).index("address=") + 1


def test_a_domain_whose_name_is_empty_has_none() -> None:
    """That is for the grammar to tell; no NIC is that of nobody."""
    assert check([("1.xml", domain("", nic(A))), ("2.xml", domain("b", nic(A)))]) == []


def test_same_mac_in_two_domains() -> None:
    ((file, problem),) = found(domain("a", nic(A)), domain("b", nic(A)))
    assert (file, problem.message) == ("2.xml", f"MAC {A} is also that of a (1.xml:2)")


def test_same_mac_where_it_is_meant() -> None:
    assert codes(domain("a", nic(A)), domain("a", nic(A))) == []  # two states of one domain
    team = "<alias name='ua-t'/><teaming type='persistent'/>"
    other = "<source network='n'/><teaming type='transient' persistent='ua-t'/>"
    assert codes(domain("a", nic(A, team), nic(A, other, "type='network'"))) == []
    assert (
        codes(domain("a", "<interface connection='deferred'/>", "<interface connection='deferred'/>")) == []
    )


def test_same_mac_beside_one_where_it_is_meant() -> None:
    team = nic(A, "<teaming type='persistent'/>")
    assert codes(domain("a", team, nic(A))) == [("1.xml", "duplicate-mac", 3)]
    assert codes(domain("a", nic(A), team)) == [("1.xml", "duplicate-mac", 3)]
    assert codes(domain("a", team), domain("b", team)) == [("2.xml", "duplicate-mac", 2)]
    # The third is another state of the first's domain, and not of the second's.
    problems = found(domain("a", nic(A)), domain("b", nic(A)), domain("a", nic(A)))
    assert [(file, problem.message.rpartition(" of ")[2]) for file, problem in problems] == [
        ("2.xml", "a (1.xml:2)"),
        ("3.xml", "b (2.xml:2)"),
    ]


def test_cable_that_comes_back() -> None:
    alias = "<alias name='ua-x'/>"
    assert codes(domain("a", cable(A, "b", B)), domain("b", cable(B, "a", A))) == []
    assert codes(domain("a", cable(A, "b", "ua-x")), domain("b", cable(B, "a", A, alias))) == []
    assert codes(domain("a", cable(A, "a", B), cable(B, "a", A.upper()))) == []


def test_many_cables_take_little_time() -> None:
    def mac(number: int, port: int) -> str:
        return f"52:54:00:{port:02x}:{number >> 8:02x}:{number & 255:02x}"

    count = 3000
    ring = [
        domain(
            f"vm{number}",
            cable(mac(number, 0), f"vm{(number + 1) % count}", mac((number + 1) % count, 1)),
            cable(mac(number, 1), f"vm{(number - 1) % count}", mac((number - 1) % count, 0)),
        )
        for number in range(count)
    ]
    before = time.process_time()
    assert check([(f"{number}.xml", document) for number, document in enumerate(ring)]) == []
    assert time.process_time() - before < 2, "each cable is held against each NIC"


def test_cable_to_a_uuid() -> None:
    """As where a cable is plugged in: there is no domain of that name."""
    uuid = "6f9d8a3e-7b5c-4d2e-8f10-112233445566"
    ((file, problem),) = found(domain("a", cable(A, uuid, B)), domain("b", cable(B, "a", A), uuid=uuid))
    assert (file, problem.code) == ("1.xml", "cable-end")
    assert problem.path == "/domain/devices/interface/source/@domain"
    assert problem.message == f"a cable leads to a domain by its name, and {uuid} is a UUID"
    assert problem.hint == "say domain='b'"


@pytest.mark.parametrize("written", ["a&amp;b", "a<!-- router -->&#38;b", "<![CDATA[a&b]]>"])
def test_cable_between_domains_of_odd_names(written: str) -> None:
    assert codes(domain(written, cable(A, "b", B)), domain("b", cable(B, "a&amp;b", A))) == []
    ((_, problem),) = found(domain(written, cable(A, "b", B)), domain("b", nic(C)))
    assert problem.hint == f"have the other end say <source domain='a&amp;b' interface='{A}'/>"


def test_cable_to_a_domain_that_is_not_given() -> None:
    assert codes(domain("a", cable(A, "b", B))) == []


def test_cable_to_a_free_nic() -> None:
    assert codes(domain("a", cable(A, "b", B)), domain("b", nic(B))) == []


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (cable(B, "c", C), f"b/{B} (2.xml:2) is for cable c/{C}"),
        (nic(B, "<source bridge='br0'/>", "type='bridge' connection='attached'"), "is for bridge br0"),
        (nic(B, attributes="type='user'"), "is not pluggable"),
        (nic(C), f"b (2.xml) has no interface {B}"),
    ],
)
def test_cable_that_does_not_come_back(other: str, why: str) -> None:
    problems = dict(found(domain("a", cable(A, "b", B)), domain("b", other)))
    assert problems["1.xml"].code == "cable-end"
    assert problems["1.xml"].path == "/domain/devices/interface/source/@interface"
    assert problems["1.xml"].message.endswith(why)
    assert problems["1.xml"].hint == f"have the other end say <source domain='a' interface='{A}'/>"


def test_cable_to_itself() -> None:
    ((_, problem),) = found(domain("a", cable(A, "a", A)))
    assert problem.message.endswith("it is its own other end")


def test_target_names() -> None:
    assert codes(domain("a", nic(A, f"<target dev='{'x' * 15}'/>"))) == []
    ((_, problem),) = found(domain("a", nic(A, f"<target dev='{'x' * 16}'/>")))
    assert (problem.code, problem.path) == ("target-length", "/domain/devices/interface/target/@dev")
    assert "has 16 bytes, and the kernel's device names have 15 at most" in problem.message


ETHERNET = nic(A, attributes="type='ethernet' connection='deferred'")
USER = nic(A, attributes="type='user' connection='deferred'")
VLAN = nic(A, "<source bridge='b'/><vlan><tag id='2'/></vlan>", "type='bridge' connection='deferred'")
MTU = nic(A, "<mtu size='9000'/>", "connection='deferred'")
LIMITED = nic(A, "<source dev='d'/><bandwidth/>", "type='direct' connection='deferred'")
QUEUES = nic(A, "<driver queues='2'/>", "connection='deferred'")
VHOST = nic(A, "<driver name='vhost'/>", "connection='deferred'")
MODEL = nic(A, "<model type='e1000e'/>", "connection='deferred'")
ALIAS = nic(A, "<alias name='ua-a.b'/>", "connection='deferred'")


@pytest.mark.parametrize(
    ("plane", "interface", "message", "hint"),
    [
        (None, ETHERNET, "", ""),
        ("auto", USER, "", ""),
        ("hub", USER, "", ""),
        ("tap", USER, "plane 'tap' cannot plug in type 'user'", "plane hub can"),
        ("auto", ETHERNET, "plane 'hub' cannot plug in type 'ethernet'", "no plane can; this one has "),
        ("tap", VLAN, "", ""),
        ("hub", VLAN, "plane 'hub' cannot carry out <vlan> of type 'bridge'", "leave it out, or "),
        ("hub", MTU, "plane 'hub' cannot carry out <mtu>", "leave it out, or use plane tap"),
        ("tap", LIMITED, "plane 'tap' cannot carry out <bandwidth> of type 'direct'", "leave it out"),
        ("tap", QUEUES, "", ""),
        ("hub", QUEUES, "plane 'hub' has one queue for a NIC", "leave queues out, or use plane tap"),
        ("swap", VHOST, "QEMU does not replace a netdev that uses vhost", "leave it out"),
        ("auto", MODEL, "model 'e1000e' does not tell its guest when the carrier goes: ", "use model virtio"),
        ("tap", ALIAS, "libvirt drops an alias like 'ua-a.b' without a word", "use letters, digits, "),
        ("hub", ALIAS, "libvirt drops an alias like 'ua-a.b' without a word", "use letters, digits, "),
        ("native", ALIAS, "", ""),
        ("tap", nic(A, "<alias name='ua-a.b'/>", "type='user'"), "", ""),
        ("tap", nic(A, attributes="type='ethernet'"), "", ""),
        ("tap", nic(A), "", ""),
    ],
)
def test_planes(plane: str | None, interface: str, message: str, hint: str) -> None:
    problems = [problem for _, problem in found(domain("a", interface), plane=plane)]
    assert len(problems) == bool(message)
    for problem in problems:
        assert problem.message.startswith(message)
        assert problem.code == "plane-kind"
        assert problem.hint.startswith(hint)
        with pytest.raises(SchemaError, match=re.escape(message)):
            to_stock(domain("a", interface), plane=plane or "auto")


def test_no_hint_at_a_plane_that_cannot_have_the_type() -> None:
    several = nic(A, "<driver queues='2'/>", "type='user' connection='deferred'")
    ((_, problem),) = found(domain("a", several), plane="hub")
    assert problem.hint == "leave queues out"


def test_planes_of_containers() -> None:
    lxc = "type='lxc'"
    ((_, problem),) = found(domain("a", USER, attributes=lxc), plane="auto")
    assert problem.message == "plane 'veth' cannot plug in type 'user'"
    ((_, problem),) = found(domain("a", USER, attributes=lxc), plane="tap")
    assert problem.message == "plane 'tap' is for guests of QEMU's"
    with pytest.raises(UnsupportedError, match="there is no plane 'warp'"):
        found(domain("a", nic(A)), plane="warp")


def test_backends_and_interfaces_alone() -> None:
    backend = b"<backend type='user'/>"
    assert codes(backend, plane="tap") == [("1.xml", "plane-kind", 1)]
    assert codes(backend, plane="hub") == []
    assert codes(USER.encode(), plane="tap") == [("1.xml", "plane-kind", 1)]
    assert codes(nic(A).encode(), domain("a", nic(A))) == []  # what update-device gets, and the domain


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<domain>",
        b"\xff\xfe\x00",
        b"<network/>",
        b"<!DOCTYPE x><domain/>",
        b"<domain xmlns:x='x'><name><x:y/></name><devices/></domain>",
    ],
)
def test_what_cannot_be_read_is_left_to_the_grammar(data: bytes) -> None:
    assert check([("1.xml", data)], "tap") == []
