/* What a runtime hears: one JSON object on stdout, in ASCII. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "call.h"

void answer(const struct text *said) {
    for (size_t at = 0; at < said->size;) {
        ssize_t written = write(STDOUT_FILENO, said->at + at, said->size - at);
        if (written < 0 && errno != EINTR)
            exit(1);
        at += written > 0 ? (size_t)written : 0;
    }
}

_Noreturn void fail(const char *version, int code, const struct text *message, const struct text *details) {
    struct text said = text_of("{\"cniVersion\": \"");
    text_say(&said, version);
    text_say(&said, "\", \"code\": ");
    text_number(&said, code);
    text_say(&said, ", \"msg\": ");
    json_quote(&said, message, FOR_RUNTIME);
    if (details->size) {
        text_say(&said, ", \"details\": ");
        json_quote(&said, details, FOR_RUNTIME);
    }
    text_say(&said, "}\n");
    answer(&said);
    exit(1);
}

_Noreturn void fail_plainly(const char *version, int code, const char *message, const char *details) {
    struct text what = text_of(message), fix = text_of(details);
    fail(version, code, &what, &fix);
}

struct text network_text(const struct call *call, const char *key, const char *otherwise) {
    struct json value = json_member(call->config, key);
    if (!value.at)
        return text_of(otherwise);
    if (json_is(value, '"'))
        return json_text(value);
    struct text message = text_of(key);
    text_say(&message, " is no text");
    fail(call->version, INVALID_NETWORK, &message, &(struct text){0});
}
