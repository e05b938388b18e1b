/* SPDX-License-Identifier: ISC */
/*
 * What a target promises: two offers at once cannot both get the last memory, nor the last huge
 * pages; a promise ends with its migration, and counts until the host's figures show it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "migrd/compat/facts.h"
#include "migrd/define/define.h"
#include "migrd/events.h"
#include "migrd/migration_internal.h"
#include "migrd/registry_internal.h"

#define MIB 1024u

static struct migrd m;

struct guest {
    struct migration g;
    struct mig_look *look;
    struct domain *d;
    char uuid[HV_UUID_LEN], name[8];
};

static int set_up(void **state)
{
    struct err e;

    (void)state;
    memset(&m, 0, sizeof m);
    strcpy(m.host_name, "host2");
    config_defaults(&m.config);
    m.config.memory_reserve_kib = 512 * MIB;
    m.events = events_new();
    assert_int_equal(registry_make(&m, &e), 0);
    m.registry->stopping = true; /* nobody polls */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    registry_close(&m);
    events_free(&m.events);
    return 0;
}

static Migrd__HostFacts *facts(uint64_t free_kib, uint64_t free_huge)
{
    struct hv_caps caps = { .release = "1",
        .cpu_vendor = "AuthenticAMD",
        .host_cpus = 4,
        .max_vcpus = 4,
        .memory_total_kib = 16u << 20,
        .memory_free_kib = free_kib };
    Migrd__HostFacts *f = facts_gather("host2", "xvm", &caps, NULL);
    Migrd__HugePages *h = malloc(sizeof *h);

    for (size_t i = 0; i < f->n_huge_pages; i++)
        migrd__huge_pages__free_unpacked(f->huge_pages[i], NULL);
    free(f->huge_pages);
    migrd__huge_pages__init(h);
    h->size_kib = 2048;
    h->total = h->free = free_huge;
    f->huge_pages = malloc(sizeof *f->huge_pages);
    f->huge_pages[0] = h;
    f->n_huge_pages = 1;
    return f;
}

static Migrd__Offer *offer_of(const struct guest *x, bool huge)
{
    static Migrd__CpuReport cpu;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;
    Migrd__Offer o = MIGRD__OFFER__INIT, *copy;
    size_t len;
    uint8_t *packed;

    migrd__cpu_report__init(&cpu);
    cpu.vendor = (char *)"AuthenticAMD";
    d.uuid = (char *)(uintptr_t)x->uuid;
    d.name = (char *)(uintptr_t)x->name;
    d.hypervisor = (char *)"xvm";
    d.memory_kib = d.max_memory_kib = 1024 * MIB;
    d.vcpus = 1;
    d.kernel = (char *)"/proc/self/exe";
    d.huge_pages = huge;
    o.domain = &d;
    o.cpu = &cpu;
    o.source_host = (char *)"host1";
    len = migrd__offer__get_packed_size(&o);
    packed = malloc(len);
    migrd__offer__pack(&o, packed);
    copy = migrd__offer__unpack(NULL, len, packed);
    free(packed);
    return copy;
}

/* An offer, and a look at the host that showed so much. */
static void arrive(struct guest *x, unsigned n, bool huge, uint64_t free_kib, uint64_t free_huge)
{
    struct err e = { 0 };

    memset(x, 0, sizeof *x);
    snprintf(x->uuid, sizeof x->uuid, "%08u-2222-3333-4444-555555555555", n);
    snprintf(x->name, sizeof x->name, "g%u", n);
    x->g.m = &m;
    x->g.kind = MIG_IN;
    x->g.offer = offer_of(x, huge);
    x->g.def = define_copy(x->g.offer->domain);
    strcpy(x->g.uuid, x->uuid);
    strcpy(x->g.name, x->name);
    strcpy(x->g.peer, "host1");
    x->d = registry_incoming(&m, x->g.def, &x->g, &e);
    if (x->d == NULL)
        fail_msg("%s", e.text);
    x->look = look_new(&x->g, false);
    x->look->facts = facts(free_kib, free_huge);
}

