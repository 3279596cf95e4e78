/* Checked JSON, read and written where it stands: keys, texts, and the whole as Python's json.dumps writes it. */

#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* The value that begins with this token, which was taken already. */
static struct json rest_of(struct scan *scan, struct json token) {
    struct json inner;
    size_t depth = *token.at == '{' || *token.at == '[';
    while (depth) {
        int kind = json_token(scan, &inner);
        if (kind == ENDED)
            break;
        depth += kind == '{' || kind == '[';
        depth -= kind == '}' || kind == ']';
    }
    return (struct json){token.at, (size_t)(scan->at - token.at)};
}

static bool named(struct json token, const char *key) {
    size_t size = strlen(key);
    if (!memchr(token.at, '\\', token.size))
        return token.size == size + 2 && !memcmp(token.at + 1, key, size);
    struct text name = json_text(token);
    bool same = name.size == size && !memcmp(name.at, key, size);
    text_free(&name);
    return same;
}

struct json json_member(struct json object, const char *key) {
    struct json found = {0}, token;
    if (!json_is(object, '{'))
        return found;
    struct scan scan = scan_of(object);
    json_token(&scan, &token);
    while (json_token(&scan, &token) == TEXT) {
        bool ours = named(token, key);
        json_token(&scan, &token);
        json_token(&scan, &token);
        struct json value = rest_of(&scan, token);
        if (ours)
            found = value;
        json_token(&scan, &token);
    }
    return found;
}

bool json_true(struct json value) {
    if (!value.at || json_is(value, 'f') || json_is(value, 'n'))
        return false;
    if (json_is(value, '"'))
        return value.size > 2;
    if (json_is(value, '{') || json_is(value, '[')) {
        struct scan scan = scan_of(value);
        struct json token;
        json_token(&scan, &token);
        int next = json_token(&scan, &token);
        return next != '}' && next != ']';
    }
    return json_is(value, 't') || strtod(value.at, NULL) != 0;
}

/* The character at `at`, in a text that was checked; `at` goes on behind it. */
static uint32_t take(const char **at, const char *end) {
    uint32_t character = (uint8_t)**at;
    if (character != '\\') {
        *at += utf8_read(*at, (size_t)(end - *at), &character);
        return character;
    }
    static const char escapes[] = "bfnrt", meant[] = "\b\f\n\r\t";
    char kind = (*at)[1];
    *at += 2;
    if (kind != 'u') {
        const char *found = strchr(escapes, kind);
        return (uint8_t)(found ? meant[found - escapes] : kind);
    }
    character = (uint32_t)json_hex(*at, end);
    *at += 4;
    if (character >= 0xd800 && character < 0xdc00 && end - *at >= 6 && !memcmp(*at, "\\u", 2)) {
        long other = json_hex(*at + 2, end);
        if (other >= 0xdc00 && other < 0xe000) {
            *at += 6;
            return 0x10000 + ((character - 0xd800) << 10 | (uint32_t)(other - 0xdc00));
        }
    }
    return character;
}

struct text json_text(struct json token) {
    struct text text = {0};
    text_room(&text, token.size);
    text_say(&text, "");
    const char *at = token.at + 1, *end = token.at + token.size - 1;
    while (at < end)
        text_character(&text, take(&at, end));
    return text;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void put(struct text *to, uint32_t character, enum json_style style) {
    static const char marks[] = "\"\\\n\r\t\f\b", escapes[] = "\"\\nrtfb";
    const char *found = character && character < 0x80 ? strchr(marks, (int)character) : NULL;
    char said[16];
    if (found) {
        snprintf(said, sizeof said, "\\%c", escapes[found - marks]);
    } else if (character >= 0x20 && (character < 0x7f || style == FOR_AGENT)) {
        text_character(to, character);
        return;
    } else if (character < 0x10000) {
        snprintf(said, sizeof said, "\\u%04x", (unsigned)character);
    } else {
        character -= 0x10000;
        snprintf(said, sizeof said, "\\u%04x\\u%04x", 0xd800u | character >> 10, 0xdc00u | (character & 0x3ff));
    }
    text_say(to, said);
}

void json_quote(struct text *to, const struct text *characters, enum json_style style) {
    text_put(to, '"');
    for (size_t at = 0; at < characters->size;) {
        uint32_t character = 0xfffd;
        size_t size = utf8_read(characters->at + at, characters->size - at, &character);
        put(to, character, style);
        at += size ? size : 1;
    }
    text_put(to, '"');
}

void json_write(struct text *to, struct json value, enum json_style style) {
    struct scan scan = scan_of(value);
    struct json token;
    for (int kind; (kind = json_token(&scan, &token)) != ENDED && kind != BROKEN;) {
        if (kind == TEXT) {
            const char *at = token.at + 1, *end = token.at + token.size - 1;
            text_put(to, '"');
            while (at < end)
                put(to, take(&at, end), style);
            text_put(to, '"');
        } else {
            text_add(to, token.at, token.size);
        }
        if ((kind == ',' || kind == ':') && style == FOR_RUNTIME)
            text_put(to, ' ');
    }
}
