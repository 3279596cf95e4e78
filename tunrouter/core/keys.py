"""Secrets and the keys made from them: membership (the pre-shared key), identity (Ed25519) and a session's lanes.

    `trk1-...` from genkey -- keyed BLAKE2b --------------.
                                                           +-> psk -- label "noise" -> what the handshake mixes in
    any other text, a password -- argon2id (RFC 9106) ----'
    the handshake's two keys -- label and lane number -> one key and one salt for each lane and direction

Law: no key is used for two things. Each use has its own label, in the personalisation field of BLAKE2b's parameter
block, so that a key that leaks from one use says nothing about another. Random bytes are passed in.
"""

from __future__ import annotations

import base64
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from nacl import bindings, exceptions

from tunrouter.core import bounds, seam, wire
from tunrouter.errors import ConfigError, HostError, ProtocolError

KEY_BYTES: Final = 32
COOKIE_BYTES: Final = 16
SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

# Personalisation strings, 16 bytes at most. Changing one, or a number of the KDF, splits every network that exists.
_GENERATED: Final = b"tunrouter genkey"
_CHECKSUM: Final = b"tunrouter check"
_SALT: Final = b"tunrouter salt"
_NOISE: Final = b"tunrouter noise"
_LANE_KEY: Final = b"tunrouter lane"
_LANE_SALT: Final = b"tunrouter nonce"
_LANE_COOKIE: Final = b"tunrouter cookie"

KDF_OPERATIONS: Final = 4
KDF_MEMORY: Final = 64 << 20
"""64 MiB: a first call with 256 MiB kills containers with a small memory limit."""

PREFIX: Final = "trk1-"
CHECKSUM_BYTES: Final = 5
WEAK_BITS: Final = 60.0
"""Below it a recorded handshake can be searched within years at argon2id's price, so `status` keeps saying so."""


def _derive(key: bytes, label: bytes, context: bytes = b"", size: int = KEY_BYTES) -> bytes:
    return blake2b(context, key=key, person=label, digest_size=size).digest()


# --- secrets ----------------------------------------------------------------------------------------------------------
def generate_secret(random: Callable[[int], bytes]) -> str:
    """A new 256-bit secret as text: `trk1-<52 letters and digits>-<8 of checksum>`."""
    return _format(random(KEY_BYTES))


def derive_psk(secret: str, network: str) -> bytes:
    """The 32-byte key of `secret` in `network`; a password costs 64 MiB and about 0.2 s. Raises ConfigError."""
    key = _parse(secret)
    if key is not None:
        return _derive(key, _GENERATED, network.encode())
    password = _encode(secret)
    salt = blake2b(network.encode(), person=_SALT, digest_size=bindings.crypto_pwhash_SALTBYTES).digest()
    try:
        return bindings.crypto_pwhash_alg(
            KEY_BYTES, password, salt, KDF_OPERATIONS, KDF_MEMORY, bindings.crypto_pwhash_ALG_ARGON2ID13
        )
    except exceptions.RuntimeError:
        raise HostError(
            "not enough memory to derive the key of the password",
            "allow this process 64 MiB more, or use a key made by `tunrouter genkey`",
        ) from None


def _format(key: bytes) -> str:
    checksum = blake2b(key, person=_CHECKSUM, digest_size=CHECKSUM_BYTES).digest()
    body, tail = (base64.b32encode(part).decode().rstrip("=").lower() for part in (key, checksum))
    return f"{PREFIX}{body}-{tail}"


def _parse(secret: str) -> bytes | None:
    """The key inside a generated secret, None for a password. A damaged key is an error, never a password."""
    text = secret.strip().lower()
    if not text.startswith(PREFIX):
        return None
    body = text.removeprefix(PREFIX).partition("-")[0]
    try:
        key = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    except ValueError:
        key = b""
    # Comparing the text, not the bytes, also refuses the 16 spellings that base32's four spare bits allow.
    if len(key) != KEY_BYTES or _format(key) != text:
        raise ConfigError(
            f"a secret that starts with {PREFIX} is mistyped or cut off (its checksum is wrong)",
            "copy the whole line that `tunrouter genkey` printed",
        )
    return key


def _encode(secret: str) -> bytes:
    """UTF-8 in normal form C (RFC 8265's OpaqueString), so that two keyboards' spellings of one text are one secret."""
    if not secret:
        raise ConfigError("the password is empty", "give one, or none at all for a network without encryption")
    if len(secret) > bounds.MAX_PASSWORD_BYTES:
        raise _too_long()
    try:
        encoded = unicodedata.normalize("NFC", secret).encode()
    except UnicodeEncodeError:
        raise ConfigError("the password is not valid UTF-8", "save its file or variable as UTF-8") from None
    if len(encoded) > bounds.MAX_PASSWORD_BYTES:
        raise _too_long()
    if any(_is_control(character) for character in secret):
        raise ConfigError(
            "the password contains a line break or another control character",
            "write it as one line of visible characters",
        )
    return encoded


def _too_long() -> ConfigError:
    return ConfigError(
        f"the password is longer than {bounds.MAX_PASSWORD_BYTES} bytes", "shorten it, or use `tunrouter genkey`"
    )


def _is_control(character: str) -> bool:
    """Control characters, line and paragraph separators, and the byte order mark some editors put before a text."""
    return unicodedata.category(character) in {"Cc", "Zl", "Zp"} or character == "\ufeff"


