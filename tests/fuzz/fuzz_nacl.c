/* A NaCl that is fast and worthless: boxes that the fuzzer can seal around rubbish, and that forgeries do not open.
 * In some rounds it is slow and right instead, and the kernel seals and opens with its own ciphers as well.
 *
 * It reads and writes just what libsodium would, and checks what the kernel has to promise: 32 zeros before a message,
 * and buffers that are apart. A pass of the stream may go SLACK bytes on, to where nobody looks (box.c); how long the
 * message itself is, its tag tells. Laws:
 *
 * - a pass ends inside its buffers, and no more than SLACK bytes behind what may be read; one of the kernel's own reads
 *   nothing behind it, and they get nothing shorter than they can take;
 * - what is sealed or opened itself has no byte from behind the fence;
 * - behind a sealed or opened datagram there is a fence in turn, and all of a forgery lies behind one.
 */

#include <sanitizer/asan_interface.h>
#include <string.h>

#include "fuzz.h"

enum { ZEROS = 32 };

/* The pass that the next tag belongs to; a thread that seals has its own. */
static _Thread_local struct pass {
    const uint8_t *from;
    uint8_t *to;
    size_t size, readable;
} pass;

/* The ciphers are NaCl's in this round; and the kernel's own, or where the processor has none, the same once more. */
static bool real;
static tr_nacl own;

