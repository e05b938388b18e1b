/* SPDX-License-Identifier: ISC */
/*
 * xm and migctl against a control server of this test's own: a child process that answers
 * as migrd would and writes down what it was asked. Each command runs in a child too, with
 * its output in a pipe: what a script would see is what is compared.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
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
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/msgconn.h"
#include "base/paths.h"
#include "base/pbjson.h"
#include "tools/format.h"
#include "tools/migctl.h"
#include "tools/xm.h"

static char root[32];
static struct paths paths;
static pid_t server;
static char console[64]; /* pty of web1 */
static int console_master;

/* --- the server --- */

/* What was asked last, as JSON, for the test to look at. */
static void note_request(const ProtobufCMessage *m)
{
    char path[PATHS_LEN + 8];
    json_t *j = pbjson(m);

    snprintf(path, sizeof path, "%s/asked", root);
    json_dump_file(j, path, JSON_COMPACT);
    json_decref(j);
}

static void reply(struct msgconn *c, Migrd__Reply *r, uint32_t serial, bool last)
{
    r->serial = serial;
    r->last = last;
    msgconn_send(c, &r->base, -1, IO_FOREVER, NULL);
}

static void refuse(struct msgconn *c, uint32_t serial, const char *code, const char *text)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__Failure f = MIGRD__FAILURE__INIT;

    f.code = (char *)code;
    f.text = (char *)text;
    r.failure = &f;
    reply(c, &r, serial, true);
}

static void fill_domain(Migrd__DomainInfo *i, Migrd__Domain *d, const char *name, int id)
{
    migrd__domain_info__init(i);
    migrd__domain__init(d);
    d->name = (char *)name;
    d->uuid = (char *)"11111111-2222-3333-4444-555555555555";
    d->memory_kib = 256 * 1024;
    d->vcpus = 2;
    d->kernel = (char *)"/boot/vmlinuz";
    d->cmdline = (char *)"console=ttyS0 quiet";
    i->domain = d;
    i->domid = id;
    i->state = (char *)(id < 0 ? "shut off" : "blocked");
    i->memory_kib = id < 0 ? 0 : 256 * 1024;
    i->cpu_ns = id < 0 ? 0 : 12345000000;
    i->epoch = 3;
    i->owner = (char *)"host1";
    i->console = console;
}

static void serve_domains(struct msgconn *c, uint32_t serial, const char *which)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__DomainInfo info[2], *list[2] = { &info[0], &info[1] };
    Migrd__Domain def[2];

    fill_domain(&info[0], &def[0], "rest", -1);
    fill_domain(&info[1], &def[1], "web1", 7);
    r.domains = list;
    r.n_domains = 2;
    if (which != NULL) {
        r.domains = strcmp(which, "rest") == 0 ? list : list + 1;
        r.n_domains = 1;
    }
    if (which != NULL && strcmp(which, "web1") != 0 && strcmp(which, "7") != 0 &&
        strcmp(which, "rest") != 0)
        refuse(c, serial, "not-found", "no domain 'ghost' here");
    else
        reply(c, &r, serial, true);
}

static void serve_host(struct msgconn *c, uint32_t serial)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__HostInfo h = MIGRD__HOST_INFO__INIT;
    char *warnings[] = { (char *)"an empty expression admits nobody" };

    h.host = (char *)"host1";
    h.version = (char *)"0.1";
    h.cpus = 2;
    h.memory_total_kib = 2048 * 1024;
    h.memory_free_kib = 1024 * 1024;
    h.hypervisor = (char *)"xvm";
    h.relocation = (char *)"listening on 127.0.0.1 port 8002 with TLS";
    h.warnings = warnings;
    h.n_warnings = 1;
    r.host = &h;
    reply(c, &r, serial, true);
}

static void fill_report(Migrd__Finished *f, bool ok)
{
    f->ok = ok;
    f->code = (char *)(ok ? "" : "cancelled");
    f->text = (char *)(ok ? "" : "cancelled by the administrator");
    f->guest_resumed = !ok;
    f->phase = ok ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_PRECOPY;
    f->total_us = 1234567;
    f->pause_us = ok ? 48200 : 0;
    f->wire_bytes = 1 << 30;
    f->pages_sent = 262144;
    f->verified_pages = 1024;
    f->cipher = (char *)"TLSv1.3 TLS_AES_128_GCM_SHA256";
    f->channels = 2;
}

