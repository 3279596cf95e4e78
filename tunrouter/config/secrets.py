"""Where the shared secrets come from: the strongest source that is present gives all of them.

    --password, --password-file > TUNROUTER_PASSWORD, TUNROUTER_PASSWORD_FILE > EXTRA_ARGS, WEAVE_PASSWORD
    > $CREDENTIALS_DIRECTORY/password (systemd, Kubernetes) > password, password_file in the configuration file

systemd copies a credential when it starts the service, and not again for a reload: then the file that it was copied
from, TUNROUTER_CREDENTIAL_SOURCE in the unit, stands for it.

Law: one secret a line, at most `bounds.MAX_SECRETS`, the first seals. No message contains a secret. A present but empty
source is an error: without encryption runs only who says nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tunrouter.config.model import SECRET_KEYS, Origin
from tunrouter.config.sources import (
    CREDENTIAL_SOURCE_VARIABLE,
    PASSWORD_FILE_VARIABLE,
    PASSWORD_VARIABLES,
    Document,
    Extra,
    Read,
    Sources,
    read_if_present,
    read_text,
    refuse_exposed,
)
from tunrouter.core import bounds
from tunrouter.errors import ConfigError

CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
CREDENTIAL: Final = "password"

Secrets = tuple[tuple[str, ...], str]
"""The secrets, and where they came from."""


def find_secrets(sources: Sources, read: Read, *, again: bool = False) -> Secrets | None:
    """`again`: the agent runs already, and a credential may be older than what it was copied from."""
    flags, environ, document, extra = sources
    return (
        _one_of(flags.get("password"), "--password", flags.get("password_file"), "--password-file", read)
        or _one_of(
            environ.get(PASSWORD_VARIABLES[0]),
            PASSWORD_VARIABLES[0],
            environ.get(PASSWORD_FILE_VARIABLE) or None,
            PASSWORD_FILE_VARIABLE,
            read,
        )
        or _from_extra(extra, read)
        or _one_of(environ.get(PASSWORD_VARIABLES[1]), PASSWORD_VARIABLES[1], None, "", read)
        or _credential(environ, read, again=again)
        or _from_document(document, read)
    )


def _one_of(password: object, password_name: str, file: object, file_name: str, read: Read) -> Secrets | None:
    if password is not None and file is not None:
        raise ConfigError(f"both {password_name} and {file_name} are given", "keep one of them")
    if password is not None:
        return parse_secrets(_lines(password, password_name), password_name), password_name
    if file is None:
        return None
    if not isinstance(file, str) or not file:
        raise ConfigError(f"{file_name}: expected the path of a file", "write the secrets there, one a line")
    path = Path(file)
    text, mode = read_text(path, file_name, read)
    refuse_exposed(path, mode, file_name)
    return parse_secrets(text.splitlines(), f"{file_name} {path}"), f"{file_name} {path}"


def _from_extra(extra: Extra, read: Read) -> Secrets | None:
    (password, where), (file, file_where) = (extra.get(name, (None, Origin(""))) for name in SECRET_KEYS)
    return _one_of(password, where.where, file, file_where.where, read)


def _credential(environ: Mapping[str, str], read: Read, *, again: bool) -> Secrets | None:
    """Its mode is not looked at: systemd protects the directory."""
    directory, source = environ.get(CREDENTIALS_VARIABLE), environ.get(CREDENTIAL_SOURCE_VARIABLE)
    if not directory:
        return None
    if again and source:
        where = f"credential's source {source}"
        return parse_secrets(read_text(Path(source), where, read)[0].splitlines(), where), where
    path = Path(directory) / CREDENTIAL
    where = f"credential {path}"
    found = read_if_present(path, where, read)
    return (parse_secrets(found[0].splitlines(), where), where) if found else None


def _from_document(document: Document, read: Read) -> Secrets | None:
    password, file = document.table.get("password"), document.table.get("password_file")
    return _one_of(password, f"{document.path}: password", file, f"{document.path}: password_file", read)


def _lines(password: object, where: str) -> list[str]:
    if isinstance(password, str):
        return password.splitlines()
    if isinstance(password, list) and all(isinstance(each, str) for each in password):
        return list(password)
    raise ConfigError(f"{where}: expected text, or a list of texts", "put the password in quotes")


def parse_secrets(lines: Iterable[str], where: str) -> tuple[str, ...]:
    """Blank lines are skipped, doubles dropped; raises ConfigError for what cannot be a secret."""
    secrets = tuple(dict.fromkeys(line for line in lines if line.strip()))
    if not secrets:
        raise ConfigError(f"{where}: the password is empty", "give one (tunrouter genkey makes a good one)")
    if len(secrets) > bounds.MAX_SECRETS:
        raise ConfigError(f"{where}: {len(secrets)} secrets, at most {bounds.MAX_SECRETS}", "remove the oldest")
    for number, secret in enumerate(secrets, 1):
        _check_secret(secret, f"{where}: secret {number}" if len(secrets) > 1 else where)
    return secrets


def _check_secret(secret: str, where: str) -> None:
    if not secret.isprintable():
        raise ConfigError(f"{where}: the password contains a control character", "use printable characters only")
    if secret != secret.strip():
        raise ConfigError(f"{where}: the password begins or ends with a space", "remove the space")
    if len(secret.encode()) > bounds.MAX_PASSWORD_BYTES:
        raise ConfigError(
            f"{where}: the password is longer than {bounds.MAX_PASSWORD_BYTES} bytes", "use: tunrouter genkey"
        )
