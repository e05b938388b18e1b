/* SPDX-License-Identifier: ISC */
/*
 * fence: power-off of other nodes by fence agents (fence-agents' interface: options as lines on
 * standard input, an exit status), as fence.conf says. Agents are child processes of the loop;
 * nothing here blocks, each agent has a time limit, its output is kept up to a limit and given to
 * the log. A node counts as off only when every device of one level has switched it off without an
 * error and then says by itself that it is off. One allocation of fence_open; all in the loop's
 * thread.
 */
#ifndef CLUSTER_FENCE_H
#define CLUSTER_FENCE_H

#include <stdbool.h>
#include <uv.h>

#include "base/err.h"

struct fence;

/* Reads the file and its password files, once: errors name file and line. Blocks for that only. */
int fence_open(uv_loop_t *loop, const char *file, struct fence **out, struct err *e);
/* Has the file devices for this node? */
bool fence_knows(const struct fence *f, const char *node);

/* Once for each successful call. `ok`: it is off, confirmed; of a check: all of its devices answer.
 * `text`: for people and the log: which device said what; good during the call. */
typedef void fence_done(void *arg, bool ok, const char *text);

/* Switches a node off: levels in their order until one succeeds. -1 and no callback: the file does
 * not know it (ERR_NOT_FOUND), it is being switched off already (ERR_STATE), no memory. */
int fence_node(struct fence *f, const char *node, fence_done *done, void *arg, struct err *e);
/* A rehearsal: asks all of its devices whether it is on, changes nothing. */
int fence_check(struct fence *f, const char *node, fence_done *done, void *arg, struct err *e);
/* Longest time that fence_node may take, in ms; 0: not known. */
unsigned fence_longest_ms(const struct fence *f, const char *node);

/* Agents that run are killed, what they were to do is not told to anybody any more. */
void fence_stop(struct fence *f);
/* After fence_stop and after the loop has run its close callbacks. NULL inside is fine. */
void fence_close(struct fence **f);

#endif
