/* SPDX-License-Identifier: ISC */
/*
 * nodelist_parse: keys of corosync's cmap, one by one, become a list of nodes. Pure but for the
 * look-up of names. Everything is a plain value; nothing needs freeing.
 */
#ifndef CLUSTER_NODELIST_PARSE_H
#define CLUSTER_NODELIST_PARSE_H

#include "cluster/nodelist.h"

#define NODELIST_ENTRIES_MAX 128 /* more than we take, to be able to say so */

struct nodelist_raw {
    struct {
        unsigned position; /* in the configuration */
        uint32_t id;
        int link; /* that the address is of; -1 none */
        char name[NODE_ADDRESS_LEN], address[NODE_ADDRESS_LEN];
    } entry[NODELIST_ENTRIES_MAX];
    unsigned n;
    bool overflow; /* too many of them, or a text too long */
    bool has_own;
    unsigned own_position;
    unsigned token;
    char cluster[HA_NAME_LEN];
    char ip_version[16];
};

/* A key under "nodelist.node."; `number` where its value is one, else `text`, else both void.
 * Keys that do not matter here are passed over. */
void nodelist_key(
    struct nodelist_raw *raw, const char *key, const uint64_t *number, const char *text);
/* -1: what is wrong with the configuration, and what to do. Names are not looked up. */
int nodelist_make(const struct nodelist_raw *raw, struct node_list *list, struct err *e);
/* The first address as corosync would choose it. Blocks. False: not known. */
bool nodelist_look_up(struct node_entry *node, const char *ip_version);

#endif
