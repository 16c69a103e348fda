"""Who says what of the same broken files: nicplug, virt-xml-validate, xmllint; the table in docs/validate.md.

Run it to see the table, or with ``--write`` to put it into the document; a test holds the document to it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nicplug_xml._schema_files import schema_path

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "tests" / "unit" / "schema"
DOCUMENT = ROOT / "docs" / "validate.md"
BEGIN, END = "<!-- made by tests/validators.py -->\n", "<!-- until here -->\n"

#: What is wrong, and in which files.
BROKEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a value misspelt", ("domain-invalid/connection-misspelt-value.xml",)),
    ("the attribute misspelt", ("domain-invalid/connection-misspelt.xml",)),
    ("a type misspelt", ("domain-invalid/type-misspelt.xml",)),
    ("an element misspelt", ("domain-invalid/unknown-child.xml",)),
    ("a source of another type", ("domain-invalid/deferred-wrong-source.xml",)),
    ("no source", ("domain-invalid/attached-bridge-without-source.xml",)),
    ("`deferred` on a passed-through device", ("domain-invalid/hostdev-deferred.xml",)),
    ("an attribute that there is not", ("domain-invalid/unknown-source-attribute.xml",)),
    ("words for a number", ("domain-invalid/bad-memory.xml",)),
    ("a model that there is not", ("stock/invalid-device.xml",)),
    ("a VLAN tag too large, in a backend document", ("backend-invalid/vlan-tag-too-large.xml",)),
    ("the same MAC in two domains", ("together/same-mac-vm1.xml", "together/same-mac-vm2.xml")),
    ("a cable that does not come back", ("together/cable-vm1.xml", "together/cable-vm2.xml")),
    ("a device name too long for the kernel", ("together/long-target.xml",)),
)


def table() -> str:
    """Return the table, as Markdown."""
    lines = ["| broken | `nicplug validate` | `virt-xml-validate` | `xmllint --relaxng` with our schema |"]
    lines.append("| --- | --- | --- | --- |")
    for what, files in BROKEN:
        said = (_nicplug(files), _virt_xml_validate(files), _xmllint(files))
        cells = ("<br>".join(_cell(line) for line in lines) or "valid" for lines in said)
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """Return the document with the table in its place."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def _cell(line: str) -> str:
    return f"`{line}`".replace("|", "\\|")


def _nicplug(files: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "nicplug_xml", "validate", *files]
    ran = subprocess.run(command, cwd=SAMPLES, capture_output=True, text=True, check=False)
    found = [line for line in ran.stdout.splitlines() if line.startswith(tuple(files))]
    return [_without_files(line.partition(".xml:")[2].rpartition(" [")[0]) for line in found]


def _without_files(text: str) -> str:
    return re.sub(r"[\w-]+/([\w-]+\.xml)", r"\1", text)


def _virt_xml_validate(files: Sequence[str]) -> list[str]:
    return [line for file in files for line in _ran(["virt-xml-validate", file])]


def _xmllint(files: Sequence[str]) -> list[str]:
    kind = "backend" if files[0].startswith("backend") else "domain"
    return _ran(["xmllint", "--noout", "--relaxng", str(schema_path(kind)), *files])


def _ran(command: Sequence[str]) -> list[str]:
    """Return what a validator says, without file names, and without what it says of every bad file."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(command, cwd=SAMPLES, capture_output=True, text=True, check=False, env=environment)
    said = []
    for line in (ran.stderr + ran.stdout).splitlines():
        line = re.sub(r"^\S+\.xml:(\d+): (element \w+: )?", r"\1: ", line)
        line = line.replace("Relax-NG validity error : ", "")
        if line and not re.search(r"\.xml (fails to validate|validates)$", line):
            said.append(_without_files(line.removeprefix("/usr/bin/")))
    return said


def main() -> int:
    """Print the table, or write it."""
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(written())
    else:
        print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
