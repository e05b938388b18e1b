/* SPDX-License-Identifier: ISC */
/* Commands that wait for the log's answer. Whoever asked is told once; an answer that comes after
 * its time is up finds nobody and is dropped. No answer comes before cluster_ask has returned. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/node_internal.h"

#define ASKS_MAX 4096u

static void give(struct cluster *c, struct ask **at, const Migrd__HaAnswer *answer)
{
    struct ask *a = *at;

    *at = a->next;
    c->n_asks--;
    a->done(a->arg, answer);
    free(a);
}

static struct ask **find(struct cluster *c, uint64_t id)
{
    struct ask **at = &c->asks;

    while (*at != NULL && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

#define NAMED_LEN 512

/* The core knows nodes by their numbers, people by their names. */
static void name_nodes(struct cluster *c, const char *text, char *out, size_t size)
{
    size_t n = 0;

    while (*text != '\0' && n + 1 < size) {
        const char *name = "";
        char *end = NULL;

        if (strncmp(text, "node ", 5) == 0 && text[5] >= '1' && text[5] <= '9')
            name = cluster_node_name(c, (uint32_t)strtoul(text + 5, &end, 10));
        if (name[0] == '\0') {
            out[n++] = *text++;
            continue;
        }
        snprintf(out + n, size - n, "%s", name);
        n += strlen(out + n);
        text = end;
    }
    out[n] = '\0';
}

void node_answered(struct cluster *c, uint64_t id, const Migrd__HaAnswer *answer)
{
    struct ask **at = find(c, id);
    Migrd__HaAnswer named = *answer;
    char text[NAMED_LEN];

    if (*at == NULL)
        return;
    name_nodes(c, answer->text, text, sizeof text);
    named.text = text;
    give(c, at, &named);
}

static void give_later(struct cluster *c, struct ask **at)
{
    Migrd__HaAnswer answer = MIGRD__HA_ANSWER__INIT;

    answer.id = (*at)->id;
    answer.text = (char *)DECIDED_LATER;
    give(c, at, &answer);
}

/* The list may change in a callback: from the beginning after each. */
void node_ask_time(struct cluster *c, uint64_t now)
{
    struct ask **at = &c->asks;

    while (*at != NULL) {
        if (now >= (*at)->until) {
            give_later(c, at);
            at = &c->asks;
        } else {
            at = &(*at)->next;
        }
    }
}

/* Who asks again in its callback asks the next core. */
void node_ask_forget(struct cluster *c, bool closing)
{
    struct ask *gone = c->asks;

    c->asks = NULL;
    while (gone != NULL) {
        if (closing)
            give(c, &gone, NULL);
        else
            give_later(c, &gone);
    }
}

int cluster_ask(struct cluster *c, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e)
{
    Migrd__HaCommand copy = *command;
    struct ask *a;

    if (c->stopped)
        return err_set(e, ERR_STATE, "migrd is being stopped");
    if (c->core == NULL)
        return err_set(e, ERR_STATE, "this host is not in the cluster: %s", c->why);
    if (c->n_asks >= ASKS_MAX)
        return err_set(e, ERR_RESOURCE, "%u commands wait for the cluster already", c->n_asks);
    a = malloc(sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "no memory to ask the cluster");
    *a = (struct ask){ .next = c->asks, .id = ++c->next_ask, .done = done, .arg = arg };
    a->until = within_ms > 0 ? clock_boot_ms() + within_ms : UINT64_MAX;
    copy.id = a->id;
    if (!node_wait_feed(c, &(struct ha_event){ .type = HA_EV_COMMAND, .u.command = &copy })) {
        free(a);
        return err_set(e, ERR_MEMORY, "no memory to ask the cluster");
    }
    c->asks = a;
    c->n_asks++;
    return 0;
}
