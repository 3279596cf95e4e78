/* The agent: one line asked, one line answered, on its unix socket. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "call.h"

#define SOCKET "/run/tunrouter/tunrouter.sock"

enum { AGAIN_MS = 50, PART = 1 << 16 };

static long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

static bool is_away(struct away *away, const char *words, const struct text *path, const char *more, const char *why) {
    away->what = text_of(words);
    text_join(&away->what, path);
    text_say(&away->what, more);
    text_say(&away->what, why);
    away->fix = text_of("");
    return false;
}

/* --- the socket --------------------------------------------------------------------------------------------------- */

/* The descriptor; -1 with a reason in `why` if nobody answers. None, or a zero first, means the abstract ones. */
static int open_socket(const struct text *path, const char **why) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    bool abstract = !path->size || !path->at[0];
    if (path->size + !abstract > sizeof name.sun_path) {
        *why = "AF_UNIX path too long";
        return -1;
    }
    memcpy(name.sun_path, path->at, path->size);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path->size + !abstract);
    int opened = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (opened >= 0 && !connect(opened, (const struct sockaddr *)&name, size))
        return opened;
    *why = strerror(errno);
    if (opened >= 0)
        close(opened);
    return -1;
}

/* Whether `event` comes before `until`; otherwise errno says what did. At least a millisecond is waited. */
static bool comes(int socket, short event, long until) {
    struct pollfd waited = {.fd = socket, .events = event};
    int found;
    do {
        long left = until - now_ms();
        found = poll(&waited, 1, (int)(left > 1 ? left : 1));
    } while (found < 0 && errno == EINTR);
    if (!found)
        errno = ETIMEDOUT;
    return found > 0;
}

static bool transient(void) {
    return errno == EAGAIN || errno == EINTR;
}

static bool send_line(int socket, const struct text *line, long until) {
    for (size_t at = 0; at < line->size;) {
        if (!comes(socket, POLLOUT, until))
            return false;
        ssize_t sent = send(socket, line->at + at, line->size - at, MSG_NOSIGNAL);
        if (sent < 0 && !transient())
            return false;
        at += sent > 0 ? (size_t)sent : 0;
    }
    return true;
}

/* One line, or what came of it; false if that failed. */
static bool receive(int socket, struct text *line, long until) {
    while (line->size <= MAX_ANSWER && !(line->size && line->at[line->size - 1] == '\n')) {
        if (!comes(socket, POLLIN, until))
            return false;
        ssize_t got = recv(socket, text_room(line, PART), PART, 0);
        if (got < 0 && !transient())
            return false;
        if (!got)
            break;
        line->size += got > 0 ? (size_t)got : 0;
        line->at[line->size] = 0;
    }
    return true;
}

/* --- the conversation --------------------------------------------------------------------------------------------- */

static struct text line_of(const struct call *call, bool again) {
    struct text line = text_of("{\"version\":1,\"call\":{\"type\":\"cni\",\"environment\":{");
    for (int i = 0; i < VARIABLES; i++) {
        text_say(&line, i ? ",\"" : "\"");
        text_say(&line, variables[i]);
        text_say(&line, "\":");
        json_quote(&line, &call->environment[i], FOR_AGENT);
    }
    text_say(&line, "},\"config\":");
    json_write(&line, call->config, FOR_AGENT);
    text_say(&line, again ? ",\"again\":true}}\n" : ",\"again\":false}}\n");
    return line;
}

/* Whether the answer is one of the specification, or at least says why not. */
static bool understand(struct reply *reply, const struct text *path, struct away *away) {
    struct json said, empty = {0};
    if (reply->line.size > MAX_ANSWER || !reply->line.size || json_check(&reply->line, WITH_HALVES, &said).what)
        said = empty;
    struct json error = json_member(said, "error"), result = json_member(said, "result");
    struct json what = json_member(error, "what"), fix = json_member(error, "fix");
    if (json_is(what, '"')) {
        away->what = json_text(what);
        away->fix = json_is(fix, '"') ? json_text(fix) : text_of("");
        return false;
    }
    struct json output = json_member(result, "output");
    if (!json_is(result, '{') || (output.at && !json_is(output, '{') && !json_is(output, 'n')))
        return is_away(away, "the agent on ", path, " broke off", "");
    reply->output = json_is(output, '{') ? output : empty;
    reply->failed = json_true(json_member(result, "failed"));
    return true;
}

static bool converse(const struct call *call, int socket, const struct text *line, struct reply *reply) {
    return send_line(socket, line, now_ms() + call->verb->answer_ms) &&
           receive(socket, &reply->line, now_ms() + call->verb->answer_ms);
}

static bool ask(const struct call *call, const struct text *path, const struct text *line, struct reply *reply,
                struct away *away) {
    const char *why;
    int socket = open_socket(path, &why);
    if (socket < 0)
        return is_away(away, "no agent answers on ", path, ": ", why);
    bool answered = converse(call, socket, line, reply);
    char problem[128] = "timed out";
    if (!answered && errno != ETIMEDOUT)
        snprintf(problem, sizeof problem, "[Errno %d] %s", errno, strerror(errno));
    close(socket);
    if (!answered)
        return is_away(away, "the agent on ", path, " does not answer: ", problem);
    return understand(reply, path, away);
}

bool ask_patiently(const struct call *call, struct reply *reply, struct away *away) {
    long until = now_ms() + call->verb->away_ms;
    struct text path = network_text(call, "socket", SOCKET), line = line_of(call, false);
    bool answered = ask(call, &path, &line, reply, away);
    if (!answered && now_ms() < until) {
        text_free(&line);
        line = line_of(call, true);
    }
    while (!answered && now_ms() < until) {
        text_free(&away->what);
        text_free(&away->fix);
        text_free(&reply->line);
        nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000L}, NULL);
        answered = ask(call, &path, &line, reply, away);
    }
    text_free(&line);
    text_free(&path);
    return answered;
}
