/* Poly1305 with AVX-512 IFMA, eight blocks at a time: RFC 8439 section 2.5; the lanes are those of Goll and Gueron,
 * "Vectorization of Poly1305 message authentication code" (2015), with this instruction set's limbs.
 *
 * The tag is h + s mod 2^128, where h is a polynomial's value at r modulo p = 2^130 - 5, a coefficient a block of 16
 * bytes with a one behind it:
 *
 *     h = m[0] r^n + m[1] r^(n-1) + ... + m[n-1] r        m[i] = block i + 2^128; the last one + 2^(8 * its bytes)
 *
 * Zeros in front change nothing, so there are as many as make n a multiple of eight. Lane by lane Horner's rule with r^8
 * runs over every eighth block; at the end each lane takes its own power, and all are added up:
 *
 *     block    0   4   1   5   2   6   3   7      of each eight, for so two loads are unpacked into low and high halves
 *     lane   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
 *     power    8   4   7   3   6   2   5   1      of r, after the last eight
 *
 * A number modulo p is three limbs of 64 bits, x = x0 + x1 2^44 + x2 2^88. IFMA multiplies 52 bits by 52 and adds the
 * low or the high 52 bits of the product. Since 2^132 = 4 * 2^130 = 20 mod p, with z1 = 20 y1 and z2 = 20 y2
 *
 *     x y = (x0 y0 + x1 z2 + x2 z1) + (x0 y1 + x1 y0 + x2 z2) 2^44 + (x0 y2 + x1 y1 + x2 y0) 2^88 mod p
 *
 * Bounds. A number is "carried" if x0, x1 < 2^44 + 2^10 and x2 < 2^42 + 2^10, and "a sum" if x0, x1 < 2^45 + 2^10 and
 * x2 < 2^42 + 2^41 + 2^10: a carried one and a block. Nothing but the size decides a branch or an address.
 */

#include "wide.h"

#ifdef TR_WIDE

#include <immintrin.h>
#include <string.h>

#define IFMA __attribute__((target("avx512f,avx512bw,avx512ifma")))
#define INLINE static inline __attribute__((always_inline)) IFMA

enum { BLOCK = 16, LANES = 8, GROUP = LANES * BLOCK, HALF = GROUP / 2, TAG = 16 };

#define MASK44 (((uint64_t)1 << 44) - 1)
#define MASK42 (((uint64_t)1 << 42) - 1)

/* Eight numbers, limb by limb. */
struct numbers {
    __m512i x0, x1, x2;
};

struct factors {
    __m512i y0, y1, y2, z1, z2;
};

INLINE __m512i all(uint64_t value) {
    return _mm512_set1_epi64((long long)value);
}

INLINE __m512i times5(__m512i x) {
    return _mm512_add_epi64(x, _mm512_slli_epi64(x, 2));
}

/* Of carried numbers: y0, y1 < 2^44.1, y2 < 2^42.1, z1 < 2^48.5, z2 < 2^46.5. */
INLINE struct factors factors(struct numbers y) {
    __m512i z1 = _mm512_slli_epi64(times5(y.x1), 2), z2 = _mm512_slli_epi64(times5(y.x2), 2);
    return (struct factors){y.x0, y.x1, y.x2, z1, z2};
}

#define LOW(sum, x, y) _mm512_madd52lo_epu64(sum, x, y)
#define HIGH(sum, x, y) _mm512_madd52hi_epu64(sum, x, y)

/* Sums of products, low and high halves apart. */
struct products {
    __m512i low0, low1, low2, high0, high1, high2;
};

INLINE struct products nothing(void) {
    __m512i zero = _mm512_setzero_si512();
    return (struct products){zero, zero, zero, zero, zero, zero};
}

/* Adds the products of sums, x0, x1 < 2^45.1 and x2 < 2^42.7. Every operand is below 2^52, the lows' sums grow by less than
 * 3 * 2^52 < 2^54, the highs' by products / 2^52:
 *
 *     high0  2^37.2 + 2^39.6 + 2^39.2 < 2^41    high1  2^37.2 + 2^37.2 + 2^37.2 < 2^39    high2  < 2^38 */
