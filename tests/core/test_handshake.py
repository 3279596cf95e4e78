"""The handshake against published vectors of both patterns and of every primitive, and against changed messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from hashlib import blake2b
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from tunrouter.core import handshake
from tunrouter.core.handshake import Initiator, Suite, prologue
from tunrouter.errors import ProtocolError

VECTORS = json.loads((Path(__file__).parent / "noise_vectors.json").read_text())["vectors"]
PSK = bytes(range(32))
EPHEMERALS = (b"\x11" * 32, b"\x22" * 32)
LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)


def suite(*, sealed: bool = True, network: str = "weave", psk: bytes = PSK) -> Suite:
    return Suite(prologue(sealed, network), psk if sealed else None)


def flipped(message: bytes) -> Iterator[bytes]:
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit >> 3] ^= 1 << (bit & 7)
        yield bytes(changed)


def transport(key: bytes, counter: int, plaintext: bytes) -> bytes:
    nonce = struct.pack("<4xQ", counter)
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, b"", nonce, key)


# --- published vectors of the patterns --------------------------------------------------------------------------------
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["protocol_name"]))
def test_the_published_vector_of_each_pattern(vector: dict[str, object]) -> None:
    def data(name: str) -> bytes:
        return bytes.fromhex(str(vector[name]))

    psks = vector.get("init_psks")
    psk = bytes.fromhex(psks[0]) if isinstance(psks, list) else None
    messages = vector["messages"]
    assert isinstance(messages, list)
    payloads = [bytes.fromhex(message["payload"]) for message in messages]
    wire = [bytes.fromhex(message["ciphertext"]) for message in messages]

    ours = Initiator(Suite(data("init_prologue"), psk), data("init_ephemeral"))
    assert ours.write_first(payloads[0]) == wire[0]
    received = Suite(data("resp_prologue"), psk).read_first(wire[0])
    assert received.payload == payloads[0]
    answer = received.answer(data("resp_ephemeral"))
    assert answer.finish(payloads[1]) == wire[1]
    assert ours.read_answer(wire[1]) == (payloads[1], answer.hash)
    ours.accept()
    assert ours.hash == answer.final_hash == data("handshake_hash")
    assert ours.split() == answer.split()

    directions = cycle(ours.split())
    assert len(wire) == 6
    for at in range(2, len(wire)):
        assert transport(next(directions), (at - 2) // 2, payloads[at]) == wire[at]


def test_both_patterns_are_among_the_vectors() -> None:
    names = {vector["protocol_name"] for vector in VECTORS}
    assert names == {"Noise_NN_25519_ChaChaPoly_BLAKE2b", "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2b"}


# --- published vectors of the primitives ------------------------------------------------------------------------------
def test_x25519_of_rfc_7748_section_5_2() -> None:
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    shared = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert bindings.crypto_scalarmult(scalar, point) == shared


def test_x25519_iterated_of_rfc_7748_section_5_2() -> None:
    k = u = (9).to_bytes(32, "little")
    results = {}
    for turn in range(1, 1001):
        k, u = bindings.crypto_scalarmult(k, u), k
        results[turn] = k.hex()
    assert results[1] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert results[1000] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_diffie_hellman_of_rfc_7748_section_6_1() -> None:
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    bob_public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert bindings.crypto_scalarmult_base(bob).hex() == bob_public
    assert bindings.crypto_scalarmult(bob, alice_public).hex() == shared


def test_chacha20_poly1305_of_rfc_8439_section_2_8_2() -> None:
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    data = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, data, nonce, key)
    assert sealed.hex() == (
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )


def test_blake2b_of_rfc_7693_appendix_a() -> None:
    assert blake2b(b"abc").hexdigest() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=80))
def test_hkdf_is_hmac_blake2b_as_rfc_2104_and_rfc_5869_write_it(key: bytes, material: bytes) -> None:
    def mac(key: bytes, data: bytes) -> bytes:
        padded = key.ljust(128, b"\0")
        inner = blake2b(bytes(byte ^ 0x36 for byte in padded) + data).digest()
        return blake2b(bytes(byte ^ 0x5C for byte in padded) + inner).digest()

    secret = mac(key, material)
    first = mac(secret, b"\x01")
    second = mac(secret, first + b"\x02")
    third = mac(secret, second + b"\x03")
    assert handshake._hkdf(key, material, 2) == [first, second]
    assert handshake._hkdf(key, material, 3) == [first, second, third]


# --- our own use ------------------------------------------------------------------------------------------------------
def test_the_prologue_names_protocol_mode_and_network() -> None:
    assert prologue(True, "weave") == b"tunrouter/1\x01weave"
    assert prologue(False, "blau") == b"tunrouter/1\x00blau"


@pytest.mark.parametrize("sealed", [True, False])
@given(first=st.binary(max_size=300), second=st.binary(max_size=300), keys=st.binary(min_size=64, max_size=64))
def test_both_ends_agree(sealed: bool, first: bytes, second: bytes, keys: bytes) -> None:
    initiator = Initiator(suite(sealed=sealed), keys[:32])
    received = suite(sealed=sealed).read_first(initiator.write_first(first))
    assert received.payload == first
    assert received.ephemeral == bindings.crypto_scalarmult_base(keys[:32])
    answer = received.answer(keys[32:])
    assert initiator.read_answer(answer.finish(second)) == (second, answer.hash)
    initiator.accept()
    assert initiator.hash == answer.final_hash != answer.hash
    assert initiator.split() == answer.split()
    assert len({*initiator.split()}) == 2


def test_fresh_ephemerals_give_fresh_keys() -> None:
    message = Initiator(suite(), EPHEMERALS[0]).write_first(b"")
    answers = [suite().read_first(message).answer(bytes([byte]) * 32) for byte in range(1, 5)]
    assert len({key for answer in answers for key in answer.split()}) == 8


def test_one_received_message_can_be_answered_twice_without_mixing_the_two() -> None:
    initiator = Initiator(suite(), EPHEMERALS[0])
    received = suite().read_first(initiator.write_first(b""))
    received.answer(b"\x33" * 32).finish(b"one")
    answer = received.answer(EPHEMERALS[1])
    assert initiator.read_answer(answer.finish(b"two"))[0] == b"two"
    initiator.accept()


@pytest.mark.parametrize(
    "stranger",
    [suite(psk=b"\x01" * 32), suite(network="other"), suite(sealed=False), Suite(prologue(False, "weave"), PSK)],
    ids=["psk", "network", "plaintext", "mode"],
)
def test_a_first_message_of_another_suite_is_rejected(stranger: Suite) -> None:
    with pytest.raises(ProtocolError):
        suite().read_first(Initiator(stranger, EPHEMERALS[0]).write_first(bytes(40)))


def test_an_answer_made_with_another_psk_is_rejected() -> None:
    initiator = Initiator(suite(), EPHEMERALS[0])
    first = initiator.write_first(b"")
    stranger = Suite(prologue(True, "weave"), b"\x01" * 32)
    forged = stranger.read_first(Initiator(stranger, EPHEMERALS[0]).write_first(b"")).answer(EPHEMERALS[1])
    assert len(first) == 48
    with pytest.raises(ProtocolError):
        initiator.read_answer(forged.finish(b""))


def test_every_flipped_bit_of_the_first_message_is_rejected() -> None:
    message = Initiator(suite(), EPHEMERALS[0]).write_first(b"introduction")
    responder = suite()
    for changed in flipped(message):
        with pytest.raises(ProtocolError):
            responder.read_first(changed)
    assert responder.read_first(message).payload == b"introduction"


def test_without_a_psk_a_changed_first_message_fails_at_the_answer() -> None:
    initiator = Initiator(suite(sealed=False), EPHEMERALS[0])
    message = initiator.write_first(b"introduction")
    for changed in flipped(message):
        answer = suite(sealed=False).read_first(changed).answer(EPHEMERALS[1])
        with pytest.raises(ProtocolError):
            initiator.read_answer(answer.finish(b""))


@pytest.mark.parametrize("sealed", [True, False])
def test_every_flipped_bit_of_the_answer_is_rejected_and_the_true_one_still_read(sealed: bool) -> None:
    initiator = Initiator(suite(sealed=sealed), EPHEMERALS[0])
    answer = suite(sealed=sealed).read_first(initiator.write_first(b"")).answer(EPHEMERALS[1])
    message = answer.finish(b"introduction")
    before = initiator.hash
    for changed in flipped(message):
        with pytest.raises(ProtocolError):
            initiator.read_answer(changed)
    assert initiator.hash == before
    assert initiator.read_answer(message) == (b"introduction", answer.hash)
    initiator.accept()
    assert initiator.split() == answer.split()


@pytest.mark.parametrize("sealed", [True, False])
def test_truncated_and_oversized_messages_are_rejected(sealed: bool) -> None:
    initiator = Initiator(suite(sealed=sealed), EPHEMERALS[0])
    first = initiator.write_first(b"payload")
    second = suite(sealed=sealed).read_first(first).answer(EPHEMERALS[1]).finish(b"payload")
    for length in range(len(first) if sealed else handshake.POINT_BYTES):
        with pytest.raises(ProtocolError):
            suite(sealed=sealed).read_first(first[:length])
    for length in range(len(second)):
        with pytest.raises(ProtocolError):
            initiator.read_answer(second[:length])
    for read in (suite(sealed=sealed).read_first, initiator.read_answer):
        with pytest.raises(ProtocolError, match="length"):
            read(bytes(handshake.MAX_MESSAGE + 1))


def test_the_largest_message_is_read() -> None:
    payload = bytes(handshake.MAX_MESSAGE - 48)
    message = Initiator(suite(), EPHEMERALS[0]).write_first(payload)
    assert len(message) == handshake.MAX_MESSAGE
    assert suite().read_first(message).payload == payload


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:2].hex() + point[-1:].hex())
def test_points_of_low_order_are_rejected(point: bytes) -> None:
    with pytest.raises(ProtocolError, match="low order"):
        suite(sealed=False).read_first(point + b"payload").answer(EPHEMERALS[1])
    initiator = Initiator(suite(), EPHEMERALS[0])
    initiator.write_first(b"")
    with pytest.raises(ProtocolError, match="low order"):
        initiator.read_answer(point + bytes(16))


def test_a_message_reflected_to_its_sender_is_no_answer() -> None:
    initiator = Initiator(suite(), EPHEMERALS[0])
    message = initiator.write_first(b"introduction")
    with pytest.raises(ProtocolError):
        initiator.read_answer(message)


def test_a_state_sends_one_payload() -> None:
    initiator = Initiator(suite(), EPHEMERALS[0])
    answer = suite().read_first(initiator.write_first(b"")).answer(EPHEMERALS[1])
    with pytest.raises(AssertionError):
        initiator.write_first(b"")
    with pytest.raises(AssertionError):
        _ = answer.final_hash
    answer.finish(b"")
    with pytest.raises(AssertionError):
        answer.finish(b"")


@given(st.binary(max_size=200))
def test_random_bytes_are_never_more_than_rejected(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        suite().read_first(data)
    initiator = Initiator(suite(), EPHEMERALS[0])
    initiator.write_first(b"")
    with pytest.raises(ProtocolError):
        initiator.read_answer(data)


def test_no_secret_is_shown() -> None:
    assert repr(suite()) == "Suite(sealed=True)"
