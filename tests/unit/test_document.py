"""XML as text: spans, splices, refusals."""

from __future__ import annotations

import pytest

from nicplug_xml import document
from nicplug_xml.document import Document, Element, check, decode, quoted
from nicplug_xml.errors import SchemaError


@pytest.mark.parametrize(
    "text",
    [
        "<a/>",
        "<a />",
        "<a></a >",
        "<a>/></a>",
        "<a b='>'/>",
        "<a b='/>'></a>",
        "<é ü='1'>ß<b/>ß</é>",
        "<a><!-- <b/> --><![CDATA[<b/>]]></a>",
        "\ufeff<a/>",
        "<?xml version='1.0' encoding='latin-1'?><a>é</a>",
    ],
)
def test_spans_cover_the_element(text: str) -> None:
    document = Document(text)
    start = text.index("<a") if "<a" in text else text.index("<é")
    assert document.root.text == text[start:]
    assert document.edited() == text


def test_words() -> None:
    root = Document(
        "<a><name> x<!-- y -->&amp;<![CDATA[<z>]]>&#228;\n</name><x:b xmlns:x='u'>1</x:b></a>"
    ).root
    assert [child.words for child in root] == ["x&<z>ä", "1"]


def test_nested_spans() -> None:
    root = Document("<a><b x='1'/>text<c>/></c><d ></d ></a>").root
    assert [child.text for child in root] == ["<b x='1'/>", "<c>/></c>", "<d ></d >"]
    assert [child.words for child in root] == ["", "/>", ""]


def skipping(monkeypatch: pytest.MonkeyPatch, marked: str) -> tuple[Document, Document]:
    """Return a document as it is, and with what is between [ and ] skipped where it can be."""
    monkeypatch.setattr(document, "_WORTH_IT", 0)
    start, end = marked.index("["), marked.index("]") - 1
    text = marked.replace("[", "").replace("]", "")
    return Document(text), Document(text, skip=lambda _: [("a", start, end)])


@pytest.mark.parametrize(
    "skipped", ["<b/>", "<b></b >", "x<b y='/'>/<c/>z</b>", "\r\n<b/>\r", "<d:b xmlns:d='u'/>", ""]
)
def test_whole_elements_are_skipped(monkeypatch: pytest.MonkeyPatch, skipped: str) -> None:
    whole, found = skipping(monkeypatch, f"<a>[{skipped}]<c><b/></c></a>")
    assert [child.text for child in found.root] == ["<c><b/></c>"]
    assert [child.text for child in whole.root][-1:] == ["<c><b/></c>"]


@pytest.mark.parametrize(
    "marked",
    [
        "<b>[<c/>]</b>",
        "<a>[<b>]<c/></b></a>",
        "<a>[<b>/>]<c/></b></a>",
        "<a>[<b><!-- </b/> -->]<c/></b></a>",
        "<a>[<b><?p </b/> ?>]<c/></b></a>",
        "<a><a>[</a><a>]<c/></a></a>",
        "<a><a>[</a ><a >]<c/></a></a>",
        "<a><b>[</b><b>]<c/></b></a>",
        "<a><!-- [</b/> <b --><b>]<c/></b></a>",
    ],
)
def test_what_is_no_whole_element_is_not_skipped(monkeypatch: pytest.MonkeyPatch, marked: str) -> None:
    def spans(root: Element) -> list[tuple[str, int, int]]:
        return [(element.tag, element.start, element.end) for element in root.below()]

    whole, found = skipping(monkeypatch, marked)
    assert spans(found.root) == spans(whole.root)


@pytest.mark.parametrize("skip", [None, lambda data: [("a", 3, len(data) - 4)]])
def test_what_is_too_deep_is_refused_even_where_it_is_skipped(skip: object) -> None:
    deep = "<b>" * 255 + "</b>" * 255
    assert Document(f"<a>{deep}</a>", skip=skip).root.tag == "a"
    with pytest.raises(SchemaError, match="256 deep"):
        Document(f"<a><b>{deep}</b></a>", skip=skip)
    with pytest.raises(SchemaError, match="256 deep"):
        Document(f"<a>{deep.replace('<b></b>', '<b><c/></b>')}</a>", skip=skip)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2", "<a x='2' y=\"z\"/>"), (None, '<a y="z"/>'), ("a'b<&", "<a x='a&#39;b&lt;&amp;' y=\"z\"/>")],
)
def test_set_attribute(value: str | None, expected: str) -> None:
    document = Document("<a x='1' y=\"z\"/>")
    document.set_attribute(document.root, "x", value)
    assert document.edited() == expected


def test_set_attribute_adds() -> None:
    document = Document("<a x='&#10;'><b/></a>")
    document.set_attribute(document.root, "z", 'say "hi"\n')
    assert Document(document.edited()).root.attributes == {"x": "\n", "z": 'say "hi"\n'}


def test_prepend_and_insert_after_keep_the_layout() -> None:
    document = Document("<a>\n  <b/>\n</a>")
    document.prepend(document.root, "<first/>")
    document.insert_after(document.root.children[0], "<c>\n        <d/>\n      </c>")
    assert document.edited() == "<a>\n  <first/>\n  <b/>\n  <c>\n    <d/>\n  </c>\n</a>"


def test_prepend_to_an_empty_tag() -> None:
    document = Document("<a x='1'/>")
    document.prepend(document.root, "<b/>", "<c/>")
    assert document.edited() == "<a x='1'><b/><c/></a>"


def test_remove_takes_the_space_before() -> None:
    document = Document("<a>\n  <b/>\n  <c/>\n</a>")
    document.remove(document.root.children[1])
    assert document.edited() == "<a>\n  <b/>\n</a>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<!DOCTYPE a><a/>", "DOCTYPE"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "DOCTYPE"),
        ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", "DOCTYPE"),
        ("<!DOCTYPE a [<!ENTITY x 'y'><!ENTITY z '&x;&x;'>]><a>&z;</a>", "DOCTYPE"),
        ("<a>&unknown;</a>", "line 1, column 4"),
        ("<a><b></a>", "not well-formed"),
        ("<a xmlns:x='u'><y:b/></a>", "unbound prefix"),
        ("", "no element found"),
        ("<a/><b/>", "junk"),
        ("<a>\ud800</a>", "not well-formed"),
        ("<\0a\0/\0>\0", "not well-formed"),
        ("\0<\0a\0/\0>", "not well-formed"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why):
        Document(text)
    with pytest.raises(SchemaError, match=why):
        check(text)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be", "cp1252"])
def test_decode_gives_the_bytes_back(encoding: str, mark: str) -> None:
    mark = mark if encoding.startswith("utf-16") else ""
    data = f"{mark}<?xml version='1.0' encoding=\"{encoding}\"?><a>é</a>".encode(encoding)
    text, found = decode(data)
    assert "é" in text
    assert text.encode(found) == data


@pytest.mark.parametrize("data", [b"<a>\xff</a>", b"<?xml version='1.0' encoding='klingon'?><a/>"])
def test_decode_refuses(data: bytes) -> None:
    with pytest.raises(SchemaError, match="cannot be read as"):
        decode(data)


@pytest.mark.parametrize("value", ["plain", "it's", 'say "x"', "<&>", "a\nb", "ß"])
def test_quoted_is_read_back(value: str) -> None:
    for quote in "'\"":
        assert Document(f"<a b={quoted(value, quote)}/>").root.attributes == {"b": value}
