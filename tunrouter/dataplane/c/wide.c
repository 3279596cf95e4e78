/* Who may use the box's own code (wide.h): a processor that has the instructions, after it made what libsodium makes.
 *
 * Law: libsodium is right. Each function is compared with its counterpart there before it is used: lengths around whole
 * blocks and around what it does at once, and a key and messages of ones, which carry farthest. tests/dataplane compares
 * far more; this is against a compiler, or a processor, other than those the tests ran on.
 *
 * AVX-512 alone would do for the stream. But the first processors that had it slow down for vectors of 64 bytes, and
 * with them whatever else runs there; those with IFMA (Ice Lake, Zen 4 and later) hardly do.
 */

#include <string.h>

#include "wide.h"

#ifdef TR_WIDE

enum { LONGEST = 4096 };

static const uint16_t lengths[] = {129, 144, 145, 255, 256, 257, 512, 513, 1024, 1025, 1377, 1409, 1536, 1537, 2049, 4096};

enum { LENGTHS = sizeof lengths / sizeof *lengths };

uint32_t tr_wide(void) {
    __builtin_cpu_init();
    bool vectors = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma");
    return vectors ? TR_WIDE_STREAM | TR_WIDE_TAG : 0;
}

/* Bytes that are all ones, or have no pattern. */
static void fill(uint8_t *to, uint32_t size, bool ones) {
    uint32_t value = size;
    for (uint32_t i = 0; i < size; i++) {
        value = value * 1664525 + 1013904223;
        to[i] = ones ? 0xff : (uint8_t)(value >> 24);
    }
}

static bool stream_agrees(const tr_nacl *nacl, uint32_t size, bool ones) {
    uint8_t message[LONGEST], right[LONGEST], ours[LONGEST], key[32], nonce[8];
    fill(message, size, ones);
    fill(key, sizeof key, ones);
    fill(nonce, sizeof nonce, ones);
    nacl->stream_xor(right, message, size, nonce, key);
    salsa_xor_avx512(ours, message, size, nonce, key);
    return !memcmp(right, ours, size);
}

static bool tag_agrees(const tr_nacl *nacl, uint32_t size, bool ones) {
    uint8_t message[LONGEST], right[TAG_BYTES], ours[TAG_BYTES], key[32];
    fill(message, size, ones);
    fill(key, sizeof key, ones);
    nacl->authenticate(right, message, size, key);
    poly_tag_ifma(ours, message, size, key);
    return !memcmp(right, ours, sizeof right);
}

uint32_t tr_widen(tr_nacl *nacl, uint32_t wide) {
    uint32_t agree = nacl->stream_xor ? wide & tr_wide() : 0, tried = agree;
    for (uint32_t i = 0; i < 2 * LENGTHS; i++) {
        if (agree & TR_WIDE_STREAM && !stream_agrees(nacl, lengths[i / 2], i % 2))
            agree &= ~(uint32_t)TR_WIDE_STREAM;
        if (agree & TR_WIDE_TAG && !tag_agrees(nacl, lengths[i / 2], i % 2))
            agree &= ~(uint32_t)TR_WIDE_TAG;
    }
    nacl->wide_stream_xor = agree & TR_WIDE_STREAM ? salsa_xor_avx512 : NULL;
    nacl->wide_authenticate = agree & TR_WIDE_TAG ? poly_tag_ifma : NULL;
    return tried & ~agree;
}

#else

uint32_t tr_wide(void) {
    return 0;
}

uint32_t tr_widen(tr_nacl *nacl, uint32_t wide) {
    (void)wide;
    nacl->wide_stream_xor = NULL;
    nacl->wide_authenticate = NULL;
    return 0;
}

#endif
