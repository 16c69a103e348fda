"""Plug, move and unplug the NICs of libvirt guests while they run.

The names below are the public API. They are imported when first used, so that the command starts fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, whose import is half of what the command takes to start
if TYPE_CHECKING:
    from nicplug_xml.errors import (
        NicplugError,
        NotFoundError,
        OperationError,
        SchemaError,
        UnsupportedError,
    )
    from nicplug_xml.model import Backend, Connection, Interface, InterfaceStatus, Problem, Scope
    from nicplug_xml.operations import (
        attach_backend,
        carry_out_plan,
        create,
        define,
        detach_backend,
        interfaces,
        plan_attach,
        plan_detach,
        plan_set_link,
        plan_update,
        set_link,
        update_device,
        xml_desc,
    )
    from nicplug_xml.plan import Plan
    from nicplug_xml.rewrite import to_extended, to_stock
    from nicplug_xml.schema import validate
    from nicplug_xml.watching import Change, watch

__all__ = [
    "Backend",
    "Change",
    "Connection",
    "Interface",
    "InterfaceStatus",
    "NicplugError",
    "NotFoundError",
    "OperationError",
    "Plan",
    "Problem",
    "SchemaError",
    "Scope",
    "UnsupportedError",
    "attach_backend",
    "carry_out_plan",
    "create",
    "define",
    "detach_backend",
    "interfaces",
    "plan_attach",
    "plan_detach",
    "plan_set_link",
    "plan_update",
    "set_link",
    "to_extended",
    "to_stock",
    "update_device",
    "validate",
    "watch",
    "xml_desc",
]

_MODULES = {
    "errors": ("NicplugError", "NotFoundError", "OperationError", "SchemaError", "UnsupportedError"),
    "model": ("Backend", "Connection", "Interface", "InterfaceStatus", "Problem", "Scope"),
    "plan": ("Plan",),
    "rewrite": ("to_extended", "to_stock"),
    "schema": ("validate",),
    "watching": ("Change", "watch"),
}


if not TYPE_CHECKING:  # to a type checker that sees it, every name is there

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = next((module for module, names in _MODULES.items() if name in names), "operations")
        return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
