/* SPDX-License-Identifier: ISC */
/* The order of a channel's frames, as a target's receiver takes it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "pages_fake.h"
#include "precopy/receiver.h"
#include "tests/unit/transport_util.h"

struct step {
    enum frame_type type; /* 0: the last */
    uint32_t round;
};

struct stage {
    struct hv_mig from, to;
    struct pf_pipe pipe;
    struct pages_writer *w;
    struct tr_conn *out, *in, *msg[2];
    struct receiver *rx;
};

static void begin(struct stage *s)
{
    static const struct tr_options opt = { .patient = true };
    struct err e;

    memset(s, 0, sizeof *s);
    pf_guest(&s->from, false);
    pf_guest(&s->to, false);
    s->w = pf_writer(&s->from, &s->pipe);
    util_pair(&opt, &opt, &s->out, &s->in);
    util_pair(&opt, &opt, &s->msg[0], &s->msg[1]);
    s->rx = receiver_new(&pf_ops, &s->to, &pf_layout, &s->in, 1, FRAME_PLAIN, s->msg[1], &e);
    assert_non_null(s->rx);
}

static void end(struct stage *s)
{
    receiver_free(&s->rx);
    tr_close(&s->out);
    tr_close(&s->in);
    tr_close(&s->msg[0]);
    tr_close(&s->msg[1]);
    free(s->w);
    free(s->pipe.data);
    free(s->from.mem);
    free(s->to.mem);
}

static void send_step(struct stage *s, const struct step *st)
{
    uint64_t page[HV_BITMAP_WORDS(PF_PAGES - 1)] = { 1 };
    struct pages_round r = { .number = st->round, .bitmap = page };
    struct err e;

    s->pipe.len = 0;
    if (st->type == FRAME_PAGES)
        assert_int_equal(pages_write_round(s->w, &r, &e), 0);
    else
        assert_int_equal(pages_write_mark(s->w, st->type, st->round, &e), 0);
    tr_write(s->out, s->pipe.data, s->pipe.len, &e);
}

/* What the receiver says of these frames; ERR_NONE: they are complete. */
static enum err_code verdict(const struct step *steps)
{
    struct err e = { 0 };
    struct stage s;

    begin(&s);
    for (; steps->type != 0; steps++)
        send_step(&s, steps);
    if (receiver_wait_end(s.rx, clock_ns() + 300 * NS_PER_MS, &e) == 0)
        e.code = ERR_NONE;
    end(&s);
    return e.code;
}

static void frames_in_order_are_taken(void **state)
{
    const struct step one[] = { { FRAME_ROUND_END, 0 }, { FRAME_END, 0 }, { 0 } },
                      two[] = { { FRAME_PAGES, 0 }, { FRAME_ROUND_END, 0 }, { FRAME_PAGES, 1 },
                          { FRAME_PAGES, 1 }, { FRAME_ROUND_END, 1 }, { FRAME_END, 1 }, { 0 } };

    (void)state;
    assert_int_equal(verdict(one), ERR_NONE);
    assert_int_equal(verdict(two), ERR_NONE);
}

static void other_orders_are_refused(void **state)
{
    static const struct step bad[][5] = {
        { { FRAME_END, 0 } }, /* before any round */
        { { FRAME_END, UINT32_MAX } },
        { { FRAME_PAGES, 0 }, { FRAME_END, 0 } },
        { { FRAME_ROUND_END, 0 }, { FRAME_END, 1 } }, /* another round's */
        { { FRAME_ROUND_END, 0 }, { FRAME_ROUND_END, 1 }, { FRAME_END, 0 } },
        { { FRAME_ROUND_END, 0 }, { FRAME_PAGES, 1 }, { FRAME_END, 0 } }, /* inside of a round */
        { { FRAME_ROUND_END, 0 }, { FRAME_PAGES, 1 }, { FRAME_END, 1 } },
        { { FRAME_PAGES, 1 } },
        { { FRAME_ROUND_END, 1 } },
        { { FRAME_ROUND_END, 0 }, { FRAME_ROUND_END, 0 } },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (verdict(bad[i]) != ERR_PROTOCOL)
            fail_msg("order %u is not refused", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_in_order_are_taken),
        cmocka_unit_test(other_orders_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
