/* The way in, in the order of a datagram: find its lane, open it, check replay, check who may say this, join, write.
 *
 *     UDP receive -> lane of the header -> box -> replay window -> kind -> owner of source and destination -> run -> TUN
 *
 * Law: nothing changes before the box is open. The replay window moves, the endpoint follows and control hears of it only
 * for authenticated datagrams. An opened packet passes only if its source belongs to the sending node and its
 * destination to this one. As inbound.py.
 */

#include <stdlib.h>

#include "bytes.h"
#include "kernel.h"

enum { LENGTH_BYTES = 2 }; /* of a control body's own length */

static void count(tr_kernel *k, enum counter counter) {
    k->in_counters[counter]++;
}

static bool is_data(const uint8_t *datagram, uint32_t size) {
    return size >= BODY && get32(datagram) == (uint32_t)TYPE_DATA << 24;
}

/* The lane that may open this; `stranger` tells apart why there is none. */
static struct open_lane *lane_of(tr_kernel *k, const uint8_t *datagram, uint32_t size, double now) {
    if (!is_data(datagram, size))
        return NULL;
    struct open_lane *lane = table_get(&k->lanes, get32(datagram + 4));
    return lane && now < lane->session->expires ? lane : NULL;
}

/* The newest authenticated datagram says where the other side is now; who alternates is told of by reports. */
static void follow(tr_kernel *k, struct session *session, const tr_endpoint *from, double now) {
    if (!k->in.forwarded)
        pthread_mutex_lock(&k->out_gate); /* the other thread sends there */
    session->endpoint = *from;
    if (!k->in.forwarded)
        pthread_mutex_unlock(&k->out_gate);
    if (now >= session->told_at + MOVED_SECONDS)
        endpoint_tell(k, session, now);
}

/* Whether an authentic counter is new; one that is newer than all others also says where its sender is. */
static bool accept(tr_kernel *k, struct open_lane *lane, uint64_t counter, const tr_endpoint *from, double now) {
    struct session *session = lane->session;
    if (!lane->window && !(lane->window = calloc(1, sizeof *lane->window)))
        return false;
    bool newest = !lane->window->any || counter > lane->window->newest;
    if (!replay_is_new(lane->window, counter))
        return false;
    /* No path is proved by what did not come on it, and only control decides what goes by relay. */
    bool relayed = endpoint_node(from);
    if (relayed != !!endpoint_node(&session->endpoint))
        return true;
    if (newest && !relayed && !endpoint_equal(from, &session->endpoint))
        follow(k, session, from, now);
    session->last_received = now;
    return true;
}

/* One opened packet that continues no run at hand. */
void inbound_packet(tr_kernel *k, uint64_t node, uint8_t *datagram, uint32_t size) {
    uint8_t *packet = datagram + BODY;
    bool partial = datagram[KIND_AT] == PACKET_PARTIAL;
    struct header header;
    uint64_t owner = 0;
    if (!packet_read(packet, size - BODY, &header))
        count(k, count_drop_malformed);
    else if (!routes_owner(&k->routes, header.source, header.address, &owner) || owner != node)
        count(k, count_drop_inner_source);
    else if (!routes_owner(&k->routes, header.destination, header.address, &owner) || owner)
        count(k, count_drop_inner_destination);
    else if (packet_has_transport(&header)) {
        if (partial || packet_make_partial(packet, &header)) {
            runs_add(k, packet, &header, node);
        } else {
            runs_flush(k); /* it may belong to a run's flow and must not overtake it */
            runs_alone(k, packet, header.length, NULL);
        }
    } else if (partial)
        count(k, count_drop_malformed);
    else
        runs_alone(k, packet, header.length, NULL);
}

static void control(tr_kernel *k, struct session *session, const uint8_t *datagram, uint32_t size,
                    const tr_endpoint *from, double now) {
    uint32_t room = LENGTH_BYTES + MAX_CONTROL_BYTES, body = size - BODY; /* behind it is padding */
    if (budget_empty(&session->control, now)) {
        count(k, count_control_rate);
        return;
    }
    budget_take(&session->control, now);
    k->events.control(k->events.self, session->id, from, datagram + BODY, body < room ? body : room, size);
}

static void opened(tr_kernel *k, struct open_lane *lane, uint8_t *datagram, uint32_t size, const tr_endpoint *from,
                   double now) {
    struct session *session = lane->session;
    switch (datagram[KIND_AT]) {
    case PACKET:
    case PACKET_PARTIAL:
        session->received_packets++;
        session->received_bytes += size - BODY;
        if (session->delivers)
            inbound_packet(k, session->node, datagram, size);
        else
            k->events.hold(k->events.self, session->id, datagram, size);
        break;
    case CONTROL:
        session->spoken = (uint32_t)(lane - session->opens);
        control(k, session, datagram, size, from, now);
        break;
    case RELAY:
        relay_arrived(k, session, datagram, size, from, now);
        break;
    case KEEPALIVE:
        break;
    default:
        count(k, count_drop_kind);
    }
}

