/* Trains: sealed datagrams of one lane that leave in one wagon of one system call.
 *
 * UDP_SEGMENT takes at most 64 datagrams of one size, the last may be shorter: a wagon. Wagons of any lanes leave in one
 * sendmmsg when the buffer is full and at the end of a drain. What the host refuses is tried smaller, counted, and
 * never more than that. As train.py.
 */

#include <errno.h>

#include "bytes.h"
#include "kernel.h"

static uint32_t datagrams(const tr_wagon *wagon) {
    return (wagon->size + wagon->segment - 1) / wagon->segment;
}

static bool too_large(int error) {
    return error == EMSGSIZE || error == EINVAL;
}

static void refused(tr_kernel *k, int error, uint32_t count) {
    enum counter counter = count_drop_unreachable;
    if (too_large(error))
        counter = count_drop_path_mtu;
    else if (error == EAGAIN || error == ENOBUFS)
        counter = count_drop_send_buffer;
    k->out_counters[counter] += count;
}

/* Begins a wagon for datagrams of at most `size` bytes; law: the buffer has place for all that it may take. */
static void depart(tr_kernel *k, struct train *train, const struct seal_lane *lane, uint32_t size) {
    uint32_t room = MAX_TRAIN_BYTES / size;
    if (room > MAX_TRAIN_SEGMENTS)
        room = MAX_TRAIN_SEGMENTS;
    if (train->wagons == MAX_WAGONS || TRAIN_BYTES - train->end < (room ? room : 1) * size)
        train_flush(k, train);
    train->wagon[train->wagons] = (tr_wagon){
        .data = train->buffer + train->end, .segment = size, .hops = lane->hops, .to = &lane->session->endpoint,
    };
    train->of[train->wagons++] = lane->session;
    train->lane = lane;
    train->room = room;
}

/* Bound: a message has at most BODY + MAX_FRAME bytes, which fit an empty buffer. */
void train_add(tr_kernel *k, struct train *train, struct seal_lane *lane, const uint8_t *message, uint32_t size) {
    if (!train->wagons || !train->room || train->lane != lane || size > train->wagon[train->wagons - 1].segment)
        depart(k, train, lane, size);
    tr_wagon *wagon = &train->wagon[train->wagons - 1];
    box_seal(&k->nacl, lane, train->buffer + train->end, message, size);
    wagon->size += size;
    train->end += size;
    train->room = train->room && size == wagon->segment ? train->room - 1 : 0;
}

/* Control hears of it now and then, and not of what is relayed: see relay.c. */
static void tell(tr_kernel *k, const struct train *train, struct session *session, uint32_t size) {
    if (train != &k->out.train || k->out.now < session->refused_at + REFUSED_SECONDS)
        return;
    session->refused_at = k->out.now;
    k->events.refused(k->events.self, session->id, size);
}

/* One by one: what fits a smaller path still goes. */
static void singly(tr_kernel *k, const struct train *train, uint32_t version, uint32_t which) {
    const tr_wagon *wagon = &train->wagon[which];
    for (uint32_t at = 0; at < wagon->size; at += wagon->segment) {
        uint32_t left = wagon->size - at, size = left < wagon->segment ? left : wagon->segment;
        tr_wagon one = *wagon;
        one.data += at;
        one.size = one.segment = size;
        int32_t sent = k->io.send(k->io.self, version, &one, 1);
        if (sent > 0) {
            k->out_counters[count_datagrams_out]++;
            continue;
        }
        if (too_large(-sent))
            tell(k, train, train->of[which], size);
        refused(k, -sent, 1);
    }
}

static void failed(tr_kernel *k, const struct train *train, uint32_t version, uint32_t which, int error) {
    const tr_wagon *wagon = &train->wagon[which];
    if (datagrams(wagon) == 1) {
        if (too_large(error))
            tell(k, train, train->of[which], wagon->size);
        refused(k, error, 1);
        return;
    }
    if (error == EIO) { /* no checksum offload on the way out, so no segmentation either */
        k->out.single[version] = true;
    } else if (!too_large(error)) {
        refused(k, error, datagrams(wagon));
        return;
    }
    k->out_counters[count_gso_fallback]++;
    singly(k, train, version, which);
}

/* How many wagons from `at` on may leave in one call. */
static uint32_t together(const tr_kernel *k, const struct train *train, uint32_t at, uint32_t version) {
    uint32_t count = 0;
    while (at + count < train->wagons && endpoint_version(train->wagon[at + count].to) == version) {
        if (k->out.single[version] && datagrams(&train->wagon[at + count]) > 1)
            break;
        count++;
    }
    return count;
}

/* Sends what may leave at once from `at` on; how many wagons are done with. */
static uint32_t leave(tr_kernel *k, struct train *train, uint32_t at, uint32_t version) {
    const tr_wagon *wagon = &train->wagon[at];
    if (!(k->versions & (version == 6 ? 2u : 1u))) {
        k->out_counters[count_drop_no_socket] += datagrams(wagon);
        return 1;
    }
    uint32_t count = together(k, train, at, version);
    if (!count) {
        singly(k, train, version, at);
        return 1;
    }
    int32_t sent = k->io.send(k->io.self, version, wagon, count);
    if (sent <= 0) {
        failed(k, train, version, at, sent ? -sent : EAGAIN);
        return 1;
    }
    for (int32_t i = 0; i < sent; i++)
        k->out_counters[count_datagrams_out] += datagrams(&wagon[i]);
    return (uint32_t)sent;
}

/* What goes by relay, beside the direct way or instead of it. */
static void by_relay(tr_kernel *k, const tr_wagon *wagon, uint64_t node) {
    for (uint32_t at = 0; at < wagon->size; at += wagon->segment) {
        uint32_t left = wagon->size - at;
        relay_send(k, node, wagon->data + at, left < wagon->segment ? left : wagon->segment, k->out.now);
    }
}

void train_flush(tr_kernel *k, struct train *train) {
    for (uint32_t at = 0; at < train->wagons;) {
        uint32_t version = endpoint_version(train->wagon[at].to);
        at += version ? leave(k, train, at, version) : 1;
    }
    for (uint32_t at = 0; train == &k->out.train && at < train->wagons; at++)
        if (train->of[at]->backup || endpoint_node(train->wagon[at].to))
            by_relay(k, &train->wagon[at], train->of[at]->node);
    if (train == &k->out.train)
        relay_flush(k);
    train->wagons = train->end = train->room = 0;
    train->lane = NULL;
}

void train_send_raw(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *to) {
    uint32_t version = endpoint_version(to);
    if (!(k->versions & (version == 6 ? 2u : 1u))) {
        k->out_counters[count_drop_no_socket]++;
        return;
    }
    tr_wagon one = {.data = datagram, .size = size, .segment = size, .to = to};
    int32_t sent = k->io.send(k->io.self, version, &one, 1);
    if (sent > 0)
        k->out_counters[count_datagrams_out]++;
    else
        refused(k, sent ? -sent : EAGAIN, 1);
}
