/* Bytes that grow, and UTF-8. */

#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_ROOM = 256 };

_Noreturn static void no_memory(void) {
    static const char said[] = "{\"cniVersion\": \"1.1.0\", \"code\": 5, \"msg\": \"out of memory\"}\n";
    _exit(write(STDOUT_FILENO, said, sizeof said - 1) < 0 ? 2 : 1);
}

char *text_room(struct text *text, size_t more) {
    size_t wanted = text->size + more + 1;
    if (!text->at || wanted > text->room) {
        size_t room = wanted < FIRST_ROOM ? FIRST_ROOM : wanted + wanted / 2;
        char *at = realloc(text->at, room);
        if (!at)
            no_memory();
        text->at = at;
        text->room = room;
    }
    return text->at + text->size;
}

void text_add(struct text *to, const void *from, size_t size) {
    char *at = text_room(to, size);
    if (size)
        memcpy(at, from, size);
    at[size] = 0;
    to->size += size;
}

void text_put(struct text *to, char byte) {
    text_add(to, &byte, 1);
}

void text_say(struct text *to, const char *words) {
    text_add(to, words, strlen(words));
}

void text_join(struct text *to, const struct text *from) {
    text_add(to, from->at, from->size);
}

void text_number(struct text *to, long number) {
    char digits[24];
    text_add(to, digits, (size_t)snprintf(digits, sizeof digits, "%ld", number));
}

struct text text_of(const char *words) {
    struct text text = {0};
    text_say(&text, words);
    return text;
}

void text_free(struct text *text) {
    free(text->at);
    *text = (struct text){0};
}

void text_character(struct text *to, uint32_t character) {
    uint32_t more = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
    text_put(to, (char)(first[more] | character >> 6 * more));
    while (more--)
        text_put(to, (char)(0x80 | (character >> 6 * more & 0x3f)));
}

size_t utf8_read(const char *at, size_t left, uint32_t *character) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint8_t first = left ? (uint8_t)*at : 0xff;
    if (first < 0x80) {
        *character = first;
        return 1;
    }
    size_t more = first < 0xc0 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf8 ? 3 : 0;
    if (!more || more >= left)
        return 0;
    uint32_t found = first & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        found = found << 6 | (at[i] & 0x3f);
    }
    *character = found;
    return found < least[more] || found > 0x10ffff ? 0 : more + 1;
}
