/* SPDX-License-Identifier: ISC */
/* The journal: round trip, replay, torn end, damage in the middle, a disk that refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <signal.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/journal.h"

#define U1 "11111111-2222-3333-4444-555555555555"
#define U2 "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

static char dir[64], path[128];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_journal.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    return 0;
}

static int remove_dir(void **state)
{
    char cmd[128];

    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

static struct journal_record domain_record(const char *uuid, const char *owner, uint64_t epoch)
{
    struct journal_record r = { .kind = JK_DOMAIN, .epoch = epoch, .domid = 7 };

    strcpy(r.uuid, uuid);
    strcpy(r.name, "web1");
    strcpy(r.peer, owner);
    return r;
}

static struct journal_record step_record(
    enum journal_kind kind, enum mt_step step, const char *mig, const char *uuid)
{
    struct journal_record r = {
        .kind = kind, .step = step, .epoch = 4, .port = 8002, .flags = JF_TLS
    };

    strcpy(r.migration, mig);
    strcpy(r.uuid, uuid);
    strcpy(r.peer, "host2.example");
    strcpy(r.cert, "host2");
    return r;
}

static struct journal *open_it(size_t *doubts)
{
    struct journal *j;
    size_t n;
    struct err e;

    if (journal_open(path, &j, doubts != NULL ? doubts : &n, &e) < 0)
        fail_msg("%s", e.text);
    return j;
}

static void append(struct journal *j, struct journal_record r)
{
    struct err e;

    assert_int_equal(journal_append(j, &r, true, &e), 0);
}

struct seen {
    size_t n;
    struct journal_record r[64];
};

static void see(void *arg, const struct journal_record *r)
{
    struct seen *s = arg;

    assert_true(s->n < 64);
    s->r[s->n++] = *r;
}

static struct seen replay(void)
{
    struct journal *j = open_it(NULL);
    static struct seen s;

    s.n = 0;
    journal_replay(j, see, &s);
    journal_close(&j);
    return s;
}

static void line_round_trip(void **state)
{
    struct journal_record r = step_record(JK_OUT, STEP_COMMITTED, U2, U1), back;
    char line[JOURNAL_LINE_MAX];
    struct err e;
    size_t len;

    (void)state;
    r.seq = 42;
    r.wall_ns = 1764000000123456789u;
    strcpy(r.name, "a b%c\nd");
    strcpy(r.text, "operator: host2 is \xc3\xa4 burnt = 100%");
    len = journal_format(line, &r);
    assert_int_equal(line[len - 1], '\n');
    assert_int_equal(journal_parse(line, len - 1, &back, &e), 0);
    assert_memory_equal(&r, &back, sizeof r);
}

static void longest_record_fits(void **state)
{
    struct journal_record r = { .kind = JK_IN,
        .step = STEP_DISCARDED,
        .seq = UINT64_MAX,
        .wall_ns = UINT64_MAX,
        .epoch = UINT64_MAX,
        .port = UINT32_MAX,
        .flags = UINT32_MAX,
        .domid = INT32_MAX };
    char line[JOURNAL_LINE_MAX];
    struct journal_record back;
    struct err e;
    size_t len;

    (void)state;
    memset(r.migration, ' ', sizeof r.migration - 1);
    memset(r.uuid, ' ', sizeof r.uuid - 1);
    memset(r.name, '%', sizeof r.name - 1);
    memset(r.peer, 1, sizeof r.peer - 1);
    memset(r.cert, 2, sizeof r.cert - 1);
    memset(r.text, 3, sizeof r.text - 1);
    len = journal_format(line, &r);
    assert_true(len < JOURNAL_LINE_MAX);
    assert_int_equal(journal_parse(line, len - 1, &back, &e), 0); /* text may be cut, no more */
    assert_string_equal(back.peer, r.peer);
    assert_int_equal(back.epoch, r.epoch);
}

static void any_damage_is_seen(void **state)
{
    struct journal_record r = domain_record(U1, ".", 3), back;
    char line[JOURNAL_LINE_MAX];
    struct err e;
    size_t len;

    (void)state;
    len = journal_format(line, &r) - 1;
    for (size_t i = 0; i < len; i++)
        for (int bit = 0; bit < 8; bit++) {
            line[i] = (char)(line[i] ^ 1 << bit);
            assert_int_equal(journal_parse(line, len, &back, &e), -1);
            line[i] = (char)(line[i] ^ 1 << bit);
        }
    for (size_t n = 0; n < len; n++)
        assert_int_equal(journal_parse(line, n, &back, &e), -1);
}

