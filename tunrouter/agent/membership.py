"""From the operator's secrets to the key ring, and what `status` says of them for as long as they are in use."""

from __future__ import annotations

from typing import Final

from tunrouter.config import Config
from tunrouter.core import keys

PLAIN: Final = "Communication between peers is unencrypted: give every node the same password"
WEAK: Final = (
    "the password is weak (below about 60 bits): whoever records one handshake can guess it offline; "
    "make a strong one with `tunrouter genkey`"
)


def derive(config: Config) -> keys.KeyRing:
    """Blocks: a password costs a fifth of a second and 64 MiB. Raises ConfigError, HostError."""
    return keys.KeyRing(tuple(keys.derive_psk(secret, config.network) for secret in config.secrets))


def warnings(secrets: tuple[str, ...], *, sealed: bool) -> tuple[str, ...]:
    if not sealed:
        return (PLAIN,)
    return (WEAK,) if min(map(keys.strength_bits, secrets)) < keys.WEAK_BITS else ()
