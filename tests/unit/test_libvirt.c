/* SPDX-License-Identifier: ISC */
/* libvirt's protocol: frames, XDR with its limits, answers and errors byte by byte, clients that
 * hang or talk nonsense. */
#include "tests/unit/libvirt_host.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <termios.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"

static struct host host;
static uint8_t in[1 << 20];

static int up(void **state)
{
    (void)state;
    host_up(&host);
    client_open(&host, false);
    return 0;
}

static int down(void **state)
{
    (void)state;
    host_down(&host);
    return 0;
}

/* --- a client's side --- */

static void put_call(int proc, xdrproc_t xdr, void *args)
{
    static uint32_t serial;
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = proc, .serial = serial++ };
    struct err e;
    uint8_t *frame = lv_pack(&h, xdr, args, &e);

    assert_non_null(frame);
    client_write(&host, frame, h.len);
    free(frame);
}

/* The next answer; its payload in `out`. */
static struct lv_header get_answer(xdrproc_t xdr, void *out, size_t size)
{
    ssize_t n = client_read(&host, in, sizeof in);
    struct lv_header h;
    struct err e;

    assert_true(n >= LV_HEADER_BYTES);
    assert_int_equal(lv_header_read(in, (size_t)n, &h, &e), 1);
    assert_int_equal(h.len, n);
    if (size > 0)
        memset(out, 0, size);
    assert_int_equal(lv_unpack(xdr, in + LV_HEADER_BYTES, (size_t)n - LV_HEADER_BYTES, out, &e), 0);
    return h;
}

static void expect_error(int code, int domain, const char *part)
{
    lv_error x;
    struct lv_header h = get_answer((xdrproc_t)xdr_lv_error, &x, sizeof x);

    assert_int_equal(h.type, LV_REPLY);
    assert_int_equal(h.status, LV_ERROR);
    assert_int_equal(x.code, code);
    assert_int_equal(x.domain, domain);
    assert_int_equal(x.level, 2);
    assert_non_null(x.message);
    if (strstr(*x.message, part) == NULL)
        fail_msg("%s: not in: %s", part, *x.message);
    xdr_free((xdrproc_t)xdr_lv_error, (char *)&x);
}

static void expect_void(void)
{
    struct lv_header h = get_answer(NULL, NULL, 0);

    assert_int_equal(h.status, LV_OK);
    assert_int_equal(h.len, LV_HEADER_BYTES);
}

static void open_it(unsigned flags)
{
    char *uri = (char *)(uintptr_t) "xvm:///system";
    lv_open o = { .name = &uri, .flags = flags };

    put_call(LV_CONNECT_OPEN, (xdrproc_t)xdr_lv_open, &o);
    expect_void();
}

static void expect_hung_up(void)
{
    host_turn(&host);
    assert_int_equal(client_read(&host, in, sizeof in), -1);
    assert_int_equal(host.lv.n_conns, 0);
}

/* --- frames --- */

static void test_header(void **state)
{
    static const uint32_t bad[] = { 0, 27, LV_FRAME_MAX + 1, 0x7fffffff, 0xffffffff };
    uint8_t b[LV_HEADER_BYTES] = { 0 };
    struct lv_header h;
    struct err e;
    uint32_t len;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        len = htonl(bad[i]);
        memcpy(b, &len, 4);
        assert_int_equal(lv_header_read(b, 3, &h, &e), 0);
        assert_int_equal(lv_header_read(b, 4, &h, &e), -1);
        assert_int_equal(e.code, ERR_PROTOCOL);
    }
    len = htonl(28);
    memcpy(b, &len, 4);
    assert_int_equal(lv_header_read(b, 27, &h, &e), 0);
    assert_int_equal(lv_header_read(b, 28, &h, &e), 1);
    len = htonl(LV_FRAME_MAX);
    memcpy(b, &len, 4);
    assert_int_equal(lv_header_read(b, 28, &h, &e), 0);
}

/* The bytes that virsh 9.0 sends and expects. */
static void test_bytes(void **state)
{
    static const uint8_t open[] =
        "\x00\x00\x00\x38\x20\x00\x80\x86\0\0\0\1\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0"
        "\0\0\0\1\0\0\0\x0dxvm:///system\0\0\0\0\0\0";
    static const uint8_t opened[] =
        "\x00\x00\x00\x1c\x20\x00\x80\x86\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0";
    static const uint8_t auth[] =
        "\x00\x00\x00\x1c\x20\x00\x80\x86\0\0\0\1\0\0\0\x42\0\0\0\0\0\0\0\0\0\0\0";
    static const uint8_t none[] =
        "\x00\x00\x00\x24\x20\x00\x80\x86\0\0\0\1\0\0\0\x42\0\0\0\1\0\0\0\0\0\0\0\0"
        "\0\0\0\1\0\0\0";
    static const uint8_t ping[] = "\0\0\0\x1ckeep\0\0\0\1\0\0\0\1\0\0\0\2\0\0\0\0\0\0\0";
    static const uint8_t pong[] = "\0\0\0\x1ckeep\0\0\0\1\0\0\0\2\0\0\0\2\0\0\0\0\0\0\0";

    (void)state;
    client_write(&host, auth, sizeof auth);
    assert_int_equal(client_read(&host, in, sizeof in), sizeof none);
    assert_memory_equal(in, none, sizeof none);
    client_write(&host, open, sizeof open);
    assert_int_equal(client_read(&host, in, sizeof in), sizeof opened);
    assert_memory_equal(in, opened, sizeof opened);
    client_write(&host, ping, sizeof ping);
    assert_int_equal(client_read(&host, in, sizeof in), sizeof pong);
    assert_memory_equal(in, pong, sizeof pong);
}

/* --- XDR --- */

static int unpack_words(xdrproc_t xdr, const uint32_t *words, size_t n, void *out)
{
    uint32_t b[16];
    struct err e;

    for (size_t i = 0; i < n; i++)
        b[i] = htonl(words[i]);
    return lv_unpack(xdr, (uint8_t *)b, n * 4, out, &e);
}

