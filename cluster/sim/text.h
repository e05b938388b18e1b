/* SPDX-License-Identifier: ISC */
/*
 * text: names of events and actions, for time lines; and what tells decisions apart.
 */
#ifndef CLUSTER_SIM_TEXT_H
#define CLUSTER_SIM_TEXT_H

#include "cluster/core.h"

const char *event_name(enum ha_event_type type);
const char *action_name(enum ha_action_type type);
/* Not what goes on all the time: messages, beats, records, fuses. */
bool action_is_decision(enum ha_action_type type);
/* Goes on from `digest`; 0 at the beginning. Of all that is decided, with its reasons. */
uint64_t actions_digest(uint64_t digest, const struct ha_actions *actions);

#endif
