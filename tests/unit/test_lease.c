/* SPDX-License-Identifier: ISC */
/* Leases without a storage: the record, the judgement, the states, the keys of reservations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage-check/lease_internal.h"

#define UUID_A "11111111-2222-3333-4444-555555555555"
#define UUID_B "99999999-2222-3333-4444-555555555555"

static struct lease_note sample(void)
{
    struct lease_note n = {
        .nonce = 0x1234, .valid_ms = 5000, .who = { .machine = 0xabc, .boot = 0xdef }
    };

    strcpy(n.r.owner, "host1.lab");
    strcpy(n.r.uuid, UUID_A);
    n.r.epoch = 12;
    n.r.beat = 3481;
    return n;
}

static void assert_same(const struct lease_note *a, const struct lease_note *b)
{
    assert_string_equal(a->r.owner, b->r.owner);
    assert_string_equal(a->r.uuid, b->r.uuid);
    assert_int_equal(a->r.epoch, b->r.epoch);
    assert_int_equal(a->r.beat, b->r.beat);
    assert_int_equal(a->r.released, b->r.released);
    assert_int_equal(a->r.yielded, b->r.yielded);
    assert_int_equal(a->claimed, b->claimed);
    assert_int_equal(a->who.machine, b->who.machine);
    assert_int_equal(a->who.boot, b->who.boot);
    assert_int_equal(a->who.pid, b->who.pid);
    assert_int_equal(a->who.started, b->who.started);
    assert_int_equal(a->who.pids, b->who.pids);
    assert_int_equal(a->nonce, b->nonce);
    assert_int_equal(a->valid_ms, b->valid_ms);
    assert_int_equal(a->has_was, b->has_was);
    assert_int_equal(a->was_uid, b->was_uid);
    assert_int_equal(a->was_gid, b->was_gid);
    assert_int_equal(a->was_mode, b->was_mode);
}

static void there_and_back(const struct lease_note *n)
{
    uint8_t data[LEASE_RECORD_SIZE];
    struct lease_note again;
    struct err e;

    lease_encode(n, data);
    assert_int_equal(lease_decode(data, sizeof data, &again, &e), 0);
    assert_same(n, &again);
}

static void a_record_comes_back_as_it_was(void **state)
{
    struct lease_note n = sample();

    (void)state;
    there_and_back(&n);
    n.claimed = true;
    there_and_back(&n);
    n.claimed = false;
    n.r.yielded = true;
    there_and_back(&n);
    n.r.yielded = false;
    n.r.released = true;
    n.has_was = true;
    n.was_mode = 0644;
    there_and_back(&n);
    n.was_uid = n.was_gid = UINT32_MAX;
    n.was_mode = 07777;
    n.r.epoch = n.r.beat = n.nonce = UINT64_MAX;
    n.who = (struct lease_who){ UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT64_MAX, UINT64_MAX };
    n.valid_ms = LEASE_VALID_MAX_MS;
    memset(n.r.owner, 'x', LEASE_OWNER_MAX - 1);
    there_and_back(&n);
}

static void a_record_can_be_read_by_people(void **state)
{
    struct lease_note n = sample();
    uint8_t data[LEASE_RECORD_SIZE + 1];
    static const char head[] =
        "migrd-lease 1\nstate held\nowner host1.lab\nuuid " UUID_A
        "\nepoch 12\nbeat 3481\nnonce 0000000000001234\nmachine 0000000000000abc\n"
        "boot 0000000000000def\nprocess 0 0 0\nvalid-ms 5000\nwas -\n ";

    (void)state;
    lease_encode(&n, data);
    data[LEASE_RECORD_SIZE] = '\0';
    assert_memory_equal(data, head, sizeof head - 1);
    assert_int_equal(strlen((char *)data), LEASE_RECORD_SIZE);
    assert_int_equal(data[LEASE_RECORD_SIZE - 1], '\n');
}

static void each_flipped_bit_is_noticed(void **state)
{
    struct lease_note n = sample(), out;
    uint8_t data[LEASE_RECORD_SIZE];

    (void)state;
    lease_encode(&n, data);
    for (unsigned bit = 0; bit < 8 * LEASE_RECORD_SIZE; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(lease_decode(data, sizeof data, &out, NULL), -1);
        assert_string_equal(out.r.owner, "");
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(lease_decode(data, sizeof data, &out, NULL), 0);
    for (size_t len = 0; len < sizeof data; len++)
        assert_int_equal(lease_decode(data, len, &out, NULL), -1);
}

static void records_of_nonsense_are_not_written(void **state)
{
    static const char *const owners[] = { "", "two words", "tab\t", "line\n", "\xc3\xa9" };
    uint8_t data[LEASE_RECORD_SIZE], zero[LEASE_RECORD_SIZE] = { 0 };
    struct lease_note n;

    (void)state;
    for (unsigned i = 0; i < sizeof owners / sizeof owners[0]; i++) {
        n = sample();
        strcpy(n.r.owner, owners[i]);
        lease_encode(&n, data);
        assert_memory_equal(data, zero, sizeof zero);
    }
    n = sample();
    n.r.uuid[0] = 'X';
    assert_false(lease_note_ok(&n));
    n = sample();
    n.r.epoch = 0;
    assert_false(lease_note_ok(&n));
    n = sample();
    n.valid_ms = 1;
    assert_false(lease_note_ok(&n));
    n = sample();
    n.r.yielded = n.r.released = true;
    assert_false(lease_note_ok(&n));
}

static void names_of_claims(void **state)
{
    static const char *const bad[] = { "", "12", "12.", "." UUID_A, "0." UUID_A, "012." UUID_A,
        "+1." UUID_A, " 1." UUID_A, "1." UUID_A "x", "1.11111111-2222-3333-4444-55555555555G",
        "18446744073709551616." UUID_A, "0123456789abcdef.new", "..", "." };
    char name[LEASE_ENTRY_LEN], uuid[37];
    uint64_t epoch;

    (void)state;
    lease_entry_name(UINT64_MAX, UUID_A, name);
    assert_true(lease_entry_parse(name, &epoch, uuid));
    assert_true(epoch == UINT64_MAX);
    assert_string_equal(uuid, UUID_A);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(lease_entry_parse(bad[i], &epoch, uuid));
}

/* ---- the judgement: every row of the table in lease_record.c */

