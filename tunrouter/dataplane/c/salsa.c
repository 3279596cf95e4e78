/* Salsa20/20 in AVX-512, sixteen or eight blocks at a time: Bernstein, "Salsa20 specification" (2005), sections 3 to 10.
 *
 * A block is made from 16 words of 32 bits, the state, of which only the block's number differs from block to block:
 *
 *     0 c0   1 k0   2 k1   3 k2        c  the constant "expand 32-byte k"
 *     4 k3   5 c1   6 n0   7 n1        k  the key
 *     8 #    9 0   10 c2  11 k4        n  the nonce
 *    12 k5  13 k6  14 k7  15 c3        #  the block's number, 64 bits; here below 2^26, for a size is below 2^32
 *
 * Vector i holds word i of all blocks at hand, a lane a block, so that no round moves anything between lanes:
 *
 *     x[i] = | word i of block 0 | word i of block 1 | ... | word i of block 15 |
 *
 * After the last round they are turned, so that a vector is a block, and put over the text. AVX-512 has two things that
 * AVX2 lacks: a rotation is one instruction instead of three, and 32 registers hold the 16 vectors and what is at hand.
 * A vector of 64 bytes is made by two of the processor's units, one of 32 bytes by three: so eight blocks cost 2/3 of
 * sixteen, and a packet of 1,409 bytes, 23 blocks, takes 16 + 8.
 *
 * All additions are of 32 bits and wrap. Nothing but sizes decides a branch or an address.
 */

#include "wide.h"

#ifdef TR_WIDE

#include <immintrin.h>
#include <string.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))
#define INLINE static inline __attribute__((always_inline)) AVX512

enum { BLOCK = 64, HALF = 32, WORDS = 16, MANY = 16, FEW = 8, DOUBLE_ROUNDS = 10 };

/* Section 3: the quarter-round, each step of four of them that share no word. */
#define STEP(P, x, n, to, one, two) (x)[to] = P##_xor_si(x[to], P##_rol_epi32(P##_add_epi32(x[one], x[two]), n))
#define STEPS(P, x, n, t0, a0, b0, t1, a1, b1, t2, a2, b2, t3, a3, b3)                                                 \
    (STEP(P, x, n, t0, a0, b0), STEP(P, x, n, t1, a1, b1), STEP(P, x, n, t2, a2, b2), STEP(P, x, n, t3, a3, b3))
/* Sections 4 to 6: a round over the columns of the drawing above, and one over its rows. */
#define DOUBLE_ROUND(P, x)                                                                                             \
    do {                                                                                                               \
        STEPS(P, x, 7, 4, 0, 12, 9, 5, 1, 14, 10, 6, 3, 15, 11);                                                       \
        STEPS(P, x, 9, 8, 4, 0, 13, 9, 5, 2, 14, 10, 7, 3, 15);                                                        \
        STEPS(P, x, 13, 12, 8, 4, 1, 13, 9, 6, 2, 14, 11, 7, 3);                                                       \
        STEPS(P, x, 18, 0, 12, 8, 5, 1, 13, 10, 6, 2, 15, 11, 7);                                                      \
        STEPS(P, x, 7, 1, 0, 3, 6, 5, 4, 11, 10, 9, 12, 15, 14);                                                       \
        STEPS(P, x, 9, 2, 1, 0, 7, 6, 5, 8, 11, 10, 13, 12, 15);                                                       \
        STEPS(P, x, 13, 3, 2, 1, 4, 7, 6, 9, 8, 11, 14, 13, 12);                                                       \
        STEPS(P, x, 18, 0, 3, 2, 5, 4, 7, 10, 9, 8, 15, 14, 13);                                                       \
    } while (0)
#define _mm512_xor_si _mm512_xor_si512
#define _mm256_xor_si _mm256_xor_si256

