/* The kernel's state, drawn. Limits in capitals that are not defined here are core/bounds.py's; the build gives them.
 *
 * A datagram, and the box inside it. `box` wants 32 zero bytes before the kind; sealed, they become header and tag:
 *
 *     message  | 32 zeros                                      | kind | inner packet ...
 *     datagram | type 4, 0, 0, 0 | index u32 | counter u64 | tag 16 | sealed ...
 *              0                 4           8            16       32
 *
 * A frame of the TUN lies in `out.frame` so that its message needs no move:
 *
 *     0                      95      118          128
 *     |  room for a prefix   | message: 32 zeros + kind | inner packet, at most MAX_FRAME bytes | 1 spare |
 *                                    | vnet header 10    |
 */

#ifndef TR_KERNEL_H
#define TR_KERNEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"
#include "packet.h"

enum { HEADER_BYTES = 16, TAG_BYTES = 16, BODY = 33, KIND_AT = 32, VNET_BYTES = 10 };
enum { TYPE_FIRST = 1, TYPE_ANSWER = 2, TYPE_REJECT = 3, TYPE_DATA = 4 };
enum { KEEPALIVE = 0, PACKET = 1, PACKET_PARTIAL = 2, CONTROL = 3, RELAY = 4 };
enum { AHEAD = BODY + 17 };                        /* where the inner datagram of a relay body lies */
enum { VNET_CSUM = 1, GSO_NONE = 0, GSO_TCP4 = 1, GSO_TCP6 = 4, GSO_UDP = 5, GSO_ECN = 0x80 };
enum { SLACK = 255 };                              /* bytes behind a datagram that box.c may read and spoil */
enum { INNER = 128, VNET_AT = INNER - VNET_BYTES, MESSAGE_AT = INNER - BODY };
enum { FRAME_BYTES = INNER + MAX_FRAME + 1, FRAME_ROOM = FRAME_BYTES + SLACK };
enum { SLOT_BYTES = MAX_FRAME + 1 + 576 };         /* no power of two: slots must not share lines of the cache */
enum { SLOT_ROOM = SLOT_BYTES + SLACK };
enum { BATCH_ROOM = RECEIVE_BATCH * SLOT_BYTES + SLACK, OPENED_ROOM = 2 * RECEIVE_BATCH * SLOT_BYTES + SLACK };
enum { TRAIN_ROOM = TRAIN_BYTES + SLACK }; /* wagons that leave in one call */
_Static_assert(TRAIN_BYTES == 2 * (BODY + MAX_FRAME + 1), "a wagon has place beside what is there");
enum { USUAL_HOPS = 64 };                          /* lane n has n more: a host joins no datagrams of different TTL */
enum { MAX_MESSAGE = 1280 };                       /* an ICMP message: IPv6 fills its minimum MTU */
enum { MAX_HEADERS = 60 + 60 };                    /* IP and TCP, both with all their options */

/* Everything that is counted, in reference.py's order: the two files are compared by a test. */
#define COUNTERS(X)                                                                                                  \
    X(answer_over_budget) X(answer_source_rate) X(control_rate) X(datagrams_out) X(drop_expired) X(drop_held_full)    \
    X(drop_inner_destination) X(drop_inner_source) X(drop_kind) X(drop_malformed) X(drop_no_route)                    \
    X(drop_no_socket) X(drop_path_mtu) X(drop_queue_full) X(drop_replay) X(drop_send_buffer) X(drop_tag)              \
    X(drop_too_big) X(drop_tun_write) X(drop_unknown_index) X(drop_unreachable) X(frames_in) X(gso_fallback)          \
    X(handshake_over_budget) X(handshake_queue_full) X(handshake_source_rate) X(icmp_limited) X(receive_errors)       \
    X(relay_delivered) X(relay_forwarded) X(relay_hop_limit) X(relay_malformed) X(relay_no_route) X(relay_sent)       \
    X(relay_too_big) X(seam_refused) X(tun_read_errors)
#define COUNTER_NAME(name) count_##name,
enum counter { COUNTERS(COUNTER_NAME) COUNTER_COUNT };

