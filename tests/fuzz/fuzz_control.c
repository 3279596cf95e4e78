/* Control's messages and questions in any order, right ones and such as must be refused. Law: what the kernel accepts is
 * what `peers` says is installed; an index opens for one lane, a session's keys are installed once. */

#include <string.h>

#include "fuzz.h"

/* --- sessions ----------------------------------------------------------------------------------------------------------- */

/* The session exists already, or its message is broken: nothing may change. */
static void install_wrong(struct peer *peer) {
    static tr_lane_keys lanes[MAX_WORKERS + 1];
    uint32_t before = tr_session_count(kernel);
    tr_install_message message = peer->install;
    for (uint32_t i = 0; i <= MAX_WORKERS; i++)
        lanes[i] = (tr_lane_keys){.number = 1000 + i};
    if (!message.lanes || one_in(3)) {
        message.session = 0x8000;
        message.lanes = ONE_OF(0, MAX_WORKERS + 1, 0xffffffff, 2);
        if (message.lanes == 2)
            lanes[1].number = lanes[0].number;
    }
    MUST(tr_install(kernel, &message, lanes));
    MUST(tr_session_count(kernel) == before);
}

static void install(uint32_t i) {
    struct peer *peer = &peers[i];
    if (peer->install.lanes || one_in(20)) {
        install_wrong(peer);
        return;
    }
    peer_draw(i);
    if (one_in(10)) /* its lanes may be another's */
        peer->install.session = peers[i ? i - 1 : SESSIONS - 1].install.session + below(8);
    if (tr_install(kernel, &peer->install, peer->lanes)) {
        peer->install.lanes = 0;
        return;
    }
    sent_forget(peer->install.remote);
    reached[reach_installed]++;
    if (!one_in(4))
        tr_deliver(kernel, peer->install.session);
    if (one_in(2))
        tr_use(kernel, peer->install.node, peer->install.session);
}

static void install_some(uint32_t i) {
    for (uint32_t last = one_in(20) ? SESSIONS - 1 : i; i <= last; i++)
        install(i);
}

static void retire(uint32_t i) {
    tr_used last;
    bool installed = peers[i].install.lanes;
    if (tr_retire(kernel, installed ? peers[i].install.session : 0x8000 + i, &last)) {
        MUST(!installed);
        return;
    }
    MUST(installed && last.session == peers[i].install.session);
    peers[i].install.lanes = 0;
    reached[reach_retired]++;
}

static uint32_t session_draw(void) {
    return one_in(20) ? (uint32_t)draw() : peers[below(SESSIONS)].install.session;
}

static void use(uint32_t i) {
    tr_use(kernel, one_in(20) ? below(NODES + 1) : peers[i].install.node, peers[i].install.session);
}

static void move(void) {
    tr_endpoint to = anywhere_draw();
    tr_move(kernel, session_draw(), &to);
}

/* --- routes and paths --------------------------------------------------------------------------------------------------- */

static void routes_begin(void) {
    uint8_t prefix[16];
    for (uint32_t node = OURS; node < NODES; node++)
        for (int six = 0; six < 2; six++) {
            address_put(prefix, six, node);
            tr_route(kernel, prefix, six ? 16 : 4, six ? 64 : 24, node == OURS ? 0 : node);
        }
}

static void route(void) {
    bool six = one_in(2);
    uint8_t prefix[16];
    for (uint32_t times = one_in(20) ? 100 : 1; times; times--) {
        uint32_t length = one_in(30) ? (uint32_t)draw() : below(six ? 130 : 34);
        address_put(prefix, six, below(NODES + 2));
        if (one_in(2))
            spoil(prefix, sizeof prefix);
        uint32_t size = one_in(30) ? below(18) : six ? 16 : 4;
        bool wrong = (size != 4 && size != 16) || length > 8 * size;
        if (one_in(3))
            tr_unroute(kernel, prefix, size, length);
        else if (!tr_route(kernel, prefix, size, length, below(NODES)))
            MUST(!wrong);
    }
}

static void path_mtu(void) {
    uint32_t node = below(one_in(3) ? 100 : NODES);
    uint32_t mtu = one_in(2) ? MAX_FRAME : ONE_OF(0, 19, 576, 1280, 1376, 9000, (uint32_t)draw());
    tr_path_mtu(kernel, node, mtu);
}

