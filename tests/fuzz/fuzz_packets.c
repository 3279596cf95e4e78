/* Inner packets and TUN frames: what a sender would send, and then some of it changed. */

#include <string.h>

#include "bytes.h"
#include "fuzz.h"

void address_put(uint8_t *to, bool six, uint32_t node) {
    memset(to, 0, six ? 16 : 4);
    if (six) {
        to[0] = 0xfd;
        to[3] = (uint8_t)node;
        to[15] = 2;
    } else {
        to[0] = 10, to[1] = 32, to[2] = (uint8_t)node, to[3] = 2;
    }
}

struct flow flow_draw(uint32_t source, uint32_t destination) {
    struct flow flow = {.source = (uint8_t)source, .destination = (uint8_t)destination};
    bool odd = one_in(4);
    flow.six = one_in(3);
    flow.protocol = (uint8_t)ONE_OF(TCP, TCP, TCP, UDP, UDP, 1, 47, 58);
    flow.flags = (uint8_t)ONE_OF(ACK, ACK, ACK, ACK | PSH, ACK | ECE, ACK | CWR, 2);
    flow.options = (uint8_t)ONE_OF(0, 0, 3, 10);
    flow.network_options = (uint8_t)(odd ? below(11) : 0);
    flow.tos = (uint8_t)ONE_OF(0, 0, 0xb8);
    flow.port = (uint16_t)below(12);
    flow.identification = (uint16_t)ONE_OF(0, 7, 0xfff0, 0xffff, below(0x10000));
    flow.step = (uint16_t)ONE_OF(1, 1, 1, 0);
    flow.fragment = (uint16_t)(odd ? ONE_OF(0, 0x2000, 0x2001, 0x4000) : 0x4000);
    flow.mss = (uint16_t)ONE_OF(1, 2, 17, 100, 100, 536, 1328, 1 + below(1400));
    flow.sequence = one_in(4) ? 0xffffffff - below(5000) : (uint32_t)draw();
    flow.complete = one_in(3);
    return flow;
}

/* Writes TCP's, UDP's or another header; its size. */
static uint32_t transport_put(const struct flow *flow, uint8_t *to, uint32_t payload, uint8_t flags) {
    if (flow->protocol == TCP) {
        uint32_t size = TCP_HEADER + 4u * flow->options;
        memset(to, 1, size);
        put16(to, flow->port);
        put32(to + 4, flow->sequence);
        to[12] = (uint8_t)(size / 4 << 4);
        to[13] = flow->flags | flags;
        memset(to + 16, 0, 4);
        return size;
    }
    memset(to, 0, UDP_HEADER);
    put16(to, flow->port);
    put16(to + 4, UDP_HEADER + payload);
    return UDP_HEADER;
}

static uint32_t network_put(const struct flow *flow, uint8_t *to, uint32_t inner) {
    if (flow->six) {
        memset(to, 0, IPV6_HEADER);
        to[0] = 0x60;
        put16(to + 4, inner);
        to[6] = flow->network_options ? FRAGMENT6 : flow->protocol;
        to[7] = 64;
        address_put(to + 8, true, flow->source);
        address_put(to + 24, true, flow->destination);
        return IPV6_HEADER;
    }
    uint32_t size = IPV4_HEADER + 4u * flow->network_options;
    memset(to, 1, size);
    to[0] = (uint8_t)(0x40 | size / 4);
    to[1] = flow->tos;
    put16(to + 2, size + inner);
    put16(to + 4, flow->identification);
    put16(to + 6, flow->fragment);
    to[8] = 64;
    to[9] = flow->protocol;
    put16(to + 10, 0);
    address_put(to + 12, false, flow->source);
    address_put(to + 16, false, flow->destination);
    put16(to + 10, packet_sum(to, size, 0) ^ 0xffff);
    return size;
}

uint32_t flow_next(struct flow *flow, uint8_t *to, uint32_t payload, uint8_t flags) {
    uint32_t network = flow->six ? IPV6_HEADER : IPV4_HEADER + 4u * flow->network_options;
    uint8_t *transport = to + network;
    payload = payload < MAX_PACKET - 1 - MAX_HEADERS ? payload : MAX_PACKET - 1 - MAX_HEADERS;
    uint32_t size = transport_put(flow, transport, payload, flags);
    network_put(flow, to, size + payload);
    memset(transport + size, (int)flow->sequence, payload);
    struct header header;
    if (packet_read(to, network + size + payload, &header) && packet_has_transport(&header)) {
        uint8_t *field = transport + packet_checksum_at(header.protocol);
        put16(field, packet_pseudo(&header, size + payload));
        if (flow->complete) {
            uint32_t sum = packet_sum(transport, size + payload, 0) ^ 0xffff;
            put16(field, sum ? sum : 0xffff);
        }
    }
    flow->sequence += payload;
    flow->identification = (uint16_t)(flow->identification + flow->step);
    return network + size + payload;
}

