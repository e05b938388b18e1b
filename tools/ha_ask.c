/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/ha_ask.h"

#include "tools/ha_words.h"

#define WAIT_S 30      /* migrd's own limit where nothing is given */
#define WAIT_MORE_S 10 /* for migrd to say that it is over */
#define SAY_LEN 500

void ha_ask_init(struct ha_ask *a, Migrd__HaCommandKind kind)
{
    *a = (struct ha_ask){ .force = false };
    migrd__ha_request__init(&a->rq);
    migrd__ha_command__init(&a->command);
    a->command.kind = kind;
    a->rq.command = &a->command;
}

/* The answer; NULL after having said why not. */
static Migrd__Reply *ask(struct tool *t, struct ha_ask *a, bool dry_run)
{
    unsigned wait_s = a->rq.wait_s != 0 ? a->rq.wait_s : WAIT_S;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    a->command.dry_run = dry_run;
    a->command.force = a->force;
    CLIENT_BODY(rq, HA, ha, &a->rq);
    r = tool_call(t, &rq, (wait_s + WAIT_MORE_S) * 1000);
    if (r != NULL && r->ha_answer == NULL) {
        tool_error("migrd's answer is none to this command; is the tool newer?");
        tool_free(&r);
    }
    return r;
}

/* The warning with names; names cost a question, which is asked only where there is a warning. */
static void print_warning(struct tool *t, const char *what, const char *text)
{
    Migrd__Reply *r = tool_ha(t);
    char named[SAY_LEN];

    if (r != NULL)
        text = ha_say(named, sizeof named, r->ha, text);
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", what, text);
    tool_free(&r);
}

int ha_ask_now(struct tool *t, struct ha_ask *a)
{
    Migrd__Reply *r = ask(t, a, false);

    if (r == NULL)
        return TOOL_FAILED;
    if (r->ha_answer->warning[0] != '\0')
        print_warning(t, "Warning", r->ha_answer->warning);
    tool_free(&r);
    return TOOL_OK;
}

int ha_ask_carefully(struct tool *t, struct ha_ask *a)
{
    Migrd__Reply *r;
    bool breaks;

    if (a->force && !a->dry_run)
        return ha_ask_now(t, a);
    r = ask(t, a, true);
    if (r == NULL)
        return TOOL_FAILED;
    breaks = r->ha_answer->warning[0] != '\0';
    if (breaks)
        print_warning(t, a->dry_run ? "Warning" : "Error", r->ha_answer->warning);
    tool_free(&r);
    if (a->dry_run) {
        puts(breaks ? "It would be done with --force." : "It would be done.");
        return breaks ? TOOL_WOULD_NOT : TOOL_OK;
    }
    if (breaks) {
        fputs("(--force does it all the same; `migctl ha what-if NODE` shows the plan.)\n", stderr);
        return TOOL_FAILED;
    }
    return ha_ask_now(t, a);
}
