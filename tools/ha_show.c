/* SPDX-License-Identifier: ISC */
/*
 * Pages about the cluster: what needs attention first, then nodes, domains, times, what would be
 * survived, and the last failovers with the measured length of each part.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tools/format.h"
#include "tools/ha_words.h"

#define SAY_LEN 400
#define FAILOVERS_SHOWN 5
#define WARN_SHARE 80 /* percent of a safety timer that was used */

/* --- attention --- */

static unsigned say(FILE *to, const char *indent, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static unsigned say(FILE *to, const char *indent, const char *fmt, ...)
{
    va_list ap;

    fputs(indent, to);
    va_start(ap, fmt);
    vfprintf(to, fmt, ap);
    va_end(ap);
    fputc('\n', to);
    return 1;
}

static unsigned count_at(const Migrd__HaOverview *o, uint32_t node)
{
    unsigned n = 0;

    for (size_t i = 0; i < o->state->n_domain; i++)
        n += ha_is_at(o->state->domain[i], node);
    return n;
}

static unsigned attention_node(
    const Migrd__HaOverview *o, const Migrd__HaNode *x, const char *indent, FILE *to)
{
    char name[HA_WORD_LEN], age[HA_WORD_LEN];
    unsigned n = 0, here = count_at(o, x->id);

    ha_node_name(name, o, x->id);
    if (!ha_is_configured(o, x->id) && here == 0)
        return 0; /* its record stays, the host has been taken out of corosync.conf */
    if (x->state == MIGRD__HA_NODE_STATE__NODE_EXPIRED && here > 0)
        n += say(to, indent,
            "%s is down, and %u domain%s of it had no fuse: only power-off or a person proves that "
            "they stopped. If %s is off for sure: migctl ha confirm-dead %s",
            name, here, here == 1 ? "" : "s", name, name);
    else if (x->state == MIGRD__HA_NODE_STATE__NODE_AWAY && here > 0)
        n += say(to, indent,
            "%s has been away for %s, without a proof that its %u domain%s stopped: they start "
            "elsewhere as soon as there is one. If %s is off for sure: migctl ha confirm-dead %s",
            name, ha_since(age, o, x->since), here, here == 1 ? "" : "s", name, name);
    else if (x->state != MIGRD__HA_NODE_STATE__NODE_ONLINE)
        n += say(to, indent, "%s is %s", name,
            x->state == MIGRD__HA_NODE_STATE__NODE_UNKNOWN
                ? "configured and has never joined: is migrd running there?"
                : "down: what it ran has been taken over, or waits for a place");
    if (x->quarantined > o->log_now && ha_is_configured(o, x->id))
        n += say(to, indent,
            "%s was lost several times of late and gets no domains for %s: `migctl ha release %s` "
            "ends that",
            name, ha_age(age, x->quarantined - o->log_now), name);
    return n;
}

static unsigned attention_domain(
    const Migrd__HaOverview *o, const Migrd__HaDomain *d, const char *indent, FILE *to)
{
    char name[HA_WORD_LEN], why[SAY_LEN];

    ha_say(why, sizeof why, o, d->why);
    ha_node_name(name, o, d->owner);
    if (d->blocked)
        return say(to, indent,
            "domain %s could not be stopped on %s, nothing is done with it until a person has "
            "looked: %s; then `migctl ha release %s`",
            d->name, name, why, d->name);
    if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING)
        return say(to, indent, "domain %s waits: %s", d->name, why);
    return 0;
}

static unsigned attention_figures(const Migrd__HaOverview *o, const char *indent, FILE *to)
{
    const Migrd__HaFigures *f = o->figures;
    unsigned n = 0;

    if (f->late_max_ms * 100 >= (uint64_t)o->times->tilt * WARN_SHARE && o->times->tilt > 0)
        n += say(to, indent,
            "migrd on this host was late by %" PRIu64
            " ms once; from %u ms on it doubts itself: is the host overloaded?",
            f->late_max_ms, o->times->tilt);
    if (f->persist_max_us / 10 >= (uint64_t)o->times->lease * WARN_SHARE && o->times->lease > 0)
        n += say(to, indent,
            "a write to the cluster's log on this host took %" PRIu64
            " ms; the lease is %u ms: is /var/lib/migrd on a slow disk?",
            f->persist_max_us / 1000, o->times->lease);
    if (o->times->watchdog > 0 && !f->watchdog)
        n += say(to, indent, "the watchdog of this host is configured and not open");
    return n;
}

