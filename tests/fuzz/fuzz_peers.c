/* The other sides of the sessions: what they seal, and how a host would hand it over. Most of it is nearly right. */

#include <string.h>

#include "bytes.h"
#include "fuzz.h"

struct peer peers[SESSIONS];
enum mood mood;

static uint32_t drawn; /* each one's receiver indices are its own */

tr_endpoint endpoint_draw(void) {
    tr_endpoint made = {.size = one_in(3) ? 28 : 16};
    made.name[0] = made.size == 28 ? 10 : 2;
    made.name[3] = (uint8_t)below(3);
    made.name[made.size == 28 ? 23 : 7] = (uint8_t)below(2);
    return made;
}

tr_endpoint anywhere_draw(void) {
    return one_in(4) ? endpoint_relayed(1 + below(NODES)) : endpoint_draw();
}

static void bytes_draw(uint8_t *to, uint32_t size) {
    for (uint32_t i = 0; i < size; i++)
        to[i] = (uint8_t)draw();
}

void peers_begin(void) {
    memset(peers, 0, sizeof peers);
    drawn = 0;
}

void peer_draw(uint32_t i) {
    uint32_t node = 2 + i % 3, first = below(3);
    struct peer *peer = &peers[i];
    *peer = (struct peer){.flow = flow_draw(node, OURS)};
    peer->install.session = FIRST_SESSION + i * SESSION_STEP;
    peer->install.remote = drawn++ * SESSION_STEP % INDICES;
    peer->install.node = node;
    peer->install.expires = now + (one_in(4) ? below(20) : 1000);
    peer->install.sealed = sealed;
    peer->install.lanes = one_in(2) ? 1 : 1 + below(LANES);
    peer->install.endpoint = endpoint_draw();
    for (uint32_t lane = 0; lane < LANES; lane++) {
        tr_lane_keys *keys = &peer->lanes[lane];
        keys->number = first + lane;
        bytes_draw(keys->seal_key, sizeof keys->seal_key);
        bytes_draw(keys->seal_salt, sizeof keys->seal_salt);
        bytes_draw(keys->open_key, sizeof keys->open_key);
        bytes_draw(keys->open_salt, sizeof keys->open_salt);
    }
}

void mood_draw(void) {
    mood = one_in(15) ? CALM : (enum mood)ONE_OF(USUAL, USUAL, USUAL, RESTLESS, TALKATIVE);
    if (mood == CALM && one_in(2))
        peers[0].flow = flow_draw((uint32_t)peers[0].install.node, OURS);
}

/* --- what is in a box --------------------------------------------------------------------------------------------------- */

static uint32_t datagram_draw(struct peer *peer, uint8_t *to, uint32_t payload);
static uint32_t rubbish_draw(uint8_t *to);

/* Another session's datagram, or none at all, for us or for another; its size. */
static uint32_t relay_draw(uint8_t *kind, uint8_t *to, uint32_t payload) {
    static uint8_t inner[BODY + MAX_PACKET];
    static bool nested;
    struct peer *peer = &peers[below(3)];
    uint32_t size;
    if (!nested && one_in(8)) {
        size = MAX_TRAIN_BYTES - AHEAD + 1 + below(20); /* a little more than a hop takes */
        memset(inner, TYPE_DATA, size);
    } else if (nested || one_in(5) || !peer->install.lanes) {
        size = rubbish_draw(inner);
    } else {
        nested = true; /* once: what is inside the inner one is never looked at */
        size = datagram_draw(peer, inner, payload % 1400);
        nested = false;
    }
    *kind = RELAY;
    bool large = size > MAX_TRAIN_BYTES - AHEAD;
    to[0] = (uint8_t)(large ? RELAY_HOPS : ONE_OF(0, 1, 2, 8, 255));
    put64(to + 1, !large && one_in(2) ? 0 : below(NODES + 1));
    put64(to + 9, one_in(2) ? 0 : below(NODES + 1));
    memcpy(to + AHEAD - BODY, inner, size);
    return one_in(20) ? below(AHEAD - BODY) : AHEAD - BODY + size;
}

/* A body that holds no packet, or should not; its size. */
static uint32_t odd_body_draw(uint8_t *kind, uint8_t *to, uint32_t payload) {
    if (mood != TALKATIVE && one_in(3))
        return relay_draw(kind, to, payload);
    uint32_t size = mood == TALKATIVE ? payload % 1300 : below(ONE_OF(1, 30, 1300));
    *kind = (uint8_t)ONE_OF(KEEPALIVE, CONTROL, CONTROL, CONTROL, PACKET, PACKET_PARTIAL, 4, 255);
    memset(to, (int)draw(), size);
    return size;
}

static uint32_t body_draw(struct peer *peer, uint8_t *kind, uint8_t *to, uint32_t payload) {
    if (mood != CALM && (mood == TALKATIVE || one_in(12)))
        return odd_body_draw(kind, to, payload);
    if (mood != CALM && one_in(mood == RESTLESS ? 2 : 40)) {
        uint32_t source = one_in(20) ? below(NODES + 1) : (uint32_t)peer->install.node;
        peer->flow = flow_draw(source, one_in(20) ? below(NODES + 1) : OURS);
    }
    uint32_t size = flow_next(&peer->flow, to, payload, (uint8_t)(mood != CALM && one_in(20) ? PSH : 0));
    *kind = mood != CALM && one_in(30) ? PACKET + below(2) : peer->flow.complete ? PACKET : PACKET_PARTIAL;
    if (mood != CALM && one_in(20))
        spoil(to, size);
    return mood != CALM && one_in(50) ? shorten(to, size) : size;
}

