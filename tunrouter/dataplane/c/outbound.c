/* The way out, in the order of a packet: read a frame, find its path, cut it, seal it, send the train. As outbound.py.
 *
 *     TUN read -> owner of the destination -> session in use (else wait) -> fits the path (else ICMP) -> segments -> train
 */

#include <stdlib.h>

#include "bytes.h"
#include "kernel.h"

struct vnet {
    uint8_t flags, gso;
    uint16_t header, size, start, offset; /* the machine's byte order */
};

_Static_assert(sizeof(struct vnet) == VNET_BYTES, "virtio_net_hdr has no holes");

static void count(tr_kernel *k, enum counter counter) {
    k->out_counters[counter]++;
}

/* The kind of a packet whose checksum is partial; completed where the receiver could not know its place. */
static uint8_t checksum(tr_kernel *k, uint32_t size, const struct vnet *vnet) {
    uint8_t *packet = k->out.frame + INNER;
    bool six = packet[0] >> 4 == 6;
    uint32_t transport = six ? IPV6_HEADER : (packet[0] & 15u) * 4, start = vnet->start, offset = vnet->offset;
    uint8_t protocol = packet[six ? 6 : 9];
    bool usual = (protocol == TCP && offset == TCP_CHECKSUM) || (protocol == UDP && offset == UDP_CHECKSUM);
    if (start + offset + 2 > size) {
        count(k, count_drop_malformed);
        return 0;
    }
    if (start == transport && usual)
        return PACKET_PARTIAL;
    uint32_t sum = packet_sum(packet + start, size - start, 0) ^ 0xffff;
    put16(packet + start + offset, sum ? sum : 0xffff); /* RFC 768: never zero */
    return PACKET;
}

static void too_big(tr_kernel *k, uint32_t mtu, uint32_t size, double now) {
    static const uint8_t no_gso[VNET_BYTES];
    uint8_t message[MAX_MESSAGE];
    count(k, count_drop_too_big);
    if (budget_empty(&k->out.icmp, now)) {
        count(k, count_icmp_limited);
        return;
    }
    uint32_t length = k->events.explain(k->events.self, k->out.frame + INNER, size, mtu, message);
    if (!length)
        return;
    budget_take(&k->out.icmp, now);
    tr_part parts[2] = {{no_gso, sizeof no_gso}, {message, length}};
    if (k->io.write(k->io.self, parts, 2) < 0)
        count(k, count_drop_tun_write);
}

/* A worker with several lanes of a session seals all of a flow on one of them, so that its order is kept. */
static struct seal_lane *lane_for(struct session *session, const uint8_t *packet, uint32_t size) {
    return &session->seals[session->lanes == 1 ? 0 : packet_flow(packet, size) % session->lanes];
}

static void sent(struct session *session, uint64_t packets, uint64_t bytes, double now) {
    session->sent_packets += packets;
    session->sent_bytes += bytes;
    session->last_sent = now;
}

static void seal_cut(tr_kernel *k, struct path *path, uint32_t size, const struct vnet *vnet, double now) {
    struct out *out = &k->out;
    struct header header;
    struct cut *cut = &out->cut;
    uint8_t gso = vnet->gso & (uint8_t)~GSO_ECN;
    if (!packet_read(out->frame + INNER, size, &header) || !(vnet->flags & VNET_CSUM) ||
        !cut_plan(cut, out->frame, &header, gso, vnet->size)) {
        count(k, count_drop_malformed);
        return;
    }
    if ((cut->count > 1 ? cut->size : cut->last) - BODY > path->mtu) {
        too_big(k, path->mtu, size, now);
        return;
    }
    struct seal_lane *lane = lane_for(path->session, out->frame + INNER, size);
    out->cuts += cut->count;
    for (uint32_t i = 0; i < cut->count; i++) {
        cut_prefix(cut, out->frame, i);
        train_add(k, &k->out.train, lane, out->frame + cut->start + (size_t)i * cut->step,
                  i + 1 < cut->count ? cut->size : cut->last);
    }
    sent(path->session, cut->count, (uint64_t)(cut->count - 1) * (cut->size - BODY) + cut->last - BODY, now);
}

