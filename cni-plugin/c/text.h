/* Bytes that grow: what came in, and what is put together to be said. Text is UTF-8.
 *
 * Law: a zero that is not counted stands behind them, so that libc may read them; zeros may stand in them. Memory that
 * cannot be had ends the program with an answer, so nobody asks whether it was there.
 */

#ifndef TR_TEXT_H
#define TR_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
    char *at; /* null while nothing was added */
    size_t size, room;
};

/* Makes room for so many bytes more, behind which they may be put. */
char *text_room(struct text *text, size_t more);
void text_add(struct text *to, const void *from, size_t size);
void text_put(struct text *to, char byte);
void text_say(struct text *to, const char *words);
void text_join(struct text *to, const struct text *from);
void text_character(struct text *to, uint32_t character);
void text_number(struct text *to, long number);
struct text text_of(const char *words);
void text_free(struct text *text);

/* The character at `at` goes into `character`. Returns how many bytes it has, 0 for what is no UTF-8. Halves of
 * characters, which are none, are told by `half` alone: an agent's words may have them as escapes. */
size_t utf8_read(const char *at, size_t left, uint32_t *character);

static inline int half(uint32_t character) {
    return character >= 0xd800 && character < 0xe000;
}

#endif
