/* SPDX-License-Identifier: ISC */
/*
 * Every way in which a migration can be disturbed, and what must be left of it. The rule
 * in all cases: never two copies that run. Before COMMITTED the guest goes on at the
 * source as if nothing had been, after it the source stays paused.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "precopy_lab.h"

#define PAGES 4096u

enum left { STAYS, IN_DOUBT, MOVED, GONE };

struct fault_case {
    const char *name;
    enum left left;
    const char *code; /* of the source's Finished; NULL: any */
    struct lab_disturb disturb;
    const char *source_fault, *target_fault;
    uint64_t bandwidth;
};

#define ON(kind) MIGRD__FROM_WORKER__BODY_##kind

/* clang-format off */
static const struct fault_case cases[] = {
    { "no disturbance", MOVED, NULL, { 0 }, NULL, NULL, 0 },
    { "cap lifted on the way", MOVED, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_SET_PARAMS, 0 }, NULL, NULL, 5000000 },
    { "stopped in round 0", MOVED, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_STOP_GUEST, 0 }, NULL, NULL, 20000000 },
    { "stopped in round 0, which fails", STAYS, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_STOP_GUEST, 0 }, "source-round-0-end=error", NULL, 20000000 },
    { "stopped when accepted", MOVED, NULL, { LAB_SRC, ON(ACCEPTED), 1, LAB_STOP_GUEST, 0 }, NULL, NULL, 0 },

    { "cancel when accepted", STAYS, "cancelled", { LAB_SRC, ON(ACCEPTED), 1, LAB_CANCEL, 0 }, NULL, NULL, 0 },
    { "cancel in round 0", STAYS, "cancelled", { LAB_SRC, ON(PROGRESS), 3, LAB_CANCEL, 0 }, NULL, NULL, 20000000 },
    { "cancel before the pause", STAYS, "cancelled", { LAB_SRC, ON(WANT_PAUSE), 1, LAB_CANCEL, 0 }, NULL, NULL, 0 },
    { "migrd refuses the pause", STAYS, "refused", { LAB_SRC, ON(WANT_PAUSE), 1, LAB_SAY_NO, 0 }, NULL, NULL, 0 },
    { "migrd refuses to commit", STAYS, "refused", { LAB_SRC, ON(WANT_COMMIT), 1, LAB_SAY_NO, 0 }, NULL, NULL, 0 },
    { "source's migrd dies when accepted", STAYS, NULL, { LAB_SRC, ON(ACCEPTED), 1, LAB_DIE, 0 }, NULL, NULL, 0 },
    { "source's migrd dies in round 0", STAYS, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_DIE, 0 }, NULL, NULL, 20000000 },
    { "source's migrd dies before the pause", STAYS, NULL, { LAB_SRC, ON(WANT_PAUSE), 1, LAB_DIE, 0 }, NULL, NULL, 0 },
    { "source's migrd dies at the commit", IN_DOUBT, NULL, { LAB_SRC, ON(WANT_COMMIT), 1, LAB_DIE, 0 }, NULL, NULL, 0 },

    { "target's migrd refuses the offer", STAYS, "memory", { LAB_DST, ON(OFFER), 1, LAB_SAY_NO, 0 }, NULL, NULL, 0 },
    { "target's migrd cancels at the offer", STAYS, NULL, { LAB_DST, ON(OFFER), 1, LAB_CANCEL, 0 }, NULL, NULL, 0 },
    { "target's migrd dies at the offer", STAYS, NULL, { LAB_DST, ON(OFFER), 1, LAB_DIE, 0 }, NULL, NULL, 0 },
    { "target's migrd cancels in round 0", STAYS, NULL, { LAB_DST, ON(PROGRESS), 1, LAB_CANCEL, 0 }, NULL, NULL, 20000000 },
    { "target's migrd is not ready", STAYS, "refused", { LAB_DST, ON(WANT_READY), 1, LAB_SAY_NO, 0 }, NULL, NULL, 0 },
    { "target's migrd cancels before ready", STAYS, NULL, { LAB_DST, ON(WANT_READY), 1, LAB_CANCEL, 0 }, NULL, NULL, 0 },
    { "target's migrd dies before ready", STAYS, NULL, { LAB_DST, ON(WANT_READY), 1, LAB_DIE, 0 }, NULL, NULL, 0 },
    { "target's migrd refuses to run it", IN_DOUBT, NULL, { LAB_DST, ON(GO_RECEIVED), 1, LAB_SAY_NO, 0 }, NULL, NULL, 0 },
    { "target's migrd dies at GO", IN_DOUBT, NULL, { LAB_DST, ON(GO_RECEIVED), 1, LAB_DIE, 0 }, NULL, NULL, 0 },

    { "target killed when accepted", STAYS, NULL, { LAB_SRC, ON(ACCEPTED), 1, LAB_KILL_OTHER, 0 }, NULL, NULL, 0 },
    { "target killed in round 0", STAYS, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_KILL_OTHER, 0 }, NULL, NULL, 20000000 },
    { "target killed before the pause", STAYS, NULL, { LAB_SRC, ON(WANT_PAUSE), 1, LAB_KILL_OTHER, 0 }, NULL, NULL, 0 },
    { "target killed before ready", STAYS, NULL, { LAB_DST, ON(WANT_READY), 1, LAB_KILL_SELF, 0 }, NULL, NULL, 0 },
    { "target killed at the commit", IN_DOUBT, NULL, { LAB_SRC, ON(WANT_COMMIT), 1, LAB_KILL_OTHER, 0 }, NULL, NULL, 0 },
    { "source killed at the offer", GONE, NULL, { LAB_DST, ON(OFFER), 1, LAB_KILL_OTHER, 0 }, NULL, NULL, 0 },
    { "source killed in round 0", GONE, NULL, { LAB_SRC, ON(PROGRESS), 3, LAB_KILL_SELF, 0 }, NULL, NULL, 20000000 },
    { "source killed before ready", GONE, NULL, { LAB_DST, ON(WANT_READY), 1, LAB_KILL_OTHER, 0 }, NULL, NULL, 0 },
    { "source killed at the commit", GONE, NULL, { LAB_SRC, ON(WANT_COMMIT), 1, LAB_KILL_SELF, 0 }, NULL, NULL, 0 },

    { "error: source-connected", STAYS, "internal", { 0 }, "source-connected=error", NULL, 0 },
    { "error: source-round-0-end", STAYS, "internal", { 0 }, "source-round-0-end=error", NULL, 0 },
    { "error: source-last-round", STAYS, "internal", { 0 }, "source-last-round=error", NULL, 0 },
    { "error: target-loaded", STAYS, "internal", { 0 }, NULL, "target-loaded=error", 0 },
    { "error: source-after-pause, and the resume fails once", STAYS, "internal", { 0 }, "source-after-pause=error,source-resume=error", NULL, 0 },
    { "error: source-last-round, and the resume fails three times", STAYS, "internal", { 0 }, "source-last-round=error,source-resume=error,source-resume=error,source-resume=error", NULL, 0 },
    { "error: source-before-pause", STAYS, "internal", { 0 }, "source-before-pause=error", NULL, 0 },
    { "error: source-after-pause", STAYS, "internal", { 0 }, "source-after-pause=error", NULL, 0 },
    { "error: source-before-commit", STAYS, "internal", { 0 }, "source-before-commit=error", NULL, 0 },
    { "error: source-after-commit", IN_DOUBT, "internal", { 0 }, "source-after-commit=error", NULL, 0 },
    { "error: source-after-go", IN_DOUBT, "internal", { 0 }, "source-after-go=error", NULL, 0 },
    { "error: target-offer", STAYS, "internal", { 0 }, NULL, "target-offer=error", 0 },
    { "error: target-before-ready", STAYS, "internal", { 0 }, NULL, "target-before-ready=error", 0 },
    { "error: target-after-ready", IN_DOUBT, NULL, { 0 }, NULL, "target-after-ready=error", 0 },
    { "error: target-after-go", IN_DOUBT, "internal", { 0 }, NULL, "target-after-go=error", 0 },
    { "error: target-after-running", IN_DOUBT, "internal", { 0 }, NULL, "target-after-running=error", 0 },
    { "kill: source-after-pause", GONE, NULL, { 0 }, "source-after-pause=kill", NULL, 0 },
    { "kill: source-after-commit", GONE, NULL, { 0 }, "source-after-commit=kill", NULL, 0 },
    { "kill: source-after-go", GONE, NULL, { 0 }, "source-after-go=kill", NULL, 0 },
    { "kill: target-offer", STAYS, NULL, { 0 }, NULL, "target-offer=kill", 0 },
    { "kill: target-before-ready", STAYS, NULL, { 0 }, NULL, "target-before-ready=kill", 0 },
    { "kill: target-after-ready", IN_DOUBT, NULL, { 0 }, NULL, "target-after-ready=kill", 0 },
    { "kill: target-after-go", IN_DOUBT, NULL, { 0 }, NULL, "target-after-go=kill", 0 },
    { "kill: target-after-running", IN_DOUBT, NULL, { 0 }, NULL, "target-after-running=kill", 0 },
    { "stop: target silent in the hand-over", STAYS, NULL, { 0 }, NULL, "target-before-ready=sleep:4000", 0 },
};
/* clang-format on */