static void seal(tr_kernel *k, struct path *path, uint32_t size, double now) {
    uint8_t *frame = k->out.frame, kind = PACKET;
    struct vnet vnet;
    memcpy(&vnet, frame + VNET_AT, sizeof vnet);
    if (vnet.gso != GSO_NONE) {
        seal_cut(k, path, size, &vnet, now);
        return;
    }
    if (size > path->mtu) {
        too_big(k, path->mtu, size, now);
        return;
    }
    if (vnet.flags & VNET_CSUM && !(kind = checksum(k, size, &vnet)))
        return;
    struct seal_lane *lane = lane_for(path->session, frame + INNER, size);
    memset(frame + MESSAGE_AT, 0, BODY - 1);
    frame[MESSAGE_AT + KIND_AT] = kind;
    train_add(k, &k->out.train, lane, frame + MESSAGE_AT, BODY + size);
    sent(path->session, 1, size, now);
}

/* One frame of `size` bytes with its virtio-net header, at frame + VNET_AT. */
void outbound_forward(tr_kernel *k, uint32_t size, double now) {
    const uint8_t *packet = k->out.frame + INNER;
    uint32_t address = 0, at = 0;
    uint64_t node = 0;
    if (size >= VNET_BYTES + IPV4_HEADER && packet[0] >> 4 == 4)
        address = 4, at = 16;
    else if (size >= VNET_BYTES + IPV6_HEADER && packet[0] >> 4 == 6)
        address = 16, at = 24;
    if (!address) {
        count(k, count_drop_malformed);
        return;
    }
    /* Nobody's, or our own (node 0): what comes out of the TUN for this node would loop. */
    struct path *path = NULL;
    if (!routes_owner(&k->routes, packet + at, address, &node) || !node || !(path = path_of(k, node))) {
        count(k, count_drop_no_route);
        return;
    }
    if (path->session && session_alive(path->session, now))
        seal(k, path, size - VNET_BYTES, now);
    else
        k->events.wait(k->events.self, node, k->out.frame + VNET_AT, size, now);
}

int tr_drain_tun(tr_kernel *k, double now) {
    int more = 1;
    k->out.now = now;
    k->out.cuts = 0;
    for (int i = 0; i < WAKEUP_BATCH && more && k->out.cuts < WAKEUP_DATAGRAMS; i++) {
        int32_t size = k->io.read(k->io.self, k->out.frame + VNET_AT, FRAME_BYTES - VNET_AT);
        if (size > 0)
            outbound_forward(k, (uint32_t)size, now);
        else
            more = 0;
        if (size < 0)
            count(k, count_tun_read_errors);
    }
    tr_flush(k);
    return more;
}

void tr_waited(tr_kernel *k, const uint8_t *frame, uint32_t size, double now) {
    if (size > FRAME_BYTES - VNET_AT)
        return;
    k->out.now = now;
    memcpy(k->out.frame + VNET_AT, frame, size);
    outbound_forward(k, size, now);
}

void tr_flush(tr_kernel *k) {
    train_flush(k, &k->out.train);
}

int tr_send_control(tr_kernel *k, uint32_t id, const uint8_t *body, uint32_t body_size, uint32_t size, double now) {
    struct session *session = table_get(&k->sessions, id);
    uint8_t *message = k->out.frame + MESSAGE_AT;
    uint32_t total = size < MAX_TRAIN_BYTES ? size : MAX_TRAIN_BYTES;
    if (!session || body_size > MAX_TRAIN_BYTES - BODY) {
        count(k, count_seam_refused);
        return -1;
    }
    if (!session_alive(session, now)) {
        count(k, count_drop_expired);
        return -1;
    }
    total = total > BODY + body_size ? total : BODY + body_size;
    k->out.now = now;
    memset(message, 0, total);
    message[KIND_AT] = CONTROL;
    memcpy(message + BODY, body, body_size);
    train_add(k, &k->out.train, &session->seals[session->spoken], message, total);
    tr_flush(k);
    return 0;
}

void tr_send_raw(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *to, double now) {
    uint64_t node = endpoint_node(to);
    if (!node) {
        train_send_raw(k, datagram, size, to);
        return;
    }
    relay_send(k, node, datagram, size, now);
    relay_flush(k);
}