static void serve_migration(struct msgconn *c, uint32_t serial, const char *domain, bool progress)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__MigrationInfo m = MIGRD__MIGRATION_INFO__INIT, *list[] = { &m };
    Migrd__Progress p = MIGRD__PROGRESS__INIT;
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    Migrd__RoundReport round = MIGRD__ROUND_REPORT__INIT, *rounds[] = { &round };
    Migrd__PauseStep step = MIGRD__PAUSE_STEP__INIT, *steps[] = { &step };
    bool ok = strcmp(domain, "web1") == 0;

    m.domain = (char *)"web1";
    m.peer = (char *)"host2";
    m.direction = (char *)"out";
    m.state = (char *)"pre-copy";
    m.progress = &p;
    p.phase = MIGRD__PHASE__PHASE_PRECOPY;
    p.round = 1;
    p.pages_total = 65536;
    p.pages_remaining = 32768;
    p.note = (char *)"guest slowed by 20%";
    r.migrations = list;
    r.n_migrations = 1;
    if (progress)
        reply(c, &r, serial, false);
    fill_report(&f, ok);
    round.pages = 65536;
    round.bytes = 256 << 20;
    round.duration_us = 500000;
    step.name = (char *)"last round";
    step.us = 24100;
    f.rounds = rounds;
    f.n_rounds = 1;
    f.pause_steps = steps;
    f.n_pause_steps = 1;
    m.report = &f;
    m.state = (char *)(ok ? "done" : "cancelled");
    reply(c, &r, serial, true);
}

static void serve_facts(struct msgconn *c, uint32_t serial, const char *host)
{
    uint32_t words[12] = { [0] = 0x00982201, [1] = 0x078bfbff, [10] = 1, [11] = 0x20100800 };
    Migrd__HostFacts f = MIGRD__HOST_FACTS__INIT;
    Migrd__CpuReport cpu = MIGRD__CPU_REPORT__INIT;
    Migrd__Reply r = MIGRD__REPLY__INIT;
    bool second = strncmp(host, "host2", 5) == 0, third = strcmp(host, "host3") == 0;

    if (strcmp(host, "host9") == 0) {
        refuse(c, serial, "not-found", "host host9 cannot be asked: no route to it");
        return;
    }
    words[0] |= second ? UINT32_C(1) << 22 : UINT32_C(1) << 25;
    words[2] = second ? 0 : UINT32_C(1) << 23;
    f.host = (char *)(second ? "host2" : third ? "host3" : "host1");
    f.tsc_scaling = true;
    cpu.vendor = (char *)(third ? "AuthenticAMD" : "GenuineIntel");
    cpu.model = (char *)"Test CPU";
    cpu.tsc_khz = 2000000;
    cpu.features = words;
    cpu.n_features = 12;
    f.cpu = &cpu;
    r.facts = &f;
    reply(c, &r, serial, true);
}

/* Three nodes, host3 away; web1 runs on host1, db1 waits. */
static void serve_ha_overview(struct msgconn *c, uint32_t serial)
{
    static const char *const names[] = { "host1", "host2", "host3" };
    uint32_t ids[] = { 1, 2, 3 }, dead[] = { 2 }, wish[] = { 2 };
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__HaOverview o = MIGRD__HA_OVERVIEW__INIT;
    Migrd__HaState s = MIGRD__HA_STATE__INIT;
    Migrd__HaLocal l = MIGRD__HA_LOCAL__INIT;
    Migrd__HaTimes times = MIGRD__HA_TIMES__INIT;
    Migrd__HaFigures figures = MIGRD__HA_FIGURES__INIT;
    Migrd__HaPlan plan = MIGRD__HA_PLAN__INIT;
    Migrd__HaPlace place[3], *places[3];
    Migrd__HaNode node[3], *nodes[3];
    Migrd__HaDomain domain[2], *domains[2];
    Migrd__HaPolicy policy = MIGRD__HA_POLICY__INIT;

    for (unsigned i = 0; i < 3; i++) {
        migrd__ha_place__init(&place[i]);
        migrd__ha_node__init(&node[i]);
        place[i].node = node[i].id = i + 1;
        place[i].name = node[i].name = (char *)names[i];
        node[i].state = i < 2 ? MIGRD__HA_NODE_STATE__NODE_ONLINE : MIGRD__HA_NODE_STATE__NODE_AWAY;
        node[i].memory_kib = 1 << 20;
        places[i] = &place[i];
        nodes[i] = &node[i];
    }
    for (unsigned i = 0; i < 2; i++) {
        migrd__ha_domain__init(&domain[i]);
        domain[i].name = (char *)(i == 0 ? "db1" : "web1");
        domain[i].uuid = (char *)(i == 0 ? "0-0" : "1-1");
        domain[i].owner = i == 0 ? 3 : 1;
        domain[i].state =
            i == 0 ? MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING : MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING;
        domain[i].why = (char *)(i == 0 ? "no place: node 2 is being drained" : "runs on node 1");
        domain[i].policy = &policy;
        domains[i] = &domain[i];
    }
    policy.class_ = 4;
    policy.preferred = wish;
    policy.n_preferred = 1;
    policy.apart = (char *)"db";
    plan.dead = dead;
    plan.n_dead = plan.k = 1;
    l.members = ids;
    l.n_members = 2;
    l.lease_until = 6234;
    s.nodes = ids;
    s.n_nodes = s.n_node = o.n_places = 3;
    s.node = nodes;
    s.domain = domains;
    s.n_domain = 2;
    s.local = &l;
    o.host = (char *)"host1";
    o.node = 1;
    o.now = 5000;
    o.state = &s;
    o.times = &times;
    o.figures = &figures;
    o.places = places;
    o.certificate = &plan;
    r.ha = &o;
    reply(c, &r, serial, true);
}

