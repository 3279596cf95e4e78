/* Datagrams that no lane opens: rubbish is counted, what has a handshake's type is the driver's to decide on.
 *
 * Law: while the budget that all strangers have for first messages is spent, the driver would refuse each one alike, so
 * it says until when, and for so long they end here, at the cost of a look at their source. Peers have a budget of their
 * own and are always told of: `known` has a bit for the hash of each of their addresses, and a stranger that shares one
 * is told of, too. As strangers.py.
 */

#include "bytes.h"
#include "kernel.h"

static uint32_t bit_of(const tr_endpoint *from) {
    uint64_t high = from->size == 28 ? get64(from->name + 8) : 0;
    uint64_t low = from->size == 28 ? get64(from->name + 16) : get32(from->name + 4);
    return (uint32_t)((high * 0x9e3779b97f4a7c15u ^ low) * 0xd6e8feb86659fd93u >> (64 - KNOWN_LOG));
}

/* Bound: a bit number is below 1 << KNOWN_LOG. */
void tr_know(tr_kernel *k, const tr_endpoint *addresses, uint32_t count) {
    memset(k->in.known, 0, sizeof k->in.known);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bit = bit_of(&addresses[i]);
        k->in.known[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
}

static bool knows(const tr_kernel *k, const tr_endpoint *from) {
    uint32_t bit = bit_of(from);
    return k->in.known[bit / 8] >> bit % 8 & 1;
}

/* First messages have two forms, sealed and not; what the driver refused of one says nothing of another size. */
static void handshake(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now) {
    bool first = datagram[0] == TYPE_FIRST && datagram[1] <= 1 && !datagram[2] && !datagram[3];
    struct shut *shut = &k->in.shut[datagram[1] & 1];
    if (first && now < shut->until && size == shut->size && !endpoint_node(from) && !knows(k, from)) {
        k->in_counters[count_handshake_over_budget]++;
        return;
    }
    double until = k->events.stranger(k->events.self, datagram, size, from, now, k->in.wakeup);
    if (first && until > now)
        *shut = (struct shut){until, size};
}

void stranger(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now) {
    uint8_t type = size ? datagram[0] : 0;
    if (type == TYPE_DATA && size >= BODY && !datagram[1] && !datagram[2] && !datagram[3]) {
        bool known = table_get(&k->lanes, get32(datagram + 4)) != NULL;
        k->in_counters[known ? count_drop_expired : count_drop_unknown_index]++;
    } else if (size < HEADER_BYTES || size > MAX_HANDSHAKE_BYTES || type < TYPE_FIRST || type > TYPE_REJECT) {
        k->in_counters[count_drop_malformed]++;
    } else {
        handshake(k, datagram, size, from, now);
    }
}
