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
static void depart(tr_kernel *k, const struct seal_lane *lane, uint32_t size) {
    struct out *out = &k->out;
    uint32_t room = MAX_TRAIN_BYTES / size;
    if (room > MAX_TRAIN_SEGMENTS)
        room = MAX_TRAIN_SEGMENTS;
    if (out->wagons == MAX_WAGONS || TRAIN_BYTES - out->end < (room ? room : 1) * size)
        train_flush(k);
    out->wagon[out->wagons] = (tr_wagon){
        .data = out->buffer + out->end, .segment = size, .hops = lane->hops, .to = &lane->session->endpoint,
    };
    out->of[out->wagons++] = lane->session;
    out->lane = lane;
    out->room = room;
}

/* Bound: a message has at most BODY + MAX_FRAME bytes, which fit an empty buffer. */
void train_add(tr_kernel *k, struct seal_lane *lane, const uint8_t *message, uint32_t size) {
    struct out *out = &k->out;
    if (!out->wagons || !out->room || out->lane != lane || size > out->wagon[out->wagons - 1].segment)
        depart(k, lane, size);
    tr_wagon *wagon = &out->wagon[out->wagons - 1];
    box_seal(&k->nacl, lane, out->buffer + out->end, message, size);
    wagon->size += size;
    out->end += size;
    out->room = out->room && size == wagon->segment ? out->room - 1 : 0;
}

/* One by one: what fits a smaller path still goes, and control hears of the first that did not. */
static void singly(tr_kernel *k, uint32_t version, const tr_wagon *wagon, const struct session *session) {
    bool told = false;
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
        if (too_large(-sent) && !told) {
            told = true;
            k->events.refused(k->events.self, session->id, size);
        }
        refused(k, -sent, 1);
    }
}

static void failed(tr_kernel *k, uint32_t version, uint32_t at, int error) {
    const tr_wagon *wagon = &k->out.wagon[at];
    if (datagrams(wagon) == 1) {
        if (too_large(error))
            k->events.refused(k->events.self, k->out.of[at]->id, wagon->size);
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
    singly(k, version, wagon, k->out.of[at]);
}

/* How many wagons from `at` on may leave in one call. */
static uint32_t together(const struct out *out, uint32_t at, uint32_t version) {
    uint32_t count = 0;
    while (at + count < out->wagons && endpoint_version(out->wagon[at + count].to) == version) {
        if (out->single[version] && datagrams(&out->wagon[at + count]) > 1)
            break;
        count++;
    }
    return count;
}

void train_flush(tr_kernel *k) {
    struct out *out = &k->out;
    for (uint32_t at = 0; at < out->wagons;) {
        uint32_t version = endpoint_version(out->wagon[at].to), count = together(out, at, version);
        if (!(k->versions & (version == 6 ? 2u : 1u))) {
            k->out_counters[count_drop_no_socket] += datagrams(&out->wagon[at++]);
            continue;
        }
        if (!count) {
            singly(k, version, &out->wagon[at], out->of[at]);
            at++;
            continue;
        }
        int32_t sent = k->io.send(k->io.self, version, &out->wagon[at], count);
        if (sent <= 0)
            failed(k, version, at++, sent ? -sent : EAGAIN);
        for (; sent > 0; sent--)
            k->out_counters[count_datagrams_out] += datagrams(&out->wagon[at++]);
    }
    out->wagons = out->end = out->room = 0;
    out->lane = NULL;
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
