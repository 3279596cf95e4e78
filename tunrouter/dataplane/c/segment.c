/* Cutting a super-packet into the packets that its sender would have sent: what a network card does for TSO and USO.
 *
 * As segment.py, which states the laws. Nothing is copied: the prefix of segment i (room for header and tag, kind, inner
 * headers) is written right before payload i, over the end of payload i - 1, which has been sealed by then.
 */

#include "bytes.h"
#include "kernel.h"

/* Bounds: `inner` is at most 60 + 60 bytes and at most header->length, which the caller's frame has. */
bool cut_plan(struct cut *cut, const uint8_t *frame, const struct header *header, uint8_t gso, uint32_t size) {
    bool tcp = gso == GSO_TCP4 || gso == GSO_TCP6;
    const uint8_t *packet = frame + INNER;
    uint32_t transport = header->transport, inner = transport + UDP_HEADER;
    if (header->protocol != (tcp ? TCP : UDP) || header->fragment || !size)
        return false;
    if (tcp) {
        if (header->length < transport + TCP_HEADER)
            return false;
        inner = transport + (packet[transport + 12] >> 4) * 4u;
        if (inner < transport + TCP_HEADER)
            return false;
    }
    if (header->length <= inner)
        return false;
    uint32_t payload = header->length - inner;
    size = size < payload ? size : payload;
    cut->count = (payload + size - 1) / size;
    if (cut->count > MAX_SEGMENTS)
        return false;
    cut->step = size;
    cut->size = BODY + inner + size;
    cut->last = BODY + inner + payload - (cut->count - 1) * size;
    cut->start = MESSAGE_AT;
    cut->inner = inner;
    cut->transport = transport;
    cut->version = header->version;
    cut->protocol = header->protocol;
    cut->identification = header->version == 4 ? get16(packet + 4) : 0;
    cut->sequence = tcp ? get32(packet + transport + 4) : 0;
    uint8_t flags = tcp ? packet[transport + 13] : 0;
    const uint8_t keep[3] = {(uint8_t)~(FIN | PSH), (uint8_t)~(FIN | PSH | CWR), cut->count == 1 ? 0xff : (uint8_t)~CWR};
    for (int i = 0; i < 3; i++) {
        uint8_t *headers = cut->headers[i];
        uint32_t length = inner + (i == 2 ? payload - (cut->count - 1) * size : size);
        memcpy(headers, packet, inner);
        if (header->version == 4) {
            put16(headers + 2, length);
            put16(headers + 4, 0);
            put16(headers + 10, 0);
            cut->sums[i] = packet_sum(headers, transport, 0);
        } else {
            put16(headers + 4, length - IPV6_HEADER);
        }
        if (tcp)
            headers[transport + 13] = flags & keep[i];
        else
            put16(headers + transport + 4, length - transport);
        put16(headers + transport + packet_checksum_at(header->protocol), packet_pseudo(header, length - transport));
    }
    return true;
}

void cut_prefix(const struct cut *cut, uint8_t *frame, uint32_t i) {
    uint32_t which = i + 1 == cut->count ? 2 : i > 0;
    uint8_t *message = frame + cut->start + (size_t)i * cut->step, *packet = message + BODY;
    memset(message, 0, BODY - 1);
    message[KIND_AT] = PACKET_PARTIAL;
    memcpy(packet, cut->headers[which], cut->inner);
    if (cut->version == 4) {
        uint32_t identification = (cut->identification + i) & 0xffff, sum = cut->sums[which] + identification;
        put16(packet + 4, identification);
        put16(packet + 10, ((sum & 0xffff) + (sum >> 16)) ^ 0xffff);
    }
    if (cut->protocol == TCP)
        put32(packet + cut->transport + 4, cut->sequence + i * cut->step);
}
