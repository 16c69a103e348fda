"""Validate domain XML, and hold it against a rule of your own as well.

python house_rules.py guests/*.xml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from lxml import etree

import nicplug_xml
from nicplug_xml import Problem


def house_rules(path: Path) -> Iterator[Problem]:
    """Yield what is not as it is to be in this house: NICs that can be plugged have aliases."""
    tree = etree.parse(path)
    for nic in tree.iterfind("devices/interface[@connection]"):
        alias = nic.find("alias")
        if alias is None or not alias.get("name", "").startswith("ua-"):
            yield Problem(
                nic.sourceline, 0, tree.getpath(nic), "this NIC has no alias of ours",
                hint="add <alias name='ua-…'/>, and scripts can name it", code="house-alias",
            )  # fmt: skip


def problems(path: Path) -> list[Problem]:
    """Return all that is wrong with a file; a file that is not valid is not held against the rule."""
    return nicplug_xml.validate(path) or list(house_rules(path))


def main() -> int:
    """Print what is wrong; return 1 when there was something."""
    parser = argparse.ArgumentParser(description="Validate domain XML, with a rule of our own.")
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="domain XML")
    found = [(file, problem) for file in parser.parse_args().files for problem in problems(file)]
    for file, problem in found:
        print(f"{file}:{problem.line}: {problem.message}; {problem.hint} [{problem.code}]")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (nicplug_xml.NicplugError, OSError) as error:
        sys.exit(f"house_rules: {error}")
