"""Every limit in one place: each table, queue, message and rate of the product, with its unit.

Law: what is not bounded here is bounded by one of these (a session's lanes by `MAX_WORKERS`, say). A limit that is hit
is counted under the name that stands beside it, and the counter is shown in `status -o json` and in metrics.
"""

from __future__ import annotations

from typing import Final

# --- effects -------------------------------------------------------------------------------------------------------
MAX_EFFECTS: Final = 1 << 18
"""That wait to be carried out (`effects_lost`): far more than any step has that succeeds, and no memory without end."""

# --- secrets -------------------------------------------------------------------------------------------------------
MAX_SECRETS: Final = 4
"""Secrets accepted at once; the first seals."""
MAX_PASSWORD_BYTES: Final = 1024

# --- handshakes ----------------------------------------------------------------------------------------------------
MAX_HALF_OPEN: Final = 1024
"""Answered first messages whose confirmation is awaited."""
HALF_OPEN_RESERVE: Final = 128
"""Of these, for handshakes that travel inside a session, which no stranger can fill."""
MAX_HALF_OPEN_LANES: Final = 16_384
"""Their lanes: a stranger that claims many workers must not use up `MAX_LANES` (`half_open_full`)."""
CARRIED_PER_SECOND: Final = 2
"""Handshakes inside one session that are looked at (`carried_over_budget`)."""
CARRIED_BURST: Final = 10
MAX_OLD_KEYS: Final = 3
"""Keys of one session beside those in use that are still opened with; the oldest are dropped."""
FIRST_PAYLOAD_BYTES: Final = 928
"""Zeros fill a first message up to this, so that no answer is longer than what caused it."""
HALF_OPEN_SECONDS: Final = 5.0
FIRST_PER_SECOND: Final = 2000
"""First messages of strangers looked at a second, all sources together (`handshake_over_budget`)."""
FIRST_BURST: Final = 200
"""Of these, how many at one moment: fewer than `RAW_BACKLOG`, so that an admitted message is not dropped behind it."""
FIRST_PER_SOURCE_PER_SECOND: Final = 20
FIRST_PER_SOURCE_BURST: Final = 20
FIRST_KNOWN_FACTOR: Final = 5
"""How much larger the bucket of a known peer's address is; known peers also have a common budget of their own."""
MAX_SOURCES: Final = 4096
"""Sources with a bucket of their own; the least recently used one is forgotten."""
REJECTS_PER_SOURCE_PER_SECOND: Final = 1
REJECTS_PER_SECOND: Final = 20
MAX_REJECTED: Final = 16
"""Strangers whose mismatch is remembered for `status`, and of whom as many are logged in a minute."""
REJECTED_SECONDS: Final = 60.0
INDEX_QUARANTINE_SECONDS: Final = 600.0
"""A receiver index is not used again for so long."""
RETRY_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 5.0)
"""Pauses between first messages to one endpoint; the last repeats. Each varies by `RETRY_JITTER`."""
RETRY_JITTER: Final = 0.2
SIMULTANEOUS_SECONDS: Final = 10.0
"""Two handshakes completed within this time by opposite initiators are one simultaneous open."""

