/* SPDX-License-Identifier: ISC */
/* Dry runs between two workers: a forecast, a refusal, a cancel, a death, and a target that does
 * not know what a dry run is; the guest runs on, nothing is built. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "precopy_lab.h"

#define PAGES 4096u
#define DRY_RUN_TAG 0x7a /* field 15, length-delimited: not the Offer's 0x0a */

static void start(struct lab *l, const struct lab_scenario *sc)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__SourceStart s = MIGRD__SOURCE_START__INIT;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;
    Migrd__PrecopyParams par = sc->par;

    lab_init(l, sc, PAGES);
    fake_fill(l->d[LAB_SRC], 8, 4);
    l->d[LAB_SRC]->ws_first = 1000;
    l->d[LAB_SRC]->ws_pages = 1000;
    l->d[LAB_SRC]->pages_per_s = 2000;
    fake_start_guest(l->d[LAB_SRC]);
    lab_listen(l);
    lab_worker(l, LAB_SRC);
    d.uuid = (char *)LAB_SOURCE;
    d.name = (char *)"guest";
    s.hypervisor = (char *)"fake";
    s.domain = &d;
    s.epoch = LAB_EPOCH;
    s.host = (char *)"127.0.0.1";
    s.port = l->port;
    s.own_name = (char *)"host1";
    s.params = &par;
    m.body_case = MIGRD__TO_WORKER__BODY_DRY_RUN;
    m.dry_run = &s;
    lab_tell(l, LAB_SRC, &m, -1);
}

static struct lab_scenario scenario(void)
{
    struct lab_scenario sc = { .sandbox = true };

    migrd__precopy_params__init(&sc.par);
    sc.par.live = 1;
    sc.par.channels = 1;
    sc.par.pause_budget_ms = 300;
    return sc;
}

static void untouched(const struct lab *l)
{
    uint64_t before = atomic_load(&l->d[LAB_SRC]->written);

    assert_true(atomic_load(&l->d[LAB_SRC]->run));
    assert_false(atomic_load(&l->d[LAB_SRC]->log_on));
    usleep(50000);
    assert_true(atomic_load(&l->d[LAB_SRC]->written) > before);
    assert_int_equal(atomic_load(&l->d[LAB_DST]->state), HV_INCOMING);
    assert_int_equal(l->seen[LAB_DST][MIGRD__FROM_WORKER__BODY_WANT_READY], 0);
    assert_int_equal(l->seen[LAB_SRC][MIGRD__FROM_WORKER__BODY_WANT_PAUSE], 0);
}

/* The target's report has come, with either answer. */
static void expect_report(const struct lab *l, const char *result)
{
    const Migrd__CheckReport *r = lab_finished(l, LAB_SRC)->checks;

    assert_non_null(r);
    assert_int_equal(r->n_checks, 1);
    assert_string_equal(r->checks[0]->result, result);
    assert_string_equal(r->checks[0]->text, LAB_CHECK);
}

static void test_forecast(void **state)
{
    const struct lab_scenario sc = scenario();
    const Migrd__Forecast *f;
    struct lab l;

    (void)state;
    start(&l, &sc);
    lab_worker(&l, LAB_DST);
    assert_true(lab_drive(&l));
    assert_string_equal(lab_finished(&l, LAB_SRC)->text, "");
    assert_true(lab_finished(&l, LAB_SRC)->ok);
    assert_true(lab_finished(&l, LAB_DST)->ok);
    f = lab_finished(&l, LAB_SRC)->forecast;
    assert_non_null(f);
    expect_report(&l, "ok");
    assert_true(f->converges > 0.9);
    assert_true(f->total_ms > 0 && f->pause_ms > 0 && f->wire_bytes > 0 && f->probe_bandwidth > 0);
    assert_true(f->populated_pages > 0);
    assert_true(f->n_curve >= 8);
    for (size_t i = 1; i < f->n_curve; i++) {
        assert_true(f->curve[i]->ms > f->curve[i - 1]->ms);
        assert_true(f->curve[i]->pages >= f->curve[i - 1]->pages);
    }
    /* 2000 pages a second into 1000 pages: all of them are written in the end. */
    assert_in_range(f->curve[f->n_curve - 1]->pages, 900, 1100);
    untouched(&l);
    lab_end(&l);
}

static void test_refused(void **state)
{
    struct lab_scenario sc = scenario();
    struct lab l;

    (void)state;
    sc.disturb = (struct lab_disturb){
        .who = LAB_DST, .on = MIGRD__FROM_WORKER__BODY_OFFER, .nth = 1, .what = LAB_SAY_NO
    };
    start(&l, &sc);
    lab_worker(&l, LAB_DST);
    assert_true(lab_drive(&l));
    assert_false(lab_finished(&l, LAB_SRC)->ok);
    assert_string_equal(lab_finished(&l, LAB_SRC)->code, "memory");
    assert_null(lab_finished(&l, LAB_SRC)->forecast);
    expect_report(&l, "refused");
    untouched(&l);
    lab_end(&l);
}

/* The third remark is made before it samples. */
static void disturbed(enum lab_do what)
{
    struct lab_scenario sc = scenario();
    struct lab l;

    sc.disturb = (struct lab_disturb){
        .who = LAB_SRC, .on = MIGRD__FROM_WORKER__BODY_PROGRESS, .nth = 3, .what = what
    };
    sc.expect_kill[LAB_SRC] = what == LAB_KILL_SELF;
    start(&l, &sc);
    lab_worker(&l, LAB_DST);
    assert_true(lab_drive(&l));
    if (what == LAB_CANCEL) {
        assert_false(lab_finished(&l, LAB_SRC)->ok);
        assert_string_equal(lab_finished(&l, LAB_SRC)->code, "cancelled");
        untouched(&l);
    }
    assert_true(atomic_load(&l.d[LAB_SRC]->run));
    lab_end(&l);
}

static void test_cancelled(void **state)
{
    (void)state;
    disturbed(LAB_CANCEL);
}

static void test_dies(void **state)
{
    (void)state;
    disturbed(LAB_KILL_SELF);
}

static void read_all(int fd, uint8_t *buf, size_t len)
{
    assert_int_equal(io_read_full(fd, buf, len, clock_ns() + 5 * NS_PER_S, NULL), 0);
}

/* A release without dry runs sees a message that it does not know, refuses and hangs up. */
static void test_older_target(void **state)
{
    static const uint8_t refuse[] = { 0, 0, 0, 10, 0x1a, 8, 0x0a, 0, 0x12, 4, 'w', 'h', 'a', 't' };
    const struct lab_scenario sc = scenario();
    char line[TR_LINE_MAX];
    uint8_t head[5], c = 0;
    struct lab l;
    int fd;

    (void)state;
    start(&l, &sc);
    fd = accept4(l.listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(write(fd, line, tr_greeting(line, "host2")) > 0);
    while (c != '\n')
        read_all(fd, &c, 1);
    assert_true(write(fd, line, tr_go_ahead(line)) > 0);
    read_all(fd, head, sizeof head);
    assert_int_equal(head[4], DRY_RUN_TAG);
    assert_true(write(fd, refuse, sizeof refuse) > 0);
    assert_true(lab_drive(&l));
    close(fd);
    assert_false(lab_finished(&l, LAB_SRC)->ok);
    assert_non_null(strstr(lab_finished(&l, LAB_SRC)->text, "what"));
    untouched(&l);
    lab_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forecast),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_dies),
        cmocka_unit_test(test_older_target),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