/* --- what is sent and given back ---------------------------------------------------------------------------------------- */

static void send_control(void) {
    static uint8_t body[MAX_TRAIN_BYTES];
    uint32_t size = one_in(20) ? below(sizeof body) : below(MAX_CONTROL_BYTES);
    uint32_t padded = one_in(10) ? (uint32_t)draw() : below(1400);
    memory_unfence();
    tr_send_control(kernel, session_draw(), body, size, padded, now);
}

static void send_raw(void) {
    static uint8_t datagram[MAX_HANDSHAKE_BYTES] = {TYPE_FIRST};
    tr_endpoint to = anywhere_draw();
    tr_send_raw(kernel, datagram, 1 + below(sizeof datagram), &to, now);
}

/* Some of what was kept comes back; the kernel may give it away again. */
static void give_back(void) {
    struct kept kept;
    memory_unfence();
    for (uint32_t times = below(20); times && held_take(&kept); times--) {
        tr_held(kernel, (uint32_t)kept.of, kept.data, kept.size);
        free(kept.data);
    }
    for (uint32_t times = below(20); times && waiting_take(&kept); times--) {
        tr_waited(kernel, kept.data, kept.size, now);
        free(kept.data);
    }
    tr_flush(kernel);
}

static void give_rubbish(void) {
    static uint8_t rubbish[2 * MAX_PACKET];
    uint32_t size = below(ONE_OF(BODY + 2, 200, sizeof rubbish));
    memset(rubbish, (int)draw(), size);
    spoil(rubbish, size);
    memory_unfence();
    if (one_in(2))
        tr_held(kernel, session_draw(), rubbish, size);
    else
        tr_waited(kernel, rubbish, size, now);
    tr_flush(kernel);
}

static void hop(void) {
    tr_hop(kernel, 1 + below(NODES), one_in(4) ? 0 : 1 + below(NODES));
}

static void backup(void) {
    tr_backup(kernel, session_draw(), !one_in(3));
}

static void know(void) {
    tr_endpoint addresses[SESSIONS];
    uint32_t count = below(SESSIONS + 1);
    for (uint32_t i = 0; i < count; i++)
        addresses[i] = anywhere_draw();
    tr_know(kernel, addresses, count);
}

static void relayed(void) {
    static uint8_t datagram[2000];
    uint32_t size = below(sizeof datagram);
    memset(datagram, (int)draw(), sizeof datagram);
    spoil(datagram, size);
    datagram[0] = (uint8_t)below(6);
    memory_unfence();
    tr_relayed(kernel, 1 + below(NODES), datagram, size, now);
}

/* --- reports ------------------------------------------------------------------------------------------------------------ */

static void report(void) {
    static tr_used used[SESSIONS];
    uint32_t room = below(tr_session_count(kernel) + 1), moves;
    uint32_t count = tr_used_since(kernel, used, room, now, &moves);
    MUST(count <= room && moves <= tr_session_count(kernel));
    for (uint32_t i = 0; i < count; i++)
        tr_reported(kernel, &used[i], now);
    reached[reach_reported] += count;
    tr_forget_unrouted(kernel);
}

/* --- all of it ---------------------------------------------------------------------------------------------------------- */

void control_begin(void) {
    peers_begin();
    routes_begin();
    for (uint32_t i = 0; i < 3; i++)
        install(i);
}

static void (*const messages[])(void) = {
    path_mtu, send_control, send_raw, give_back, give_back, give_rubbish, report, routes_begin, route, move,
    hop, hop, backup, relayed, know,
};

static void message_draw(void) {
    uint32_t i = one_in(3) ? below(3) : below(SESSIONS), kind = below(22);
    switch (kind) {
    case 0:
    case 1:
    case 2:
        install_some(i);
        break;
    case 3:
        retire(i);
        break;
    case 4:
    case 5:
        tr_deliver(kernel, session_draw());
        break;
    case 6:
    case 7:
        use(i);
        break;
    default:
        messages[kind - 8]();
    }
}

void control_step(void) {
    tr_pause(kernel);
    memory_short = one_in(10);
    message_draw();
    memory_short = false;
    tr_resume(kernel);
}