static void test_limits(void **state)
{
    struct {
        xdrproc_t xdr;
        uint32_t words[12];
        size_t n;
    } bad[] = {
        { (xdrproc_t)xdr_lv_word, { LV_NAME_MAX + 1 }, 1 }, /* too long */
        { (xdrproc_t)xdr_lv_word, { 0xffffffff }, 1 },
        { (xdrproc_t)xdr_lv_word, { 8, 0x61616161 }, 2 },    /* ends too early */
        { (xdrproc_t)xdr_lv_word, { 4, 0x61616161, 0 }, 3 }, /* too many bytes */
        { (xdrproc_t)xdr_lv_string, { LV_TEXT_MAX + 1 }, 1 },
        { (xdrproc_t)xdr_lv_string, { LV_TEXT_MAX }, 1 },
        { (xdrproc_t)xdr_lv_int, { 0 }, 0 },
        { (xdrproc_t)xdr_lv_dom, { 0, 1, 2, 3 }, 4 }, /* half of a uuid */
        { (xdrproc_t)xdr_lv_job_stats, { 0, LV_PARAMS_MAX + 1 }, 2 },
        { (xdrproc_t)xdr_lv_job_stats, { 0, LV_PARAMS_MAX }, 2 },
        { (xdrproc_t)xdr_lv_job_stats, { 0, 1, 1, 0x61000000, 9, 0 }, 6 }, /* type 9 */
        { (xdrproc_t)xdr_lv_job_stats, { 0, 1, 1, 0x61000000, 7, LV_TEXT_MAX }, 6 },
        { (xdrproc_t)xdr_lv_list, { 0xffffffff, 0 }, 2 },
    };
    uint64_t out[32];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memset(out, 0, sizeof out);
        if (unpack_words(bad[i].xdr, bad[i].words, bad[i].n, out) == 0)
            fail_msg("case %zu was decoded", i);
    }
}

/* --- calls --- */

static void test_before_open(void **state)
{
    lv_int feature = { 10 };
    lv_int r;

    (void)state;
    put_call(LV_CONNECT_GET_TYPE, NULL, NULL);
    expect_error(LV_E_INVALID, 7, "not open");
    put_call(LV_CONNECT_SUPPORTS_FEATURE, (xdrproc_t)xdr_lv_int, &feature);
    get_answer((xdrproc_t)xdr_lv_int, &r, sizeof r);
    assert_int_equal(r.value, 1);
    open_it(0);
    put_call(LV_CONNECT_OPEN, (xdrproc_t)xdr_lv_open, &(lv_open){ 0 });
    expect_error(LV_E_INVALID, 6, "open already");
}

static void test_schemes(void **state)
{
    static const struct {
        const char *uri;
        bool ok;
    } cases[] = { { "", true }, { "xen:///", true }, { "xen:///system", true },
        { "xenmigr://", true }, { "xen://", true }, { "xvm+unix:///system", true },
        { "qemu:///system", false }, { "xvm:///session", false }, { "xvmx:///system", false },
        { "xvm", false } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *uri = (char *)(uintptr_t)cases[i].uri;
        lv_open o = { .name = &uri };

        client_close(&host);
        client_open(&host, false);
        put_call(LV_CONNECT_OPEN, (xdrproc_t)xdr_lv_open, &o);
        if (cases[i].ok)
            expect_void();
        else
            expect_error(LV_E_NO_CONNECT, 6, "no connection driver");
    }
}

static void test_unknown(void **state)
{
    static const int procs[] = { 0, -1, 68, 319, 999, 100000, 0x7fffffff };

    (void)state;
    open_it(0);
    for (size_t i = 0; i < sizeof procs / sizeof procs[0]; i++) {
        put_call(procs[i], NULL, NULL);
        expect_error(LV_E_RPC, 7, "unknown procedure");
    }
}

/* Those that virsh knows are refused in words; it treats both alike. */
static void test_refused(void **state)
{
    static const struct {
        int proc;
        const char *words;
    } cases[] = { { 283, "virtual networks" }, { 185, "snapshots" }, { 337, "clock" },
        { 418, "agents" } };

    (void)state;
    open_it(0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        put_call(cases[i].proc, NULL, NULL);
        expect_error(LV_E_NO_SUPPORT, 6, cases[i].words);
    }
}

/* What virt-install asks on a host with Xen: types of guests, and what one of them can have. */
static void test_xen_capabilities(void **state)
{
    static const struct hv_ops xen = { .name = "xen" };
    const struct hv_ops *was = host.m.hv_ops;
    char *machine = (char *)(uintptr_t) "xenpv";
    lv_domcaps_args a = { .flags = 0 };
    lv_string caps;

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_GET_DOMAIN_CAPABILITIES, (xdrproc_t)xdr_lv_domcaps_args, &a);
    expect_error(LV_E_NO_SUPPORT, 6, "virsh capabilities has the host's");
    host.m.hv_ops = &xen;
    host.m.caps.guest_types = 1u << MIGRD__GUEST_TYPE__GUEST_PVH | 1u << MIGRD__GUEST_TYPE__GUEST_HVM;
    put_call(LV_CONNECT_GET_CAPABILITIES, NULL, NULL);
    get_answer((xdrproc_t)xdr_lv_string, &caps, sizeof caps);
    assert_non_null(strstr(caps.value, "<os_type>xenpvh</os_type>"));
    assert_non_null(strstr(caps.value, "<machine>xenfv</machine>"));
    assert_null(strstr(caps.value, "xenpv<"));
    assert_non_null(strstr(caps.value, "<domain type=\"xen\"/>"));
    xdr_free((xdrproc_t)xdr_lv_string, (char *)&caps);
    put_call(LV_CONNECT_GET_DOMAIN_CAPABILITIES, (xdrproc_t)xdr_lv_domcaps_args, &a);
    get_answer((xdrproc_t)xdr_lv_string, &caps, sizeof caps);
    assert_non_null(strstr(caps.value, "<machine>xenpvh</machine>"));
    assert_non_null(strstr(caps.value, "<graphics supported=\"no\"/>"));
    xdr_free((xdrproc_t)xdr_lv_string, (char *)&caps);
    a.machine = &machine;
    put_call(LV_CONNECT_GET_DOMAIN_CAPABILITIES, (xdrproc_t)xdr_lv_domcaps_args, &a);
    expect_error(LV_E_INVALID_ARG, 6, "machine 'xenpv'");
    host.m.hv_ops = was;
    host.m.caps.guest_types = 0;
}

