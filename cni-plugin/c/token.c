/* The tokens of JSON, strictly.
 *
 * Law: no byte beyond the end is looked at but the zero behind it, at which strtod stops.
 */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static int broken(struct scan *scan, const char *fault) {
    scan->fault = fault;
    return BROKEN;
}

static char now(const struct scan *scan) {
    return scan->at < scan->end ? *scan->at : 0;
}

long json_hex(const char *at, const char *end) {
    long value = 0;
    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char digit = at[i];
        int low = digit >= '0' && digit <= '9'   ? digit - '0'
                  : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                  : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                 : -1;
        if (low < 0)
            return -1;
        value = value << 4 | low;
    }
    return value;
}

/* Behind the backslash. */
static bool escape(struct scan *scan) {
    char kind = now(scan);
    if (kind && strchr("\"\\/bfnrt", kind)) {
        scan->at++;
        return true;
    }
    long value = kind == 'u' ? json_hex(scan->at + 1, scan->end) : -1;
    if (value < 0)
        return broken(scan, "an escape that is none");
    scan->at += 5;
    if (scan->halves == WITH_HALVES || !half((uint32_t)value))
        return true;
    long other = scan->end - scan->at > 1 && !memcmp(scan->at, "\\u", 2) ? json_hex(scan->at + 2, scan->end) : -1;
    if (value >= 0xdc00 || other < 0xdc00 || other > 0xdfff)
        return broken(scan, "half a character");
    scan->at += 6;
    return true;
}

/* Behind the quote. */
static int text(struct scan *scan) {
    while (scan->at < scan->end) {
        uint32_t character;
        size_t size = utf8_read(scan->at, (size_t)(scan->end - scan->at), &character);
        if (!size || half(character))
            return broken(scan, "no UTF-8");
        if (character < 0x20)
            return broken(scan, "a control character in a text");
        scan->at += size;
        if (character == '"')
            return TEXT;
        if (character == '\\' && !escape(scan))
            return BROKEN;
    }
    return broken(scan, "a text that does not end");
}

static size_t digits(struct scan *scan) {
    const char *start = scan->at;
    while (now(scan) >= '0' && now(scan) <= '9')
        scan->at++;
    return (size_t)(scan->at - start);
}

static int number(struct scan *scan) {
    const char *start = scan->at;
    scan->at += now(scan) == '-';
    bool zero = now(scan) == '0';
    scan->at += zero;
    size_t whole = zero ? 1 : digits(scan);
    if (!whole)
        return broken(scan, "no number");
    const char *integer = scan->at;
    if (now(scan) == '.') {
        scan->at++;
        if (!digits(scan))
            return broken(scan, "no number");
    }
    if (now(scan) == 'e' || now(scan) == 'E') {
        scan->at++;
        scan->at += now(scan) == '+' || now(scan) == '-';
        if (!digits(scan))
            return broken(scan, "no number");
    }
    if (scan->at == integer)
        return whole > MAX_INTEGER_DIGITS ? broken(scan, "too many digits") : NUMBER;
    return isinf(strtod(start, NULL)) ? broken(scan, "a number that is infinite") : NUMBER;
}

static int word(struct scan *scan) {
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        size_t size = strlen(words[i]);
        if ((size_t)(scan->end - scan->at) >= size && !memcmp(scan->at, words[i], size)) {
            scan->at += size;
            return WORD;
        }
    }
    return broken(scan, "nothing of JSON");
}

int json_token(struct scan *scan, struct json *token) {
    while (now(scan) && strchr(" \t\r\n", now(scan)))
        scan->at++;
    if (scan->at == scan->end)
        return ENDED;
    const char *start = scan->at;
    char first = *start;
    int kind = first;
    if (first && strchr("{}[]:,", first))
        scan->at++;
    else if (first == '"')
        scan->at++, kind = text(scan);
    else if (first == '-' || (first >= '0' && first <= '9'))
        kind = number(scan);
    else
        kind = word(scan);
    *token = (struct json){start, (size_t)(scan->at - start)};
    return kind;
}