struct row {
    bool same_process, same_domain, same_owner, same_machine, same_boot;
    int age; /* of the record's epoch against ours: -1 older, 0, 1 newer */
    bool released, claimed, yielded;
    enum lease_claim claim;
    enum lease_verdict want;
};

static const struct lease_who here = { .machine = 0xabc, .boot = 0xdef, .pids = 1 };

static enum lease_verdict judge_row(const struct row *r)
{
    const struct lease_bid b = {
        .owner = "host1", .uuid = UUID_A, .who = &here, .epoch = 12, .nonce = 7, .claim = r->claim
    };
    struct lease_note n = sample();

    n.nonce = r->same_process ? 7 : 8;
    strcpy(n.r.uuid, r->same_domain ? UUID_A : UUID_B);
    strcpy(n.r.owner, r->same_owner ? "host1" : "host2");
    n.r.epoch = (uint64_t)(12 + r->age);
    n.r.released = r->released;
    n.r.yielded = r->yielded;
    n.claimed = r->claimed;
    n.who.machine = r->same_machine ? 0xabc : 0xbad;
    n.who.boot = r->same_boot ? 0xdef : 0xbad;
    return lease_judge(&n, &b);
}

static enum lease_verdict expected(const struct row *r)
{
    bool ours = r->same_owner && r->same_machine, gone = ours && !r->same_boot;

    if (r->same_process)
        return LEASE_TAKE;
    if (!r->same_domain)
        return r->released ? LEASE_TAKE : LEASE_WATCH;
    if (r->age > 0)
        return LEASE_OLDER;
    if (r->age == 0)
        return gone ? LEASE_TAKE : ours ? LEASE_WATCH : LEASE_OLDER;
    if (r->released || gone || r->claim == LEASE_HANDOVER || r->claim == LEASE_CLUSTER)
        return LEASE_TAKE;
    if (r->yielded && r->claim == LEASE_PROVEN)
        return LEASE_TAKE;
    return LEASE_WATCH;
}

static void the_judgement_is_total(void **state)
{
    unsigned seen[3] = { 0 };

    (void)state;
    for (unsigned bits = 0; bits < 128; bits++)
        for (int age = -1; age <= 1; age++)
            for (unsigned claim = LEASE_FREE; claim <= LEASE_CLUSTER; claim++) {
                const struct row r = { .same_process = bits & 1,
                    .same_domain = bits & 2,
                    .same_owner = bits & 4,
                    .released = (bits & 24) == 8,
                    .claimed = (bits & 24) == 16,
                    .yielded = (bits & 24) == 24,
                    .same_machine = bits & 32,
                    .same_boot = bits & 64,
                    .age = age,
                    .claim = (enum lease_claim)claim };
                enum lease_verdict got = judge_row(&r);

                assert_int_equal(got, expected(&r));
                seen[got]++;
            }
    for (unsigned i = 0; i < 3; i++)
        assert_true(seen[i] > 0);
}