/* --- statistics --- */

static const lv_param *param_of(const lv_stats_record *r, const char *field)
{
    for (u_int i = 0; i < r->params.params_len; i++)
        if (strcmp(r->params.params_val[i].field, field) == 0)
            return &r->params.params_val[i];
    return NULL;
}

static void test_stats(void **state)
{
    lv_dom dom = { .name = (char *)(uintptr_t) "web1" };
    lv_stats_args a = { .doms.doms_len = 0 };
    const lv_param *p;
    lv_stats_list list;

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_GET_ALL_DOMAIN_STATS, (xdrproc_t)xdr_lv_stats_args, &a);
    get_answer((xdrproc_t)xdr_lv_stats_list, &list, sizeof list);
    assert_int_equal(list.records.records_len, 1);
    p = param_of(&list.records.records_val[0], "state.state");
    assert_non_null(p);
    assert_int_equal(p->value.type, LV_INT);
    assert_int_equal(p->value.lv_value_u.i, 5);
    p = param_of(&list.records.records_val[0], "balloon.maximum");
    assert_non_null(p);
    assert_int_equal(p->value.lv_value_u.ul, 65536);
    assert_null(param_of(&list.records.records_val[0], "cpu.time")); /* it does not run */
    xdr_free((xdrproc_t)xdr_lv_stats_list, (char *)&list);
    a.flags = 1; /* only active ones */
    put_call(LV_CONNECT_GET_ALL_DOMAIN_STATS, (xdrproc_t)xdr_lv_stats_args, &a);
    get_answer((xdrproc_t)xdr_lv_stats_list, &list, sizeof list);
    assert_int_equal(list.records.records_len, 0);
    xdr_free((xdrproc_t)xdr_lv_stats_list, (char *)&list);
    a = (lv_stats_args){ .stats = 0x41, .flags = 1u << 31 };
    put_call(LV_CONNECT_GET_ALL_DOMAIN_STATS, (xdrproc_t)xdr_lv_stats_args, &a);
    expect_error(LV_E_ARGUMENT_UNSUPPORTED, 6, "groups 0x40");
    a = (lv_stats_args){ .flags = 0x10000 };
    put_call(LV_CONNECT_GET_ALL_DOMAIN_STATS, (xdrproc_t)xdr_lv_stats_args, &a);
    expect_error(LV_E_INVALID_ARG, 6, "unsupported flags");
    a = (lv_stats_args){ .doms = { 1, &dom } };
    put_call(LV_CONNECT_GET_ALL_DOMAIN_STATS, (xdrproc_t)xdr_lv_stats_args, &a);
    expect_error(LV_E_NO_DOMAIN, 6, "no domain");
}

static void test_native(void **state)
{
    lv_native a = { (char *)(uintptr_t) "xen-xm",
        (char *)(uintptr_t) "name = 'a'\nmemory = 64\nkernel = '/k'\n", 0 };
    lv_string xml;

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_DOMAIN_XML_FROM_NATIVE, (xdrproc_t)xdr_lv_native, &a);
    get_answer((xdrproc_t)xdr_lv_string, &xml, sizeof xml);
    assert_non_null(strstr(xml.value, "<name>a</name>"));
    a.text = xml.value;
    put_call(LV_CONNECT_DOMAIN_XML_TO_NATIVE, (xdrproc_t)xdr_lv_native, &a);
    xml.value = NULL;
    get_answer((xdrproc_t)xdr_lv_string, &xml, sizeof xml);
    assert_non_null(strstr(xml.value, "memory = 64"));
    free(a.text);
    xdr_free((xdrproc_t)xdr_lv_string, (char *)&xml);
    a.text = (char *)(uintptr_t) "name = [";
    put_call(LV_CONNECT_DOMAIN_XML_FROM_NATIVE, (xdrproc_t)xdr_lv_native, &a);
    expect_error(LV_E_INVALID_ARG, 6, "configuration");
    a.format = (char *)(uintptr_t) "vmx";
    put_call(LV_CONNECT_DOMAIN_XML_FROM_NATIVE, (xdrproc_t)xdr_lv_native, &a);
    expect_error(LV_E_INVALID_ARG, 6, "format 'vmx'");
}

static void test_read_only(void **state)
{
    lv_dom dom = { .name = (char *)(uintptr_t) "web1" };

    (void)state;
    open_it(1);
    lv_uuid_bytes(HOST_UUID, dom.uuid);
    put_call(LV_DOMAIN_DESTROY, (xdrproc_t)xdr_lv_dom, &dom);
    expect_error(LV_E_DENIED, 7, "read only");
}

static void test_lookup(void **state)
{
    lv_word name = { (char *)(uintptr_t) "web1" };
    char uuid[LV_UUID_BYTES];
    lv_dom dom;

    (void)state;
    open_it(0);
    lv_uuid_bytes(HOST_UUID, uuid);
    put_call(LV_DOMAIN_LOOKUP_BY_NAME, (xdrproc_t)xdr_lv_word, &name);
    get_answer((xdrproc_t)xdr_lv_dom, &dom, sizeof dom);
    assert_string_equal(dom.name, "web1");
    assert_memory_equal(dom.uuid, uuid, sizeof uuid);
    assert_int_equal(dom.id, -1);
    xdr_free((xdrproc_t)xdr_lv_dom, (char *)&dom);
    name.value = (char *)(uintptr_t) "web2";
    put_call(LV_DOMAIN_LOOKUP_BY_NAME, (xdrproc_t)xdr_lv_word, &name);
    expect_error(LV_E_NO_DOMAIN, 6, "Domain not found: no domain with matching name 'web2'");
}

