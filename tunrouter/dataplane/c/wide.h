/* The box's two halves with instructions that not every processor has; wide.c says who may use them, box.c uses them.
 *
 * Each has the signature and the result of libsodium's function, takes any size from its FROM in api.h on, and reads and
 * writes no byte more. Law: no branch and no address depends on a key, a nonce or a byte of a message.
 */

#ifndef TR_WIDE_H
#define TR_WIDE_H

#include "kernel.h"

#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 9 : __GNUC__ >= 9)
#define TR_WIDE 1

/* salsa.c: Salsa20 from block 0 on. */
int salsa_xor_avx512(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                     const uint8_t *key);
/* poly.c: Poly1305; bound: TR_WIDE_TAG_FROM bytes or more. */
int poly_tag_ifma(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key);

#endif
#endif
