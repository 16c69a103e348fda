"""Guests that are saved once they have booted, so that those which are the same start without booting."""

from __future__ import annotations

import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.guest import Guest

_INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE
#: What a guest does not see, and what may be another place each time.
_UNSEEN = re.compile(r"<metadata>.*?</metadata>|<source [^>]*>", re.DOTALL)


class SavedBoots:
    """What has booted, as libvirt saves it (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainSave).

    A guest is saved when the second one of its kind has booted: many kinds come once, and to save one takes
    half as long as a boot. Guests are the same when the guest itself sees no difference, and when their
    domains have the same name and UUID, which libvirt asks for.

    :param directory: for the files, some 90 MB each; several processes may share it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self, dom: libvirt.virDomain, console: Path) -> libvirt.virDomain:
        """Start a domain from where one of its kind was saved; one whose kind was not boots.

        :param console: the file that it logs to, which then begins with what the other one has logged.
        :returns: the domain, as it is looked up now that it runs.
        :raises libvirt.libvirtError: it does not start.
        """
        saved = self._file(dom)
        conn = dom.connect()
        if saved.exists():
            shutil.copyfile(saved.with_suffix(".log"), console)
            conn.restoreFlags(str(saved), dom.XMLDesc(_INACTIVE))
        else:
            dom.create()
        return conn.lookupByUUIDString(dom.UUIDString())

    def keep(self, guest: Guest) -> bool:
        """Save a guest that has booted and that nobody has touched yet, if it is time; and have it go on.

        One that cannot be saved goes on as it is, and none of its kind is tried again.

        :returns: whether it was saved: then it is ready again in a moment.
        :raises libvirt.libvirtError: it was saved, and does not go on.
        """
        import libvirt

        saved = self._file(guest.dom)
        first, never = saved.with_suffix(".first"), saved.with_suffix(".never")
        if saved.exists() or never.exists() or not guest.dom.isPersistent():
            return False
        if not first.exists():
            first.touch()
            return False
        # Another process may be at the same.
        ours = saved.with_suffix(f".{os.getpid()}")
        try:
            guest.dom.save(str(ours))
        except libvirt.libvirtError:
            # There are devices that QEMU does not save: shared memory, say.
            never.touch()
            return False
        shutil.copyfile(guest.console, saved.with_suffix(".log"))
        ours.rename(saved)
        guest.dom = self.start(guest.dom, guest.console)
        return True

    def _file(self, dom: libvirt.virDomain) -> Path:
        conn, seen = dom.connect(), _UNSEEN.sub("", dom.XMLDesc(_INACTIVE))
        kind = f"{conn.getLibVersion()} {conn.getVersion()} {seen}"
        return self._directory / sha256(kind.encode()).hexdigest()
