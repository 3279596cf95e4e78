/* Whom the kernel tells: everything is read, and what a driver would keep for the kernel is kept. */

#include <string.h>

#include "fuzz.h"

enum { KEPT = 64 };

static struct shelf {
    uint32_t count;
    struct kept kept[KEPT];
} held, waiting;

static void keep(struct shelf *shelf, uint64_t of, const uint8_t *data, uint32_t size) {
    eat(data, size);
    if (shelf->count == KEPT)
        return;
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    shelf->kept[shelf->count++] = (struct kept){.of = of, .size = size, .data = copy};
}

static bool take(struct shelf *shelf, struct kept *to) {
    if (!shelf->count)
        return false;
    *to = shelf->kept[--shelf->count];
    return true;
}

bool held_take(struct kept *to) {
    return take(&held, to);
}

bool waiting_take(struct kept *to) {
    return take(&waiting, to);
}

void kept_close(void) {
    struct kept kept;
    while (held_take(&kept) || waiting_take(&kept))
        free(kept.data);
}

/* --- the table ---------------------------------------------------------------------------------------------------------- */

static double on_stranger(void *self, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double at,
                        uint64_t wakeup, uint32_t *alone) {
    (void)self, (void)wakeup;
    MUST(size >= HEADER_BYTES && size <= MAX_HANDSHAKE_BYTES);
    eat(datagram, size);
    eat(from->name, sizeof from->name);
    reached[reach_strangers]++;
    *alone = one_in(4);
    return one_in(4) ? at + 1 : 0;
}

static void on_control(void *self, uint32_t session, const tr_endpoint *from, const uint8_t *body, uint32_t body_size,
                       uint32_t size) {
    (void)self, (void)session;
    MUST(body_size <= MAX_CONTROL_BYTES + 2 && body_size <= size - BODY);
    eat(body, body_size);
    eat(from->name, sizeof from->name);
    reached[reach_controls]++;
}

static void on_hold(void *self, uint32_t session, const uint8_t *datagram, uint32_t size) {
    (void)self;
    MUST(size >= BODY);
    keep(&held, session, datagram, size);
    reached[reach_held]++;
}

static void on_wait(void *self, uint64_t node, const uint8_t *frame, uint32_t size, double at) {
    (void)self, (void)at;
    keep(&waiting, node, frame, size);
    reached[reach_waited]++;
}

/* A message that io_write knows by its zeros. */
static uint32_t on_explain(void *self, const uint8_t *packet, uint32_t size, uint32_t mtu, uint8_t *message) {
    (void)self, (void)mtu;
    eat(packet, size);
    uint32_t length = one_in(4) ? 0 : MAX_MESSAGE - below(2);
    memset(message, 0, length);
    reached[reach_explained]++;
    return length;
}

static void on_refused(void *self, uint32_t session, uint32_t size) {
    (void)self, (void)session;
    MUST(size >= BODY);
    reached[reach_refused]++;
}

static void on_moved(void *self, uint32_t session, const tr_endpoint *to) {
    (void)self, (void)session;
    eat(to->name, sizeof to->name);
    reached[reach_moved]++;
}

static void on_unrouted(void *self, uint64_t node) {
    (void)self, (void)node;
    reached[reach_unrouted]++;
}

static void on_hop_wanted(void *self, uint64_t target) {
    (void)self, (void)target;
}

static void on_astray(void *self, uint64_t origin, const uint8_t *datagram, uint32_t size) {
    (void)self, (void)origin;
    eat(datagram, size);
}

const tr_events fuzz_events = {
    .stranger = on_stranger, .control = on_control, .hold = on_hold,   .wait = on_wait,
    .explain = on_explain,   .refused = on_refused, .moved = on_moved, .unrouted = on_unrouted,
    .hop_wanted = on_hop_wanted, .astray = on_astray,
};
