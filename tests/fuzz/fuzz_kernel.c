/* A fuzzer of the compiled kernel: datagrams, frames and messages of all kinds, most of them nearly right.
 *
 *     fuzz_kernel SEED INPUTS [FROM]
 *
 * Takes inputs FROM to FROM + INPUTS of what the seed gives, in rounds of ROUND, each with a new kernel and its own random
 * numbers: so a failure, which prints its input's number, is met again by `fuzz_kernel SEED 1 NUMBER`. To be built with the
 * address and undefined behaviour sanitizers, by harness.py. The laws that are checked stand in the files of their
 * subjects: fuzz_memory.c (bounds), fuzz_nacl.c (boxes), fuzz_io.c (what leaves) and fuzz_control.c (messages).
 */

#include <math.h>
#include <sanitizer/lsan_interface.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

enum { ROUND = 10000, ROUND_SECONDS = 20 };

uint64_t fuzz_state, reached[REACH_COUNT];
tr_kernel *kernel;
double now;
bool sealed;
uint32_t inputs_left;

static uint64_t seed, round_number, digest, digests;
static uint64_t counted[COUNTER_COUNT];

#define REACH_TEXT(name) #name,
static const char *const reach_names[] = {REACHES(REACH_TEXT)};

bool input_taken(void) {
    if (!inputs_left)
        return false;
    inputs_left--;
    return true;
}

void eat(const uint8_t *data, size_t size) {
    uint64_t word, sum = digest + size;
    for (; size >= sizeof word; data += sizeof word, size -= sizeof word) {
        memcpy(&word, data, sizeof word);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    }
    for (; size; size--)
        sum = (sum ^ *data++) * 0x9e3779b97f4a7c15u;
    digest = sum ^ sum >> 32;
}

/* --- rounds ------------------------------------------------------------------------------------------------------------- */

static void kernel_open(void) {
    tr_nacl nacl = fuzz_nacl(one_in(4) ? WHOLE : one_in(6) ? WIDE : HALVES);
    uint32_t joins = one_in(3) ? below(16) : 15, versions = one_in(5) ? below(4) : 3;
    memory_short = one_in(10);
    kernel = tr_open(&fuzz_io, &fuzz_events, &nacl, joins, versions);
    memory_short = false;
    if (!kernel)
        kernel = tr_open(&fuzz_io, &fuzz_events, &nacl, joins, versions);
    MUST(kernel);
}

static void step(void) {
    now += one_in(100) ? below(30) / 10.0 : 1e-4 * below(10);
    mood_draw();
    frames_left = 1 + below(one_in(mood == RESTLESS ? 3 : 10) ? 100 : 4);
    reads_left = 1 + below(one_in(10) ? 100 : mood == CALM ? 20 : 4);
    if (one_in(3)) {
        control_step();
        return;
    }
    memory_short = one_in(50);
    if (one_in(2))
        tr_drain_tun(kernel, now);
    else
        tr_drain_udp(kernel, one_in(2) ? 4 : 6, now);
    memory_short = false;
}

static void round_run(void) {
    uint64_t values[COUNTER_COUNT];
    fuzz_state = (seed + 1) * 0x9e3779b97f4a7c15u ^ (round_number + 1) * 0xd6e8feb86659fd93u;
    now = 1000;
    digest = 0;
    sealed = !one_in(6);
    inputs_left = ROUND;
    alarm(ROUND_SECONDS);
    kernel_open();
    control_begin();
    while (inputs_left)
        step();
    tr_counters(kernel, values);
    for (uint32_t i = 0; i < COUNTER_COUNT; i++)
        counted[i] += values[i];
    eat((const uint8_t *)values, sizeof values);
    tr_close(kernel);
    kept_close();
    MUST(!__lsan_do_recoverable_leak_check());
    digests += digest;
}

/* --- the program -------------------------------------------------------------------------------------------------------- */

/* Both sanitizers end with an abort, so that every failure passes on_signal. Freed memory rests before it is used again:
 * some rounds' worth. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void) {
    return "abort_on_error=1:detect_leaks=1:quarantine_size_mb=64";
}

const char *__ubsan_default_options(void) {
    return "abort_on_error=1:print_stacktrace=1";
}

static void on_signal(int number) {
    if (number == SIGALRM)
        fprintf(stderr, "broken: a round takes more than %d s\n", ROUND_SECONDS);
    uint64_t input = round_number * ROUND + (inputs_left < ROUND ? ROUND - 1 - inputs_left : 0);
    fprintf(stderr, "failed: seed %llu, input %llu\n", (unsigned long long)seed, (unsigned long long)input);
    _exit(1);
}

static void print_all(uint64_t rounds) {
    printf("inputs %llu\ndigest %016llx\n", (unsigned long long)(rounds * ROUND), (unsigned long long)digests);
    for (uint32_t i = 0; i < COUNTER_COUNT; i++)
        printf("%s %llu\n", tr_counter_name(i), (unsigned long long)counted[i]);
    for (uint32_t i = 0; i < REACH_COUNT; i++)
        printf("%s %llu\n", reach_names[i], (unsigned long long)reached[i]);
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: fuzz_kernel SEED INPUTS [FROM]\n");
        return 2;
    }
    seed = strtoull(arguments[1], NULL, 0);
    uint64_t inputs = strtoull(arguments[2], NULL, 0), from = count > 3 ? strtoull(arguments[3], NULL, 0) : 0;
    uint64_t first = from / ROUND, last = (from + (inputs ? inputs - 1 : 0)) / ROUND;
    signal(SIGABRT, on_signal);
    signal(SIGALRM, on_signal);
    for (round_number = first; round_number <= last; round_number++)
        round_run();
    alarm(0);
    print_all(last - first + 1);
    return 0;
}
