"""The schemas, by xmllint and by `validate`, on the sample documents in ``schema/``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

import nicplug_xml
from nicplug_xml._schema_explain import SOURCE_CHOICES, SOURCE_NEEDS, SOURCE_OPTIONAL
from nicplug_xml._schema_files import Kind, grammar, libvirt_directory, schema_path
from nicplug_xml.errors import SchemaError
from nicplug_xml.model import NEVER_PLUGGABLE, Problem
from nicplug_xml.schema import validate

ROOT = Path(__file__).parents[2]
SAMPLES = Path(__file__).parent / "schema"
NS = {"r": "http://relaxng.org/ns/structure/1.0"}
XMLLINT_VALID, XMLLINT_INVALID = 0, 3
A_BACKEND = "<backend type='user'/>"


def samples(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((SAMPLES / folder).glob("*.xml"))]
    assert found
    return found


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def kind_of(sample: Path) -> Kind:
    return "backend" if sample.parent.name.startswith("backend") else "domain"


def xmllint(schema: Path, document: Path) -> int:
    command = ["xmllint", "--noout", "--nonet", "--relaxng", str(schema), str(document)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def schema_types() -> set[str]:
    """The types that the grammar itself lists."""
    common = etree.parse(schema_path("domain").with_name("nicplug-common.rng"))
    return set(common.xpath("//r:define[starts-with(@name, 'nicplug-type-')]//r:value/text()", namespaces=NS))


@pytest.mark.parametrize("sample", samples("backend-valid", "domain-valid"), ids=name)
def test_valid(sample: Path) -> None:
    assert validate(sample) == []
    assert xmllint(schema_path(kind_of(sample)), sample) == XMLLINT_VALID


@pytest.mark.parametrize("sample", samples("backend-invalid", "domain-invalid"), ids=name)
def test_invalid(sample: Path) -> None:
    expected = sample.with_suffix(".expected").read_text().splitlines()
    assert expected
    assert [str(problem) for problem in validate(sample)] == expected
    assert xmllint(schema_path(kind_of(sample)), sample) == XMLLINT_INVALID


@pytest.mark.parametrize("sample", samples("backend-invalid", "domain-invalid"), ids=name)
def test_path_leads_to_what_is_wrong(sample: Path) -> None:
    tree = etree.parse(sample)
    for problem in validate(sample):
        (found,) = tree.xpath(problem.path)
        element = found if isinstance(found, etree._Element) else found.getparent()
        assert element.sourceline == problem.line or problem.message.startswith("text is not allowed")


@pytest.mark.parametrize("sample", samples("stock"), ids=name)
def test_stock_domain_is_judged_as_by_libvirt(sample: Path) -> None:
    directory = libvirt_directory()
    assert directory is not None
    stock = xmllint(directory / "domain.rng", sample)
    assert stock == (XMLLINT_INVALID if sample.stem.startswith("invalid") else XMLLINT_VALID)
    assert xmllint(schema_path("domain"), sample) == stock
    assert bool(validate(sample)) == (stock == XMLLINT_INVALID)


def test_domain_from_libvirt_is_valid() -> None:
    libvirt = pytest.importorskip("libvirt")
    connection = libvirt.open("test:///default")
    try:
        assert validate(connection.lookupByName("test").XMLDesc()) == []
    finally:
        connection.close()


def types_in(which: str, *files: Path) -> set[str]:
    return {found.get("type") for file in files for found in etree.parse(file).iterfind(which)}


def test_every_type_has_samples() -> None:
    every, domains = schema_types(), samples("domain-valid")
    assert every == set(SOURCE_NEEDS)
    assert every == types_in(".", *samples("backend-valid"))
    assert every == types_in(".//interface[@connection='attached']", *domains)
    intended = types_in(".//interface[@connection='deferred'][@type][source]", *domains)
    assert every == intended | set(SOURCE_OPTIONAL)
    assert every == types_in(".//interface", SAMPLES / "domain-valid" / "deferred-no-source.xml")


def test_every_unpluggable_type_has_samples() -> None:
    wanted = {f"{kind}-{connection}" for kind in NEVER_PLUGGABLE for connection in ("attached", "deferred")}
    assert wanted <= {path.stem for path in samples("domain-invalid")}


@pytest.mark.parametrize("sample", samples("backend-valid"), ids=name)
def test_explanations_know_what_a_source_needs(sample: Path) -> None:
    root = etree.parse(sample).getroot()
    source = root.find("source")
    for attribute in [] if source is None else list(source.attrib):
        value = source.attrib.pop(attribute)
        problems = validate(etree.tostring(root))
        if attribute in SOURCE_NEEDS[root.get("type")]:
            assert [problem.path for problem in problems] == ["/backend/source"]
            assert f"needs {attribute}= for type='{root.get('type')}'" in problems[0].message
        elif attribute in sum(SOURCE_CHOICES.get(root.get("type"), ()), ()):
            assert [problem.path for problem in problems] == ["/backend/source"]
            assert "needs path=, or address= and port=" in problems[0].message
        else:
            assert problems == []
        source.set(attribute, value)


@pytest.mark.parametrize("sample", samples("backend-valid"), ids=name)
def test_backend_of_an_unpluggable_type_is_refused(sample: Path) -> None:
    root = etree.parse(sample).getroot()
    for kind in NEVER_PLUGGABLE:
        root.set("type", kind)
        (problem,) = validate(etree.tostring(root))
        assert "the guest's device is the backend itself" in problem.message


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("empty", 1, "not well-formed"),
        ("mismatched-tag", 2, "not well-formed"),
        ("undefined-entity", 1, "not well-formed"),
        ("other-root", 1, "nothing is known about documents whose root is <network>"),
        ("namespaced-root", 1, "nothing is known about documents whose root is <{urn:example}domain>"),
        ("harmless", 1, "a DOCTYPE is not accepted"),
        ("utf-16", 1, "a DOCTYPE is not accepted"),
        ("external-dtd", 1, "a DOCTYPE is not accepted"),
        ("external-entity", 3, "a DOCTYPE is not accepted"),
        ("parameter-entity", 1, "a DOCTYPE is not accepted"),
        ("entity-bomb", 1, "a DOCTYPE is not accepted"),
    ],
)
def test_refused(file: str, line: int, message: str) -> None:
    (problem,) = validate(SAMPLES / "refused" / f"{file}.xml")
    assert problem.line == line
    assert problem.message.startswith(message)


def test_refused_samples_are_all_tested() -> None:
    mark = next(mark for mark in test_refused.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {path.stem for path in samples("refused")} == {row[0] for row in mark.args[1]}


def test_malformed_has_a_column() -> None:
    assert [(p.line, p.column) for p in validate("<backend>\n  <a></b></backend>")] == [(2, 10)]


@pytest.mark.parametrize(
    ("document", "meant", "allowed"),
    [
        ("<backend type='direct'><source dev='eth0' mode='brige'/></backend>", "bridge", "'passthrough'"),
        ("<backend type='user'><portForward proto='tcp4'/></backend>", "tcp", "'udp'"),
    ],
)
def test_words_that_the_schema_has_in_a_regular_expression(document: str, meant: str, allowed: str) -> None:
    problems = [problem for problem in validate(document) if "is not allowed on" in problem.message]
    assert [problem.hint for problem in problems] == [f"did you mean '{meant}'?"]
    assert allowed in problems[0].allowed


@pytest.mark.parametrize("text", ["a & b", "a&b c", "a&1"])
def test_an_ampersand_has_a_hint(text: str) -> None:
    (problem,) = validate(f"<domain type='kvm'><name>vm1</name><title>{text}</title></domain>")
    assert problem.hint == "an & is written &amp;"


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("<source bridge=br0/>", "a value is in quotes, as in bridge='br0'"),
        (
            "<source bridge='br0/><alias/>",
            "the quote behind a value may be missing; else a < is written &lt;",
        ),
    ],
)
def test_forgotten_quotes_have_a_hint(source: str, hint: str) -> None:
    (problem,) = validate(f"<backend type='bridge'>{source}</backend>")
    assert problem.hint == hint


def test_malformed_is_told_in_one_line() -> None:
    (problem,) = validate("<backend>\0</backend>")
    assert problem.message.startswith("not well-formed: ")
    assert "\n" not in problem.message


def test_nothing_is_read_for_a_doctype(tmp_path: Path) -> None:
    fifo = tmp_path / "secret"
    os.mkfifo(fifo)  # who opens it to read it hangs
    doctype = f"<!DOCTYPE backend SYSTEM '{fifo}' [<!ENTITY e SYSTEM '{fifo}'>]>"
    (problem,) = validate(f"{doctype}<backend type='user'>&e;</backend>")
    assert "DOCTYPE" in problem.message


@pytest.mark.parametrize(
    "source",
    [
        A_BACKEND,
        f"\n  {A_BACKEND}",
        f"\ufeff{A_BACKEND}",
        f"<?xml version='1.0' encoding='UTF-16'?>{A_BACKEND}",
        f"<?xml version='1.0' encoding='UTF-16'?>{A_BACKEND}".encode("utf-16"),
        f"\ufeff{A_BACKEND}".encode(),
        "<backend type='cable'><source domain='Zürich' interface='ua-a'/></backend>",
        "<?xml version='1.0' encoding='ISO-8859-1'?>"
        "<backend type='cable'><source domain='Zürich' interface='ua-a'/></backend>".encode("latin-1"),
    ],
)
def test_forms_of_a_source(source: str | bytes) -> None:
    assert validate(source) == []


def test_file_name_in_a_string_is_taken_for_xml(tmp_path: Path) -> None:
    path = tmp_path / "backend.xml"
    path.write_text(A_BACKEND)
    assert validate(path) == []
    (problem,) = validate(str(path))
    assert "pathlib.Path" in problem.hint


def test_unreadable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        validate(tmp_path / "missing.xml")


@given(st.text() | st.binary() | st.text().map(lambda text: f"<backend type='{text}'/>"))
def test_bad_documents_never_raise(source: str | bytes) -> None:
    assert all(isinstance(problem, Problem) for problem in validate(source))


def test_deep_nesting_does_not_raise() -> None:
    assert validate("<domain>" * 100_000)
    assert validate("<backend>" * 200 + "</backend>" * 200)


def test_large_invalid_domain_is_explained() -> None:
    many = "<interface type='user'/>" * 2000
    document = (SAMPLES / "stock" / "invalid-device.xml").read_text().replace("<devices>", f"<devices>{many}")
    (problem,) = validate(document)
    assert problem.path == "/domain/devices/memballoon/@model"


BROKEN = """<domain type='kvm'>
  <name>vm1</name>
  <memory unit='MiB'>128</memory>
  <os><type>hvm</type></os>
  <devices>{}</devices>
