/* SPDX-License-Identifier: ISC */
/*
 * The status socket with a migrd that is only these reports, and clients that speak raw
 * bytes. Server and clients share one thread: `pump` turns the loop until a client has
 * what it waits for.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/pbjson.h"
#include "migrd/events.h"
#include "migrd/report.h"
#include "migrd/status.h"
#include "migrd/status_internal.h"

static char root[32];
static uv_loop_t loop;
static struct migrd m;

/* --- reports --- */

static Migrd__Reply *new_reply(void)
{
    Migrd__Reply *r = malloc(sizeof *r);

    migrd__reply__init(r);
    return r;
}

static Migrd__DomainInfo *new_domain(const char *name)
{
    Migrd__DomainInfo *i = malloc(sizeof *i);

    migrd__domain_info__init(i);
    i->domain = malloc(sizeof *i->domain);
    migrd__domain__init(i->domain);
    i->domain->name = strdup(name);
    i->domain->uuid = strdup("11111111-2222-3333-4444-555555555555");
    i->domain->vcpus = 2;
    i->state = strdup("running");
    i->domid = 7;
    i->memory_kib = 262144;
    i->cpu_ns = 1500000000;
    return i;
}

Migrd__Reply *report_domains(struct migrd *mm, bool all)
{
    Migrd__Reply *r = new_reply();

    (void)mm;
    r->n_domains = all ? 2 : 1;
    r->domains = calloc(2, sizeof *r->domains);
    r->domains[0] = new_domain("web1");
    if (all)
        r->domains[1] = new_domain("odd\"name\xff");
    return r;
}

Migrd__Reply *report_domain(struct migrd *mm, const char *which)
{
    Migrd__Reply *r;

    if (strcmp(which, "web1") == 0)
        return report_domains(mm, false);
    r = new_reply();
    r->failure = malloc(sizeof *r->failure);
    migrd__failure__init(r->failure);
    r->failure->code = strdup("not-found");
    r->failure->text = strdup("no domain of that name here");
    return r;
}

Migrd__Reply *report_migrations(struct migrd *mm, bool finished)
{
    Migrd__Reply *r = new_reply();
    Migrd__MigrationInfo *g = malloc(sizeof *g);

    (void)mm, (void)finished;
    migrd__migration_info__init(g);
    g->id = strdup("abc");
    g->domain = strdup("web1");
    g->direction = strdup("out");
    g->state = strdup("pre-copy");
    g->progress = malloc(sizeof *g->progress);
    migrd__progress__init(g->progress);
    g->progress->phase = MIGRD__PHASE__PHASE_PRECOPY;
    g->progress->pages_remaining = 256;
    r->migrations = malloc(sizeof *r->migrations);
    r->migrations[0] = g;
    r->n_migrations = 1;
    return r;
}

Migrd__Reply *report_host(struct migrd *mm)
{
    Migrd__Reply *r = new_reply();

    (void)mm;
    r->host = malloc(sizeof *r->host);
    migrd__host_info__init(r->host);
    r->host->host = strdup("host1");
    r->host->memory_total_kib = 1024;
    return r;
}

/* --- clients --- */

static char got[1 << 20];