/* --- datagrams ---------------------------------------------------------------------------------------------------------- */

/* Most counters are the next one; some are old, some far ahead. */
static uint64_t counter_draw(uint64_t *next) {
    if (mood == CALM)
        return (*next)++;
    if (one_in(30))
        return *next - below(10);
    if (one_in(60))
        *next = one_in(3) ? (1ull << below(63)) + below(100) : *next + below(9000);
    return (*next)++;
}

/* One datagram of the peer with a box that opens; its size. */
static uint32_t datagram_draw(struct peer *peer, uint8_t *to, uint32_t payload) {
    static uint8_t message[BODY + MAX_PACKET];
    uint32_t lane = mood != CALM && one_in(8) ? below(peer->install.lanes) : 0;
    const tr_lane_keys *keys = &peer->lanes[lane];
    uint64_t counter = counter_draw(&peer->counters[lane]);
    uint8_t nonce[24] = {TYPE_DATA};
    memset(message, 0, BODY);
    uint32_t size = BODY + body_draw(peer, &message[KIND_AT], message + BODY, payload);
    put32(nonce + 4, peer->install.session + keys->number);
    memcpy(nonce + 8, keys->open_salt, 8);
    put64(nonce + 16, counter);
    if (peer->install.sealed) {
        fuzz_seal(to, message, size, nonce, keys->open_key);
    } else {
        memcpy(to, message, size);
        memcpy(to + HEADER_BYTES, keys->open_key, TAG_BYTES);
    }
    memcpy(to, nonce, 8);
    put64(to + 8, counter);
    return size;
}

/* What no session says: handshakes, rubbish, and data for lanes that are not there. */
static uint32_t rubbish_draw(uint8_t *to) {
    uint32_t first = HEADER_BYTES + 32 + FIRST_PAYLOAD_BYTES;
    uint32_t sealed = first + TAG_BYTES;
    uint32_t size = ONE_OF(0, 1, 15, 16, 17, 32, 33, 34, 65, 608, first, sealed, sealed, sealed, 1232, 1233, below(2000));
    memset(to, 0, size);
    if (size)
        to[0] = (uint8_t)ONE_OF(1, 2, 3, 4, 4, (uint32_t)draw());
    if (size > 1 && to[0] != TYPE_DATA)
        to[1] = (uint8_t)below(3);
    if (size > 8)
        put32(to + 4, ONE_OF(FIRST_SESSION, FIRST_SESSION + SESSION_STEP, below(2 * FIRST_SESSION)));
    return size;
}

bool peer_opens(const uint8_t *datagram, uint32_t size) {
    static uint8_t opened[2 * MAX_PACKET];
    uint32_t index = get32(datagram + 4);
    for (const struct peer *peer = peers; peer < peers + SESSIONS; peer++)
        for (uint32_t lane = 0; lane < peer->install.lanes; lane++) {
            const tr_lane_keys *keys = &peer->lanes[lane];
            uint8_t nonce[24];
            if (peer->install.remote + keys->number != index)
                continue;
            memcpy(nonce, datagram, 8);
            memcpy(nonce + 8, keys->seal_salt, 8);
            memcpy(nonce + 16, datagram + 8, 8);
            if (peer->install.sealed)
                return fuzz_open(opened, datagram, size, nonce, keys->seal_key);
            return !memcmp(datagram + HEADER_BYTES, keys->seal_key, TAG_BYTES);
        }
    return false;
}

/* --- reads ------------------------------------------------------------------------------------------------------------- */

/* Up to `times` datagrams as a host with GRO joins them: of one size, but for a shorter last one. */
static uint32_t train_draw(struct peer *peer, uint8_t *to, uint32_t times, uint32_t payload, uint32_t *segment) {
    uint32_t size = 0;
    while (times-- && (!size || size + *segment <= MAX_FRAME) && input_taken()) {
        uint32_t less = times || mood == CALM || one_in(2) ? payload : below(payload + 1);
        uint32_t more = datagram_draw(peer, to + size, less);
        if (size && more > *segment)
            break;
        reached[reach_datagrams]++;
        *segment = size ? *segment : more;
        size += more;
        if (more < *segment)
            break;
    }
    return size;
}

/* A whole train of one flow's next packets, as long as a read holds. */
static uint32_t calm_draw(uint8_t *to, uint32_t *segment) {
    struct peer *peer = &peers[0];
    if (!peer->install.lanes)
        return input_taken() ? rubbish_draw(to) : 0;
    uint32_t times = MAX_FRAME / (BODY + MAX_HEADERS + peer->flow.mss);
    return train_draw(peer, to, times < 64 ? times : 64, peer->flow.mss, segment);
}

static struct peer *peer_pick(void) {
    struct peer *peer = &peers[one_in(3) ? below(SESSIONS) : below(3)];
    return peer->install.lanes ? peer : NULL;
}

uint32_t read_draw(uint8_t *to, uint32_t *segment) {
    struct peer *peer = one_in(15) ? NULL : peer_pick();
    *segment = 0;
    if (mood == CALM)
        return calm_draw(to, segment);
    if (!peer)
        return input_taken() ? rubbish_draw(to) : 0;
    uint32_t payload = one_in(200) ? below(66000) : one_in(3) ? below(1400) : peer->flow.mss;
    uint32_t size = train_draw(peer, to, one_in(3) ? 1 + below(64) : 1, payload, segment);
    size = size < MAX_FRAME ? size : MAX_FRAME;
    *segment = one_in(50) ? below(2000) : *segment < size ? *segment : 0;
    if (one_in(10))
        spoil(to, size);
    return one_in(20) ? below(size + 1) : size;
}