static void what_must_never_be_taken(void **state)
{
    static const struct row rows[] = {
        { .same_domain = true, .age = 1, .claim = LEASE_PROVEN },
        { .same_domain = true, .age = 1, .claim = LEASE_HANDOVER, .released = true },
        { .same_domain = true, .age = 1, .claim = LEASE_FREE, .same_owner = true },
        { .same_domain = true, .age = -1, .claim = LEASE_PROVEN },
        { .same_domain = true, .age = -1, .claim = LEASE_FREE, .yielded = true },
        { .same_domain = true, .age = -1, .claim = LEASE_FREE, .same_owner = true },
        { .same_domain = true,
            .age = -1,
            .same_owner = true,
            .same_machine = true,
            .same_boot = true },
        { .same_domain = true, .age = 0, .claim = LEASE_HANDOVER, .same_owner = true },
        { .same_domain = true, .age = 0, .claim = LEASE_PROVEN },
        { .same_domain = true, .age = 0, .claim = LEASE_FREE, .released = true },
        { .same_domain = true, .age = -1, .claim = LEASE_FREE },
        { .same_domain = true, .age = -1, .claim = LEASE_FREE, .claimed = true },
        { .same_domain = false, .age = -1, .claim = LEASE_PROVEN },
        { .same_domain = false, .age = -1, .claim = LEASE_CLUSTER },
        { .same_domain = true, .age = 0, .claim = LEASE_CLUSTER },
        { .same_domain = true, .age = 1, .claim = LEASE_CLUSTER },
        { .same_domain = false, .age = -1, .claim = LEASE_HANDOVER, .same_owner = true },
    };

    (void)state;
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_not_equal(judge_row(&rows[i]), LEASE_TAKE);
}

/* A child of this test, before and after its end. */
static void a_process_that_ended_is_known_to_be_gone(void **state)
{
    const struct lease_who *us = lease_who_here();
    struct lease_who w = *us;
    pid_t pid;

    (void)state;
    assert_true(us->machine != 0 && us->boot != 0 && us->pids != 0 && us->started != 0);
    assert_false(lease_who_gone(&w, us));
    w.started++; /* somebody had this number before us */
    assert_true(lease_who_gone(&w, us));
    w.pids++; /* a number of another namespace says nothing */
    assert_false(lease_who_gone(&w, us));
    w.boot++;
    assert_true(lease_who_gone(&w, us));
    w.machine++;
    assert_false(lease_who_gone(&w, us));
    w = *us;
    pid = fork();
    if (pid == 0)
        _exit(0);
    w.pid = (uint32_t)pid;
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(lease_who_gone(&w, us));
}

static void a_watch_outlasts_both_clocks(void **state)
{
    (void)state;
    assert_true(lease_watch_ns(5000, 1000) > 5000 * NS_PER_MS * 11 / 10);
    assert_true(lease_watch_ns(1000, 5000) > 5000 * NS_PER_MS * 11 / 10);
    assert_true(lease_watch_ns(0, 200) > 200 * NS_PER_MS);
}