/* `move` breaks the certificate; host9 is unknown. */
static void serve_ha(struct msgconn *c, uint32_t serial, const Migrd__HaRequest *q)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__HaAnswer a = MIGRD__HA_ANSWER__INIT;

    if (strcmp(q->node, "host9") == 0) {
        refuse(c, serial, "not-found", "node host9 is not in the cluster");
        return;
    }
    a.ok = true;
    if (q->command->kind == MIGRD__HA_COMMAND_KIND__HA_MIGRATE)
        a.warning = (char *)"the loss of node 2 would leave 1 domains without a place";
    r.ha_answer = &a;
    reply(c, &r, serial, true);
}

static void serve_ha_question(struct msgconn *c, uint32_t serial, const Migrd__GetHa *q)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__HaPlan p = MIGRD__HA_PLAN__INIT;
    Migrd__HaPlanStep step = MIGRD__HA_PLAN_STEP__INIT, *steps[] = { &step };
    uint32_t dead[] = { 1 };

    if (q->question == MIGRD__HA_QUESTION__HA_OVERVIEW) {
        serve_ha_overview(c, serial);
        return;
    }
    step.uuid = (char *)"1-1";
    step.name = (char *)"web1";
    step.why = (char *)"no place: node 2 is full";
    p.step = steps;
    p.n_step = 1;
    p.dead = dead;
    p.n_dead = 1;
    p.lost = 1;
    p.text = (char *)"not all of them have a place";
    r.ha_plan = &p;
    reply(c, &r, serial, true);
}

static void serve(struct msgconn *c, const Migrd__Request *rq)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;

    if (rq->body_case != MIGRD__REQUEST__BODY_GET_HA)
        note_request(&rq->base);
    if (rq->body_case == MIGRD__REQUEST__BODY_LIST)
        serve_domains(c, rq->serial, NULL);
    else if (rq->body_case == MIGRD__REQUEST__BODY_GET)
        serve_domains(c, rq->serial, rq->get->domain);
    else if (rq->body_case == MIGRD__REQUEST__BODY_CREATE)
        serve_domains(c, rq->serial, "web1");
    else if (rq->body_case == MIGRD__REQUEST__BODY_HOST)
        serve_host(c, rq->serial);
    else if (rq->body_case == MIGRD__REQUEST__BODY_MIGRATE)
        serve_migration(c, rq->serial, rq->migrate->domain, rq->migrate->progress);
    else if (rq->body_case == MIGRD__REQUEST__BODY_WATCH)
        pause(); /* a migration that never ends */
    else if (rq->body_case == MIGRD__REQUEST__BODY_GET_FACTS)
        serve_facts(c, rq->serial, rq->get_facts->host);
    else if (rq->body_case == MIGRD__REQUEST__BODY_HA)
        serve_ha(c, rq->serial, rq->ha);
    else if (rq->body_case == MIGRD__REQUEST__BODY_GET_HA)
        serve_ha_question(c, rq->serial, rq->get_ha);
    else if (rq->body_case == MIGRD__REQUEST__BODY_UNDEFINE)
        refuse(c, rq->serial, "state", "domain web1 runs; destroy it first");
    else
        reply(c, &r, rq->serial, true);
}

static void serve_connection(int fd)
{
    struct msgconn *c = msgconn_new(fd, &migrd__request__descriptor, MSGCONN_MAX_LEN);
    ProtobufCMessage *m;

    while (msgconn_recv(c, &m, NULL, clock_ns() + 20 * NS_PER_S, NULL) == 0) {
        serve(c, (Migrd__Request *)m);
        protobuf_c_message_free_unpacked(m, NULL);
    }
    msgconn_free(&c);
}

static void server_main(int listener)
{
    alarm(60); /* nothing is left behind, whatever happens to the test */
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd;

        io_wait(listener, POLLIN, IO_FOREVER, NULL);
        fd = accept(listener, NULL, NULL);
        if (fd >= 0 && fork() == 0) {
            alarm(30);
            serve_connection(fd);
            _exit(0);
        }
        close(fd);
    }
}

static int start_server(void **state)
{
    struct err e;
    int fd;

    (void)state;
    console_master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (console_master < 0 || grantpt(console_master) < 0 || unlockpt(console_master) < 0 ||
        ptsname_r(console_master, console, sizeof console) != 0)
        return -1;
    snprintf(root, sizeof root, "/tmp/test-tools.XXXXXX");
    if (mkdtemp(root) == NULL || paths_init(&paths, root, &e) < 0 ||
        io_make_dirs(paths.run, 0755, &e) < 0)
        return -1;
    fd = io_unix_listen(paths.control, 0600, &e);
    if (fd < 0)
        return -1;
    server = fork();
    if (server == 0)
        server_main(fd);
    close(fd);
    return 0;
}