static void test_bad_arguments(void **state)
{
    lv_list_args a = { .flags = 0x10000 };

    (void)state;
    open_it(0);
    put_call(LV_DOMAIN_LOOKUP_BY_NAME, NULL, NULL);
    expect_error(LV_E_RPC, 7, "cannot be decoded");
    put_call(LV_CONNECT_GET_TYPE, (xdrproc_t)xdr_lv_list_args, &a);
    expect_error(LV_E_RPC, 7, "too many");
    put_call(LV_CONNECT_LIST_ALL_DOMAINS, (xdrproc_t)xdr_lv_list_args, &a);
    expect_error(LV_E_INVALID_ARG, 6, "unsupported flags (0x10000)");
}

/* --- events --- */

static int ask_for(int event, const lv_dom *dom)
{
    lv_register reg = { .event = event, .dom = (lv_dom *)(uintptr_t)dom };
    lv_int number;

    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, (xdrproc_t)xdr_lv_register, &reg);
    get_answer((xdrproc_t)xdr_lv_int, &number, sizeof number);
    return number.value;
}

static void publish(const char *type, const char *detail)
{
    registry_publish(&host.m, registry_first(host.m.registry), type, detail);
}

/* The event that comes next is that one. */
static void expect_lifecycle(int callback, int event, int detail)
{
    lv_lifecycle ev;
    struct lv_header h = get_answer((xdrproc_t)xdr_lv_lifecycle, &ev, sizeof ev);

    assert_int_equal(h.type, LV_MESSAGE);
    assert_int_equal(h.proc, LV_DOMAIN_EVENT_CALLBACK_LIFECYCLE);
    assert_int_equal(ev.callback, callback);
    assert_string_equal(ev.dom.name, "web1");
    assert_int_equal(ev.event, event);
    assert_int_equal(ev.detail, detail);
    xdr_free((xdrproc_t)xdr_lv_lifecycle, (char *)&ev);
}

static void expect_nothing(void)
{
    assert_int_equal(client_read(&host, in, sizeof in), 0);
}

static void test_lifecycle(void **state)
{
    static const struct {
        const char *type, *detail;
        int event, code;
    } cases[] = { { "domain-defined", "", 0, 0 }, { "domain-defined", "again", 0, 1 },
        { "domain-undefined", "", 1, 0 }, { "domain-started", "", 2, 0 },
        { "domain-incoming", "host2", 2, 1 }, { "domain-restored", "/f", 2, 2 },
        { "domain-paused", "", 3, 0 }, { "domain-paused", "migrating", 3, 1 },
        { "domain-paused", "disk vda: no answer", 3, 2 }, { "domain-unpaused", "", 4, 0 },
        { "domain-arrived", "host2", 4, 1 }, { "domain-unpaused", "migrating", 4, 1 },
        { "domain-destroyed", "", 5, 1 }, { "domain-saved", "/f", 5, 4 },
        { "domain-discarded", "host2", 5, 5 }, { "domain-shutdown", "", 6, 0 },
        { "domain-crashed", "triple fault", 8, 0 } };
    lv_int number;

    (void)state;
    open_it(0);
    number.value = ask_for(0, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        publish(cases[i].type, cases[i].detail);
        expect_lifecycle(number.value, cases[i].event, cases[i].code);
    }
    registry_first(host.m.registry)->last_end = HV_EV_SHUTDOWN;
    publish("domain-destroyed", "");
    expect_lifecycle(number.value, 5, 0);
    publish("domain-shutdown-asked", "");
    expect_nothing();
    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, (xdrproc_t)xdr_lv_int, &number);
    expect_void();
    publish("domain-paused", "");
    expect_nothing();
    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY, (xdrproc_t)xdr_lv_int, &number);
    expect_error(LV_E_INVALID_ARG, 6, "no callback");
}

static void test_registrations(void **state)
{
    lv_dom dom = { .name = (char *)(uintptr_t) "web1" };
    lv_register reg = { .event = 27 };

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, (xdrproc_t)xdr_lv_register, &reg);
    expect_error(LV_E_INVALID_ARG, 6, "no event has number 27");
    reg = (lv_register){ .dom = &dom };
    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, (xdrproc_t)xdr_lv_register, &reg);
    expect_error(LV_E_NO_DOMAIN, 6, "no domain");
    lv_uuid_bytes(HOST_UUID, dom.uuid);
    assert_int_equal(ask_for(0, &dom), 0);
    publish("domain-paused", "");
    expect_lifecycle(0, 3, 0);
    for (int i = 1; i < 64; i++)
        assert_int_equal(ask_for(i % 27, NULL), i);
    put_call(LV_CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY, (xdrproc_t)xdr_lv_register, &reg);
    expect_error(LV_E_BUSY, 6, "64 callbacks");
}

