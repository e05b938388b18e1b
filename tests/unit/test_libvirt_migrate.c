/* SPDX-License-Identifier: ISC */
/* virsh's migrations without a hypervisor: cookies, options, and what the steps refuse or keep. */
#include "tests/unit/libvirt_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/libvirt/migrate.h"

#define OTHER_UUID "11111111-2222-4333-8444-555555555555"
#define OTHER_XML                                                                                  \
    "<domain type='xvm'><name>web2</name><uuid>" OTHER_UUID                                        \
    "</uuid><memory unit='MiB'>64</memory>"                                                        \
    "<vcpu>1</vcpu><os><type arch='x86_64'>linux</type><kernel>/k</kernel></os></domain>"

static struct host host;
static struct lv_call call;
static lv_dom web1 = { .name = (char *)(uintptr_t) "web1", .id = -1 };

static int up(void **state)
{
    (void)state;
    host_up(&host);
    client_open(&host, false);
    lv_uuid_bytes(HOST_UUID, web1.uuid);
    call = (struct lv_call){ .c = host.lv.conns, .m = &host.m };
    return 0;
}

static int down(void **state)
{
    (void)state;
    host_down(&host);
    return 0;
}

static struct domain *the_domain(void)
{
    return registry_by_uuid(host.m.registry, HOST_UUID);
}

static void assert_says(const struct err *e, const char *text)
{
    if (strstr(e->text, text) == NULL)
        fail_msg("expected '%s', got: %s", text, e->text);
}

static lv_param text_param(const char *field, const char *text)
{
    lv_param p = { .field = (char *)(uintptr_t)field };

    p.value.type = LV_STRING;
    p.value.lv_value_u.s = (char *)(uintptr_t)text;
    return p;
}

static lv_param number_param(const char *field, uint64_t n)
{
    lv_param p = { .field = (char *)(uintptr_t)field };

    p.value.type = LV_ULLONG;
    p.value.lv_value_u.ul = n;
    return p;
}

/* --- cookies --- */

struct cookie {
    char *data;
    u_int len;
};

static struct cookie cookie_of(
    Migrd__TicketStep step, const char *uuid, const char *source, const char *target)
{
    Migrd__Ticket t = MIGRD__TICKET__INIT;
    struct cookie c;
    struct err e;

    t.step = step;
    t.uuid = (char *)(uintptr_t)uuid;
    t.source = (char *)(uintptr_t)source;
    t.target = (char *)(uintptr_t)target;
    t.epoch = 5;
    assert_int_equal(lv_ticket_put(&t, &c.data, &c.len, &e), 0);
    return c;
}

static void test_tickets(void **state)
{
    struct cookie c =
        cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, HOST_UUID, "host1.example", "host2");
    char text[2000];
    Migrd__Ticket *t;
    struct err e;

    (void)state;
    t = lv_ticket_take(&call, c.data, c.len, MIGRD__TICKET_STEP__TICKET_BEGUN, HOST_UUID, &e);
    assert_non_null(t);
    assert_string_equal(t->source, "host1.example");
    assert_int_equal(t->epoch, 5);
    migrd__ticket__free_unpacked(t, NULL);
    assert_null(
        lv_ticket_take(&call, c.data, c.len, MIGRD__TICKET_STEP__TICKET_BEGUN, OTHER_UUID, &e));
    assert_says(&e, "not that of this domain's Begin");
    assert_null(
        lv_ticket_take(&call, c.data, c.len, MIGRD__TICKET_STEP__TICKET_FINISHED, NULL, &e));
    for (u_int n = 0; n < c.len; n++)
        if ((t = lv_ticket_parse(c.data, n)) != NULL)
            migrd__ticket__free_unpacked(t, NULL);
    c.data[3] ^= 1; /* the magic */
    assert_null(lv_ticket_parse(c.data, c.len));
    free(c.data);
    assert_null(lv_ticket_parse("<qemu-migration/>", 17));
    assert_null(lv_ticket_take(&call, NULL, 0, MIGRD__TICKET_STEP__TICKET_BEGUN, NULL, &e));
    assert_says(&e, "are both hosts run by migrd");

    memset(text, 'h', sizeof text);
    text[300] = '\0'; /* no host is called so */
    c = cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, HOST_UUID, text, "");
    assert_null(lv_ticket_parse(c.data, c.len));
    free(c.data);
    c = cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, "not-a-uuid", "host1", "");
    assert_null(lv_ticket_parse(c.data, c.len));
    free(c.data);
}

/* --- options --- */

