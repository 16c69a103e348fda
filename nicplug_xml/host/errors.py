"""libvirt's errors, translated to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nicplug_xml.errors import (
    NicplugError,
    NotFoundError,
    OperationError,
    SchemaError,
    UnsupportedError,
)

if TYPE_CHECKING:
    import libvirt

#: virErrorNumber to the class that says what the caller should do; all others are an OperationError.
_CLASSES: dict[str, type[NicplugError]] = {
    "VIR_ERR_NO_DOMAIN": NotFoundError,
    "VIR_ERR_NO_NETWORK": NotFoundError,
    "VIR_ERR_NO_NWFILTER": NotFoundError,
    "VIR_ERR_DEVICE_MISSING": NotFoundError,
    "VIR_ERR_NO_SUPPORT": UnsupportedError,
    "VIR_ERR_OPERATION_UNSUPPORTED": UnsupportedError,
    "VIR_ERR_CONFIG_UNSUPPORTED": UnsupportedError,
    "VIR_ERR_ARGUMENT_UNSUPPORTED": UnsupportedError,
    "VIR_ERR_XML_ERROR": SchemaError,
    "VIR_ERR_XML_DETAIL": SchemaError,
    "VIR_ERR_XML_INVALID_SCHEMA": SchemaError,
}


@contextmanager
def translated(hint: str = "") -> Iterator[None]:
    """Raise what libvirt raises in the block as the `NicplugError` that fits it.

    :param hint: what the user can do about it, unless the connection is lost.
    """
    import libvirt

    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, hint) from error


def translate(error: libvirt.libvirtError, hint: str = "") -> NicplugError:
    """Return the `NicplugError` that fits a libvirt error; the message is libvirt's own."""
    import libvirt

    if error.get_error_domain() == libvirt.VIR_FROM_RPC:
        # Its own words are of sockets, and of the end of a file.
        hint = "the connection to libvirt is lost, before that was done or after: open another one, and look"
    code = error.get_error_code()
    if code == libvirt.VIR_ERR_INVALID_CONN:
        hint = "this program has closed its connection to libvirt: open another one"
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        hint = (
            "'virsh domjobinfo' tells what libvirt is doing, a migration or a save say; try again after that"
        )
    # What libvirt quotes of other programs may have lines.
    said = " ".join(str(error).split())
    for name, kind in _CLASSES.items():
        if getattr(libvirt, name) == code:
            return kind(said, hint=hint)
    return OperationError(said, hint=hint)
