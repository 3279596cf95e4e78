"""Secrets, identities and lanes: published vectors of the primitives, own values that must never change, bad input."""

from __future__ import annotations

import unicodedata
from base64 import b64encode
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings, exceptions

from tunrouter.core import bounds, keys, seam
from tunrouter.errors import ConfigError, HostError, ProtocolError

KEY = bytes(range(32))
GENERATED = keys.generate_secret(lambda size: bytes(range(size)))
PASSWORD = "correct horse battery staple"


# --- published vectors of the primitives ------------------------------------------------------------------------------
RFC_8032 = """
9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60
d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a -
e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155
5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b

4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb
3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c 72
92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da
085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00
"""
"""Section 7.1, tests 1 and 2: seed, public key, message, signature in two halves."""


@pytest.mark.parametrize("vector", RFC_8032.strip().split("\n\n"))
def test_ed25519_of_rfc_8032(vector: str) -> None:
    seed, public_key, message, *signature = (bytes.fromhex(part.strip("-")) for part in vector.split())
    identity = keys.Identity(seed)
    assert identity.public_key == public_key
    assert identity.sign(message) == b"".join(signature)
    assert keys.verify(public_key, message, b"".join(signature))


def test_argon2id_of_libsodium_s_own_test() -> None:
    """libsodium test/default/pwhash_argon2id.c and .exp, the seventh vector."""
    password = bytes.fromhex("b540beb016a5366524d4605156493f9874514a5aa58818cd0c6dfffaa9e90205f17b")
    salt = bytes.fromhex("44071f6d181561670bda728d43fb79b4")
    expected = (
        "7fb72409b0987f8190c3729710e98c3f80c5a8727d425fdcde7f3644d467fe973f5b5fee683bd3fce812cb9ae5e9921a"
        "2d06c2f1905e4e839692f2b934b682f11a2fe2b90482ea5dd234863516dba6f52dc0702d324ec77d860c2e181f84472b"
        "d7104fedce071ffa93c5309494ad51623d214447a7b2b1462dc7d5d55a1f6fd5b54ce024118d86f0c6489d16545aaa87"
        "b6689dad9f2fb47fda9894f8e12b87d978b483ccd4cc5fd9595cdc7a818452f915ce2f7df95ec12b1c72e3788d473441"
        "d884f9748eb14703c21b45d82fd667b85f5b2d98c13303b3fe76285531a826b6fc0fe8e3dddecf"
    )
    algorithm = bindings.crypto_pwhash_ALG_ARGON2ID13
    assert bindings.crypto_pwhash_alg(231, password, salt, 1, 1631659, algorithm).hex() == expected


def test_argon2id_of_the_reference_implementation_with_64_mib() -> None:
    """phc-winner-argon2 src/test.c: version 19, t=2, m=2^16 KiB, p=1, "password", "somesalt"."""
    digest = bytes.fromhex("09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7")
    salt, tag = (b64encode(part).rstrip(b"=") for part in (b"somesalt", digest))
    encoded = b"$argon2id$v=19$m=65536,t=2,p=1$" + salt + b"$" + tag
    assert bindings.crypto_pwhash_str_verify(encoded, b"password")
    with pytest.raises(exceptions.InvalidkeyError):
        bindings.crypto_pwhash_str_verify(encoded, b"passwore")


# --- generated secrets ------------------------------------------------------------------------------------------------
def test_a_generated_secret_has_its_form() -> None:
    prefix, body, checksum = GENERATED.split("-")
    assert (prefix, len(body), len(checksum)) == ("trk1", 52, 8)
    assert GENERATED.islower()
    assert keys.generate_secret(bindings.randombytes) != keys.generate_secret(bindings.randombytes)