# --- sessions ------------------------------------------------------------------------------------------------------
MAX_PEERS: Final = 10_000
MAX_TARGETS: Final = 1024
MAX_INIT_PEERS: Final = 1000
"""Nodes of which a majority founds a cluster."""
MAX_ELECTORS: Final = 5
MAX_KNOWN: Final = 1500
"""Addresses whose handshakes do not wait behind strangers'; it fits one message of the seam."""
REKEY_SECONDS: Final = 120.0
REJECT_SECONDS: Final = 180.0
REKEY_MESSAGES: Final = 1 << 48
REJECT_MESSAGES: Final = 1 << 60
IDLE_CLOSE_SECONDS: Final = 600.0
FORGET_SECONDS: Final = 86_400.0
"""A closed session that nobody wants is forgotten after so long, or when room is needed; so is what a node that cannot
be reached said, unless a register gave it blocks."""
HEARTBEAT_SECONDS: Final = 1.0
SUSPECT_SECONDS: Final = 1.5
PROBE_SECONDS: Final = 0.25
"""Pause between heartbeats to a suspect."""
DEAD_SECONDS: Final = 3.0
HOPS_PAUSE_SECONDS: Final = 0.2
"""Between looks at the next hops of relayed datagrams, while only the links of others change; in a cluster of more than
1,000 nodes as many times longer as it is larger, for so much longer is a look."""
RELAY_DELAY_SECONDS: Final = 1.0
"""A peer that is not reached directly in so long is also sought by relay."""
DIRECT_RETRY_SECONDS: Final = 60.0
"""Between attempts to reach directly who is reached by relay; the first comes much earlier."""
DIRECT_FIRST_SECONDS: Final = 5.0
KEEPALIVE_SECONDS: Final = 25.0
"""Between signs of life on a session that nobody uses: less than the 30 s after which a NAT forgets it."""
REPLAY_WINDOW: Final = 8128
"""Counters behind the newest that are still accepted: 127 words of 64 (RFC 6479)."""

# --- data plane ----------------------------------------------------------------------------------------------------
MAX_WORKERS: Final = 64
MAX_WAITING: Final = 64
"""Packets that wait for one node's session (`drop_queue_full`)."""
MAX_WAITING_NODES: Final = 256
MAX_WAITING_BYTES: Final = 16 << 20
"""Of all packets that wait for a session; super-packets are large."""
MAX_HELD: Final = 256
"""Opened packets, in all, that wait for their sender's identity (`drop_held_full`)."""
MAX_FRAME: Final = 65_535
MAX_SEGMENTS: Final = 1366
"""Packets that one super-packet is cut into (`drop_malformed`): TCP's segments have at least 48 bytes."""
MAX_TRAIN_SEGMENTS: Final = 64
MAX_TRAIN_BYTES: Final = 65_507
TRAIN_BYTES: Final = 131_138
"""Sealed datagrams that are gathered before what goes by relay is sealed once more: two of the largest frames."""
MAX_WAGONS: Final = 64
"""Trains that are gathered so."""
MAX_LOOKUPS: Final = 8192
"""Remembered destination look-ups; the memory is emptied when full and on every change of a route."""
WAKEUP_BATCH: Final = 64
"""Reads of one descriptor before the loop looks at the others."""
WAKEUP_DATAGRAMS: Final = 4096
"""Datagrams after which what is read of the TUN ends such a turn: 64 reads of whole segments make fewer."""
LINGER_SECONDS: Final = 50e-6
SHORT_PAUSE_SECONDS: Final = 250e-6
"""A loop that of late waited less than this looks again for as long as that before it sleeps."""
SOCKET_BUFFER: Final = 8 << 20
MAX_RETIRED: Final = 4 * MAX_PEERS
"""Keys that were retired and of which the workers have not said yet how much passed on them."""
MAX_SESSIONS: Final = 4 * MAX_PEERS
"""Sessions a worker opens for: three slots a peer, and some that are dying (`seam_refused`)."""
MAX_ROUTES: Final = 65_536
"""Prefixes a worker knows (`seam_refused`)."""
RECEIVE_BATCH: Final = 64
"""Reads of a UDP socket in one system call."""
MAX_FLOWS: Final = 8
"""Flows that are being coalesced at one time; the oldest is written out for the next."""
MAX_COALESCED: Final = 512
"""Segments that leave as one super-packet; the kernel takes a frame in at most 1,024 parts."""
MAX_UDP_COALESCED: Final = 64
TOO_BIG_PER_SECOND: Final = 100
"""ICMP messages about packets that exceed a path (`icmp_limited`)."""
MAX_LANES: Final = 65_536
"""Lanes of all sessions that a worker opens for (`seam_refused`)."""
MAX_SESSION_LANES: Final = 40_960
"""Of these, of sessions whose peer is known; half of them are for renewed keys (`lanes_full`)."""
MAX_ECHOES: Final = 256
"""Heartbeats whose answer somebody waits for; the oldest gives way."""
ECHOES_PER_SECOND: Final = 100
"""That this node asks for: far less than `CONTROL_PER_SECOND`, which its peers read."""
ECHOES_BURST: Final = 50
"""Of these, how many at one moment."""
MAX_HOPS: Final = 4096
"""Nodes for which a worker knows a hop (`seam_refused`)."""
RELAY_HOPS: Final = 8
"""Sessions that a relayed datagram may travel in (`relay_hop_limit`)."""
HOPS_WANTED_PER_SECOND: Final = 20
"""Unknown targets of what one session, or this node, relays that control is told of, and how many at one moment."""
ASTRAY_PER_SECOND: Final = 1000
"""Datagrams of one hop handed to another worker by way of control, and how many at once (`drop_unknown_index`)."""
REFUSED_SECONDS: Final = 0.1
"""Pause before control is told again that datagrams of a session are too large (`drop_path_mtu` counts them all)."""
ANSWERS_PER_SECOND: Final = 2000
"""Handshake answers and rejects of strangers handed to control, and as many of known peers (`answer_over_budget`)."""
ANSWERS_BURST: Final = 100
"""Of these, how many of strangers at one moment; `FIRST_KNOWN_FACTOR` times as many of known peers."""
CONTROL_PER_SECOND: Final = 500
"""Control bodies of one session handed to control (`control_rate`)."""
CONTROL_BURST: Final = 100
"""Of these, how many at one moment."""
MOVED_SECONDS: Final = 1.0
"""Pause before control is told at once again that a session's endpoint changed; until then the report tells it."""
WANTED_SECONDS: Final = 1.0
"""Pause before control is told again that packets wait for a node."""
REPORT_SECONDS: Final = 1.0
MAX_ERROR_KINDS: Final = 64
"""Kinds of unexpected errors that a worker logs, each once (`worker_errors`)."""

