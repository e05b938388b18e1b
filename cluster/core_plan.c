/* SPDX-License-Identifier: ISC */
/*
 * Where a domain can run. Hard: node online and in the view, not drained, `only`, hard groups, not
 * too many failures there, memory. Of the rest the best: not quarantined, fewest soft rules broken,
 * where it was (a restart), preferred, most memory left, lowest id. A plan is an overlay on the
 * state: which node holds each domain, so that the same code answers "what if".
 */
#include "cluster/core_internal.h"

#define WHY_PLACE                                                                                  \
    (HA_WHY_LEN - 40) /* of a text with reasons: what it is said of comes before it                \
                       */
#define WORST_MAX 600 /* sets of nodes that a certificate looks at */

static unsigned node_index(const struct ha_state *s, uint32_t id)
{
    const struct ha_node *n = state_node(s, id);

    return n ? (unsigned)(n - s->node) : HA_NODES_MAX;
}

static void occupy(struct ha_plan *p, uint32_t node, const struct ha_domain *d)
{
    unsigned i = node_index(p->s, node);

    if (i < HA_NODES_MAX)
        p->used[i] += d->memory_kib;
}

void plan_init(struct ha_plan *p, const struct ha_state *s, struct ha_arena *a)
{
    memset(p, 0, sizeof *p);
    p->s = s;
    p->arena = a;
    p->at = arena_alloc(a, s->n_domains * sizeof *p->at + 1);
    for (unsigned i = 0; i < s->n_domains; i++) {
        const struct ha_domain *d = s->domain[i];
        unsigned owner = node_index(s, d->owner);

        if (!domain_occupies(d))
            continue;
        p->at[i] = d->owner;
        occupy(p, d->owner, d);
        if (d->to)
            occupy(p, d->to, d);
        if (d->from)
            occupy(p, d->from, d);
        if (d->state == DS(STARTING) && owner < HA_NODES_MAX)
            p->starting[owner]++;
    }
}

void plan_put(struct ha_plan *p, unsigned i, uint32_t node)
{
    unsigned n = node_index(p->s, node);

    p->at[i] = node;
    occupy(p, node, p->s->domain[i]);
    if (n < HA_NODES_MAX)
        p->starting[n]++;
}

unsigned plan_rank(const struct ha_policy *p, uint32_t node)
{
    for (unsigned i = 0; i < p->n_preferred; i++)
        if (p->preferred[i] == node)
            return i;
    return HA_PREFERRED_MAX;
}

/* --- rules --- */

/* Other members of the group there, and elsewhere. A hard rule of any of two members binds both. */
static void group_count(const struct ha_plan *p, const struct ha_domain *d, uint32_t node,
    bool apart, unsigned *here, unsigned *else_where, bool *hard)
{
    const char *group = apart ? d->policy.apart : d->policy.together;

    *here = *else_where = 0;
    *hard = apart ? d->policy.apart_hard : d->policy.together_hard;
    if (!*group)
        return;
    for (unsigned i = 0; i < p->s->n_domains; i++) {
        const struct ha_domain *o = p->s->domain[i];

        if (o == d || !p->at[i] || strcmp(apart ? o->policy.apart : o->policy.together, group) != 0)
            continue;
        *hard |= apart ? o->policy.apart_hard : o->policy.together_hard;
        if (p->at[i] == node || (o->to && o->to == node))
            ++*here;
        else
            ++*else_where;
    }
}

static unsigned failures_on(const struct ha_plan *p, const struct ha_domain *d, uint32_t node)
{
    uint64_t window = (d->policy.window_s ? d->policy.window_s : 600u) * UINT64_C(1000);

    for (unsigned i = 0; i < d->n_failed; i++)
        if (d->failed[i].node == node && p->s->time - d->failed[i].since < window)
            return d->failed[i].count;
    return 0;
}

