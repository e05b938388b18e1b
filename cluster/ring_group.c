/* SPDX-License-Identifier: ISC */
/*
 * A second daemon on one node sees the first one and leaves again (ring.c): members that see it
 * come and go have nothing to tell, or the log of all nodes would begin a new round each time.
 */
#include "cluster/ring_group.h"

#include <string.h>

static bool in(const struct ring_process *list, size_t n, const struct ring_process *p)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].node == p->node && list[i].pid == p->pid)
            return true;
    return false;
}

static bool has_node(const struct ring_group *g, uint32_t node)
{
    for (unsigned i = 0; i < g->n; i++)
        if (g->member[i].node == node)
            return true;
    return false;
}

static void insert(struct ring_group *g, const struct ring_process *p)
{
    unsigned i = g->n;

    if (g->n == HA_NODES_MAX) {
        g->overflow = true;
        return;
    }
    for (; i > 0 && g->member[i - 1].node > p->node; i--)
        g->member[i] = g->member[i - 1];
    g->member[i] = *p;
    g->n++;
}

static bool same(const struct ring_group *a, const struct ring_group *b)
{
    return a->n == b->n && memcmp(a->member, b->member, a->n * sizeof a->member[0]) == 0;
}

bool ring_group_change(struct ring_group *g, const struct ring_process *now, size_t n,
    const struct ring_process *gone, size_t n_gone, const struct ring_process *come, size_t n_come)
{
    struct ring_group old = *g;
    bool replaced = false;

    g->n = 0;
    g->overflow = false;
    for (unsigned i = 0; i < old.n; i++)
        if (in(now, n, &old.member[i]))
            insert(g, &old.member[i]);
    for (size_t i = 0; i < n; i++)
        if (!has_node(g, now[i].node))
            insert(g, &now[i]);
    for (unsigned i = 0; i < g->n; i++)
        replaced = replaced || in(gone, n_gone, &g->member[i]) || in(come, n_come, &g->member[i]);
    return replaced || !same(&old, g);
}

bool ring_group_speaks(const struct ring_group *g, uint32_t node, uint32_t pid)
{
    struct ring_process p = { node, pid };

    return in(g->member, g->n, &p);
}
