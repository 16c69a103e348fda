"""How long 100 domain XML files take to validate: nicplug, libvirt's virt-xml-validate, and xmllint.

By itself it prints the ratios: ``python tests/benchmarks/validate.py [ROUNDS]``, without root and guests.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from figures import HEADERS, Compare, Figure, Goal
from timing import Variant, milliseconds, side_by_side, timed

from nicplug_xml._schema_files import libvirt_directory
from nicplug_xml.cli.output import table

_FILES = 100
_SAMPLES = Path(__file__).parents[1] / "unit" / "schema"
_VALID, _BROKEN = "stock/every-type.xml", "domain-invalid/several.xml"


def measure(workdir: Path, rounds: int) -> list[Figure]:
    """Measure over valid files, and over files of which every fourth is broken and has to be explained.

    :param workdir: for the files.
    :param rounds: how many rounds count; each takes virt-xml-validate some 10 seconds.
    """
    figures = []
    for what, every in ((f"validate {_FILES} files", 0), (f"validate {_FILES} files, a quarter broken", 4)):
        files = _files(workdir, every)
        ours, theirs, bare = side_by_side(
            rounds, _nicplug(files, bool(every)), _virt_xml_validate(files), _xmllint(files)
        )
        took = milliseconds(ours["all"])
        goal = Goal("≥", 10, "times faster")
        figures += [
            Figure(what, took, milliseconds(theirs["all"]), "virt-xml-validate", Compare.SPEEDUP, goal),
            Figure(what, took, milliseconds(bare["all"]), "one xmllint", Compare.RATIO),
        ]
    return figures


def _files(workdir: Path, every: int) -> list[str]:
    names = []
    for number in range(_FILES):
        broken = every and number % every == 0
        text = (_SAMPLES / (_BROKEN if broken else _VALID)).read_text()
        # No two domains are the same, nor are their MACs.
        text = text.replace("<name>", f"<name>{number}-")
        path = workdir / f"{every}-{number}.xml"
        path.write_text(text.replace("52:54:00:", f"52:54:{number:02x}:"))
        names.append(str(path))
    return names


def _nicplug(files: Sequence[str], broken: bool) -> Variant:
    command = [str(Path(sys.executable).with_name("nicplug")), "validate", *files]
    return lambda: {"all": timed(lambda: _run(command, {int(broken)}))}


def _virt_xml_validate(files: Sequence[str]) -> Variant:
    # It takes one file at a time, and prints a line for each. 3 says that one is not valid.
    script = 'for file; do virt-xml-validate "$file" domain || [ $? -eq 3 ] || exit 1; done'
    return lambda: {"all": timed(lambda: _run(["sh", "-c", script, "sh", *files], {0}))}


def _xmllint(files: Sequence[str]) -> Variant:
    directory = libvirt_directory()
    if directory is None:
        raise FileNotFoundError("libvirt's schemas")
    command = ["xmllint", "--noout", "--relaxng", str(directory / "domain.rng"), *files]
    return lambda: {"all": timed(lambda: _run(command, {0, 3}))}


def _run(command: Sequence[str], codes: set[int]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode not in codes:
        raise RuntimeError(f"{command[0]} ended with {ran.returncode}: {ran.stderr or ran.stdout}")


def main() -> int:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as workdir:
        figures = measure(Path(workdir), int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    print(table([figure.row() for figure in figures], HEADERS))
    return 0 if all(figure.met is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