/* Whether the datagram is the next one of the run at hand, which then has it. */
static bool continues(tr_kernel *k, struct session *session, const uint8_t *datagram, uint32_t size) {
    struct run *run = k->in.current;
    if (!run || !run->left || size != BODY + run->header + run->mss || datagram[KIND_AT] != PACKET_PARTIAL ||
        memcmp(datagram + BODY, run->next, run->header))
        return false;
    runs_take(run, datagram + BODY + run->header);
    session->received_packets++;
    session->received_bytes += size - BODY;
    return true;
}

/* Bound: what is opened of a batch is not longer than its slots, for which `opened` has room. */
static struct open_lane *one(tr_kernel *k, struct open_lane *lane, uint8_t *datagram, uint32_t size,
                             const tr_endpoint *from, double now) {
    if (!lane || size < BODY || memcmp(datagram, lane->nonce, 8)) {
        struct open_lane *found = lane_of(k, datagram, size, now);
        if (!found) { /* a stranger between two datagrams of a run does not end it */
            stranger(k, datagram, size, from, now);
            return lane;
        }
        lane = found;
        k->in.current = NULL; /* a run belongs to one sending node */
    }
    uint64_t counter = get64(datagram + 8);
    uint8_t *plain = box_open(&k->nacl, lane, k->in.opened + k->in.end, datagram, size);
    if (!plain)
        count(k, count_drop_tag);
    else if (!accept(k, lane, counter, from, now))
        count(k, count_drop_replay);
    else {
        k->in.end += size;
        if (!continues(k, lane->session, plain, size))
            opened(k, lane, plain, size, from, now);
    }
    return lane;
}

static bool is_astray(tr_kernel *k, const uint8_t *datagram, uint32_t size, struct budget *budget, double now) {
    if (!is_data(datagram, size) || table_get(&k->lanes, get32(datagram + 4)) || budget_empty(budget, now))
        return false;
    budget_take(budget, now);
    return true;
}

/* Bound: it came inside a datagram that was opened, or alone, so `opened` has room for it. */
void inbound_relayed(tr_kernel *k, uint64_t origin, const uint8_t *datagram, uint32_t size, struct budget *astray,
                     double now) {
    struct open_lane *lane = lane_of(k, datagram, size, now);
    tr_endpoint from = endpoint_relayed(lane ? lane->session->node : origin);
    if (!lane && astray && is_astray(k, datagram, size, astray, now)) {
        k->events.astray(k->events.self, origin, datagram, size);
        return;
    }
    if (!lane) {
        stranger(k, datagram, size, &from, now);
        return;
    }
    k->in.current = NULL; /* a run belongs to one sending node */
    memcpy(k->in.inner, datagram, size); /* a box is not opened right in front of where it stands */
    uint8_t *to = k->in.opened + k->in.end, *plain = box_open(&k->nacl, lane, to, k->in.inner, size);
    if (!plain)
        count(k, count_drop_tag);
    else if (!accept(k, lane, get64(k->in.inner + 8), &from, now))
        count(k, count_drop_replay);
    else {
        if (plain != to)
            memcpy(to, plain, size);
        k->in.end += size;
        opened(k, lane, to, size, &from, now);
    }
    k->in.current = NULL;
}

void tr_relayed(tr_kernel *k, uint64_t origin, const uint8_t *datagram, uint32_t size, double now) {
    if (size < HEADER_BYTES || size > MAX_FRAME)
        return;
    k->in.end = 0;
    inbound_relayed(k, origin, datagram, size, NULL, now);
    runs_flush(k);
}

static void flush(tr_kernel *k) {
    runs_flush(k);
    if (!k->in.forwarded)
        return;
    k->in.forwarded = false;
    relay_flush(k);
    pthread_mutex_unlock(&k->out_gate);
}

int tr_drain_udp(tr_kernel *k, uint32_t version, double now) {
    struct in *in = &k->in;
    for (uint32_t i = 0; i < RECEIVE_BATCH; i++)
        in->slots[i].data = in->buffer + (size_t)i * SLOT_BYTES;
    int32_t filled = k->io.receive(k->io.self, version, in->slots, RECEIVE_BATCH);
    if (filled < 0)
        count(k, count_receive_errors);
    if (filled <= 0)
        return filled < 0;
    in->wakeup++;
    in->end = 0;
    struct open_lane *lane = NULL;
    for (int32_t i = 0; i < filled; i++) {
        const tr_slot *slot = &in->slots[i];
        uint32_t segment = slot->segment ? slot->segment : slot->size, at = 0;
        do {
            uint32_t left = slot->size - at, size = left < segment ? left : segment;
            lane = one(k, lane, slot->data + at, size, &slot->from, now);
            at += segment;
        } while (at < slot->size);
    }
    flush(k);
    return filled == RECEIVE_BATCH;
}

void tr_held(tr_kernel *k, uint32_t id, const uint8_t *datagram, uint32_t size) {
    struct session *session = table_get(&k->sessions, id);
    if (!session || size < BODY || size > SLOT_BYTES)
        return;
    memcpy(k->in.opened, datagram, size);
    inbound_packet(k, session->node, k->in.opened, size);
    runs_flush(k);
}