INLINE struct products multiply_add(struct products sum, struct numbers x, struct factors f) {
    sum.low0 = LOW(LOW(LOW(sum.low0, x.x0, f.y0), x.x1, f.z2), x.x2, f.z1);
    sum.low1 = LOW(LOW(LOW(sum.low1, x.x0, f.y1), x.x1, f.y0), x.x2, f.z2);
    sum.low2 = LOW(LOW(LOW(sum.low2, x.x0, f.y2), x.x1, f.y1), x.x2, f.y0);
    sum.high0 = HIGH(HIGH(HIGH(sum.high0, x.x0, f.y0), x.x1, f.z2), x.x2, f.z1);
    sum.high1 = HIGH(HIGH(HIGH(sum.high1, x.x0, f.y1), x.x1, f.y0), x.x2, f.z2);
    sum.high2 = HIGH(HIGH(HIGH(sum.high2, x.x0, f.y2), x.x1, f.y1), x.x2, f.y0);
    return sum;
}

/* Of at most two such: lows < 2^55, highs < 2^42, 2^40 and 2^39. High bits weigh 2^52 = 2^44 2^8 = 2^42 2^10. The first
 * carries are below 2^50 + 2^11, 2^48 + 2^11 and 2^49 + 2^13, so that x0 < 2^44 + 5 (2^49 + 2^13) < 2^52, x1 < 2^51 and
 * x2 < 2^49; the second are below 2^8, 2^7 and 2^7, so that x0 < 2^44 + 5 * 2^7 < 2^44 + 2^10, x1 < 2^44 + 2^8 and
 * x2 < 2^42 + 2^7: carried. */
INLINE struct numbers carry(struct products sum) {
    const __m512i mask44 = all(MASK44), mask42 = all(MASK42);
    __m512i carry0 = _mm512_add_epi64(_mm512_srli_epi64(sum.low0, 44), _mm512_slli_epi64(sum.high0, 8));
    __m512i carry1 = _mm512_add_epi64(_mm512_srli_epi64(sum.low1, 44), _mm512_slli_epi64(sum.high1, 8));
    __m512i carry2 = _mm512_add_epi64(_mm512_srli_epi64(sum.low2, 42), _mm512_slli_epi64(sum.high2, 10));
    __m512i x0 = _mm512_add_epi64(_mm512_and_si512(sum.low0, mask44), times5(carry2));
    __m512i x1 = _mm512_add_epi64(_mm512_and_si512(sum.low1, mask44), carry0);
    __m512i x2 = _mm512_add_epi64(_mm512_and_si512(sum.low2, mask42), carry1);
    carry0 = _mm512_srli_epi64(x0, 44);
    carry1 = _mm512_srli_epi64(x1, 44);
    carry2 = _mm512_srli_epi64(x2, 42);
    return (struct numbers){_mm512_add_epi64(_mm512_and_si512(x0, mask44), times5(carry2)),
                            _mm512_add_epi64(_mm512_and_si512(x1, mask44), carry0),
                            _mm512_add_epi64(_mm512_and_si512(x2, mask42), carry1)};
}

INLINE struct numbers multiply(struct numbers x, struct factors f) {
    return carry(multiply_add(nothing(), x, f));
}

/* Eight blocks of which `one` and `two` are four each, and their ones behind them, which weigh 2^128 = 2^88 2^40. */
INLINE struct numbers numbers_of(__m512i one, __m512i two, __m512i ones) {
    __m512i low = _mm512_unpacklo_epi64(one, two), high = _mm512_unpackhi_epi64(one, two), mask44 = all(MASK44);
    __m512i middle = _mm512_or_si512(_mm512_srli_epi64(low, 44), _mm512_slli_epi64(high, 20));
    return (struct numbers){_mm512_and_si512(low, mask44), _mm512_and_si512(middle, mask44),
                            _mm512_or_si512(_mm512_srli_epi64(high, 24), ones)};
}