static int stop_server(void **state)
{
    char cmd[64];

    (void)state;
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    snprintf(cmd, sizeof cmd, "rm -rf %s", root);
    return system(cmd) != 0 ? -1 : 0;
}

/* --- running a command --- */

static char out[65536];
static unsigned interrupt_ms; /* not 0: the command gets ^C after that time */

static const char *input; /* not NULL: what the command reads */

static void feed_input(void)
{
    int fds[2];

    if (input == NULL || pipe(fds) < 0 || write(fds[1], input, strlen(input)) < 0)
        return;
    close(fds[1]);
    dup2(fds[0], 0);
}

static void interrupt_later(void)
{
    pid_t me = getpid();

    if (interrupt_ms == 0 || fork() != 0)
        return;
    usleep(interrupt_ms * 1000);
    kill(me, SIGINT);
    _exit(0);
}

#define run(...) run_words((const char *[]){ __VA_ARGS__, NULL })

/* Runs xm or migctl (words[0]); its stdout and stderr come into `out`. Returns the exit code. */
static int run_words(const char **words)
{
    char *argv[24] = { (char *)words[0], (char *)"--root", root };
    int argc = 3, pipefd[2], status;
    size_t n = 0;
    ssize_t got;
    pid_t pid;

    for (size_t i = 1; words[i] != NULL; i++)
        argv[argc++] = (char *)words[i];
    assert_int_equal(pipe(pipefd), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        dup2(pipefd[1], 1);
        dup2(pipefd[1], 2);
        close(pipefd[0]);
        for (int i = 3; i < argc; i++)
            argv[i] = strdup(argv[i]); /* words may be cut up, as a program's own may */
        feed_input();
        interrupt_later();
        status = strcmp(words[0], "xm") == 0 ? xm_run(argc, argv) : migctl_run(argc, argv);
        fflush(stdout);
        _exit(status);
    }
    close(pipefd[1]);
    while (n < sizeof out - 1 && (got = read(pipefd[0], out + n, sizeof out - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    close(pipefd[0]);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

#define assert_out(text)                                                                           \
    do {                                                                                           \
        if (strstr(out, text) == NULL)                                                             \
            fail_msg("\"%s\" is not in:\n%s", text, out);                                          \
    } while (0)

/* The body of the request that the server got last. */
static json_t *asked(const char *member)
{
    char path[PATHS_LEN + 8];
    json_t *all, *body;

    snprintf(path, sizeof path, "%s/asked", root);
    all = json_load_file(path, 0, NULL);
    assert_non_null(all);
    body = json_incref(json_object_get(all, member));
    json_decref(all);
    assert_non_null(body);
    return body;
}

/* --- xm --- */

static void xm_list_has_xms_columns(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "list"), 0);
    assert_out("Name                                        ID   Mem VCPUs      State   Time(s)\n"
               "Domain-0                                     0  1792     2     r-----");
    assert_out("web1                                         7   256     2     -b----     12.3\n");
    assert_out("rest                                             256     2                 0.0\n");
    assert_true(strstr(out, "web1") < strstr(out, "rest"));
}

static void xm_list_selects(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "list", "7"), 0);
    assert_out("web1 ");
    assert_null(strstr(out, "Domain-0"));
    assert_int_equal(run("xm", "list", "Domain-0"), 0);
    assert_out("Domain-0 ");
    assert_int_equal(run("xm", "list", "ghost"), 1);
    assert_out("Error: Domain 'ghost' does not exist.\n");
    assert_int_equal(run("xm", "list", "--state=halted"), 0);
    assert_out("rest ");
    assert_null(strstr(out, "web1"));
    assert_int_equal(run("xm", "list", "--state=odd"), 2);
}

static void xm_list_long_is_sxp(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "list", "-l", "web1"), 0);
    assert_out("(domain\n    (domid 7)\n    (uuid 11111111-2222-3333-4444-555555555555)\n"
               "    (name web1)\n    (memory 256)\n");
    assert_out("(args 'console=ttyS0 quiet')");
    assert_out("(state -b----)");
}

static void xm_translates_names(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "domid", "web1"), 0);
    assert_string_equal(out, "7\n");
    assert_int_equal(run("xm", "domname", "7"), 0);
    assert_string_equal(out, "web1\n");
    assert_int_equal(run("xm", "domid", "Domain-0"), 0);
    assert_string_equal(out, "0\n");
    assert_int_equal(run("xm", "domid", "ghost"), 1);
    assert_out("Error: no domain 'ghost' here\n");
}

static void xm_info_has_its_keys(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "info"), 0);
    assert_out("host                   : host1\n");
    assert_out("nr_cpus                : 2\n");
    assert_out("total_memory           : 2048\n");
    assert_out("free_memory            : 1024\n");
}

