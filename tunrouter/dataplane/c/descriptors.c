/* A real host's TUN queue and UDP sockets: many datagrams a call in both directions (recvmmsg, sendmmsg, UDP_GRO,
 * UDP_SEGMENT). The sockets and their options are udp.py's, the queue is tun.py's; nothing here waits.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel.h"

enum { UDP_SEGMENT = 103, UDP_GRO = 104 };

union control {
    char room[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
};

/* One thread receives, the other sends: what they use stands apart. */
struct tr_descriptors {
    int tun, udp[7]; /* by version */
    struct mmsghdr incoming[RECEIVE_BATCH];
    struct iovec in_parts[RECEIVE_BATCH];
    struct sockaddr_in6 names[RECEIVE_BATCH];
    union control in_controls[RECEIVE_BATCH];
    struct mmsghdr outgoing[MAX_WAGONS];
    struct iovec out_parts[MAX_WAGONS];
    union control out_controls[MAX_WAGONS];
};

static int32_t io_read(void *self, uint8_t *frame, uint32_t room) {
    const tr_descriptors *d = self;
    ssize_t size = read(d->tun, frame, room);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return (int32_t)size;
}

static int32_t io_write(void *self, const tr_part *parts, uint32_t count) {
    const tr_descriptors *d = self;
    struct iovec vector[2 + MAX_COALESCED];
    if (count > 2 + MAX_COALESCED)
        return -EMSGSIZE;
    for (uint32_t i = 0; i < count; i++)
        vector[i] = (struct iovec){.iov_base = (void *)(uintptr_t)parts[i].data, .iov_len = parts[i].size};
    ssize_t size = writev(d->tun, vector, (int)count);
    return size < 0 ? -errno : (int32_t)size;
}

/* The size of the datagrams that the host had coalesced, or 0. */
static uint32_t segment_of(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        int size;
        if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
            continue;
        memcpy(&size, CMSG_DATA(c), sizeof size);
        return size > 0 ? (uint32_t)size : 0;
    }
    return 0;
}

static int32_t io_receive(void *self, uint32_t version, tr_slot *slots, uint32_t room) {
    tr_descriptors *d = self;
    room = room < RECEIVE_BATCH ? room : RECEIVE_BATCH;
    for (uint32_t i = 0; i < room; i++) {
        d->in_parts[i] = (struct iovec){.iov_base = slots[i].data, .iov_len = MAX_FRAME};
        d->incoming[i].msg_hdr = (struct msghdr){
            .msg_name = &d->names[i],
            .msg_namelen = sizeof d->names[i],
            .msg_iov = &d->in_parts[i],
            .msg_iovlen = 1,
            .msg_control = &d->in_controls[i],
            .msg_controllen = sizeof d->in_controls[i],
        };
    }
    int count = recvmmsg(d->udp[version], d->incoming, room, MSG_DONTWAIT, NULL);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        tr_slot *slot = &slots[i];
        uint32_t size = d->incoming[i].msg_hdr.msg_namelen;
        slot->size = d->incoming[i].msg_len;
        slot->segment = segment_of(&d->incoming[i].msg_hdr);
        slot->from.size = version == 6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        memset(slot->from.name, 0, sizeof slot->from.name);
        memcpy(slot->from.name, &d->names[i], size < slot->from.size ? size : slot->from.size);
    }
    return count;
}

/* Adds one option to a message; `room` has place for the two there may be. */
static void add_control(struct msghdr *message, union control *room, int level, int type, const void *value,
                        size_t size) {
    struct cmsghdr *c = (struct cmsghdr *)(void *)(room->room + message->msg_controllen);
    *c = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(c), value, size);
    message->msg_control = room;
    message->msg_controllen += CMSG_SPACE(size);
}

static int32_t io_send(void *self, uint32_t version, const tr_wagon *wagons, uint32_t count) {
    tr_descriptors *d = self;
    count = count < MAX_WAGONS ? count : MAX_WAGONS;
    for (uint32_t i = 0; i < count; i++) {
        const tr_wagon *wagon = &wagons[i];
        struct msghdr *message = &d->outgoing[i].msg_hdr;
        d->out_parts[i] = (struct iovec){.iov_base = (void *)(uintptr_t)wagon->data, .iov_len = wagon->size};
        *message = (struct msghdr){
            .msg_name = (void *)(uintptr_t)wagon->to->name,
            .msg_namelen = wagon->to->size,
            .msg_iov = &d->out_parts[i],
            .msg_iovlen = 1,
        };
        if (wagon->size > wagon->segment) {
            uint16_t segment = (uint16_t)wagon->segment;
            add_control(message, &d->out_controls[i], IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
        }
        int hops = (int)wagon->hops;
        if (hops && version == 6)
            add_control(message, &d->out_controls[i], IPPROTO_IPV6, IPV6_HOPLIMIT, &hops, sizeof hops);
        else if (hops)
            add_control(message, &d->out_controls[i], IPPROTO_IP, IP_TTL, &hops, sizeof hops);
    }
    int sent = sendmmsg(d->udp[version], d->outgoing, count, MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

tr_descriptors *tr_descriptors_open(int tun, int udp4, int udp6, tr_io *io) {
    tr_descriptors *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->tun = tun;
    d->udp[4] = udp4;
    d->udp[6] = udp6;
    *io = (tr_io){.self = d, .read = io_read, .write = io_write, .receive = io_receive, .send = io_send};
    return d;
}

void tr_descriptors_close(tr_descriptors *d) {
    free(d);
}