static uint64_t free_kib(const struct ha_plan *p, unsigned i)
{
    const struct ha_node *n = &p->s->node[i];
    uint64_t taken = p->used[i] + n->others_kib;

    return taken < n->memory_kib ? n->memory_kib - taken : 0;
}

struct score {
    unsigned quarantined, broken, elsewhere, rank;
    uint64_t left;
};

static bool refuse(char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(char *text, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, HA_WHY_LEN, fmt, ap);
    va_end(ap);
    return false;
}

static bool node_allows(const struct ha_plan *p, unsigned i, const struct ha_domain *d, char *text)
{
    const struct ha_node *n = &p->s->node[i];
    unsigned max = d->policy.max_restarts ? d->policy.max_restarts : 3, failed;

    if (p->down[i])
        return refuse(text, "is supposed to be dead");
    if (n->state != NS(ONLINE))
        return refuse(text, "is %s", node_state_name(n->state));
    if (!n->member)
        return refuse(text, "is not in the cluster's view");
    if (!n->holds)
        return refuse(text, "has no lease yet: a majority must acknowledge its beats first");
    if (n->drain)
        return refuse(text, "is being drained");
    if (d->policy.n_only && !ha_node_in(d->policy.only, d->policy.n_only, n->id))
        return refuse(text, "is not among the only nodes that it may run on");
    if (!p->ignore_busy && ha_node_in(d->unsure, d->n_unsure, n->id))
        return refuse(text, "has not said yet whether it has a copy");
    failed = failures_on(p, d, n->id);
    if (failed >= max)
        return refuse(text, "it failed there %u times of late", failed);
    if (free_kib(p, i) < d->memory_kib)
        return refuse(text, "has %llu MiB left, it needs %llu",
            (unsigned long long)(free_kib(p, i) >> 10), (unsigned long long)(d->memory_kib >> 10));
    return true;
}

static bool allows(
    const struct ha_plan *p, unsigned i, const struct ha_domain *d, struct score *score, char *text)
{
    const struct ha_node *n = &p->s->node[i];
    unsigned here, else_where;
    bool hard;

    if (!node_allows(p, i, d, text))
        return false;
    *score = (struct score){ .quarantined = n->quarantined > p->s->time };
    group_count(p, d, n->id, true, &here, &else_where, &hard);
    if (here && hard)
        return refuse(text, "another of group \"%s\" is there, which stays apart", d->policy.apart);
    score->broken = here;
    group_count(p, d, n->id, false, &here, &else_where, &hard);
    if (else_where && hard)
        return refuse(
            text, "others of group \"%s\" are elsewhere, which stays together", d->policy.together);
    score->broken += else_where;
    score->elsewhere = d->proof == PROOF(SELF) && d->owner != n->id;
    score->rank = plan_rank(&d->policy, n->id);
    score->left = free_kib(p, i) - d->memory_kib;
    return true;
}

static bool better(const struct score *a, const struct score *b)
{
    if (a->quarantined != b->quarantined)
        return a->quarantined < b->quarantined;
    if (a->broken != b->broken)
        return a->broken < b->broken;
    if (a->elsewhere != b->elsewhere)
        return a->elsewhere < b->elsewhere;
    if (a->rank != b->rank)
        return a->rank < b->rank;
    return a->left > b->left;
}

/* --- the choice --- */

static void rejected(struct ha_plan *p, Migrd__HaPlanStep *step, uint32_t node, const char *reason)
{
    Migrd__HaRejected *r = arena_alloc(p->arena, sizeof *r);

    if (!step->rejected)
        step->rejected = arena_alloc(p->arena, HA_NODES_MAX * sizeof *step->rejected);
    migrd__ha_rejected__init(r);
    r->node = node;
    r->reason = arena_text(p->arena, "%s", reason);
    step->rejected[step->n_rejected++] = r;
}

/* Reasons one behind the other. */
struct reasons {
    char text[HA_WHY_LEN];
    size_t end[HA_NODES_MAX]; /* of each that is in the text */
    unsigned kept, n;
};