static void xm_create_sends_text_and_overrides(void **state)
{
    char file[64];
    json_t *q;

    (void)state;
    snprintf(file, sizeof file, "%s/web1.cfg", root);
    assert_int_equal(io_replace_file(file, "name='web1'\n", 12, 0644, NULL), 0);
    assert_int_equal(run("xm", "create", file, "memory=512", "-p"), 0);
    assert_out("Started domain web1 (id=7)\n");
    q = asked("create");
    assert_string_equal(json_string_value(json_object_get(q, "file")), file);
    assert_string_equal(json_string_value(json_object_get(q, "text")), "bmFtZT0nd2ViMScK");
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(q, "overrides"), 0)), "memory=512");
    assert_true(json_is_true(json_object_get(q, "start_paused")));
    json_decref(q);
    assert_int_equal(run("xm", "create", "-q", file), 0);
    assert_string_equal(out, "");
    assert_int_equal(run("xm", "create", "/no/such/file"), 1);
    assert_out("Error: Unable to open config file: /no/such/file\n");
    assert_int_equal(run("xm", "create", file, "novalue"), 2);
}

static void xm_migrate_as_xend_had_it(void **state)
{
    json_t *q;

    (void)state;
    assert_int_equal(
        run("xm", "migrate", "-l", "-p", "9002", "-n", "-1", "-s", "web1", "host2"), 0);
    assert_string_equal(out, "");
    q = asked("migrate");
    assert_int_equal(json_integer_value(json_object_get(q, "port")), 9002);
    assert_string_equal(json_string_value(json_object_get(q, "tls")), "yes");
    assert_true(json_is_true(json_object_get(json_object_get(q, "params"), "live")));
    json_decref(q);
    assert_int_equal(run("xm", "migrate", "web1", "host2"), 0);
    q = asked("migrate");
    assert_true(json_is_false(json_object_get(json_object_get(q, "params"), "live")));
    json_decref(q);
    assert_int_equal(run("xm", "migrate", "web1"), 2);
    assert_out("Error: Invalid number of arguments\n");
    assert_int_equal(run("xm", "migrate", "0", "host2"), 1);
    assert_out("Error: Cannot migrate privileged domain 0");
    assert_int_equal(run("xm", "migrate", "-n", "3", "web1", "host2"), 2);
    assert_int_equal(run("xm", "migrate", "other", "host2"), 1);
    assert_out("Error: cancelled by the administrator\n");
}

static void xm_acts_and_refuses(void **state)
{
    json_t *q;

    (void)state;
    assert_int_equal(run("xm", "pause", "web1"), 0);
    q = asked("act");
    assert_string_equal(json_string_value(json_object_get(q, "action")), "pause");
    json_decref(q);
    assert_int_equal(run("xm", "mem-set", "web1", "512"), 0);
    q = asked("set_memory");
    assert_int_equal(json_integer_value(json_object_get(q, "memory_kib")), 512 * 1024);
    json_decref(q);
    assert_int_equal(run("xm", "delete", "web1"), 1);
    assert_out("Error: domain web1 runs; destroy it first\n");
    assert_int_equal(run("xm", "destroy"), 2);
    assert_out("Error: 'xm destroy' requires 1 argument.\n");
    assert_int_equal(run("xm", "shutdown", "-H", "-R", "web1"), 2);
    assert_int_equal(run("xm", "mem-max", "--config", "web1", "512"), 0);
    q = asked("tune_domain");
    assert_string_equal(json_string_value(json_object_get(q, "change")), "memory");
    assert_true(json_is_true(json_object_get(q, "config_only")));
    assert_int_equal(json_integer_value(json_object_get(q, "memory_kib")), 512 * 1024);
    json_decref(q);
    assert_int_equal(run("xm", "rename", "web1", "web2"), 1);
    assert_out("Error: xm rename is not supported by migrd; define it under the new name");
    assert_int_equal(run("xm", "frobnicate"), 2);
    assert_out("Error: Subcommand 'frobnicate' not found!\n");
    assert_int_equal(run("xm", "help", "migrate"), 0);
    assert_out("Usage: xm migrate <Domain> <Host> [options]\n");
}

/* The guest's end of the console: answers the first line, then is silent. */
static pid_t start_guest(void)
{
    struct termios raw;
    char line[64];
    pid_t pid = fork();
    ssize_t n;
    int slave;

    if (pid != 0)
        return pid;
    slave = open(console, O_RDWR | O_NOCTTY);
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    n = read(console_master, line, sizeof line);
    if (n > 0)
        dprintf(console_master, "guest got %.*s", (int)n, line);
    sleep(5);
    _exit(0);
}

static void console_passes_bytes(void **state)
{
    uint64_t begin = clock_ns();
    pid_t guest = start_guest();

    (void)state;
    usleep(100 * 1000);
    input = "uname\n";
    assert_int_equal(run("xm", "console", "web1"), 0);
    input = NULL;
    assert_string_equal(out, "guest got uname\n");
    assert_true(clock_ns() - begin < 4 * NS_PER_S); /* left by itself after a second of silence */
    kill(guest, SIGTERM);
    waitpid(guest, NULL, 0);
}

