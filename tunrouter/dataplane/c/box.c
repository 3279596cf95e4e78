/* NaCl's secretbox on the packets' own memory, with libsodium's functions or, where a box is long enough and the processor
 * has the instructions, our own (wide.h); kernel.h draws message and datagram.
 *
 * XSalsa20-Poly1305 derives a subkey from key and the first 16 nonce bytes, which are constant in a lane: it is kept.
 * What remains is one Salsa20 pass, whose first 32 bytes are the one-time key of Poly1305, and one Poly1305 pass.
 * libsodium's Salsa20 pass costs the same for 65 as for 256 bytes and hardly more for 512, for it makes blocks four and
 * eight at a time and stragglers one by one, at as much each as four: so it goes on to the next multiple of 256, over
 * bytes that nobody looks at (a datagram of 1,409 bytes: a third off). Our own pass ends where the datagram ends.
 *
 * Opening makes its pass beside the datagram and before the tag is compared, since that pass brings the tag's key as
 * well; law: nobody looks at what it wrote unless the tag was right.
 */

#include "bytes.h"
#include "wide.h"

enum { ZEROS = 32, COUNTER_AT = 16, BLOCK = 64 };

_Static_assert(SLACK == 255 && SLOT_BYTES >= MAX_FRAME + SLACK, "a pass ends inside its buffers");

void box_key(const tr_nacl *nacl, bool sealed, uint8_t *to, const uint8_t *key, const uint8_t *nonce) {
    if (sealed && nacl->subkey)
        nacl->subkey(to, nonce, key, NULL);
    else
        memcpy(to, key, 32);
}

/* How many bytes a pass over `size` goes. */
static uint32_t pass(uint32_t size) {
    return size <= BLOCK ? size : (size + SLACK) & ~(uint32_t)SLACK;
}

static void stream(const tr_nacl *nacl, uint8_t *to, const uint8_t *from, uint32_t size, const uint8_t *nonce,
                   const uint8_t *key) {
    if (nacl->wide_stream_xor && size >= TR_WIDE_STREAM_FROM)
        nacl->wide_stream_xor(to, from, size, nonce + COUNTER_AT, key);
    else
        nacl->stream_xor(to, from, pass(size), nonce + COUNTER_AT, key);
}

/* Whether our own function makes the tag of so many bytes. */
static bool wide_tag(const tr_nacl *nacl, uint32_t size) {
    return nacl->wide_authenticate && size >= TR_WIDE_TAG_FROM;
}

static void seal(const tr_nacl *nacl, const struct seal_lane *lane, uint8_t *to, const uint8_t *message, uint32_t size) {
    uint8_t tag[TAG_BYTES];
    if (!nacl->stream_xor) {
        nacl->seal(to, message, size, lane->nonce, lane->key);
        return;
    }
    stream(nacl, to, message, size, lane->nonce, lane->key);
    if (wide_tag(nacl, size - ZEROS))
        nacl->wide_authenticate(tag, to + ZEROS, size - ZEROS, to);
    else
        nacl->authenticate(tag, to + ZEROS, size - ZEROS, to);
    memcpy(to + HEADER_BYTES, tag, sizeof tag);
}

void box_seal(const tr_nacl *nacl, struct seal_lane *lane, uint8_t *to, const uint8_t *message, uint32_t size) {
    uint64_t counter = lane->counter++;
    put64(lane->nonce + COUNTER_AT, counter);
    if (lane->session->sealed) {
        seal(nacl, lane, to, message, size);
    } else {
        memcpy(to + ZEROS, message + ZEROS, size - ZEROS);
        memcpy(to + HEADER_BYTES, lane->key, TAG_BYTES);
    }
    memcpy(to, lane->nonce, 8);
    put64(to + 8, counter);
}

/* In constant time. */
static bool same(const uint8_t *one, const uint8_t *two, size_t size) {
    uint8_t differing = 0;
    while (size--)
        differing |= *one++ ^ *two++;
    return !differing;
}

static bool tag_right(const tr_nacl *nacl, const uint8_t *datagram, uint32_t size, const uint8_t *key) {
    uint8_t tag[TAG_BYTES];
    if (!wide_tag(nacl, size - ZEROS))
        return !nacl->verify(datagram + HEADER_BYTES, datagram + ZEROS, size - ZEROS, key);
    nacl->wide_authenticate(tag, datagram + ZEROS, size - ZEROS, key);
    return same(datagram + HEADER_BYTES, tag, sizeof tag);
}

uint8_t *box_open(const tr_nacl *nacl, struct open_lane *lane, uint8_t *to, uint8_t *datagram, uint32_t size) {
    if (!lane->session->sealed)
        return same(datagram + HEADER_BYTES, lane->key, TAG_BYTES) ? datagram : NULL;
    memcpy(lane->nonce + COUNTER_AT, datagram + 8, 8);
    if (!nacl->stream_xor)
        return nacl->open(to, datagram, size, lane->nonce, lane->key) ? NULL : to;
    uint8_t key[32];
    stream(nacl, to, datagram, size, lane->nonce, lane->key);
    for (uint32_t i = 0; i < sizeof key; i++)
        key[i] = to[i] ^ datagram[i];
    return tag_right(nacl, datagram, size, key) ? to : NULL;
}
