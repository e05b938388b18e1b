/* SPDX-License-Identifier: ISC */
/* Who speaks for a node, the thread for calls that block, and a host without corosync; what real
 * corosyncs do is in tests/integration/t_ha_ring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <corosync/corotypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cluster/blocking.h"
#include "cluster/nodelist.h"
#include "cluster/ring.h"
#include "cluster/ring_error.h"
#include "cluster/ring_group.h"

/* --- the group --- */

struct list {
    struct ring_process p[40];
    size_t n;
};

/* "1/10 2/20" */
static struct list list_of(const char *text)
{
    struct list l = { .n = 0 };
    int used;

    while (sscanf(text, " %u/%u%n", &l.p[l.n].node, &l.p[l.n].pid, &used) == 2) {
        l.n++;
        text += used;
    }
    return l;
}

static bool change(struct ring_group *g, const char *now, const char *gone, const char *come)
{
    struct list a = list_of(now), b = list_of(gone), c = list_of(come);

    return ring_group_change(g, a.p, a.n, b.p, b.n, c.p, c.n);
}

static void test_group(void **state)
{
    struct ring_group g = { .n = 0 };

    (void)state;
    assert_true(change(&g, "2/20", "", "2/20"));
    assert_true(change(&g, "2/20 1/10", "", "1/10"));
    assert_int_equal(g.n, 2);
    assert_int_equal(g.member[0].node, 1);
    assert_true(ring_group_speaks(&g, 2, 20));
    assert_false(ring_group_speaks(&g, 2, 21));
    assert_false(change(&g, "1/10 2/20", "", "")); /* another order of the same */
    assert_true(change(&g, "1/10", "2/20", ""));
    assert_true(change(&g, "1/10 2/20", "", "2/20"));
    assert_true(change(&g, "", "1/10 2/20", ""));
    assert_int_equal(g.n, 0);
}

static void test_restart(void **state)
{
    struct ring_group g = { .n = 0 };

    (void)state;
    change(&g, "1/10 2/20", "", "1/10 2/20");
    assert_true(change(&g, "1/10 2/21", "2/20", "2/21"));
    assert_true(ring_group_speaks(&g, 2, 21));
    assert_false(ring_group_speaks(&g, 2, 20));
    assert_true(change(&g, "1/10 2/21", "2/21", "2/21")); /* the number again */
}

/* A second process on a node comes and goes: nobody is told. */
static void test_second(void **state)
{
    struct ring_group g = { .n = 0 };

    (void)state;
    change(&g, "1/10 2/20", "", "1/10 2/20");
    assert_false(change(&g, "1/10 2/20 2/99", "", "2/99"));
    assert_true(ring_group_speaks(&g, 2, 20));
    assert_false(ring_group_speaks(&g, 2, 99));
    assert_false(change(&g, "1/10 2/20", "2/99", ""));
    change(&g, "1/10 2/20 2/99", "", "2/99");
    assert_true(change(&g, "1/10 2/99", "2/20", "")); /* now it is the one */
    assert_true(ring_group_speaks(&g, 2, 99));
}

static void test_too_many(void **state)
{
    struct ring_group g = { .n = 0 };
    struct ring_process all[HA_NODES_MAX + 1];

    (void)state;
    for (unsigned i = 0; i <= HA_NODES_MAX; i++)
        all[i] = (struct ring_process){ i + 1, 7 };
    assert_true(ring_group_change(&g, all, HA_NODES_MAX + 1, NULL, 0, NULL, 0));
    assert_true(g.overflow);
    assert_int_equal(g.n, HA_NODES_MAX);
    assert_true(ring_group_change(&g, all, 3, NULL, 0, NULL, 0));
    assert_false(g.overflow);
}

/* --- the thread --- */

static uv_loop_t loop;
static unsigned worked, done, dropped; /* `dropped` and `worked` by the thread: read after it */
static int gate[2], ended[2];

struct job {
    struct blocking_job job;
    bool waits;
    unsigned number;
};

static void work(struct blocking_job *b)
{
    char c;

    if (((struct job *)b)->waits)
        assert_int_equal(read(gate[0], &c, 1), 1);
    __atomic_add_fetch(&worked, 1, __ATOMIC_SEQ_CST);
}

static void on_done(struct blocking_job *b)
{
    assert_int_equal(((struct job *)b)->number, done);
    done++;
    free(b);
}

static void on_drop(struct blocking_job *b)
{
    __atomic_add_fetch(&dropped, 1, __ATOMIC_SEQ_CST);
    free(b);
    assert_int_equal(write(ended[1], "x", 1), 1);
}