static bool both_run(const struct lab *l)
{
    return atomic_load(&l->d[LAB_SRC]->run) && atomic_load(&l->d[LAB_DST]->state) == HV_RUNNING;
}

static void check_sane_exit(const struct lab *l)
{
    for (int i = 0; i < 2; i++) {
        int s = l->end[i].status;

        assert_true(
            (WIFEXITED(s) && WEXITSTATUS(s) == 0) || (WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL));
    }
}

static void check_stays(const struct lab *l, const struct fault_case *c)
{
    const Migrd__Finished *f = lab_finished(l, LAB_SRC);
    const struct fake_domain *d = l->d[LAB_SRC];

    assert_true(atomic_load(&d->run));
    assert_int_equal(atomic_load(&d->throttle), 0);
    assert_false(atomic_load(&d->log_on));
    assert_int_equal(l->go_received, 0);
    if (f == NULL) { /* nobody was left to tell */
        assert_int_equal(c->disturb.what, LAB_DIE);
        return;
    }
    assert_false(f->ok);
    assert_true(f->guest_resumed);
    assert_true(f->phase < MIGRD__PHASE__PHASE_COMMITTED);
    assert_true(strlen(f->text) > 10);
    if (c->code != NULL)
        assert_string_equal(f->code, c->code);
}

