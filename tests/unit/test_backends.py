"""Backends: from the document to the endpoint that a plane joins."""

from __future__ import annotations

import pytest

from nicplug_xml.backends import BACKENDS, describe, endpoint
from nicplug_xml.endpoints import (
    BridgePort,
    CableTo,
    Endpoint,
    HostDevice,
    MacvtapOn,
    Netdev,
    Passt,
    StreamTo,
)
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.model import Backend

LOCAL = "<local address='192.0.2.2' port='5000'/>"


def netdev(always: bool = True, takes: str = "", **arguments: object) -> Netdev:
    """Return a netdev; a type goes as ``kind``."""
    taken = frozenset((takes,)) if takes else frozenset[str]()
    return Netdev({"type": arguments.pop("kind"), **arguments}, always=always, takes=taken)


def document(kind: str, source: str = "", inner: str = "", rest: str = "") -> Backend:
    """Return a backend."""
    child = f"<source {source}>{inner}</source>" if source else ""
    return Backend.of(f"<backend type='{kind}'>{child}{rest}</backend>")


PLACES: list[tuple[Backend, Endpoint, str]] = [
    (document("bridge", "bridge='br0'"), BridgePort("br0"), "bridge br0"),
    (
        document("bridge", "bridge='br0'", rest="<port isolated='yes'/>"),
        BridgePort("br0", isolated=True),
        "bridge br0",
    ),
    (document("direct", "dev='eth1'"), MacvtapOn("eth1", "vepa"), "direct eth1 (vepa)"),
    (
        document("direct", "dev='eth1' mode='passthrough'"),
        MacvtapOn("eth1", "passthru"),
        "direct eth1 (passthrough)",
    ),
    (document("netdev", "dev='eth1'"), HostDevice("eth1"), "netdev eth1"),
    (document("cable", "domain='vm2' interface='ua-a'"), CableTo("vm2", "ua-a"), "cable vm2/ua-a"),
    (document("user"), netdev(kind="user"), "user"),
    (
        document(
            "user",
            rest="<ip family='ipv4' address='172.17.2.0' prefix='24'/>"
            "<ip family='ipv6' address='2001:db8::' prefix='64'/>"
            "<portForward proto='tcp' address='127.0.0.1'><range start='8080' to='80'/></portForward>"
            "<portForward proto='udp'><range start='53' end='54'/></portForward>",
        ),
        Netdev(
            {
                "type": "user",
                "net": "172.17.2.0/24",
                "ipv6-prefix": "2001:db8::",
                "ipv6-prefixlen": 64,
                "hostfwd": [
                    {"str": "tcp:127.0.0.1:8080-:80"},
                    {"str": "udp::53-:53"},
                    {"str": "udp::54-:54"},
                ],
            },
            takes=frozenset(("tcp 8080", "udp 53", "udp 54")),
        ),
        "user",
    ),
    (
        document(
            "user",
            "dev='eth0'",
            rest="<backend type='passt' logFile='/run/p.log'/>"
            "<ip family='ipv4' address='172.17.2.4' prefix='24'/>"
            "<portForward proto='tcp' address='127.0.0.1'>"
            "<range start='8080' end='8081' to='80'/></portForward>",
        ),
        Passt(
            (
                *(
                    "--interface",
                    "eth0",
                    "--log-file",
                    "/run/p.log",
                    "--address",
                    "172.17.2.4",
                    "--netmask",
                    "24",
                ),
                *("--tcp-ports", "127.0.0.1/8080:80"),
                *("--tcp-ports", "127.0.0.1/8081:81"),
            ),
            frozenset(("tcp 8080", "tcp 8081")),
        ),
        "passt",
    ),
    (
        document("mcast", "address='230.0.0.1' port='5558'"),
        netdev(kind="socket", mcast="230.0.0.1:5558"),
        "mcast 230.0.0.1:5558",
    ),
    (
        document("udp", "address='192.0.2.1' port='5001'", LOCAL),
        netdev(kind="socket", udp="192.0.2.1:5001", localaddr="192.0.2.2:5000", takes="udp 5000"),
        "udp 192.0.2.1:5001",
    ),
    (
        document("server", "port='5000'"),
        netdev(kind="socket", listen=":5000", takes="tcp 5000"),
        "server :5000",
    ),
    (
        document("client", "address='192.0.2.1' port='5000'"),
        StreamTo("192.0.2.1", 5000),
        "client 192.0.2.1:5000",
    ),
    (
        document("stream", "mode='server' address='192.0.2.2' port='5000'"),
        netdev(
            kind="stream",
            server=True,
            addr={"type": "inet", "host": "192.0.2.2", "port": "5000"},
            always=False,
            takes="tcp 5000",
        ),
        "stream server 192.0.2.2:5000",
    ),
    (
        document("stream", "mode='server' path='/run/s'"),
        netdev(
            kind="stream",
            server=True,
            addr={"type": "unix", "path": "/run/s"},
            always=False,
            takes="path /run/s",
        ),
        "stream server /run/s",
    ),
    (
        document("stream", "address='192.0.2.1' port='5000'"),
        StreamTo("192.0.2.1", 5000),
        "stream 192.0.2.1:5000",
    ),
    (document("stream", "mode='client' path='/run/s'"), StreamTo("/run/s", None), "stream client /run/s"),
    (
        document("dgram", "address='192.0.2.1' port='5001'", LOCAL),
        netdev(
            kind="dgram",
            remote={"type": "inet", "host": "192.0.2.1", "port": "5001"},
            local={"type": "inet", "host": "192.0.2.2", "port": "5000"},
            always=False,
            takes="udp 5000",
        ),
        "dgram 192.0.2.1:5001",
    ),
    (
        document("dgram", "path='/run/far'", "<local path='/run/near'/>"),
        netdev(
            kind="dgram",
            remote={"type": "unix", "path": "/run/far"},
            local={"type": "unix", "path": "/run/near"},
            always=False,
            takes="path /run/near",
        ),
        "dgram /run/far",
    ),
    (
        document("l2tpv3", "address='192.0.2.1'", "<local address='192.0.2.2'/><session tx='7'/>"),
        netdev(
            kind="l2tpv3",
            src="192.0.2.2",
            dst="192.0.2.1",
            ipv6=False,
            udp=False,
            txsession=7,
            rxsession=7,
            always=False,
        ),
        "l2tpv3 192.0.2.1",
    ),
    (
        document(
            "l2tpv3",
            "address='2001:db8::1' port='1701'",
            "<local address='2001:db8::2'/><session tx='1' rx='2' txcookie='0x1' rxcookie='0x100000000'/>",
        ),
        netdev(
            kind="l2tpv3",
            src="2001:db8::2",
            dst="2001:db8::1",
            ipv6=True,
            udp=True,
            txsession=1,
            rxsession=2,
            dstport="1701",
            srcport="1701",
            txcookie=1,
            rxcookie=0x100000000,
            cookie64=True,
            always=False,
            takes="udp 1701",
        ),
        "l2tpv3 2001:db8::1",
    ),
    (
        document("vde", "path='/run/vde' port='3'"),
        netdev(kind="vde", sock="/run/vde", port=3, always=False),
        "vde /run/vde",
    ),
]


