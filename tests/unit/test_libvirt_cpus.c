/* SPDX-License-Identifier: ISC */
/*
 * libvirt's procedures about CPUs, memory, weight and figures, on a hypervisor that notes what is
 * asked of it: what runs, its definition, or both are changed; arguments that no virsh would send
 * are refused.
 */
#include "tests/unit/libvirt_host.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/domain_figures.h"
#include "migrd/tune.h"

#define WAIT_NS (10 * NS_PER_S)

static struct host host;
static char dir[64];
static uint8_t in[1 << 18];

/* --- the hypervisor --- */

static struct {
    atomic_uint pins, scheds, memories;
    unsigned vcpu;
    struct hv_cpus cpus;
    struct hv_sched sched;
    uint64_t kib;
    bool fails;
} hv;

static int result(struct err *e)
{
    return hv.fails ? err_set(e, ERR_UNSUPPORTED, "the hypervisor will not") : 0;
}

static int fake_pin(
    struct hv *h, const char *uuid, unsigned vcpu, const struct hv_cpus *cpus, struct err *e)
{
    (void)h;
    (void)uuid;
    hv.vcpu = vcpu;
    hv.cpus = *cpus;
    atomic_fetch_add(&hv.pins, 1);
    return result(e);
}

static int fake_set_vcpus(struct hv *h, const char *uuid, unsigned n, struct err *e)
{
    (void)h;
    (void)uuid;
    (void)n;
    return err_set(e, ERR_UNSUPPORTED, "no plugging");
}

static int fake_sched_set(
    struct hv *h, const char *uuid, const struct hv_sched *sched, struct err *e)
{
    (void)h;
    (void)uuid;
    hv.sched = *sched;
    atomic_fetch_add(&hv.scheds, 1);
    return result(e);
}

static int fake_sched_get(struct hv *h, const char *uuid, struct hv_sched *out, struct err *e)
{
    (void)h;
    (void)uuid;
    *out = hv.sched;
    return result(e);
}

static int fake_set_memory(struct hv *h, const char *uuid, uint64_t kib, struct err *e)
{
    (void)h;
    (void)uuid;
    hv.kib = kib;
    atomic_fetch_add(&hv.memories, 1);
    return result(e);
}

static int fake_vcpus(
    struct hv *h, const char *uuid, struct hv_vcpu **list, unsigned *n, struct err *e)
{
    (void)h;
    (void)uuid;
    *n = 2;
    *list = calloc(2, sizeof **list);
    (*list)[0] = (struct hv_vcpu){ HV_VCPU_RUNNING, 5000, 1, { { 2 } } };
    (*list)[1] = (struct hv_vcpu){ HV_VCPU_BLOCKED, 7000, 0, { { 3 } } };
    return result(e);
}

static int fake_stats(struct hv *h, const char *uuid, struct hv_stats *out, struct err *e)
{
    (void)h;
    (void)uuid;
    out->actual_kib = 65536;
    out->rss_kib = 1000;
    out->unused_kib = HV_UNKNOWN;
    out->n_disks = 2;
    out->disk[0] = (struct hv_disk_stats){ "vda", "/a", 1, 512, 2, 1024, 3, 4 };
    out->disk[1] = (struct hv_disk_stats){ "vdb", "/b", 10, 5120, 20, 10240, 30, 40 };
    out->n_vifs = 1;
    out->vif[0] = (struct hv_vif_stats){ "tap0", "00:16:3e:0a:0b:0c", 1, 2, 3, 4, 5, 6, 7, 8 };
    return result(e);
}

static const struct hv_ops fake = { .name = "xvm",
    .pin = fake_pin,
    .set_vcpus = fake_set_vcpus,
    .sched_set = fake_sched_set,
    .sched_get = fake_sched_get,
    .set_memory = fake_set_memory,
    .vcpus = fake_vcpus,
    .stats = fake_stats };

/* --- the host --- */

static struct domain *web1(void)
{
    return registry_by_uuid(host.m.registry, HOST_UUID);
}

