/* SPDX-License-Identifier: ISC */
/*
 * tool: what xm and migctl share: a table of subcommands, global options, calls that
 * report their errors, exit codes (0 fine, 1 failed, 2 wrong usage). Errors go to stderr
 * as "Error: ...". A subcommand gets argv[0] = its name and uses getopt_long; `optind` is
 * reset for it.
 */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/err.h"
#include "base/paths.h"
#include "tools/client.h"

#define TOOL_OK 0
#define TOOL_FAILED 1
#define TOOL_USAGE 2
#define TOOL_WOULD_NOT 3 /* a dry run: the migration would not converge */

#define TOOL_SHORT_MS 20000 /* most requests: questions, small actions */
#define TOOL_LONG_MS 120000 /* starting, stopping, saving */

struct tool;

struct tool_cmd {
    const char *name;
    const char *args; /* after the name in the usage line */
    const char *help; /* one line; NULL: not listed */
    int (*run)(struct tool *t, int argc, char **argv);
    const char *options; /* further lines of the help, or NULL */
    bool common;         /* listed in the short help */
};

struct tool {
    const char *program;
    const char *about;           /* one line for the help */
    const char *footer;          /* last line of the help */
    const struct tool_cmd *cmds; /* ends with a NULL name */
    const struct tool_cmd *cmd;  /* the one that runs */
    struct paths paths;
    struct client *client; /* opened at first use */
};

/* Global options, then the subcommand. Returns the exit code. */
int tool_run(struct tool *t, int argc, char **argv);

/* Prints "Error: ..." and returns TOOL_FAILED. */
int tool_fail(const struct err *e);
int tool_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Prints "Error: ..." and the subcommand's usage; returns TOOL_USAGE. NULL: the usage alone, for
 * a wrong option that getopt has complained of. */
int tool_usage(struct tool *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The subcommand's help on stdout; returns TOOL_OK. */
int tool_cmd_help(const struct tool *t, const struct tool_cmd *cmd);
const struct tool_cmd *tool_find(const struct tool *t, const char *name);
/* All subcommands, or the common ones. */
void tool_help(const struct tool *t, bool all, FILE *to);

/* A connected client, NULL after having said why not. */
struct client *tool_client(struct tool *t);

/* The final reply, NULL after having printed the error. Free with tool_free. */
Migrd__Reply *tool_call(struct tool *t, Migrd__Request *rq, unsigned timeout_ms);
/* The same for a request whose answer nobody reads: an exit code. */
int tool_do(struct tool *t, Migrd__Request *rq, unsigned timeout_ms);
void tool_free(Migrd__Reply **r);

/* The domain's record by name, uuid or id; a reply with domains[0]. */
Migrd__Reply *tool_domain(struct tool *t, const char *which);
/* Sorted: those that run by id, then the others by name. */
Migrd__Reply *tool_domains(struct tool *t, bool all);

/* Prints a message as indented JSON. */
int tool_json(const ProtobufCMessage *m);
/* Takes the reference. */
int tool_print_json(json_t *j);

/* Checks the number of words after the options (optind): 0, or TOOL_USAGE with the error said. */
int tool_words(struct tool *t, int argc, int least, int most);

/* argv[1] is one of `subs`, whose names are two words: "ha add". It becomes t->cmd and runs, with
 * argv[0] = its second word. */
int tool_sub(struct tool *t, const struct tool_cmd *subs, int argc, char **argv);

/* Follows getopt's -h in every subcommand: true if `argv` asks for help and it was printed. */
bool tool_asked_help(struct tool *t, int argc, char **argv);

#endif
