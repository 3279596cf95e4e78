/* Whether a text is JSON: the grammar, with a stack of its own. */

#include "json.h"

struct grammar {
    enum { VALUE, FIRST_VALUE, KEY, FIRST_KEY, COLON, AFTER } expects;
    size_t depth;
    char open[MAX_DEPTH]; /* { and [ */
};

static const char *opened(struct grammar *grammar, int token) {
    if (grammar->depth == MAX_DEPTH)
        return "too deep";
    grammar->open[grammar->depth++] = (char)token;
    grammar->expects = token == '{' ? FIRST_KEY : FIRST_VALUE;
    return NULL;
}

static const char *closed(struct grammar *grammar) {
    grammar->depth--;
    grammar->expects = AFTER;
    return NULL;
}

static const char *value(struct grammar *grammar, int token) {
    if (token == '{' || token == '[')
        return opened(grammar, token);
    if (token != TEXT && token != NUMBER && token != WORD)
        return "no value";
    grammar->expects = AFTER;
    return NULL;
}

/* Behind a value of an object or a list. */
static const char *after(struct grammar *grammar, int token) {
    if (!grammar->depth)
        return "more than one value";
    char open = grammar->open[grammar->depth - 1];
    if (token == (open == '{' ? '}' : ']'))
        return closed(grammar);
    grammar->expects = open == '{' ? KEY : VALUE;
    return token == ',' ? NULL : "no comma";
}

/* What is wrong with this token here. */
static const char *step(struct grammar *grammar, int token) {
    switch (grammar->expects) {
    case FIRST_KEY:
        if (token == '}')
            return closed(grammar);
        /* fall through */
    case KEY:
        grammar->expects = COLON;
        return token == TEXT ? NULL : "no key";
    case COLON:
        grammar->expects = VALUE;
        return token == ':' ? NULL : "no colon";
    case FIRST_VALUE:
        if (token == ']')
            return closed(grammar);
        /* fall through */
    case VALUE:
        return value(grammar, token);
    default:
        return after(grammar, token);
    }
}

struct json_fault json_check(const struct text *text, enum json_halves halves, struct json *whole) {
    struct scan scan = {.at = text->at, .end = text->at + text->size, .start = text->at, .halves = halves};
    struct grammar grammar = {.expects = VALUE};
    struct json token = {0};
    *whole = (struct json){0};
    for (;;) {
        int kind = json_token(&scan, &token);
        if (kind == ENDED && grammar.expects == AFTER && !grammar.depth)
            return (struct json_fault){0};
        const char *fault = kind == BROKEN ? scan.fault : kind == ENDED ? "it ends too early" : step(&grammar, kind);
        if (fault)
            return (struct json_fault){fault, (size_t)(scan.at - scan.start)};
        if (!whole->at)
            whole->at = token.at;
        whole->size = (size_t)(scan.at - whole->at);
    }
}