static int up(void **state)
{
    lv_open o = { 0 };
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_CONNECT_OPEN };
    uint8_t *frame;

    (void)state;
    memset(&hv, 0, sizeof hv);
    strcpy(dir, "/tmp/test_libvirt_cpus.XXXXXX");
    assert_non_null(mkdtemp(dir));
    host_up(&host);
    host.m.hv_ops = &fake;
    host.m.registry->stopping = true; /* no polls */
    host.m.caps.max_vcpus = 64;
    strcpy(host.m.paths.domains, dir);
    define_set_vcpus(web1()->def, 2, 4);
    client_open(&host, false);
    frame = lv_pack(&h, (xdrproc_t)xdr_lv_open, &o, NULL);
    client_write(&host, frame, h.len);
    free(frame);
    assert_int_equal(client_read(&host, in, sizeof in), LV_HEADER_BYTES);
    return 0;
}

static int down(void **state)
{
    char path[200];

    (void)state;
    snprintf(path, sizeof path, "%s/" HOST_UUID ".xml", dir);
    unlink(path);
    rmdir(dir);
    host_down(&host);
    return 0;
}

static void run(void)
{
    struct domain *d = web1();

    d->live = true;
    d->live_def = define_copy(d->def);
    d->info = (struct hv_info){ .state = HV_RUNNING, .vcpus = 2, .max_memory_kib = 65536 };
    registry_set_owner(&host.m, d, "host1", 1);
}

static lv_dom dom(void)
{
    lv_dom d = { .name = (char *)(uintptr_t) "web1" };

    lv_uuid_bytes(HOST_UUID, d.uuid);
    return d;
}

/* --- a client --- */

/* Its answer is in `in`. */
static struct lv_header call(int proc, void *in_xdr, void *args)
{
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = proc, .serial = 7 };
    uint8_t *frame = lv_pack(&h, (xdrproc_t)in_xdr, args, NULL);
    uint64_t end = clock_ns() + WAIT_NS;
    ssize_t n = 0;

    assert_non_null(frame);
    client_write(&host, frame, h.len);
    free(frame);
    while (n == 0 && clock_ns() < end) {
        uv_run(&host.loop, UV_RUN_NOWAIT);
        n = client_read(&host, in, sizeof in);
    }
    assert_true(n >= LV_HEADER_BYTES);
    assert_int_equal(lv_header_read(in, (size_t)n, &h, NULL), 1);
    return h;
}

static struct lv_header works(int proc, void *in_xdr, void *args)
{
    struct lv_header h = call(proc, in_xdr, args);
    lv_error x = { 0 };

    if (h.status != LV_OK && lv_unpack((xdrproc_t)xdr_lv_error, in + LV_HEADER_BYTES,
                                 h.len - LV_HEADER_BYTES, &x, NULL) == 0)
        fail_msg("procedure %d: %s", proc, *x.message);
    assert_int_equal(h.status, LV_OK);
    return h;
}

/* Into zeroed `out`. */
static void gives(int proc, void *in_xdr, void *args, void *out_xdr, void *out)
{
    struct lv_header h = works(proc, in_xdr, args);

    assert_int_equal(
        lv_unpack((xdrproc_t)out_xdr, in + LV_HEADER_BYTES, h.len - LV_HEADER_BYTES, out, NULL), 0);
}

static void fails(int proc, void *in_xdr, void *args, int code, const char *part)
{
    struct lv_header h = call(proc, in_xdr, args);
    lv_error x = { 0 };

    assert_int_equal(h.status, LV_ERROR);
    assert_int_equal(
        lv_unpack((xdrproc_t)xdr_lv_error, in + LV_HEADER_BYTES, h.len - LV_HEADER_BYTES, &x, NULL),
        0);
    if (x.code != code || strstr(*x.message, part) == NULL)
        fail_msg("procedure %d: %d %s: not %d %s", proc, x.code, *x.message, code, part);
    xdr_free((xdrproc_t)xdr_lv_error, (char *)&x);
}

#define X(type) ((void *)(uintptr_t)xdr_##type)

/* --- pins --- */

static lv_pin_flags pin(unsigned vcpu, const char *map, unsigned len, unsigned flags)
{
    return (lv_pin_flags){ dom(), vcpu, { len, (char *)(uintptr_t)map }, flags };
}

