/* SPDX-License-Identifier: ISC */
/* What is told of a log that changes: news, and the terms of a failover. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "migrd/ha_watch.h"

#define UUID "11111111-2222-3333-4444-555555555555"

/* Two nodes, one domain on the first; seen from the second. */
struct world {
    struct ha_watch *w;
    Migrd__HaState s;
    Migrd__HaLocal local;
    Migrd__HaPeer peer, *peers[1];
    Migrd__HaNode node[2], *nodes[2];
    Migrd__HaDomain domain, *domains[1];
    uint64_t now;
    unsigned news[4], gone;
};

static void count(void *arg, const struct ha_news *n)
{
    struct world *x = arg;

    x->news[n->type]++;
    x->gone += n->gone;
}

static void look(struct world *x, uint64_t ms)
{
    x->now += ms;
    x->s.index++;
    x->s.time += ms;
    ha_watch_look(x->w, &x->s, x->now, 42, count, x);
}

static int begin(void **state)
{
    static struct world x;

    memset(&x, 0, sizeof x);
    x.w = ha_watch_new();
    migrd__ha_state__init(&x.s);
    migrd__ha_local__init(&x.local);
    migrd__ha_peer__init(&x.peer);
    migrd__ha_domain__init(&x.domain);
    x.s.local = &x.local;
    x.local.phase = MIGRD__HA_PHASE__PHASE_ACTIVE;
    x.peer.node = 1;
    x.peers[0] = &x.peer;
    x.local.peer = x.peers;
    x.local.n_peer = 1;
    for (unsigned i = 0; i < 2; i++) {
        migrd__ha_node__init(&x.node[i]);
        x.node[i].id = i + 1;
        x.node[i].state = MIGRD__HA_NODE_STATE__NODE_ONLINE;
        x.nodes[i] = &x.node[i];
    }
    x.s.node = x.nodes;
    x.s.n_node = 2;
    x.domain.uuid = (char *)UUID;
    x.domain.name = (char *)"web1";
    x.domain.owner = 1;
    x.domain.epoch = 5;
    x.domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
    x.domains[0] = &x.domain;
    x.s.domain = x.domains;
    x.s.n_domain = 1;
    x.now = 100000;
    look(&x, 0);
    *state = &x;
    return x.w != NULL ? 0 : -1;
}

static int end(void **state)
{
    struct world *x = *state;

    ha_watch_free(&x->w);
    return x->w == NULL ? 0 : -1;
}

static void first_look_has_no_news(void **state)
{
    struct world *x = *state;

    look(x, 10);
    assert_int_equal(x->news[HA_NEWS_PHASE] + x->news[HA_NEWS_NODE] + x->news[HA_NEWS_DOMAIN] +
                         x->news[HA_NEWS_ARMED],
        0);
    assert_null(ha_watch_failover(x->w, 0));
}

static void a_failover_has_terms(void **state)
{
    struct world *x = *state;
    const Migrd__HaFailover *f;

    x->peer.seen = x->now;
    x->node[0].state = MIGRD__HA_NODE_STATE__NODE_AWAY;
    look(x, 2150);
    x->node[0].state = MIGRD__HA_NODE_STATE__NODE_EXPIRED;
    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING;
    look(x, 4);
    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING;
    x->domain.owner = 2;
    x->domain.epoch = 7;
    x->domain.proof = MIGRD__HA_PROOF__PROOF_LEASE;
    look(x, 7);
    f = ha_watch_failover(x->w, 0);
    assert_non_null(f);
    assert_false(f->running);
    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
    look(x, 337);
    f = ha_watch_failover(x->w, 0);
    assert_string_equal(f->name, "web1");
    assert_int_equal(f->from, 1);
    assert_int_equal(f->to, 2);
    assert_int_equal(f->epoch, 7);
    assert_int_equal(f->proof, MIGRD__HA_PROOF__PROOF_LEASE);
    assert_int_equal(f->detection_ms, 2150);
    assert_int_equal(f->proof_ms, 4);
    assert_int_equal(f->decision_ms, 7);
    assert_int_equal(f->start_ms, 337);
    assert_true(f->running);
    assert_int_equal(x->news[HA_NEWS_NODE], 2);
    assert_int_equal(x->news[HA_NEWS_DOMAIN], 3);
    assert_null(ha_watch_failover(x->w, 1));
}

static void a_move_is_none(void **state)
{
    struct world *x = *state;

    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_MIGRATING;
    look(x, 10);
    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_HANDED;
    x->domain.owner = 2;
    x->domain.epoch = 6;
    look(x, 10);
    x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
    look(x, 10);
    assert_null(ha_watch_failover(x->w, 0));
    assert_int_equal(x->news[HA_NEWS_DOMAIN], 3);
}

static void only_so_many_are_kept(void **state)
{
    struct world *x = *state;

    for (unsigned i = 0; i < HA_WATCH_KEPT + 5; i++) {
        x->domain.epoch += 2;
        x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING;
        look(x, 10);
        x->domain.state = MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
        look(x, 20);
    }
    assert_int_equal(ha_watch_failover(x->w, 0)->epoch, x->domain.epoch);
    assert_int_equal(ha_watch_failover(x->w, 0)->start_ms, 20);
    assert_int_equal(ha_watch_failover(x->w, 0)->detection_ms, 0);
    assert_int_equal(ha_watch_failover(x->w, HA_WATCH_KEPT - 1)->epoch,
        x->domain.epoch - 2 * (HA_WATCH_KEPT - 1));
    assert_null(ha_watch_failover(x->w, HA_WATCH_KEPT));
}

static void what_goes_is_told(void **state)
{
    struct world *x = *state;

    x->s.n_domain = 0;
    x->local.phase = MIGRD__HA_PHASE__PHASE_ALONE;
    x->s.armed = MIGRD__HA_ARMED__DISARMED;
    look(x, 10);
    assert_int_equal(x->gone, 1);
    assert_int_equal(x->news[HA_NEWS_PHASE], 1);
    assert_int_equal(x->news[HA_NEWS_ARMED], 1);
    assert_int_equal(ha_watch_log_now(x->w, x->now + 500), x->s.time + 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(first_look_has_no_news, begin, end),
        cmocka_unit_test_setup_teardown(a_failover_has_terms, begin, end),
        cmocka_unit_test_setup_teardown(a_move_is_none, begin, end),
        cmocka_unit_test_setup_teardown(only_so_many_are_kept, begin, end),
        cmocka_unit_test_setup_teardown(what_goes_is_told, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
