/* SPDX-License-Identifier: ISC */
/* Events: order, replay, subscribers that come and go inside a callback, counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "migrd/events.h"

struct seen {
    struct events *e;
    unsigned n;
    uint64_t first, last;
    char type[32], json[64];
    int leave; /* number to unsubscribe at the next event, 0 none */
};

static void see(void *arg, const struct event *ev)
{
    struct seen *s = arg;

    if (s->n++ == 0)
        s->first = ev->id;
    s->last = ev->id;
    snprintf(s->type, sizeof s->type, "%s", ev->type);
    snprintf(s->json, sizeof s->json, "%s", ev->json);
    assert_non_null(ev->uuid);
    assert_non_null(ev->migration);
    if (s->leave != 0)
        events_unsubscribe(s->e, s->leave);
}

static uint64_t publish(struct events *e, const char *type, char *json)
{
    struct event ev = { .type = type, .json = json };

    return events_publish(e, &ev);
}

static void in_order_and_complete(void **state)
{
    struct events *e = events_new();
    struct seen s = { .e = e };
    char json[] = "{\"a\":1}";

    (void)state;
    assert_true(events_subscribe(e, 0, see, &s) > 0);
    assert_int_equal(publish(e, "domain-started", json), 1);
    assert_int_equal(publish(e, "domain-gone", NULL), 2);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.last, 2);
    assert_string_equal(s.type, "domain-gone");
    assert_string_equal(s.json, "{}");
    events_free(&e);
    assert_null(e);
}

static void replay_what_is_kept(void **state)
{
    struct events *e = events_new();
    struct seen late = { .e = e }, all = { .e = e }, none = { .e = e };

    (void)state;
    for (int i = 0; i < EVENTS_KEPT + 50; i++)
        publish(e, "x", NULL);
    events_subscribe(e, EVENTS_KEPT + 40, see, &late);
    events_subscribe(e, 0, see, &all);
    events_subscribe(e, UINT64_MAX - 1, see, &none);
    assert_int_equal(late.n, 10);
    assert_int_equal(late.first, EVENTS_KEPT + 41);
    assert_int_equal(all.n, EVENTS_KEPT);
    assert_int_equal(all.first, 51);
    assert_int_equal(none.n, 0);
    events_free(&e);
}

static void leaving_inside_a_callback(void **state)
{
    struct events *e = events_new();
    struct seen a = { .e = e }, b = { .e = e };
    int nb;

    (void)state;
    a.leave = events_subscribe(e, 0, see, &a);
    nb = events_subscribe(e, 0, see, &b);
    publish(e, "x", NULL);
    publish(e, "x", NULL);
    assert_int_equal(a.n, 1);
    assert_int_equal(b.n, 2);
    a.leave = nb;
    events_subscribe(e, 2, see, &a); /* before b in the table: b is gone when its turn comes */
    publish(e, "x", NULL);
    assert_int_equal(b.n, 2);
    events_free(&e);
}

static void crowd_is_bounded(void **state)
{
    struct events *e = events_new();
    struct seen s = { .e = e };
    int n = 0;

    (void)state;
    while (n < 1000 && events_subscribe(e, 0, see, &s) > 0)
        n++;
    assert_true(n >= 64 && n < 1000);
    events_free(&e);
}

static void counters_count(void **state)
{
    struct events *e = events_new();
    const char *help;
    uint64_t value;

    (void)state;
    ++*events_counter(e, "migrd_a_total", "first");
    *events_counter(e, "migrd_b_total", "second") += 5;
    ++*events_counter(e, "migrd_a_total", "ignored");
    assert_string_equal(events_counter_at(e, 0, &help, &value), "migrd_a_total");
    assert_string_equal(help, "first");
    assert_int_equal(value, 2);
    assert_string_equal(events_counter_at(e, 1, &help, &value), "migrd_b_total");
    assert_int_equal(value, 5);
    assert_null(events_counter_at(e, 2, &help, &value));
    events_free(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_and_complete),
        cmocka_unit_test(replay_what_is_kept),
        cmocka_unit_test(leaving_inside_a_callback),
        cmocka_unit_test(crowd_is_bounded),
        cmocka_unit_test(counters_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