/* Events with more than a domain in them. */
static void test_event_bodies(void **state)
{
    struct domain *d = registry_first(host.m.registry);
    struct lv_params params;
    lv_event_memory memory;
    lv_event_params tuned;
    lv_event_name device;
    lv_event reboot;
    struct err e;

    (void)state;
    open_it(0);
    ask_for(1, NULL);
    publish("domain-reboot", "");
    assert_int_equal(get_answer((xdrproc_t)xdr_lv_event, &reboot, sizeof reboot).proc, 319);
    xdr_free((xdrproc_t)xdr_lv_event, (char *)&reboot);
    ask_for(13, NULL);
    d->live = true;
    d->info.domid = 7;
    d->info.memory_kib = 4096;
    publish("domain-memory", "");
    assert_int_equal(get_answer((xdrproc_t)xdr_lv_event_memory, &memory, sizeof memory).proc, 331);
    assert_int_equal(memory.kib, 4096);
    assert_int_equal(memory.dom.id, 7);
    xdr_free((xdrproc_t)xdr_lv_event_memory, (char *)&memory);
    ask_for(19, NULL);
    lv_event_device(&host.m, d, false, "vdb");
    expect_nothing();
    lv_event_device(&host.m, d, true, "vdb");
    assert_int_equal(get_answer((xdrproc_t)xdr_lv_event_name, &device, sizeof device).proc, 354);
    assert_string_equal(device.name, "vdb");
    xdr_free((xdrproc_t)xdr_lv_event_name, (char *)&device);
    ask_for(17, NULL);
    assert_int_equal(lv_params_start(&params, 2, &e), 0);
    lv_put_text(&params, "cputune.vcpupin0", "1");
    lv_put_bool(&params, "b", true);
    lv_put_int(&params, "too many", 1);
    lv_event_tunable(&host.m, d, &params);
    lv_params_free(&params);
    assert_int_equal(get_answer((xdrproc_t)xdr_lv_event_params, &tuned, sizeof tuned).proc, 346);
    assert_int_equal(tuned.params.params_len, 2);
    assert_string_equal(*&tuned.params.params_val[0].value.lv_value_u.s, "1");
    xdr_free((xdrproc_t)xdr_lv_event_params, (char *)&tuned);
    d->live = false;
}

/* The disk that the guest waits for is found in the text. */
static void test_io_error(void **state)
{
    struct domain *d = registry_first(host.m.registry);
    Migrd__Disk disks[2] = { MIGRD__DISK__INIT, MIGRD__DISK__INIT },
                *p[2] = { &disks[0], &disks[1] };
    lv_event_io_reason io;

    (void)state;
    disks[0].source = disks[1].source = (char *)(uintptr_t) "/a";
    disks[0].device = (char *)(uintptr_t) "vda";
    disks[1].device = (char *)(uintptr_t) "vdaa";
    disks[1].source = (char *)(uintptr_t) "/b";
    d->def->disks = p;
    d->def->n_disks = 2;
    open_it(0);
    ask_for(6, NULL);
    publish("domain-paused", "");
    expect_nothing();
    strcpy(d->info.reason, "disk vdaa: the server does not answer");
    publish("domain-paused", d->info.reason);
    assert_int_equal(get_answer((xdrproc_t)xdr_lv_event_io_reason, &io, sizeof io).proc, 324);
    assert_string_equal(io.path, "/b");
    assert_string_equal(io.alias, "vdaa");
    assert_int_equal(io.action, 1);
    assert_string_equal(io.reason, d->info.reason);
    xdr_free((xdrproc_t)xdr_lv_event_io_reason, (char *)&io);
    d->def->disks = NULL;
    d->def->n_disks = 0;
}

/* What clients before libvirt 1.3 do: no numbers of callbacks. */
static void test_old_events(void **state)
{
    lv_int event = { 0 }, left;
    struct lv_header h;
    lv_dom_state two; /* any two words */

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_DOMAIN_EVENT_REGISTER_ANY, (xdrproc_t)xdr_lv_int, &event);
    expect_void();
    publish("domain-paused", "");
    assert_int_equal(client_read(&host, in, sizeof in), 28 + 8 + 16 + 4 + 8);
    assert_int_equal(lv_header_read(in, 64, &h, NULL), 1);
    assert_int_equal(h.proc, LV_DOMAIN_EVENT_LIFECYCLE);
    assert_memory_equal(in + 28, "\0\0\0\4web1", 8);
    assert_int_equal(lv_unpack((xdrproc_t)xdr_lv_dom_state, in + 56, 8, &two, NULL), 0);
    assert_int_equal(two.state, 3);
    assert_int_equal(two.reason, 0);
    put_call(LV_CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, (xdrproc_t)xdr_lv_int, &event);
    expect_void();
    put_call(LV_CONNECT_DOMAIN_EVENT_DEREGISTER_ANY, (xdrproc_t)xdr_lv_int, &event);
    expect_error(LV_E_INVALID_ARG, 6, "no event");
    event.value = 21;
    put_call(LV_CONNECT_DOMAIN_EVENT_REGISTER_ANY, (xdrproc_t)xdr_lv_int, &event);
    expect_error(LV_E_UNSUPPORTED, 6, "newer client");
    put_call(LV_CONNECT_DOMAIN_EVENT_REGISTER, NULL, NULL);
    get_answer((xdrproc_t)xdr_lv_int, &left, sizeof left);
    assert_int_equal(left.value, 1);
    put_call(LV_CONNECT_DOMAIN_EVENT_DEREGISTER, NULL, NULL);
    get_answer((xdrproc_t)xdr_lv_int, &left, sizeof left);
    assert_int_equal(left.value, 0);
}

/* Of two that listen, the one that does not read is cut off and the other misses nothing. */
static void test_slow_listener(void **state)
{
    struct ucred who = { .pid = 2 };
    unsigned got = 0;
    ssize_t n;
    int fd[2], slow;

    (void)state;
    host.m.config.libvirt_max_bytes = 65536;
    open_it(0);
    ask_for(0, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd), 0);
    slow = host.client;
    host.client = fd[0];
    lv_conn_add(&host.m, fd[1], &who, false);
    open_it(0);
    ask_for(0, NULL);
    for (unsigned i = 0; i < 20000; i++) {
        publish("domain-paused", "");
        n = client_read(&host, in, sizeof in);
        got += n > 0 ? (unsigned)n / 68 : 0;
    }
    assert_int_equal(got, 20000);
    assert_int_equal(host.lv.n_conns, 1);
    close(slow);
}

/* --- streams --- */

