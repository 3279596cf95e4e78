/* Control's messages: sessions, routes and paths come and go, and what was used and counted is told. As reference.py.
 *
 * Law: (key, nonce) never repeats. Keys are installed once under a session's id, and their counters only grow.
 */

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bytes.h"
#include "kernel.h"

#define COUNTER_TEXT(name) #name,
static const char *const counter_names[] = {COUNTERS(COUNTER_TEXT)};

uint32_t tr_counter_count(void) {
    return COUNTER_COUNT;
}

const char *tr_counter_name(uint32_t counter) {
    return counter < COUNTER_COUNT ? counter_names[counter] : "";
}

struct budget budget_of(double rate, double burst) {
    return (struct budget){.full_at = -INFINITY, .step = 1.0 / rate, .tolerance = (burst - 1) / rate + 1e-6};
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

/* Memory of which only the pages that were once filled exist. */
static uint8_t *map(size_t size) {
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static bool open_memory(tr_kernel *k) {
    k->out.frame = map(FRAME_ROOM);
    k->out.train.buffer = map(TRAIN_ROOM);
    k->relay.message = map(FRAME_ROOM);
    k->relay.train.buffer = map(TRAIN_ROOM);
    k->in.buffer = map(BATCH_ROOM);
    k->in.opened = map(OPENED_ROOM);
    k->in.inner = map(SLOT_ROOM);
    k->in.runs = calloc(MAX_FLOWS + 1, sizeof *k->in.runs);
    bool tables = table_open(&k->lanes) & table_open(&k->sessions) & table_open(&k->paths) & table_open(&k->hops) &
                  routes_open(&k->routes);
    bool out = k->out.frame && k->out.train.buffer && k->relay.message && k->relay.train.buffer;
    return tables && out && k->in.buffer && k->in.opened && k->in.inner && k->in.runs;
}

tr_kernel *tr_open(const tr_io *io, const tr_events *events, const tr_nacl *nacl, uint32_t joins, uint32_t versions) {
    tr_kernel *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->io = *io;
    k->events = *events;
    k->nacl = *nacl;
    k->in.joins = joins;
    k->versions = versions;
    k->last = &k->first;
    k->out.icmp = budget_of(TOO_BIG_PER_SECOND, TOO_BIG_PER_SECOND);
    k->relay.wanted = budget_of(HOPS_WANTED_PER_SECOND, HOPS_WANTED_PER_SECOND);
    pthread_mutex_init(&k->door, NULL);
    pthread_mutex_init(&k->in_gate, NULL);
    pthread_mutex_init(&k->out_gate, NULL);
    if (!open_memory(k)) {
        tr_close(k);
        return NULL;
    }
    for (uint32_t i = 0; i <= MAX_FLOWS; i++)
        k->in.order[i] = &k->in.runs[i];
    return k;
}

static void session_free(struct session *session) {
    for (uint32_t i = 0; session->opens && i < session->lanes; i++)
        free(session->opens[i].window);
    if (session->opens)
        explicit_bzero(session->opens, session->lanes * sizeof *session->opens);
    if (session->seals)
        explicit_bzero(session->seals, session->lanes * sizeof *session->seals);
    free(session->opens);
    free(session->seals);
    free(session);
}

void tr_close(tr_kernel *k) {
    while (k->first) {
        struct session *session = k->first;
        k->first = session->next;
        session_free(session);
    }
    while (k->first_path) {
        struct path *path = k->first_path;
        k->first_path = path->next;
        free(path);
    }
    relay_close(k);
    table_close(&k->hops);
    table_close(&k->lanes);
    table_close(&k->sessions);
    table_close(&k->paths);
    routes_close(&k->routes);
    uint8_t *const maps[] = {k->out.frame,          k->out.train.buffer, k->relay.message,
                             k->relay.train.buffer, k->in.buffer,        k->in.opened, k->in.inner};
    const size_t sizes[] = {FRAME_ROOM, TRAIN_ROOM, FRAME_ROOM, TRAIN_ROOM, BATCH_ROOM, OPENED_ROOM, SLOT_ROOM};
    for (int i = 0; i < 7; i++)
        if (maps[i])
            munmap(maps[i], sizes[i]);
    free(k->in.runs);
    free(k);
}

/* --- sessions ---------------------------------------------------------------------------------------------------------- */

bool session_alive(const struct session *session, double now) {
    return now < session->expires && session->seals[0].counter < REJECT_MESSAGES;
}

static void nonce_of(uint8_t *nonce, uint32_t index, const uint8_t *salt) {
    put32(nonce, (uint32_t)TYPE_DATA << 24);
    put32(nonce + 4, index);
    memcpy(nonce + 8, salt, 8);
    put64(nonce + 16, 0);
}

static void lane_fill(tr_kernel *k, struct session *session, uint32_t i, uint32_t remote, const tr_lane_keys *keys) {
    struct seal_lane *seal = &session->seals[i];
    struct open_lane *open = &session->opens[i];
    seal->session = open->session = session;
    seal->index = remote + keys->number;
    /* The receiving host may join what it gets of one address and port (GRO) and steers it by the first datagram's
     * index; of two lanes joined, one would reach the other one's worker. */
    seal->hops = keys->number ? USUAL_HOPS + keys->number : 0;
    open->index = session->id + keys->number;
    nonce_of(seal->nonce, seal->index, keys->seal_salt);
    nonce_of(open->nonce, open->index, keys->open_salt);
    box_key(&k->nacl, session->sealed, seal->key, keys->seal_key, seal->nonce);
    box_key(&k->nacl, session->sealed, open->key, keys->open_key, open->nonce);
}

/* Registers the lanes; false, with nothing registered, if one is taken or there is no memory. */
static bool lanes_put(tr_kernel *k, struct session *session) {
    for (uint32_t i = 0; i < session->lanes; i++) {
        struct open_lane *lane = &session->opens[i];
        if (!table_get(&k->lanes, lane->index) && table_put(&k->lanes, lane->index, lane))
            continue;
        while (i--)
            table_remove(&k->lanes, session->opens[i].index);
        return false;
    }
    return true;
}

static void lanes_remove(tr_kernel *k, const struct session *session) {
    for (uint32_t i = 0; i < session->lanes; i++)
        table_remove(&k->lanes, session->opens[i].index);
}

static struct session *session_make(tr_kernel *k, const tr_install_message *message, const tr_lane_keys *lanes) {
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    session->id = message->session;
    session->node = message->node;
    session->sealed = message->sealed;
    session->expires = message->expires;
    session->endpoint = session->told = message->endpoint;
    session->told_at = session->reported_at = session->refused_at = -INFINITY;
    session->control = budget_of(CONTROL_PER_SECOND, CONTROL_BURST);
    session->hop_wanted = budget_of(HOPS_WANTED_PER_SECOND, HOPS_WANTED_PER_SECOND);
    session->astray = budget_of(ASTRAY_PER_SECOND, ASTRAY_PER_SECOND);
    session->lanes = message->lanes;
    session->seals = calloc(message->lanes, sizeof *session->seals);
    session->opens = calloc(message->lanes, sizeof *session->opens);
    if (!session->seals || !session->opens) {
        session_free(session);
        return NULL;
    }
    for (uint32_t i = 0; i < session->lanes; i++)
        lane_fill(k, session, i, message->remote, &lanes[i]);
    bool put = lanes_put(k, session);
    if (put && table_put(&k->sessions, session->id, session))
        return session;
    if (put)
        lanes_remove(k, session);
    session_free(session);
    return NULL;
}

int tr_install(tr_kernel *k, const tr_install_message *message, const tr_lane_keys *lanes) {
    bool full = k->sessions.used >= MAX_SESSIONS || k->lane_count + message->lanes > MAX_LANES;
    struct session *session = NULL;
    /* Keys installed twice would begin their counters anew. */
    if (message->lanes && message->lanes <= MAX_WORKERS && !full && !table_get(&k->sessions, message->session))
        session = session_make(k, message, lanes);
    if (!session) {
        k->out_counters[count_seam_refused]++;
        return -1;
    }
    k->lane_count += session->lanes;
    session->link = k->last;
    *k->last = session;
    k->last = &session->next;
    return 0;
}

struct session *session_of(tr_kernel *k, uint32_t id) {
    struct session *session = table_get(&k->sessions, id);
    if (!session)
        k->out_counters[count_seam_refused]++; /* retired and refused ones may still be named */
    return session;
}

int tr_deliver(tr_kernel *k, uint32_t id) {
    struct session *session = session_of(k, id);
    if (!session)
        return -1;
    session->delivers = true;
    return 0;
}

int tr_use(tr_kernel *k, uint64_t node, uint32_t id) {
    struct session *session = session_of(k, id);
    if (session && session->node != node) { /* nobody may read what is for another */
        k->out_counters[count_seam_refused]++;
        return -1;
    }
    struct path *path = session ? path_of(k, node) : NULL;
    if (!path)
        return -1;
    path->session = session;
    return 0;
}

static void used(const struct session *session, tr_used *to) {
    *to = (tr_used){
        .session = session->id,
        .sent_packets = session->sent_packets,
        .sent_bytes = session->sent_bytes,
        .received_packets = session->received_packets,
        .received_bytes = session->received_bytes,
        .last_sent = session->last_sent,
        .last_received = session->last_received,
        .reported_at = session->reported_at,
    };
}

int tr_retire(tr_kernel *k, uint32_t id, tr_used *last) {
    struct session *session = session_of(k, id);
    if (!session)
        return -1;
    tr_flush(k); /* no wagon outlives the session whose endpoint it goes to */
    used(session, last);
    lanes_remove(k, session);
    table_remove(&k->sessions, id);
    struct path *path = table_get(&k->paths, session->node);
    if (path && path->session == session)
        path->session = NULL;
    k->lane_count -= session->lanes;
    *session->link = session->next;
    if (session->next)
        session->next->link = session->link;
    else
        k->last = session->link;
    session_free(session);
    return 0;
}

int tr_move(tr_kernel *k, uint32_t id, const tr_endpoint *to) {
    struct session *session = session_of(k, id);
    if (!session)
        return -1;
    session->endpoint = session->told = *to;
    return 0;
}

uint32_t tr_session_count(tr_kernel *k) {
    return k->sessions.used;
}

/* --- routes and paths ---------------------------------------------------------------------------------------------------- */

struct path *path_of(tr_kernel *k, uint64_t node) {
    struct path *path = table_get(&k->paths, node);
    if (path || !(path = calloc(1, sizeof *path)))
        return path;
    path->node = node;
    path->mtu = MAX_FRAME;
    if (!table_put(&k->paths, node, path)) {
        free(path);
        return NULL;
    }
    path->next = k->first_path;
    path->link = &k->first_path;
    if (k->first_path)
        k->first_path->link = &path->next;
    k->first_path = path;
    return path;
}

int tr_route(tr_kernel *k, const uint8_t *prefix, uint32_t size, uint32_t length, uint64_t node) {
    if (routes_add(&k->routes, prefix, size, length, node))
        return 0;
    k->out_counters[count_seam_refused]++;
    return -1;
}

void tr_unroute(tr_kernel *k, const uint8_t *prefix, uint32_t size, uint32_t length) {
    routes_remove(&k->routes, prefix, size, length);
}

void tr_path_mtu(tr_kernel *k, uint64_t node, uint32_t mtu) {
    struct path *path = path_of(k, node);
    if (path)
        path->mtu = mtu;
}

/* Drops the paths of nodes that own no prefix any more and have no session in use. */
void tr_forget_unrouted(tr_kernel *k) {
    for (struct path *path = k->first_path; path; path = path->next)
        path->routed = false;
    for (uint32_t at = 0; at <= k->routes.mask; at++) {
        const struct route *route = &k->routes.entries[at];
        struct path *path = route->address ? table_get(&k->paths, route->node) : NULL;
        if (path)
            path->routed = true;
    }
    for (struct path *path = k->first_path, *next; path; path = next) {
        next = path->next;
        if (path->routed || path->session)
            continue;
        k->events.unrouted(k->events.self, path->node);
        table_remove(&k->paths, path->node);
        *path->link = path->next;
        if (path->next)
            path->next->link = path->link;
        free(path);
    }
}

/* --- reports ---------------------------------------------------------------------------------------------------------------- */

static bool unreported(const struct session *session) {
    const tr_used *last = &session->reported;
    return session->sent_packets != last->sent_packets || session->received_packets != last->received_packets ||
           session->last_sent != last->last_sent || session->last_received != last->last_received;
}

uint32_t tr_used_since(tr_kernel *k, tr_used *to, uint32_t room, double now, uint32_t *moves) {
    uint32_t count = 0;
    *moves = 0;
    for (struct session *session = k->first; session; session = session->next) {
        *moves += !endpoint_equal(&session->endpoint, &session->told);
        endpoint_tell(k, session, now);
        if (count < room && unreported(session))
            used(session, &to[count++]);
    }
    return count;
}

void tr_reported(tr_kernel *k, const tr_used *what, double now) {
    struct session *session = table_get(&k->sessions, what->session);
    if (!session)
        return;
    session->reported = *what;
    session->reported_at = now;
}

void tr_counters(tr_kernel *k, uint64_t *values) {
    for (uint32_t i = 0; i < COUNTER_COUNT; i++)
        values[i] = k->out_counters[i] + k->in_counters[i];
}