static void console_says_why_not(void **state)
{
    (void)state;
    assert_int_equal(run("xm", "console", "rest"), 1);
    assert_out("Error: Domain 'rest' is not started\n");
    assert_int_equal(run("xm", "console", "-q", "rest"), 1);
    assert_string_equal(out, "");
}

/* --- migctl --- */

static void migctl_migrate_reports(void **state)
{
    json_t *all, *q;

    (void)state;
    assert_int_equal(run("migctl", "migrate", "web1", "host2", "--budget", "50ms", "--bandwidth",
                         "100M", "--time-limit", "2m", "--verify"),
        0);
    assert_out("web1 to host2  [##########..........]  50%  round 1  128 MiB left");
    assert_out("round 1: guest slowed by 20%\n");
    assert_out("web1 now runs on host2: 1.23 s in all, paused for 48.2 ms.\n");
    assert_out("  Round  Pages  Zero  Skipped     Sent    Time  MiB/s  Dirty after  Throttle\n");
    assert_out("last round  24.1 ms  50%\n");
    assert_out("TLSv1.3 TLS_AES_128_GCM_SHA256");
    all = asked("migrate");
    q = json_object_get(all, "params");
    assert_int_equal(json_integer_value(json_object_get(q, "pause_budget_ms")), 50);
    assert_int_equal(json_integer_value(json_object_get(q, "bandwidth")), 100 << 20);
    assert_int_equal(json_integer_value(json_object_get(q, "time_limit_s")), 120);
    json_decref(all);
    assert_int_equal(run("migctl", "migrate", "other", "host2"), 1);
    assert_out("The guest runs on here.\n");
    assert_int_equal(run("migctl", "migrate", "web1", "host2", "--tls", "maybe"), 2);
    assert_int_equal(run("migctl", "migrate", "web1", "host2", "--budget", "soon"), 2);
    assert_out("Error: budget 'soon': not a number\n");
}

static void migctl_json_is_json(void **state)
{
    json_t *j;

    (void)state;
    assert_int_equal(run("migctl", "migrate", "web1", "host2", "--json"), 0);
    j = json_loads(out, 0, NULL);
    assert_non_null(j);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(j, "report"), "phase")), "done");
    json_decref(j);
    assert_int_equal(run("migctl", "list", "--json"), 0);
    j = json_loads(out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(j, "domains")), 2);
    json_decref(j);
}

static void migctl_shows_the_host(void **state)
{
    (void)state;
    assert_int_equal(run("migctl", "status"), 0);
    assert_out("Relocation  listening on 127.0.0.1 port 8002 with TLS\n");
    assert_out("Warning     an empty expression admits nobody\n");
    assert_int_equal(run("migctl", "list", "--names"), 0);
    assert_string_equal(out, "web1\nrest\n");
    assert_int_equal(run("migctl", "resolve", "web1"), 2);
    assert_out("Error: give either --run-here or --discard\n");
}

/* host1 has AES and CLFLUSHOPT more than host2, which has MOVBE more; host3's is of another make. */
static void migctl_cpu_levels(void **state)
{
    json_t *j;

    (void)state;
    assert_int_equal(run("migctl", "cpu", "show"), 0);
    assert_out("Host:       host1\nCPU:        Test CPU (GenuineIntel)\nLevel:      x86-64-v2\n");
    assert_out("TSC:        2000.000 MHz, a guest can be given another frequency\n");
    assert_int_equal(run("migctl", "cpu", "baseline", "host2", "host2.lab"), 0);
    assert_out("# what 2 hosts share; all have at least x86-64-v2\n"
               "cpu_level = 'GenuineIntel/1.ecx=982201,1.edx=78bfbff,80000001.ecx=1,"
               "80000001.edx=20100800'\n"
               "# host1 loses 2: aes clflushopt\n# host2 loses 1: movbe\n");
    assert_int_equal(run("migctl", "cpu", "baseline", "host2", "--json", "--port", "9", "--tls", "no"), 0);
    j = json_loads(out, 0, NULL);
    assert_non_null(j);
    assert_int_equal(json_array_size(json_object_get(j, "hosts")), 2);
    json_decref(j);
    j = asked("get_facts");
    assert_string_equal(json_string_value(json_object_get(j, "tls")), "no");
    assert_int_equal(json_integer_value(json_object_get(j, "port")), 9);
    json_decref(j);
    assert_int_equal(run("migctl", "cpu", "baseline", "host3"), 1);
    assert_out("Error: CPUs by GenuineIntel and by AuthenticAMD have no level in common");
    assert_int_equal(run("migctl", "cpu", "baseline", "host2", "host9"), 1);
    assert_out("Error: host host9 cannot be asked: no route to it\n");
}

