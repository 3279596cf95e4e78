/* tunrouter-cni: what a container runtime runs for each pod. It hands the question to the agent, which does the work.
 *
 *     CNI_* and stdin ──> one JSON line on the agent's socket ──> its answer on stdout, an error's exit code 1
 *
 * Law (CNI specification 1.1): DEL succeeds also while the agent is away. It then leaves a note on disk, which the
 * agent works off; who cannot write that down fails, so that the runtime comes again. Everything else says in the
 * specification's codes what to do. Pods wait for this, so it is one static file; ../tunrouter-cni is the same in
 * Python, word for word but for what is wrong with broken JSON, and tests compare them.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"

enum { PART = 1 << 16, MAX_SHOWN = 20, AWAY_MS = 10000 };

#define FIX "see: systemctl status tunrouter, or start it with: tunrouter up"

static const char *const versions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
enum { VERSIONS = sizeof versions / sizeof *versions };

static const struct verb verbs[] = {
    {"ADD", 35000, AWAY_MS, FAILS}, {"DEL", 10000, 0, IS_NOTED},       {"CHECK", 10000, 0, FAILS},
    {"GC", 60000, 0, FAILS},        {"STATUS", 5000, 0, IS_NOT_READY},
};

/* --- what comes in ------------------------------------------------------------------------------------------------ */

/* No more of it than one byte too many. */
static struct text read_input(const char *version) {
    struct text input = text_of("");
    while (input.size <= MAX_CONFIG) {
        size_t most = MAX_CONFIG + 1 - input.size;
        ssize_t got = read(STDIN_FILENO, text_room(&input, PART), most < PART ? most : PART);
        if (got < 0 && errno != EINTR) {
            struct text message = text_of("stdin cannot be read: ");
            text_say(&message, strerror(errno));
            fail(version, IO_FAILURE, &message, &(struct text){0});
        }
        if (!got)
            break;
        input.size += got > 0 ? (size_t)got : 0;
        input.at[input.size] = 0;
    }
    return input;
}

static bool is_space(const struct text *input) {
    size_t at = 0;
    while (at < input->size && input->at[at] && strchr(" \t\n\r\v\f", input->at[at]))
        at++;
    return at == input->size;
}

/* The network configuration. */
static struct json decode(const char *version, const struct text *input) {
    if (input->size > MAX_CONFIG)
        fail_plainly(version, UNDECODABLE, "the network configuration has more than 1024 KiB", "");
    struct json config;
    struct json_fault fault = json_check(input, WITHOUT_HALVES, &config);
    if (fault.what) {
        struct text message = text_of("the network configuration is no JSON: ");
        text_say(&message, fault.what);
        text_say(&message, " at byte ");
        text_number(&message, (long)fault.at);
        fail(version, UNDECODABLE, &message, &(struct text){0});
    }
    if (!json_is(config, '{'))
        fail_plainly(version, UNDECODABLE, "the network configuration is no JSON object", "");
    return config;
}

/* The one that was spoken, if it is ours. */
static const char *version_of(struct json config) {
    struct json value = json_member(config, "cniVersion");
    struct text spoken = json_is(value, '"') ? json_text(value) : text_of("");
    const char *found = versions[VERSIONS - 1];
    for (int i = 0; i < VERSIONS; i++)
        if (spoken.size == strlen(versions[i]) && !memcmp(spoken.at, versions[i], spoken.size))
            found = versions[i];
    text_free(&spoken);
    return found;
}

/* --- what goes out ------------------------------------------------------------------------------------------------ */

static void say_versions(const struct call *call) {
    struct text said = text_of("{\"cniVersion\": ");
    struct json asked = json_member(call->config, "cniVersion");
    struct text newest = text_of(call->version);
    if (asked.at)
        json_write(&said, asked, FOR_RUNTIME);
    else
        json_quote(&said, &newest, FOR_RUNTIME);
    text_say(&said, ", \"supportedVersions\": [");
    for (int i = 0; i < VERSIONS; i++) {
        text_say(&said, i ? ", \"" : "\"");
        text_say(&said, versions[i]);
        text_put(&said, '"');
    }
    text_say(&said, "]}\n");
    answer(&said);
    text_free(&newest);
    text_free(&said);
}

/* The next step is the agent's, or what the network names for its cluster. */
static _Noreturn void fail_away(const struct call *call, const struct away *away) {
    int code = call->verb->while_away == FAILS ? TRY_AGAIN : NOT_AVAILABLE;
    struct text fix = away->fix.size ? away->fix : network_text(call, "fix", FIX);
    fail(call->version, code, &away->what, &fix);
}

/* The exit code, after the agent's own words. */
static int carry_out(struct call *call) {
    struct reply reply = {0};
    struct away away = {0};
    read_environment(call);
    if (!ask_patiently(call, &reply, &away)) {
        if (call->verb->while_away != IS_NOTED)
            fail_away(call, &away);
        write_down(call, &away.what);
    } else if (reply.output.at) {
        struct text said = {0};
        json_write(&said, reply.output, FOR_RUNTIME);
        text_put(&said, '\n');
        answer(&said);
        text_free(&said);
    }
    text_free(&away.what);
    text_free(&away.fix);
    text_free(&reply.line);
    for (int i = 0; i < VARIABLES; i++)
        text_free(&call->environment[i]);
    return reply.failed;
}

static int obey(struct call *call, const char *command) {
    if (!strcmp(command, "VERSION")) {
        say_versions(call);
        return 0;
    }
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        call->verb = &verbs[i];
        if (!strcmp(command, verbs[i].name))
            return carry_out(call);
    }
    struct text message = text_of("CNI_COMMAND ");
    show(&message, command, MAX_SHOWN);
    text_say(&message, " is no verb");
    fail(call->version, INVALID_ENVIRONMENT, &message, &(struct text){0});
}

int main(void) {
    struct call call = {.version = versions[VERSIONS - 1]};
    /* Who does not listen, and a file that may not grow, are heard of by errno. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    struct text input = read_input(call.version);
    const char *command = getenv("CNI_COMMAND");
    command = command ? command : "";
    /* Nothing has to come with VERSION. */
    if (strcmp(command, "VERSION") || !is_space(&input))
        call.config = decode(call.version, &input);
    call.version = version_of(call.config);
    int code = obey(&call, command);
    text_free(&input);
    return code;
}