static void add_reason(struct reasons *r, uint32_t node, const char *reason)
{
    size_t at = r->kept ? r->end[r->kept - 1] : 0, size = sizeof r->text - at;
    int len = snprintf(r->text + at, size, "%snode %u %s", at ? "; " : "", node, reason);

    if (r->kept == r->n++ && len > 0 && (size_t)len < size)
        r->end[r->kept++] = at + (size_t)len;
}

/* Behind the text, as far as whole ones fit. */
static void put_reasons(char *text, size_t size, const struct reasons *r)
{
    const size_t more = sizeof " and 32 more" - 1;
    size_t at = strlen(text), room = size - at;
    unsigned k = r->kept;

    while (k > 0 && r->end[k - 1] + (k < r->n ? more : 0) >= room)
        k--;
    if (k == 0)
        ha_text(text + at, room, "%u nodes", r->n);
    else if (k < r->n)
        ha_text(text + at, room, "%.*s and %u more", (int)r->end[k - 1], r->text, r->n - k);
    else
        ha_text(text + at, room, "%.*s", (int)r->end[k - 1], r->text);
}

static const char *chosen_text(
    char *buf, size_t size, const struct ha_domain *d, uint32_t id, const struct score *s)
{
    if (s->rank < HA_PREFERRED_MAX)
        return ha_text(buf, size, "to node %u, number %u of its preferred ones", id, s->rank + 1);
    if (d->proof == PROOF(SELF) && !s->elsewhere)
        return ha_text(buf, size, "to node %u, where it was", id);
    return ha_text(buf, size, "to node %u, which has the most memory left, %llu MiB", id,
        (unsigned long long)(s->left >> 10));
}

static bool node_busy(const struct ha_plan *p, unsigned i)
{
    return !p->ignore_busy && p->starting[i] >= p->s->node[i].starts_at_once;
}

uint32_t plan_pick(struct ha_plan *p, const struct ha_domain *d, uint32_t not_here, bool *busy,
    char *text, Migrd__HaPlanStep *step)
{
    struct score score, best = { 0 };
    struct reasons rest = { .n = 0 };
    char reason[HA_WHY_LEN], chosen[120];
    int at = -1;

    for (unsigned i = 0; i < p->s->n_node; i++) {
        if (p->s->node[i].id == not_here)
            continue;
        if (!allows(p, i, d, &score, reason)) {
            add_reason(&rest, p->s->node[i].id, reason);
            if (step)
                rejected(p, step, p->s->node[i].id, reason);
        } else if (at < 0 || better(&score, &best)) {
            best = score;
            at = (int)i;
        }
    }
    *busy = at >= 0 && !not_here && node_busy(p, (unsigned)at);
    if (at < 0)
        ha_text(text, WHY_PLACE, "no place: ");
    else if (*busy)
        ha_text(text, HA_WHY_LEN, "waits for node %u, which starts %u already", p->s->node[at].id,
            p->starting[at]);
    else
        ha_text(text, WHY_PLACE, "%s%s",
            chosen_text(chosen, sizeof chosen, d, p->s->node[at].id, &best),
            rest.n > 0 ? "; not: " : "");
    if (!*busy && rest.n > 0)
        put_reasons(text, WHY_PLACE, &rest);
    return at < 0 || *busy ? 0 : p->s->node[at].id;
}

bool plan_move(const struct ha_state *s, struct ha_arena *a, const struct ha_domain *d,
    uint32_t node, char *text)
{
    struct ha_domain alone = *d;
    struct score score;
    struct ha_plan p;
    unsigned at = node_index(s, node);

    alone.n_failed = 0;
    plan_init(&p, s, a);
    for (unsigned i = 0; i < s->n_domains; i++)
        if (s->domain[i] == d)
            p.at[i] = 0; /* no neighbour of its own */
    if (at == HA_NODES_MAX)
        return refuse(text, "is unknown to the cluster");
    return node != d->owner ? allows(&p, at, &alone, &score, text)
                            : refuse(text, "is where it is already");
}