# --- the seam between control and data plane -----------------------------------------------------------------------
SEAM_MESSAGE_BYTES: Final = 72 << 10
SEAM_BACKLOG: Final = 4096
"""Messages waiting for a full pipe; what may be lost is dropped then (`seam_full`, to workers `worker_pipe_full`)."""
RAW_BACKLOG: Final = 256
"""Strangers' handshake datagrams handed to control in one wake-up (`handshake_queue_full`)."""

# --- messages ------------------------------------------------------------------------------------------------------
MAX_HANDSHAKE_BYTES: Final = 1232
MIN_DATAGRAM: Final = 16
MAX_CONTROL_BYTES: Final = 1100
"""A control body; it fits the smallest path after sealing."""
MAX_NAME_BYTES: Final = 64
MAX_BLOCKS_ANNOUNCED: Final = 16
MAX_BLOCKS_BYTES: Final = 640
"""The record of as many blocks: it is part of every handshake."""

# --- the mesh --------------------------------------------------------------------------------------------------------
NEIGHBOURS: Final = 8
"""Sessions that a node keeps for control; it looks for more below this."""
CHOSEN_NEIGHBOURS: Final = 4
"""Of its own choice; as many choose it, in the mean."""
MAX_NEIGHBOURS: Final = 16
"""Above this it asks some to keep others."""
FEW_NEIGHBOURS: Final = 4
"""Below this a node does not let go of what the operator named, even where it is asked to."""
CHOOSE_SECONDS: Final = 1.0
"""Pause between looks at the number of neighbours."""
SEEK_PER_SECOND: Final = 0.5
"""How often a known node that cannot be reached is tried, by all that look for it together, in the mean."""
SEEK_AFTER_SECONDS: Final = 5.0
"""Pause between two counts of those that cannot be reached: who is missed at both is sought."""
SEEK_EAGERLY_SECONDS: Final = 600.0
SEEK_LATER_SHARE: Final = 0.05
"""Of those tries, once it has been away for longer than that."""
MAX_SOUGHT: Final = 2
"""Of them, by one node in one look."""
SEEK_SECONDS: Final = 2.0
"""How long such a try lasts: longer than any round trip."""
CHOOSE_TRIES: Final = 1000
"""Nodes that one look takes into account, by chance; where there are more, the next look takes others."""
AVOID_SECONDS: Final = 30.0
"""A node that did not answer, or has neighbours enough, is not chosen again for so long."""
NODE_PAUSE_SECONDS: Final = 5.0
"""Between two records of where we are: peers that see us in ever new places must not use up what an author may say."""
LINKS_PAUSE_SECONDS: Final = 0.5
"""Between two records of our links."""
LINKS_SETTLE_SECONDS: Final = 2.0
"""A new link is told with those that come up meanwhile; one that is lost is told at once."""
RTT_TOLD_SECONDS: Final = 60.0
"""Between looks at whether a round trip left its class."""
WEIGH_PAUSE_SECONDS: Final = 1.0
"""Between looks at which of those that announce one block can be reached."""
SWEEP_SECONDS: Final = 60.0
"""Between looks for nodes that are gone."""