static void test_flags(void **state)
{
    static const struct {
        unsigned flags;
        const char *says;
    } cases[] = { { 0x4, "--tunnelled" }, { 0x40, "--copy-storage-all" },
        { 0x80, "--copy-storage-inc" }, { 0x200, "--unsafe" }, { 0x8000, "--postcopy" },
        { 0x40000000, "unsupported flags" } };
    struct lv_step s = { .flags = 0 };
    struct lv_order o;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        s.flags = cases[i].flags | LV_M_LIVE;
        assert_int_equal(lv_order_take(&call, &s, &o, &e), -1);
        assert_says(&e, cases[i].says);
    }
    s.flags = LV_M_LIVE | LV_M_PAUSED | LV_M_PERSIST_DEST;
    assert_int_equal(lv_order_take(&call, &s, &o, &e), 0);
    assert_true(o.params.live && o.params.stay_paused && o.params.change_home);
    assert_false(o.params.undefine_source);
}

static void test_params(void **state)
{
    const lv_param good[] = { text_param("migrate_uri", "xenmigr://[fe80::1]:9000"),
        text_param("destination_name", "web1"), text_param("compression", "xbzrle"),
        text_param("compression", "zstd"), number_param("bandwidth", 3),
        number_param("compression.xbzrle.cache", 4096) };
    const struct {
        lv_param p;
        const char *says;
    } bad[] = { { text_param("migrate_uri", "xenmigr:///x"), "names no host" },
        { text_param("migrate_uri", "rdma://h"), "relocation port" },
        { text_param("migrate_uri", "%%%"), "names no host" },
        { text_param("destination_name", "other"), "--dname" },
        { text_param("compression", "mt"), "method mt" },
        { text_param("persistent_xml", "<x/>"), "--persistent-xml" },
        { text_param("bandwidth", "3"), "bandwidth" },
        { number_param("bandwidth", UINT64_MAX), "bandwidth" },
        { number_param("bandwidth.postcopy", 1), "--postcopy-bandwidth" },
        { number_param("something", 1), "something" } };
    struct lv_step s = { .dom = &web1, .params = good, .n_params = 6, .flags = LV_M_LIVE };
    struct lv_order o;
    struct err e;

    (void)state;
    assert_int_equal(lv_order_take(&call, &s, &o, &e), 0);
    assert_string_equal(o.host, "fe80::1");
    assert_int_equal(o.port, 9000);
    assert_int_equal(o.params.bandwidth, 3 << 20);
    assert_int_equal(o.params.delta_cache, 4096);
    assert_int_equal(o.params.compression, MIGRD__COMPRESSION__COMPRESSION_ZSTD);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        s.params = &bad[i].p;
        s.n_params = 1;
        assert_int_equal(lv_order_take(&call, &s, &o, &e), -1);
        assert_says(&e, bad[i].says);
    }
}

/* --- Begin --- */

static void forget(lv_begun *b)
{
    xdr_free((xdrproc_t)xdr_lv_begun, b);
    memset(b, 0, sizeof *b);
}

static void test_begin(void **state)
{
    struct lv_step s = { .dom = &web1, .flags = LV_M_LIVE };
    lv_begun ret = { .xml = NULL };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), -1);
    assert_says(&e, "only a running or paused one");
    s.flags = LV_M_OFFLINE;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), -1);
    assert_says(&e, "--persistent");
    s.flags = LV_M_OFFLINE | LV_M_PERSIST_DEST;
    registry_set_owner(&host.m, the_domain(), "host9", 4);
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), -1);
    assert_says(&e, "belongs to host host9");
    registry_set_owner(&host.m, the_domain(), "host1", 5);
    assert_null(the_domain()->busy);
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), 0);
    assert_non_null(strstr(ret.xml, "web1"));
    assert_non_null(the_domain()->busy);
    forget(&ret);
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), 0); /* again */
    forget(&ret);
    client_close(&host);
    assert_null(the_domain()->busy);
}

/* A client that says nothing more holds nobody up for good. */
static void test_hold_ends(void **state)
{
    struct lv_step s = { .dom = &web1, .flags = LV_M_OFFLINE | LV_M_PERSIST_DEST };
    lv_begun ret = { .xml = NULL };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), 0);
    forget(&ret);
    lv_moves_tick(&host.m, clock_ns() + 10 * NS_PER_S);
    assert_non_null(the_domain()->busy);
    lv_moves_tick(&host.m, clock_ns() + 100 * NS_PER_S);
    assert_null(the_domain()->busy);
    assert_null(host.lv.moves);
}