/* --- tables.c: two hash tables with open addressing, no more than half full ------------------------------------- */

struct entry {
    uint64_t key;
    void *value; /* null: free */
};

struct table {
    struct entry *entries;
    uint32_t mask; /* entries - 1; a power of two */
    uint32_t used;
};

bool table_open(struct table *table);
void table_close(struct table *table);
void *table_get(const struct table *table, uint64_t key);
bool table_put(struct table *table, uint64_t key, void *value); /* a new key; false without memory */
void table_remove(struct table *table, uint64_t key);

struct route {
    uint8_t prefix[16];
    uint8_t address; /* bytes: 4 or 16; 0: free */
    uint8_t length;  /* bits */
    uint64_t node;
};

struct routes {
    struct route *entries;
    uint32_t mask;
    uint32_t used;
    uint32_t of_length[2][129]; /* how many prefixes of IPv4, IPv6 have so many bits */
    uint8_t lengths[2][129];    /* those lengths that exist, longest first */
    uint32_t length_count[2];
};

bool routes_open(struct routes *routes);
void routes_close(struct routes *routes);
bool routes_add(struct routes *routes, const uint8_t *prefix, uint32_t address, uint32_t length, uint64_t node);
void routes_remove(struct routes *routes, const uint8_t *prefix, uint32_t address, uint32_t length);
/* Whether anybody owns the address, and who. */
bool routes_owner(const struct routes *routes, const uint8_t *at, uint32_t address, uint64_t *node);

/* --- budget: a token bucket, as core/admission.py's Budget --------------------------------------------------------- */

struct budget {
    double full_at;
    double step;
    double tolerance;
};

struct budget budget_of(double rate, double burst);
static inline bool budget_empty(const struct budget *budget, double now) {
    return budget->full_at - now > budget->tolerance;
}
static inline void budget_take(struct budget *budget, double now) {
    budget->full_at = (budget->full_at > now ? budget->full_at : now) + budget->step;
}

/* --- replay.c: RFC 6479, as core/replay.py -------------------------------------------------------------------------- */

enum { REPLAY_WORDS = 128 };

struct replay {
    uint64_t newest;
    bool any;
    uint64_t ring[REPLAY_WORDS];
};

bool replay_is_new(struct replay *replay, uint64_t counter);

/* --- sessions -------------------------------------------------------------------------------------------------------- */

struct session;

struct seal_lane {
    struct session *session;
    uint64_t counter;  /* the next one; law: it only grows, so (key, nonce) never repeats */
    uint32_t index;    /* the other side's receiver index */
    uint32_t hops;     /* the TTL that keeps lanes apart */
    uint8_t key[32];   /* HSalsa20's subkey, or the key if there is no direct stream, or the cookie in clear mode */
    uint8_t nonce[24]; /* header bytes 0-7, the lane's salt, the counter */
};

struct open_lane {
    struct session *session;
    uint32_t index;
    uint8_t key[32];
    uint8_t nonce[24];
    struct replay *window; /* null until something was opened */
};

struct session {
    uint32_t id;
    uint64_t node;
    bool sealed;
    bool delivers; /* the sender's identity is checked */
    bool backup;   /* what is sealed also goes by relay */
    double expires;
    tr_endpoint endpoint, told; /* where the other side is, and where control believes it to be */
    double told_at;
    double refused_at; /* when control was told that a datagram was too large */
    struct budget control, hop_wanted, astray;
    uint64_t sent_packets, sent_bytes, received_packets, received_bytes;
    double last_sent, last_received;
    tr_used reported;
    double reported_at;
    uint32_t lanes;
    uint32_t spoken; /* the lane that the peer's control spoke on last: ours answers there, for that way leads to it */
    struct seal_lane *seals;
    struct open_lane *opens;
    struct session *next, **link; /* of all sessions, oldest first; what points here */
};

struct path {
    uint64_t node;
    struct session *session; /* null: packets wait */
    uint32_t mtu;
    bool routed; /* found by the sweep */
    struct path *next, **link;
};