# --- strength ---------------------------------------------------------------------------------------------------------
_WORD: Final = re.compile(r"([A-Za-z][a-z]{3,}|[A-Z]{4,}|(?:(?![A-Za-z])[^\W\d_]){4,})([^\w]|_)?")
_WORD_BITS: Final = 13.0
"""A word of a Diceware list (7,776 words), or three random letters. Letters beyond the eighth count 2.6 bits each."""
_CLASSES: Final = (
    (r"[0-9]", 10),
    (r"[a-f]", 6),
    (r"[g-z]", 20),
    (r"[A-F]", 6),
    (r"[G-Z]", 20),
    (r"[ -/:-@\[-`{-~]", 33),
)
_OTHER_CLASS: Final = (r"[^ -~]", 100)


def strength_bits(secret: str) -> float:
    """An estimate of how many bits an attacker who knows this rule must search; errs low. 256 for a generated key.

    A text that repeats a unit is that unit; a run such as 1234 or aaaa is its first two characters; four letters or
    more of one case are a word, each distinct separator after a word counts once; the rest is taken as random
    characters of the classes found in it. Quotations, dates and p@ssw0rds are beyond such rules and are overrated.
    """
    if _parse(secret) is not None:
        return 256.0
    text = _without_runs(secret[: (secret + secret).find(secret, 1)])
    words = Counter(word.lower() for word, _ in _WORD.findall(text))
    separators = {separator for _, separator in _WORD.findall(text) if separator}
    bits = sum(_word_bits(word) + times - 1 for word, times in words.items()) + 5.0 * len(separators)
    rest = _WORD.sub("", text)
    pool = sum(size for pattern, size in (*_CLASSES, _OTHER_CLASS) if re.search(pattern, rest))
    return bits + len(rest) * math.log2(max(pool, 1))


def _without_runs(text: str) -> str:
    """Drops each character that goes on as the two before it went: the same again, or one up, or one down."""
    steps = [0, *(ord(after) - ord(before) for before, after in pairwise(text))]
    return "".join(
        character
        for place, character in enumerate(text)
        if place < 2 or steps[place] != steps[place - 1] or abs(steps[place]) > 1
    )


def _word_bits(word: str) -> float:
    return _WORD_BITS + 2.6 * max(0, len(word) - 8)


# --- membership -------------------------------------------------------------------------------------------------------
class KeyRing:
    """The secrets accepted now: none is plaintext mode, the first seals, the others open while a rotation lasts."""

    __slots__ = ("_psks",)

    def __init__(self, psks: tuple[bytes, ...]) -> None:
        self._psks = tuple(dict.fromkeys(psks))
        if len(self._psks) > bounds.MAX_SECRETS:
            raise ConfigError(
                f"{len(self._psks)} passwords are given, {bounds.MAX_SECRETS} are accepted at once",
                "drop the oldest",
            )

    @property
    def handshake_psks(self) -> tuple[bytes, ...]:
        """What the handshake mixes in, in the order of the ring; the first is for sending."""
        return tuple(_derive(psk, _NOISE) for psk in self._psks)

    def __len__(self) -> int:
        return len(self._psks)

    def __repr__(self) -> str:
        return f"KeyRing({len(self)} secrets)"


# --- identity ---------------------------------------------------------------------------------------------------------
class Identity:
    """Which member this node is: an Ed25519 key pair (RFC 8032) from the 32-byte seed in the state directory."""

    __slots__ = ("_private_key", "node_id", "public_key")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise HostError(
                f"the stored identity key has {len(seed)} bytes instead of {SEED_BYTES}",
                "restore the state directory, or remove it to become a new node",
            )
        self.public_key, self._private_key = bindings.crypto_sign_seed_keypair(seed)
        self.node_id = node_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        return bindings.crypto_sign(message, self._private_key)[:SIGNATURE_BYTES]

    def derive(self, label: bytes) -> bytes:
        """A secret of this node's alone for what `label` says, 32 bytes."""
        return blake2b(label, key=self._private_key, digest_size=32).digest()

    def __repr__(self) -> str:
        return f"Identity({self.node_id:016x})"


def node_id(public_key: bytes) -> int:
    """The first 8 bytes of BLAKE2b-512 of the key; `seam.SELF`, which is no peer's id, for bytes that are no key."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        return seam.SELF
    return int.from_bytes(blake2b(public_key).digest()[:8], "big")


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the one of `message` by a key that may name a peer; False for whatever is malformed."""
    if node_id(public_key) == seam.SELF or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public_key)
    except exceptions.CryptoError:
        return False
    return True


# --- a session's lanes ------------------------------------------------------------------------------------------------
def derive_lanes(
    initiator_to_responder: bytes, responder_to_initiator: bytes, count: int, *, initiator: bool, sealed: bool
) -> tuple[seam.Lane, ...]:
    """The `count` lanes of one end; the other end's mirror them. Unsealed lanes have cookies where keys would be."""
    if not 1 <= count <= bounds.MAX_WORKERS:
        raise ProtocolError("lane count")
    outbound, inbound = initiator_to_responder, responder_to_initiator
    if not initiator:
        outbound, inbound = inbound, outbound
    return tuple(
        seam.Lane(lane, *_direction(outbound, lane, sealed=sealed), *_direction(inbound, lane, sealed=sealed))
        for lane in range(count)
    )


def _direction(key: bytes, lane: int, *, sealed: bool) -> tuple[bytes, bytes]:
    number = lane.to_bytes(2, "big")
    lane_key = _derive(key, _LANE_KEY, number) if sealed else _derive(key, _LANE_COOKIE, number, COOKIE_BYTES)
    return lane_key, _derive(key, _LANE_SALT, number, wire.SALT_BYTES)