static unsigned attention_certificate(const Migrd__HaOverview *o, const char *indent, FILE *to)
{
    const Migrd__HaPlan *p = o->certificate;
    char name[HA_WORD_LEN];

    if (o->survives > 0 || p == NULL || p->holds || p->n_dead == 0 || o->state->n_domain == 0)
        return 0;
    ha_node_name(name, o, p->dead[0]);
    if (!p->majority)
        return say(
            to, indent, "if %s is lost now, the rest is no majority and decides nothing", name);
    return say(to, indent,
        "if %s is lost now, %u domain%s no place: `migctl ha what-if %s` says why", name, p->lost,
        p->lost == 1 ? " has" : "s have", name);
}

unsigned ha_show_attention(const Migrd__HaOverview *o, const char *indent, FILE *to)
{
    const Migrd__HaState *s = o->state;
    unsigned n = 0;

    if (o->undecided[0] != '\0')
        n += say(to, indent, "%s", o->undecided);
    if (s->armed == MIGRD__HA_ARMED__DISARMED)
        n += say(to, indent,
            "high availability is disarmed: a host that dies takes its domains with it; `migctl ha "
            "arm` arms it");
    else if (s->armed == MIGRD__HA_ARMED__DISARMING)
        n +=
            say(to, indent, "high availability is being disarmed, as soon as nothing is under way");
    for (size_t i = 0; i < s->n_node; i++)
        n += attention_node(o, s->node[i], indent, to);
    for (size_t i = 0; i < s->n_domain; i++)
        n += attention_domain(o, s->domain[i], indent, to);
    if (o->undecided[0] == '\0')
        n += attention_certificate(o, indent, to);
    return n + attention_figures(o, indent, to);
}

/* --- nodes --- */

/* How fresh the word of a node is: own lease, or the peer's last beat. */
static void life_text(const Migrd__HaOverview *o, uint32_t id, char *out, size_t size)
{
    const Migrd__HaLocal *l = o->state->local;
    uint64_t left = l->lease_until > o->now ? l->lease_until - o->now : 0;
    char age[HA_WORD_LEN];

    snprintf(out, size, "-");
    if (id == o->node && l->lease_until == UINT64_MAX)
        snprintf(out, size, "no lease needed");
    else if (id == o->node && l->lease_until != 0)
        snprintf(out, size, left > 0 ? "lease %" PRIu64 " ms" : "LEASE OVER", left);
    for (size_t i = 0; id != o->node && i < l->n_peer; i++) {
        const Migrd__HaPeer *p = l->peer[i];

        if (p->node != id || p->seen == 0)
            continue;
        if (o->now - p->seen < 10000)
            snprintf(out, size, "beat %" PRIu64 " ms ago", o->now - p->seen);
        else
            snprintf(out, size, "beat %s ago", ha_age(age, o->now - p->seen));
    }
}

