/* Salsa20 and Poly1305 by the letter of Bernstein's specification (2005) and of RFC 8439 section 2.5: what the kernel's
 * own are held to, whose boxes the other side opens with these.
 *
 * A number modulo p = 2^130 - 5 is five limbs of 26 bits here. Bounds: limbs below 2^27 before a product, so that its sums
 * are below 5 * 5 * 2^54 < 2^59; below 2^27 after its carries.
 */

#include <string.h>

#include "fuzz.h"

enum { WORDS = 16, LIMBS = 5 };

static uint32_t rotated(uint32_t value, int by) {
    return value << by | value >> (32 - by);
}

static void quarter(uint32_t *x, int a, int b, int c, int d) {
    x[b] ^= rotated(x[a] + x[d], 7);
    x[c] ^= rotated(x[b] + x[a], 9);
    x[d] ^= rotated(x[c] + x[b], 13);
    x[a] ^= rotated(x[d] + x[c], 18);
}

static void block_make(uint32_t *to, const uint32_t *state) {
    memcpy(to, state, WORDS * sizeof *to);
    for (int i = 0; i < 10; i++) {
        quarter(to, 0, 4, 8, 12), quarter(to, 5, 9, 13, 1), quarter(to, 10, 14, 2, 6), quarter(to, 15, 3, 7, 11);
        quarter(to, 0, 1, 2, 3), quarter(to, 5, 6, 7, 4), quarter(to, 10, 11, 8, 9), quarter(to, 15, 12, 13, 14);
    }
    for (int i = 0; i < WORDS; i++)
        to[i] += state[i];
}

int plain_stream_xor(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                     const uint8_t *key) {
    uint32_t state[WORDS] = {[0] = 0x61707865, [5] = 0x3320646e, [10] = 0x79622d32, [15] = 0x6b206574}, block[WORDS];
    memcpy(state + 1, key, 16);
    memcpy(state + 6, nonce, 8);
    memcpy(state + 11, key + 16, 16);
    for (size_t at = 0; at < size; at += sizeof block, state[8]++) {
        size_t part = size - at < sizeof block ? size - at : sizeof block;
        block_make(block, state);
        for (size_t i = 0; i < part; i++)
            to[at + i] = from[at + i] ^ ((const uint8_t *)block)[i];
    }
    return 0;
}

/* 16 bytes and what stands behind them. */
static void limbs_of(uint64_t *to, const uint8_t *bytes, uint64_t behind) {
    static const uint8_t first[LIMBS] = {0, 3, 6, 9, 12};
    for (int i = 0; i < LIMBS; i++) {
        uint32_t word;
        memcpy(&word, bytes + first[i], sizeof word);
        to[i] = (word >> 2 * i & 0x3ffffff) | (i == LIMBS - 1 ? behind << 24 : 0);
    }
}

static void carry(uint64_t *h) {
    for (int i = 0; i <= LIMBS; i++) {
        uint64_t more = h[i % LIMBS] >> 26;
        h[i % LIMBS] &= 0x3ffffff;
        h[(i + 1) % LIMBS] += i == LIMBS - 1 ? 5 * more : more;
    }
}

static void multiply(uint64_t *h, const uint64_t *r) {
    uint64_t product[LIMBS] = {0};
    for (int i = 0; i < LIMBS; i++)
        for (int j = 0; j < LIMBS; j++)
            product[(i + j) % LIMBS] += h[i] * r[j] * (i + j < LIMBS ? 1 : 5);
    carry(product);
    memcpy(h, product, sizeof product);
}

/* The tag is h + s mod 2^128, where h < 2^130 is reduced by p once more if that is possible. */
static void finish(uint8_t *tag, uint64_t *h, const uint8_t *s) {
    uint64_t reduced[LIMBS], sum = 0, limbs[LIMBS];
    carry(h), carry(h);
    memcpy(reduced, h, sizeof reduced);
    reduced[0] += 5;
    for (int i = 0; i < LIMBS - 1; i++)
        reduced[i + 1] += reduced[i] >> 26, reduced[i] &= 0x3ffffff;
    if (reduced[LIMBS - 1] >> 26)
        memcpy(h, reduced, sizeof reduced);
    limbs_of(limbs, s, 0);
    for (int i = 0, bits = 0, at = 0; at < TAG_BYTES; at++) {
        while (bits < 8 && i < LIMBS) {
            sum += ((h[i] & 0x3ffffff) + limbs[i]) << bits;
            bits += 26, i++;
        }
        tag[at] = (uint8_t)sum;
        sum >>= 8, bits -= 8;
    }
}

int plain_authenticate(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key) {
    uint8_t clamped[16], block[16];
    uint64_t r[LIMBS], h[LIMBS] = {0}, more[LIMBS];
    memcpy(clamped, key, sizeof clamped);
    for (int i = 0; i < 16; i++)
        clamped[i] &= i % 4 == 3 ? 0x0f : i % 4 == 0 && i ? 0xfc : 0xff;
    limbs_of(r, clamped, 0);
    for (; size; message += sizeof block) {
        size_t part = size < sizeof block ? size : sizeof block;
        memset(block, 0, sizeof block);
        memcpy(block, message, part);
        if (part < sizeof block)
            block[part] = 1;
        limbs_of(more, block, part == sizeof block);
        for (int i = 0; i < LIMBS; i++)
            h[i] += more[i];
        multiply(h, r);
        size -= part;
    }
    finish(tag, h, key + 16);
    return 0;
}