static void migctl_cpu_compares(void **state)
{
    (void)state;
    assert_int_equal(run("migctl", "cpu", "compare", "host2"), 3);
    assert_out("host1 -> host2: 2 missing there: aes clflushopt\n"
               "host2 -> host1: 1 missing there: movbe\n");
    assert_int_equal(run("migctl", "cpu", "compare", "host1"), 0);
    assert_out("host1 -> host1: a guest finds all that it may use\n");
    assert_int_equal(run("migctl", "cpu", "compare", "host3"), 3);
    assert_out("CPUs of different vendors: no guest can move between them\n");
    assert_int_equal(run("migctl", "cpu", "compare"), 2);
    assert_int_equal(run("migctl", "cpu", "paint"), 2);
    assert_out("'paint': give show, baseline or compare");
    assert_int_equal(run("migctl", "cpu", "show", "--tls", "maybe"), 2);
}

static void ha_status_says_what_matters(void **state)
{
    (void)state;
    assert_int_equal(run("migctl", "ha", "status"), 0);
    assert_out("Cluster     2 of 3 nodes are here");
    assert_out("  ! domain db1 waits: no place: host2 is being drained\n");
    assert_out("  host1*  online");
    assert_out("lease 1234 ms\n");
    assert_out("AWAY");
    assert_out("web1    running  host1");
    assert_out("not of 1: without host2 the rest is no majority\n");
    assert_int_equal(run("migctl", "ha", "status", "--check"), 3);
    assert_null(strstr(out, "Timers"));
    assert_int_equal(run("migctl", "ha", "status", "--names"), 0);
    assert_string_equal(out, "db1\nweb1\n");
    assert_int_equal(run("migctl", "ha", "what-if", "host1"), 3);
    assert_out("If host1 died now: not all of them have a place.\n");
    assert_out("NOWHERE");
    assert_out("no place: host2 is full");
    assert_int_equal(run("migctl", "ha", "explain", "web1"), 0);
    assert_out("Decided     runs on host1\n");
    assert_out("  prefers     host2\n");
}

static void ha_policies_are_read(void **state)
{
    json_t *all, *p, *q;

    (void)state;
    assert_int_equal(run("migctl", "ha", "add", "web1", "--class", "2", "--prefer", "host2,host3", "--apart",
                         "db!", "--window", "5m", "--failback", "90s"),
        0);
    assert_out("web1 is protected.\n");
    all = asked("ha");
    q = json_object_get(all, "command");
    p = json_object_get(json_object_get(q, "domain"), "policy");
    assert_string_equal(json_string_value(json_object_get(q, "kind")), "add");
    assert_int_equal(json_integer_value(json_object_get(p, "class")), 2);
    assert_int_equal(json_integer_value(json_object_get(p, "window_s")), 300);
    assert_int_equal(json_integer_value(json_object_get(p, "failback_min")), 2);
    assert_string_equal(json_string_value(json_object_get(p, "apart")), "db");
    assert_true(json_is_true(json_object_get(p, "apart_hard")));
    assert_int_equal(json_array_size(json_object_get(all, "preferred")), 2);
    json_decref(all);
    /* what is not named stays */
    assert_int_equal(run("migctl", "ha", "set", "web1", "--restarts", "5"), 0);
    all = asked("ha");
    p = json_object_get(json_object_get(json_object_get(all, "command"), "domain"), "policy");
    assert_int_equal(json_integer_value(json_object_get(p, "max_restarts")), 5);
    assert_int_equal(json_integer_value(json_object_get(p, "class")), 4);
    assert_int_equal(json_array_size(json_object_get(p, "preferred")), 1);
    assert_string_equal(json_string_value(json_object_get(p, "apart")), "db");
    json_decref(all);
    assert_int_equal(run("migctl", "ha", "set", "web1"), 2);
    assert_int_equal(run("migctl", "ha", "set", "ghost", "--class", "1"), 1);
    assert_int_equal(run("migctl", "ha", "add", "web1", "--apart", "a b"), 2);
    assert_int_equal(run("migctl", "ha", "add", "web1", "--class", "x"), 2);
    assert_int_equal(run("migctl", "ha", "fly"), 2);
    assert_int_equal(run("migctl", "help", "ha", "add"), 0);
    assert_out("Usage: migctl ha add DOMAIN [options]\n");
}

static void ha_asks_before_it_breaks(void **state)
{
    (void)state;
    assert_int_equal(run("migctl", "ha", "move", "web1", "host2"), 1);
    assert_out("Error: the loss of host2 would leave 1 domains without a place\n");
    assert_int_equal(run("migctl", "ha", "move", "web1", "host2", "--force"), 0);
    assert_int_equal(run("migctl", "ha", "move", "web1", "host9", "--force"), 1);
    assert_int_equal(run("migctl", "ha", "confirm-dead", "host3"), 2);
    input = "";
    assert_int_equal(run("migctl", "ha", "confirm-dead", "host3", "--reason", "seen"), 1);
    assert_out("give --yes if host3 is off for sure");
    input = NULL;
    assert_int_equal(run("migctl", "ha", "confirm-dead", "host3", "--reason", "seen", "--yes"), 0);
    assert_int_equal(run("migctl", "ha", "confirm-dead", "host2", "--reason", "seen", "--yes"), 1);
    assert_out("host2 is in the cluster's view");
    assert_int_equal(run("migctl", "ha", "confirm-dead", "host1", "--reason", "seen", "--yes"), 1);
    assert_out("is this host");
}