static void newest_record_counts(void **state)
{
    struct journal *j = open_it(NULL);
    struct seen s;

    (void)state;
    append(j, domain_record(U1, ".", 1));
    append(j, step_record(JK_OUT, STEP_STARTED, "m1", U1));
    append(j, step_record(JK_OUT, STEP_PREPARED, "m1", U1));
    append(j, step_record(JK_OUT, STEP_ABORTED, "m1", U1));
    append(j, step_record(JK_OUT, STEP_COMMITTED, "m2", U1));
    append(j, step_record(JK_IN, STEP_RUNNING, "m3", U2));
    append(j, step_record(JK_IN, STEP_CLOSED, "m4", U2));
    append(j, domain_record(U1, "host2", 2));
    journal_close(&j);
    s = replay();
    assert_int_equal(s.n, 4); /* m1 is over and forgotten, m4 is kept for questions */
    assert_string_equal(s.r[0].migration, "m2");
    assert_int_equal(s.r[0].step, STEP_COMMITTED);
    assert_string_equal(s.r[1].migration, "m3");
    assert_string_equal(s.r[2].migration, "m4");
    assert_string_equal(s.r[3].peer, "host2");
    assert_int_equal(s.r[3].epoch, 2);
    /* Reading it again changes nothing. */
    assert_int_equal(replay().n, 4);
}

static void newest_epoch_owns(void **state)
{
    struct journal *j = open_it(NULL);
    struct seen s;

    (void)state;
    append(j, domain_record(U1, ".", 5));
    append(j, domain_record(U1, "host2", 7));
    append(j, domain_record(U1, ".", 6)); /* written late */
    journal_close(&j);
    s = replay();
    assert_int_equal(s.n, 2);
    assert_int_equal(s.r[0].epoch, 7);
    assert_int_equal(s.r[1].epoch, 6);
}

static void write_raw(const char *text, size_t len)
{
    struct err e;

    assert_int_equal(io_replace_file(path, text, len, 0600, &e), 0);
}

static char *read_raw(size_t *len)
{
    struct err e;
    char *text = io_read_file(path, 1 << 20, len, &e);

    assert_non_null(text);
    return text;
}

static void torn_end_is_cut(void **state)
{
    struct journal *j = open_it(NULL);
    size_t len, doubts;
    char *text;

    (void)state;
    append(j, domain_record(U1, ".", 1));
    append(j, domain_record(U2, ".", 9));
    journal_close(&j);
    text = read_raw(&len);
    /* Every way in which the last line can be cut short. */
    for (size_t keep = strcspn(text, "\n") + 1; keep < len; keep++) {
        struct seen s = { 0 };

        write_raw(text, keep);
        j = open_it(&doubts);
        journal_replay(j, see, &s);
        assert_int_equal(doubts, 0);
        assert_int_equal(s.n, 1);
        assert_string_equal(s.r[0].uuid, U1);
        /* New records go behind the last whole one. */
        append(j, domain_record(U2, ".", 10));
        journal_close(&j);
        assert_int_equal(replay().n, 2);
    }
    free(text);
}

static void damage_puts_its_domain_in_doubt(void **state)
{
    struct journal *j = open_it(NULL);
    struct seen s = { 0 };
    size_t len, doubts;
    char *text;

    (void)state;
    append(j, domain_record(U1, "host2", 5));
    append(j, domain_record(U2, ".", 9));
    journal_close(&j);
    text = read_raw(&len);
    strstr(text, "epoch=5")[6] = '4';
    write_raw(text, len);
    free(text);
    j = open_it(&doubts);
    assert_int_equal(doubts, 1);
    journal_replay(j, see, &s);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.r[0].kind, JK_DOUBT);
    assert_string_equal(s.r[0].uuid, U1);
    assert_int_equal(s.r[1].kind, JK_DOMAIN);
    journal_close(&j);
    /* The doubt lasts until somebody decides. */
    assert_int_equal(replay().r[0].kind, JK_DOUBT);
    j = open_it(&doubts);
    assert_int_equal(doubts, 0);
    append(j, domain_record(U1, ".", 6));
    journal_close(&j);
    s = replay();
    assert_int_equal(s.n, 2);
    assert_int_equal(s.r[1].kind, JK_DOMAIN);
    assert_int_equal(s.r[1].epoch, 6);
}