# --- gossip ----------------------------------------------------------------------------------------------------------
MAX_RECORD_BYTES: Final = 1000
"""A record; with its frame it fits one control body."""
MAX_ENDPOINTS: Final = 8
"""Of one node."""
MAX_LINKS: Final = 64
GOSSIP_PAUSE_SECONDS: Final = 0.05
"""Between two messages to one neighbour: what is new meanwhile leaves together."""
GOSSIP_RETRY_SECONDS: Final = 0.5
"""Without an acknowledgement for so long, or for twice as long as the last one took, records are sent again."""
GOSSIP_RETRY_LONGEST_SECONDS: Final = 10.0
GOSSIP_WINDOW: Final = 16
"""Messages to one neighbour that wait for their acknowledgement."""
GOSSIP_ACKS: Final = 64
"""Acknowledgements that wait for one neighbour; more are not given, and the records come again."""
GOSSIP_ROUND_SECONDS: Final = 30.0
GOSSIP_NEXT_SECONDS: Final = 1.0
"""Between rounds with one neighbour that has just come up, or whose replica differs."""
GOSSIP_RECORDS_PER_SECOND: Final = 500
"""New records of one neighbour whose signature is looked at (`gossip_over_budget`), 60 µs each."""
GOSSIP_RECORDS_BURST: Final = 3 * MAX_PEERS
GOSSIP_QUESTIONS_PER_SECOND: Final = 200
"""Sums and versions of one neighbour that are looked at (`gossip_over_budget`), and how many at one moment."""
GOSSIP_REPLIES_PER_SECOND: Final = 64
"""Of our own to one neighbour, and how many at one moment; the next round says the rest."""
GOSSIP_ROUNDS: Final = 30
"""Rounds in a row with one neighbour while the replicas differ."""
AUTHOR_RECORDS_PER_SECOND: Final = 2
"""New versions of one node's records, whoever brings them (`gossip_author_over_budget`)."""
AUTHOR_RECORDS_BURST: Final = 30

# --- identity -------------------------------------------------------------------------------------------------------
OUTLIVED_SECONDS: Final = 10.0
"""Pause between two lives that a node begins, or is told to begin, because others have given up the one before."""
CLONE_SECONDS: Final = 5.0
"""A copy of a node that runs is found out in so long."""

