"""Where settings come from, later ones winning: defaults, the TOML file, the environment, options."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping

import attrs

from irontide.errors import SettingsError, ValidationFailed
from irontide.settings.connection import ConnectionSettings
from irontide.settings.limits import LimitSettings
from irontide.settings.option import Option, options_of
from irontide.settings.paths import PathSettings
from irontide.settings.storage import StorageSettings

PREFIX = "IRONTIDE_"
CONFIG_VARIABLE = "IRONTIDE_CONFIG"
MAX_CONFIG_FILE = 1 << 20
_MAX_UNKNOWN = 100


@attrs.frozen(slots=False)
class Settings(ConnectionSettings, LimitSettings, StorageSettings, PathSettings):
    """
    All settings of a session: a value that cannot change.

    :raises ValidationFailed: by the constructor (and so by attrs.evolve), with everything that is wrong.
    """

    def __attrs_post_init__(self) -> None:
        errors: dict[str, str] = {}
        for name, row in OPTIONS.items():
            try:
                row.kind.parse(getattr(self, name))
            except ValueError as error:
                errors[name] = str(error)
        if errors:
            raise ValidationFailed(errors)


OPTIONS: Mapping[str, Option] = options_of(Settings)


def defaults() -> Settings:
    """The settings of a user who has set nothing."""
    return Settings()


def load(toml_path: str | None, environment: Mapping[str, str], options: Mapping[str, object]) -> Settings:
    """
    Read settings from all their sources.

    :param toml_path: the configuration file, or None for none; it has to exist.
    :param environment: every ``IRONTIDE_`` variable that is named after a setting counts; others are left
        alone (container platforms set some of their own).
    :param options: values by name, from a command line; None stands for "not given".
    :raises SettingsError: the file cannot be read.
    :raises ValidationFailed: values are wrong: all of them, by field.
    """
    values: dict[str, object] = {}
    errors: dict[str, str] = {}
    here = os.getcwd()
    if toml_path is not None:
        beside = os.path.dirname(os.path.abspath(toml_path))
        _take(values, errors, _read(toml_path), beside)
    said = {
        name: environment[PREFIX + name.upper()] for name in OPTIONS if PREFIX + name.upper() in environment
    }
    _take(values, errors, said, here, text=True)
    given = {name: value for name, value in options.items() if value is not None}
    _take(values, errors, given, here, text=True)
    if errors:
        raise ValidationFailed(errors)
    return Settings(**values)  # type: ignore[arg-type]  # each value was parsed by its kind


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Names in the environment that look like settings and are none, to be told to the user."""
    known = {PREFIX + name.upper() for name in OPTIONS} | {CONFIG_VARIABLE}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _read(path: str) -> Mapping[str, object]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_FILE + 1)
        if len(data) > MAX_CONFIG_FILE:
            raise SettingsError(f"{path}: larger than {MAX_CONFIG_FILE} bytes")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # neither UTF-8 nor TOML, or a number of 5,000 digits
        raise SettingsError(f"{path}: not TOML: {error}") from error


def _take(
    values: dict[str, object],
    errors: dict[str, str],
    given: Mapping[str, object],
    base: str,
    *,
    text: bool = False,
) -> None:
    """Parse what one source says.  What is wrong stays an error even where a later source is right."""
    for name, value in given.items():
        row = OPTIONS.get(name)
        if row is None:
            if len(errors) < _MAX_UNKNOWN:
                errors[name[:60]] = "there is no such setting"
            continue
        try:
            if text and isinstance(value, str):
                parsed = row.kind.parse_text(value)
            else:
                parsed = row.kind.parse(value)
        except ValueError as error:
            errors[name] = str(error)
        else:
            values[name] = row.kind.resolve(parsed, base)
