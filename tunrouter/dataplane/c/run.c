/* The two loops that wait in C: a wakeup that first had to wake an interpreter would cost more than the packet.
 *
 * So does waking a processor that went to sleep. Law: a loop whose pauses were short of late looks again for up to
 * LINGER_SECONDS before it waits, and gives way each time to whoever else could run: it spends time that was idle, and
 * none where fewer than 1 / SHORT_PAUSE_SECONDS batches a second come.
 *
 * Each loop waits without its gate and works behind it. Whoever needs the whole kernel takes both gates; as a busy loop
 * would take its gate again before anybody else gets it, he first says that he waits, and the loops queue up at the
 * door, which he holds.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
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

/* What a loop waits for, since when, and how long it waited of late. */
struct vigil {
    struct pollfd fds[3]; /* the first says that it is time to stop */
    nfds_t count;
    double since, pause;
};

/* A long pause counts as twice a short one, so that a loop is soon awake again. */
static double average(double pause, double newest) {
    double longest = 2 * SHORT_PAUSE_SECONDS;
    return pause + ((newest < longest ? newest : longest) - pause) / 8;
}

/* What poll says, at the time `now`. */
static int linger(struct vigil *vigil, double *now) {
    double until = vigil->pause < SHORT_PAUSE_SECONDS ? vigil->since + LINGER_SECONDS : 0;
    int ready = 0;
    while (!ready && (*now = monotonic()) < until)
        if (!(ready = poll(vigil->fds, vigil->count, 0)))
            sched_yield();
    if (!ready)
        ready = poll(vigil->fds, vigil->count, -1);
    *now = monotonic();
    return ready;
}

/* False when it is time to stop, or a descriptor is gone: what has nothing to read but an error would never wait. */
static bool wait_for(struct vigil *vigil, double *now) {
    vigil->since = monotonic();
    if (linger(vigil, now) < 0)
        return errno == EINTR;
    vigil->pause = average(vigil->pause, *now - vigil->since);
    for (nfds_t i = 1; i < vigil->count; i++) {
        short events = vigil->fds[i].revents;
        if (events & POLLNVAL || (events & (POLLERR | POLLHUP) && !(events & POLLIN)))
            return false;
    }
    return !vigil->fds[0].revents;
}

void tr_run_tun(tr_kernel *k, int tun, int stop) {
    struct vigil vigil = {{{.fd = stop, .events = POLLIN}, {.fd = tun, .events = POLLIN}}, 2, 0, SHORT_PAUSE_SECONDS};
    double now;
    while (wait_for(&vigil, &now)) {
        enter(k, &k->out_gate);
        tr_drain_tun(k, now);
        pthread_mutex_unlock(&k->out_gate);
    }
}

void tr_run_udp(tr_kernel *k, int udp4, int udp6, int stop) {
    struct vigil vigil = {
        {{.fd = stop, .events = POLLIN}, {.fd = udp4, .events = POLLIN}, {.fd = udp6, .events = POLLIN}},
        3, 0, SHORT_PAUSE_SECONDS,
    };
    double now;
    while (wait_for(&vigil, &now)) {
        for (uint32_t i = 1; i < 3; i++) {
            if (!vigil.fds[i].revents)
                continue;
            enter(k, &k->in_gate);
            tr_drain_udp(k, i == 1 ? 4 : 6, now);
            pthread_mutex_unlock(&k->in_gate);
        }
    }
}
