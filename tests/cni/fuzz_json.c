/* The plugin's JSON against broken texts, in its own process under sanitizers: fuzz_json SEED INPUTS
 *
 * An input is one of the texts below, changed. It stands in memory of its own size, so that no byte beside it is read.
 * What is read is written in both styles, and that is read and written again: it may not change any more.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static const char *const texts[] = {
    "{\"cniVersion\":\"1.0.0\",\"name\":\"pods\",\"socket\":\"/run/a\",\"ipam\":{\"routes\":[{\"dst\":\"10/8\"}]}}",
    "[1,-0,0.5,1e5,-1.25E-3,12345678901234567890,true,false,null,\"\",{},[]]",
    "{\"a\\u0061\":\"\\ud83d\\ude00\\u00e9\\n\\\"\",\"name\":1,\"na\\u006de\":\"\\ud800\"}",
    "\"\xc3\xa9\xe3\x81\x82\xf0\x9f\x98\x80\x7f\"",
    "{\"result\":{\"output\":{\"code\":7,\"msg\":\"\\ud83d\"},\"failed\":true},\"error\":{\"what\":\"w\"}}",
    " \t\r\n{ \"a\" : [ [ [ { } ] ] ] } \n",
};
static const char *const pieces[] = {
    "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\ud83d", "\\ude00", "\\u00", "-", "0", "1", ".", "e", "E+",
    "9e999", "true", "nul", "NaN", "\xc3", "\xed\xa0\x80", "\xf4\x90", "\xff", " ", "\n", "\x1f",
    "[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":",
};
enum { TEXTS = sizeof texts / sizeof *texts, PIECES = sizeof pieces / sizeof *pieces };
enum { MOST_CHANGES = 6, LONGEST = 2000 };

static uint64_t state;

static uint64_t chance(uint64_t below) { /* SplitMix64 */
    uint64_t drawn = state += 0x9e3779b97f4a7c15u;
    drawn = (drawn ^ drawn >> 30) * 0xbf58476d1ce4e5b9u;
    drawn = (drawn ^ drawn >> 27) * 0x94d049bb133111ebu;
    return (drawn ^ drawn >> 31) % below;
}

/* Takes some bytes out, and puts a piece or a byte in; the same piece many times now and then, so that it gets deep. */
static void change(struct text *text) {
    struct text after = {0};
    size_t from = chance(text->size + 1), to = from + chance(5);
    size_t times = chance(20) ? 1 : chance(100), piece = chance(PIECES);
    to = to > text->size ? text->size : to;
    text_add(&after, text->at, from);
    while (times-- && after.size < LONGEST) {
        if (times || chance(8))
            text_say(&after, pieces[piece]);
        else
            text_put(&after, (char)chance(256));
    }
    text_add(&after, text->at + to, text->size - to);
    text_free(text);
    *text = after;
}

static void must(bool held, const char *what) {
    if (held)
        return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static void look_into(struct json value) {
    static const char *const keys[] = {"name", "a", "result", "error", "socket", "aa", ""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct json member = json_member(value, keys[i]);
        bool inside = member.at > value.at && member.at + member.size < value.at + value.size;
        must(!member.at || inside, "a member is inside");
        json_true(member);
        if (!json_is(member, '"'))
            continue;
        struct text text = json_text(member);
        must(text.size <= member.size, "a text is no longer than what stands for it");
        text_free(&text);
    }
    json_true(value);
}

/* In a style, and once more. */
static void write_twice(struct json value, enum json_style style) {
    struct text once = {0}, twice = {0};
    struct json again;
    json_write(&once, value, style);
    must(!json_check(&once, WITH_HALVES, &again).what, "what was written is JSON");
    json_write(&twice, again, style);
    must(once.size == twice.size && !memcmp(once.at, twice.at, once.size), "what was written stays");
    text_free(&once);
    text_free(&twice);
}

static bool look_at(const struct text *text) {
    char *exact = malloc(text->size + 1);
    struct text kept = {exact, text->size, text->size + 1};
    struct json value;
    memcpy(exact, text->at ? text->at : "", text->size);
    exact[text->size] = 0;
    bool strict = !json_check(&kept, WITHOUT_HALVES, &value).what;
    bool read = !json_check(&kept, WITH_HALVES, &value).what;
    must(read || !strict, "halves forbid nothing");
    if (read) {
        look_into(value);
        write_twice(value, FOR_RUNTIME);
    }
    if (strict)
        write_twice(value, FOR_AGENT);
    free(exact);
    return read;
}

int main(int count, char **arguments) {
    long inputs = count > 2 ? atol(arguments[2]) : 0, read = 0;
    state = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    for (long i = 0; i < inputs; i++) {
        struct text text = text_of(texts[chance(TEXTS)]);
        for (uint64_t changes = chance(MOST_CHANGES); changes--;)
            change(&text);
        read += look_at(&text);
        text_free(&text);
    }
    printf("%ld\n", read);
}