# --- addresses -----------------------------------------------------------------------------------------------------
REST_SECONDS: Final = 60.0
"""Between two holders of an address: who talked to the first has forgotten it by then."""
MAX_RESTED: Final = 4096
"""Addresses of one block that have rested and whose order is remembered; beyond it the oldest count as never used."""
IPAM_SECONDS: Final = 1.0
"""Pause between looks at whether this node needs a block more, or one less."""
VERIFY_SECONDS: Final = 600.0
"""Between looks at the electors whether our blocks are ours still; after having been cut off from them, at once."""
ALLOCATE_SECONDS: Final = 8.0
"""How long a container waits for an address before it hears why there is none."""
MAX_PENDING: Final = 1024
"""Containers that wait for an address."""
LEAVE_SECONDS: Final = 20.0
SPARE_ADDRESSES: Final = 64
"""Fewer free ones, or than a quarter of a block, and the next block is asked for."""
SURPLUS_SECONDS: Final = 900.0
"""A block that is not needed for so long is handed back."""
LATELY_HELD_SECONDS: Final = 900.0
"""A block that somebody lost is not claimed before, where its register may vanish although its holder lives."""
REFUSED_MOST_SECONDS: Final = 60.0
"""The longest pause before the cluster's API is asked again for what it has refused."""
CLAIM_PAUSE_SECONDS: Final = 0.5
"""After somebody else was quicker, each time longer."""
ABANDONED_SECONDS: Final = 1800.0
"""A Lease of nobody that is there is deleted after so long, if the cluster has not done so."""
SETTLE_SECONDS: Final = 2.0
"""From when a first peer is there, all have said in so long which blocks they hold."""
LONELY_SECONDS: Final = 60.0
"""Who reaches no peer for so long, although there are other nodes, claims a block all the same."""
API_PATIENCE_SECONDS: Final = 3.0
"""The cluster's API is waited for so long before the disk's word is taken."""
MAX_UID: Final = 64
"""Characters of what names an object of the cluster's API for ever."""
MAX_REMOVED: Final = 16
"""Nodes that this one removed and tells others of."""

# --- registers -------------------------------------------------------------------------------------------------------
CHANGE_SECONDS: Final = 10.0
"""How long one round of a change may take, with all that it tries."""
ROUND_RETRY_SECONDS: Final = (0.3, 0.6, 1.0)
"""Pauses before the electors that did not answer are asked again; the last repeats."""
OUTBID_SECONDS: Final = 0.05
"""First pause of a proposer that was outbid; it doubles up to a second."""
ELECTORS_SECONDS: Final = 1.0
"""Pause between an elector's looks at who the electors are."""
GROW_SECONDS: Final = 2.0
"""Other electors are chosen once the same ones have been wanted for so long."""
FOUNDING_SECONDS: Final = 5.0
"""A majority of the founders waits so long for the others."""
TAKE_OVER_SECONDS: Final = 3.0
"""Electors that are frozen so long see to the next epoch themselves, one after the other."""
ELECTOR_LOST_SECONDS: Final = 600.0
"""An elector that cannot be reached for so long is replaced, if there is another node."""
RESIGN_SECONDS: Final = 60.0
"""Who is no elector any more keeps what it has promised for so long."""
MAX_ROUND: Final = 1 << 40
"""Higher ones, which nobody reaches honestly, are not outbid."""
MAX_BLOCKS: Final = 65_536
"""Of one range, and so registers of one elector."""
REGISTER_ASKS_PER_SECOND: Final = 500
"""Questions of one node that an elector looks at, and how many at one moment (`register_over_budget`)."""

# --- path MTU (bytes of the outer IP packet) -----------------------------------------------------------------------
PATH_MTU_BASE: Final = 1200
PATH_MTU_MAX: Final = 9216
PATH_MTU_PROBES: Final = 3
"""Losses in a row that end the trial of a larger size; twice as many condemn the size in use."""
PATH_MTU_RAISE_SECONDS: Final = 600.0

# --- metrics ---------------------------------------------------------------------------------------------------------
MAX_PEER_SERIES: Final = 32
"""Neighbours that have series of their own; all others' traffic is one sum."""

# --- the agent's API -----------------------------------------------------------------------------------------------
API_REQUEST_BYTES: Final = 64 << 10
API_SECONDS: Final = 5.0
API_CLIENTS: Final = 64
