/* Inner IPv4 and IPv6 packets: their headers and the internet checksum (RFC 791, 8200, 1071). As core/packet.py. */

#ifndef TR_PACKET_H
#define TR_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TCP = 6, UDP = 17, FRAGMENT6 = 44 };
enum { IPV4_HEADER = 20, IPV6_HEADER = 40, TCP_HEADER = 20, UDP_HEADER = 8 };
enum { TCP_CHECKSUM = 16, UDP_CHECKSUM = 6 }; /* where the field stands in the transport header */
enum { FIN = 0x01, PSH = 0x08, ACK = 0x10, ECE = 0x40, CWR = 0x80 };

struct header {
    const uint8_t *source;      /* 4 or 16 bytes, as the destination */
    const uint8_t *destination;
    uint32_t address;           /* bytes of an address */
    uint32_t transport;         /* where the header behind IP's begins */
    uint32_t length;            /* of the whole packet */
    uint8_t version;
    uint8_t protocol;           /* of an IPv6 packet the first next-header value */
    bool fragment;              /* any fragment but a whole packet */
};

/* Whether the fields fit the `size` bytes at `packet`, which may be more than the packet has. */
bool packet_read(const uint8_t *packet, uint32_t size, struct header *header);

/* The folded one's-complement sum; zero only if everything is zero. */
uint32_t packet_sum(const uint8_t *data, size_t size, uint64_t initial);

/* The folded sum over the pseudo-header of `length` transport bytes. */
uint32_t packet_pseudo(const struct header *header, uint32_t length);

/* Where the checksum stands in the transport header: TCP's and UDP's only. */
static inline uint32_t packet_checksum_at(uint8_t protocol) {
    return protocol == TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
}

/* Whether a whole TCP or UDP header stands right behind IP's. */
bool packet_has_transport(const struct header *header);

/* Replaces a complete and right TCP or UDP checksum by its pseudo-header sum; false for any other. */
bool packet_make_partial(uint8_t *packet, const struct header *header);

/* A number that is the same for all packets of one flow; `size` bytes, at least an IP header. */
uint32_t packet_flow(const uint8_t *packet, uint32_t size);

#endif
