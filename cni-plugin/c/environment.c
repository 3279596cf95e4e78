/* The specification's variables.
 *
 * Law: names do not become others. What is no UTF-8 is refused in them, and elsewhere replaced byte by byte.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"

const char *const variables[VARIABLES] = {
    [COMMAND] = "CNI_COMMAND",  [CONTAINER] = "CNI_CONTAINERID", [NETNS] = "CNI_NETNS",
    [INTERFACE] = "CNI_IFNAME", [ARGUMENTS] = "CNI_ARGS",        [PLUGINS] = "CNI_PATH",
};

/* The next character of `at`; false for a byte of none, which then is the character. */
static bool take(const char **at, uint32_t *character) {
    size_t size = utf8_read(*at, strlen(*at), character);
    if (size && !half(*character)) {
        *at += size;
        return true;
    }
    *character = (uint8_t)*(*at)++;
    return false;
}

static bool readable(struct text *to, const char *value) {
    bool all = true;
    uint32_t character;
    text_say(to, "");
    while (*value) {
        bool whole = take(&value, &character);
        text_character(to, whole ? character : '?');
        all &= whole;
    }
    return all;
}

void read_environment(struct call *call) {
    for (enum variable variable = 0; variable < VARIABLES; variable++) {
        const char *value = getenv(variables[variable]);
        if (readable(&call->environment[variable], value ? value : ""))
            continue;
        if (variable == ARGUMENTS || variable == PLUGINS)
            continue;
        struct text message = text_of(variables[variable]);
        text_say(&message, " is no UTF-8");
        fail(call->version, INVALID_ENVIRONMENT, &message, &(struct text){0});
    }
}

void show(struct text *to, const char *value, size_t characters) {
    static const char marks[] = "\n\r\t", escapes[] = "nrt";
    struct text shown = {0};
    bool single = false, both = false;
    for (uint32_t character; *value && characters; characters--) {
        char said[16] = {0};
        bool whole = take(&value, &character);
        const char *mark = character < 0x20 ? strchr(marks, (int)character) : NULL;
        if (!whole)
            snprintf(said, sizeof said, "\\udc%02x", (unsigned)character);
        else if (mark || character == '\\')
            snprintf(said, sizeof said, "\\%c", mark ? escapes[mark - marks] : '\\');
        else if (character >= 0x20 && character < 0x7f)
            said[0] = (char)character;
        else
            snprintf(said, sizeof said, character < 0x100 ? "\\x%02x" : character < 0x10000 ? "\\u%04x" : "\\U%08x",
                     (unsigned)character);
        text_say(&shown, said);
        single |= character == '\'';
        both |= character == '"';
    }
    char quote = single && !both ? '"' : '\'';
    text_put(to, quote);
    for (size_t i = 0; i < shown.size; i++) {
        if (shown.at[i] == quote)
            text_put(to, '\\');
        text_put(to, shown.at[i]);
    }
    text_put(to, quote);
    text_free(&shown);
}