/* While its new owner is written down nobody starts it, whatever becomes of the client. */
static void test_given_stays_held(void **state)
{
    struct lv_step s = { .dom = &web1, .flags = LV_M_OFFLINE | LV_M_PERSIST_DEST };
    lv_begun ret = { .xml = NULL };
    struct lv_move *mv;
    struct err e;

    (void)state;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), 0);
    forget(&ret);
    mv = lv_move_find(&call, LV_MOVE_HELD, HOST_UUID);
    assert_non_null(mv);
    mv->kind = LV_MOVE_GIVEN;
    mv->c = NULL;
    lv_moves_tick(&host.m, clock_ns() + 100 * NS_PER_S);
    client_close(&host);
    assert_int_equal(registry_act(&host.m, the_domain(), REG_START, NULL, NULL, NULL, &e), -1);
    assert_says(&e, "about to be migrated");
    lv_move_end(&host.m, &mv);
    assert_null(the_domain()->busy);
    assert_null(host.lv.moves);
}

static void test_begin_xml(void **state)
{
    const lv_param same = text_param("destination_xml", HOST_XML);
    const lv_param other = text_param("destination_xml", OTHER_XML);
    const lv_param none = text_param("destination_xml", "<x");
    struct lv_step s = {
        .dom = &web1, .params = &same, .n_params = 1, .flags = LV_M_OFFLINE | LV_M_PERSIST_DEST
    };
    lv_begun ret = { .xml = NULL };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), 0);
    forget(&ret);
    s.params = &other;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), -1);
    assert_says(&e, "--xml is not supported");
    forget(&ret);
    s.params = &none;
    assert_int_equal(lv_step_begin(&call, &s, &ret, &e), -1);
    assert_int_equal(call.code, LV_E_XML);
    forget(&ret);
}

/* --- Prepare --- */

static int prepare(const struct cookie *c, const lv_param *p, u_int n, unsigned flags,
    lv_prepared *ret, struct err *e)
{
    const struct lv_step s = {
        .params = p, .n_params = n, .cookie = c->data, .cookie_len = c->len, .flags = flags
    };

    memset(ret, 0, sizeof *ret);
    return lv_step_prepare(&call, &s, ret, e);
}

static void test_prepare(void **state)
{
    struct cookie c = cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, OTHER_UUID, "host2", "");
    const lv_param p[] = { text_param("destination_xml", OTHER_XML),
        text_param("migrate_uri", "xenmigr://10.0.0.1") };
    const lv_param own = text_param("destination_xml", HOST_XML);
    lv_prepared ret;
    Migrd__Ticket *t;
    struct err e;

    (void)state;
    assert_int_equal(prepare(&c, p, 1, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "loopback");
    host.m.config.relocation_address[0] = '\0';
    host.m.config.relocation_tls = false;
    assert_int_equal(prepare(&c, p, 1, LV_M_LIVE, &ret, &e), 0);
    assert_string_equal(*ret.uri, "xenmigr://host1:8002");
    t = lv_ticket_parse(ret.cookie.cookie_val, ret.cookie.cookie_len);
    assert_non_null(t);
    assert_string_equal(t->target, "host1");
    assert_int_equal(t->step, MIGRD__TICKET_STEP__TICKET_PREPARED);
    migrd__ticket__free_unpacked(t, NULL);
    xdr_free((xdrproc_t)xdr_lv_prepared, &ret);
    assert_int_equal(prepare(&c, p, 2, LV_M_LIVE, &ret, &e), 0);
    assert_null(ret.uri); /* the one that was given stands */
    xdr_free((xdrproc_t)xdr_lv_prepared, &ret);
    host.m.config.relocation_server = false;
    assert_int_equal(prepare(&c, p, 1, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "xend-relocation-server");
    assert_int_equal(prepare(&c, &own, 1, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "another domain");
    assert_int_equal(prepare(&c, NULL, 0, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "without the domain's definition");
    assert_null(host.lv.moves); /* nothing of it is left */
    free(c.data);
}

/* The same host as source and "destination": the target is in the migrate URI. */
static void test_prepare_away(void **state)
{
    struct cookie c = cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, HOST_UUID, "host1", "");
    const lv_param p[] = { text_param("destination_xml", HOST_XML),
        text_param("migrate_uri", "xenmigr://host2") };
    const lv_param self = text_param("migrate_uri", "xenmigr://host1");
    lv_prepared ret;
    Migrd__Ticket *t;
    struct err e;

    (void)state;
    host.m.config.relocation_tls = false;
    assert_int_equal(prepare(&c, p, 1, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "where the domain is already");
    assert_int_equal(prepare(&c, &self, 1, LV_M_LIVE, &ret, &e), -1);
    assert_says(&e, "where the domain is already");
    assert_int_equal(prepare(&c, p, 2, LV_M_OFFLINE | LV_M_PERSIST_DEST, &ret, &e), -1);
    assert_says(&e, "connection to the target");
    assert_int_equal(prepare(&c, p, 2, LV_M_LIVE, &ret, &e), 0);
    t = lv_ticket_parse(ret.cookie.cookie_val, ret.cookie.cookie_len);
    assert_string_equal(t->target, "");
    migrd__ticket__free_unpacked(t, NULL);
    xdr_free((xdrproc_t)xdr_lv_prepared, &ret);
    free(c.data);
}

/* --- Perform, Finish, Confirm --- */

static void test_perform(void **state)
{
    struct cookie wrong = cookie_of(MIGRD__TICKET_STEP__TICKET_BEGUN, HOST_UUID, "host1", "");
    struct cookie right =
        cookie_of(MIGRD__TICKET_STEP__TICKET_PREPARED, HOST_UUID, "host1", "host2");
    const lv_param xml = text_param("destination_xml", HOST_XML);
    struct lv_step s = { .dom = &web1, .flags = LV_M_LIVE };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "virsh does not tell where --direct leads to");
    s.flags |= LV_M_PEER2PEER;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "names no host");
    s.dconnuri = "xvm+tls://host2/system";
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "only a running or paused one");
    s.params = &xml;
    s.n_params = 1;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "--xml");
    s.flags = LV_M_LIVE;
    s.cookie = wrong.data;
    s.cookie_len = wrong.len;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "Prepare");
    s.cookie = right.data;
    s.cookie_len = right.len;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "without the target's migrate URI");
    s.flags = LV_M_OFFLINE;
    assert_int_equal(lv_step_perform(&call, &s, &e), -1);
    assert_says(&e, "--offline");
    assert_null(host.lv.moves);
    free(wrong.data);
    free(right.data);
}