static void test_pin(void **state)
{
    lv_pin_flags live = pin(1, "\1", 1, TUNE_LIVE), config = pin(3, "\1", 1, TUNE_CONFIG),
                 current = pin(0, "\1", 1, 0);
    lv_pin both = { dom(), 1, { 1, (char *)(uintptr_t) "\1" } };

    (void)state;
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &live, LV_E_INVALID, "not running");
    works(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &config);
    assert_string_equal(hv_vcpu_pinning(web1()->def, 3), "0");
    assert_int_equal(hv.pins, 0);
    run();
    works(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &live);
    assert_int_equal(hv.pins, 1);
    assert_int_equal(hv.vcpu, 1);
    assert_int_equal(hv.cpus.word[0], 1);
    assert_string_equal(hv_vcpu_pinning(web1()->live_def, 1), "0");
    assert_string_equal(hv_vcpu_pinning(web1()->def, 1), "");
    works(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &current);
    assert_string_equal(hv_vcpu_pinning(web1()->def, 0), "");
    works(LV_DOMAIN_PIN_VCPU, X(lv_pin), &both);
    assert_string_equal(hv_vcpu_pinning(web1()->def, 1), "0");
    assert_int_equal(hv.pins, 3);
    hv.fails = true;
    both.vcpu = 0;
    fails(LV_DOMAIN_PIN_VCPU, X(lv_pin), &both, LV_E_UNSUPPORTED, "will not");
    assert_string_equal(hv_vcpu_pinning(web1()->def, 0), "");
}

/* All CPUs that there are: any, also of the next host. */
static void test_pin_to_all(void **state)
{
    struct hv_cpus all;
    lv_pin p = { dom(), 0, { sizeof all, (char *)&all } };

    (void)state;
    run();
    tune_host_cpus(&host.m, &all);
    works(LV_DOMAIN_PIN_VCPU, X(lv_pin), &p);
    assert_int_equal(web1()->def->n_vcpu_pins, 0);
    assert_true(hv.cpus.word[15] == UINT64_MAX);
}

static void test_bad_pins(void **state)
{
    static const char far[200] = { [199] = 1 };
    lv_pin_flags none = pin(0, "\0", 1, 0), empty = pin(0, "", 0, 0),
                 vcpu = pin(2, "\1", 1, TUNE_LIVE), high = pin(UINT_MAX, "\1", 1, TUNE_CONFIG),
                 beyond = pin(0, far, 100, 0), outside = pin(0, far, 200, 0),
                 flags = pin(0, "\1", 1, 8);

    (void)state;
    run();
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &none, LV_E_INVALID_ARG, "no CPU is left");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &empty, LV_E_INVALID_ARG, "no CPU is left");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &vcpu, LV_E_INVALID_ARG, "out of range");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &high, LV_E_INVALID_ARG, "out of range");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &beyond, LV_E_INVALID_ARG, "no CPU is left");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &outside, LV_E_INVALID_ARG, "no such CPU");
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &flags, LV_E_INVALID_ARG, "unsupported flags");
    outside.map.map_val = (char *)(uintptr_t)(far + 100); /* CPU 792 */
    outside.map.map_len = 100;
    fails(LV_DOMAIN_PIN_VCPU_FLAGS, X(lv_pin_flags), &outside, LV_E_INVALID_ARG, "has no CPU 792");
    assert_int_equal(hv.pins, 0);
}

static void test_get_pins(void **state)
{
    lv_pins_args a = { dom(), 9, 1, TUNE_CONFIG };
    lv_pins r = { 0 };

    (void)state;
    assert_int_equal(hv_set_vcpu_pinning(web1()->def, 1, "0", NULL), 0);
    gives(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, X(lv_pins), &r);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.maps.maps_len, 4);
    assert_int_equal(r.maps.maps_val[1], 1);
    assert_true((r.maps.maps_val[0] & 1) != 0);
    xdr_free((xdrproc_t)xdr_lv_pins, (char *)&r);
    a.flags = TUNE_LIVE;
    fails(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, LV_E_INVALID, "not running");
    a.flags = TUNE_LIVE | TUNE_CONFIG;
    fails(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, LV_E_INVALID_ARG, "one of them");
    a.flags = 0;
    a.maplen = INT_MAX;
    fails(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, LV_E_INVALID_ARG, "too much");
    a.maplen = 1;
    a.n = -1;
    fails(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, LV_E_INVALID_ARG, "too much");
    a.n = 1000;
    a.maplen = 2000;
    fails(LV_DOMAIN_GET_VCPU_PIN_INFO, X(lv_pins_args), &a, LV_E_INVALID_ARG, "too much");
}

