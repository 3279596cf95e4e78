/* Relays: datagrams that travel inside the boxes of other sessions, hop by hop. As relay.py, where the format is drawn.
 *
 * Law: a hop is a session in use whose other side is at an address and not in doubt, so bodies are never nested. Each
 * hop takes one away from the hops left, which are never more than an origin begins with; none goes back to whom it came
 * from, and what has no way is counted and dropped. What is too large for a hop's path says nothing of the sizes that its
 * own session needs, so control does not hear of it.
 * All of it belongs to whoever holds the out gate. The thread that opens takes it with the first body that goes on, and
 * keeps it until its drain ends: what is sealed first on a lane also leaves first.
 */

#include <stdlib.h>

#include "bytes.h"
#include "kernel.h"

enum { HOPS_AT = BODY, TARGET_AT = BODY + 1, ORIGIN_AT = BODY + 9 };
enum { LARGEST = MAX_TRAIN_BYTES - AHEAD, LANE_BITS = 2 * MAX_WORKERS - 1 };

struct hop {
    uint64_t target, via;
    struct hop *next, **link; /* of all */
};

static void count(tr_kernel *k, enum counter counter) {
    k->out_counters[counter]++;
}

/* --- control's messages ------------------------------------------------------------------------------------------------ */

static void hop_remove(tr_kernel *k, struct hop *hop) {
    table_remove(&k->hops, hop->target);
    *hop->link = hop->next;
    if (hop->next)
        hop->next->link = hop->link;
    free(hop);
}

int tr_hop(tr_kernel *k, uint64_t target, uint64_t via) {
    struct hop *hop = table_get(&k->hops, target);
    if (!via) {
        if (hop)
            hop_remove(k, hop);
        return 0;
    }
    if (!hop) {
        if (k->hops.used >= MAX_HOPS || !(hop = calloc(1, sizeof *hop)) || !table_put(&k->hops, target, hop)) {
            free(hop);
            count(k, count_seam_refused);
            return -1;
        }
        hop->target = target;
        hop->next = k->first_hop;
        hop->link = &k->first_hop;
        if (k->first_hop)
            k->first_hop->link = &hop->next;
        k->first_hop = hop;
    }
    hop->via = via;
    return 0;
}

void relay_close(tr_kernel *k) {
    while (k->first_hop)
        hop_remove(k, k->first_hop);
}

int tr_backup(tr_kernel *k, uint32_t id, uint32_t on) {
    struct session *session = session_of(k, id);
    if (!session)
        return -1;
    session->backup = on;
    return 0;
}

/* --- datagrams ----------------------------------------------------------------------------------------------------------- */

/* The session that a hop to `node` goes in, or null. */
static struct session *session_to(tr_kernel *k, uint64_t node, double now) {
    struct path *path = table_get(&k->paths, node);
    struct session *session = path ? path->session : NULL;
    if (!session || session->backup || endpoint_node(&session->endpoint) || !session_alive(session, now))
        return NULL;
    return session;
}

static struct session *next_hop(tr_kernel *k, uint64_t target, double now) {
    struct hop *hop = table_get(&k->hops, target);
    return hop ? session_to(k, hop->via, now) : NULL;
}

static uint32_t number_of(const struct seal_lane *lane) {
    return lane->hops ? lane->hops - USUAL_HOPS : 0;
}

/* The lane of the inner datagram's number: with equal workers everywhere it arrives at the one that opens it. */
static struct seal_lane *lane_for(struct session *hop, const uint8_t *datagram) {
    if (datagram[0] != TYPE_DATA)
        return &hop->seals[0];
    uint32_t number = get32(datagram + 4) & LANE_BITS;
    for (uint32_t i = 0; i < hop->lanes; i++)
        if (number_of(&hop->seals[i]) == number)
            return &hop->seals[i];
    return &hop->seals[number % hop->lanes];
}

static bool put(tr_kernel *k, struct session *hop, uint8_t hops, uint64_t target, uint64_t origin,
                const uint8_t *datagram, uint32_t size, struct budget *wanted, double now) {
    struct relay *relay = &k->relay;
    if (!hop) {
        count(k, count_relay_no_route);
        if (!budget_empty(wanted, now)) {
            budget_take(wanted, now);
            k->events.hop_wanted(k->events.self, target);
        }
        return false;
    }
    if (size > LARGEST) {
        count(k, count_relay_too_big);
        return false;
    }
    uint8_t *message = relay->message;
    message[KIND_AT] = RELAY;
    message[HOPS_AT] = hops;
    put64(message + TARGET_AT, hop->node == target ? 0 : target);
    put64(message + ORIGIN_AT, origin);
    memcpy(message + AHEAD, datagram, size);
    train_add(k, &relay->train, lane_for(hop, datagram), message, AHEAD + size);
    return true;
}

void relay_send(tr_kernel *k, uint64_t target, const uint8_t *datagram, uint32_t size, double now) {
    if (put(k, next_hop(k, target, now), RELAY_HOPS, target, 0, datagram, size, &k->relay.wanted, now))
        count(k, count_relay_sent);
}

static void forward(tr_kernel *k, struct session *sender, uint8_t hops, uint64_t target, uint64_t origin,
                    const uint8_t *datagram, uint32_t size, double now) {
    hops = hops < RELAY_HOPS ? hops : RELAY_HOPS;
    if (hops <= 1) {
        count(k, count_relay_hop_limit);
        return;
    }
    struct session *hop = session_to(k, target, now);
    if (!hop)
        hop = next_hop(k, target, now);
    if (hop && hop->node == sender->node)
        count(k, count_relay_no_route);
    else if (put(k, hop, hops - 1, target, origin, datagram, size, &sender->hop_wanted, now))
        count(k, count_relay_forwarded);
}

/* One opened body of kind RELAY: for us, or for another. */
void relay_arrived(tr_kernel *k, struct session *session, uint8_t *datagram, uint32_t size, const tr_endpoint *from,
                   double now) {
    if (endpoint_node(from) || !session->delivers || size < AHEAD + HEADER_BYTES) {
        k->in_counters[count_relay_malformed]++;
        return;
    }
    uint64_t target = get64(datagram + TARGET_AT), origin = get64(datagram + ORIGIN_AT);
    if (!origin)
        origin = session->node;
    if (!target) {
        k->in_counters[count_relay_delivered]++;
        inbound_relayed(k, origin, datagram + AHEAD, size - AHEAD, &session->astray, now);
        return;
    }
    if (!k->in.forwarded)
        pthread_mutex_lock(&k->out_gate);
    k->in.forwarded = true;
    forward(k, session, datagram[HOPS_AT], target, origin, datagram + AHEAD, size - AHEAD, now);
}

void relay_flush(tr_kernel *k) {
    train_flush(k, &k->relay.train);
}