</domain>
"""


@pytest.mark.parametrize(
    ("devices", "problems"),
    [
        (
            "<disk type='flie'><target dev='vda'/></disk>",
            ["/domain/devices/disk/@type: type='flie' is not allowed on <disk> (did you mean 'file'?)"],
        ),
        (
            "<disc type='file'><target dev='vda' buss='virtio'/></disc>",
            [
                "/domain/devices/disc: <disc> is not allowed in <devices> (did you mean 'disk'?)",
                "/domain/devices/disc/target/@buss: <target> for type='file' has no attribute buss"
                " (did you mean 'bus'?)",
            ],
        ),
        ("<disk type='file'/>", ["/domain/devices/disk: <disk> of type='file' lacks <target>"]),
        ("<watchdog/>", ["/domain/devices/watchdog: <watchdog> needs model="]),
        (
            "<emulator>qemu</emulator>",
            ["/domain/devices/emulator: 'qemu' is not allowed in <emulator>"],
        ),
        (
            "<interface type='user'><mac address='1'/><modle type='e1000'/></interface><tpm/>",
            [
                "/domain/devices/interface/mac/@address: address='1' is not allowed on <mac>",
                "/domain/devices/interface/modle: <modle> is not allowed in <interface> of type='user'"
                " (did you mean 'model'?)",
                "/domain/devices/tpm: <tpm> lacks <backend>",
            ],
        ),
    ],
)
def test_whole_grammar_is_explained(devices: str, problems: list[str]) -> None:
    found = validate(BROKEN.format(devices))
    assert [str(problem).split(": ", 1)[1] for problem in found] == problems
    assert {problem.line for problem in found} == {5}


def test_a_name_in_a_namespace_is_compared_without_it() -> None:
    commandline = (
        "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><q:{}/></q:commandline></domain>"
    )
    document = BROKEN.format("").replace("</domain>", commandline)
    messages = {name: [str(found) for found in validate(document.format(name))] for name in ("foo", "argg")}
    assert ["did you mean" in message for message in messages["foo"]] == [False]
    assert "(did you mean 'arg'?)" in messages["argg"][0]


def test_interface_alone() -> None:
    assert validate("<interface connection='deferred'/>") == []
    (problem,) = validate("<interface type='bridge' connection='attached'/>")
    assert problem.path == "/interface"
    (problem,) = validate("<interface type='ethernet' name='eth0'><start mode='none'/></interface>")
    assert problem.code == "root"
    assert "it is one of a host" in problem.message


@pytest.mark.parametrize(
    ("connection", "meant"),
    [("detached", "deferred"), ("Unattached", "deferred"), ("atached", "attached"), ("defered", "deferred")],
)
def test_what_is_meant_by_a_connection(connection: str, meant: str) -> None:
    (problem,) = validate(f"<interface type='user' connection='{connection}'/>")
    assert problem.hint == f"did you mean '{meant}'?"


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ("<interface type='user' mac='52:54:00:00:00:01'/>", "it is an element: <mac …/>"),
        ("<interface type='user' connection='deferred' model='virtio'/>", "it is an element: <model …/>"),
        ("<interface type='user'><vlan tag='3'/></interface>", "it is an element: <tag …/>"),
    ],
)
def test_an_element_written_as_an_attribute(document: str, hint: str) -> None:
    assert hint in [problem.hint for problem in validate(document)]


def test_deep_recursion_of_the_grammar_is_no_problem() -> None:
    layer = "<backingStore type='file'><format type='qcow2'/><source file='/a'/>{}</backingStore>"
    chain = "<backingStore type='nonsense'/>"
    for _ in range(230):
        chain = layer.format(chain)
    (problem,) = validate(BROKEN.format(f"<disk type='file'><target dev='vda'/>{chain}</disk>"))
    assert problem.message == "type='nonsense' is not allowed on <backingStore>"
    assert problem.path.count("/backingStore") == 231


def test_what_is_allowed_is_told() -> None:
    (problem,) = validate(BROKEN.format("<memballoon model='vertio'/>"))
    assert problem.allowed[:1] == ("'virtio'",)
    assert (problem.line, problem.column, problem.code) == (5, 24, "schema")
    vlan = "<vlan><tag id='4096'/></vlan>"
    (problem,) = validate(f"<backend type='bridge'><source bridge='b'/>{vlan}</backend>")
    assert problem.allowed == ("a whole number from 0 up to 4095",)


def test_columns_count_characters() -> None:
    document = "<?xml version='1.0' encoding='{}'?><!-- Zürich --><backend type='nope'/>"
    for encoding in ("utf-8", "iso-8859-1", "utf-16"):
        (problem,) = validate(document.format(encoding).encode(encoding))
        assert problem.column == document.format(encoding).index("type=") + 1


def test_start_tags_of_several_lines_have_places() -> None:
    (problem,) = validate("<backend\n  type='bridge'>\n<source\n  bridge='b'\n\tcolour='red'/></backend>")
    assert (problem.line, problem.column) == (5, 2)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ("<backend type='bridge'>\n  oops <source bridge='b'/>\n</backend>", (2, 3)),
        ("<backend type='bridge'>\n<source bridge='b'/><!--\n --><?x?> oops</backend>", (3, 11)),
        ("<backend type='bridge'><source bridge='b'\n/>\n\t<![CDATA[oops]]></backend>", (3, 2)),
        ("<backend type='bridge'><source bridge='b'>\noops</source></backend>", (2, 1)),
    ],
)
def test_a_text_is_where_it_is_written(document: str, place: tuple[int, int]) -> None:
    (problem,) = validate(document)
    assert problem.message.endswith(": 'oops'")
    assert (problem.line, problem.column) == place


def test_an_address_is_told_by_its_own_type() -> None:
    address = "<address type='drive' slot='1'/>"
    (problem,) = validate(f"<interface type='user'>{address}</interface>")
    assert problem.message == "<address> of type='drive' has no attribute slot"


def test_threads_share_a_schema() -> None:
    files = samples("backend-invalid", "domain-invalid") * 4
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(validate, files))
    assert together == [validate(file) for file in files]


def test_schema_is_compiled_once() -> None:
    assert grammar("backend") is grammar("backend")


def test_override_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = libvirt_directory()
    assert stock is not None
    shutil.copytree(stock, tmp_path / "with space")
    # A type that only this copy knows shows which schemas are in use.
    changed = tmp_path / "with space" / "domaincommon.rng"
    text = changed.read_text()
    assert text.count("<value>null</value>") >= 1
    changed.write_text(text.replace("<value>null</value>", "<value>only-here</value>"))
    domain = (SAMPLES / "stock" / "no-devices.xml").read_text()
    domain = domain.replace("<devices>", "<devices><interface type='only-here'/>")
    assert validate(domain)
    monkeypatch.setenv("NICPLUG_LIBVIRT_SCHEMAS", str(tmp_path / "with space"))
    assert validate(domain) == []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NICPLUG_LIBVIRT_SCHEMAS", "with space")
    assert validate(domain) == []


def test_override_without_schemas_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NICPLUG_LIBVIRT_SCHEMAS", str(tmp_path))
    with pytest.raises(SchemaError, match=r"NICPLUG_LIBVIRT_SCHEMAS is .* holds no domain\.rng; set it"):
        validate(A_BACKEND)


def test_override_with_broken_schemas_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("domain.rng", "domaincommon.rng"):
        (tmp_path / file).write_text("<grammar xmlns='http://relaxng.org/ns/structure/1.0'/>")
    monkeypatch.setenv("NICPLUG_LIBVIRT_SCHEMAS", str(tmp_path))
    with pytest.raises(SchemaError, match="cannot be used"):
        validate(A_BACKEND)


PRINT_VERDICT = f"""
from nicplug_xml.errors import SchemaError
from nicplug_xml.schema import validate
try:
    print(validate("{A_BACKEND}"))
