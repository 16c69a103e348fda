"""docs/json.md as a schema: what it says of each object is what an object may be, no more and no less."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "json.md"

_SIMPLE: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def objects() -> dict[str, dict[str, str]]:
    """Return the types of the fields of each object, by its heading in lower case."""
    found = {}
    for title, text in re.findall(r"^##+ (.+)\n((?:(?!##).*\n)*)", DOCUMENT.read_text(), re.MULTILINE):
        found[title.lower()] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE))
    return found


@cache
def commands() -> dict[str, str]:
    """Return what each command prints, as the table at the top has it."""
    rows = re.findall(
        r"^\| ((?:`[\w-]+`(?:, )?)+) \| (.+) \|$", DOCUMENT.read_text().split("\n## ")[0], re.MULTILINE
    )
    plain = ((names, re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", printed)) for names, printed in rows)
    return {name: printed for names, printed in plain for name in re.findall(r"[\w-]+", names)}


def check(value: object, kind: str, where: str = "$") -> None:
    """Check that a value is what the page says.

    :param kind: a type as the page writes it: ``list of interface``, ``"up" or "down"``.
    """
    errors = []
    for alternative in kind.split(" or "):
        try:
            _check(value, alternative.strip(), where)
        except AssertionError as error:
            errors.append(str(error))
        else:
            return
    raise AssertionError("; ".join(errors))


def _check(value: object, kind: str, where: str) -> None:
    if kind.startswith('"'):
        assert value == kind.strip('"'), f"{where} is {value!r}, not {kind}"
    elif kind in _SIMPLE:
        assert isinstance(value, _SIMPLE[kind]), f"{where} is {value!r}, no {kind}"
        assert kind == "boolean" or not isinstance(value, bool), f"{where} is {value!r}, no {kind}"
    elif kind.startswith("list of "):
        assert isinstance(value, list), f"{where} is no list"
        for number, item in enumerate(value):
            check(item, kind.removeprefix("list of "), f"{where}[{number}]")
    elif kind.startswith("object of "):
        assert isinstance(value, dict), f"{where} is no object"
        for key, item in value.items():
            check(item, kind.removeprefix("object of "), f"{where}.{key}")
    else:
        fields = objects()[kind]
        assert fields, f"docs/json.md has no fields of '{kind}'"
        assert isinstance(value, dict), f"{where} is no object"
        assert list(value) == list(fields), f"{where} has {list(value)}, and docs/json.md {list(fields)}"
        for key, item in value.items():
            check(item, fields[key], f"{where}.{key}")
