/* Where a session's other side is: a sockaddr, and control's knowledge of it.
 *
 * Law: two endpoints are equal if datagrams to both arrive at one socket.
 */

#include "bytes.h"
#include "kernel.h"

uint32_t endpoint_version(const tr_endpoint *endpoint) {
    return endpoint->size == RELAYED ? 0 : endpoint->size == 28 ? 6 : 4;
}

uint64_t endpoint_node(const tr_endpoint *endpoint) {
    return endpoint->size == RELAYED ? get64(endpoint->name + 4) : 0;
}

tr_endpoint endpoint_relayed(uint64_t node) {
    tr_endpoint endpoint = {.size = RELAYED};
    put64(endpoint.name + 4, node);
    return endpoint;
}

/* Family, port, address and scope; not the flow label. */
bool endpoint_equal(const tr_endpoint *one, const tr_endpoint *two) {
    if (one->size != two->size || memcmp(one->name, two->name, 4))
        return false;
    if (one->size != 28)
        return !memcmp(one->name + 4, two->name + 4, one->size == RELAYED ? 8 : 4);
    return !memcmp(one->name + 8, two->name + 8, 20);
}

void endpoint_tell(tr_kernel *k, struct session *session, double now) {
    if (endpoint_equal(&session->endpoint, &session->told))
        return;
    session->told = session->endpoint;
    session->told_at = now;
    k->events.moved(k->events.self, session->id, &session->told);
}