void spoil(uint8_t *data, uint32_t size) {
    for (uint32_t times = 1 + below(3); size && times; times--) {
        uint8_t *at = data + (one_in(4) ? below(size) : below(size < 60 ? size : 60));
        uint32_t any = (uint32_t)draw();
        *at = (uint8_t)ONE_OF(0, 0xff, *at + 1u, *at - 1u, *at ^ 1u << any % 8, any);
    }
}

uint32_t shorten(uint8_t *packet, uint32_t size) {
    bool six = packet[0] >> 4 == 6;
    uint32_t network = six ? IPV6_HEADER : (packet[0] & 15u) * 4, more = below(one_in(2) ? 9 : 70);
    if (network + more >= size)
        return size;
    put16(packet + (six ? 4 : 2), six ? more : network + more);
    return network + more;
}

static uint16_t gso_of(const struct flow *flow) {
    return flow->protocol == UDP ? GSO_UDP : flow->six ? GSO_TCP6 : GSO_TCP4;
}

/* The virtio-net header of a packet of `size` bytes; `cut`: it is a super-packet. */
static void vnet_draw(uint8_t *to, const struct flow *flow, uint32_t size, bool cut) {
    uint32_t transport = flow->six ? IPV6_HEADER : IPV4_HEADER + 4u * flow->network_options;
    uint16_t words[4] = {0, 0, (uint16_t)transport, flow->protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM};
    uint32_t odd = mood == RESTLESS ? 50 : 5, any = (uint32_t)draw(), which = below(3);
    to[0] = cut || !flow->complete ? VNET_CSUM : 0;
    to[1] = (uint8_t)(cut ? gso_of(flow) | (one_in(4) ? GSO_ECN : 0) : GSO_NONE);
    words[1] = cut ? flow->mss : 0;
    if (one_in(odd))
        to[which % 2] = (uint8_t)ONE_OF(0, 1, 2, 3, 4, 5, 0x80, 0x81, any);
    if (one_in(odd))
        words[1 + which] = (uint16_t)ONE_OF(0, 1, 48, 0xffff, size, size - 1u, size - 2u, any);
    if (words[1] && size / words[1] > 3000)
        words[1] = 1400; /* some, but not all the time, of what no host would do */
    memcpy(to + 2, words, sizeof words);
}

static uint32_t payload_draw(struct flow *flow, bool cut) {
    uint32_t most = 500u * flow->mss, payload;
    if (mood == RESTLESS) { /* so small that a flush has as many wagons as there can be */
        flow->mss = (uint16_t)(1 + below(4));
        return cut ? 129u * flow->mss : below(20);
    }
    if (!cut)
        return below(ONE_OF(2, 100, 1400, 1400, 70000));
    payload = below(ONE_OF(300, 3000, 3000, 20000, 70000));
    return payload < most ? payload : most;
}

uint32_t frame_draw(uint8_t *to, uint32_t room) {
    uint32_t source = one_in(10) ? below(NODES + 1) : OURS;
    struct flow flow = flow_draw(source, one_in(10) ? below(NODES + 1) : 2 + below(2));
    bool cut = one_in(mood == RESTLESS ? 5 : 3);
    uint8_t *packet = to + VNET_BYTES;
    uint32_t payload = payload_draw(&flow, cut);
    uint32_t size = flow_next(&flow, packet, payload, (uint8_t)ONE_OF(0, PSH, FIN));
    vnet_draw(to, &flow, size, cut);
    if (one_in(mood == RESTLESS ? 50 : 4))
        spoil(packet, size);
    if (one_in(20))
        size = shorten(packet, size);
    size += VNET_BYTES;
    if (one_in(20))
        return below(size + 1);
    if (!one_in(20))
        return size;
    uint32_t more = below(room - size + 1) % 100; /* what follows a packet is not its own */
    memset(to + size, (int)draw(), more);
    return size + more;
}
