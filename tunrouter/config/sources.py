"""Where values come from: a flag, an environment variable, a file; each turned into its key's native type.

Law: what is empty in the environment counts as absent (unit files and manifests leave blanks), except a password: an
empty one would switch encryption off without a word. No message ever contains a secret.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tunrouter.config import values
from tunrouter.config.model import DEFAULT_FILE, KEYS, SECRET_KEYS, Key, Origin
from tunrouter.errors import ConfigError

MAX_FILE_BYTES: Final = 256 << 10
PREFIX: Final = "TUNROUTER_"
FILE_VARIABLE: Final = "TUNROUTER_CONFIG"
PASSWORD_VARIABLES: Final = ("TUNROUTER_PASSWORD", "WEAVE_PASSWORD")
PASSWORD_FILE_VARIABLE: Final = "TUNROUTER_PASSWORD_FILE"  # noqa: S105 (a name, not a password)
CREDENTIAL_SOURCE_VARIABLE: Final = "TUNROUTER_CREDENTIAL_SOURCE"
SPELLINGS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
TOML_FORMS: Final[dict[type, str]] = {str: '"{}"', tuple: '["{}"]'}
TYPE_NAMES: Final[dict[type, str]] = {
    str: "text in quotes",
    int: "a number",
    bool: "true or false",
    tuple: "a list of texts",
}


class File(NamedTuple):
    """A file as it was read."""

    data: bytes
    mode: int
    """Permission bits."""


Read = Callable[[Path], File]


def read_file(path: Path) -> File:
    """Raises OSError; what is larger than any configuration is cut, and then refused by whoever parses it."""
    with path.open("rb") as file:
        return File(file.read(MAX_FILE_BYTES + 1), stat.S_IMODE(os.fstat(file.fileno()).st_mode))


def read_text(path: Path, where: str, read: Read) -> tuple[str, int]:
    """The file that `where` names as text, and its mode; every way to fail is the user's to mend."""
    found = read_if_present(path, where, read)
    if found is None:
        raise ConfigError(f"{where}: {str(path)!r} does not exist", "correct the path or make the file")
    return found


def read_if_present(path: Path, where: str, read: Read) -> tuple[str, int] | None:
    try:
        data, mode = read(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise ConfigError(f"{where}: {str(path)!r} may not be read", "run as root, with sudo") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError(f"{where}: {str(path)!r}: {reason}", "give a readable file") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{where}: {str(path)!r} is larger than {MAX_FILE_BYTES >> 10} KiB", "give the right file")
    try:
        return data.decode(), mode
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {str(path)!r} is not UTF-8 text", "save it as UTF-8") from None


def refuse_exposed(path: Path, mode: int, where: str) -> None:
    """A secret that everybody may read or replace is none."""
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        ability = "readable" if mode & stat.S_IROTH else "writable"
        raise ConfigError(f"{where}: {path} is {ability} by everybody (mode {mode:04o})", f"run: chmod 600 {path}")


class Document(NamedTuple):
    """The parsed file; without one, no table and no path."""

    path: Path | None
    table: Mapping[str, object]


def read_document(flags: Mapping[str, object], environ: Mapping[str, str], read: Read) -> Document:
    """`--config`, else TUNROUTER_CONFIG, else the default file if there is one."""
    if flags.get("config"):
        path = Path(str(flags["config"]))
        text, mode = read_text(path, "--config", read)
    elif environ.get(FILE_VARIABLE):
        path = Path(environ[FILE_VARIABLE])
        text, mode = read_text(path, FILE_VARIABLE, read)
    else:
        path = DEFAULT_FILE
        found = read_if_present(path, "configuration", read)
        if found is None:
            return Document(None, {})
        text, mode = found
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", "correct it, then run: tunrouter config check") from None
    _refuse_unknown_keys(table, path)
    if "password" in table:
        refuse_exposed(path, mode, "password in the configuration")
    return Document(path, table)


def _refuse_unknown_keys(table: Iterable[str], path: Path) -> None:
    known = [key.name for key in KEYS] + list(SECRET_KEYS)
    for name in table:
        if name not in known:
            close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
            fix = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
            raise ConfigError(f"{path}: unknown key {name!r}", fix)


def refuse_misspelt_variables(environ: Iterable[str]) -> None:
    """A typo in TUNROUTER_PASSWORD must not mean plaintext; what resembles no key of ours is somebody else's."""
    known = [key.variables[0] for key in KEYS]
    known += [PASSWORD_VARIABLES[0], PASSWORD_FILE_VARIABLE, CREDENTIAL_SOURCE_VARIABLE, FILE_VARIABLE]
    short = [name.removeprefix(PREFIX) for name in known]
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name.removeprefix(PREFIX), short, n=1, cutoff=0.8)
            if close:
                raise ConfigError(f"environment: unknown variable {name!r}", f"did you mean {PREFIX}{close[0]}?")


Extra = dict[str, tuple[str, Origin]]
"""Texts by key."""


class Sources(NamedTuple):
    """Where values may be, the strongest first."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    """Between our variables and Weave's comes `extra`."""
    document: Document
    extra: Extra


def find(key: Key, sources: Sources) -> tuple[object, Origin] | None:
    """The value of the strongest source that has one, checked, and its origin."""
    flags, environ, document, extra = sources
    given = flags.get(key.name)
    if given is not None and given not in ("", (), []):
        form = f"{key.option} {{}}" if key.option.startswith("--") else "{}"
        return _checked(key, given, Origin(key.option, form), text=isinstance(given, str))
    if given == "":
        raise ConfigError(f"{key.option}: expected a value, got nothing", f"for example: {key.option} {key.example}")
    ours, *weaves = key.variables
    found = _variable(ours, environ) or extra.get(key.name) or next((_variable(name, environ) for name in weaves), None)
    if found:
        return _checked(key, *found, text=True)
    if key.name in document.table:
        origin = Origin(f"{document.path}: {key.name}", f"{key.name} = {TOML_FORMS.get(key.native, '{}')}")
        return _checked(key, document.table[key.name], origin, text=False)
    return None


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, Origin] | None:
    return (environ[name], Origin(name, f"{name}={{}}")) if environ.get(name) else None


def _checked(key: Key, value: object, origin: Origin, *, text: bool) -> tuple[object, Origin]:
    try:
        return key.check(_native(key, value, text=text)), origin
    except values.InvalidValueError as error:
        shown = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        raise ConfigError(
            f"{origin.where}: expected {error.expected}, got {_shorten(repr(shown))}",
            f"for example: {origin.example(error.example or key.example)}",
        ) from None


def _native(key: Key, value: object, *, text: bool) -> object:
    if text and isinstance(value, str):
        return _from_text(key, value)
    if key.native is tuple and isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    # type() because bool is an int to isinstance
    if type(value) is not key.native:
        raise values.InvalidValueError(TYPE_NAMES[key.native])
    return value


def _from_text(key: Key, value: str) -> object:
    if key.native is int:
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise values.InvalidValueError("a number")
        return int(value)
    if key.native is bool:
        if value.lower() not in SPELLINGS:
            raise values.InvalidValueError("true or false")
        return SPELLINGS[value.lower()]
    if key.native is tuple:
        return tuple(re.split(r"[\s,]+", value.strip(" ,")))
    return value


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
