/* Joining consecutive segments of a flow into one super-packet for one TUN write: what a network card does as GRO.
 *
 * As coalesce.py, which states the laws. A run is one flow's segments so far; all but the last carry `mss` bytes, and
 * the next one's headers are predicted whole: one comparison proves addresses, ports, acknowledgement, window, options,
 * TTL, flags, lengths and contiguity at once. `left` ends a run before a predicted field would wrap. Payloads stay
 * where they were opened until the run is written.
 */

#include "bytes.h"
#include "kernel.h"

enum { ENDS = PSH | FIN, DONT_FRAGMENT = 0x4000 };

static void write_frame(tr_kernel *k, const tr_part *parts, uint32_t count) {
    if (k->io.write(k->io.self, parts, count) < 0)
        k->in_counters[count_drop_tun_write]++;
    else
        k->in_counters[count_frames_in]++;
}

/* The virtio-net header, in the machine's byte order. */
static void put_vnet(uint8_t *to, uint8_t gso, uint32_t header, uint32_t size, uint32_t start, uint32_t offset) {
    const uint16_t words[4] = {(uint16_t)header, (uint16_t)size, (uint16_t)start, (uint16_t)offset};
    to[0] = VNET_CSUM;
    to[1] = gso;
    memcpy(to + 2, words, sizeof words);
}

void runs_alone(tr_kernel *k, const uint8_t *packet, uint32_t length, const struct header *header) {
    uint8_t vnet[VNET_BYTES] = {0};
    if (header)
        put_vnet(vnet, GSO_NONE, 0, 0, header->transport, packet_checksum_at(header->protocol));
    const tr_part parts[2] = {{vnet, sizeof vnet}, {packet, length}};
    write_frame(k, parts, 2);
}

/* Makes `head` that of a packet of `length` bytes with a partial transport checksum. */
static void set_length(uint8_t *head, const struct run *run, uint32_t length) {
    struct header header = {.protocol = run->protocol, .address = run->version == 4 ? 4 : 16};
    uint32_t size = length - run->transport;
    header.source = head + (run->version == 4 ? 12 : 8);
    header.destination = header.source + header.address;
    if (run->version == 4) {
        put16(head + 2, length);
        put16(head + 10, 0);
        put16(head + 10, packet_sum(head, run->transport, 0) ^ 0xffff);
    } else {
        put16(head + 4, length - IPV6_HEADER);
    }
    if (run->protocol == UDP)
        put16(head + run->transport + 4, size);
    put16(head + run->transport + packet_checksum_at(run->protocol), packet_pseudo(&header, size));
}

static void write_run(tr_kernel *k, struct run *run) {
    tr_part parts[2 + MAX_COALESCED];
    uint8_t vnet[VNET_BYTES], gso = GSO_NONE;
    uint32_t header = 0, size = 0;
    if (run->count > 1) {
        size = run->mss;
        header = run->header;
        gso = run->protocol == UDP ? GSO_UDP : run->version == 4 ? GSO_TCP4 : GSO_TCP6;
        set_length(run->head, run, run->header + (run->count - 1) * run->mss + run->last);
    }
    put_vnet(vnet, gso, header, size, run->transport, packet_checksum_at(run->protocol));
    parts[0] = (tr_part){vnet, sizeof vnet};
    parts[1] = (tr_part){run->head, run->header};
    for (uint32_t i = 0; i < run->count; i++)
        parts[2 + i] = (tr_part){run->payload[i], i + 1 < run->count ? run->mss : run->last};
    write_frame(k, parts, 2 + run->count);
}

/* Takes run `at` out of the order and writes it; its place is free for the next. */
static void flush_run(tr_kernel *k, uint32_t at) {
    struct in *in = &k->in;
    struct run *run = in->order[at];
    if (run == in->current)
        in->current = NULL;
    write_run(k, run);
    in->run_count--;
    for (; at < in->run_count; at++)
        in->order[at] = in->order[at + 1];
    in->order[in->run_count] = run;
}

void runs_flush(tr_kernel *k) {
    for (uint32_t i = 0; i < k->in.run_count; i++)
        write_run(k, k->in.order[i]);
    k->in.run_count = 0;
    k->in.current = NULL;
}

/* Where the payload of a joinable packet begins, else 0, and whether it must be a run's last. */
static uint32_t join_at(uint32_t joins, const uint8_t *packet, const struct header *header, bool *ends) {
    const uint8_t *transport = packet + header->transport;
    uint32_t bit = (header->protocol == UDP ? 4u : 1u) << (header->version == 6);
    *ends = false;
    if (!(joins & bit) || (header->version == 4 && header->transport != IPV4_HEADER))
        return 0;
    if (header->protocol == UDP) {
        uint32_t inner = header->transport + UDP_HEADER;
        bool whole = get16(transport + 4) == header->length - header->transport;
        return whole && inner < header->length ? inner : 0;
    }
    uint32_t inner = header->transport + (transport[12] >> 4) * 4u;
    uint8_t flags = transport[13];
    if (transport[12] & 0x0f || (flags & ~(ENDS | ECE)) != ACK)
        return 0;
    if (inner < header->transport + TCP_HEADER || inner >= header->length)
        return 0;
    *ends = (flags & ENDS) != 0;
    return inner;
}

static void add16(uint8_t *at, uint32_t value) {
    put16(at, get16(at) + value);
}