except SchemaError as error:
    print(error)
"""


@pytest.fixture
def without_libvirt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command prefix: what follows it runs where the installed schemas are hidden."""
    monkeypatch.delenv("NICPLUG_LIBVIRT_SCHEMAS", raising=False)
    place = libvirt_directory()
    hide = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {place} && exec "$@"', "sh"]
    if subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("hiding the installed schemas takes root and a mount namespace")
    return hide


def output(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=True, text=True, cwd="/"
    )
    return done.stdout.strip()


def test_mistakes_are_explained_wherever_nicplug_is_installed(tmp_path: Path) -> None:
    place = tmp_path / "100% in C#?"
    for name in ("nicplug_xml", "xmlschema"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import nicplug_xml; print(nicplug_xml.__file__, *nicplug_xml.validate('<backend type=\"x\"/>'))"
    said = output(sys.executable, "-c", code, PYTHONPATH=str(place))
    assert said == f"{place}/nicplug_xml/__init__.py 1:10: /backend/@type: type 'x' is not known"


def test_no_schemas_at_all_is_an_error(without_libvirt: list[str]) -> None:
    said = output(*without_libvirt, sys.executable, "-c", PRINT_VERDICT)
    assert said == (
        "libvirt's XML schemas were not found; install the Debian package libvirt0, "
        "or set NICPLUG_LIBVIRT_SCHEMAS to the directory that holds domain.rng"
    )


def test_xml_catalog_is_asked(tmp_path: Path, without_libvirt: list[str]) -> None:
    place = libvirt_directory()
    assert place is not None
    shutil.copytree(place, tmp_path / "copy")
    catalog = tmp_path / "catalog.xml"
    catalog.write_text(
        '<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">'
        f'<rewriteURI uriStartString="{place.as_uri()}/" rewritePrefix="{(tmp_path / "copy").as_uri()}/"/>'
        "</catalog>"
    )
    command = [*without_libvirt, sys.executable, "-c", PRINT_VERDICT]
    assert output(*command, XML_CATALOG_FILES=str(catalog)) == "[]"
    sample = samples("backend-valid")[0]
    lint = ["xmllint", "--noout", "--relaxng", str(schema_path("backend")), str(sample)]
    output(*without_libvirt, *lint, XML_CATALOG_FILES=str(catalog))


def test_installed_package_brings_its_schemas(tmp_path: Path) -> None:
    package = Path(nicplug_xml.__file__).parent
    shutil.copytree(package, tmp_path / "nicplug_xml")
    assert "nicplug's own schema" in output(sys.executable, "-c", PRINT_VERDICT, PYTHONPATH=str(tmp_path))
    shutil.copytree(schema_path("domain").parent, tmp_path / "nicplug_xml" / "xmlschema", dirs_exist_ok=True)
    assert output(sys.executable, "-c", PRINT_VERDICT, PYTHONPATH=str(tmp_path)) == "[]"
