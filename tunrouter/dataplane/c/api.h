/* What the compiled kernel shows to its driver. This file is C and cffi's declaration at once: no preprocessor here.
 *
 * A driver (compiled.py, the fuzzer) gives a tr_kernel two tables of functions: `tr_io` is how frames and datagrams
 * come and go, `tr_events` is whom it tells. The kernel is driven by calls and waits for nothing but in `tr_run_*`.
 */

typedef struct {
    uint8_t name[28]; /* sockaddr_in or sockaddr_in6; or, by relay, 4 zeros and a node's number (big-endian) */
    uint32_t size;    /* of it: 16, 28 or 12 bytes */
} tr_endpoint;

typedef struct {
    const uint8_t *data;
    uint32_t size;
} tr_part;

/* One read of a UDP socket: `size` bytes at `data`, datagrams of `segment` bytes each (0: one datagram). */
typedef struct {
    uint8_t *data;
    uint32_t size;
    uint32_t segment;
    tr_endpoint from;
} tr_slot;

/* One send: datagrams of `segment` bytes, the last perhaps shorter, that leave in one call with a TTL of `hops`
 * (0: the socket's own). */
typedef struct {
    const uint8_t *data;
    uint32_t size;
    uint32_t segment;
    uint32_t hops;
    const tr_endpoint *to;
} tr_wagon;

/* How packets come and go. A result below zero is a negative errno. */
typedef struct {
    void *self;
    int32_t (*read)(void *self, uint8_t *frame, uint32_t room);                      /* bytes; 0: nothing there */
    int32_t (*write)(void *self, const tr_part *parts, uint32_t count);              /* one frame */
    int32_t (*receive)(void *self, uint32_t version, tr_slot *slots, uint32_t room); /* slots filled; 0: nothing */
    int32_t (*send)(void *self, uint32_t version, const tr_wagon *wagons, uint32_t count); /* wagons sent, at least 1 */
} tr_io;

/* Whom the kernel tells. None of these may call back into the kernel. */
typedef struct {
    void *self;
    /* A datagram of a handshake's form; `wakeup` differs from one drain to the next. Until when others of its kind would
     * be refused as this one was, or 0: all strangers' first messages, or what is none; with `alone` set, those first
     * messages that come from the same source. */
    double (*stranger)(void *self, const uint8_t *datagram, uint32_t size, const tr_endpoint *from, double now,
                       uint64_t wakeup, uint32_t *alone);
    void (*control)(void *self, uint32_t session, const tr_endpoint *from, const uint8_t *body, uint32_t body_size,
                    uint32_t size);
    /* An opened packet of a session that does not deliver yet. */
    void (*hold)(void *self, uint32_t session, const uint8_t *datagram, uint32_t size);
    /* A frame for a node without a session in use. */
    void (*wait)(void *self, uint64_t node, const uint8_t *frame, uint32_t size, double now);
    /* Writes the ICMP message about `packet` to `message`; its size, or 0 where none may be sent. */
    uint32_t (*explain)(void *self, const uint8_t *packet, uint32_t size, uint32_t mtu, uint8_t *message);
    void (*refused)(void *self, uint32_t session, uint32_t size);
    void (*moved)(void *self, uint32_t session, const tr_endpoint *to);
    void (*unrouted)(void *self, uint64_t node);
    /* Something is to go by relay to `target`, for which there is no hop. */
    void (*hop_wanted)(void *self, uint64_t target);
    /* A datagram of `origin` came by relay that no lane of this kernel opens. */
    void (*astray)(void *self, uint64_t origin, const uint8_t *datagram, uint32_t size);
} tr_events;

/* libsodium's functions. The first four may be null together: then every box takes two passes more. */
typedef struct {
    int (*subkey)(uint8_t *to, const uint8_t *nonce, const uint8_t *key, const uint8_t *constant);
    int (*stream_xor)(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                      const uint8_t *key);
    int (*authenticate)(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key);
    int (*verify)(const uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key);
    int (*seal)(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce, const uint8_t *key);
    int (*open)(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce, const uint8_t *key);
    /* Our own beside them, for boxes long enough to gain by it; each may be null. They touch not a byte more. */
    int (*wide_stream_xor)(uint8_t *to, const uint8_t *from, unsigned long long size, const uint8_t *nonce,
                           const uint8_t *key);
    int (*wide_authenticate)(uint8_t *tag, const uint8_t *message, unsigned long long size, const uint8_t *key);
} tr_nacl;

/* Our own functions, each with its bit, and the sizes from which on they gain; shorter ones stay libsodium's. */
enum { TR_WIDE_STREAM = 1, TR_WIDE_TAG = 2, TR_WIDE_STREAM_FROM = 65, TR_WIDE_TAG_FROM = 129 };
/* Which of them this processor can run. */
uint32_t tr_wide(void);
/* Gives `nacl` those named in `wide` that agree with libsodium's, which it has; the others are null. Zero is success, else
 * which ones do not agree. */
