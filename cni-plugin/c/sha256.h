/* SHA-256 (FIPS 180-4), for the names of notes. */

#ifndef TR_SHA256_H
#define TR_SHA256_H

#include <stddef.h>
#include <stdint.h>

void sha256(uint8_t digest[32], const void *message, size_t size);

#endif
