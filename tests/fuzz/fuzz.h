/* What the parts of the fuzzer share. fuzz_kernel.c says what it is; each section here is one file's. */

#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

/* A property that must hold whatever comes in. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "broken: %s (%s:%d)\n", #condition, __FILE__, __LINE__);                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* --- random numbers: xorshift64* (Vigna 2016) ------------------------------------------------------------------------- */

/* A seed means the same whatever the compiler, as long as no expression draws twice in an order that C leaves open. */

extern uint64_t fuzz_state;

static inline uint64_t draw(void) {
    fuzz_state ^= fuzz_state >> 12;
    fuzz_state ^= fuzz_state << 25;
    fuzz_state ^= fuzz_state >> 27;
    return fuzz_state * 0x2545f4914f6cdd1dull;
}

/* A number below `limit`. */
static inline uint32_t below(uint32_t limit) {
    return (uint32_t)((draw() >> 32) * limit >> 32);
}

static inline bool one_in(uint32_t times) {
    return below(times) == 0;
}

#define ONE_OF(...)                                                                                                    \
    ({                                                                                                                 \
        const uint32_t values[] = {__VA_ARGS__};                                                                       \
        values[below(sizeof values / sizeof *values)];                                                                 \
    })

/* --- fuzz_kernel.c: one round's kernel ---------------------------------------------------------------------------------- */

/* What the fuzzer got to; together with the kernel's counters the test's proof that it still goes deep. */
#define REACHES(X)                                                                                                     \
    X(frames) X(datagrams) X(writes) X(super_tcp4) X(super_tcp6) X(super_udp4) X(super_udp6) X(longest_run) X(sent)     \
    X(trains) X(longest_train) X(longest_send) X(strangers) X(controls) X(held) X(waited) X(explained) X(refused)      \
    X(moved) X(unrouted) X(installed) X(retired) X(reported) X(out_of_memory) X(wide_streams) X(wide_tags)
#define REACH_NAME(name) reach_##name,
enum reach { REACHES(REACH_NAME) REACH_COUNT };

extern uint64_t reached[REACH_COUNT];
static inline void reached_most(enum reach reach, uint32_t value) {
    if (reached[reach] < value)
        reached[reach] = value;
}
extern tr_kernel *kernel;
extern double now;
extern bool sealed;          /* sessions are, else in clear mode */
extern uint32_t inputs_left; /* of the round: frames, datagrams and rubbish */

/* Whether there is one more input to this round. */
bool input_taken(void);
/* Reads what the kernel gives, so that the sanitizers look at it, and makes it part of what the run prints. */
void eat(const uint8_t *data, size_t size);

/* --- fuzz_memory.c -------------------------------------------------------------------------------------------------------- */

extern bool memory_short; /* a third of what the kernel asks for is refused */

/* Of the `room` bytes at `at`, in memory that the kernel mapped, only the first `size` may be touched. */
void memory_fence(const uint8_t *at, size_t size, size_t room);
/* How many bytes the mapping has from `at` on; 0 if it lies in none. */
size_t memory_behind(const uint8_t *at);
/* Takes all fences down: the kernel itself is about to fill its buffers. */
void memory_unfence(void);

/* --- fuzz_nacl.c ------------------------------------------------------------------------------------------------------ */

/* What stands in libsodium's place: just boxes; also the four functions that make the kernel's fast way; or these by
 * NaCl's real ciphers, and the kernel's own ones beside them. */
enum boxes { WHOLE, HALVES, WIDE };
tr_nacl fuzz_nacl(enum boxes boxes);
/* Both for the other side's boxes: what the kernel's do, with no fences and no promises. */
void fuzz_seal(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *nonce, const uint8_t *key);
bool fuzz_open(uint8_t *to, const uint8_t *from, size_t size, const uint8_t *nonce, const uint8_t *key);

/* --- fuzz_ciphers.c -------------------------------------------------------------------------------------------------- */

/* As libsodium's functions of the same tasks. */
int plain_stream_xor(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                     const uint8_t *key);
int plain_authenticate(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key);

/* --- fuzz_packets.c ---------------------------------------------------------------------------------------------------- */

enum { OURS = 1, NODES = 5 };          /* node n owns 10.32.n.0/24 and fd00:n::/64; the last one owns nothing */
enum { MAX_PACKET = MAX_FRAME + 1 };

struct flow {
    bool six;
    uint8_t protocol, source, destination, flags, options, network_options, tos;
    uint16_t port, identification, step, fragment, mss;
    uint32_t sequence;
    bool complete; /* checksums are, else partial */
};

void address_put(uint8_t *to, bool six, uint32_t node);
struct flow flow_draw(uint32_t source, uint32_t destination);
/* The flow's next packet with at most `payload` bytes of payload, MAX_PACKET in all; its size. */
uint32_t flow_next(struct flow *flow, uint8_t *to, uint32_t payload, uint8_t flags);
/* Changes some of the bytes, most of them in headers. */
void spoil(uint8_t *data, uint32_t size);
/* Makes it a shorter packet with a right length, perhaps within its headers; its size. */
uint32_t shorten(uint8_t *packet, uint32_t size);
/* A frame of the TUN with its virtio-net header, at most `room` bytes. */
uint32_t frame_draw(uint8_t *to, uint32_t room);

/* --- fuzz_peers.c ------------------------------------------------------------------------------------------------------- */

enum { SESSIONS = 40, LANES = 4, FIRST_SESSION = 0x1000, SESSION_STEP = 64, INDICES = 1 << 18 };

/* The other side of a session; `install.lanes` is 0 for one that is not installed. */
struct peer {
    tr_install_message install;
    tr_lane_keys lanes[LANES];
    uint64_t counters[LANES];
    struct flow flow;
};

extern struct peer peers[SESSIONS];

/* What a drain brings: one flow without a fault, which makes long runs; a bit of everything; many flows; one kind of
 * control's. */
extern enum mood { CALM, USUAL, RESTLESS, TALKATIVE } mood;
void mood_draw(void);

tr_endpoint endpoint_draw(void);
tr_endpoint anywhere_draw(void); /* or by relay */
/* None is installed. */
void peers_begin(void);
/* Draws keys and all else for peer `i`, as one that could be installed. */
void peer_draw(uint32_t i);
/* Whether the other side can open what the kernel sent it. */
bool peer_opens(const uint8_t *datagram, uint32_t size);
/* What the host puts into one slot: datagrams of one peer that it joined, or rubbish. `segment` is 0 for just one. */
uint32_t read_draw(uint8_t *to, uint32_t *segment);

/* --- fuzz_io.c, fuzz_events.c, fuzz_control.c --------------------------------------------------------------------------- */

extern uint32_t frames_left, reads_left; /* of the drain at hand */
extern const tr_io fuzz_io;
/* New keys for the other side's receiver indices from `index` on: their counters may begin anew. */
void sent_forget(uint32_t index);

extern const tr_events fuzz_events;
/* Opened packets and frames that the kernel gave away to be kept. */
struct kept {
    uint64_t of; /* session or node */
    uint32_t size;
    uint8_t *data;
};
bool held_take(struct kept *to);
bool waiting_take(struct kept *to);
void kept_close(void);

/* What a new kernel is told so that packets flow. */
void control_begin(void);
/* One message or question of control. */
void control_step(void);

#endif