static void node_row(struct table *t, const Migrd__HaOverview *o, uint32_t id)
{
    const Migrd__HaNode *n = ha_node(o, id);
    char name[HA_WORD_LEN], own[HA_WORD_LEN + 2], age[HA_WORD_LEN] = "-", life[HA_WORD_LEN];
    char domains[16], used[FORMAT_LEN], all[FORMAT_LEN], memory[80] = "-";
    uint64_t kib = n != NULL ? n->others_kib : 0;

    for (size_t i = 0; i < o->state->n_domain; i++)
        if (ha_is_at(o->state->domain[i], id))
            kib += o->state->domain[i]->memory_kib;
    if (n != NULL && n->state != MIGRD__HA_NODE_STATE__NODE_UNKNOWN) {
        ha_since(age, o, n->since);
        snprintf(memory, sizeof memory, "%s of %s", format_bytes(used, kib * 1024),
            format_bytes(all, n->memory_kib * 1024));
    }
    snprintf(own, sizeof own, "%s%s", ha_node_name(name, o, id), id == o->node ? "*" : "");
    snprintf(domains, sizeof domains, "%u", count_at(o, id));
    life_text(o, id, life, sizeof life);
    table_row(t, own, ha_node_state_text(n), age, domains, memory,
        ha_is_member(o, id) ? "yes" : "no", life);
}

void ha_show_nodes(const Migrd__HaOverview *o)
{
    struct table *t = table_new("llrrlll");

    table_row(t, "Node", "State", "For", "Domains", "Memory", "In view", "Last word");
    for (size_t i = 0; i < o->state->n_nodes; i++)
        node_row(t, o, o->state->nodes[i]);
    table_print(&t, "  ", stdout);
    for (size_t i = 0; i < o->state->n_node; i++) {
        char name[HA_WORD_LEN], why[SAY_LEN];

        if (o->state->node[i]->why[0] != '\0' && ha_is_configured(o, o->state->node[i]->id))
            printf("  %s: %s\n", ha_node_name(name, o, o->state->node[i]->id),
                ha_say(why, sizeof why, o, o->state->node[i]->why));
    }
}

/* --- domains --- */

static void domain_table(const Migrd__HaOverview *o)
{
    struct table *t = table_new("lllrrrl");

    table_row(t, "Domain", "State", "Node", "Epoch", "Class", "For", "Why");
    for (size_t i = 0; i < o->state->n_domain; i++) {
        const Migrd__HaDomain *d = o->state->domain[i];
        char node[HA_WORD_LEN], where[2 * HA_WORD_LEN + 8], age[HA_WORD_LEN], epoch[24], class[16];
        char to[HA_WORD_LEN], why[SAY_LEN];

        ha_node_name(node, o, d->owner);
        if (d->to != 0)
            snprintf(where, sizeof where, "%s -> %s", node, ha_node_name(to, o, d->to));
        else
            snprintf(where, sizeof where, "%s", node);
        snprintf(epoch, sizeof epoch, "%" PRIu64, d->epoch);
        snprintf(class, sizeof class, "%u", d->policy != NULL ? d->policy->class_ : 0);
        table_row(t, d->name, ha_domain_state_text(d), where, epoch, class,
            ha_since(age, o, d->since), ha_say(why, sizeof why, o, d->why));
    }
    table_print(&t, "  ", stdout);
}

/* --- failovers --- */

static void failover_table(const Migrd__HaOverview *o)
{
    struct table *t = table_new("lllllrrrrr");

    table_row(t, "When", "Domain", "From", "To", "Proof", "Detection", "Proof", "Decision", "Start",
        "In all");
    for (size_t i = 0; i < o->n_failovers && i < FAILOVERS_SHOWN; i++) {
        const Migrd__HaFailover *f = o->failovers[i];
        char when[FORMAT_LEN], from[HA_WORD_LEN], to[HA_WORD_LEN], term[5][FORMAT_LEN];
        uint64_t ms[] = { f->detection_ms, f->proof_ms, f->decision_ms, f->start_ms, 0 };

        ms[4] = ms[0] + ms[1] + ms[2] + ms[3];
        for (unsigned k = 0; k < 5; k++)
            format_us(term[k], ms[k] * 1000);
        if (!f->running)
            snprintf(term[3], FORMAT_LEN, "not yet"), snprintf(term[4], FORMAT_LEN, "-");
        table_row(t, format_wall(when, f->wall_ns), f->name, ha_node_name(from, o, f->from),
            ha_node_name(to, o, f->to), ha_proof_text(f->proof), term[0], term[1], term[2], term[3],
            term[4]);
    }
    table_print(&t, "  ", stdout);
}

