"""libvirt's errors as ours."""

from __future__ import annotations

import libvirt
import pytest

from nicplug_xml.errors import OperationError
from nicplug_xml.host.errors import translated


def test_a_domain_that_libvirt_is_at_work_on() -> None:
    """As in a migration: libvirt waits for half a minute then."""
    error = libvirt.libvirtError("busy")
    said = "Timed out during operation: cannot acquire state change lock (held by monitor=…)"
    error.err = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_FROM_QEMU, said, 2, "", "", "", 0, 0)
    with pytest.raises(OperationError, match="'virsh domjobinfo' tells"), translated("look elsewhere"):
        raise error