/* Makes `next` the header behind itself: `left` promised that no field wraps. */
static void predict(struct run *run) {
    if (run->protocol == TCP)
        put32(run->next + run->transport + 4, get32(run->next + run->transport + 4) + run->mss);
    if (run->version == 4 && !run->stands) {
        add16(run->next + 4, 1);
        add16(run->next + 10, 0xffff); /* minus one: the sum over the header stays the same */
    }
}

void runs_take(struct run *run, const uint8_t *payload) {
    run->payload[run->count++] = payload;
    run->last = run->mss;
    run->may_stand = false;
    if (--run->left)
        predict(run);
}

static uint32_t least(uint32_t one, uint32_t two) {
    return one < two ? one : two;
}

/* How many more segments may join a run that begins with `head`. */
static uint32_t room(const struct run *run) {
    uint32_t left = least((MAX_FRAME - run->header) / run->mss, MAX_COALESCED);
    if (left)
        left--;
    if (run->protocol == TCP)
        left = least(left, (0xffffffff - get32(run->head + run->transport + 4)) / run->mss);
    else
        left = least(left, MAX_UDP_COALESCED - 1);
    if (run->version == 4)
        left = least(left, least(0xffffu - get16(run->head + 4), get16(run->head + 10)));
    return left;
}

/* Bound: `inner` is at most 20 + 60 bytes over IPv4, 40 + 60 over IPv6. */
static void begin(tr_kernel *k, const uint8_t *packet, uint32_t inner, const struct header *header, uint64_t node) {
    struct in *in = &k->in;
    struct run *run = in->order[in->run_count];
    run->node = node;
    run->header = inner;
    run->transport = header->transport;
    run->mss = run->last = header->length - inner;
    run->version = header->version;
    run->protocol = header->protocol;
    run->stands = false;
    run->may_stand = header->version == 4 && get16(packet + 6) & DONT_FRAGMENT;
    memcpy(run->head, packet, inner);
    memcpy(run->next, packet, inner);
    run->payload[0] = packet + inner;
    run->count = 1;
    run->left = room(run);
    if (!run->left) {
        write_run(k, run);
        return;
    }
    if (in->run_count == MAX_FLOWS) { /* the oldest gives way, and its place becomes the spare one */
        flush_run(k, 0);
        in->order[MAX_FLOWS] = in->order[MAX_FLOWS - 1];
        in->order[MAX_FLOWS - 1] = run;
    }
    predict(run);
    in->run_count++;
    in->current = run;
}

/* The next header, or the one whose identification stood still. */
static bool predicted(const struct run *run, bool standing, uint8_t *to) {
    if (standing ? !run->may_stand : !run->left)
        return false;
    memcpy(to, run->next, run->header);
    if (standing) {
        add16(to + 4, 0xffff);
        add16(to + 10, 1);
    }
    return true;
}

/* Whether the header is a predicted one but for a shorter length and the flags that end a run. */
static bool is_last(const struct run *run, const uint8_t *packet, uint32_t length) {
    for (int standing = 0; standing < 2; standing++) {
        uint8_t expected[MAX_HEADERS];
        if (!predicted(run, standing, expected))
            continue;
        if (run->protocol == TCP)
            expected[run->transport + 13] |= packet[run->transport + 13] & ENDS;
        set_length(expected, run, length);
        if (!memcmp(expected, packet, run->header))
            return true;
    }
    return false;
}

/* Whether the packet continues run `at`; if it must be the last, the run is written. */
static bool proceed(tr_kernel *k, uint32_t at, const uint8_t *packet, uint32_t inner, uint32_t length) {
    struct run *run = k->in.order[at];
    uint8_t standing[MAX_HEADERS];
    if (length > run->header + run->mss || inner != run->header)
        return false;
    if (length == run->header + run->mss) {
        bool next = run->left && !memcmp(packet, run->next, inner);
        if (!next && predicted(run, true, standing) && !memcmp(packet, standing, inner)) {
            memcpy(run->next, standing, inner);
            run->stands = next = true;
        }
        if (next) {
            runs_take(run, packet + inner);
            k->in.current = run;
            return true;
        }
    }
    if (!is_last(run, packet, length))
        return false;
    run->payload[run->count++] = packet + inner;
    run->last = length - inner;
    if (run->protocol == TCP)
        run->head[run->transport + 13] |= packet[run->transport + 13] & ENDS;
    flush_run(k, at);
    return true;
}

static bool of_flow(const struct run *run, const uint8_t *packet, const struct header *header, uint64_t node) {
    uint32_t addresses = header->version == 4 ? 12 : 8;
    return run->node == node && run->version == header->version && run->protocol == header->protocol &&
           !memcmp(run->head + addresses, packet + addresses, 2 * header->address) &&
           !memcmp(run->head + run->transport, packet + header->transport, 4);
}

/* Takes a packet with a partial checksum and a transport header right behind IP's; writes it now or later. */
void runs_add(tr_kernel *k, uint8_t *packet, const struct header *header, uint64_t node) {
    bool ends;
    uint32_t inner = join_at(k->in.joins, packet, header, &ends);
    for (uint32_t at = 0; at < k->in.run_count; at++) {
        if (!of_flow(k->in.order[at], packet, header, node))
            continue;
        if (inner && proceed(k, at, packet, inner, header->length))
            return;
        flush_run(k, at);
        break;
    }
    if (!inner || ends)
        runs_alone(k, packet, header->length, header);
    else
        begin(k, packet, inner, header, node);
}