/* --- plans for people --- */

static Migrd__HaPlanStep *plan_step(struct ha_plan *p, Migrd__HaPlan *m, unsigned i)
{
    const struct ha_domain *d = p->s->domain[i];
    Migrd__HaPlanStep *step = arena_alloc(p->arena, sizeof *step);

    migrd__ha_plan_step__init(step);
    step->uuid = arena_text(p->arena, "%s", d->uuid); /* a rehearsal's state goes before its plan */
    step->name = arena_text(p->arena, "%s", d->name);
    step->class_ = d->policy.class;
    m->step[m->n_step++] = step;
    return step;
}

static void plan_one(struct ha_plan *p, Migrd__HaPlan *m, unsigned i, unsigned *order)
{
    const struct ha_domain *d = p->s->domain[i];
    Migrd__HaPlanStep *step = plan_step(p, m, i);
    char text[HA_WHY_LEN];
    unsigned n;
    bool busy;

    step->proof = d->state == DS(WAITING) ? d->proof : d->fused ? PROOF(LEASE) : PROOF(OPERATOR);
    step->node = plan_pick(p, d, 0, &busy, text, step);
    step->why = arena_text(p->arena, "%s", text);
    if (!step->node) {
        m->lost++;
        return;
    }
    n = node_index(p->s, step->node);
    step->order = ++order[n];
    plan_put(p, i, step->node);
}

/* Which must be placed if these are dead, by class, then uuid. */
static unsigned homeless(struct ha_plan *p, unsigned *list)
{
    unsigned n = 0;

    for (unsigned i = 0; i < p->s->n_domains; i++) {
        const struct ha_domain *d = p->s->domain[i];
        unsigned owner = node_index(p->s, p->at[i]), j = n;

        if (!d->want_run || d->blocked || (p->at[i] && (owner == HA_NODES_MAX || !p->down[owner])))
            continue;
        p->at[i] = 0;
        for (; j > 0 && p->s->domain[list[j - 1]]->policy.class > d->policy.class; j--)
            list[j] = list[j - 1];
        list[j] = i;
        n++;
    }
    return n;
}

static Migrd__HaPlan *plan_without(
    const struct ha_state *s, struct ha_arena *a, const uint32_t *dead, unsigned n_dead)
{
    Migrd__HaPlan *m = arena_alloc(a, sizeof *m);
    unsigned *list = arena_alloc(a, s->n_domains * sizeof *list + 1), n, alive = 0;
    unsigned order[HA_NODES_MAX] = { 0 };
    struct ha_plan p;

    migrd__ha_plan__init(m);
    plan_init(&p, s, a);
    p.ignore_busy = true;
    for (unsigned i = 0; i < s->n_node; i++)
        p.down[i] = ha_node_in(dead, n_dead, s->node[i].id);
    for (unsigned i = 0; i < s->n_nodes; i++) {
        const struct ha_node *node = state_node(s, s->nodes[i]);

        alive += node && node->member && !ha_node_in(dead, n_dead, s->nodes[i]);
    }
    m->majority = state_majority(s, alive);
    m->dead = arena_alloc(a, n_dead * sizeof *m->dead + 1);
    for (unsigned i = 0; i < n_dead; i++)
        m->dead[i] = dead[i];
    m->n_dead = n_dead;
    n = homeless(&p, list);
    m->step = arena_alloc(a, n * sizeof *m->step + 1);
    for (unsigned i = 0; i < n; i++)
        plan_one(&p, m, list[i], order);
    m->holds = m->majority && m->lost == 0;
    m->text = arena_text(a, "%s",
        !m->majority ? "the rest is no majority: nothing would be decided"
        : m->lost    ? "not all of them have a place"
                     : "each of them has a place");
    return m;
}