static void leave(struct guest *x)
{
    if (x->d->live)
        registry_gone(&m, x->d);
    registry_release(&m, x->d);
    look_free(&x->look);
    if (x->g.checks != NULL)
        migrd__check_report__free_unpacked(x->g.checks, NULL);
    migrd__domain__free_unpacked(x->g.def, NULL);
    migrd__offer__free_unpacked(x->g.offer, NULL);
}

static void expect_taken(struct guest *x)
{
    struct err e = { 0 };

    if (tgt_check_host(&x->g, x->look, &e) < 0)
        fail_msg("%s", e.text);
}

static void expect_refused(struct guest *x, const char *text)
{
    struct err e = { 0 };

    assert_int_equal(tgt_check_host(&x->g, x->look, &e), -1);
    assert_int_equal(e.code, ERR_MEMORY);
    assert_string_equal(e.text, text);
}

static void test_last_memory(void **state)
{
    struct guest a, b;

    (void)state;
    arrive(&a, 1, false, 2048 * MIB, 0);
    arrive(&b, 2, false, 2048 * MIB, 0);
    expect_taken(&a);
    expect_refused(&b,
        "host host2 has 2048 MiB of memory free, of which 1024 MiB are promised and 512 MiB are "
        "kept for the host: 1024 MiB more do not fit; wait for the migrations under way, or free "
        "memory on host host2");
    leave(&a); /* aborted: its promise is gone */
    expect_taken(&b);
    leave(&b);
}

/* The first one was built after the second one's look: the figures do not show it. */
static void test_built_meanwhile(void **state)
{
    struct guest a, b, c;

    (void)state;
    arrive(&a, 1, false, 2048 * MIB, 0);
    expect_taken(&a);
    arrive(&b, 2, false, 2048 * MIB, 0);
    registry_incoming_started(&m, a.d, a.g.def, 8, 5);
    expect_refused(&b,
        "host host2 has 2048 MiB of memory free, of which 1024 MiB are promised and 512 MiB are "
        "kept for the host: 1024 MiB more do not fit; wait for the migrations under way, or free "
        "memory on host host2");
    arrive(&c, 3, false, 1600 * MIB, 0); /* looked later: what is free is free */
    expect_taken(&c);
    leave(&c);
    leave(&b);
    leave(&a);
}

static void test_last_huge_pages(void **state)
{
    struct guest a, b, c;

    (void)state;
    arrive(&a, 1, true, 0, 600);
    arrive(&b, 2, true, 0, 600);
    arrive(&c, 3, false, 1600 * MIB, 600); /* of the other memory */
    expect_taken(&a);
    expect_refused(&b,
        "domain g2 needs 512 huge pages of 2 MiB, host host2 has 600 free, of which 512 are "
        "promised; on host host2: sysctl vm.nr_hugepages=1024");
    expect_taken(&c);
    leave(&a);
    expect_taken(&b);
    leave(&b);
    leave(&c);
}

static void test_report_is_kept(void **state)
{
    struct guest a;

    (void)state;
    arrive(&a, 1, false, 2048 * MIB, 0);
    expect_taken(&a);
    assert_non_null(a.g.checks);
    assert_true(a.g.checks->n_checks > 5);
    leave(&a);
}

/* A name that is taken is the first line; the others are there too. */
static void test_taken(void **state)
{
    struct err e = { 0 };
    struct guest a;

    (void)state;
    arrive(&a, 1, false, 100 * MIB, 0);
    err_set(&a.g.taken, ERR_EXISTS, "domain g1 exists here already");
    assert_int_equal(tgt_check_host(&a.g, a.look, &e), -1);
    assert_int_equal(e.code, ERR_EXISTS);
    assert_string_equal(e.text, "domain g1 exists here already (and 1 more)");
    leave(&a);
}

static void look_again(struct guest *x, const char *places)
{
    look_free(&x->look);
    x->look = look_new(&x->g, false);
    assert_non_null(x->look);
    snprintf(x->look->places, sizeof x->look->places, "%s", places);
}