/* --- vCPUs --- */

static void test_get_vcpus(void **state)
{
    lv_vcpus_args a = { dom(), 2, 2 };
    lv_vcpus r = { 0 };

    (void)state;
    fails(LV_DOMAIN_GET_VCPUS, X(lv_vcpus_args), &a, LV_E_INVALID, "not running");
    run();
    gives(LV_DOMAIN_GET_VCPUS, X(lv_vcpus_args), &a, X(lv_vcpus), &r);
    assert_int_equal(r.info.info_len, 2);
    assert_int_equal(r.info.info_val[0].state, 1);
    assert_int_equal(r.info.info_val[0].cpu, 1);
    assert_int_equal(r.info.info_val[1].cpu_ns, 7000);
    assert_memory_equal(r.maps.maps_val, "\2\0\3\0", 4);
    xdr_free((xdrproc_t)xdr_lv_vcpus, (char *)&r);
    a.maxinfo = 1;
    a.maplen = 0;
    memset(&r, 0, sizeof r);
    gives(LV_DOMAIN_GET_VCPUS, X(lv_vcpus_args), &a, X(lv_vcpus), &r);
    assert_int_equal(r.info.info_len, 1);
    assert_int_equal(r.maps.maps_len, 0);
    xdr_free((xdrproc_t)xdr_lv_vcpus, (char *)&r);
    a.maxinfo = INT_MAX;
    a.maplen = INT_MAX;
    fails(LV_DOMAIN_GET_VCPUS, X(lv_vcpus_args), &a, LV_E_INVALID_ARG, "too much");
    a = (lv_vcpus_args){ dom(), 2, 2 };
    hv.fails = true;
    fails(LV_DOMAIN_GET_VCPUS, X(lv_vcpus_args), &a, LV_E_UNSUPPORTED, "will not");
}

static void test_count(void **state)
{
    lv_dom_count plain = { dom(), 3 };
    lv_dom_count_flags a = { dom(), 3, TUNE_CONFIG };

    (void)state;
    run();
    fails(LV_DOMAIN_SET_VCPUS, X(lv_dom_count), &plain, LV_E_UNSUPPORTED, "no plugging");
    assert_int_equal(web1()->def->vcpus, 2);
    works(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a);
    assert_int_equal(web1()->def->vcpus, 3);
    assert_int_equal(define_max_vcpus(web1()->def), 4);
    a.n = 5;
    fails(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a, LV_E_INVALID_ARG, "5 > 4");
    a.n = 0;
    fails(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a, LV_E_INVALID_ARG, "at least one");
    a = (lv_dom_count_flags){ dom(), 65, TUNE_CONFIG | 4 };
    fails(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a, LV_E_INVALID_ARG, "65 > 64");
    a.flags = TUNE_LIVE | 4;
    a.n = 6;
    fails(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a, LV_E_INVALID, "use --config");
    /* A smaller maximum takes the number along, and pins of vCPUs that are gone. */
    assert_int_equal(hv_set_vcpu_pinning(web1()->def, 3, "0", NULL), 0);
    assert_int_equal(hv_set_vcpu_pinning(web1()->def, 0, "0", NULL), 0);
    a = (lv_dom_count_flags){ dom(), 2, TUNE_CONFIG | 4 };
    works(LV_DOMAIN_SET_VCPUS_FLAGS, X(lv_dom_count_flags), &a);
    assert_int_equal(web1()->def->vcpus, 2);
    assert_int_equal(define_max_vcpus(web1()->def), 2);
    assert_int_equal(web1()->def->n_vcpu_pins, 1);
}

/* --- weight and cap --- */

