/* SPDX-License-Identifier: ISC */
/*
 * setup: what `migctl cluster` writes for corosync: corosync.conf, the key, and the bundle that
 * takes both to the other hosts. Plain values and texts; files are written by setup_write alone.
 * Reads what it and people have written, as far as it matters for the cluster.
 */
#ifndef CLUSTER_SETUP_H
#define CLUSTER_SETUP_H

#include "cluster/core.h"

#define SETUP_LINKS 2
#define SETUP_ADDRESS_LEN 128
#define SETUP_KEY_LEN 256 /* what we make */
#define SETUP_KEY_MIN 128 /* what corosync takes */
#define SETUP_KEY_MAX 4096
#define SETUP_TEXT_MAX (64u << 10) /* of a corosync.conf or a bundle that is read */
#define SETUP_TOKEN_MIN 300
#define SETUP_TOKEN_MAX 30000
#define SETUP_TOKEN 1000

struct setup_node {
    uint32_t id;
    char name[HA_NAME_LEN];
    char address[SETUP_LINKS][SETUP_ADDRESS_LEN]; /* "" none */
};

struct setup {
    char name[HA_NAME_LEN]; /* of the cluster */
    unsigned token;         /* ms */
    struct setup_node node[HA_NODES_MAX];
    unsigned n;
    uint8_t key[SETUP_KEY_MAX];
    size_t key_len;
};

/* "[ID:]NAME=ADDRESS[,ADDRESS2]"; without an ID the first that is free. */
int setup_add_node(struct setup *s, const char *text, struct err *e);
/* Names, addresses, ids, token: that nothing is there twice, and all links are whole. */
int setup_check(const struct setup *s, struct err *e);
/* What to know about that number of nodes; "" nothing. */
const char *setup_advice(unsigned nodes);
int setup_make_key(struct setup *s, struct err *e);

/* corosync.conf; `key_file`: NULL, where corosync looks by itself. malloc'ed, NULL no memory. */
char *setup_conf(const struct setup *s, const char *key_file);
/* What a corosync.conf says: cluster's name, token, nodes. token 0: corosync's default. */
int setup_read_conf(struct setup *s, const char *text, size_t len, struct err *e);

/* All of it as one text for the other hosts; malloc'ed, NULL no memory. */
char *setup_bundle(const struct setup *s);
int setup_read_bundle(struct setup *s, const char *text, size_t len, struct err *e);

/* Writes conf and key to `folder` ("/etc/corosync"); what is there is kept as NAME.old-TIME, and
 * refused (ERR_EXISTS) without `force`. `other_place`: the conf names the key's file. */
int setup_write(
    const struct setup *s, const char *folder, bool other_place, bool force, struct err *e);
/* Moves both out of the way, as NAME.old-TIME. ERR_NOT_FOUND: nothing there. */
int setup_take_away(const char *folder, struct err *e);

/* This host's address among those: the node's position; -1: none, or only names. */
int setup_own(const struct setup *s);

#endif