/* Ones behind those blocks whose words, two a block, are named. */
INLINE __m512i ones_of(uint32_t one, uint32_t two) {
    __m512i bit = all((uint64_t)1 << 40);
    return _mm512_unpackhi_epi64(_mm512_maskz_mov_epi64((__mmask8)one, bit), _mm512_maskz_mov_epi64((__mmask8)two, bit));
}

/* The first one to eight blocks, as the last ones of eight; those before them are zero. */
INLINE struct numbers first_blocks(const uint8_t *message, uint32_t blocks) {
    uint32_t words = 0xffffu << 2 * (LANES - blocks) & 0xffff, one = words & 0xff, two = words >> 8;
    uint32_t behind = blocks > LANES / 2 ? (blocks - LANES / 2) * BLOCK : 0;
    return numbers_of(_mm512_maskz_expandloadu_epi64((__mmask8)one, message),
                      _mm512_maskz_expandloadu_epi64((__mmask8)two, message + behind), ones_of(one, two));
}

/* The last eight blocks; `size` bytes of them, at least HALF + 49, at most GROUP. */
INLINE struct numbers last_blocks(const uint8_t *message, uint32_t size) {
    uint64_t bytes = ~(uint64_t)0 >> (GROUP - size), behind = size < GROUP ? bytes + 1 : 0;
    __m512i two = _mm512_maskz_loadu_epi8(bytes, message + HALF);
    two = _mm512_mask_mov_epi8(two, behind, _mm512_set1_epi8(1));
    return numbers_of(_mm512_loadu_si512(message), two, ones_of(0xff, size < GROUP ? 0x3f : 0xff));
}

INLINE struct numbers whole_blocks(const uint8_t *message) {
    return numbers_of(_mm512_loadu_si512(message), _mm512_loadu_si512(message + HALF), all((uint64_t)1 << 40));
}

INLINE struct numbers add(struct numbers x, struct numbers m) {
    return (struct numbers){_mm512_add_epi64(x.x0, m.x0), _mm512_add_epi64(x.x1, m.x1), _mm512_add_epi64(x.x2, m.x2)};
}

/* Each lane of `x`, or of `y` where `lanes` has its bit. */
INLINE struct numbers choose(uint32_t lanes, struct numbers x, struct numbers y) {
    __mmask8 mask = (__mmask8)lanes;
    return (struct numbers){_mm512_mask_mov_epi64(x.x0, mask, y.x0), _mm512_mask_mov_epi64(x.x1, mask, y.x1),
                            _mm512_mask_mov_epi64(x.x2, mask, y.x2)};
}

/* Lane 0 in all lanes. */
INLINE struct numbers everywhere(struct numbers x) {
    return (struct numbers){_mm512_broadcastq_epi64(_mm512_castsi512_si128(x.x0)),
                            _mm512_broadcastq_epi64(_mm512_castsi512_si128(x.x1)),
                            _mm512_broadcastq_epi64(_mm512_castsi512_si128(x.x2))};
}