static void test_finish(void **state)
{
    struct cookie here =
        cookie_of(MIGRD__TICKET_STEP__TICKET_PERFORMED, HOST_UUID, "host2", "host1");
    struct cookie away =
        cookie_of(MIGRD__TICKET_STEP__TICKET_PERFORMED, HOST_UUID, "host1", "host2");
    struct cookie else_ =
        cookie_of(MIGRD__TICKET_STEP__TICKET_PERFORMED, HOST_UUID, "host2", "host3");
    struct lv_step s = { .flags = LV_M_LIVE, .cancelled = true };
    lv_finished ret = { .cookie = { 0 } };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_finish(&call, &s, &ret, &e), -1);
    assert_int_equal(call.code, 93);
    s.cancelled = false;
    s.cookie = here.data;
    s.cookie_len = here.len;
    assert_int_equal(lv_step_finish(&call, &s, &ret, &e), -1);
    assert_says(&e, "is not on host host1"); /* of an older epoch */
    s.cookie = away.data;
    s.cookie_len = away.len;
    assert_int_equal(lv_step_finish(&call, &s, &ret, &e), -1);
    assert_says(&e, "no migration of domain");
    s.cookie = else_.data;
    s.cookie_len = else_.len;
    assert_int_equal(lv_step_finish(&call, &s, &ret, &e), -1);
    assert_says(&e, "has gone to host host3");
    s.flags = LV_M_OFFLINE | LV_M_PERSIST_DEST;
    assert_int_equal(lv_step_finish(&call, &s, &ret, &e), -1);
    assert_says(&e, "without the domain's definition");
    free(here.data);
    free(away.data);
    free(else_.data);
}

static void test_confirm(void **state)
{
    struct cookie forged =
        cookie_of(MIGRD__TICKET_STEP__TICKET_FINISHED, HOST_UUID, "host1", "host2");
    struct lv_step s = { .dom = &web1, .flags = LV_M_LIVE, .cancelled = true };
    struct err e;

    (void)state;
    assert_int_equal(lv_step_confirm(&call, &s, &e), 0);
    s.cookie = "nonsense";
    s.cookie_len = 8;
    assert_int_equal(lv_step_confirm(&call, &s, &e), -1);
    s.cookie = forged.data;
    s.cookie_len = forged.len;
    s.cancelled = false;
    assert_int_equal(lv_step_confirm(&call, &s, &e), 0); /* says nothing, does nothing */
    s.flags = LV_M_OFFLINE | LV_M_UNDEFINE_SOURCE;
    assert_int_equal(lv_step_confirm(&call, &s, &e), -1);
    assert_says(&e, "did not announce");
    assert_non_null(the_domain()->def);
    assert_true(registry_owned(&host.m, the_domain()));
    free(forged.data);
}

