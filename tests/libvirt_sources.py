"""The domain XML files that libvirt's source package has as test data: fetched once, kept in the cache."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from nicplug_xml.testing.commands import cache_directory

FETCH = Path(__file__).parents[1] / "patches" / "debian-source"


class SourcesError(Exception):
    """libvirt's source package cannot be had."""


def libvirt_source() -> Path:
    """Return the directory of libvirt's source, as Debian has it for this release.

    :raises SourcesError: it is not in the cache, and cannot be fetched.
    """
    directory = cache_directory() / "libvirt-source"
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="libvirt-source.", dir=directory.parent) as scratch:
        package, source = Path(scratch, "package"), Path(scratch, "source")
        # An end by a signal lets the script remove what it has begun.
        command = ["timeout", "300", FETCH, "libvirt", package]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise SourcesError((fetched.stderr or fetched.stdout).strip()[-500:])
        (tarball,) = (path for path in package.glob("*.orig.tar.*") if path.suffix != ".asc")
        source.mkdir()
        subprocess.run(["tar", "-xf", tarball, "-C", source, "--strip-components=1"], check=True)
        source.rename(directory)
    return directory


@cache
def domain_files() -> tuple[Path, ...]:
    """Return the files whose root is ``<domain>``, without links to others of them."""
    from lxml import etree

    found = []
    for path in sorted(libvirt_source().joinpath("tests").rglob("*.xml")):
        if path.is_symlink():
            continue
        try:
            root = etree.parse(path).getroot()
        except etree.XMLSyntaxError:
            continue
        if root.tag == "domain":
            found.append(path)
    return tuple(found)