static lv_param number(const char *field, lv_value_type type, long long n)
{
    lv_param p = { .field = (char *)(uintptr_t)field, .value = { .type = type } };

    p.value.lv_value_u.l = n;
    if (type == LV_INT || type == LV_UINT)
        p.value.lv_value_u.i = (int)n;
    return p;
}

static void test_sched(void **state)
{
    lv_param two[] = { number("weight", LV_UINT, 512), number("cap", LV_LLONG, 50) };
    lv_sched_set both = { dom(), { 2, two } };
    lv_sched_set_flags config = { dom(), { 1, two }, TUNE_CONFIG };
    lv_sched_args ask = { dom(), 2 };
    lv_param_list r = { 0 };

    (void)state;
    run();
    works(LV_DOMAIN_SET_SCHEDULER_PARAMETERS, X(lv_sched_set), &both);
    assert_int_equal(hv.sched.weight, 512);
    assert_int_equal(hv.sched.cap, 50);
    assert_int_equal(web1()->def->cpu_cap, 50);
    assert_int_equal(web1()->live_def->cpu_weight, 512);
    two[0] = number("weight", LV_INT, 256);
    works(LV_DOMAIN_SET_SCHEDULER_PARAMETERS_FLAGS, X(lv_sched_set_flags), &config);
    assert_int_equal(web1()->def->cpu_weight, 0); /* the default is not said */
    assert_int_equal(web1()->def->cpu_cap, 50);
    assert_int_equal(hv.scheds, 1);
    gives(LV_DOMAIN_GET_SCHEDULER_PARAMETERS, X(lv_sched_args), &ask, X(lv_param_list), &r);
    assert_int_equal(r.params.params_len, 2);
    assert_string_equal(r.params.params_val[0].field, "weight");
    assert_int_equal(r.params.params_val[0].value.lv_value_u.u, 512);
    xdr_free((xdrproc_t)xdr_lv_param_list, (char *)&r);
}

static void test_bad_sched(void **state)
{
    static const struct {
        const char *field;
        lv_value_type type;
        long long n;
        const char *part;
    } bad[] = { { "weight", LV_UINT, 0, "weight 0 must be from 1" },
        { "weight", LV_LLONG, 65536, "must be from 0 to 65535, not 65536" },
        { "weight", LV_ULLONG, -1, "must be from 0 to 65535" }, { "cap", LV_INT, -1, "not -1" },
        { "cap", LV_UINT, 201, "cap 201 must be from 0 to 200" },
        { "cap", LV_BOOL, 1, "a whole number" }, { "period", LV_UINT, 1, "is not known" } };
    lv_param two[2] = { number("cap", LV_UINT, 1), number("cap", LV_UINT, 2) };
    lv_sched_set a = { dom(), { 0, two } };

    (void)state;
    run();
    fails(
        LV_DOMAIN_SET_SCHEDULER_PARAMETERS, X(lv_sched_set), &a, LV_E_INVALID_ARG, "no parameter");
    a.params.params_len = 2;
    fails(LV_DOMAIN_SET_SCHEDULER_PARAMETERS, X(lv_sched_set), &a, LV_E_INVALID_ARG, "twice");
    a.params.params_len = 1;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        two[0] = number(bad[i].field, bad[i].type, bad[i].n);
        fails(
            LV_DOMAIN_SET_SCHEDULER_PARAMETERS, X(lv_sched_set), &a, LV_E_INVALID_ARG, bad[i].part);
    }
    assert_int_equal(hv.scheds, 0);
}

/* --- memory --- */

static void test_memory(void **state)
{
    lv_dom_memory a = { dom(), 32768, TUNE_LIVE };

    (void)state;
    fails(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a, LV_E_INVALID, "not running");
    run();
    works(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a);
    assert_int_equal(hv.kib, 32768);
    assert_int_equal(web1()->def->memory_kib, 32768);
    a = (lv_dom_memory){ dom(), 131072, 4 };
    fails(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a, LV_E_INVALID, "use --config");
    a.flags |= TUNE_CONFIG;
    works(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a);
    assert_int_equal(web1()->def->max_memory_kib, 131072);
    a = (lv_dom_memory){ dom(), 131072, TUNE_LIVE };
    fails(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a, LV_E_INVALID_ARG, "at most 64 MiB");
    assert_int_equal(web1()->def->memory_kib, 32768);
    a = (lv_dom_memory){ dom(), 0, TUNE_CONFIG };
    fails(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a, LV_E_INVALID_ARG, "memory");
    a = (lv_dom_memory){ dom(), 1024, TUNE_CONFIG | 4 };
    works(LV_DOMAIN_SET_MEMORY_FLAGS, X(lv_dom_memory), &a);
    assert_int_equal(web1()->def->memory_kib, 1024);
}

