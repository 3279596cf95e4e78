/* Deletions that the agent could not be told of: a file each, which it works off when it is back.
 *
 * Law: a note is whole or is not there, and it is on disk before anybody hears of it. Its name follows from what it
 * says, so there is one, however often it is written.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "call.h"
#include "sha256.h"

#define NOTES "/var/lib/tunrouter/cni"

enum { NAME_BYTES = 16 };

/* One that is there is none too many; a file is. */
static bool make_directory(const char *path, mode_t mode) {
    struct stat found;
    if (!mkdir(path, mode))
        return true;
    int why = errno;
    if (!stat(path, &found) && S_ISDIR(found.st_mode))
        return true;
    errno = why;
    return false;
}

/* And those above it. */
static bool make_directories(const struct text *path) {
    struct text part = {0};
    struct stat found;
    size_t end = path->size;
    while (end && path->at[end - 1] == '/')
        end--;
    bool made = true;
    for (size_t at = 1; made && at < end; at++) {
        if (path->at[at] != '/' || path->at[at - 1] == '/')
            continue;
        part.size = 0;
        text_add(&part, path->at, at);
        made = !stat(part.at, &found) || make_directory(part.at, 0777) || errno == EEXIST;
    }
    text_free(&part);
    return made && make_directory(path->at, 0700);
}

static bool write_all(int file, const struct text *written) {
    for (size_t at = 0; at < written->size;) {
        ssize_t size = write(file, written->at + at, written->size - at);
        if (size < 0 && errno != EINTR)
            return false;
        at += size > 0 ? (size_t)size : 0;
    }
    return !fsync(file);
}

/* Leaves nothing if it fails. */
static bool write_whole(const char *fresh, const char *path, const struct text *written) {
    int file = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file >= 0) {
        bool whole = write_all(file, written);
        int why = errno;
        if (close(file) && whole)
            whole = false, why = errno;
        if (whole && !rename(fresh, path))
            return true;
        errno = whole ? errno : why;
    }
    int why = errno;
    struct stat found;
    if (!stat(fresh, &found) && unlink(fresh))
        why = errno;
    errno = why;
    return false;
}

static bool settle(const char *directory) {
    int place = open(directory, O_RDONLY | O_CLOEXEC);
    if (place < 0)
        return false;
    bool settled = !fsync(place);
    int why = errno;
    close(place);
    errno = why;
    return settled;
}

/* Into `directory`; what stopped it otherwise. */
static const char *put(const struct text *directory, const struct text *written) {
    uint8_t digest[32];
    if (memchr(directory->at, 0, directory->size))
        return "embedded null byte";
    sha256(digest, written->at, written->size);
    struct text path = {0}, fresh = {0};
    text_join(&path, directory);
    if (path.size && path.at[path.size - 1] != '/')
        text_put(&path, '/');
    for (int i = 0; i < NAME_BYTES; i++) {
        text_put(&path, "0123456789abcdef"[digest[i] >> 4]);
        text_put(&path, "0123456789abcdef"[digest[i] & 15]);
    }
    text_join(&fresh, &path);
    text_put(&fresh, '.');
    text_number(&fresh, getpid());
    text_say(&path, ".json");
    bool done = make_directories(directory) && write_whole(fresh.at, path.at, written) && settle(directory->at);
    const char *why = done ? NULL : strerror(errno);
    text_free(&path);
    text_free(&fresh);
    return why;
}

void write_down(const struct call *call, const struct text *reason) {
    const struct text *container = &call->environment[CONTAINER], *interface = &call->environment[INTERFACE];
    if (!container->size || !interface->size)
        fail_plainly(call->version, INVALID_ENVIRONMENT, "CNI_CONTAINERID, CNI_IFNAME missing", "DEL needs that");
    struct text network = network_text(call, "name", "");
    if (!network.size)
        fail_plainly(call->version, INVALID_NETWORK, "the network has no name", "");
    struct text directory = network_text(call, "notes", NOTES), written = text_of("{\"network\":");
    json_quote(&written, &network, FOR_AGENT);
    text_say(&written, ",\"container\":");
    json_quote(&written, container, FOR_AGENT);
    text_say(&written, ",\"interface\":");
    json_quote(&written, interface, FOR_AGENT);
    text_put(&written, '}');
    const char *why = put(&directory, &written);
    if (why) {
        struct text message = {0}, fix = text_of("start the agent, or make room on the disk");
        text_join(&message, reason);
        text_say(&message, ", and ");
        text_join(&message, &directory);
        text_say(&message, " cannot be written: ");
        text_say(&message, why);
        fail(call->version, IO_FAILURE, &message, &fix);
    }
    text_free(&network);
    text_free(&directory);
    text_free(&written);
}
