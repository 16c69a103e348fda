"""Where the elements and attributes of a document are: line and column, which libxml2 does not keep."""

from __future__ import annotations

import re
from functools import cached_property
from xml.parsers import expat

from nicplug_xml.document import decode
from nicplug_xml.errors import SchemaError

_ATTRIBUTE = re.compile(rb"""\s([^\s=<>]+)\s*=\s*(?:"[^"]*"|'[^']*')""")


class Places:
    """The places of a document.

    :param source: the document; bytes are decoded as they declare.
    """

    def __init__(self, source: str | bytes) -> None:
        self._source = source

    def of(self, number: int, attribute: str = "") -> tuple[int, int] | None:
        """Return line and column, both from 1, of an element or of an attribute of it; None if unknown.

        :param number: how many elements begin before it.
        :param attribute: its name, as lxml has it.
        """
        starts = self._read[1]
        return self.at(starts[number], attribute) if number < len(starts) else None

    def at(self, offset: int, attribute: str = "") -> tuple[int, int]:
        """Return line and column of an element, or of an attribute of it.

        :param offset: where in the document, as UTF-8, the element begins.
        """
        data = self._read[0]
        for match in _ATTRIBUTE.finditer(data, offset, _tag_end(data, offset)) if attribute else ():
            if match[1].rpartition(b":")[2].decode() == attribute.rpartition("}")[2]:
                offset = match.start(1)
                break
        line_start = data.rfind(b"\n", 0, offset) + 1
        column = len(data[line_start:offset].decode("utf-8", "replace").lstrip("\ufeff")) + 1
        return data.count(b"\n", 0, offset) + 1, column

    @cached_property
    def _read(self) -> tuple[bytes, list[int]]:
        starts: list[int] = []
        parser = expat.ParserCreate("utf-8", " ")
        parser.StartElementHandler = lambda *_: starts.append(parser.CurrentByteIndex)
        data = b""
        try:
            text = self._source if isinstance(self._source, str) else decode(self._source)[0]
            data = text.encode("utf-8", "surrogatepass")
            parser.Parse(data, True)
        except (SchemaError, expat.ExpatError):
            # libxml2 reads a few things that others do not: the line that it knows has to do.
            starts.clear()
        finally:
            parser.StartElementHandler = None
        return data, starts


def _tag_end(data: bytes, start: int) -> int:
    match = re.compile(rb"""<(?:[^"'<>]|"[^"]*"|'[^']*')*>""").match(data, start)
    return match.end() if match else start
