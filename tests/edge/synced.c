/* Preloaded: `unsynced()` says whether something was written to a file by pwrite and no sync of that file followed.

SQLite's index of its log, state.db-shm, does not count: it is made anew after a crash. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILES 1024

static volatile char dirty[FILES];

int unsynced(void) {
    for (int file = 0; file < FILES; file++)
        if (dirty[file])
            return 1;
    return 0;
}

static int is_index(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path);
    return size > 4 && !memcmp(path + size - 4, "-shm", 4);
}

static void mark(int file, char value) {
    if (file >= 0 && file < FILES)
        dirty[file] = value;
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    if (!is_index(file))
        mark(file, 1);
    return real(file, data, size, offset);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    return pwrite64(file, data, size, offset);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    int result = real(file);
    if (!result)
        mark(file, 0);
    return result;
}

int fsync(int file) {
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    int result = real(file);
    if (!result)
        mark(file, 0);
    return result;
}