/* --- endpoint.c ----------------------------------------------------------------------------------------------------------- */

enum { RELAYED = 12 }; /* size of an endpoint that names a node */

uint32_t endpoint_version(const tr_endpoint *endpoint); /* 0: by relay */
uint64_t endpoint_node(const tr_endpoint *endpoint); /* 0: an address */
tr_endpoint endpoint_relayed(uint64_t node);
bool endpoint_equal(const tr_endpoint *one, const tr_endpoint *two);
/* Tells control where the other side is now, if it does not know. */
void endpoint_tell(tr_kernel *k, struct session *session, double now);

/* --- box.c -------------------------------------------------------------------------------------------------------------- */

/* The key to seal or open with, for nonces that begin with the 16 bytes at `nonce`. */
void box_key(const tr_nacl *nacl, bool sealed, uint8_t *to, const uint8_t *key, const uint8_t *nonce);
/* Both read up to SLACK bytes behind what they are given, and write as many behind `to`.
 * Seals a message of `size` bytes to a datagram with its header at `to`; spends a counter. */
void box_seal(const tr_nacl *nacl, struct seal_lane *lane, uint8_t *to, const uint8_t *message, uint32_t size);
/* Returns the opened datagram (kind at KIND_AT), at `to` or in place; null, and nothing to be looked at, if it is forged. */
uint8_t *box_open(const tr_nacl *nacl, struct open_lane *lane, uint8_t *to, uint8_t *datagram, uint32_t size);

/* --- segment.c ------------------------------------------------------------------------------------------------------------ */

/* How a super-packet falls apart: message i has `size` bytes (the last `last`) and begins at `start` + i * `step`. */
struct cut {
    uint32_t count, size, last, start, step;
    uint32_t inner;              /* bytes of all headers */
    uint32_t transport;
    uint32_t sequence;
    uint16_t identification;
    uint8_t version, protocol;
    uint8_t headers[3][MAX_HEADERS]; /* of the first segment, those between, and the last */
    uint32_t sums[3];            /* over each one's IPv4 header without identification */
};

bool cut_plan(struct cut *cut, const uint8_t *frame, const struct header *header, uint8_t gso, uint32_t size);
void cut_prefix(const struct cut *cut, uint8_t *frame, uint32_t i);

/* --- train.c, outbound.c ------------------------------------------------------------------------------------------------- */

struct train {
    uint8_t *buffer; /* TRAIN_ROOM: sealed datagrams, wagon after wagon */
    uint32_t end;
    uint32_t wagons;
    tr_wagon wagon[MAX_WAGONS];
    struct session *of[MAX_WAGONS];
    const struct seal_lane *lane; /* of the last wagon */
    uint32_t room;                /* datagrams that the last wagon still takes */
};

struct out {
    uint8_t *frame; /* FRAME_ROOM */
    struct train train;
    double now;     /* of the drain or call at hand */
    uint32_t cuts;  /* segments that were cut in this drain */
    bool single[7]; /* families whose sockets cannot send trains */
    struct budget icmp;
    struct cut cut;
};

void train_add(tr_kernel *k, struct train *train, struct seal_lane *lane, const uint8_t *message, uint32_t size);
void train_flush(tr_kernel *k, struct train *train);
void train_send_raw(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *to);
void outbound_forward(tr_kernel *k, uint32_t size, double now);

/* --- coalesce.c, inbound.c ------------------------------------------------------------------------------------------------ */

/* Segments of one flow, in order; `next` is the header that the next one must have. */
struct run {
    uint64_t node;
    uint32_t header;    /* bytes of all headers */
    uint32_t transport;
    uint32_t mss;
    uint32_t left;      /* how many more may join; none is predicted when it is zero */
    uint32_t count;
    uint32_t last;      /* bytes of the last payload */
    bool may_stand;     /* over IPv4 with DF: the second segment's identification may be the first one's */
    bool stands;        /* and it was */
    uint8_t version, protocol;
    uint8_t head[MAX_HEADERS];
    uint8_t next[MAX_HEADERS];
    const uint8_t *payload[MAX_COALESCED];
};