/* A message of the arena as one of its own. */
static Migrd__HaPlan *plan_copy(const Migrd__HaPlan *m, struct ha_arena *a)
{
    size_t len = migrd__ha_plan__get_packed_size(m);
    uint8_t *bytes = arena_alloc(a, len);

    migrd__ha_plan__pack(m, bytes);
    return migrd__ha_plan__unpack(NULL, len, bytes);
}

Migrd__HaPlan *ha_core_what_if(const struct ha_core *c, const uint32_t *dead, unsigned n)
{
    struct ha_arena a;
    jmp_buf oom;
    Migrd__HaPlan *volatile m = NULL;

    arena_init(&a, &oom);
    if (setjmp(oom) == 0)
        m = plan_copy(plan_without(&c->state, &a, dead, n < HA_NODES_MAX ? n : HA_NODES_MAX), &a);
    arena_free(&a);
    return m;
}

Migrd__HaPlan *ha_core_explain(const struct ha_core *c, const char *uuid)
{
    struct ha_arena a;
    jmp_buf oom;
    Migrd__HaPlan *volatile result = NULL;

    arena_init(&a, &oom);
    if (setjmp(oom) == 0) {
        Migrd__HaPlan *m = arena_alloc(&a, sizeof *m);
        unsigned order[HA_NODES_MAX] = { 0 };
        struct ha_plan p;

        migrd__ha_plan__init(m);
        plan_init(&p, &c->state, &a);
        m->step = arena_alloc(&a, sizeof *m->step);
        m->majority = core_active(c);
        for (unsigned i = 0; i < c->state.n_domains; i++)
            if (strcmp(c->state.domain[i]->uuid, uuid) == 0) {
                p.at[i] = 0;
                plan_one(&p, m, i, order);
                m->text = c->state.domain[i]->why;
            }
        m->holds = m->n_step == 1 && m->lost == 0;
        result = plan_copy(m, &a);
    }
    arena_free(&a);
    return result;
}

/* --- any k nodes --- */

/* The next set of k of n, in order; false after the last. */
static bool next_set(unsigned *set, unsigned k, unsigned n)
{
    for (unsigned i = k; i-- > 0;)
        if (set[i] < n - k + i) {
            set[i]++;
            for (unsigned j = i + 1; j < k; j++)
                set[j] = set[j - 1] + 1;
            return true;
        }
    return false;
}

static bool worse(const Migrd__HaPlan *a, const Migrd__HaPlan *b)
{
    if (a->majority != b->majority)
        return !a->majority;
    return a->lost > b->lost;
}

Migrd__HaPlan *plan_certificate(const struct ha_state *s, struct ha_arena *a, unsigned k)
{
    uint32_t up[HA_NODES_MAX], dead[HA_NODES_MAX];
    unsigned set[HA_NODES_MAX], n = 0;
    Migrd__HaPlan *worst = NULL;

    for (unsigned i = 0; i < s->n_node; i++)
        if (s->node[i].state == NS(ONLINE))
            up[n++] = s->node[i].id;
    k = k < n ? k : n;
    for (unsigned i = 0; i < k; i++)
        set[i] = i;
    for (unsigned tried = 0; tried < WORST_MAX; tried++) {
        Migrd__HaPlan *m;

        for (unsigned i = 0; i < k; i++)
            dead[i] = up[set[i]];
        m = plan_without(s, a, dead, k);
        if (!worst || worse(m, worst))
            worst = m;
        if (!next_set(set, k, n))
            break;
    }
    worst->k = k;
    return worst;
}

Migrd__HaPlan *ha_core_certificate(const struct ha_core *c, unsigned k)
{
    struct ha_arena a;
    jmp_buf oom;
    Migrd__HaPlan *volatile m = NULL;

    arena_init(&a, &oom);
    if (setjmp(oom) == 0)
        m = plan_copy(plan_certificate(&c->state, &a, k), &a);
    arena_free(&a);
    return m;
}