def test_the_values_every_node_of_every_version_must_derive() -> None:
    assert GENERATED == "trk1-aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypq-prsjosrx"
    assert (
        keys.derive_psk(GENERATED, "weave").hex() == "f248b3ff4a3d3c8e35a8df95364329f9071c26f70110f9f7301d961d39f4035d"
    )
    assert (
        keys.derive_psk(PASSWORD, "weave").hex() == "55171925081db09b385360982ca8501eb683f190d5a4a9d8fd8ad0146ffa720d"
    )
    assert (
        keys.KeyRing((KEY,)).handshake_psks[0].hex()
        == "2d8f3e7ed657fc70bb4b7fa6a3f7ae9bad704d6d373c962eb6c355db6daacc93"
    )
    lane = keys.derive_lanes(KEY, KEY[::-1], 2, initiator=True, sealed=True)[1]
    assert lane.seal_key.hex() == "ca7ed8a3d286fb71ed4fa19f62657cb592a595505ff40aba70359fc523a91a7f"
    assert lane.open_key.hex() == "ff67257d64acbdf6926bcdb301820b430cae4590f6bf32055996dbdb1c6d7fca"
    assert (lane.seal_salt.hex(), lane.open_salt.hex()) == ("c053a552de5e9a8b", "3d8fd31a6242aef4")
    cookies = keys.derive_lanes(KEY, KEY[::-1], 2, initiator=True, sealed=False)[1]
    assert cookies.seal_key.hex() == "c27fd71cf54b8c4a7f88d283854dc9d9"
    assert keys.node_id(KEY) == 0x5C52920A7263E39D


@pytest.mark.parametrize("spelling", [GENERATED.upper(), f"  {GENERATED}\n"])
def test_case_and_surrounding_space_do_not_matter_for_a_generated_secret(spelling: str) -> None:
    assert keys.derive_psk(spelling, "weave") == keys.derive_psk(GENERATED, "weave")


def test_every_mistyped_letter_of_a_generated_secret_is_noticed() -> None:
    for place in range(len(keys.PREFIX), len(GENERATED)):
        for letter in "a7-é":
            mistyped = GENERATED[:place] + letter + GENERATED[place + 1 :]
            if mistyped != GENERATED:
                with pytest.raises(ConfigError, match="genkey"):
                    keys.derive_psk(mistyped, "weave")


def test_every_cut_generated_secret_is_noticed() -> None:
    for length in range(len(keys.PREFIX), len(GENERATED)):
        with pytest.raises(ConfigError, match="checksum"):
            keys.derive_psk(GENERATED[:length], "weave")
    for longer in (GENERATED + "a", GENERATED + "-", GENERATED + GENERATED, f"{GENERATED} {GENERATED}"):
        with pytest.raises(ConfigError, match="checksum"):
            keys.derive_psk(longer, "weave")


def test_another_spelling_of_the_same_bytes_is_noticed() -> None:
    _, body, checksum = GENERATED.split("-")
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    last = alphabet.index(body[-1])
    assert last & 15 == 0
    with pytest.raises(ConfigError):
        keys.derive_psk(f"trk1-{body[:-1]}{alphabet[last | 1]}-{checksum}", "weave")


@given(st.binary(min_size=32, max_size=32))
def test_what_genkey_prints_is_accepted(key: bytes) -> None:
    assert len(keys.derive_psk(keys.generate_secret(lambda _: key), "weave")) == 32


# --- passwords --------------------------------------------------------------------------------------------------------
def test_secrets_and_networks_give_different_keys() -> None:
    made = [
        keys.derive_psk(secret, network)
        for secret in (PASSWORD, PASSWORD + " ", GENERATED)
        for network in ("weave", "weave2")
    ]
    assert len(set(made)) == len(made)