uint32_t tr_widen(tr_nacl *nacl, uint32_t wide);

typedef struct {
    uint32_t number;
    uint8_t seal_key[32];
    uint8_t seal_salt[8];
    uint8_t open_key[32];
    uint8_t open_salt[8];
} tr_lane_keys;

typedef struct {
    uint32_t session;
    uint32_t remote;
    uint64_t node;
    double expires;
    uint32_t sealed;
    uint32_t lanes;
    tr_endpoint endpoint;
} tr_install_message;

typedef struct {
    uint32_t session;
    uint64_t sent_packets;
    uint64_t sent_bytes;
    uint64_t received_packets;
    uint64_t received_bytes;
    double last_sent;
    double last_received;
    double reported_at;
} tr_used;

typedef struct tr_kernel tr_kernel;

/* `joins`: bit 0 TCP over IPv4, 1 TCP over IPv6, 2 UDP over IPv4, 3 UDP over IPv6 may be written as super-packets;
 * `versions`: bit 0 there is an IPv4 socket, bit 1 an IPv6 one. Null when there is no memory. */
tr_kernel *tr_open(const tr_io *io, const tr_events *events, const tr_nacl *nacl, uint32_t joins, uint32_t versions);
void tr_close(tr_kernel *k);

/* Control's messages. Zero is success; everything else was refused and counted. */
int tr_install(tr_kernel *k, const tr_install_message *message, const tr_lane_keys *lanes);
int tr_deliver(tr_kernel *k, uint32_t session);
int tr_use(tr_kernel *k, uint64_t node, uint32_t session);
int tr_retire(tr_kernel *k, uint32_t session, tr_used *last);
int tr_move(tr_kernel *k, uint32_t session, const tr_endpoint *to);
int tr_route(tr_kernel *k, const uint8_t *prefix, uint32_t size, uint32_t length, uint64_t node);
void tr_unroute(tr_kernel *k, const uint8_t *prefix, uint32_t size, uint32_t length);
void tr_path_mtu(tr_kernel *k, uint64_t node, uint32_t mtu);
int tr_send_control(tr_kernel *k, uint32_t session, const uint8_t *body, uint32_t body_size, uint32_t size,
                    double now);
void tr_send_raw(tr_kernel *k, const uint8_t *datagram, uint32_t size, const tr_endpoint *to, double now);
int tr_hop(tr_kernel *k, uint64_t target, uint64_t via);
int tr_backup(tr_kernel *k, uint32_t session, uint32_t on);
/* These, and no others, are peers' addresses; their ports do not count. Needs no pause. */
void tr_know(tr_kernel *k, const tr_endpoint *addresses, uint32_t count);
void tr_relayed(tr_kernel *k, uint64_t origin, const uint8_t *datagram, uint32_t size, double now);

/* What the driver had kept for the kernel: an opened packet that was held, a frame that waited. */
void tr_held(tr_kernel *k, uint32_t session, const uint8_t *datagram, uint32_t size);
void tr_waited(tr_kernel *k, const uint8_t *frame, uint32_t size, double now);
void tr_flush(tr_kernel *k);

/* Packets: 0 when nothing is left, 1 when there may be more. */
int tr_drain_tun(tr_kernel *k, double now);
int tr_drain_udp(tr_kernel *k, uint32_t version, double now);

/* Reports. `tr_used_since` gives sessions whose totals differ from those last reported, at most `room`, and how many
 * endpoints it told of; `tr_reported` says that control has them. */
uint32_t tr_used_since(tr_kernel *k, tr_used *to, uint32_t room, double now, uint32_t *moves);
void tr_reported(tr_kernel *k, const tr_used *used, double now);
void tr_forget_unrouted(tr_kernel *k);
void tr_counters(tr_kernel *k, uint64_t *values);
uint32_t tr_counter_count(void);
const char *tr_counter_name(uint32_t counter);
uint32_t tr_session_count(tr_kernel *k);

/* The descriptors of a real host as a tr_io; those that do not exist are -1. `tr_io_open` gives null without memory. */
typedef struct tr_descriptors tr_descriptors;
tr_descriptors *tr_descriptors_open(int tun, int udp4, int udp6, tr_io *io);
void tr_descriptors_close(tr_descriptors *d);

/* Two loops for two threads, until `tr_stop`. Between `tr_pause` and `tr_resume` neither touches the kernel, so that
 * another thread may; they wait for packets without it. */
void tr_run_tun(tr_kernel *k, int tun, int stop);
void tr_run_udp(tr_kernel *k, int udp4, int udp6, int stop);
void tr_pause(tr_kernel *k);
void tr_resume(tr_kernel *k);