static void unreadable_damage_doubts_everybody(void **state)
{
    struct journal *j = open_it(NULL);
    struct seen s = { 0 };
    size_t len, doubts;
    char *text;

    (void)state;
    append(j, domain_record(U1, "host2", 5));
    append(j, domain_record(U2, ".", 9));
    journal_close(&j);
    text = read_raw(&len);
    memset(text, 'x', strcspn(text, "\n"));
    write_raw(text, len);
    free(text);
    j = open_it(&doubts);
    journal_replay(j, see, &s);
    journal_close(&j);
    assert_int_equal(doubts, 1);
    assert_string_equal(s.r[0].uuid, "*");
}

/* A full disk, played by a limit of the file's size. */
static void full_disk_leaves_no_trace(void **state)
{
    struct journal *j = open_it(NULL);
    struct journal_record r = step_record(JK_OUT, STEP_COMMITTED, "m1", U1);
    struct rlimit old, small;
    struct err e;
    size_t before, after;

    (void)state;
    append(j, domain_record(U1, ".", 1));
    free(read_raw(&before));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = before + 20;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_int_equal(journal_append(j, &r, true, &e), -1);
    assert_non_null(strstr(e.text, path));
    setrlimit(RLIMIT_FSIZE, &old);
    free(read_raw(&after));
    assert_int_equal(before, after);
    /* There is room again: it goes on. */
    append(j, r);
    journal_close(&j);
    assert_int_equal(replay().n, 2);
}

static void batch_is_all_or_nothing(void **state)
{
    struct journal *j = open_it(NULL);
    struct journal_record two[2] = { step_record(JK_IN, STEP_RUNNING, "m1", U1),
        domain_record(U1, ".", 4) };
    struct seen s;
    struct err e;

    (void)state;
    assert_int_equal(journal_append_all(j, two, 2, true, &e), 0);
    assert_true(two[1].seq == two[0].seq + 1);
    journal_close(&j);
    s = replay();
    assert_int_equal(s.n, 2);
}

struct lines {
    size_t n;
    char last[400];
};

static void take_line(void *arg, uint64_t wall_ns, const char *text)
{
    struct lines *l = arg;

    assert_true(wall_ns > 0);
    l->n++;
    snprintf(l->last, sizeof l->last, "%s", text);
}

static void tail_is_for_people(void **state)
{
    struct journal *j = open_it(NULL);
    struct lines all = { 0 }, one = { 0 }, few = { 0 };

    (void)state;
    for (unsigned i = 1; i <= 2500; i++) {
        struct journal_record r = domain_record(i % 2 ? U1 : U2, ".", i);
        struct err e;

        assert_int_equal(journal_append(j, &r, false, &e), 0);
    }
    journal_tail(j, SIZE_MAX, "", take_line, &all);
    journal_tail(j, 10, U1, take_line, &one);
    journal_tail(j, 3, "", take_line, &few);
    assert_int_equal(all.n, JOURNAL_SHOWN);
    assert_int_equal(one.n, 10);
    assert_int_equal(few.n, 3);
    assert_non_null(strstr(one.last, "epoch=2499"));
    assert_non_null(strstr(few.last, "epoch=2500"));
    journal_close(&j);
}

static long file_size(void)
{
    size_t len;

    free(read_raw(&len));
    return (long)len;
}

static void it_stays_small(void **state)
{
    struct journal *j = open_it(NULL);
    long largest = 0;
    struct seen s;

    (void)state;
    append(j, step_record(JK_OUT, STEP_COMMITTED, "in doubt", U2));
    for (unsigned i = 1; i <= 4000; i++) {
        struct journal_record r = step_record(JK_OUT, STEP_STARTED, "m", U1);
        struct err e;

        snprintf(r.migration, sizeof r.migration, "m%u", i);
        assert_int_equal(journal_append(j, &r, false, &e), 0);
        r.step = STEP_CLOSED;
        assert_int_equal(journal_append(j, &r, false, &e), 0);
        r = domain_record(U1, ".", i);
        assert_int_equal(journal_append(j, &r, false, &e), 0);
        if (i % 100 == 0 && file_size() > largest)
            largest = file_size();
    }
    assert_true(largest < 300 << 10);
    journal_close(&j);
    s = replay();
    assert_int_equal(s.n, 2);
    assert_string_equal(s.r[0].migration, "in doubt");
    assert_int_equal(s.r[1].epoch, 4000);
}

