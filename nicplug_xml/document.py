"""XML as text with a map: find elements, and splice the text that they span.

Everything that is not spliced stays as it is to the byte: comments, CDATA, entities, quotes, white space.
Documents with a DOCTYPE are refused, so no entity of theirs is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NoReturn
from xml.parsers import expat

from nicplug_xml.errors import SchemaError

#: Target of the processing instructions that are ours.
MARK = "nicplug"

#: As libxml2 has it, so that libvirt would refuse what is deeper.
_DEEPEST = 256
_TOO_DEEP = f"elements are nested more than {_DEEPEST} deep, as in no domain"

_ATTRIBUTE = re.compile(rb"""(\s+)([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_START_TAG = re.compile(rb"""<[^\s/>]+((?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*/?>""")
_SPACE = re.compile(rb"[ \t\r\n]*")
_NO_TEXT = re.compile(rb"(?:[ \t\r\n]|<!--.*?-->|<\?.*?\?>)*", re.DOTALL)
_SPECIAL = re.compile(r"""[&<\t\n\r'"]""")


#: Bytes; to skip fewer takes longer than to tell of them.
_WORTH_IT = 100

#: What of a document's bytes nobody needs to find: the parent's tag, and a span that starts behind a tag.
_Skip = Callable[[bytes], Iterable[tuple[str, int, int]]]


class Element:
    """One element and where it stands in the document's UTF-8 bytes.

    :ivar tag: local name, or ``"URI name"`` for an element in a namespace.
    :ivar name: the tag without its namespace.
    :ivar attributes: attributes with entities expanded; one in a namespace is named ``"URI name"``.
    :ivar start: offset of its ``<``.
    :ivar close: offset of its end tag; the same as `end` for ``<an-empty-element-tag/>``.
    :ivar end: offset of the first byte behind it.
    :ivar children: the elements directly below it, in document order.
    """

    # Elements know the text and not the document: without cycles they go with it, and cost no collection.
    __slots__ = ("_data", "_start_tag", "attributes", "children", "close", "end", "name", "start", "tag")

    def __init__(self, data: bytes, tag: str, attributes: dict[str, str], start: int) -> None:
        self._data = data
        self.tag = tag
        self.name = tag.rpartition(" ")[2] if " " in tag else tag
        self.attributes = attributes
        self.start = self.close = self.end = start
        self.children: Sequence[Element] = ()
        self._start_tag: re.Match[bytes] | None = None

    def __iter__(self) -> Iterator[Element]:
        return iter(self.children)

    def __repr__(self) -> str:
        return f"<Element {self.tag} {self.attributes}>"

    @property
    def open_end(self) -> int:
        """Offset of the first byte behind the start tag."""
        return self.start_tag.end()

    @property
    def start_tag(self) -> re.Match[bytes]:
        """The start tag, matched; group 1 is its attributes."""
        if self._start_tag is None:
            self._start_tag = _START_TAG.match(self._data, self.start)
        if self._start_tag is None:
            raise AssertionError("expat has accepted this start tag")
        return self._start_tag

    @property
    def prefix(self) -> str:
        """The prefix that its name is written with, colon included, or an empty string."""
        prefix, colon, _ = self.start_tag[0][1:].split(None, 1)[0].partition(b":")
        return (prefix + colon).decode() if colon else ""

    @property
    def text(self) -> str:
        """The element as it is written, from its first ``<`` to its last ``>``."""
        return self._data[self.start : self.end].decode()

    @property
    def words(self) -> str:
        """What the text in it says: references expanded, comments left out, no white space around it."""
        words: list[str] = []
        parser = expat.ParserCreate()
        parser.CharacterDataHandler = words.append
        parser.Parse(self.text, True)
        return "".join(words).strip()

    def place(self, attribute: str = "") -> tuple[int, int]:
        """Return line and column, both from 1, of the element or of an attribute of it.

        :param attribute: its name, as lxml has it.
        """
        for match in _ATTRIBUTE.finditer(self._data, *self.start_tag.span(1)) if attribute else ():
            if match[2].rpartition(b":")[2].decode() == attribute.rpartition("}")[2]:
                return self._place(match.start(2))
        return self._place(self.start)

    def place_of_text(self, behind: int) -> tuple[int, int]:
        """Return line and column of a text in it.

        :param behind: how many of its children are before the text.
        """
        start = self.children[behind - 1].end if behind else self.open_end
        match = _NO_TEXT.match(self._data, start)
        return self._place(match.end() if match else start)

    def _place(self, offset: int) -> tuple[int, int]:
        line_start = self._data.rfind(b"\n", 0, offset) + 1
        column = len(self._data[line_start:offset].decode("utf-8", "replace").lstrip("\ufeff")) + 1
        return self._data.count(b"\n", 0, offset) + 1, column

    def find(self, name: str) -> Element | None:
        """Return the first child of that name, whatever its namespace, or None."""
        for child in self.children:
            if name in (child.name, child.tag):
                return child
        return None

    def get(self, child: str, attribute: str) -> str | None:
        """Return an attribute of the first child of that name, or None when either is missing."""
        found = self.find(child)
        return None if found is None else found.attributes.get(attribute)

    def words_of(self, child: str) -> str:
        """Return the `words` of the first child of that name, or an empty string without one."""
        found = self.find(child)
        return "" if found is None else found.words

    def with_children(self, *children: Element) -> Element:
        """Return the same element with other children; what is written in it stays as it is."""
        element = Element(self._data, self.tag, self.attributes, self.start)
        element.close, element.end, element.children = self.close, self.end, children
        return element

    def below(self) -> Iterator[Element]:
        """Yield every element below this one, in document order."""
        for child in self.children:
            yield child
            yield from child.below()


class Document:
    """A parsed document and the edits made to it so far; `edited` carries them out.

    :param text: well-formed XML without a DOCTYPE. What an encoding declaration in it says is not
        looked at: the text is decoded already.
    :param skip: which spans nobody needs to find anything in; one that begins before another's end is not
        skipped. Where they hold whole elements, these are only checked to be well-formed, which takes a
        fraction of the time.
    :raises SchemaError: it is not well-formed, or it has a DOCTYPE.
    :ivar marks: our own processing instructions, ``<?nicplug TEXT?>``: text, offset, end.
    """

    def __init__(self, text: str, skip: _Skip | None = None) -> None:
        self._edits: list[tuple[int, int, bytes]] = []
        self.data, self.marks, self.root = _fragment(text) if skip is None else _build(text, skip)

    def space_after(self, offset: int) -> bytes:
        """Return the run of white space that starts at `offset`."""
        match = _SPACE.match(self.data, offset)
        return match[0] if match else b""

    def space_before(self, offset: int) -> bytes:
        """Return the run of white space that ends at `offset`."""
        start = offset
        while start and self.data[start - 1] in b" \t\r\n":
            start -= 1
        return self.data[start:offset]

    def replace(self, start: int, end: int, text: str | bytes) -> None:
        """Put `text` where the bytes from `start` to `end` are; equal offsets insert."""
        self._edits.append((start, end, text.encode() if isinstance(text, str) else text))

    def remove(self, element: Element) -> None:
        """Take `element` out, and the white space before it."""
        self.replace(element.start - len(self.space_before(element.start)), element.end, b"")

    def prepend(self, parent: Element, *children: str) -> None:
        """Put children first in `parent`, each on a line of its own where the others are."""
        space = self.space_after(parent.open_end)
        text = b"".join(space + child.encode() for child in children)
        if parent.close == parent.end:  # <empty/> becomes <empty>...</empty>
            end = b"</" + self.data[parent.start : parent.end - 2].split(None, 1)[0][1:] + b">"
            before = [edit for edit in self._edits if edit[:2] == (parent.end - 2, parent.end)]
            for edit in before:  # it has been given children already
                self._edits.remove(edit)
                text = edit[2].removeprefix(b">").removesuffix(end) + text
            self.replace(parent.end - 2, parent.end, b">" + text + end)
        else:
            self.replace(parent.open_end, parent.open_end, text)

    def insert_after(self, element: Element, *siblings: str) -> None:
        """Put siblings behind `element`, each on a line of its own, and indented, where it is so."""
        space = self.space_before(element.start).decode()
        text = "".join(space + _indented(sibling, space) for sibling in siblings)
        self.replace(element.end, element.end, text)

    def set_attribute(self, element: Element, name: str, value: str | None) -> None:
        """Set an attribute that is in no namespace; None takes it out, with the white space before it."""
        attributes = element.start_tag
        for match in _ATTRIBUTE.finditer(self.data, *attributes.span(1)):
            if match[2] == name.encode():
                if value is None:
                    self.replace(match.start(), match.end(), b"")
                else:
                    self.replace(*match.span(3), quoted(value, chr(match[3][0])))
                return
        if value is not None:
            self.replace(attributes.end(1), attributes.end(1), f" {name}={quoted(value)}")

    def edited(self) -> str:
        """Return the text with all edits made; insertions at one place stand in the order they came."""
        parts: list[bytes] = []
        at = 0
        for start, end, text in sorted(self._edits, key=lambda edit: edit[:2]):
            parts += (self.data[at:start], text)
            at = end
        parts.append(self.data[at:])
        return b"".join(parts).decode("utf-8", "surrogatepass")


_Mark = tuple[str, int, int]


def _build(text: str, skip: _Skip | None = None) -> tuple[bytes, Sequence[_Mark], Element]:
    """Make elements of what expat tells; with functions that share variables, since most time goes there."""
    data = text.encode("utf-8", "surrogatepass")
    parser = expat.ParserCreate("utf-8", " ")
    marks: list[_Mark] = []
    children: list[Element] = []  # of the innermost element that is open
    opened: list[tuple[Element, list[Element]]] = []  # with the list that each is in

    def started(tag: str, attributes: dict[str, str]) -> None:
        nonlocal children
        element = Element(data, tag, attributes, parser.CurrentByteIndex)
        if len(opened) == _DEEPEST:
            raise SchemaError(_TOO_DEEP)
        children.append(element)
        opened.append((element, children))
        element.children = children = []

    def ended(_tag: str) -> None:
        nonlocal children
        element, children = opened.pop()
        element.close = element.end = at = parser.CurrentByteIndex
        # Behind an empty-element tag expat stands at its end, otherwise at the start of the end tag.
        if data[at : at + 2] != b"</":
            return
        if data[at - 2 : at] != b"/>" or element.children or element.open_end != at:
            element.end = data.index(b">", at) + 1

    def marked(target: str, text: str) -> None:
        if target == MARK:
            at = parser.CurrentByteIndex
            marks.append((text, at, data.index(b"?>", at) + 2))

    def tell(part: bytes, *, last: bool = False) -> None:
        parser.StartElementHandler, parser.EndElementHandler = started, ended
        _parse(parser, part, last=last)

    parser.ProcessingInstructionHandler = marked
    at = 0
    try:
        for tag, start, end in skip(data) if skip else ():
            if start < at or end - start < _WORTH_IT:
                continue
            tell(data[at:start])
            at = start
            parent = opened[-1][0] if opened else None
            if parent and parent.tag == tag and _is_whole(data, parent, start, end, len(opened)):
                parser.StartElementHandler = parser.EndElementHandler = None
                _parse(parser, data[start:end], last=False)
                at = end
        tell(data[at:], last=True)
    finally:  # its handlers know it
        parser.StartElementHandler = parser.EndElementHandler = parser.ProcessingInstructionHandler = None
    return data, marks, children[0]


def _is_whole(data: bytes, parent: Element, start: int, end: int, depth: int) -> bool:
    """Whether all from `start` to `end`, in an element that is open, is text and whole elements."""
    # Anywhere but right behind a tag, it could be in a comment.
    if start != (parent.children[-1].end if parent.children else parent.open_end):
        return False
    for other in (b"<!", b"<?", b"</" + parent.tag.encode()):
        if data.find(other, start, end) >= 0:
            return False
    # Without comments and the like each < starts a tag. With as many > these end tags, and are in no text.
    tags, ends = data.count(b"<", start, end), data.count(b"</", start, end)
    if data.count(b">", start, end) != tags or data.count(b"/>", start, end) != tags - 2 * ends:
        return False
    return depth + ends < _DEEPEST


#: One operation comes across the same interface, backend or metadata several times; nothing changes elements.
_fragment = lru_cache(maxsize=128)(_build)


def check(text: str) -> None:
    """Check that `text` is well-formed XML without a DOCTYPE.

    :raises SchemaError: it is not.
    """
    _parse(expat.ParserCreate("utf-8", " "), text.encode("utf-8", "surrogatepass"))


def decode(data: bytes) -> tuple[str, str]:
    """Decode an XML document by its byte order mark, its first bytes and its declaration.

    :param data: the document's bytes.
    :returns: its text, a byte order mark included, and the name of the encoding that gives `data` back.
    :raises SchemaError: the encoding is unknown, or the bytes are not of it.
    """
    encoding = "utf-8"
    if data[:2] in (b"\xff\xfe", b"<\0"):
        encoding = "utf-16-le"
    elif data[:2] in (b"\xfe\xff", b"\0<"):
        encoding = "utf-16-be"
    elif declared := re.match(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", data):
        encoding = declared[1].decode()
    try:
        return data.decode(encoding), encoding
    except (LookupError, UnicodeError) as error:
        raise SchemaError(
            f"the document cannot be read as {encoding}: {error}", hint="save it as UTF-8"
        ) from error


def quoted(value: str, quote: str = "'") -> str:
    """Return `value` as an attribute's value, quotes included."""
    if _SPECIAL.search(value):
        for raw, reference in (
            ("&", "&amp;"),
            ("<", "&lt;"),
            ("\t", "&#9;"),
            ("\n", "&#10;"),
            ("\r", "&#13;"),
            (quote, f"&#{ord(quote)};"),
        ):
            value = value.replace(raw, reference)
    return f"{quote}{value}{quote}"


def _indented(xml: str, space: str) -> str:
    """Return XML of several lines with its last line indented as `space` says, the others along with it."""
    last = xml.rpartition("\n")[2]
    old = last[: len(last) - len(last.lstrip())]
    return xml.replace(f"\n{old}", f"\n{space.rpartition(chr(10))[2]}") if "\n" in space else xml


def _refuse_doctype(*_: object) -> NoReturn:
    raise SchemaError(
        "the document has a DOCTYPE, which is refused: it could name entities and files",
        hint="take the <!DOCTYPE ...> out",
    )


def _parse(parser: expat.XMLParserType, data: bytes, *, last: bool = True) -> None:
    parser.StartDoctypeDeclHandler = _refuse_doctype
    # Where the first two bytes are a "<" and a NUL, expat takes all for UTF-16, whatever it was told.
    if b"\0" in data[:2]:
        raise SchemaError("not well-formed XML: there is a NUL in it")
    try:
        parser.Parse(data, last)
    except expat.ExpatError as error:
        raise SchemaError(
            f"line {error.lineno}, column {error.offset + 1}: not well-formed XML: "
            f"{expat.ErrorString(error.code)}"
        ) from error
