"""The error tree.

NicplugError
├── SchemaError        the XML is not what it should be; nothing was touched
│   └── UsageError     arguments that do not go together
├── NotFoundError      no such domain, interface, bridge, network; nothing was touched
├── UnsupportedError   understood, and cannot be done here; nothing was touched
└── OperationError     a step failed; says what was undone and what state the NIC is in
"""

from __future__ import annotations


class NicplugError(Exception):
    """What went wrong, why, and what to do about it, in one line.

    :param what: what could not be done, and why.
    :param hint: what the caller can do about it, or an empty string.
    """

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what}; {hint}" if hint else what)
        self.what = what
        self.hint = hint


class SchemaError(NicplugError):
    """The XML is malformed, refused, or not valid."""


class UsageError(SchemaError):
    """Arguments of a command do not go together."""


class NotFoundError(NicplugError):
    """Something that the caller named does not exist, or is not the only one of that name."""


class UnsupportedError(NicplugError):
    """The request is understood and cannot be carried out in this place."""


class OperationError(NicplugError):
    """Carrying out a plan failed; the message says what state the NIC is in now."""
