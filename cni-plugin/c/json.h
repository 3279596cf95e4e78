/* JSON: texts are checked once as a whole, and then read and written where they stand.
 *
 * Law: as strict as everybody who reads it later. UTF-8 alone, no number that is infinite or none, no integer that
 * Python would not read, no halves of characters in what goes to the agent; and a bound on the depth instead of a
 * recursion. Of keys of one name the last counts.
 */

#ifndef TR_JSON_H
#define TR_JSON_H

#include <stdbool.h>

#include "text.h"

enum { MAX_DEPTH = 512, MAX_INTEGER_DIGITS = 4300 };

/* A value in a text that was checked, without the space around it; `at` is null for one that is not there. */
struct json {
    const char *at;
    size_t size;
};

struct json_fault {
    const char *what; /* null if there is none */
    size_t at;
};

enum json_halves { WITHOUT_HALVES, WITH_HALVES };

/* Its only value goes into `value`. */
struct json_fault json_check(const struct text *text, enum json_halves halves, struct json *value);

/* The value of the last such key; what is no object has none. */
struct json json_member(struct json object, const char *key);

/* Whether it is there and begins like that: { for an object, " for a text, n for null. */
static inline bool json_is(struct json value, char first) {
    return value.at && *value.at == first;
}

/* Python's notion of it: something, and not zero. */
bool json_true(struct json value);

/* The characters of a text, without quotes and escapes. */
struct text json_text(struct json text);

/* As Python's json.dumps writes: for the agent short and in UTF-8, for a runtime in ASCII. Numbers stay as they came. */
enum json_style { FOR_AGENT, FOR_RUNTIME };
void json_write(struct text *to, struct json value, enum json_style style);
void json_quote(struct text *to, const struct text *characters, enum json_style style);

/* --- between the files of JSON ------------------------------------------------------------------------------------ */

/* Kinds of tokens; marks are their own kind. */
enum { BROKEN = 0, ENDED = -1, TEXT = '"', NUMBER = '0', WORD = 'w' };

struct scan {
    const char *at, *end;
    const char *start;
    enum json_halves halves;
    const char *fault;
};

/* The next token goes into `token`. */
int json_token(struct scan *scan, struct json *token);

static inline struct scan scan_of(struct json checked) {
    return (struct scan){.at = checked.at, .end = checked.at + checked.size, .start = checked.at,
                         .halves = WITH_HALVES};
}

/* The four hexadecimal digits at `at`, if there are so many before `end`; otherwise a negative number. */
long json_hex(const char *at, const char *end);

#endif