static void nodes_are_drained(void **state)
{
    (void)state;
    assert_int_equal(run("migctl", "node", "list"), 0);
    assert_out("host3");
    assert_int_equal(run("migctl", "node", "drain", "host2"), 0);
    assert_out("host2 is empty, nothing had to move");
    assert_int_equal(run("migctl", "node", "drain", "host1", "--no-wait"), 0);
    assert_out("host1 is being drained");
    assert_int_equal(run("migctl", "node", "drain", "host1"), 1);
    assert_out("was ended by somebody"); /* this server never drains */
    assert_int_equal(run("migctl", "node", "drain", "ghost"), 1);
    assert_int_equal(run("migctl", "node", "undrain", "host1", "--return-home"), 0);
}

static void watch_leaves_at_interrupt(void **state)
{
    (void)state;
    interrupt_ms = 600;
    assert_int_equal(run("migctl", "watch", "web1"), 1);
    interrupt_ms = 0;
    assert_out("the migration goes on");
}

static void no_daemon_is_explained(void **state)
{
    char *argv[] = { (char *)"xm", (char *)"--root", (char *)"/tmp/no-such-root", (char *)"list" };
    int fds[2], status;
    pid_t pid;
    ssize_t n;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        dup2(fds[1], 2);
        _exit(xm_run(4, argv));
    }
    close(fds[1]);
    n = read(fds[0], out, sizeof out - 1);
    out[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    waitpid(pid, &status, 0);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_out("Error: migrd does not answer on /tmp/no-such-root/run/migrd/control.sock: is it "
               "running? start it with: migrd --root /tmp/no-such-root\n");
}

/* --- numbers --- */

static void numbers_for_people(void **state)
{
    char b[FORMAT_LEN];

    (void)state;
    assert_string_equal(format_bytes(b, 0), "0 B");
    assert_string_equal(format_bytes(b, 1536), "1.5 KiB");
    assert_string_equal(format_bytes(b, UINT64_MAX), "16.0 EiB");
    assert_string_equal(format_us(b, 85), "85 us");
    assert_string_equal(format_us(b, 98300), "98.3 ms");
    assert_string_equal(format_us(b, 4210000), "4.21 s");
    assert_string_equal(format_us(b, 200000000), "3 min 20 s");
    assert_string_equal(format_uptime(b, 2 * 86400 + 3661), "2 days,  1:01:01");
}

static void numbers_from_people(void **state)
{
    uint64_t bytes;
    uint32_t ms;

    (void)state;
    assert_int_equal(parse_bytes("100M", "x", &bytes, NULL), 0);
    assert_int_equal(bytes, 100 << 20);
    assert_int_equal(parse_bytes("1GiB", "x", &bytes, NULL), 0);
    assert_int_equal(bytes, 1 << 30);
    assert_int_equal(parse_bytes("-1", "x", &bytes, NULL), -1);
    assert_int_equal(parse_bytes("1X", "x", &bytes, NULL), -1);
    assert_int_equal(parse_bytes("99999999999G", "x", &bytes, NULL), -1);
    assert_int_equal(parse_duration("60s", "x", 1, &ms, NULL), 0);
    assert_int_equal(ms, 60000);
    assert_int_equal(parse_duration("60", "x", 1000, &ms, NULL), 0);
    assert_int_equal(ms, 60000);
    assert_int_equal(parse_duration("60 s", "x", 1, &ms, NULL), -1);
    assert_int_equal(parse_duration("9999999999", "x", 1, &ms, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xm_list_has_xms_columns),
        cmocka_unit_test(xm_list_selects),
        cmocka_unit_test(xm_list_long_is_sxp),
        cmocka_unit_test(xm_translates_names),
        cmocka_unit_test(xm_info_has_its_keys),
        cmocka_unit_test(xm_create_sends_text_and_overrides),
        cmocka_unit_test(xm_migrate_as_xend_had_it),
        cmocka_unit_test(xm_acts_and_refuses),
        cmocka_unit_test(console_passes_bytes),
        cmocka_unit_test(console_says_why_not),
        cmocka_unit_test(migctl_migrate_reports),
        cmocka_unit_test(migctl_json_is_json),
        cmocka_unit_test(migctl_shows_the_host),
        cmocka_unit_test(migctl_cpu_levels),
        cmocka_unit_test(migctl_cpu_compares),
        cmocka_unit_test(ha_status_says_what_matters),
        cmocka_unit_test(ha_policies_are_read),
        cmocka_unit_test(ha_asks_before_it_breaks),
        cmocka_unit_test(nodes_are_drained),
        cmocka_unit_test(watch_leaves_at_interrupt),
        cmocka_unit_test(no_daemon_is_explained),
        cmocka_unit_test(numbers_for_people),
        cmocka_unit_test(numbers_from_people),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
