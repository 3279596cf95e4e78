"""Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b and Noise_NN_25519_ChaChaPoly_BLAKE2b (Noise specification, revision 34).

    initiator                                   responder
    write_first(payload)   -- psk, e ------->   Suite.read_first -> Received      no Diffie-Hellman until here
    read_answer            <- e, ee ---------   Received.answer -> Answer.finish(payload)
    split()                                     split()

Law: what a suite knows before the first message (name, prologue, psk) is hashed once and copied for each handshake, so
a stranger's message costs one HKDF and one tag check. Nothing that fails changes a state: after a forged answer the
true one is still read. A state sends one payload only, for a second would go out under the same key and nonce.

Identities are bound by signatures over the transcript, which the caller makes and checks: the responder signs the hash
just before its payload (`Answer.hash`, what `read_answer` returns), the initiator the final one.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

from nacl import bindings, exceptions

from tunrouter.core import bounds, wire
from tunrouter.errors import ProtocolError

POINT_BYTES: Final = 32
KEY_BYTES: Final = 32
MAX_MESSAGE: Final = bounds.MAX_HANDSHAKE_BYTES - wire.HEADER_BYTES

RESPONDER_SIGNS: Final = b"tunrouter R"
INITIATOR_SIGNS: Final = b"tunrouter I"
"""Labels before the signed hashes, so that neither signature can stand for the other."""

_NONCE: Final = struct.Struct("<4xQ")


def prologue(sealed: bool, network: str) -> bytes:
    """What both sides must agree on before the first byte; the network stands last, so no length is needed."""
    return b"tunrouter/1" + bytes([wire.SEALED_MODE if sealed else 0]) + network.encode()


_BLOCK: Final = 128
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class _SymmetricState:
    """The specification's CipherState and SymmetricState (5.1, 5.2), one object: a handshake has one of each."""

    __slots__ = ("chaining_key", "hash", "key", "nonce")

    def __init__(self, chaining_key: bytes, transcript: bytes, key: bytes | None = None, nonce: int = 0) -> None:
        self.chaining_key = chaining_key
        self.hash = transcript
        self.key = key
        self.nonce = nonce

    def copy(self) -> _SymmetricState:
        return _SymmetricState(self.chaining_key, self.hash, self.key, self.nonce)

    def mix_hash(self, data: bytes) -> None:
        self.hash = blake2b(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, material, 2)
        self.key, self.nonce = key[:KEY_BYTES], 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chaining_key, transcript, key = _hkdf(self.chaining_key, material, 3)
        self.mix_hash(transcript)
        self.key, self.nonce = key[:KEY_BYTES], 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = plaintext
        if self.key is not None:
            nonce = _NONCE.pack(self.nonce)
            ciphertext = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, self.hash, nonce, self.key)
            self.nonce += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = ciphertext
        if self.key is not None:
            nonce = _NONCE.pack(self.nonce)
            if len(ciphertext) < wire.TAG_BYTES:
                raise ProtocolError("handshake message length")
            try:
                plaintext = bindings.crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, self.hash, nonce, self.key)
            except exceptions.CryptoError:
                raise ProtocolError("handshake tag") from None
            self.nonce += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        first, second = _hkdf(self.chaining_key, b"", 2)
        return first[:KEY_BYTES], second[:KEY_BYTES]


class Suite:
    """One pattern with one prologue and, when sealed, one pre-shared key: made once, used for every handshake."""

    __slots__ = ("_state", "sealed")

    def __init__(self, prologue: bytes, psk: bytes | None) -> None:
        self.sealed = psk is not None
        name = b"Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b" if self.sealed else b"Noise_NN_25519_ChaChaPoly_BLAKE2b"
        name = name.ljust(blake2b.MAX_DIGEST_SIZE, b"\0")
        self._state = _SymmetricState(name, name)
        self._state.mix_hash(prologue)
        if psk is not None:
            assert len(psk) == KEY_BYTES
            self._state.mix_key_and_hash(psk)

    def start(self) -> _SymmetricState:
        """The state before the first message, to be changed by its taker."""
        return self._state.copy()

    def mix_ephemeral(self, state: _SymmetricState, point: bytes) -> None:
        """Token `e`; with a pre-shared key it also gives a key, or two handshakes would share one (9.2)."""
        state.mix_hash(point)
        if self.sealed:
            state.mix_key(point)

    def read_first(self, message: bytes) -> Received:
        """Raises ProtocolError when the message was not made with this prologue and key, or was changed."""
        point, sealed_payload = _cut(message)
        state = self.start()
        self.mix_ephemeral(state, point)
        return Received(self, state, point, state.decrypt_and_hash(sealed_payload))

    def __repr__(self) -> str:
        return f"Suite(sealed={self.sealed})"


