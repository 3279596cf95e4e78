/* Datagrams that no lane opens: rubbish is counted, what has a handshake's form is the driver's to decide on.
 *
 * Law: while a budget is spent, the driver would refuse alike whatever else it pays for, so it says until when, and for so
 * long that ends here, at the cost of a look at its form and source. All strangers' first messages have one budget, their
 * answers and rejects another, and first messages of one source a third; of sources the last few that ran dry are kept,
 * each at the place of its hash. Peers have budgets of their own and are always told of: `known` has a bit for the hash of
 * each of their addresses, and a stranger that shares one is told of, too. As strangers.py.
 */

#include "bytes.h"
#include "kernel.h"

enum { SEALED = 1 };
enum { FIRST_CLEAR_BYTES = HEADER_BYTES + 32 + FIRST_PAYLOAD_BYTES, LEAST_ANSWER_BYTES = HEADER_BYTES + 32 + TAG_BYTES + 1 };
enum { NEED_PASSWORD = 1, OTHER_VERSION = 4 };

static uint64_t hash(const tr_endpoint *from) {
    uint64_t high = from->size == 28 ? get64(from->name + 8) : 0;
    uint64_t low = from->size == 28 ? get64(from->name + 16) : get32(from->name + 4);
    return (high * 0x9e3779b97f4a7c15u ^ low) * 0xd6e8feb86659fd93u;
}

/* Bound: a bit's number is below 1 << KNOWN_LOG. */
static uint32_t bit_of(const tr_endpoint *from) {
    return (uint32_t)(hash(from) >> (64 - KNOWN_LOG));
}

void tr_know(tr_kernel *k, const tr_endpoint *addresses, uint32_t count) {
    pthread_mutex_lock(&k->in_gate);
    memset(k->in.known, 0, sizeof k->in.known);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bit = bit_of(&addresses[i]);
        k->in.known[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
    pthread_mutex_unlock(&k->in_gate);
}

static bool knows(const tr_kernel *k, const tr_endpoint *from) {
    uint32_t bit = bit_of(from);
    return k->in.known[bit / 8] >> bit % 8 & 1;
}

static bool is_handshake(const uint8_t *datagram, uint32_t size) {
    if (size < HEADER_BYTES || size > MAX_HANDSHAKE_BYTES || datagram[2] || datagram[3])
        return false;
    uint8_t flags = datagram[1];
    switch (datagram[0]) {
    case TYPE_FIRST:
        return flags <= SEALED && size == FIRST_CLEAR_BYTES + (flags ? TAG_BYTES : 0);
    case TYPE_ANSWER:
        return flags <= SEALED && size >= LEAST_ANSWER_BYTES;
    case TYPE_REJECT:
        return flags >= NEED_PASSWORD && flags <= OTHER_VERSION && size == HEADER_BYTES;
    }
    return false;
}

/* Whether the driver would refuse it: then it is counted. */
static bool shut(tr_kernel *k, bool first, const tr_endpoint *from, double now) {
    const struct dry *dry = &k->in.dry[hash(from) % DRY_SOURCES];
    enum counter counter = first ? count_handshake_over_budget : count_answer_over_budget;
    if (now >= k->in.shut_until[first]) {
        if (!first || now >= dry->until || dry->source != hash(from))
            return false;
        counter = count_handshake_source_rate;
    }
    if (endpoint_node(from) || knows(k, from))
        return false;
    k->in_counters[counter]++;
    return true;
}

static void handshake(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now) {
    bool first = datagram[0] == TYPE_FIRST;
    uint32_t alone = 0;
    if (shut(k, first, from, now))
        return;
    double until = k->events.stranger(k->events.self, datagram, size, from, now, k->in.wakeup, &alone);
    if (alone)
        k->in.dry[hash(from) % DRY_SOURCES] = (struct dry){hash(from), until};
    else if (until > now)
        k->in.shut_until[first] = until;
}

void stranger(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now) {
    if (size >= BODY && get32(datagram) == (uint32_t)TYPE_DATA << 24) {
        bool known = table_get(&k->lanes, get32(datagram + 4)) != NULL;
        k->in_counters[known ? count_drop_expired : count_drop_unknown_index]++;
    } else if (is_handshake(datagram, size)) {
        handshake(k, datagram, size, from, now);
    } else {
        k->in_counters[count_drop_malformed]++;
    }
}
