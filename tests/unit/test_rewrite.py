"""Extended to stock and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from nicplug_xml import SchemaError, UnsupportedError, to_extended, to_stock
from nicplug_xml.document import Document
from nicplug_xml.model import Connection
from nicplug_xml.planes import tap
from tests.unit.sites import seen

STOCK = sorted((Path(__file__).parent / "schema").glob("stock/*.xml"))


def canonical(xml: str) -> bytes:
    """Return canonical XML, comments included."""
    return bytes(
        etree.tostring(etree.fromstring(xml.encode(), etree.XMLParser(encoding="utf-8")), method="c14n")
    )


def test_stock_form(extended: str) -> None:
    root = etree.fromstring(to_stock(extended).encode())
    parked, bare, attached, stock = root.findall("devices/interface")
    for nic in (parked, bare):
        assert nic.get("type") == "network"
        assert nic.get("connection") is None
        assert nic.find("source").attrib == {"network": "nicplug-parking"}
        assert nic.find("port").attrib == {"isolated": "yes"}
        assert nic.find("link").attrib == {"state": "down"}
    assert [child.tag for child in parked if isinstance(child.tag, str)] == [
        "source",
        "port",
        "mac",
        "model",
        "driver",
        "backend",
        "link",
    ]
    assert attached.find("source").attrib == {"network": "default"}
    assert attached.find("link") is None
    assert stock.get("type") == "user"


def test_stock_form_on_a_plain_bridge(extended: str) -> None:
    nic = etree.fromstring(to_stock(extended, parking="bridge").encode()).find("devices/interface")
    assert (nic.get("type"), nic.find("source").get("bridge")) == ("bridge", "nicplug-park")


def test_only_the_interfaces_and_the_metadata_change(extended: str) -> None:
    def rest(xml: str) -> list[str]:
        without = re.sub(r"<metadata>.*</metadata>\s*", "", xml, flags=re.S)
        pieces = re.split(r"(<interface .*?</interface>)", without, flags=re.S)
        return [piece for number, piece in enumerate(pieces) if number not in (1, 3, 5)]

    assert rest(to_stock(extended)) == rest(extended)
    assert len(rest(extended)) == 6


def test_restored(extended: str) -> None:
    restored = to_extended(to_stock(extended))
    assert canonical(restored) == canonical(extended)


def test_restored_from_bytes_in_any_encoding(extended: str) -> None:
    data = extended.replace("utf-8", "utf-16").encode("utf-16")
    assert canonical(
        re.sub("<[?].*?[?]>", "", to_extended(to_stock(data)).lstrip("\ufeff"), count=1)
    ) == canonical(re.sub("<[?].*?[?]>", "", extended, count=1))


@pytest.mark.parametrize("path", STOCK, ids=lambda path: path.stem)
def test_stock_xml_is_left_alone(path: Path) -> None:
    text = path.read_text()
    assert to_stock(text) == text
    assert to_extended(text) == text


def test_there_is_stock_xml() -> None:
    assert STOCK


@pytest.mark.parametrize(
    "text",
    [
        "<domain><!-- connection='deferred' --><title>connection</title></domain>",
        "<?xml version='1.0' encoding='latin-1'?>\r\n<domain>\t<name  a = \"b\">&#233;</name ></domain>\n",
        "<domain><name><![CDATA[a]]>&lt;</name>\n\n</domain>",
        "<network connections='1'><name>n</name></network>",
        "<domain><metadata><interface connection='deferred'/></metadata></domain>",
        "\ufeff<domain/>",
    ],
)
def test_without_the_attribute_no_byte_changes(text: str) -> None:
    assert to_stock(text) == text


def test_generated_mac_is_stable_and_taken_out_again() -> None:
    xml = "<domain><name>a</name><devices><interface connection='deferred'/></devices></domain>"
    stock = to_stock(xml)
    (mac,) = set(re.findall(r"52:54:00(?::[0-9a-f]{2}){3}", stock))
    assert to_stock(xml) == stock
    assert canonical(to_extended(stock)) == canonical(xml)
    assert mac in to_extended(stock, restore_generated=False)


def test_user_metadata_stays() -> None:
    for inner in ("", "<app:x xmlns:app='urn:app'>y</app:x>", "\n    <app:x xmlns:app='urn:app'/>\n  "):
        xml = (
            f"<domain>\n  <metadata>{inner}</metadata>\n  <devices>"
            "<interface connection='deferred'><mac address='52:54:00:00:00:01'/></interface>"
            "</devices></domain>"
        )
        stock = to_stock(xml)
        assert stock.count("<metadata>") == 1
        assert canonical(to_extended(stock)) == canonical(xml)


def test_entries_of_other_interfaces_stay() -> None:
    xml = (
        "<domain><devices><interface connection='deferred'><mac address='52:54:00:00:00:01'/></interface>"
        "<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='b'/></interface>"
        "</devices></domain>"
    )
    again = to_stock(
        to_stock(xml).replace("<interface type='bridge'>", "<interface type='bridge' connection='deferred'>")
    )
    assert [(nic.plane, nic.connection) for nic in seen(again).interfaces] == [
        ("tap", Connection.DEFERRED)
    ] * 2


def test_libvirts_own_form_is_understood(extended: str) -> None:
    """libvirt drops our marks, orders children and puts our prefix on every metadata element."""
    stock = re.sub(r"<\?nicplug.*?\?>", "", to_stock(extended))
    start, end = stock.index("<interfaces"), stock.index("</metadata>")
    prefixed = re.sub(r"<(/?)(\w)", r"<\1nicplug:\2", stock[start:end])
    stock = stock[:start] + prefixed.replace("xmlns=", "xmlns:nicplug=") + stock[end:]
    nic = etree.fromstring(to_extended(stock).encode()).find("devices/interface")
    assert nic.get("type") == "bridge"
    assert nic.find("source").attrib == {"bridge": "br0"}
    assert nic.find("virtualport/parameters").get("profileid") == "a & b"
    assert nic.find("vlan/tag").get("id") == "42"
    assert nic.find("link").get("state") == "up"


def test_what_others_did_is_shown_as_it_is_now(extended: str) -> None:
    moved = to_stock(extended).replace("<source network='nicplug-parking'/>", "<source network='other'/>", 1)
    first = seen(moved).interfaces[0]
    assert first.connection is Connection.ATTACHED
    assert first.backend is not None
    assert first.backend.source == {"network": "other"}


@pytest.mark.parametrize(("driver", "plane"), [("kvm", "tap"), ("lxc", "veth")])
def test_what_is_parked_is_pluggable_whatever_was_lost(driver: str, plane: str) -> None:
    nic = "<mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>"
    domain = f"<domain type='{driver}'><devices><interface{{}}>{nic}</devices></domain>"
    extended = domain.format(" connection='deferred'")
    stock = to_stock(extended)
    lost = re.sub("<metadata>.*</metadata>", "", stock)
    cloned = stock.replace("<mac address='52:54:00:00:00:01'", "<mac address='52:54:00:00:00:02'")
    for changed in (lost, cloned):
        (parked,) = seen(changed).interfaces
        assert (parked.plane, parked.connection, parked.backend) == (plane, Connection.DEFERRED, None)
    assert canonical(to_extended(lost)) == canonical(extended)
    assert canonical(to_extended(cloned)) == canonical(extended.replace("00:01", "00:02"))
    plugged = domain.format(" type='network'").replace("<mac", "<source network='nicplug-parking-lot'/><mac")
    assert to_extended(plugged) == plugged


@pytest.mark.parametrize(
    ("interface", "why"),
    [
        ("<interface connection='defered'/>", "means nothing"),
        ("<interface type='hostdev' connection='deferred'/>", "the guest's device is the backend"),
        ("<interface type='vdpa' connection='attached'/>", "the guest's device is the backend"),
        ("<interface type='vhostuser' connection='deferred'/>", "the guest's device is the backend"),
        ("<interface connection='attached'/>", "attached to what"),
        ("<interface type='user' connection='deferred'/>", "plane 'tap' cannot plug in type 'user'"),
        (
            "<interface connection='deferred'><mac address='52:54:00:00:00:01'/></interface>"
            "<interface type='user'><mac address='52:54:00:00:00:01'/></interface>",
            "two interfaces",
        ),
    ],
)
def test_refused(interface: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        to_stock(f"<domain><devices>{interface}</devices></domain>", plane="tap")


def test_refused_choices(extended: str) -> None:
    with pytest.raises(UnsupportedError, match="no plane 'warp'"):
        to_stock(extended, plane="warp")
    with pytest.raises(SchemaError, match="no parking place"):
        to_stock(extended, parking="garage")


@pytest.mark.parametrize(
    "xml",
    [
        "<interface connection='deferred'/>",
        "<domainbackup><devices>{}</devices></domainbackup>",
        "<domainsnapshot><domain><devices>{}</devices></domain></domainsnapshot>",
        "<node><domain><devices><disk/>{}</devices></domain></node>",
    ],
)
def test_only_domains_are_rewritten(xml: str) -> None:
    """What passes through as it is would be taken for what stock libvirt understands."""
    with pytest.raises(SchemaError, match="only <domain>"):
        to_stock(xml.format("<interface connection='deferred'/>"))
    stock = xml.format("<interface type='user'/>").replace(" connection='deferred'", "")
    for text in (stock, f"<!-- connection -->{stock}"):
        assert to_stock(text) == text


NAMES = st.sampled_from(
    ["mac", "model", "link", "source", "virtualport", "bandwidth", "vlan", "port", "alias"]
)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="<&>\"'"), max_size=8
)
SPACE = st.sampled_from(["", " ", "\n    ", "\r\n\t", "<!-- source -->", "\n <!-- -->\n "])


@st.composite
def interface_xml(draw: st.DrawFn) -> str:
    """Interfaces with children in any order, white space and comments between them."""
    number = draw(st.integers(0, 255))
    children = draw(st.lists(NAMES, unique=True))
    content = draw(SPACE)
    for name in children:
        attribute = {
            "mac": f"address='52:54:00:00:01:{number:02x}'",
            "alias": f"name='ua-{number}'",
            "link": f"state='{draw(st.sampled_from(['up', 'down']))}'",
        }.get(name, f"a='{draw(TEXT)}'")
        body = draw(st.sampled_from(["/>", f"></{name}>", f'><x y="{draw(TEXT)}"/></{name}>']))
        content += f"<{name} {attribute}{body}{draw(SPACE)}"
    connection = draw(st.sampled_from(["", " connection='deferred'", ' connection="attached"']))
    kind = draw(st.sampled_from([" type='bridge'", ' type="network"', ""]))
    if "attached" in connection or not connection:
        kind = kind or " type='bridge'"
    return f"<interface{connection}{kind}>{content}</interface>"


def key(interface: str) -> str:
    """Return what tells an interface from others: its alias, its MAC, or its whole text."""
    found = re.search(r"ua-\d+", interface) or re.search(r":01:..'", interface)
    return found[0] if found else interface


@st.composite
def domain_xml(draw: st.DrawFn) -> str:
    """Domains with up to three interfaces, each named by its own MAC or alias or by nothing."""
    interfaces = draw(st.lists(interface_xml(), max_size=3, unique_by=key))
    metadata = draw(st.sampled_from(["", "<metadata/>", "<metadata> <m:x xmlns:m='urn:m'/></metadata>\n"]))
    return (
        f"<domain>{draw(SPACE)}<name>{draw(TEXT)}</name>{draw(SPACE)}{metadata}"
        f"<devices>{draw(SPACE)}{''.join(interfaces)}</devices>{draw(SPACE)}</domain>"
    )


@given(domain_xml())
def test_round_trip_is_the_identity(xml: str) -> None:
    keys = [nic.key for nic in seen(xml).interfaces if nic.key]
    if len(keys) != len(set(keys)):
        return
    stock = to_stock(xml)
    assert " connection=" not in "".join(nic.xml.partition(">")[0] for nic in seen(stock).interfaces)
    assert canonical(to_extended(stock)) == canonical(xml)
    if "connection=" not in xml:
        assert stock == xml
    Document(stock)


@given(st.text(st.sampled_from("<>/='\" abinterfaceconnectiondeferred!?&;")))
def test_garbage_is_refused_with_our_error(text: str) -> None:
    try:
        to_stock(f"<domain><devices>{text}</devices></domain>")
        to_extended(f"<domain>urn:nicplug:domain:1.0{text}</domain>")
    except SchemaError:
        pass


def test_a_stock_interface_is_not_taken_for_the_pluggable_one_of_its_mac() -> None:
    mac = "<mac address='52:54:00:00:00:0A'/>"
    stock = f"<interface type='bridge'>{mac}<source bridge='b'/><alias name='ua-stock'/></interface>"
    deferred = f"<interface connection='deferred'>{mac.lower()}%s</interface>"
    domain = "<domain><devices>{}</devices></domain>"
    with pytest.raises(SchemaError, match="has the MAC of a pluggable one, 52:54:00:00:00:0a"):
        to_stock(domain.format(stock + deferred % ""))
    named = domain.format(stock + deferred % "<alias name='ua-late'/>")
    assert to_extended(to_stock(named)) == named


@pytest.mark.parametrize("alias", ["ua-a.b", "ua-ä", "ua-a b"])
def test_an_alias_that_libvirt_drops_is_refused(alias: str) -> None:
    nic = f"<interface connection='deferred'><alias name='{alias}'/></interface>"
    xml = f"<domain><devices>{nic}</devices></domain>"
    with pytest.raises(SchemaError, match="libvirt drops an alias"):
        to_stock(xml)


def test_who_defines_it_with_another_tool_finds_the_parking_network_in_the_reference() -> None:
    reference = Path(__file__).parents[2] / "docs" / "format.md"
    assert f"```xml\n{tap.NETWORK_XML}\n```\n" in reference.read_text()