static int dial(void)
{
    struct err e;
    int fd = io_unix_connect(m.paths.status, &e);

    assert_true(fd >= 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Turns the loop and reads into `got` until `want` is in it or the connection ends (want NULL) or
 * `ms` are over. True if what was waited for came. */
static bool pump(int fd, const char *want, unsigned ms)
{
    uint64_t until = clock_ns() + ms * NS_PER_MS;
    size_t n = 0;

    got[0] = '\0';
    while (clock_ns() < until) {
        ssize_t r;

        uv_run(&loop, UV_RUN_NOWAIT);
        r = fd < 0 ? -1 : recv(fd, got + n, sizeof got - 1 - n, MSG_DONTWAIT);
        if (r == 0 || (r < 0 && errno == ECONNRESET))
            return want == NULL;
        if (r > 0)
            n += (size_t)r;
        got[n] = '\0';
        if (want != NULL && strstr(got, want) != NULL)
            return true;
        if (r < 0)
            usleep(500);
    }
    return false;
}

/* A whole request on a connection of its own; the body of the answer. */
static const char *get(const char *method, const char *path)
{
    char text[512];
    const char *body;
    int fd = dial();

    snprintf(
        text, sizeof text, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, path);
    say(fd, text);
    assert_true(pump(fd, NULL, 2000));
    close(fd);
    body = strstr(got, "\r\n\r\n");
    assert_non_null(body);
    return body + 4;
}

static json_t *get_json(const char *path, const char *status)
{
    json_t *j = json_loads(get("GET", path), 0, NULL);

    assert_memory_equal(got, status, strlen(status));
    assert_non_null(strstr(got, "Content-Type: application/json"));
    assert_non_null(j);
    return j;
}

static const char *text_of(const json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

/* --- fixture --- */

static int setup(void **state)
{
    struct err e;

    (void)state;
    memset(&m, 0, sizeof m);
    snprintf(root, sizeof root, "/tmp/test-status.XXXXXX");
    if (mkdtemp(root) == NULL || paths_init(&m.paths, root, &e) < 0 ||
        io_make_dirs(m.paths.run, 0755, &e) < 0 || uv_loop_init(&loop) != 0)
        return -1;
    m.loop = &loop;
    m.start_wall_ns = 0x1234;
    m.events = events_new();
    return status_start(&m, &m.status, &e);
}

static int teardown(void **state)
{
    char cmd[64];

    (void)state;
    status_stop(&m.status);
    assert_null(m.status);
    uv_run(&loop, UV_RUN_DEFAULT); /* returns: nothing of ours is left in the loop */
    assert_int_equal(uv_loop_close(&loop), 0);
    events_free(&m.events);
    snprintf(cmd, sizeof cmd, "rm -rf %s", root);
    return system(cmd) != 0 ? -1 : 0;
}

static void publish(const char *type, const char *json)
{
    struct event ev = {
        .type = type, .uuid = "", .name = "web1", .migration = "", .json = (char *)(uintptr_t)json
    };

    events_publish(m.events, &ev);
}

/* --- tests --- */

static void pages(void **state)
{
    json_t *j;

    (void)state;
    j = get_json("/v1/status", "HTTP/1.1 200");
    assert_string_equal(text_of(j, "host"), "host1");
    json_decref(j);
    j = get_json("/v1/domains", "HTTP/1.1 200");
    assert_int_equal(json_array_size(json_object_get(j, "domains")), 2);
    json_decref(j);
    j = get_json("/v1/domains?all=0", "HTTP/1.1 200");
    assert_int_equal(json_array_size(json_object_get(j, "domains")), 1);
    json_decref(j);
    j = get_json("/v1/domains/web1", "HTTP/1.1 200");
    assert_int_equal(json_integer_value(json_object_get(j, "domid")), 7);
    json_decref(j);
    j = get_json("/v1/migrations/abc", "HTTP/1.1 200");
    assert_string_equal(text_of(json_object_get(j, "progress"), "phase"), "precopy");
    json_decref(j);
    assert_non_null(strstr(get("GET", "/"), "/v1/domains"));
}

static void what_is_not_there(void **state)
{
    static const char *const paths[] = { "/v1/domains/ghost", "/v1/migrations/x", "/nothing",
        "/v1/domains/", "/v1/ha", "/v1/statusx", "/v1/domains/%00", "/v1/../etc/passwd" };

    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        json_t *j = get_json(paths[i], "HTTP/1.1 404");

        assert_string_equal(text_of(json_object_get(j, "error"), "code"), "not-found");
        json_decref(j);
    }
}

static void methods(void **state)
{
    (void)state;
    assert_string_equal(get("HEAD", "/v1/status"), "");
    assert_memory_equal(got, "HTTP/1.1 200", 12);
    assert_string_equal(get("HEAD", "/v1/events"), "");
    get("POST", "/v1/status");
    assert_memory_equal(got, "HTTP/1.1 405", 12);
    assert_non_null(strstr(got, "Allow: GET, HEAD"));
    get("BREW", "/");
    assert_memory_equal(got, "HTTP/1.1 405", 12);
}

static void metrics(void **state)
{
    const char *t;

    (void)state;
    *events_counter(m.events, "migrd_acl_refused_total", "Connections refused.") += 3;
    t = get("GET", "/metrics");
    assert_non_null(
        strstr(t, "# TYPE migrd_acl_refused_total counter\nmigrd_acl_refused_total 3\n"));
    assert_non_null(strstr(t, "\nmigrd_domains{state=\"running\"} 2\n"));
    assert_non_null(strstr(t, "\nmigrd_domain_memory_bytes{domain=\"web1\",uuid=\"1111"));
    assert_non_null(strstr(t, "{domain=\"odd\\\"name"));
    assert_non_null(strstr(t, "\nmigrd_migrations{direction=\"out\",state=\"pre-copy\"} 1\n"));
    assert_non_null(strstr(
        t, "\nmigrd_migration_remaining_bytes{domain=\"web1\",migration=\"abc\"} 1048576\n"));
    assert_non_null(strstr(t, "\nmigrd_memory_total_bytes 1048576\n"));
}

static int open_stream(const char *more)
{
    int fd = dial();

    say(fd, "GET /v1/events HTTP/1.1\r\nHost: x\r\n");
    say(fd, more);
    say(fd, "\r\n");
    assert_true(pump(fd, "retry: 2000", 2000));
    return fd;
}

static void events_arrive(void **state)
{
    int fd;

    (void)state;
    publish("before", "{}");
    fd = open_stream("");
    assert_null(strstr(got, "event: before"));
    publish("domain-started", "{\"domid\": 7}");
    assert_true(pump(fd, "\n\n", 2000));
    assert_non_null(strstr(got, "id: 1234-2\nevent: domain-started\ndata: {"));
    assert_non_null(strstr(got, "\"data\":{\"domid\":7}}\n"));
    close(fd);
    publish("after", NULL);
    pump(-1, "", 20);
}

static void events_are_replayed(void **state)
{
    int fd;

    (void)state;
    publish("one", "{}");
    publish("two", "{}");
    fd = open_stream("Last-Event-ID: 1234-1\r\n");
    if (strstr(got, "event: two") == NULL)
        assert_true(pump(fd, "event: two", 2000));
    assert_null(strstr(got, "event: one"));
    close(fd);
    fd = open_stream("Last-Event-ID: 99-17\r\n"); /* of a migrd before this one */
    if (strstr(got, "event: one") == NULL)
        assert_true(pump(fd, "event: one", 2000));
    close(fd);
    fd = open_stream("Last-Event-ID: garbage\r\n");
    close(fd);
    pump(-1, "", 20);
}

static void slow_reader_loses_events(void **state)
{
    char big[4096];
    int fd = open_stream("");

    (void)state;
    snprintf(big, sizeof big, "{\"x\":\"%04000d\"}", 0);
    for (int i = 0; i < 1000; i++) { /* 4 MB, and nobody reads */
        publish("flood", big);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(m.status->n_streams, 1);
    assert_true(pump(fd, "event: flood", 2000));
    for (int i = 0; i < 20; i++)
        pump(fd, "never", 20);
    publish("last", "{}"); /* there is room again: first the loss, then what is new */
    assert_true(pump(fd, "event: last", 2000));
    assert_non_null(strstr(got, "event: lost\ndata: {\"lost\":"));
    close(fd);
    pump(-1, "", 20);
}

static void too_many_readers(void **state)
{
    int fd[STATUS_STREAMS_MAX], one;

    (void)state;
    for (unsigned i = 0; i < STATUS_STREAMS_MAX; i++)
        fd[i] = open_stream("");
    one = dial();
    say(one, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(pump(one, "HTTP/1.1 503", 2000));
    publish("all", "{}");
    for (unsigned i = 0; i < STATUS_STREAMS_MAX; i++) {
        assert_true(pump(fd[i], "event: all", 2000));
        close(fd[i]);
    }
    close(one);
    for (int i = 0; i < 100 && m.status->n_streams > 0; i++) {
        publish("tick", "{}"); /* a write is what shows that a reader has gone */
        pump(-1, "", 5);
    }
    assert_int_equal(m.status->n_streams, 0);
}

static void garbage(void **state)
{
    static const char *const lines[] = { "\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02",
        "GET / HTTP/9.9\r\n\r\n", "GET /\r\n\r\n", "RELOCATE 1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" };
    char *large = malloc(200000);

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        int fd = dial();

        say(fd, lines[i]);
        shutdown(fd, SHUT_WR);
        pump(fd, NULL, 200);
        close(fd);
    }
    memset(large, 'A', 199999);
    large[199999] = '\0';
    memcpy(large, "GET /", 5);
    for (int i = 0; i < 2; i++) { /* a request line, and a header, that never end */
        int fd = dial();

        if (i == 1)
            memcpy(large, "GET / HTTP/1.1\r\nX: ", 19);
        fcntl(fd, F_SETFL, O_NONBLOCK);
        (void)!send(fd, large, 199999, MSG_NOSIGNAL);
        pump(fd, "HTTP/1.1 4", 500);
        close(fd);
    }
    free(large);
    json_decref(get_json("/v1/status", "HTTP/1.1 200"));
}

static void dawdlers_do_not_delay_others(void **state)
{
    int fd[60];
    uint64_t begin;

    (void)state;
    for (int i = 0; i < 60; i++) {
        fd[i] = dial();
        say(fd[i], "GET /v1/sta"); /* and no more */
    }
    begin = clock_ns();
    for (int i = 0; i < 20; i++)
        json_decref(get_json("/v1/domains", "HTTP/1.1 200"));
    assert_true(clock_ns() - begin < 2 * NS_PER_S);
    for (struct status_client *c = m.status->clients; c != NULL; c = c->next)
        c->deadline_ns = 1; /* their time is over */
    for (int i = 0; i < 60; i++) {
        assert_true(pump(fd[i], NULL, 3000));
        close(fd[i]);
    }
    json_decref(get_json("/v1/status", "HTTP/1.1 200"));
}

static void stop_with_clients(void **state)
{
    int a = open_stream(""), b = dial();

    (void)state;
    say(b, "GET /v1");
    pump(-1, "", 20);
    publish("bye", "{}");
    status_stop(&m.status);
    assert_true(pump(a, NULL, 1000)); /* it ends; what was under way is delivered */
    assert_non_null(strstr(got, "event: bye"));
    close(a);
    close(b);
}

static void tcp_when_asked(void **state)
{
    struct sockaddr_in sa = { .sin_family = AF_INET };
    socklen_t len = sizeof sa;
    struct err e;
    int probe = socket(AF_INET, SOCK_STREAM, 0), fd;

    (void)state;
    status_stop(&m.status);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(probe, (struct sockaddr *)&sa, sizeof sa), 0);
    getsockname(probe, (struct sockaddr *)&sa, &len);
    close(probe);
    snprintf(m.config.status_address, sizeof m.config.status_address, "127.0.0.1:%u",
        ntohs(sa.sin_port));
    assert_int_equal(status_start(&m, &m.status, &e), 0);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    say(fd, "GET /v1/status HTTP/1.0\r\n\r\n");
    assert_true(pump(fd, "\"host1\"", 2000));
    close(fd);
}

static void bad_address_is_refused(void **state)
{
    static const char *const bad[] = { "127.0.0.1", "localhost:8003", ":8003", "[::1:80", "1:2:3",
        "127.0.0.1:99999x" };
    struct err e;

    (void)state;
    status_stop(&m.status);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(m.config.status_address, sizeof m.config.status_address, "%s", bad[i]);
        assert_int_equal(status_start(&m, &m.status, &e), -1);
        assert_non_null(strstr(e.text, bad[i]));
    }
}

static void socket_is_for_its_group(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(stat(m.paths.status, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
}

/* --- pbjson --- */

static void json_of_messages(void **state)
{
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__CreateDomain create = MIGRD__CREATE_DOMAIN__INIT;
    char *words[] = { (char *)"a=1", (char *)"b=2" }, *text;
    json_t *j;

    (void)state;
    create.text.data = (uint8_t *)(uintptr_t) "\x00\xff"
                                              "A!";
    create.text.len = 4;
    create.overrides = words;
    create.n_overrides = 2;
    rq.body_case = MIGRD__REQUEST__BODY_CREATE;
    rq.create = &create;
    j = pbjson(&rq.base);
    text = json_dumps(j, JSON_COMPACT);
    assert_string_equal(text,
        "{\"serial\":0,\"create\":{\"text\":\"AP9BIQ==\",\"file\":\"\",\"overrides\":[\"a=1\","
        "\"b=2\"],\"start_paused\":false,\"define_only\":false,\"dry_run\":false}}");
    free(text);
    json_decref(j);
}

static void json_of_odd_values(void **state)
{
    Migrd__DomainInfo i = MIGRD__DOMAIN_INFO__INIT;
    json_t *j;

    (void)state;
    i.domid = -1;
    i.epoch = UINT64_MAX;
    i.state = (char *)(uintptr_t) "caf\xe9";
    j = pbjson(&i.base);
    assert_int_equal(json_integer_value(json_object_get(j, "domid")), -1);
    assert_true(json_real_value(json_object_get(j, "epoch")) > 1.8e19);
    assert_string_equal(text_of(j, "state"), "caf?");
    assert_null(json_object_get(j, "domain"));
    json_decref(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pages, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(methods, setup, teardown),
        cmocka_unit_test_setup_teardown(metrics, setup, teardown),
        cmocka_unit_test_setup_teardown(events_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(events_are_replayed, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_reader_loses_events, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage, setup, teardown),
        cmocka_unit_test_setup_teardown(dawdlers_do_not_delay_others, setup, teardown),
        cmocka_unit_test_setup_teardown(stop_with_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(tcp_when_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_address_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(socket_is_for_its_group, setup, teardown),
        cmocka_unit_test(json_of_messages),
        cmocka_unit_test(json_of_odd_values),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