/* --- the page --- */

static void survives_text(const Migrd__HaOverview *o)
{
    const Migrd__HaPlan *p = o->certificate;
    char name[HA_WORD_LEN];

    if (p == NULL)
        return;
    printf("\nSurvives    the loss of %s%u node%s", o->survives > 0 ? "any " : "", o->survives,
        o->survives == 1 ? "" : "s");
    if (!p->holds && p->n_dead > 0) {
        printf("; not of %u: without", p->k);
        for (size_t i = 0; i < p->n_dead; i++)
            printf("%s %s", i == 0 ? "" : " and", ha_node_name(name, o, p->dead[i]));
        if (!p->majority)
            printf(" the rest is no majority");
        else
            printf(" %u domain%s no place", p->lost, p->lost == 1 ? " has" : "s have");
    }
    putchar('\n');
}

static void figures_text(const Migrd__HaOverview *o)
{
    const Migrd__HaFigures *f = o->figures;
    char last[FORMAT_LEN], max[FORMAT_LEN];

    printf("Timers      token %u ms, beats every %u ms; %s\n", o->times->token, o->times->beat,
        o->times->text);
    printf("This host   beats in %" PRIu64 " out %" PRIu64 " bad %" PRIu64
           ", log writes %s (longest "
           "%s), late by %" PRIu64 " ms at most%s\n",
        f->beats_in, f->beats_out, f->beats_bad, format_us(last, f->persist_last_us),
        format_us(max, f->persist_max_us), f->late_max_ms, f->watchdog ? ", watchdog fed" : "");
}

void ha_show_status(const Migrd__HaOverview *o)
{
    static const char *const armed[] = { "armed", "being disarmed", "DISARMED" };
    const Migrd__HaState *s = o->state;

    printf("Cluster     %u of %zu nodes are here, %s%s%s%s, %s; %s (term %" PRIu64
           ", entry %" PRIu64 ")\n",
        ha_members(o), s->n_nodes, o->figures->quorate ? "quorate" : "NO QUORUM",
        o->figures->votes[0] ? " (" : "", o->figures->votes, o->figures->votes[0] ? ")" : "",
        (size_t)s->armed < 3 ? armed[s->armed] : "unknown",
        o->undecided[0] == '\0' ? "decides" : "DECIDES NOTHING", s->term, s->index);
    puts("Attention");
    if (ha_show_attention(o, "  ! ", stdout) == 0)
        puts("  nothing: all is as it should be");
    puts("\nNodes       (* this host)");
    ha_show_nodes(o);
    puts(o->undecided[0] == '\0' ? "\nDomains"
                                 : "\nDomains     (as the log has them; nothing is decided here)");
    if (s->n_domain == 0)
        puts("  none is protected; `migctl ha add DOMAIN` does that");
    else
        domain_table(o);
    survives_text(o);
    figures_text(o);
    if (o->n_failovers > 0) {
        puts("\nFailovers   (as this host saw them)");
        failover_table(o);
    }
}

/* --- a domain --- */

static void node_list(const Migrd__HaOverview *o, const char *what, const uint32_t *ids, size_t n)
{
    char name[HA_WORD_LEN];

    if (n == 0)
        return;
    printf("  %-12s", what);
    for (size_t i = 0; i < n; i++)
        printf("%s%s", i > 0 ? ", " : "", ha_node_name(name, o, ids[i]));
    putchar('\n');
}

static void group(const char *what, const char *name, bool hard)
{
    if (name[0] != '\0')
        printf("  %-12s%s (%s)\n", what, name, hard ? "must" : "if possible");
}