@pytest.mark.parametrize(("backend", "expected", "words"), PLACES, ids=[place[2] for place in PLACES])
def test_endpoint(backend: Backend, expected: Endpoint, words: str) -> None:
    assert endpoint(backend, "") == expected
    assert describe(backend) == words


def test_every_type_is_tried() -> None:
    # A network is what libvirt says it is, and a descriptor is the caller's: both are tried with those.
    assert {backend.type for backend, *_ in PLACES} == set(BACKENDS) - {"network", "fd"}


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        ("<forward mode='nat'/><bridge name='virbr0'/>", BridgePort("virbr0")),
        ("<bridge name='virbr1'/><port isolated='yes'/>", BridgePort("virbr1", isolated=True)),
        ("<forward mode='bridge'/><bridge name='br0'/>", BridgePort("br0")),
        ("<forward mode='bridge' dev='eth1'/>", MacvtapOn("eth1", "bridge")),
        (
            "<forward mode='private'><interface dev='eth2'/><interface dev='eth3'/></forward>",
            MacvtapOn("eth2", "private"),
        ),
    ],
)
def test_a_network_is_what_it_leads_to(forward: str, expected: Endpoint) -> None:
    backend = document("network", "network='lab'")
    assert endpoint(backend, f"<network><name>lab</name>{forward}</network>") == expected


@pytest.mark.parametrize(
    ("own", "isolated"), [("", True), ("<port isolated='yes'/>", True), ("<port isolated='no'/>", False)]
)
def test_what_a_nic_says_of_its_port_comes_before_what_its_network_says(own: str, isolated: bool) -> None:
    lab = "<network><name>lab</name><bridge name='virbr1'/><port isolated='yes'/></network>"
    backend = document("network", "network='lab'", rest=own)
    assert endpoint(backend, lab) == BridgePort("virbr1", isolated=isolated)


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        (document("bridge"), SchemaError, "does not say where to"),
        (document("direct", "dev='eth0' mode='sideways'"), SchemaError, "no macvtap mode 'sideways'"),
        (document("stream", "mode='server'"), SchemaError, "does not say where to"),
        (document("dgram", "path='/run/far'"), SchemaError, "needs one of its own"),
        (document("l2tpv3", "address='192.0.2.1'"), SchemaError, "own end is not given"),
        (
            document("l2tpv3", "address='192.0.2.1'", "<local address='192.0.2.2'/>"),
            SchemaError,
            "has no session",
        ),
        (document("fd"), UnsupportedError, "somebody handed in"),
        (document("user", "dev='eth0'"), UnsupportedError, "not bound to a device"),
        (
            document("user", rest="<portForward proto='tcp' dev='eth0'><range start='80'/></portForward>"),
            UnsupportedError,
            "no ports of one device",
        ),
        (
            document("user", rest="<portForward proto='tcp'><range start='80' exclude='yes'/></portForward>"),
            UnsupportedError,
            "cannot be excluded",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(backend: Backend, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        endpoint(backend, "")


def test_a_network_without_a_place_for_a_nic_is_refused() -> None:
    network = "<network><name>lab</name><forward mode='hostdev'><pf dev='eth0'/></forward></network>"
    with pytest.raises(UnsupportedError, match="no place for a NIC"):
        endpoint(document("network", "network='lab'"), network)
