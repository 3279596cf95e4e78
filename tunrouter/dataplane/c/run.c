/* The two loops that wait in C: a wakeup that first had to wake an interpreter would cost more than the packet.
 *
 * Each loop waits without its gate and works behind it. Whoever needs the whole kernel takes both gates; as a busy loop
 * would take its gate again before anybody else gets it, he first says that he waits, and the loops queue up at the
 * door, which he holds.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <time.h>

#include "kernel.h"

static double monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void tr_pause(tr_kernel *k) {
    atomic_fetch_add(&k->waiting, 1);
    pthread_mutex_lock(&k->door);
    pthread_mutex_lock(&k->in_gate);
    pthread_mutex_lock(&k->out_gate);
}

void tr_resume(tr_kernel *k) {
    pthread_mutex_unlock(&k->out_gate);
    pthread_mutex_unlock(&k->in_gate);
    pthread_mutex_unlock(&k->door);
    atomic_fetch_sub(&k->waiting, 1);
}

static void enter(tr_kernel *k, pthread_mutex_t *gate) {
    if (atomic_load(&k->waiting)) {
        pthread_mutex_lock(&k->door);
        pthread_mutex_unlock(&k->door);
    }
    pthread_mutex_lock(gate);
}

/* False when it is time to stop, or a descriptor is gone: what has nothing to read but an error would never wait. */
static bool wait_for(struct pollfd *fds, nfds_t count) {
    if (poll(fds, count, -1) < 0)
        return errno == EINTR;
    for (nfds_t i = 1; i < count; i++)
        if (fds[i].revents & POLLNVAL || (fds[i].revents & (POLLERR | POLLHUP) && !(fds[i].revents & POLLIN)))
            return false;
    return !fds[0].revents;
}

void tr_run_tun(tr_kernel *k, int tun, int stop) {
    struct pollfd fds[2] = {{.fd = stop, .events = POLLIN}, {.fd = tun, .events = POLLIN}};
    while (wait_for(fds, 2)) {
        enter(k, &k->out_gate);
        tr_drain_tun(k, monotonic());
        pthread_mutex_unlock(&k->out_gate);
    }
}

void tr_run_udp(tr_kernel *k, int udp4, int udp6, int stop) {
    struct pollfd fds[3] = {
        {.fd = stop, .events = POLLIN}, {.fd = udp4, .events = POLLIN}, {.fd = udp6, .events = POLLIN},
    };
    while (wait_for(fds, 3)) {
        double now = monotonic();
        for (uint32_t i = 1; i < 3; i++) {
            if (!fds[i].revents)
                continue;
            enter(k, &k->in_gate);
            tr_drain_udp(k, i == 1 ? 4 : 6, now);
            pthread_mutex_unlock(&k->in_gate);
        }
    }
}