/* --- figures --- */

static void test_disk(void **state)
{
    lv_dom_path p = { dom(), (char *)(uintptr_t) "/b" };
    lv_disk_stats_args a = { dom(), (char *)(uintptr_t) "", 0, 0 };
    lv_param_count r = { 0 };
    lv_disk_stats d = { 0 };

    (void)state;
    run();
    gives(LV_DOMAIN_BLOCK_STATS, X(lv_dom_path), &p, X(lv_disk_stats), &d);
    assert_int_equal(d.wr_bytes, 10240);
    assert_int_equal(d.errs, 40);
    p.path = (char *)(uintptr_t) "vdc";
    fails(LV_DOMAIN_BLOCK_STATS, X(lv_dom_path), &p, LV_E_INVALID_ARG, "invalid path: vdc");
    gives(LV_DOMAIN_BLOCK_STATS_FLAGS, X(lv_disk_stats_args), &a, X(lv_param_count), &r);
    assert_int_equal(r.n, 6);
    assert_int_equal(r.params.params_len, 0);
    a.n = 6;
    gives(LV_DOMAIN_BLOCK_STATS_FLAGS, X(lv_disk_stats_args), &a, X(lv_param_count), &r);
    assert_int_equal(r.params.params_len, 6);
    assert_string_equal(r.params.params_val[0].field, "rd_operations");
    assert_int_equal(r.params.params_val[0].value.lv_value_u.l, 11);
    xdr_free((xdrproc_t)xdr_lv_param_count, (char *)&r);
    a.n = -1;
    fails(LV_DOMAIN_BLOCK_STATS_FLAGS, X(lv_disk_stats_args), &a, LV_E_INVALID_ARG, "negative");
}

static void test_vif_and_memory(void **state)
{
    lv_dom_path p = { dom(), (char *)(uintptr_t) "00:16:3E:0A:0B:0C" };
    lv_dom_count_flags a = { dom(), 11, 0 };
    lv_memory_stats m = { 0 };
    lv_vif_stats v = { 0 };

    (void)state;
    run();
    gives(LV_DOMAIN_INTERFACE_STATS, X(lv_dom_path), &p, X(lv_vif_stats), &v);
    assert_int_equal(v.rx_bytes, 1);
    assert_int_equal(v.tx_drop, 8);
    p.path = (char *)(uintptr_t) "tap1";
    fails(LV_DOMAIN_INTERFACE_STATS, X(lv_dom_path), &p, LV_E_INVALID_ARG, "not a known interface");
    gives(LV_DOMAIN_MEMORY_STATS, X(lv_dom_count_flags), &a, X(lv_memory_stats), &m);
    assert_int_equal(m.stats.stats_len, 2);
    assert_int_equal(m.stats.stats_val[0].tag, 6);
    assert_int_equal(m.stats.stats_val[0].value, 65536);
    xdr_free((xdrproc_t)xdr_lv_memory_stats, (char *)&m);
    a.n = 1;
    gives(LV_DOMAIN_MEMORY_STATS, X(lv_dom_count_flags), &a, X(lv_memory_stats), &m);
    assert_int_equal(m.stats.stats_len, 1);
    xdr_free((xdrproc_t)xdr_lv_memory_stats, (char *)&m);
}

static void test_host(void **state)
{
    lv_cpu_map_args a = { 1, 1, 0 };
    lv_cpu_map r = { 0 };

    (void)state;
    gives(LV_NODE_GET_CPU_MAP, X(lv_cpu_map_args), &a, X(lv_cpu_map), &r);
    assert_true(r.n >= 1 && r.online >= 1 && r.online <= (unsigned)r.n);
    assert_int_equal(r.map.map_len, (r.n + 7) / 8);
    xdr_free((xdrproc_t)xdr_lv_cpu_map, (char *)&r);
    a = (lv_cpu_map_args){ 0, 0, 1 };
    fails(LV_NODE_GET_CPU_MAP, X(lv_cpu_map_args), &a, LV_E_INVALID_ARG, "unsupported flags");
}