/* --- files --- */

/* What would be replaced: files of migrd, and of domains. */
static void test_file_elsewhere(void **state)
{
    struct migration_file f = { .path = "/var/lib/migrd/journal" };
    struct migration *g;
    struct err e;

    (void)state;
    strcpy(host.m.paths.state, "/var/lib/migrd");
    assert_int_equal(migration_save(&host.m, the_domain(), &f, &g, &e), -1);
    assert_says(&e, "migrd's own files");
    f.path = "/var/lib/migrd.save";
    assert_int_equal(migration_save(&host.m, the_domain(), &f, &g, &e), -1);
    assert_says(&e, "does not run here");
    f.path = the_domain()->def->kernel;
    assert_int_equal(migration_dump(&host.m, the_domain(), &f, &g, &e), -1);
    assert_says(&e, "of domain web1");
    host.m.paths.state[0] = '\0';
}

/* --- older clients, speed and pause --- */

static void test_old(void **state)
{
    lv_name uri = (char *)(uintptr_t) "xenmigr://host2";
    lv_begin_old begin = { .dom = web1, .flags = LV_M_OFFLINE };
    lv_perform_old direct = { .dom = web1, .flags = LV_M_LIVE, .uri = &uri };
    lv_finish_old finish = { .name = (char *)(uintptr_t) "web1", .cancelled = 1 };
    lv_confirm_old confirm = { .dom = web1, .cancelled = 1 };
    lv_begun begun = { .xml = NULL };
    lv_finished finished = { .cookie = { 0 } };
    struct err e;

    (void)state;
    assert_int_equal(lv_begin3_old(&call, &begin, &begun, &e), -1);
    assert_says(&e, "--offline needs a client");
    begin.flags = UINT64_C(1) << 40;
    assert_int_equal(lv_begin3_old(&call, &begin, &begun, &e), -1);
    assert_says(&e, "unsupported flags");
    assert_int_equal(lv_perform3_old(&call, &direct, NULL, &e), -1);
    assert_says(&e, "only a running or paused one");
    assert_int_equal(lv_finish3_old(&call, &finish, &finished, &e), -1);
    assert_int_equal(call.code, 93);
    assert_int_equal(lv_confirm3_old(&call, &confirm, NULL, &e), 0);
}

static void test_wishes(void **state)
{
    lv_dom_wish wish = { .dom = web1, .value = 7 };
    lv_dom_flags ask = { .dom = web1 };
    lv_uhyper r = { 99 };
    struct err e;

    (void)state;
    assert_int_equal(lv_get_speed(&call, &ask, &r, &e), 0);
    assert_int_equal(r.value, 0);
    assert_int_equal(lv_get_downtime(&call, &ask, &r, &e), 0);
    assert_int_equal(r.value, 100);
    assert_int_equal(lv_set_speed(&call, &wish, NULL, &e), 0);
    assert_int_equal(lv_set_downtime(&call, &wish, NULL, &e), 0);
    assert_int_equal(lv_get_speed(&call, &ask, &r, &e), 0);
    assert_int_equal(r.value, 7);
    assert_int_equal(lv_get_downtime(&call, &ask, &r, &e), 0);
    assert_int_equal(r.value, 7);
    wish.value = 0;
    assert_int_equal(lv_set_speed(&call, &wish, NULL, &e), 0);
    assert_int_equal(lv_get_speed(&call, &ask, &r, &e), 0);
    assert_int_equal(r.value, 0);
    assert_int_equal(lv_set_downtime(&call, &wish, NULL, &e), -1);
    wish.value = UINT64_MAX;
    assert_int_equal(lv_set_speed(&call, &wish, NULL, &e), -1);
    assert_int_equal(lv_set_downtime(&call, &wish, NULL, &e), -1);
    wish.flags = ask.flags = 1;
    assert_int_equal(lv_set_speed(&call, &wish, NULL, &e), -1);
    assert_int_equal(lv_get_speed(&call, &ask, &r, &e), -1);
    assert_says(&e, "postcopy");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_tickets), TEST(test_flags), TEST(test_params),
        TEST(test_begin), TEST(test_hold_ends), TEST(test_given_stays_held), TEST(test_begin_xml),
        TEST(test_prepare), TEST(test_prepare_away), TEST(test_perform), TEST(test_finish),
        TEST(test_confirm), TEST(test_file_elsewhere), TEST(test_old), TEST(test_wishes) };

    log_open("test", "/dev/null", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