static uint64_t load(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* r, with those 22 of its bits cleared that the RFC clears: below 2^124, and carried. */
INLINE struct numbers clamped(const uint8_t *key) {
    uint64_t low = load(key) & 0x0ffffffc0fffffff, high = load(key + 8) & 0x0ffffffc0ffffffc;
    return (struct numbers){all(low & MASK44), all((low >> 44 | high << 20) & MASK44), all(high >> 24)};
}

/* Powers of r, lane by lane as drawn above, and r^8 in all lanes: three multiplications.
 *
 *     lane     0  1  2  3  4  5  6  7
 *     two      2  2  2  2  2  2  2  2     r * r
 *     low      2  2  1  1  2  2  1  1     chosen
 *     high     4  4  3  3  4  4  3  3     low * two
 *     low      4  4  3  3  2  2  1  1     chosen
 *     high     8  8  7  7  6  6  5  5     low * 4
 *     powers   8  4  7  3  6  2  5  1     chosen
 */
INLINE struct numbers powers_of(struct numbers r, struct factors *eighth) {
    struct numbers two = multiply(r, factors(r)), low = choose(0x33, r, two), high = multiply(low, factors(two));
    low = choose(0x0f, low, high);
    high = multiply(low, factors(everywhere(high)));
    *eighth = factors(everywhere(high));
    return choose(0x55, low, high);
}

/* h + s mod 2^128 for a sum of eight carried numbers: h0, h1 < 2^48, h2 < 2^46. */
static void finish(uint8_t *tag, uint64_t h0, uint64_t h1, uint64_t h2, const uint8_t *s) {
    /* Twice around. After the first h0 < 2^44 + 90, h1 < 2^44, h2 < 2^42. The second changes nothing if h0 < 2^44; else it
     * leaves h0 < 90 + 5. So then h0 < 2^44, h1 < 2^44, h2 < 2^42, that is h < 2^130 = p + 5. */
    for (int i = 0; i < 2; i++) {
        h1 += h0 >> 44, h0 &= MASK44;
        h2 += h1 >> 44, h1 &= MASK44;
        h0 += 5 * (h2 >> 42), h2 &= MASK42;
    }
    /* h - p = h + 5 - 2^130 is taken instead if it is not below zero: if its bit 63 is clear. */
    uint64_t g0 = h0 + 5, g1 = h1 + (g0 >> 44), g2 = h2 + (g1 >> 44) - ((uint64_t)1 << 42);
    uint64_t taken = (g2 >> 63) - 1;
    h0 = (h0 & ~taken) | (g0 & MASK44 & taken);
    h1 = (h1 & ~taken) | (g1 & MASK44 & taken);
    h2 = (h2 & ~taken) | (g2 & taken);
    uint64_t low = h0 | h1 << 44, high = h1 >> 20 | h2 << 24, sum = low + load(s);
    high += load(s + 8) + (sum < low);
    memcpy(tag, &sum, 8);
    memcpy(tag + 8, &high, 8);
}

/* More than eight blocks, so that the first ones are whole, and others than the last. */
_Static_assert((int)TR_WIDE_TAG_FROM > (int)GROUP, "the first blocks are not the last");

/* Horner's rule over all but the last eight blocks, which end at `end`; two steps at once, as one carry is enough for both:
 * (h r^8 + m) r^8 = h r^16 + m r^8. */
INLINE struct numbers horner(struct numbers h, struct factors eighth, const uint8_t **message, const uint8_t *end) {
    struct factors sixteenth = factors(multiply((struct numbers){eighth.y0, eighth.y1, eighth.y2}, eighth));
    for (; end - *message > 2 * GROUP; *message += 2 * GROUP) {
        struct products sum = multiply_add(nothing(), whole_blocks(*message), eighth);
        h = add(carry(multiply_add(sum, h, sixteenth)), whole_blocks(*message + GROUP));
    }
    for (; end - *message > GROUP; *message += GROUP)
        h = add(multiply(h, eighth), whole_blocks(*message));
    return h;
}

IFMA int poly_tag_ifma(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key) {
    struct factors eighth;
    struct numbers powers = powers_of(clamped(key), &eighth);
    const uint8_t *end = message + size;
    uint32_t blocks = (uint32_t)((size + BLOCK - 1) / BLOCK), first = (blocks - 1) % LANES + 1;
    struct numbers h = first_blocks(message, first);
    message += first * BLOCK;
    if (end - message > GROUP)
        h = horner(h, eighth, &message, end);
    h = add(multiply(h, eighth), last_blocks(message, (uint32_t)(end - message)));
    h = multiply(h, factors(powers));
    finish(tag, (uint64_t)_mm512_reduce_add_epi64(h.x0), (uint64_t)_mm512_reduce_add_epi64(h.x1),
           (uint64_t)_mm512_reduce_add_epi64(h.x2), key + BLOCK);
    return 0;
}

#endif