static uint64_t load(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t hash(const uint8_t *data, size_t size, uint64_t value) {
    for (; size >= 8; data += 8, size -= 8)
        value = (value ^ load(data)) * 0x9e3779b97f4a7c15u, value ^= value >> 29;
    for (; size; data++, size--)
        value = (value ^ *data) * 0x9e3779b97f4a7c15u, value ^= value >> 29;
    return value;
}

/* --- the functions themselves ------------------------------------------------------------------------------------------- */

static void derive(uint8_t *to, const uint8_t *nonce, const uint8_t *key) {
    uint64_t value = hash(nonce, 16, hash(key, 32, 1));
    for (int i = 0; i < 4; i++) {
        value = value * 6364136223846793005u + 1442695040888963407u;
        memcpy(to + 8 * i, &value, 8);
    }
}

static void stream(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *nonce, const uint8_t *key) {
    if (real) {
        plain_stream_xor(to, from, size, nonce, key);
        return;
    }
    uint64_t state = hash(nonce, 8, hash(key, 32, 2)) | 1;
    for (size_t i = 0; i < size; i += 8) {
        size_t part = size - i < 8 ? size - i : 8;
        uint64_t block = 0;
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        memcpy(&block, from + i, part);
        block ^= state;
        memcpy(to + i, &block, part);
    }
}

static void tag_put(uint8_t *tag, const uint8_t *message, size_t size, const uint8_t *key) {
    if (real) {
        plain_authenticate(tag, message, size, key);
        return;
    }
    uint64_t one = hash(message, size, hash(key, 32, 3)), two = one * 0xd6e8feb86659fd93u + 1;
    memcpy(tag, &one, 8);
    memcpy(tag + 8, &two, 8);
}

static bool tag_right(const uint8_t *tag, const uint8_t *message, size_t size, const uint8_t *key) {
    uint8_t right[TAG_BYTES];
    tag_put(right, message, size, key);
    return !memcmp(right, tag, sizeof right);
}

void fuzz_seal(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *nonce, const uint8_t *key) {
    uint8_t made[32], tag[TAG_BYTES];
    derive(made, nonce, key);
    stream(to, from, size, nonce + 16, made);
    tag_put(tag, to + ZEROS, size - ZEROS, to);
    memset(to, 0, HEADER_BYTES);
    memcpy(to + HEADER_BYTES, tag, sizeof tag);
}

bool fuzz_open(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *nonce, const uint8_t *key) {
    uint8_t made[32], one_time[ZEROS];
    derive(made, nonce, key);
    stream(to, from, size, nonce + 16, made);
    for (int i = 0; i < ZEROS; i++)
        one_time[i] = to[i] ^ from[i];
    return tag_right(from + HEADER_BYTES, from + ZEROS, size - ZEROS, one_time);
}

/* --- as the kernel calls them --------------------------------------------------------------------------------------------- */

static int subkey(uint8_t *to, const uint8_t *nonce, const uint8_t *key, const uint8_t *constant) {
    MUST(!constant);
    derive(to, nonce, key);
    return 0;
}

static void check_apart(const uint8_t *to, const uint8_t *from, size_t size) {
    MUST(size > ZEROS);
    MUST(to + size <= from || from + size <= to);
    MUST(size <= memory_behind(to) && size <= memory_behind(from));
}

static void check_zeros(const uint8_t *message) {
    for (int i = 0; i < ZEROS; i++)
        MUST(message[i] == 0);
}

static int stream_xor(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                      const uint8_t *key) {
    check_apart(to, from, size);
    const uint8_t *fence = __asan_region_is_poisoned((void *)(uintptr_t)from, size);
    pass = (struct pass){.from = from, .to = to, .size = size, .readable = fence ? (size_t)(fence - from) : size};
    MUST(size - pass.readable <= SLACK);
    ASAN_UNPOISON_MEMORY_REGION(to, size);
    stream(to, from, pass.readable, nonce, key);
    memset(to + pass.readable, 0xa5, size - pass.readable);
    return 0;
}

static int wide_stream_xor(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                           const uint8_t *key) {
    check_apart(to, from, size);
    MUST(size >= TR_WIDE_STREAM_FROM && !__asan_region_is_poisoned((void *)(uintptr_t)from, size));
    pass = (struct pass){.from = from, .to = to, .size = size, .readable = size};
    reached[reach_wide_streams]++;
    ASAN_UNPOISON_MEMORY_REGION(to, size);
    return own.wide_stream_xor(to, from, size, nonce, key);
}

/* The pass at hand was about `size` bytes. */
static void pass_end(size_t size) {
    MUST(size <= pass.readable);
    memory_fence(pass.to, size, pass.size);
}

static int authenticate(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key) {
    MUST(message == pass.to + ZEROS && key == pass.to);
    check_zeros(pass.from);
    tag_put(tag, message, size, key);
    pass_end(ZEROS + size);
    return 0;
}

static int verify(const uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key) {
    MUST(message == pass.from + ZEROS);
    bool right = tag_right(tag, message, size, key);
    pass_end(right ? ZEROS + size : 0);
    return right ? 0 : -1;
}

/* Of what was sealed just now, or is to be opened. */
static int wide_authenticate(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key) {
    bool opening = message == pass.from + ZEROS;
    MUST(size >= TR_WIDE_TAG_FROM && ZEROS + size <= pass.readable);
    MUST(opening || (message == pass.to + ZEROS && key == pass.to));
    reached[reach_wide_tags]++;
    own.wide_authenticate(tag, message, size, key);
    MUST(tag_right(tag, message, size, key));
    if (!opening)
        check_zeros(pass.from);
    pass_end(!opening || !memcmp(tag, message - TAG_BYTES, TAG_BYTES) ? ZEROS + size : 0);
    return 0;
}

static int seal(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce, const uint8_t *key) {
    check_apart(to, from, size);
    check_zeros(from);
    memory_fence(to, size, size + SLACK);
    fuzz_seal(to, from, size, nonce, key);
    return 0;
}

static int open_box(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                    const uint8_t *key) {
    check_apart(to, from, size);
    memory_fence(to, size, size + SLACK);
    if (fuzz_open(to, from, size, nonce, key))
        return 0;
    memory_fence(to, 0, size);
    return -1;
}

/* Those that the kernel has agree with the ones here, or it would not give them. */
static void own_make(void) {
    own = (tr_nacl){.stream_xor = plain_stream_xor, .authenticate = plain_authenticate};
    MUST(!tr_widen(&own, tr_wide()));
    if (!own.wide_stream_xor)
        own.wide_stream_xor = plain_stream_xor;
    if (!own.wide_authenticate)
        own.wide_authenticate = plain_authenticate;
}

tr_nacl fuzz_nacl(enum boxes boxes) {
    tr_nacl nacl = {.seal = seal, .open = open_box};
    real = boxes == WIDE;
    if (boxes != WHOLE) {
        nacl.subkey = subkey;
        nacl.stream_xor = stream_xor;
        nacl.authenticate = authenticate;
        nacl.verify = verify;
    }
    if (boxes == WIDE) {
        own_make();
        nacl.wide_stream_xor = wide_stream_xor;
        nacl.wide_authenticate = wide_authenticate;
    }
    return nacl;
}
