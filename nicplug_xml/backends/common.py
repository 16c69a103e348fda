"""What backends share."""

from __future__ import annotations

from nicplug_xml.errors import SchemaError
from nicplug_xml.model import Backend


def as_it_is(backend: Backend) -> Backend:
    """Return the backend as it can be plugged in again: what a running guest's XML has of it will do."""
    return backend


def required(backend: Backend, attribute: str) -> str:
    """Return an attribute of the backend's ``<source>``.

    :raises SchemaError: it is not there.
    """
    value = backend.source.get(attribute)
    if not value:
        raise SchemaError(
            f"the backend of type '{backend.type}' does not say where to",
            hint=f"give it a <source {attribute}='…'/>",
        )
    return value