static void refusals_name_who_and_the_way_out(void **state)
{
    const struct lease_bid b = {
        .owner = "host1", .uuid = UUID_A, .who = &here, .epoch = 12, .nonce = 7
    };
    struct lease_note n = sample();
    struct err e;

    (void)state;
    strcpy(n.r.owner, "host2.lab");
    assert_int_equal(lease_refuse(&e, LEASE_WATCH, &n, &b, "nfs://s/e/d"), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_string_equal(e.text,
        "disk nfs://s/e/d: host host2.lab is alive and renews its lease (epoch 12); end the domain "
        "there (xm destroy; if it is in doubt there: migctl resolve DOMAIN --discard --force, with "
        "migrd running), or switch that host off");
    strcpy(n.r.owner, "host1");
    n.who.machine = 0xbad;
    assert_int_equal(lease_refuse(&e, LEASE_WATCH, &n, &b, "nfs://s/e/d"), -1);
    assert_non_null(strstr(e.text, "two hosts have one name"));
    strcpy(n.r.owner, "host2.lab");
    n.r.epoch = 14;
    assert_int_equal(lease_refuse(&e, LEASE_OLDER, &n, &b, "nfs://s/e/d"), -1);
    assert_int_equal(e.code, ERR_EPOCH);
    assert_string_equal(e.text,
        "disk nfs://s/e/d: its lease knows epoch 14 of host host2.lab, ours "
        "is 12; the domain ran elsewhere since, or is being started there");
    n.r.released = true;
    lease_refuse(&e, LEASE_OLDER, &n, &b, "/d");
    assert_int_equal(e.code, ERR_EPOCH);
    assert_string_equal(e.text,
        "disk /d: the domain ran on host host2.lab under epoch 14, ours is 12; "
        "start it there, or, if that host is out of use: migctl storage "
        "forget /d");
    strcpy(n.r.uuid, UUID_B);
    lease_refuse(&e, LEASE_WATCH, &n, &b, "/d");
    assert_int_equal(e.code, ERR_REFUSED);
    assert_string_equal(e.text,
        "disk /d: domain " UUID_B " on host host2.lab writes to it; give this domain a disk of its "
        "own, or end that one");
}

/* ---- states */

static void the_states_are_total(void **state)
{
    (void)state;
    for (unsigned s = 0; s < LS_MAX; s++) {
        assert_true(strlen(lease_state_name((enum lease_state)s)) > 0);
        for (unsigned h = 0; h < LH_MAX; h++)
            assert_true(lease_next((enum lease_state)s, (enum lease_happened)h) < LS_MAX);
        assert_int_equal(lease_next((enum lease_state)s, LH_RELEASED), LS_RELEASED);
        assert_int_equal(lease_next(LS_RELEASED, (enum lease_happened)(s % LH_MAX)), LS_RELEASED);
    }
}

static void only_taking_leads_out_of_lost(void **state)
{
    (void)state;
    assert_int_equal(lease_next(LS_LOST, LH_RENEWED), LS_LOST);
    assert_int_equal(lease_next(LS_LOST, LH_LATE), LS_LOST);
    assert_int_equal(lease_next(LS_LOST, LH_TAKEN), LS_HELD);
    assert_int_equal(lease_next(LS_PREPARED, LH_RENEWED), LS_PREPARED);
    assert_int_equal(lease_next(LS_HELD, LH_LATE), LS_UNSURE);
    assert_int_equal(lease_next(LS_UNSURE, LH_RENEWED), LS_HELD);
    assert_int_equal(lease_next(LS_UNSURE, LH_FOREIGN), LS_LOST);
}

/* ---- keys */

static void keys_have_three_parts(void **state)
{
    uint64_t k = lease_key("host1", 1, UUID_A, 12);

    (void)state;
    assert_true(lease_key_ours(k));
    assert_int_equal(k >> 56, 'm');
    assert_int_equal(lease_key_epoch(k), 12);
    assert_true(k == lease_key("host1", 1, UUID_A, 12));
    assert_int_equal(lease_key_host(k), lease_key_host(lease_key("host1", 1, UUID_B, 9)));
    assert_int_equal(lease_key_domain(k), lease_key_domain(lease_key("host2", 1, UUID_A, 9)));
    assert_int_not_equal(lease_key_host(k), lease_key_host(lease_key("host2", 1, UUID_A, 12)));
    assert_int_not_equal(lease_key_domain(k), lease_key_domain(lease_key("host1", 1, UUID_B, 12)));
    assert_int_equal(lease_key_epoch(lease_key("h", 1, UUID_A, 0x1000001)), 1);
    assert_false(lease_key_ours(0));
    assert_false(lease_key_ours(0xabcd));
    assert_false(lease_key_ours(UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_as_it_was),
        cmocka_unit_test(a_record_can_be_read_by_people),
        cmocka_unit_test(each_flipped_bit_is_noticed),
        cmocka_unit_test(records_of_nonsense_are_not_written),
        cmocka_unit_test(names_of_claims),
        cmocka_unit_test(the_judgement_is_total),
        cmocka_unit_test(what_must_never_be_taken),
        cmocka_unit_test(a_process_that_ended_is_known_to_be_gone),
        cmocka_unit_test(a_watch_outlasts_both_clocks),
        cmocka_unit_test(refusals_name_who_and_the_way_out),
        cmocka_unit_test(the_states_are_total),
        cmocka_unit_test(only_taking_leads_out_of_lost),
        cmocka_unit_test(keys_have_three_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
