/* Inner packets; see packet.h. Every read lies inside `size` bytes that the caller has. */

#include "packet.h"

#include "bytes.h"

static bool read4(const uint8_t *packet, uint32_t size, struct header *header) {
    uint32_t transport = (packet[0] & 15u) * 4, length = get16(packet + 2);
    if (transport < IPV4_HEADER || transport > length || length > size)
        return false;
    *header = (struct header){
        .source = packet + 12, .destination = packet + 16, .address = 4, .transport = transport, .length = length,
        .version = 4, .protocol = packet[9], .fragment = (get16(packet + 6) & 0x3fff) != 0,
    };
    return true;
}

bool packet_read(const uint8_t *packet, uint32_t size, struct header *header) {
    if (size < IPV4_HEADER)
        return false;
    if (packet[0] >> 4 == 4)
        return read4(packet, size, header);
    if (packet[0] >> 4 != 6 || size < IPV6_HEADER)
        return false;
    uint32_t length = IPV6_HEADER + get16(packet + 4);
    if (length > size)
        return false;
    *header = (struct header){
        .source = packet + 8, .destination = packet + 24, .address = 16, .transport = IPV6_HEADER, .length = length,
        .version = 6, .protocol = packet[6], .fragment = packet[6] == FRAGMENT6,
    };
    return true;
}

/* Sums 32-bit words in the machine's order, which is the same sum in another byte order (RFC 1071 2(B)): 2^32 of them
 * would be needed to overflow 64 bits. */
uint32_t packet_sum(const uint8_t *data, size_t size, uint64_t initial) {
    uint64_t sum = 0;
    uint32_t word;
    while (size >= 16) {
        uint32_t words[4];
        memcpy(words, data, sizeof words);
        sum += (uint64_t)words[0] + words[1] + words[2] + words[3];
        data += sizeof words;
        size -= sizeof words;
    }
    for (; size >= 4; data += 4, size -= 4) {
        memcpy(&word, data, sizeof word);
        sum += word;
    }
    if (size) {
        uint8_t last[4] = {0, 0, 0, 0};
        memcpy(last, data, size);
        memcpy(&word, last, sizeof word);
        sum += word;
    }
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    sum = be16toh((uint16_t)sum) + initial;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

uint32_t packet_pseudo(const struct header *header, uint32_t length) {
    uint32_t sum = packet_sum(header->source, header->address, header->protocol + (uint64_t)length);
    return packet_sum(header->destination, header->address, sum);
}

bool packet_has_transport(const struct header *header) {
    if (header->fragment || (header->protocol != TCP && header->protocol != UDP))
        return false;
    return header->length >= header->transport + (header->protocol == TCP ? TCP_HEADER : UDP_HEADER);
}

bool packet_make_partial(uint8_t *packet, const struct header *header) {
    uint8_t *transport = packet + header->transport;
    uint32_t size = header->length - header->transport;
    if (header->protocol == UDP && get16(transport + UDP_CHECKSUM) == 0)
        return false;
    uint32_t pseudo = packet_pseudo(header, size);
    if (packet_sum(transport, size, pseudo) != 0xffff)
        return false;
    put16(transport + packet_checksum_at(header->protocol), pseudo);
    return true;
}

uint32_t packet_flow(const uint8_t *packet, uint32_t size) {
    uint32_t flow = 0, from = 12, upto = IPV4_HEADER, transport = (packet[0] & 15u) * 4;
    bool whole = (get16(packet + 6) & 0x3fff) == 0;
    uint8_t protocol = packet[9];
    if (packet[0] >> 4 == 6) {
        from = 8, upto = transport = IPV6_HEADER;
        protocol = packet[6];
        whole = true;
    }
    for (; from < upto; from += 4)
        flow ^= get32(packet + from);
    if (whole && (protocol == TCP || protocol == UDP) && transport >= upto && transport + 4 <= size)
        flow ^= get32(packet + transport);
    flow ^= flow >> 16;
    return flow ^ flow >> 8;
}