/* The client leaves while the hypervisor is asked. */
static void test_leaves(void **state)
{
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_DOMAIN_GET_VCPUS };
    lv_vcpus_args a = { dom(), 2, 2 };
    uint8_t *frame = lv_pack(&h, X(lv_vcpus_args), &a, NULL);

    (void)state;
    run();
    assert_int_equal(send(host.client, frame, h.len, 0), h.len);
    uv_run(&host.loop, UV_RUN_NOWAIT);
    free(frame);
    client_close(&host);
    for (uint64_t end = clock_ns() + WAIT_NS; host.lv.n_conns > 0 && clock_ns() < end;)
        uv_run(&host.loop, UV_RUN_NOWAIT);
    assert_int_equal(host.lv.n_conns, 0);
}

/* --- many questions --- */

#define ASKED 12u

static struct {
    atomic_uint now, most, same, same_most;
} busy;

static void most_of(atomic_uint *most, unsigned n)
{
    unsigned old = atomic_load(most);

    while (n > old && !atomic_compare_exchange_weak(most, &old, n))
        ;
}

/* A domain that answers late; those with an even number are the same one. */
static int slow_stats(struct hv *h, const char *uuid, struct hv_stats *out, struct err *e)
{
    bool is_same = strcmp(uuid, HOST_UUID) == 0;

    (void)h;
    (void)out;
    (void)e;
    most_of(&busy.most, atomic_fetch_add(&busy.now, 1) + 1);
    if (is_same)
        most_of(&busy.same_most, atomic_fetch_add(&busy.same, 1) + 1);
    usleep(5000);
    if (is_same)
        atomic_fetch_sub(&busy.same, 1);
    atomic_fetch_sub(&busy.now, 1);
    return 0;
}

static unsigned answered, told;

static void answer(void *arg, const struct domain_figures *f, const struct err *e)
{
    (void)arg;
    (void)f;
    answered++;
    told += e->code == ERR_CANCELLED;
}

static void ask_many(void)
{
    struct domain d = { .live = true };
    struct err e;

    memset(&busy, 0, sizeof busy);
    answered = told = 0;
    for (unsigned i = 0; i < ASKED; i++) {
        snprintf(d.uuid, sizeof d.uuid, "%s", HOST_UUID);
        if ((i & 1) != 0)
            snprintf(d.uuid, sizeof d.uuid, "other%u", i);
        assert_int_equal(figures_ask(&host.m, &d, FIGURES_STATS, answer, NULL, &e), 0);
    }
}

static void await_all(void)
{
    for (uint64_t end = clock_ns() + WAIT_NS; answered < ASKED && clock_ns() < end;)
        uv_run(&host.loop, UV_RUN_NOWAIT);
    assert_int_equal(answered, ASKED);
    assert_null(host.m.figures);
}

/* They leave threads for the journal, and one domain that hangs leaves some for the others. */
static void test_many_questions(void **state)
{
    struct hv_ops slow = fake;

    (void)state;
    slow.stats = slow_stats;
    host.m.hv_ops = &slow;
    ask_many();
    await_all();
    assert_in_range(atomic_load(&busy.most), 1, 4);
    assert_int_equal(atomic_load(&busy.same_most), 1);
    assert_int_equal(told, 0);
    ask_many();
    figures_stop(&host.m);
    await_all();
    assert_in_range(told, 1, ASKED - 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, up, down)
    const struct CMUnitTest tests[] = { TEST(test_pin), TEST(test_pin_to_all), TEST(test_bad_pins),
        TEST(test_get_pins), TEST(test_get_vcpus), TEST(test_count), TEST(test_sched),
        TEST(test_bad_sched), TEST(test_memory), TEST(test_disk), TEST(test_vif_and_memory),
        TEST(test_host), TEST(test_leaves), TEST(test_many_questions) };

    log_set_level(LOG_LV_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