static void add(struct blocking *b, unsigned number, bool waits)
{
    struct job *j = calloc(1, sizeof *j);

    assert_non_null(j);
    *j = (struct job){ { work, on_done, on_drop, NULL }, waits, number };
    blocking_run(b, &j->job);
}

static void test_blocking(void **state)
{
    struct blocking *b = NULL;
    char c[3];

    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(pipe(gate) | pipe(ended), 0);
    assert_int_equal(blocking_open(&loop, "test", &b, NULL), 0);
    for (unsigned i = 0; i < 100; i++)
        add(b, i, false);
    while (done < 100)
        uv_run(&loop, UV_RUN_ONCE);
    worked = 0;
    add(b, 0, true); /* as if corosync hangs */
    add(b, 0, false);
    add(b, 0, false);
    blocking_close(&b);
    assert_null(b);
    blocking_close(&b);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0); /* the loop ends without the thread */
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(done, 100);
    assert_int_equal(write(gate[1], "x", 1), 1);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(read(ended[0], &c[i], 1), 1);
    assert_int_equal(__atomic_load_n(&dropped, __ATOMIC_SEQ_CST), 3);
    assert_in_range(__atomic_load_n(&worked, __ATOMIC_SEQ_CST), 0, 1);
    for (unsigned i = 0; i < 2; i++) {
        close(gate[i]);
        close(ended[i]);
    }
}

/* --- no corosync --- */

static void on_view(void *arg, const uint32_t *members, unsigned n)
{
    (void)arg, (void)members, (void)n;
    fail_msg("a view without corosync");
}

static void on_quorum(void *arg, bool quorate)
{
    (void)arg, (void)quorate;
    fail_msg("a quorum without corosync");
}

static void on_message(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    (void)arg, (void)from, (void)bytes, (void)len;
    fail_msg("a message without corosync");
}

static void on_nodes(void *arg, const struct node_list *list)
{
    (void)arg, (void)list;
    fail_msg("nodes without corosync");
}

/* Here, as in a container or before a boot is through, there is none. */
static void test_no_corosync(void **state)
{
    static const struct corosync_callbacks cb = { on_view, on_quorum, on_message };
    struct corosync_ring *r = NULL;
    struct nodelist *l = NULL;
    struct corosync_figures f;
    char name[200];
    struct err e;

    (void)state;
    if (access("/run/corosync.pid", F_OK) == 0)
        skip();
    uv_loop_init(&loop);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(corosync_open(&loop, name, &cb, NULL, &r, &e), -1);
    assert_int_equal(corosync_open(&loop, "test", &cb, NULL, &r, &e), 0);
    assert_int_equal(nodelist_open(&loop, on_nodes, NULL, &l, &e), 0);
    assert_false(corosync_send(r, (const uint8_t *)"x", 1));
    for (unsigned tries = 0; tries < 500; tries++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(2000);
        corosync_figures(r, &f);
        if (strstr(f.text, "systemctl start") && strstr(nodelist_text(l), "systemctl start"))
            break;
    }
    assert_false(f.up);
    assert_non_null(strstr(f.text, "systemctl start corosync"));
    assert_non_null(strstr(nodelist_text(l), "systemctl start corosync"));
    assert_null(nodelist_get(l));
    corosync_stop(r);
    nodelist_stop(l);
    corosync_stop(r);
    nodelist_stop(l);
    uv_run(&loop, UV_RUN_DEFAULT);
    corosync_close(&r);
    nodelist_close(&l);
    corosync_close(&r);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_errors(void **state)
{
    static const struct {
        int cs;
        const char *has;
    } c[] = { { CS_ERR_LIBRARY, "systemctl start corosync" }, { CS_ERR_TRY_AGAIN, "starting" },
        { CS_ERR_ACCESS, "uidgid.d" }, { CS_ERR_NOT_EXIST, "/dev/shm" },
        { CS_ERR_EXIST, "another migrd" }, { CS_ERR_NO_MEMORY, "/dev/shm" },
        { CS_ERR_VERSION, "error 3" } };
    struct err e;

    (void)state;
    for (unsigned i = 0; i < sizeof c / sizeof *c; i++) {
        assert_int_equal(ring_error(&e, c[i].cs, "cpg"), -1);
        assert_non_null(strstr(e.text, c[i].has));
        assert_non_null(strstr(e.text, "cpg"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_second),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_blocking),
        cmocka_unit_test(test_no_corosync),
        cmocka_unit_test(test_errors),
    };

    log_set_level(LOG_LV_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