static int open_pty(void)
{
    struct domain *d = registry_by_uuid(host.m.registry, HOST_UUID);
    int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    struct termios t;

    assert_true(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 && tcgetattr(fd, &t) == 0);
    cfmakeraw(&t);
    assert_int_equal(tcsetattr(fd, TCSANOW, &t), 0);
    d->live = true;
    d->info.domid = 7;
    snprintf(d->info.console, sizeof d->info.console, "%s", ptsname(fd));
    return fd;
}

static void put_console(uint32_t serial, int type, int status, const void *data, size_t n)
{
    struct lv_header h = { .prog = LV_PROGRAM,
        .vers = 1,
        .proc = LV_DOMAIN_OPEN_CONSOLE,
        .type = type,
        .status = status,
        .serial = serial };
    uint8_t *frame = lv_pack_raw(&h, data, n);

    client_write(&host, frame, h.len);
    free(frame);
}

static void open_console(uint32_t serial, unsigned flags)
{
    lv_console c = { .dom.name = (char *)(uintptr_t) "web1", .flags = flags };
    struct lv_header h = { .prog = LV_PROGRAM };
    uint8_t *frame;

    lv_uuid_bytes(HOST_UUID, c.dom.uuid);
    frame = lv_pack(&h, (xdrproc_t)xdr_lv_console, &c, NULL);
    put_console(serial, LV_CALL, LV_OK, frame + LV_HEADER_BYTES, h.len - LV_HEADER_BYTES);
    free(frame);
}

/* A pty hands its bytes on a little later. */
static size_t wait_for_bytes(void)
{
    ssize_t n = client_read(&host, in, sizeof in);

    for (int i = 0; i < 1000 && n == 0; i++) {
        usleep(5000);
        host_turn(&host);
        n = client_read(&host, in, sizeof in);
    }
    assert_true(n > 0);
    return (size_t)n;
}