/* A damaged file is left for the next start, which knows what to do about it. */
static void damage_is_not_written_over(void **state)
{
    struct journal *j = open_it(NULL);
    size_t len, doubts;
    char *text;
    int fd;

    (void)state;
    append(j, domain_record(U1, "host2", 5));
    text = read_raw(&len);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "4", 1, strstr(text, "epoch=5") + 6 - text), 1);
    close(fd);
    free(text);
    for (unsigned i = 1; file_size() < 700 << 10; i++) {
        struct journal_record r = domain_record(U2, ".", i);
        struct err e;

        assert_int_equal(journal_append(j, &r, false, &e), 0);
    }
    journal_close(&j);
    j = open_it(&doubts);
    journal_close(&j);
    assert_int_equal(doubts, 1);
}

/*
 * A process of its own for each fault of the compaction (fault points are read once). It writes to
 * standard output what the journal has acknowledged: the epoch, and 'f' for a refusal.
 */
static int write_past_compaction(const char *journal)
{
    struct journal *j;
    size_t doubts;
    struct err e;

    log_set_level(LOG_LV_ERROR + 1);
    if (journal_open(journal, &j, &doubts, &e) < 0)
        return 1;
    for (unsigned i = 1; i <= 6000; i++) {
        struct journal_record r = domain_record(U1, ".", i);
        int refused = journal_append(j, &r, i % 16 == 0, &e);

        if (refused < 0 ? write(1, "f", 1) < 0 : write(1, &i, sizeof i) < 0)
            return 1;
    }
    journal_close(&j);
    return 0;
}

/* The last epoch that was acknowledged. */
static unsigned run_with_fault(const char *fault, int *status)
{
    char self[256], command[600];
    unsigned last = 0, i;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    FILE *p;

    assert_true(n > 0);
    self[n] = '\0';
    snprintf(command, sizeof command, "MIGRD_FAULT=%s %s %s", fault, self, path);
    p = popen(command, "r");
    assert_non_null(p);
    while (fread(&i, sizeof i, 1, p) == 1)
        last = i;
    *status = pclose(p);
    return last;
}

static void compaction_loses_nothing(void **state)
{
    static const char *const points[] = { "journal-compact-write", "journal-compact-sync",
        "journal-compact-rename", "journal-compact-renamed", "journal-compact-folder" };

    (void)state;
    for (size_t i = 0; i < 2 * sizeof points / sizeof points[0]; i++) {
        bool killed = i % 2 == 1;
        char fault[64];
        struct seen s;
        unsigned last;
        int status;

        snprintf(fault, sizeof fault, "%s=%s", points[i / 2], killed ? "kill" : "error");
        last = run_with_fault(fault, &status);
        assert_true(killed ? status != 0 && last > 1000 : status == 0 && last == 6000);
        s = replay();
        assert_int_equal(s.n, 1);
        assert_true(s.r[0].epoch == last || (killed && s.r[0].epoch == last + 1));
        unlink(path);
    }
}

int main(int argc, char **argv)
{
#define EACH(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = { EACH(line_round_trip), EACH(longest_record_fits),
        EACH(any_damage_is_seen), EACH(newest_record_counts), EACH(newest_epoch_owns),
        EACH(torn_end_is_cut), EACH(damage_puts_its_domain_in_doubt),
        EACH(unreadable_damage_doubts_everybody), EACH(full_disk_leaves_no_trace),
        EACH(batch_is_all_or_nothing), EACH(tail_is_for_people), EACH(it_stays_small),
        EACH(damage_is_not_written_over), EACH(compaction_loses_nothing) };

    if (argc == 2)
        return write_past_compaction(argv[1]);

    log_set_level(LOG_LV_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