def test_both_unicode_spellings_of_a_password_are_one() -> None:
    composed, decomposed = (unicodedata.normalize(form, "pässwörter im café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert keys.derive_psk(composed, "weave") == keys.derive_psk(decomposed, "weave")


@pytest.mark.parametrize(
    ("password", "message"),
    [
        ("", "empty"),
        ("x" * (bounds.MAX_PASSWORD_BYTES + 1), "longer"),
        ("é" * (bounds.MAX_PASSWORD_BYTES // 2 + 1), "longer"),
        ("secret\n", "control"),
        ("two\nlines", "control"),
        ("tab\tbed", "control"),
        ("nul\0", "control"),
        ("escape\x1b[31m", "control"),
        ("c1\x85", "control"),
        ("line\u2028separator", "control"),
        ("\ufeffmark", "control"),
        ("half\udce4", "UTF-8"),
    ],
)
def test_a_bad_password_is_refused_with_a_fix_and_without_showing_it(password: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        keys.derive_psk(password, "weave")
    assert caught.value.fix
    assert not password or password not in str(caught.value)


def test_the_longest_password_is_accepted() -> None:
    assert len(keys.derive_psk("x" * bounds.MAX_PASSWORD_BYTES, "weave")) == 32


def test_missing_memory_is_the_machine_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise exceptions.RuntimeError

    monkeypatch.setattr(bindings, "crypto_pwhash_alg", fail)
    with pytest.raises(HostError, match="64 MiB"):
        keys.derive_psk(PASSWORD, "weave")


# --- strength ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "secret",
    [
        "",
        "weave",
        "password",
        "Password123",
        "1234567890123456789012345678901234567890",
        "abcdefghijklmnopqrstuvwxyz",
        "a" * 100,
        "secretsecretsecretsecret",
        "qwertyuiop",
        "X9$kX9$kX9$kX9$kX9$k",
        "2024-01-01",
        "пароль",
        PASSWORD,
    ],
)
def test_weak_secrets_are_below_the_line(secret: str) -> None:
    assert keys.strength_bits(secret) < keys.WEAK_BITS


@pytest.mark.parametrize(
    "secret",
    [
        "8f14e45fceea167a5a36dedd4bea2543",
        "hkJmvYQnTr0dq3Xe5YbP4g==",
        "K7mPq2XwZr9LtVbN",
        "cleft cam synod lacy yr wok",
        "sulfate-marina-untold-gecko-drowsy-anvil",
    ],
)
def test_strong_secrets_are_above_the_line(secret: str) -> None:
    assert keys.strength_bits(secret) >= keys.WEAK_BITS


def test_a_generated_secret_has_256_bits_and_a_damaged_one_is_an_error() -> None:
    assert keys.strength_bits(GENERATED) == 256.0
    with pytest.raises(ConfigError):
        keys.strength_bits(GENERATED[:-1])


def test_random_hexadecimal_keys_are_hardly_ever_called_weak() -> None:
    random = Random(1)
    assert all(keys.strength_bits(random.randbytes(16).hex()) >= keys.WEAK_BITS for _ in range(1000))


@given(st.text(max_size=64))
def test_an_estimate_is_never_negative(secret: str) -> None:
    if not secret.strip().lower().startswith(keys.PREFIX):
        assert keys.strength_bits(secret) >= 0.0


# --- the ring ---------------------------------------------------------------------------------------------------------
def test_a_ring_holds_none_to_four_secrets_in_order() -> None:
    psks = tuple(bytes([number]) * 32 for number in range(5))
    assert len(keys.KeyRing(())) == 0
    assert keys.KeyRing(()).handshake_psks == ()
    assert keys.KeyRing(psks[:4]).handshake_psks == tuple(keys.KeyRing((psk,)).handshake_psks[0] for psk in psks[:4])
    with pytest.raises(ConfigError, match="5 passwords"):
        keys.KeyRing(psks)


def test_the_same_secret_twice_is_one() -> None:
    assert len(keys.KeyRing((KEY, bytes(32), KEY))) == 2


def test_the_handshake_s_key_is_not_the_stored_one() -> None:
    assert keys.KeyRing((KEY,)).handshake_psks != (KEY,)


# --- identity ---------------------------------------------------------------------------------------------------------
def test_a_signature_is_of_one_message_and_one_key() -> None:
    ours, theirs = keys.Identity(KEY), keys.Identity(KEY[::-1])
    signature = ours.sign(b"message")
    assert keys.verify(ours.public_key, b"message", signature)
    assert not keys.verify(ours.public_key, b"massage", signature)
    assert not keys.verify(theirs.public_key, b"message", signature)
    for bit in range(len(signature) * 8):
        changed = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(len(signature), "big")
        assert not keys.verify(ours.public_key, b"message", changed)


def test_bytes_moved_between_key_signature_and_message_verify_nothing() -> None:
    identity = keys.Identity(KEY)
    signature = identity.sign(b"message")
    assert not keys.verify(identity.public_key, signature[-1:] + b"message", signature[:-1])
    assert not keys.verify(identity.public_key, b"essage", signature + b"m")
    assert not keys.verify(identity.public_key + b"m", b"message", signature)


@settings(max_examples=50)
@given(st.binary(max_size=40), st.binary(max_size=70))
def test_malformed_keys_and_signatures_are_only_false(public_key: bytes, signature: bytes) -> None:
    assert not keys.verify(public_key, b"message", signature)


def test_keys_of_low_order_verify_nothing() -> None:
    for point in (bytes(32), (1).to_bytes(32, "little"), b"\xec" + b"\xff" * 30 + b"\x7f"):
        assert not keys.verify(point, b"message", (1).to_bytes(32, "little") + bytes(32))


def test_a_node_id_is_the_start_of_the_key_s_hash() -> None:
    identity = keys.Identity(KEY)
    assert identity.node_id == keys.node_id(identity.public_key) < 1 << 64
    for length in (0, 31, 33, 64):
        assert keys.node_id(bytes(length)) == seam.SELF


def test_a_key_of_the_reserved_node_id_signs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = keys.Identity(KEY)
    signature = identity.sign(b"message")
    monkeypatch.setattr(seam, "SELF", identity.node_id)
    assert not keys.verify(identity.public_key, b"message", signature)


def test_a_damaged_seed_names_the_fix() -> None:
    with pytest.raises(HostError, match="31 bytes instead of 32") as caught:
        keys.Identity(KEY[:31])
    assert "state directory" in caught.value.fix


# --- lanes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sealed", [True, False])
def test_the_two_ends_lanes_mirror_each_other(sealed: bool) -> None:
    ours = keys.derive_lanes(KEY, KEY[::-1], 3, initiator=True, sealed=sealed)
    theirs = keys.derive_lanes(KEY, KEY[::-1], 3, initiator=False, sealed=sealed)
    assert [lane.number for lane in ours] == [lane.number for lane in theirs] == [0, 1, 2]
    for our, their in zip(ours, theirs, strict=True):
        assert (our.seal_key, our.seal_salt) == (their.open_key, their.open_salt)
        assert (our.open_key, our.open_salt) == (their.seal_key, their.seal_salt)


@pytest.mark.parametrize(("sealed", "size"), [(True, 32), (False, 16)])
def test_every_lane_and_direction_has_its_own_key_and_salt(sealed: bool, size: int) -> None:
    lanes = keys.derive_lanes(KEY, KEY[::-1], bounds.MAX_WORKERS, initiator=True, sealed=sealed)
    made = [key for lane in lanes for key in (lane.seal_key, lane.open_key)]
    salts = [salt for lane in lanes for salt in (lane.seal_salt, lane.open_salt)]
    assert {len(key) for key in made} == {size}
    assert {len(salt) for salt in salts} == {8}
    assert len({*made, *(key[:8] for key in made), *salts}) == 3 * 2 * bounds.MAX_WORKERS


def test_cookies_say_nothing_of_keys() -> None:
    sealed = keys.derive_lanes(KEY, KEY[::-1], 1, initiator=True, sealed=True)[0]
    cookie = keys.derive_lanes(KEY, KEY[::-1], 1, initiator=True, sealed=False)[0]
    assert not sealed.seal_key.startswith(cookie.seal_key)


@pytest.mark.parametrize("count", [-1, 0, bounds.MAX_WORKERS + 1])
def test_an_impossible_number_of_lanes_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError):
        keys.derive_lanes(KEY, KEY, count, initiator=True, sealed=True)


# --- what may be shown ------------------------------------------------------------------------------------------------
def test_no_secret_is_shown() -> None:
    identity = keys.Identity(KEY)
    lane = keys.derive_lanes(KEY, KEY, 1, initiator=True, sealed=True)[0]
    assert repr(keys.KeyRing((KEY,))) == "KeyRing(1 secrets)"
    assert repr(identity) == f"Identity({identity.node_id:016x})"
    assert repr(lane) == "Lane(0, …)"