/* A source whose own budget is spent, by the hash of its address. */
struct dry {
    uint64_t source;
    double until;
};

enum { KNOWN_LOG = 16, DRY_SOURCES = 256 };

struct in {
    uint8_t *buffer;  /* RECEIVE_BATCH slots */
    uint8_t *opened;  /* twice as much: datagrams opened from the slots, and what came inside them by relay */
    uint8_t *inner;   /* SLOT_ROOM: what came by relay, still sealed */
    tr_slot slots[RECEIVE_BATCH];
    uint32_t end;     /* of what is opened */
    struct run *runs; /* MAX_FLOWS and a spare one */
    struct run *order[MAX_FLOWS + 1]; /* the first `run_count` are in use, oldest first */
    uint32_t run_count;
    struct run *current; /* the run continued last by the lane at hand, or null */
    bool forwarded;      /* the relay's train has something of this drain, and we hold the out gate until it left */
    uint32_t joins;
    uint64_t wakeup;
    double shut_until[2];                 /* strangers' answers and rejects; their first messages */
    struct dry dry[DRY_SOURCES];
    uint8_t known[(1u << KNOWN_LOG) / 8]; /* a bit for the hash of each address of a peer */
};

/* strangers.c */
void stranger(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now);

void runs_add(tr_kernel *k, uint8_t *packet, const struct header *header, uint64_t node);
void runs_take(struct run *run, const uint8_t *payload);
void runs_flush(tr_kernel *k);
/* Writes one packet as it is; `header` only if its checksum is partial. */
void runs_alone(tr_kernel *k, const uint8_t *packet, uint32_t length, const struct header *header);
void inbound_packet(tr_kernel *k, uint64_t node, uint8_t *datagram, uint32_t size);
/* A datagram that came by relay; one that no lane opens may be another worker's while `astray`, if given, lasts. */
void inbound_relayed(tr_kernel *k, uint64_t origin, const uint8_t *datagram, uint32_t size, struct budget *astray,
                     double now);

/* --- relay.c ---------------------------------------------------------------------------------------------------------------- */

struct hop;

struct relay {
    uint8_t *message; /* FRAME_ROOM */
    struct train train;
    struct budget wanted;
};

/* One of our own goes to `target`. */
void relay_send(tr_kernel *k, uint64_t target, const uint8_t *datagram, uint32_t size, double now);
void relay_arrived(tr_kernel *k, struct session *session, uint8_t *datagram, uint32_t size, const tr_endpoint *from,
                   double now);
void relay_flush(tr_kernel *k); /* after all that leaves directly */
void relay_close(tr_kernel *k);

/* --- all of it -------------------------------------------------------------------------------------------------------------- */

/* Two threads may work: one owns `out` and what sealing changes, the other `in` and what opening changes. Tables,
 * paths and endpoints change only under both gates. Order: door, in_gate, out_gate. */
struct tr_kernel {
    tr_io io;
    tr_events events;
    tr_nacl nacl;
    uint32_t versions;
    struct table lanes;    /* receiver index -> open_lane */
    struct table sessions; /* id -> session */
    struct table paths;    /* node -> path */
    struct table hops;     /* node -> hop */
    struct routes routes;
    struct session *first, **last; /* all sessions, in the order of their installation; where the next one is put */
    struct path *first_path;
    struct hop *first_hop;
    uint32_t lane_count;
    struct out out;
    struct in in;
    struct relay relay; /* belongs to who holds the out gate */
    uint64_t out_counters[COUNTER_COUNT]; /* of the thread that seals, and of control's calls */
    uint64_t in_counters[COUNTER_COUNT];
    pthread_mutex_t door, in_gate, out_gate;
    atomic_int waiting; /* somebody wants both gates */
};

struct path *path_of(tr_kernel *k, uint64_t node); /* made if there is none; null without memory */
bool session_alive(const struct session *session, double now);
struct session *session_of(tr_kernel *k, uint32_t id); /* null, counted, for one that is not there */

#endif
