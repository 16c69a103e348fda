"""nicplug-xml(7): docs/format.md as a manual page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from roff import bold, escape, example, page, squeezed, table

_INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*|\[([^\]]+)\]\(([^)\s]+)\)")
#: Code, or lines up to an empty one or to code.
_BLOCK = re.compile(r"^```.*?^```$|(?:^(?!```)[^\n]+\n?)+", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"(?:(-)|(\d+\.)) +")


def render(version: str) -> str:
    """Return the page."""
    text = (Path(__file__).parents[1] / "format.md").read_text(encoding="utf-8")
    _, _, body = text.partition("\n")
    lines = [".SH DESCRIPTION", *_blocks(body)]
    lines += [".SH SEE ALSO", ".BR nicplug (1),", ".BR virsh (1)"]
    return page("nicplug-xml", 7, version, "the XML of nicplug: interfaces that can be plugged", lines)


def _blocks(text: str) -> Iterator[str]:
    for block in _BLOCK.findall(text):
        yield from _block(block.rstrip("\n"))


def _block(block: str) -> Iterator[str]:
    first, _, rest = block.partition("\n")
    if first.startswith("```"):
        yield from example(rest.splitlines()[:-1])
    elif heading := re.match(r"(##+) (.*)", first):
        yield f".S{'H' if heading[1] == '##' else 'S'} {_heading(heading[2], upper=heading[1] == '##')}"
        if rest:
            yield from _block(rest)
    elif first.startswith("|"):
        rows = [_cells(line) for line in block.splitlines() if line.startswith("|")]
        yield from table([rows[0], *rows[2:]])
    elif _ITEM.match(first):
        for item in re.split(r"\n(?=(?:-|\d+\.) )", block):
            mark = _ITEM.match(item)
            assert mark
            yield f".IP {mark[2] or chr(92) + '(bu'} 3"
            yield _inline(squeezed(item[mark.end() :]))
    else:
        yield ".PP"
        # A sentence a line, as roff has it, is for those who write it by hand.
        yield _inline(squeezed(block))


def _heading(text: str, upper: bool) -> str:
    plain = re.sub(r"[`*]", "", text)
    return f'"{escape(plain.upper() if upper else plain)}"'


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [_inline(cell.strip().replace("\\|", "|")) for cell in cells]


def _inline(text: str) -> str:
    done, start = [], 0
    for found in _INLINE.finditer(text):
        done.append(escape(text[start : found.start()]) if start else _begin(text[: found.start()]))
        code, strong, emphasis, label, address = found.groups()
        if label is not None:
            done.append(_inline(label) + (f" <{escape(address)}>" if "://" in address else ""))
        elif emphasis is not None:
            done.append(f"\\fI{escape(emphasis)}\\fR")
        else:
            done.append(bold(code or strong))
        start = found.end()
    rest = text[start:]
    return "".join(done) + (escape(rest) if start else _begin(rest))


def _begin(text: str) -> str:
    """Return the begin of a line, where two characters mean something of their own."""
    escaped = escape(text)
    return f"\\&{escaped}" if escaped.startswith(("\\(aq", "'")) else escaped