class Initiator:
    """The side that sends the first message."""

    __slots__ = ("_answered", "_private", "_sent", "_state", "_suite")

    def __init__(self, suite: Suite, ephemeral_private: bytes) -> None:
        self._suite = suite
        self._private = ephemeral_private
        self._state = suite.start()
        self._answered: _SymmetricState | None = None
        self._sent = False

    def write_first(self, payload: bytes) -> bytes:
        assert not self._sent, "a state sends one payload"
        self._sent = True
        point = bindings.crypto_scalarmult_base(self._private)
        self._suite.mix_ephemeral(self._state, point)
        return point + self._state.encrypt_and_hash(payload)

    def read_answer(self, message: bytes) -> tuple[bytes, bytes]:
        """The payload and the hash its sender signed; nothing is final until `accept`. Raises ProtocolError."""
        point, sealed_payload = _cut(message)
        state = self._state.copy()
        self._suite.mix_ephemeral(state, point)
        state.mix_key(_shared(self._private, point))
        signed = state.hash
        payload = state.decrypt_and_hash(sealed_payload)
        self._answered = state
        return payload, signed

    def accept(self) -> None:
        """The answer last read is the true one: its sender proved who it is. Until then another one can still come."""
        assert self._answered is not None, "no answer was read"
        self._state = self._answered

    @property
    def hash(self) -> bytes:
        """The handshake hash; final once an answer is accepted."""
        return self._state.hash

    def split(self) -> tuple[bytes, bytes]:
        """The keys initiator to responder and responder to initiator, once an answer is accepted."""
        return self._state.split()


class Received:
    """A first message that is authentic as far as it can be: made by a holder of the key, but perhaps replayed."""

    __slots__ = ("_state", "_suite", "ephemeral", "payload")

    def __init__(self, suite: Suite, state: _SymmetricState, ephemeral: bytes, payload: bytes) -> None:
        self._suite = suite
        self._state = state
        self.ephemeral = ephemeral
        self.payload = payload

    def answer(self, ephemeral_private: bytes) -> Answer:
        """Does the Diffie-Hellman. Raises ProtocolError for a point of low order."""
        point = bindings.crypto_scalarmult_base(ephemeral_private)
        state = self._state.copy()
        self._suite.mix_ephemeral(state, point)
        state.mix_key(_shared(ephemeral_private, self.ephemeral))
        return Answer(state, point)


class Answer:
    """The responder's half of the handshake: sign `hash`, then `finish` with the payload that carries the signature."""

    __slots__ = ("_finished", "_point", "_state", "hash")

    def __init__(self, state: _SymmetricState, point: bytes) -> None:
        self._state = state
        self._point = point
        self._finished = False
        self.hash = state.hash

    def finish(self, payload: bytes) -> bytes:
        assert not self._finished, "a state sends one payload"
        self._finished = True
        return self._point + self._state.encrypt_and_hash(payload)

    @property
    def final_hash(self) -> bytes:
        assert self._finished, "the payload is part of the hash"
        return self._state.hash

    def split(self) -> tuple[bytes, bytes]:
        """The keys initiator to responder and responder to initiator."""
        return self._state.split()


def _hkdf(chaining_key: bytes, material: bytes, count: int) -> list[bytes]:
    """The specification's HKDF (4.3): RFC 5869 with empty info, over HMAC-BLAKE2b."""
    secret = _hmac(chaining_key, material)
    outputs = [_hmac(secret, b"\x01")]
    for number in range(2, count + 1):
        outputs.append(_hmac(secret, outputs[-1] + bytes([number])))
    return outputs


def _hmac(key: bytes, data: bytes) -> bytes:
    """RFC 2104 for keys of one hash's length; the library's general one costs twice as much, in floods too."""
    padded = key.ljust(_BLOCK, b"\0")
    return blake2b(padded.translate(_OUTER) + blake2b(padded.translate(_INNER) + data).digest()).digest()


def _shared(private: bytes, point: bytes) -> bytes:
    try:
        return bindings.crypto_scalarmult(private, point)
    except exceptions.RuntimeError:
        raise ProtocolError("ephemeral key of low order") from None


def _cut(message: bytes) -> tuple[bytes, bytes]:
    if not POINT_BYTES <= len(message) <= MAX_MESSAGE:
        raise ProtocolError("handshake message length")
    return message[:POINT_BYTES], message[POINT_BYTES:]
