/* One invocation of the plugin: what a runtime asks, and how it is answered. The same in Python: ../tunrouter-cni. */

#ifndef TR_CALL_H
#define TR_CALL_H

#include "json.h"
#include "text.h"

enum { MAX_CONFIG = 1 << 20, MAX_ANSWER = 4 << 20 };

/* The specification's codes. */
enum {
    INVALID_ENVIRONMENT = 4,
    IO_FAILURE = 5,
    UNDECODABLE = 6,
    INVALID_NETWORK = 7,
    TRY_AGAIN = 11,
    NOT_AVAILABLE = 50,
};

enum variable { COMMAND, CONTAINER, NETNS, INTERFACE, ARGUMENTS, PLUGINS, VARIABLES };

struct verb {
    const char *name;
    int answer_ms; /* how long an agent may take */
    int away_ms;   /* and how long one that is being restarted is waited for */
    enum { FAILS, IS_NOTED, IS_NOT_READY } while_away;
};

struct call {
    const char *version; /* in which is answered */
    const struct verb *verb;
    struct json config; /* an object */
    struct text environment[VARIABLES];
};

/* --- answer.c ----------------------------------------------------------------------------------------------------- */

/* Says what ends with a line's end. */
void answer(const struct text *said);

/* Says an error and ends; `details` may be empty. */
_Noreturn void fail(const char *version, int code, const struct text *message, const struct text *details);
_Noreturn void fail_plainly(const char *version, int code, const char *message, const char *details);

/* What the network has under `key`, or else `otherwise`; who has something else there than text fails. */
struct text network_text(const struct call *call, const char *key, const char *otherwise);

/* --- environment.c ------------------------------------------------------------------------------------------------ */

extern const char *const variables[VARIABLES];

/* Reads all of them, empty where they are missing. Who would have another name after it was made readable fails. */
void read_environment(struct call *call);

/* As Python's ascii() shows the first characters of a variable. */
void show(struct text *to, const char *value, size_t characters);

/* --- agent.c ------------------------------------------------------------------------------------------------------ */

/* The agent gives no answer of the specification; `fix` is its own, or empty. */
struct away {
    struct text what, fix;
};

struct reply {
    struct text line;
    struct json output; /* what it wants printed, null for nothing */
    bool failed;
};

/* Asks, as patiently as the verb; false if it is away. */
bool ask_patiently(const struct call *call, struct reply *reply, struct away *away);

/* --- notes.c ------------------------------------------------------------------------------------------------------ */

/* What is to be deleted, durable and whole or not at all; who cannot write fails, `reason` first. */
void write_down(const struct call *call, const struct text *reason);

#endif