static void policy_text(const Migrd__HaOverview *o, const Migrd__HaPolicy *p)
{
    printf("Policy\n  class       %u%s\n", p->class_, p->class_ == 0 ? " (starts first)" : "");
    printf("  restarts    %u on one node within %u s, then elsewhere\n",
        p->max_restarts != 0 ? p->max_restarts : 3, p->window_s != 0 ? p->window_s : 600);
    node_list(o, "prefers", p->preferred, p->n_preferred);
    node_list(o, "only", p->only, p->n_only);
    group("together", p->together, p->together_hard);
    group("apart", p->apart, p->apart_hard);
    if (p->failback_min != 0)
        printf(
            "  failback    to a better node that has been healthy for %u min\n", p->failback_min);
    if (p->ready_s != 0)
        printf("  ready       after %u s\n", p->ready_s);
    if (p->restart_on_shutdown)
        puts("  shutdown    of the guest's own is undone: it is started again");
}

void ha_show_domain(const Migrd__HaOverview *o, const Migrd__HaDomain *d, const Migrd__HaPlan *p)
{
    char name[HA_WORD_LEN], age[HA_WORD_LEN], why[SAY_LEN];

    printf("%s is %s on %s for %s, epoch %" PRIu64 ", is to %s\n", d->name, ha_domain_state_text(d),
        ha_node_name(name, o, d->owner), ha_since(age, o, d->since), d->epoch,
        d->want_run ? "run" : "be stopped");
    printf("Decided     %s\n", d->why[0] != '\0' ? ha_say(why, sizeof why, o, d->why) : "-");
    if (o->undecided[0] != '\0')
        printf("Undecided   %s\n", o->undecided);
    printf("Proof       of no other copy: %s\n", ha_proof_text(d->proof));
    printf("Fuse        %s\n", d->fused ? "it obeys one: a lease can prove its end"
                               : d->obeys_fuse
                                   ? "not burning yet"
                                   : "none: its end needs power-off or a person's word");
    if (d->not_before > o->log_now)
        printf("Next try    in %s\n", ha_age(age, d->not_before - o->log_now));
    for (size_t i = 0; i < d->n_failed; i++)
        printf("Failed      %u times on %s, first %s ago\n", d->failed[i]->count,
            ha_node_name(name, o, d->failed[i]->node), ha_since(age, o, d->failed[i]->since));
    if (d->origin != 0)
        printf("Home        %s, which was drained\n", ha_node_name(name, o, d->origin));
    if (d->policy != NULL)
        policy_text(o, d->policy);
    if (p == NULL || p->n_step == 0)
        return;
    ha_say(why, sizeof why, o, p->step[0]->why);
    if (p->step[0]->n_rejected > 0 && strstr(why, "; not: ") != NULL)
        *strstr(why, "; not: ") = '\0'; /* they follow, a line each */
    printf("If it had to start now\n  %s\n", why);
    for (size_t i = 0; i < p->step[0]->n_rejected; i++)
        printf("  not %s: it %s\n", ha_node_name(name, o, p->step[0]->rejected[i]->node),
            ha_say(why, sizeof why, o, p->step[0]->rejected[i]->reason));
}

/* --- a plan --- */

static const char *needs_text(Migrd__HaProof p)
{
    return p == MIGRD__HA_PROOF__PROOF_OPERATOR ? "power-off or a person" : ha_proof_text(p);
}

void ha_show_plan(const Migrd__HaOverview *o, const Migrd__HaPlan *p)
{
    struct table *t;

    if (p->n_step == 0) {
        puts("No domain would have to be started.");
        return;
    }
    t = table_new("lrlrll");
    table_row(t, "Domain", "Class", "To", "Start", "Proof", "Why");
    for (size_t i = 0; i < p->n_step; i++) {
        const Migrd__HaPlanStep *s = p->step[i];
        char to[HA_WORD_LEN], order[16] = "-", class[16], why[SAY_LEN];

        snprintf(class, sizeof class, "%u", s->class_);
        if (s->node != 0)
            snprintf(order, sizeof order, "%u.", s->order);
        table_row(t, s->name, class, s->node != 0 ? ha_node_name(to, o, s->node) : "NOWHERE", order,
            needs_text(s->proof), ha_say(why, sizeof why, o, s->why));
    }
    table_print(&t, "", stdout);
}