static void expect_from_pty(int pty, const char *text)
{
    char got[64];
    ssize_t n = read(pty, got, sizeof got);

    for (int i = 0; i < 1000 && n < 0; i++) {
        usleep(5000);
        n = read(pty, got, sizeof got);
    }
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

/* The next frames that come are these bytes and headers, one after the other. */
static const uint8_t *take_frame(size_t *used, uint32_t serial, int type, int status, size_t *n)
{
    static size_t len;
    const uint8_t *p;
    struct lv_header h;
    struct err e;

    if (*used == 0)
        len = wait_for_bytes();
    p = in + *used + LV_HEADER_BYTES;
    assert_int_equal(lv_header_read(in + *used, len - *used, &h, &e), 1);
    assert_int_equal(h.proc, LV_DOMAIN_OPEN_CONSOLE);
    assert_int_equal(h.serial, serial);
    assert_int_equal(h.type, type);
    assert_int_equal(h.status, status);
    *n = h.len - LV_HEADER_BYTES;
    *used += h.len;
    if (*used == len)
        *used = 0;
    return p;
}

static void expect_end(uint32_t serial, int type, const char *part)
{
    size_t n, used = 0;
    const uint8_t *p = take_frame(&used, serial, type, LV_ERROR, &n);
    lv_error x = { 0 };
    struct err e;

    assert_int_equal(lv_unpack((xdrproc_t)xdr_lv_error, p, n, &x, &e), 0);
    if (strstr(*x.message, part) == NULL)
        fail_msg("%s: not in: %s", part, *x.message);
    xdr_free((xdrproc_t)xdr_lv_error, (char *)&x);
}

static void test_console(void **state)
{
    int pty = open_pty();
    size_t n, used = 0;
    const uint8_t *p;
    char got[64];

    (void)state;
    open_it(0);
    open_console(5, 0);
    take_frame(&used, 5, LV_REPLY, LV_OK, &n);
    assert_int_equal(write(pty, "tick", 4), 4);
    host_turn(&host);
    p = take_frame(&used, 5, LV_STREAM, LV_CONTINUE, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(p, "tick", 4);
    put_console(5, LV_STREAM, LV_CONTINUE, "stat\n", 5);
    expect_from_pty(pty, "stat\n");
    open_console(6, 0);
    expect_end(6, LV_REPLY, "Active console session exists");
    open_console(7, 1);
    p = take_frame(&used, 5, LV_STREAM, LV_ERROR, &n);
    take_frame(&used, 7, LV_REPLY, LV_OK, &n);
    put_console(5, LV_STREAM, LV_CONTINUE, "late", 4); /* nobody hears it */
    assert_int_equal(read(pty, got, sizeof got), -1);
    put_console(7, LV_STREAM, LV_OK, NULL, 0);
    take_frame(&used, 7, LV_STREAM, LV_OK, &n);
    open_console(8, 2);
    take_frame(&used, 8, LV_REPLY, LV_OK, &n);
    put_console(8, LV_STREAM, LV_ERROR, NULL, 0);
    expect_end(8, LV_STREAM, "aborted");
    assert_int_equal(host.lv.conns->n_streams, 0);
    close(pty);
    open_console(9, 0);
    expect_end(9, LV_REPLY, "has no console");
}

/* The domain ends, and it is known why a little later. */
static void test_console_ends(void **state)
{
    struct domain *d = registry_by_uuid(host.m.registry, HOST_UUID);
    size_t n, used = 0;
    int pty = open_pty();

    (void)state;
    open_it(0);
    open_console(5, 0);
    take_frame(&used, 5, LV_REPLY, LV_OK, &n);
    close(pty);
    usleep(20000);
    host_turn(&host);
    lv_conn_tick(host.lv.conns, clock_ns());
    assert_int_equal(client_read(&host, in, sizeof in), 0);
    d->live = false;
    while (host.lv.conns->streams != NULL) {
        host_turn(&host);
        lv_conn_tick(host.lv.conns, clock_ns());
    }
    expect_end(5, LV_STREAM, "does not run here any more");
    pty = open_pty();
    open_console(6, 0);
    take_frame(&used, 6, LV_REPLY, LV_OK, &n);
    client_close(&host);
    assert_int_equal(host.lv.n_conns, 0);
    close(pty);
}

/* Neither a guest that does not read its console nor a client that does not can fill memory. */
static void test_console_full(void **state)
{
    static char block[32768];
    size_t n, used = 0, sent = 0;
    int pty = open_pty();
    ssize_t w;

    (void)state;
    open_it(0);
    open_console(5, 0);
    take_frame(&used, 5, LV_REPLY, LV_OK, &n);
    while (!lv_streams_full(host.lv.conns)) {
        put_console(5, LV_STREAM, LV_CONTINUE, block, sizeof block);
        assert_true((sent += sizeof block) < 4u << 20);
    }
    put_call(LV_AUTH_LIST, NULL, NULL); /* waits */
    assert_int_equal(client_read(&host, in, sizeof in), 0);
    lv_conn_tick(host.lv.conns, clock_ns() + 5 * NS_PER_S);
    assert_int_equal(client_read(&host, in, sizeof in), 0);
    lv_conn_tick(host.lv.conns, clock_ns() + 11 * NS_PER_S);
    expect_end(5, LV_STREAM, "takes no input");
    host_turn(&host);
    assert_true(client_read(&host, in, sizeof in) > LV_HEADER_BYTES);
    open_console(6, 0);
    take_frame(&used, 6, LV_REPLY, LV_OK, &n);
    for (unsigned idle = sent = 0; sent < 16u << 20 && idle < 50; sent += w > 0 ? (size_t)w : 0) {
        w = write(pty, block, sizeof block);
        host_turn(&host);
        idle = w > 0 ? 0 : idle + 1;
        usleep(w > 0 ? 0 : 1000);
    }
    assert_true(sent < 16u << 20);
    assert_true(host.lv.conns->out_len - host.lv.conns->out_sent < 128u << 10);
    close(pty);
}

/* What a guest that has ended did not take keeps nobody waiting. */
static void test_console_ends_full(void **state)
{
    static char block[32768];
    size_t n, used = 0, sent = 0;
    int pty = open_pty();

    (void)state;
    open_it(0);
    open_console(5, 0);
    take_frame(&used, 5, LV_REPLY, LV_OK, &n);
    while (!lv_streams_full(host.lv.conns)) {
        put_console(5, LV_STREAM, LV_CONTINUE, block, sizeof block);
        assert_true((sent += sizeof block) < 4u << 20);
    }
    close(pty);
    for (int i = 0; i < 1000 && lv_streams_full(host.lv.conns); i++) {
        usleep(1000);
        host_turn(&host);
    }
    assert_false(lv_streams_full(host.lv.conns));
    put_call(LV_AUTH_LIST, NULL, NULL);
    assert_true(client_read(&host, in, sizeof in) > LV_HEADER_BYTES);
}

static void test_close_callback(void **state)
{
    struct lv_header h;
    lv_int reason;

    (void)state;
    open_it(0);
    put_call(LV_CONNECT_UNREGISTER_CLOSE_CALLBACK, NULL, NULL);
    expect_error(LV_E_INVALID_ARG, 6, "no close callback");
    put_call(LV_CONNECT_REGISTER_CLOSE_CALLBACK, NULL, NULL);
    expect_void();
    put_call(LV_CONNECT_REGISTER_CLOSE_CALLBACK, NULL, NULL);
    expect_error(LV_E_INVALID_ARG, 6, "already registered");
    lv_tell_close(host.lv.conns);
    h = get_answer((xdrproc_t)xdr_lv_int, &reason, sizeof reason);
    assert_int_equal(h.proc, LV_CONNECT_EVENT_CONNECTION_CLOSED);
    assert_int_equal(h.type, LV_MESSAGE);
    assert_int_equal(reason.value, 1);
}

/* --- clients that are cut off --- */

static void test_nonsense(void **state)
{
    static const struct lv_header bad[] = {
        { .len = 4, .prog = LV_PROGRAM, .vers = 1 },
        { .len = 28, .prog = LV_PROGRAM, .vers = 1, .proc = 1, .type = LV_REPLY },
        { .len = 28, .prog = LV_PROGRAM, .vers = 1, .proc = 1, .status = LV_ERROR },
        { .len = 28, .prog = LV_PROGRAM_KEEPALIVE, .vers = 1, .proc = 3, .type = LV_MESSAGE },
        { .len = 28, .prog = LV_PROGRAM_KEEPALIVE, .vers = 2, .proc = 1, .type = LV_MESSAGE },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct lv_header h = bad[i];
        struct err e;
        uint8_t *frame = lv_pack(&h, NULL, NULL, &e);
        uint32_t len = htonl(bad[i].len);

        memcpy(frame, &len, 4);
        client_write(&host, frame, LV_HEADER_BYTES);
        free(frame);
        expect_hung_up();
        client_close(&host);
        client_open(&host, false);
    }
}

static void test_times(void **state)
{
    uint64_t now = clock_ns();
    lv_int feature = { 10 };
    int pings = 0;

    (void)state;
    lv_conn_tick(host.lv.conns, now + 19 * NS_PER_S);
    assert_int_equal(host.lv.n_conns, 1);
    lv_conn_tick(host.lv.conns, now + 22 * NS_PER_S); /* has not opened */
    expect_hung_up();
    client_close(&host);

    client_open(&host, false);
    open_it(0);
    lv_conn_tick(host.lv.conns, now + 3600 * NS_PER_S); /* nobody promised to answer */
    assert_int_equal(host.lv.n_conns, 1);
    client_write(&host, "\0\0\1", 3);
    lv_conn_tick(host.lv.conns, now + 30 * NS_PER_S); /* half a frame */
    expect_hung_up();
    client_close(&host);

    client_open(&host, false);
    open_it(0);
    put_call(LV_CONNECT_SUPPORTS_FEATURE, (xdrproc_t)xdr_lv_int, &feature);
    client_read(&host, in, sizeof in);
    for (unsigned s = 1; s < 60 && host.lv.conns != NULL; s++) {
        lv_conn_tick(host.lv.conns, now + s * NS_PER_S);
        pings += client_read(&host, in, sizeof in) == LV_HEADER_BYTES;
    }
    assert_int_equal(pings, 5);
    expect_hung_up();
}

/* A client that asks and takes nothing. */
static void test_glutton(void **state)
{
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_CONNECT_GET_CAPABILITIES };
    struct err e;
    uint8_t *frame = lv_pack(&h, NULL, NULL, &e);

    (void)state;
    host.m.config.libvirt_max_bytes = 65536;
    open_it(0);
    for (int i = 0; i < 100000 && host.lv.conns != NULL; i++)
        client_write(&host, frame, h.len);
    assert_int_equal(host.lv.n_conns, 0);
    free(frame);
}

/* Many calls in one piece, and one call in many pieces. */
static void test_pieces(void **state)
{
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_AUTH_LIST };
    struct err e;
    uint8_t *frame = lv_pack(&h, NULL, NULL, &e), many[28 * 20];
    ssize_t n;

    (void)state;
    for (int i = 0; i < 20; i++)
        memcpy(many + 28 * i, frame, 28);
    client_write(&host, many, sizeof many);
    n = client_read(&host, in, sizeof in);
    assert_int_equal(n, 20 * 36);
    for (int i = 0; i < 28; i++)
        client_write(&host, frame + i, 1);
    assert_int_equal(client_read(&host, in, sizeof in), 36);
    free(frame);
}

