/* The device and the sockets: what is read is drawn and fenced, what is written is checked. Laws:
 *
 * - a write is one packet of the length its header says, in a super-packet of at most as many payloads as a host takes;
 * - a wagon holds no more than a host takes in one call;
 * - a counter leaves once under one key, and only upwards, in a box that the other side opens.
 */

#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "fuzz.h"

uint32_t frames_left, reads_left;

static uint64_t next_counter[INDICES]; /* by receiver index of the other side */

/* --- reads -------------------------------------------------------------------------------------------------------------- */

static int32_t io_read(void *self, uint8_t *frame, uint32_t room) {
    static uint8_t made[VNET_BYTES + MAX_PACKET];
    (void)self;
    MUST(room == sizeof made);
    if (!frames_left || !input_taken())
        return one_in(20) ? -EIO : 0;
    frames_left--;
    reached[reach_frames]++;
    uint32_t size = frame_draw(made, room);
    memory_fence(frame, size, room + SLACK);
    memcpy(frame, made, size);
    return (int32_t)size;
}

static void slot_fill(tr_slot *slot) {
    static uint8_t made[3 * MAX_PACKET];
    slot->size = read_draw(made, &slot->segment);
    slot->from = endpoint_draw();
    memory_fence(slot->data, slot->size, SLOT_BYTES);
    memcpy(slot->data, made, slot->size);
}

static int32_t io_receive(void *self, uint32_t version, tr_slot *slots, uint32_t room) {
    (void)self, (void)version;
    if (one_in(30))
        return -ECONNREFUSED;
    uint32_t count = 0;
    for (; count < room && reads_left && inputs_left; reads_left--)
        slot_fill(&slots[count++]);
    return (int32_t)count;
}

/* --- writes ------------------------------------------------------------------------------------------------------------- */

static void check_super(const uint8_t *vnet, const tr_part *parts, uint32_t count) {
    uint16_t words[4];
    memcpy(words, vnet + 2, sizeof words);
    bool six = parts[0].data[0] >> 4 == 6;
    MUST(vnet[0] == VNET_CSUM && words[0] == parts[0].size && words[1] == parts[1].size && count > 2);
    MUST(vnet[1] == GSO_UDP || vnet[1] == (six ? GSO_TCP6 : GSO_TCP4));
    MUST(count - 1 <= (uint32_t)(vnet[1] == GSO_UDP ? MAX_UDP_COALESCED : MAX_COALESCED));
    for (uint32_t i = 1; i < count; i++)
        MUST(parts[i].size && parts[i].size <= words[1] && (i + 1 == count || parts[i].size == words[1]));
    reached[vnet[1] == GSO_UDP ? six ? reach_super_udp6 : reach_super_udp4 : six ? reach_super_tcp6 : reach_super_tcp4]++;
    reached_most(reach_longest_run, count - 1);
}

/* The inner packet that begins a write's second part is as long as its header says. */
static void check_packet(const tr_part *parts, uint32_t count, uint32_t size) {
    const uint8_t *packet = parts[0].data;
    uint32_t version = packet[0] >> 4, length = version == 4 ? get16(packet + 2) : IPV6_HEADER + get16(packet + 4);
    MUST(version == 4 || version == 6);
    MUST(length == size && length <= MAX_FRAME + IPV6_HEADER && count);
}

static int32_t io_write(void *self, const tr_part *parts, uint32_t count) {
    uint32_t size = 0;
    (void)self;
    MUST(count >= 2 && count <= 2 + MAX_COALESCED && parts[0].size == VNET_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        eat(parts[i].data, parts[i].size);
        size += parts[i].size;
    }
    reached[reach_writes]++;
    if (parts[1].data[0]) /* else the ICMP message of fuzz_events.c */
        check_packet(parts + 1, count - 1, size - VNET_BYTES);
    if (parts[0].data[1] != GSO_NONE)
        check_super(parts[0].data, parts + 1, count - 1);
    return one_in(30) ? -EIO : (int32_t)size;
}

void sent_forget(uint32_t index) {
    memset(next_counter + index % INDICES, 0, SESSION_STEP * sizeof *next_counter);
}

static void check_datagrams(const tr_wagon *wagon) {
    for (uint32_t at = 0; at < wagon->size; at += wagon->segment) {
        const uint8_t *datagram = wagon->data + at;
        uint32_t left = wagon->size - at, size = left < wagon->segment ? left : wagon->segment;
        uint64_t *next = &next_counter[get32(datagram + 4) % INDICES], counter = get64(datagram + 8);
        reached[reach_sent]++;
        if (datagram[0] != TYPE_DATA)
            continue; /* control's own */
        MUST(counter >= *next && peer_opens(datagram, size));
        *next = counter + 1;
    }
}

static void check_wagon(const tr_wagon *wagon) {
    uint32_t datagrams = wagon->segment ? (wagon->size + wagon->segment - 1) / wagon->segment : 1;
    eat(wagon->data, wagon->size);
    eat(wagon->to->name, sizeof wagon->to->name);
    MUST(wagon->segment || !wagon->size);
    MUST(datagrams <= MAX_TRAIN_SEGMENTS && (datagrams <= 1 || wagon->size <= MAX_TRAIN_BYTES));
    reached[reach_trains] += datagrams > 1;
    reached_most(reach_longest_train, datagrams);
}

static int32_t io_send(void *self, uint32_t version, const tr_wagon *wagons, uint32_t count) {
    (void)self;
    MUST(count && count <= MAX_WAGONS);
    reached_most(reach_longest_send, count);
    for (uint32_t i = 0; i < count; i++) {
        check_wagon(&wagons[i]);
        MUST(wagons[i].to->size == (version == 6 ? 28 : 16));
    }
    if (one_in(12))
        return -(int32_t)ONE_OF(EIO, EMSGSIZE, EMSGSIZE, EINVAL, EAGAIN, ENOBUFS, EPERM);
    uint32_t sent = one_in(5) ? 1 + below(count) : count;
    for (uint32_t i = 0; i < sent; i++)
        check_datagrams(&wagons[i]);
    return (int32_t)sent;
}

const tr_io fuzz_io = {.read = io_read, .write = io_write, .receive = io_receive, .send = io_send};
