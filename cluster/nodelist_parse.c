/* SPDX-License-Identifier: ISC */
/* What corosync.conf says of the nodes, as keys "nodelist.node.POSITION.FIELD". */
#include "cluster/nodelist_parse.h"

#include <ctype.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "nodelist.node."
#define LINKS_MAX 8

/* --- keys --- */

/* "12.nodeid": 12, and where "nodeid" begins; NULL: not of that form. */
static const char *position_of(const char *key, unsigned *position)
{
    unsigned long n;
    char *end;

    if (strncmp(key, PREFIX, sizeof PREFIX - 1) != 0)
        return NULL;
    key += sizeof PREFIX - 1;
    if (!isdigit((unsigned char)*key) || strlen(key) > 64)
        return NULL;
    n = strtoul(key, &end, 10);
    if (*end != '.' || n > 1000000)
        return NULL;
    *position = (unsigned)n;
    return end + 1;
}

static int entry_at(struct nodelist_raw *raw, unsigned position)
{
    unsigned i = 0;

    while (i < raw->n && raw->entry[i].position != position)
        i++;
    if (i < raw->n)
        return (int)i;
    if (i == NODELIST_ENTRIES_MAX) {
        raw->overflow = true;
        return -1;
    }
    memset(&raw->entry[i], 0, sizeof raw->entry[i]);
    raw->entry[i].position = position;
    raw->entry[i].link = -1;
    raw->n++;
    return (int)i;
}

/* "ring0_addr": 0; -1: something else. */
static int link_of(const char *field)
{
    if (strncmp(field, "ring", 4) != 0 || field[4] < '0' || field[4] >= '0' + LINKS_MAX ||
        strcmp(field + 5, "_addr") != 0)
        return -1;
    return field[4] - '0';
}

static void keep(struct nodelist_raw *raw, char *to, size_t size, const char *text)
{
    if (strlen(text) >= size) {
        raw->overflow = true;
        return;
    }
    strcpy(to, text);
}

void nodelist_key(
    struct nodelist_raw *raw, const char *key, const uint64_t *number, const char *text)
{
    unsigned position;
    const char *field = position_of(key, &position);
    int i, link;

    if (field == NULL || (i = entry_at(raw, position)) < 0)
        return;
    link = link_of(field);
    if (number && strcmp(field, "nodeid") == 0 && *number <= UINT32_MAX) {
        raw->entry[i].id = (uint32_t)*number;
    } else if (text && strcmp(field, "name") == 0) {
        keep(raw, raw->entry[i].name, sizeof raw->entry[i].name, text);
    } else if (text && link >= 0 && (raw->entry[i].link < 0 || link < raw->entry[i].link)) {
        raw->entry[i].link = link;
        keep(raw, raw->entry[i].address, sizeof raw->entry[i].address, text);
    }
}

/* --- the list --- */

static bool printable(const char *text)
{
    for (; *text; text++)
        if (!isprint((unsigned char)*text))
            return false;
    return true;
}

static int entry_check(const struct nodelist_raw *raw, unsigned i, struct err *e)
{
    const char *name = raw->entry[i].name, *address = raw->entry[i].address;

    if (!printable(name) || !printable(address))
        return err_set(e, ERR_INVALID,
            "corosync.conf: node %u of the nodelist has a name or address with characters that "
            "can't be shown: correct it",
            raw->entry[i].position + 1);
    if (raw->entry[i].id == 0)
        return err_set(e, ERR_INVALID,
            "corosync.conf: node %u of the nodelist (%s) has no nodeid: give it one", i + 1,
            *name ? name : address);
    if (raw->entry[i].link < 0 || *address == '\0')
        return err_set(e, ERR_INVALID,
            "corosync.conf: node %u of the nodelist has no ring0_addr: give it one",
            raw->entry[i].id);
    if (strlen(name) >= HA_NAME_LEN)
        return err_set(e, ERR_INVALID,
            "corosync.conf: the name of node %u is longer than %d characters: shorten it",
            raw->entry[i].id, HA_NAME_LEN - 1);
    for (unsigned j = 0; j < i; j++)
        if (raw->entry[j].id == raw->entry[i].id)
            return err_set(e, ERR_INVALID,
                "corosync.conf: two nodes have the nodeid %u: give each its own", raw->entry[i].id);
    return 0;
}

static int raw_check(const struct nodelist_raw *raw, struct err *e)
{
    if (raw->overflow || raw->n > HA_NODES_MAX)
        return err_set(e, ERR_INVALID,
            "corosync.conf: the nodelist has more than %d nodes, or a text that is longer than %d "
            "characters",
            HA_NODES_MAX, NODE_ADDRESS_LEN - 1);
    if (raw->n == 0)
        return err_set(e, ERR_INVALID,
            "corosync.conf has no nodelist: add one with nodeid, name and ring0_addr of each node");
    for (unsigned i = 0; i < raw->n; i++)
        if (entry_check(raw, i, e) < 0)
            return -1;
    if (raw->token == 0)
        return err_set(e, ERR_STATE, "corosync does not say its token yet");
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const struct node_entry *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

int nodelist_make(const struct nodelist_raw *raw, struct node_list *list, struct err *e)
{
    memset(list, 0, sizeof *list);
    if (raw_check(raw, e) < 0)
        return -1;
    for (unsigned i = 0; i < raw->n; i++) {
        struct node_entry *n = &list->node[list->n++];

        n->id = raw->entry[i].id;
        strcpy(n->name, raw->entry[i].name);
        strcpy(n->address, raw->entry[i].address);
        if (raw->has_own && raw->entry[i].position == raw->own_position)
            list->own = n->id;
    }
    if (list->own == 0)
        return err_set(e, ERR_STATE,
            "corosync does not find this host in its nodelist: none of the addresses there is of "
            "this host");
    qsort(list->node, list->n, sizeof list->node[0], by_id);
    list->token = raw->token;
    snprintf(list->cluster, sizeof list->cluster, "%s", raw->cluster);
    return 0;
}

const struct node_entry *node_list_find(const struct node_list *list, uint32_t id)
{
    for (unsigned i = 0; list && i < list->n; i++)
        if (list->node[i].id == id)
            return &list->node[i];
    return NULL;
}

/* --- addresses --- */

static const struct addrinfo *of_family(const struct addrinfo *ai, int family)
{
    while (ai && ai->ai_family != family)
        ai = ai->ai_next;
    return ai;
}

/* ipv6-4 is corosync's default. */
static const struct addrinfo *choose(const struct addrinfo *ai, const char *ip_version)
{
    bool four = strncmp(ip_version, "ipv4", 4) == 0, only = strchr(ip_version, '-') == NULL;
    const struct addrinfo *best = of_family(ai, four ? AF_INET : AF_INET6);

    if (best == NULL && (!only || *ip_version == '\0'))
        best = of_family(ai, four ? AF_INET6 : AF_INET);
    return best;
}

bool nodelist_look_up(struct node_entry *node, const char *ip_version)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM }, *all = NULL;
    const struct addrinfo *ai;

    node->socket_len = 0;
    memset(&node->socket, 0, sizeof node->socket);
    if (getaddrinfo(node->address, NULL, &hints, &all) != 0)
        return false;
    ai = choose(all, ip_version);
    if (ai && ai->ai_addrlen <= sizeof node->socket) {
        memcpy(&node->socket, ai->ai_addr, ai->ai_addrlen);
        node->socket_len = ai->ai_addrlen;
    }
    freeaddrinfo(all);
    return node->socket_len != 0;
}
