"""
A row of the table of settings.

Each area declares its settings as the fields of a class, with ``option(...)`` as the default: mypy then
knows their types, and the row (kind, unit, help) hangs on the field for whatever needs the table: the
TOML file, the environment, command lines, documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from irontide.settings.kinds import Kind

_KEY = "irontide.option"


@attrs.frozen
class Option:
    """
    What is known of a setting besides its name and default.

    :ivar help: one sentence for the user, without the unit and the default.
    """

    kind: Kind
    help: str
    unit: str = ""


def option(
    kind: Kind,
    default: object = None,
    *,
    factory: Callable[[], object] | None = None,
    unit: str = "",
    help: str,
) -> Any:
    """Declare a field of a settings class; ``factory`` makes the default where it depends on the host."""
    row = Option(kind, help, unit)
    if factory is not None:
        return attrs.field(factory=factory, metadata={_KEY: row}, kw_only=True)
    return attrs.field(default=default, metadata={_KEY: row}, kw_only=True)


def options_of(settings: type) -> dict[str, Option]:
    """The table of a settings class: its rows by name, in the order of declaration."""
    return {each.name: each.metadata[_KEY] for each in attrs.fields(settings)}
