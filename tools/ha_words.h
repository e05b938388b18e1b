/* SPDX-License-Identifier: ISC */
/*
 * ha_words: the cluster in words for people: names of nodes and states, ages, and migrd's texts
 * with names in place of numbers. Nothing is kept; an overview (tool_ha) is the caller's to free
 * with its reply.
 */
#ifndef TOOLS_HA_WORDS_H
#define TOOLS_HA_WORDS_H

#include "tools/tool.h"

#define HA_WORD_LEN 80

/* The overview in ha; NULL after having said why not. */
Migrd__Reply *tool_ha(struct tool *t);

/* "xen2", or "node 2" where it has no name; "-" for 0. */
char *ha_node_name(char out[HA_WORD_LEN], const Migrd__HaOverview *o, uint32_t id);
const Migrd__HaNode *ha_node(const Migrd__HaOverview *o, uint32_t id);
/* By name or number; 0: none. */
uint32_t ha_node_id(const Migrd__HaOverview *o, const char *which);
/* By name or uuid. */
const Migrd__HaDomain *ha_domain(const Migrd__HaOverview *o, const char *which);
bool ha_is_member(const Migrd__HaOverview *o, uint32_t id);
bool ha_is_configured(const Migrd__HaOverview *o, uint32_t id);
/* Configured nodes that are in this host's view. */
unsigned ha_members(const Migrd__HaOverview *o);
/* It holds memory of its owner, which is this node. */
bool ha_is_at(const Migrd__HaDomain *d, uint32_t node);

const char *ha_node_state_text(const Migrd__HaNode *n);
const char *ha_domain_state_text(const Migrd__HaDomain *d);
const char *ha_proof_text(Migrd__HaProof p);

/* A text of migrd's with "node 2" as its name; in `out`. */
char *ha_say(char *out, size_t size, const Migrd__HaOverview *o, const char *text);
/* "12 s", "5 min", "3 h", "2 days" of ms. */
char *ha_age(char out[HA_WORD_LEN], uint64_t ms);
/* The time since that log time. */
char *ha_since(char out[HA_WORD_LEN], const Migrd__HaOverview *o, uint64_t log_time);

/* ha_show.c: a page about all, one about a domain, a plan. */
void ha_show_status(const Migrd__HaOverview *o);
void ha_show_nodes(const Migrd__HaOverview *o);
void ha_show_domain(const Migrd__HaOverview *o, const Migrd__HaDomain *d, const Migrd__HaPlan *p);
void ha_show_plan(const Migrd__HaOverview *o, const Migrd__HaPlan *p);
/* Prints what needs attention, each line after `indent`; how many. */
unsigned ha_show_attention(const Migrd__HaOverview *o, const char *indent, FILE *to);

#endif
