/* The kernel's memory: refused at times, and fenced, so that what lies behind a frame or datagram cannot be touched.
 *
 * The kernel maps few large buffers and works inside them, where the address sanitizer sees no overrun. So here a mapping
 * is memory of the heap, of exactly its size, and whatever gives the kernel bytes (a read, a box that was opened) fences
 * them in. The one law that lets anything cross a fence, SLACK, is fuzz_nacl.c's.
 */

#include <sanitizer/asan_interface.h>
#include <string.h>

#include "fuzz.h"

enum { MAPPINGS = 16, PAGE = 4096 };

bool memory_short;

static struct mapping {
    uint8_t *at;
    size_t size;
} mappings[MAPPINGS];

/* The linker gives the kernel these for calloc, mmap and munmap (harness.py). */
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, long offset);
int __wrap_munmap(void *at, size_t size);

static bool refuse(void) {
    bool refused = memory_short && one_in(3);
    reached[reach_out_of_memory] += refused;
    return refused;
}

void *__wrap_calloc(size_t count, size_t size) {
    return refuse() ? NULL : __real_calloc(count, size);
}

static struct mapping *mapping_of(const uint8_t *at) {
    for (struct mapping *mapping = mappings; mapping < mappings + MAPPINGS; mapping++)
        if (mapping->at && at >= mapping->at && at < mapping->at + mapping->size)
            return mapping;
    return NULL;
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, long offset) {
    struct mapping *free = mappings;
    void *made = NULL;
    (void)at, (void)protection, (void)flags, (void)fd, (void)offset;
    while (free->at)
        MUST(++free < mappings + MAPPINGS);
    if (refuse() || posix_memalign(&made, PAGE, size))
        return (void *)-1;
    memset(made, 0, size);
    *free = (struct mapping){made, size};
    return made;
}

int __wrap_munmap(void *at, size_t size) {
    struct mapping *mapping = mapping_of(at);
    MUST(mapping && mapping->at == at && mapping->size == size);
    ASAN_UNPOISON_MEMORY_REGION(at, size);
    mapping->at = NULL;
    free(at);
    return 0;
}

size_t memory_behind(const uint8_t *at) {
    const struct mapping *mapping = mapping_of(at);
    return mapping ? (size_t)(mapping->at + mapping->size - at) : 0;
}

void memory_fence(const uint8_t *at, size_t size, size_t room) {
    size_t behind = memory_behind(at);
    MUST(size <= behind);
    room = room < behind ? room : behind;
    ASAN_UNPOISON_MEMORY_REGION(at, size);
    if (room > size)
        ASAN_POISON_MEMORY_REGION(at + size, room - size);
}

void memory_unfence(void) {
    for (const struct mapping *mapping = mappings; mapping < mappings + MAPPINGS; mapping++)
        if (mapping->at)
            ASAN_UNPOISON_MEMORY_REGION(mapping->at, mapping->size);
}