/* The definition for the next boot comes along: it must be that domain's, and where it may be. */
static void test_home(void **state)
{
    struct err e = { 0 };
    Migrd__Domain *home;
    struct guest a;

    (void)state;
    arrive(&a, 1, false, 2048 * MIB, 0);
    assert_null(look_home(&a.g));
    assert_int_equal(look_check_home(&a.g, &e), 0);
    home = a.g.offer->home = define_copy(a.g.def);
    assert_null(look_home(&a.g)); /* nobody wants it to stay */
    a.g.offer->change_home = true;
    assert_ptr_equal(look_home(&a.g), home);
    if (look_check_home(&a.g, &e) < 0)
        fail_msg("%s", e.text);
    free(home->kernel);
    home->kernel = strdup("/proc/self/status");
    free(a.g.def->kernel);
    a.g.def->kernel = strdup("/dev/null");
    look_again(&a, "/dev");
    assert_int_equal(look_work(a.look, NULL, NULL, &e), -1);
    assert_int_equal(e.code, ERR_REFUSED);
    assert_non_null(strstr(e.text, "/proc/self/status"));
    home->vcpus = 0;
    assert_int_equal(look_check_home(&a.g, &e), -1);
    home->vcpus = 1;
    home->name[0] = 'x';
    assert_int_equal(look_check_home(&a.g, &e), -1);
    assert_int_equal(e.code, ERR_PROTOCOL);
    leave(&a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* --- looks at once --- */

#define LOOKS 14

static atomic_uint looking, most_looking;
static unsigned ended, cancelled;

/* A server that hangs for a while. */
static int hangs(struct hv *hv, struct hv_caps *caps, struct err *e)
{
    unsigned now = atomic_fetch_add(&looking, 1) + 1, most = atomic_load(&most_looking);

    (void)hv;
    (void)caps;
    while (now > most && !atomic_compare_exchange_weak(&most_looking, &most, now))
        ;
    usleep(20000);
    atomic_fetch_sub(&looking, 1);
    return err_set(e, ERR_TIMEOUT, "it hangs");
}

static void look_over(struct mig_job *mj)
{
    ended++;
    cancelled += mj->job.err.code == ERR_CANCELLED;
}

/* They leave threads for what cannot wait, and one whose session has gone does not begin. */
static void test_many_at_once(void **state)
{
    static const struct hv_ops ops = { .capabilities = hangs };
    static const Migrd__Domain def = MIGRD__DOMAIN__INIT;
    static struct migration g[LOOKS];
    struct migrations ms = { 0 };
    int someone;
    uv_loop_t loop;

    (void)state;
    setenv("UV_THREADPOOL_SIZE", "16", 1);
    assert_int_equal(uv_loop_init(&loop), 0);
    m.loop = &loop;
    m.migrations = &ms;
    m.hv_ops = &ops;
    for (size_t i = 0; i < LOOKS; i++) {
        struct mig_job *mj;

        g[i] = (struct migration){ .m = &m, .kind = MIG_IN, .worker = (struct worker *)&someone };
        mj = mig_job_new(&g[i], MT_CHECK);
        mj->quiet = true;
        mj->then = look_over;
        mj->look = calloc(1, sizeof *mj->look);
        mj->look->def = define_copy(&def);
        mig_look_run(mj);
    }
    assert_int_equal(ms.looks, LOOKS_MAX);
    g[LOOKS - 1].worker = g[LOOKS - 2].worker = NULL;
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(ended, LOOKS);
    assert_int_equal(cancelled, 2);
    assert_true(atomic_load(&most_looking) <= LOOKS_MAX);
    assert_int_equal(ms.looks, 0);
    assert_null(ms.looks_first);
    assert_int_equal(uv_loop_close(&loop), 0);
    m.migrations = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_last_memory),
        TEST(test_built_meanwhile),
        TEST(test_last_huge_pages),
        TEST(test_report_is_kept),
        TEST(test_taken),
        TEST(test_home),
        TEST(test_many_at_once),
    };

    log_set_level(LOG_LV_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