/* The state of block 0. */
static void state_make(uint32_t *state, const uint8_t *nonce, const uint8_t *key) {
    static const uint32_t constant[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (int i = 0; i < 4; i++)
        state[5 * i] = constant[i];
    memcpy(state + 1, key, 16);
    memcpy(state + 6, nonce, 8);
    state[8] = state[9] = 0;
    memcpy(state + 11, key + 16, 16);
}

/* A block over the text, of which `left` bytes are left: those behind are neither read nor written. */
INLINE void put(uint8_t *to, const uint8_t *from, uint32_t left, __m512i stream) {
    if (left >= BLOCK) {
        _mm512_storeu_si512(to, _mm512_xor_si512(_mm512_loadu_si512(from), stream));
    } else {
        __mmask64 some = ((__mmask64)1 << left) - 1;
        _mm512_mask_storeu_epi8(to, some, _mm512_xor_si512(_mm512_maskz_loadu_epi8(some, from), stream));
    }
}

/* Half a block. */
INLINE void put_half(uint8_t *to, const uint8_t *from, uint32_t left, __m256i stream) {
    if (left >= HALF) {
        _mm256_storeu_si256((__m256i_u *)to, _mm256_xor_si256(_mm256_loadu_si256((const __m256i_u *)from), stream));
    } else {
        __mmask32 some = ((__mmask32)1 << left) - 1;
        _mm256_mask_storeu_epi8(to, some, _mm256_xor_si256(_mm256_maskz_loadu_epi8(some, from), stream));
    }
}

/* At most 1,024 bytes, from block `number` on. */
AVX512 static void blocks_many(uint8_t *to, const uint8_t *from, uint32_t size, const uint32_t *state, uint32_t number) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i numbers = _mm512_add_epi32(_mm512_set1_epi32((int)number), lanes);
    __m512i x[WORDS], y[WORDS];
#pragma GCC unroll 16
    for (int i = 0; i < WORDS; i++)
        x[i] = i == 8 ? numbers : _mm512_set1_epi32((int)state[i]);
    for (int i = 0; i < DOUBLE_ROUNDS; i++)
        DOUBLE_ROUND(_mm512, x);
#pragma GCC unroll 16
    for (int i = 0; i < WORDS; i++)
        x[i] = _mm512_add_epi32(x[i], i == 8 ? numbers : _mm512_set1_epi32((int)state[i]));
    /* Quarter L of y[4g + k] becomes words 4g to 4g + 3 of block 4L + k. */
#pragma GCC unroll 4
    for (int i = 0; i < WORDS; i += 4) {
        __m512i low = _mm512_unpacklo_epi32(x[i], x[i + 1]), high = _mm512_unpackhi_epi32(x[i], x[i + 1]);
        __m512i low2 = _mm512_unpacklo_epi32(x[i + 2], x[i + 3]), high2 = _mm512_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm512_unpacklo_epi64(low, low2), y[i + 1] = _mm512_unpackhi_epi64(low, low2);
        y[i + 2] = _mm512_unpacklo_epi64(high, high2), y[i + 3] = _mm512_unpackhi_epi64(high, high2);
    }
    /* And block 4L + k is quarter L of y[k], y[4 + k], y[8 + k] and y[12 + k]. */
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        __m512i low = _mm512_shuffle_i32x4(y[k], y[4 + k], 0x44), high = _mm512_shuffle_i32x4(y[k], y[4 + k], 0xee);
        __m512i low2 = _mm512_shuffle_i32x4(y[8 + k], y[12 + k], 0x44);
        __m512i high2 = _mm512_shuffle_i32x4(y[8 + k], y[12 + k], 0xee);
        x[k] = _mm512_shuffle_i32x4(low, low2, 0x88), x[4 + k] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        x[8 + k] = _mm512_shuffle_i32x4(high, high2, 0x88), x[12 + k] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
#pragma GCC unroll 16
    for (uint32_t i = 0; i < MANY; i++)
        if (size > i * BLOCK)
            put(to + i * BLOCK, from + i * BLOCK, size - i * BLOCK, x[i]);
}

/* At most 512 bytes, from block `number` on. */
AVX512 static void blocks_few(uint8_t *to, const uint8_t *from, uint32_t size, const uint32_t *state, uint32_t number) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i numbers = _mm256_add_epi32(_mm256_set1_epi32((int)number), lanes);
    __m256i x[WORDS], y[WORDS];
#pragma GCC unroll 16
    for (int i = 0; i < WORDS; i++)
        x[i] = i == 8 ? numbers : _mm256_set1_epi32((int)state[i]);
    for (int i = 0; i < DOUBLE_ROUNDS; i++)
        DOUBLE_ROUND(_mm256, x);
#pragma GCC unroll 16
    for (int i = 0; i < WORDS; i++)
        x[i] = _mm256_add_epi32(x[i], i == 8 ? numbers : _mm256_set1_epi32((int)state[i]));
    /* Half L of y[4g + k] becomes words 4g to 4g + 3 of block 4L + k. */
#pragma GCC unroll 4
    for (int i = 0; i < WORDS; i += 4) {
        __m256i low = _mm256_unpacklo_epi32(x[i], x[i + 1]), high = _mm256_unpackhi_epi32(x[i], x[i + 1]);
        __m256i low2 = _mm256_unpacklo_epi32(x[i + 2], x[i + 3]), high2 = _mm256_unpackhi_epi32(x[i + 2], x[i + 3]);
        y[i] = _mm256_unpacklo_epi64(low, low2), y[i + 1] = _mm256_unpackhi_epi64(low, low2);
        y[i + 2] = _mm256_unpacklo_epi64(high, high2), y[i + 3] = _mm256_unpackhi_epi64(high, high2);
    }
    /* And block 4L + k is half L of y[k], y[4 + k], y[8 + k] and y[12 + k]. */
#pragma GCC unroll 8
    for (uint32_t i = 0; i < FEW; i++) {
        uint32_t k = i & 3;
        __m256i first, second;
        if (i < 4) {
            first = _mm256_permute2x128_si256(y[k], y[4 + k], 0x20);
            second = _mm256_permute2x128_si256(y[8 + k], y[12 + k], 0x20);
        } else {
            first = _mm256_permute2x128_si256(y[k], y[4 + k], 0x31);
            second = _mm256_permute2x128_si256(y[8 + k], y[12 + k], 0x31);
        }
        uint32_t at = i * BLOCK;
        if (size > at)
            put_half(to + at, from + at, size - at, first);
        if (size > at + HALF)
            put_half(to + at + HALF, from + at + HALF, size - at - HALF, second);
    }
}

int salsa_xor_avx512(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                     const uint8_t *key) {
    uint32_t state[WORDS], left = (uint32_t)size, number = 0;
    state_make(state, nonce, key);
    while (left > FEW * BLOCK) {
        uint32_t part = left < MANY * BLOCK ? left : MANY * BLOCK;
        blocks_many(to, from, part, state, number);
        to += part, from += part, left -= part, number += MANY;
    }
    if (left)
        blocks_few(to, from, left, state, number);
    return 0;
}

#endif
