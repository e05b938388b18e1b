/* SPDX-License-Identifier: ISC */
/*
 * ha_ask: a command for the cluster's log, from migctl ha and migctl node. A struct of borrowed
 * words; asking prints what went wrong and returns an exit code.
 */
#ifndef TOOLS_HA_ASK_H
#define TOOLS_HA_ASK_H

#include "tools/tool.h"

struct ha_ask {
    Migrd__HaRequest rq;
    Migrd__HaCommand command;
    bool force;   /* though fewer losses would be survived */
    bool dry_run; /* only say what would be */
};

/* `a` stays where it is: it points to itself. */
void ha_ask_init(struct ha_ask *a, Migrd__HaCommandKind kind);
/* Waits for the decision; the answer's warning goes to stderr. */
int ha_ask_now(struct tool *t, struct ha_ask *a);
/* First without effect: TOOL_FAILED if one more lost node would then leave domains without a
 * place and `force` is not given. */
int ha_ask_carefully(struct tool *t, struct ha_ask *a);

#endif