/* More calls in one piece than one turn of the loop has time for: none is forgotten. */
static void test_many(void **state)
{
    enum { CALLS = 1500 };
    struct lv_header h = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_CONNECT_GET_CAPABILITIES };
    uint8_t *frame = lv_pack(&h, NULL, NULL, NULL), *many = malloc(CALLS * LV_HEADER_BYTES);
    uint64_t end = clock_ns() + 30 * NS_PER_S;
    size_t got = 0, each;

    (void)state;
    open_it(0);
    client_write(&host, frame, h.len);
    each = (size_t)client_read(&host, in, sizeof in);
    for (size_t i = 0; i < CALLS; i++)
        memcpy(many + i * LV_HEADER_BYTES, frame, LV_HEADER_BYTES);
    assert_int_equal(send(host.client, many, CALLS * LV_HEADER_BYTES, 0), CALLS * LV_HEADER_BYTES);
    while (got < CALLS * each && clock_ns() < end) {
        ssize_t n;

        uv_run(&host.loop, UV_RUN_NOWAIT);
        n = client_read(&host, in, sizeof in);
        assert_true(n >= 0);
        got += (size_t)n;
        assert_true(host.lv.conns->in_cap < 128u << 10);
    }
    assert_int_equal(got, CALLS * each);
    free(frame);
    free(many);
}

/* It leaves while a call of its is under way, whose answer then goes nowhere. */
static void test_gone(void **state)
{
    lv_string xml = { (char *)(uintptr_t)HOST_XML };

    (void)state;
    strcpy(host.m.paths.domains, "/nonexistent");
    open_it(0);
    put_call(LV_DOMAIN_DEFINE_XML, (xdrproc_t)xdr_lv_string, &xml);
    client_close(&host);
    assert_int_equal(host.lv.n_conns, 0);
    while (registry_first(host.m.registry)->busy != NULL)
        uv_run(&host.loop, UV_RUN_ONCE);
}

/* Calls beyond the limit wait, also those that came in the same piece. */
static void test_calls(void **state)
{
    lv_string xml = { (char *)(uintptr_t)HOST_XML };
    struct lv_header define = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_DOMAIN_DEFINE_XML };
    struct lv_header type = { .prog = LV_PROGRAM, .vers = 1, .proc = LV_CONNECT_GET_TYPE };
    uint8_t *f = lv_pack(&define, (xdrproc_t)xdr_lv_string, &xml, NULL);
    uint8_t *g = lv_pack(&type, NULL, NULL, NULL), *both = malloc(define.len + type.len);
    uint64_t end = clock_ns() + 10 * NS_PER_S;
    size_t n = 0;

    (void)state;
    strcpy(host.m.paths.domains, "/nonexistent");
    open_it(0);
    host.m.config.libvirt_max_calls = 1;
    memcpy(both, f, define.len);
    memcpy(both + define.len, g, type.len);
    assert_int_equal(send(host.client, both, define.len + type.len, 0), define.len + type.len);
    for (ssize_t got = 0; got >= 0 && clock_ns() < end;) {
        usleep(1000);
        uv_run(&host.loop, UV_RUN_NOWAIT);
        got = client_read(&host, in + n, sizeof in - n);
        n += got > 0 ? (size_t)got : 0;
        /* The second one is answered after the first: with that of the type at the end. */
        if (n > 0 && in[15] == LV_CONNECT_GET_TYPE)
            fail_msg("a call was not made to wait");
        if (n > 36 && memmem(in, n, "xvm", 3) != NULL)
            break;
    }
    assert_non_null(memmem(in, n, "xvm", 3));
    free(f);
    free(g);
    free(both);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = { TEST(test_header), TEST(test_bytes), TEST(test_limits),
        TEST(test_before_open), TEST(test_schemes), TEST(test_unknown), TEST(test_refused),
        TEST(test_xen_capabilities),
        TEST(test_stats), TEST(test_native), TEST(test_read_only), TEST(test_lookup),
        TEST(test_bad_arguments), TEST(test_lifecycle), TEST(test_registrations),
        TEST(test_event_bodies), TEST(test_io_error), TEST(test_old_events),
        TEST(test_slow_listener), TEST(test_nonsense), TEST(test_times), TEST(test_glutton),
        TEST(test_console), TEST(test_console_ends), TEST(test_console_full),
        TEST(test_console_ends_full), TEST(test_close_callback), TEST(test_pieces), TEST(test_many),
        TEST(test_gone), TEST(test_calls) };

    log_open("test", "/dev/null", NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