static void check_doubt(const struct lab *l, const struct fault_case *c)
{
    const Migrd__Finished *f = lab_finished(l, LAB_SRC);

    assert_false(atomic_load(&l->d[LAB_SRC]->run));
    if (f == NULL) {
        assert_int_equal(c->disturb.what, LAB_DIE);
        return;
    }
    assert_false(f->ok);
    assert_false(f->guest_resumed);
    assert_int_equal(f->phase, MIGRD__PHASE__PHASE_COMMITTED);
}

static void check_moved(const struct lab *l)
{
    assert_true(lab_finished(l, LAB_SRC)->ok);
    assert_true(lab_finished(l, LAB_DST)->ok);
    assert_false(atomic_load(&l->d[LAB_SRC]->run));
    assert_int_equal(
        memcmp(l->d[0]->mem, l->d[1]->mem, (fake_max_gfn(l->d[0]) + 1) * HV_PAGE_SIZE), 0);
}

static void run_case(const struct fault_case *c)
{
    struct lab_scenario sc = {
        .disturb = c->disturb, .fault = { c->source_fault, c->target_fault }, .limit_s = 40
    };
    uint64_t began = clock_ns();
    struct lab l;

    migrd__precopy_params__init(&sc.par);
    sc.par.live = 1;
    sc.par.channels = 2;
    sc.par.throttle_max = 80;
    sc.par.pause_budget_ms = 1000; /* the machine may be busy */
    sc.par.dead_peer_ms = 2000;
    sc.par.bandwidth = c->bandwidth;
    lab_init(&l, &sc, PAGES);
    fake_fill(l.d[LAB_SRC], 8, 4);
    l.d[LAB_SRC]->ws_first = 1000;
    l.d[LAB_SRC]->ws_pages = 1000;
    l.d[LAB_SRC]->pages_per_s = 2000;
    fake_start_guest(l.d[LAB_SRC]);
    assert_true(lab_run(&l));
    if (lab_finished(&l, LAB_SRC) != NULL)
        print_message("    %s: %.2f s: %s\n", c->name, (double)(clock_ns() - began) / 1e9,
            lab_finished(&l, LAB_SRC)->text);
    assert_false(both_run(&l));
    check_sane_exit(&l);
    if (c->left == STAYS)
        check_stays(&l, c);
    else if (c->left == IN_DOUBT)
        check_doubt(&l, c);
    else if (c->left == MOVED)
        check_moved(&l);
    else
        assert_null(lab_finished(&l, LAB_SRC));
    lab_end(&l);
}

static void test_case(void **state)
{
    run_case(*state);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[sizeof cases / sizeof cases[0]];
    const char *only = argc > 1 ? argv[1] : "";
    size_t n = 0;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strstr(cases[i].name, only) != NULL)
            tests[n++] = (struct CMUnitTest){
                .name = cases[i].name, .test_func = test_case, .initial_state = (void *)&cases[i]
            };
    return _cmocka_run_group_tests("precopy faults", tests, n, NULL, NULL);
}
