/* SPDX-License-Identifier: ISC */
/*
 * One thread, one poll loop: clients' requests are answered in the order they come, so
 * every operation on the machine is atomic to every other. That is also why a pause or
 * a collect may wait for an info that came first: nothing here takes long except BUILD
 * and DESTROY, which come before and after all others.
 *
 * A request is { check, handler } of the table `ops`: an operation needs a built machine
 * unless it says otherwise, and migration operations need to come from the connection
 * that did MIG_OPEN. When that connection closes, for whatever reason, the dirty log and
 * the throttle go off and the machine stays as it is: running, paused, incoming.
 *
 * Epochs: pause, resume and destroy carry one. Older than the newest seen is refused;
 * a newer one is remembered, here and in the file run_dir/epoch, which a client reads
 * only when this process does not answer any more.
 *
 * A guest that a device stops (suspend.c) is PAUSED with the reason, and RESUMED when that is
 * over; a pause or an unpause by a client in between has its own event.
 *
 * Events: STARTED when a machine that boots here is built; RESUMED also for the first
 * run of an incoming one; SHUTDOWN, REBOOT and CRASHED when the guest ended itself, and
 * again to each later subscriber, so that a client which was away learns how it ended.
 * Gone is seen as the end of the connection.
 */
#define _GNU_SOURCE
#include "hypervisor/xvm/control.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/xvm/client.h"
#include "hypervisor/xvm/figures.h"
#include "hypervisor/xvm/machine_internal.h"
#include "hypervisor/rundir.h"
#include "hypervisor/xvm/sandbox.h"
#include "storage-check/url.h"

#define BUILD_TIMEOUT_MS 30000
#define DRAIN_MS 8000     /* a pause waits so long for requests in flight: < HV_CALL_TIMEOUT_MS */
#define MIG_DRAIN_MS 1000 /* the same for a migration's: ten times the default pause budget */

typedef Migrd__Xvm__Request Request;
typedef Migrd__Xvm__Reply Reply;

struct client {
    struct msgconn *conn;
    bool subscribed, want_write;
};

struct server {
    const struct control_config *cfg;
    struct machine *m; /* NULL until BUILD */
    struct client client[XVM_MAX_CLIENTS];
    struct client *mig; /* whose migration it is, or NULL */
    enum hv_side side;
    bool ending;
    bool handed_over; /* its state was saved, and it has not run since */
};

/* What a handler works on: the request in, the reply and at most one descriptor out. */
struct call {
    struct client *from;
    const Request *q;
    int fd_in;
    Reply *r;
    Reply *made; /* sent instead of r, then freed; NULL none */
    int fd_out;
    bool close_out; /* fd_out was made for this reply */
    Migrd__Xvm__Info info;
    char reason[160];
    Migrd__Xvm__Cpu cpu;
    struct hv_caps caps;
    Migrd__Xvm__Layout layout;
    Migrd__Xvm__Region region[RAM_REGIONS], *regions[RAM_REGIONS];
};

static void close_client(struct server *s, struct client *c)
{
    struct err e;

    if (s->mig == c && s->m != NULL) {
        if (dirty_stop(s->m, &e) < 0)
            log_error("xvm", "%s", e.text);
        vcpus_throttle(s->m, 0, NULL);
        s->mig = NULL;
    }
    msgconn_free(&c->conn);
    *c = (struct client){ .conn = NULL };
}

static void flush_client(struct server *s, struct client *c)
{
    struct err e;
    int r = msgconn_flush(c->conn, &e);

    if (r < 0)
        close_client(s, c);
    else
        c->want_write = r == 1;
}

static void send_event(struct server *s, struct client *c, enum hv_event_type type, char *detail)
{
    Migrd__Xvm__Event ev = MIGRD__XVM__EVENT__INIT;
    Reply r = MIGRD__XVM__REPLY__INIT;

    ev.type = type;
    ev.detail = detail;
    r.event = &ev;
    if (msgconn_queue(c->conn, &r.base, -1, NULL) < 0)
        close_client(s, c);
    else
        flush_client(s, c);
}

static void publish(struct server *s, enum hv_event_type type, char *detail)
{
    log_info("xvm", "%s: %s%s%s", s->m->def->name, hv_event_name(type),
        detail[0] != '\0' ? ": " : "", detail);
    for (unsigned i = 0; i < XVM_MAX_CLIENTS; i++)
        if (s->client[i].conn != NULL && s->client[i].subscribed)
            send_event(s, &s->client[i], type, detail);
}

static enum hv_event_type stop_event_type(const struct machine *m)
{
    switch (m->stop_why) {
    case STOP_SHUTDOWN:
        return HV_EV_SHUTDOWN;
    case STOP_REBOOT:
        return HV_EV_REBOOT;
    case STOP_CRASH:
        return HV_EV_CRASHED;
    }
    return HV_EV_CRASHED;
}

static void publish_hold(struct server *s, enum hv_event_type type)
{
    char reason[160];

    machine_reason(s->m, reason, sizeof reason);
    if (type == HV_EV_RESUMED)
        snprintf(reason, sizeof reason, "what it waited for is over");
    publish(s, type, reason);
}

/* Anything that the guest has done to itself, or its devices to it, becomes a transition and an
 * event. */
static void take_stop(struct server *s)
{
    enum hv_event_type held;

    if (s->m == NULL)
        return;
    if (machine_take_stop(s->m))
        publish(s, stop_event_type(s->m), s->m->stop_detail);
    held = machine_take_holds(s->m);
    if (held != HV_EV_MAX)
        publish_hold(s, held);
}

static int check_epoch(struct server *s, uint64_t epoch, struct err *e)
{
    struct machine *m = s->m;

    if (epoch < m->epoch)
        return err_set(e, ERR_EPOCH,
            "domain %s: epoch %" PRIu64 " is older than %" PRIu64 ", which it has seen already",
            m->def->name, epoch, m->epoch);
    if (epoch > m->epoch) {
        m->epoch = epoch;
        fuse_set_epoch(m, epoch);
        rundir_write_epoch(m->run_dir, epoch);
    }
    return 0;
}

static int check_build(struct server *s, const Request *q, struct err *e)
{
    if (s->m != NULL)
        return err_set(e, ERR_STATE, "this process has a domain already");
    if (q->build == NULL || q->build->definition == NULL)
        return err_set(e, ERR_PROTOCOL, "build: without a definition");
    if (strcmp(q->build->definition->uuid, s->cfg->uuid) != 0)
        return err_set(e, ERR_INVALID, "build: uuid %.40s, this process is for %s",
            q->build->definition->uuid, s->cfg->uuid);
    return 0;
}

static bool on_network(const Migrd__Domain *def)
{
    for (size_t i = 0; i < def->n_disks; i++)
        if (storage_url_is_network(def->disks[i]->source))
            return true;
    return false;
}

static void take_storage(struct machine_storage *out, const Migrd__Xvm__Build *b)
{
    const Migrd__Xvm__Storage *s = b->storage;

    out->proof = b->proof < HV_PROOF_MAX ? (enum hv_proof)b->proof : HV_PROOF_NONE;
    if (out->proof == HV_PROOF_NONE && b->proven)
        out->proof = HV_PROOF_WORD; /* a client of the release before */
    if (s == NULL)
        return;
    snprintf(out->host, sizeof out->host, "%s", s->host);
    snprintf(out->secrets, sizeof out->secrets, "%s", s->secrets);
    snprintf(out->initiator, sizeof out->initiator, "%s", s->initiator);
    out->leases = s->leases;
    out->lease_ms = s->lease_ms;
    out->nfs_uid_base = s->nfs_uid_base;
    out->io_timeout_ms = s->io_timeout_ms;
}

static void enter_sandbox(const Migrd__Domain *def)
{
    struct err e;

    if (xvm_sandbox_enter(on_network(def), &e) < 0)
        log_warn("xvm", "running without a system call filter: %s", e.text);
    else
        log_info("xvm", "system call filter is on");
}

static int op_build(struct server *s, struct call *c, struct err *e)
{
    Migrd__Xvm__Build *b = c->q->build;
    uint64_t began = clock_ns();
    struct machine_how how;
    Migrd__Domain *def;
    bool run;

    if (check_build(s, c->q, e) < 0)
        return -1;
    how = (struct machine_how){
        .domid = b->domid, .epoch = c->q->epoch, .incoming = b->incoming, .blown = b->blown
    };
    run = !b->incoming && !b->paused;
    def = b->definition;
    b->definition = NULL; /* the machine's from here on */
    s->m = machine_new(s->cfg->run_dir, s->cfg->log_dir);
    if (s->m == NULL) {
        migrd__domain__free_unpacked(def, NULL);
        s->ending = true;
        return err_set(e, ERR_MEMORY, "build: out of memory");
    }
    take_storage(&s->m->storage, b);
    rundir_write_epoch(s->cfg->run_dir, c->q->epoch);
    snprintf(s->m->host_cpu_level, sizeof s->m->host_cpu_level, "%s", b->host_cpu_level);
    if (machine_build(s->m, def, &how, e) < 0) {
        log_error("xvm", "%s", e->text);
        s->ending = true;
        return -1;
    }
    enter_sandbox(def);
    log_info("xvm", "%s: built in %" PRIu64 " ms: %" PRIu64 " MiB, %u vCPUs, epoch %" PRIu64 "%s%s",
        def->name, (clock_ns() - began) / NS_PER_MS, s->m->ram_len >> 20, s->m->n_vcpus,
        c->q->epoch, how.incoming ? ", incoming" : "", how.blown ? ", its fuse blown" : "");
    if (run && machine_resume(s->m, e) < 0) {
        s->ending = true;
        return -1;
    }
    if (!how.incoming)
        publish(s, HV_EV_STARTED, (char *)"");
    return 0;
}

static int op_info(struct server *s, struct call *c, struct err *e)
{
    struct machine *m = s->m;
    Migrd__Xvm__Info *i = &c->info;
    uint64_t balloon = m->def->balloon ? virtio_balloon_now(m) : 0;

    (void)e;
    migrd__xvm__info__init(i);
    i->uuid = m->def->uuid;
    i->name = m->def->name;
    i->domid = m->domid;
    i->state = machine_state(m);
    i->epoch = m->epoch;
    i->memory_kib = balloon != 0 ? balloon : m->ram_len >> 10;
    i->max_memory_kib = m->ram_len >> 10;
    i->vcpus = m->n_vcpus;
    i->cpu_ns = vcpus_cpu_ns(m);
    i->pid = getpid();
    i->console = (char *)serial_pty(m);
    i->populated_kib = ram_populated_kib(m);
    machine_reason(m, c->reason, sizeof c->reason);
    i->reason = c->reason;
    i->fused = m->fuse.page != NULL;
    i->blown = m->life == LIFE_SUSPENDED && atomic_load(&m->fuse.on);
    c->r->info = i;
    return 0;
}

static int op_definition(struct server *s, struct call *c, struct err *e)
{
    (void)e;
    c->r->definition = s->m->def;
    return 0;
}

static int op_cpu(struct server *s, struct call *c, struct err *e)
{
    Migrd__Xvm__Cpu *out = &c->cpu;
    struct hv_caps *caps = &c->caps;

    if (machine_cpu(s->m, caps, e) < 0)
        return -1;
    migrd__xvm__cpu__init(out);
    out->vendor = caps->cpu_vendor;
    out->model = caps->cpu_model;
    out->n_features = HV_FEATURE_WORDS;
    out->features = caps->features;
    out->xsave_size = caps->xsave_size;
    out->xcr0 = caps->xcr0;
    out->tsc_khz = caps->tsc_khz;
    out->family = caps->cpu_family;
    out->model_no = caps->cpu_model_no;
    out->stepping = caps->cpu_stepping;
    c->r->cpu = out;
    return 0;
}

static int op_subscribe(struct server *s, struct call *c, struct err *e)
{
    (void)e;
    c->from->subscribed = true;
    if (s->m != NULL && s->m->life == LIFE_STOPPED)
        send_event(s, c->from, stop_event_type(s->m), s->m->stop_detail);
    return 0;
}

static int op_pause(struct server *s, struct call *c, struct err *e)
{
    unsigned drain_ms = c->q->op == MIGRD__XVM__OP__OP_MIG_PAUSE ? MIG_DRAIN_MS : DRAIN_MS;
    enum life before = s->m->life;

    if (check_epoch(s, c->q->epoch, e) < 0)
        return -1;
    if (c->q->op == MIGRD__XVM__OP__OP_MIG_PAUSE && s->side == HV_SOURCE &&
        machine_check_lost(s->m, "move", e) < 0)
        return -1;
    if (machine_pause(s->m, drain_ms, e) < 0)
        return -1;
    if (before == LIFE_RUNNING || before == LIFE_SUSPENDED)
        publish(s, HV_EV_PAUSED, (char *)"");
    return 0;
}

static int op_resume(struct server *s, struct call *c, struct err *e)
{
    enum life before = s->m->life;

    if (check_epoch(s, c->q->epoch, e) < 0 || machine_resume(s->m, e) < 0)
        return -1;
    s->handed_over = false;
    if (s->m->life == LIFE_SUSPENDED) {
        publish_hold(s, HV_EV_PAUSED);
        log_info("xvm", "%s: goes on when that is over", s->m->def->name);
    } else if (before != LIFE_RUNNING) {
        publish(s, HV_EV_RESUMED, (char *)"");
    }
    return 0;
}

static int op_claim(struct server *s, struct call *c, struct err *e)
{
    uint64_t epoch = c->q->epoch;

    if (epoch < s->m->epoch)
        return check_epoch(s, epoch, e); /* refuses */
    /* A claim that is refused leaves the domain under the epoch that it has. */
    return machine_claim(s->m, epoch, c->q->value != 0, e) < 0 ? -1 : check_epoch(s, epoch, e);
}

static int op_yield(struct server *s, struct call *c, struct err *e)
{
    return check_epoch(s, c->q->epoch, e) < 0 ? -1 : machine_yield(s->m, e);
}

static int op_destroy(struct server *s, struct call *c, struct err *e)
{
    if (s->m != NULL && check_epoch(s, c->q->epoch, e) < 0)
        return -1;
    if (s->m != NULL)
        log_info("xvm", "%s: destroyed", s->m->def->name);
    /* Nobody waits for the memory of what was moved or saved, but somebody waits for our answer. */
    if (s->m != NULL && s->handed_over && !s->m->def->huge_pages)
        ram_leave(s->m);
    machine_free(&s->m);
    rundir_remove(s->cfg->run_dir);
    s->ending = true;
    return 0;
}

static int op_shutdown(struct server *s, struct call *c, struct err *e)
{
    return machine_press_power(s->m, c->q->value != 0, e);
}

static int op_set_memory(struct server *s, struct call *c, struct err *e)
{
    if (!s->m->def->balloon)
        return err_set(e, ERR_UNSUPPORTED,
            "domain %s: has no balloon; set balloon=1 in its definition", s->m->def->name);
    if (c->q->value == 0 || c->q->value > s->m->ram_len >> 10)
        return err_set(e, ERR_INVALID,
            "domain %s: memory of %" PRIu64 " KiB: its maximum is %" PRIu64, s->m->def->name,
            c->q->value, s->m->ram_len >> 10);
    return virtio_balloon_set(s->m, c->q->value, e);
}

/* --- CPUs and figures --- */

/* Takes the answer over. */
static int give(struct call *c, Reply *made, struct err *e)
{
    c->made = made;
    return made != NULL ? 0 : err_set(e, ERR_MEMORY, "xvm-domain: out of memory");
}

static int op_vcpus(struct server *s, struct call *c, struct err *e)
{
    return give(c, figures_vcpus(s->m), e);
}

static int op_stats(struct server *s, struct call *c, struct err *e)
{
    return give(c, figures_stats(s->m), e);
}

static int op_pin(struct server *s, struct call *c, struct err *e)
{
    unsigned vcpu = c->q->value > UINT32_MAX ? UINT32_MAX : (unsigned)c->q->value;

    return vcpu_pin(s->m, vcpu, c->q->cpus, e);
}

static int op_sched(struct server *s, struct call *c, struct err *e)
{
    const Migrd__Xvm__Sched *q = c->q->sched;

    if (q == NULL || q->weight == 0 || q->weight > HV_WEIGHT_MAX || q->cap > HV_CAP_MAX)
        return err_set(e, ERR_PROTOCOL, "sched: without a weight or a cap that can be");
    if (cap_set(s->m, q->cap_here ? q->cap : 0, e) < 0)
        return -1;
    s->m->def->cpu_weight = q->weight == HV_WEIGHT ? 0 : q->weight;
    s->m->def->cpu_cap = q->cap;
    return 0;
}

static bool side_fits(enum life life, enum hv_side side)
{
    bool has_run = life == LIFE_RUNNING || life == LIFE_SUSPENDED || life == LIFE_PAUSED;

    switch (side) {
    case HV_SOURCE:
        return has_run;
    case HV_TARGET:
        return life == LIFE_INCOMING || life == LIFE_LOADED;
    case HV_VIEWER:
        return has_run || life == LIFE_STOPPED;
    }
    return false;
}

static int check_side(struct machine *m, enum hv_side side, struct err *e)
{
    static const char *const words[] = { "the source of a migration", "the target of a migration",
        "dumped" };

    if (side_fits(m->life, side))
        return side == HV_SOURCE ? machine_check_lost(m, "move", e) : 0;
    return err_set(e, ERR_STATE, "domain %s: is %s: it cannot be %s", m->def->name,
        life_name(m->life), words[side]);
}

static void fill_layout(const struct machine *m, struct call *c)
{
    migrd__xvm__layout__init(&c->layout);
    for (unsigned i = 0; i < m->n_regions; i++) {
        migrd__xvm__region__init(&c->region[i]);
        c->region[i].gfn = m->region[i].gpa >> HV_PAGE_SHIFT;
        c->region[i].pages = m->region[i].len >> HV_PAGE_SHIFT;
        c->region[i].offset = m->region[i].offset;
        c->regions[i] = &c->region[i];
    }
    c->layout.n_regions = m->n_regions;
    c->layout.regions = c->regions;
    c->layout.max_gfn = m->max_gfn;
    c->layout.huge_pages = m->def->huge_pages;
    c->r->layout = &c->layout;
}

static int op_mig_open(struct server *s, struct call *c, struct err *e)
{
    if (s->mig != NULL)
        return err_set(e, ERR_STATE, "domain %s: a migration has it open already", s->m->def->name);
    if (c->q->value > HV_VIEWER)
        return err_set(e, ERR_PROTOCOL, "migration: no such side");
    if (check_side(s->m, (enum hv_side)c->q->value, e) < 0 || dirty_open_shared(s->m, e) < 0)
        return -1;
    s->mig = c->from;
    s->side = (enum hv_side)c->q->value;
    fill_layout(s->m, c);
    c->fd_out = s->m->ram_fd;
    return 0;
}

static int op_mig_bitmap(struct server *s, struct call *c, struct err *e)
{
    (void)e;
    c->fd_out = s->m->shared_fd;
    return 0;
}

static int need_source(const struct server *s, struct err *e)
{
    if (s->side == HV_SOURCE)
        return 0;
    return err_set(
        e, ERR_STATE, "domain %s: the target of a migration has no dirty log", s->m->def->name);
}

static int op_dirty_start(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    return need_source(s, e) < 0 ? -1 : dirty_start(s->m, e);
}

static int op_dirty_collect(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    return dirty_fetch(s->m, true, e);
}

static int op_dirty_peek(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    return dirty_fetch(s->m, false, e);
}

static int op_dirty_give_back(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    (void)e;
    dirty_give_back(s->m);
    return 0;
}

static int op_dirty_stop(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    return dirty_stop(s->m, e);
}

static int op_populated(struct server *s, struct call *c, struct err *e)
{
    (void)c;
    if (!s->m->def->huge_pages)
        return err_set(e, ERR_UNSUPPORTED, "domain %s: ask its memfd", s->m->def->name);
    ram_populated(s->m, s->m->shared);
    return 0;
}

/* Bytes that do not fit into a message. */
static int hand_out(
    struct server *s, struct call *c, const char *what, const void *data, size_t len, struct err *e)
{
    int fd = memfd_create("xvm-state", MFD_CLOEXEC), r = 0;

    if (fd < 0 || io_write_full(fd, data, len, IO_FOREVER, e) < 0)
        r = err_sys(e, "domain %s: handing out its %s", s->m->def->name, what);
    c->r->value = len;
    c->fd_out = fd;
    c->close_out = true;
    return r;
}

static int op_state_save(struct server *s, struct call *c, struct err *e)
{
    uint8_t *blob;
    size_t len;
    int r;

    if (machine_save(s->m, &blob, &len, e) < 0)
        return -1;
    r = hand_out(s, c, "state", blob, len, e);
    free(blob);
    s->handed_over = s->side == HV_SOURCE;
    return r;
}

static int op_registers(struct server *s, struct call *c, struct err *e)
{
    struct hv_registers *list;
    int r = 0;

    if (s->m->life == LIFE_RUNNING)
        return err_set(e, ERR_STATE, "domain %s: runs: its registers change", s->m->def->name);
    list = calloc(s->m->n_vcpus, sizeof *list);
    if (list == NULL)
        return err_set(e, ERR_MEMORY, "registers: out of memory");
    for (unsigned i = 0; r == 0 && i < s->m->n_vcpus; i++)
        r = vcpu_registers(&s->m->vcpu[i], &list[i], e);
    if (r == 0)
        r = hand_out(s, c, "registers", list, s->m->n_vcpus * sizeof *list, e);
    free(list);
    return r;
}

static int op_state_load(struct server *s, struct call *c, struct err *e)
{
    size_t len = (size_t)c->q->value;
    uint8_t *blob;
    int r = -1;

    if (c->fd_in < 0 || c->q->value > HV_STATE_MAX)
        return err_set(e, ERR_PROTOCOL, "state: without a descriptor, or too long");
    blob = malloc(len + 1);
    if (blob == NULL)
        return err_set(e, ERR_MEMORY, "state: out of memory");
    if (pread(c->fd_in, blob, len, 0) != (ssize_t)len)
        err_set(e, ERR_PROTOCOL, "state: the descriptor holds less than %zu bytes", len);
    else
        r = machine_load(s->m, blob, len, e);
    free(blob);
    if (r == 0 && c->q->filled && s->m->def->huge_pages)
        r = ram_take_filled(s->m, s->m->shared, e);
    return r;
}

static int op_throttle(struct server *s, struct call *c, struct err *e)
{
    return vcpus_throttle(s->m, c->q->value > 100 ? 100 : (unsigned)c->q->value, e);
}

enum need { NEED_NOTHING, NEED_BUILT, NEED_MIGRATION };

static const struct op {
    int (*handle)(struct server *s, struct call *c, struct err *e);
    enum need need;
} ops[] = {
    [MIGRD__XVM__OP__OP_BUILD] = { op_build, NEED_NOTHING },
    [MIGRD__XVM__OP__OP_INFO] = { op_info, NEED_BUILT },
    [MIGRD__XVM__OP__OP_DEFINITION] = { op_definition, NEED_BUILT },
    [MIGRD__XVM__OP__OP_SUBSCRIBE] = { op_subscribe, NEED_NOTHING },
    [MIGRD__XVM__OP__OP_PAUSE] = { op_pause, NEED_BUILT },
    [MIGRD__XVM__OP__OP_RESUME] = { op_resume, NEED_BUILT },
    [MIGRD__XVM__OP__OP_DESTROY] = { op_destroy, NEED_NOTHING },
    [MIGRD__XVM__OP__OP_SHUTDOWN] = { op_shutdown, NEED_BUILT },
    [MIGRD__XVM__OP__OP_SET_MEMORY] = { op_set_memory, NEED_BUILT },
    [MIGRD__XVM__OP__OP_CPU] = { op_cpu, NEED_BUILT },
    [MIGRD__XVM__OP__OP_MIG_OPEN] = { op_mig_open, NEED_BUILT },
    [MIGRD__XVM__OP__OP_MIG_BITMAP] = { op_mig_bitmap, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_DIRTY_START] = { op_dirty_start, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_DIRTY_COLLECT] = { op_dirty_collect, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_DIRTY_PEEK] = { op_dirty_peek, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_DIRTY_GIVE_BACK] = { op_dirty_give_back, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_DIRTY_STOP] = { op_dirty_stop, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_MIG_PAUSE] = { op_pause, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_MIG_RESUME] = { op_resume, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_STATE_SAVE] = { op_state_save, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_STATE_LOAD] = { op_state_load, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_THROTTLE] = { op_throttle, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_CLAIM] = { op_claim, NEED_BUILT },
    [MIGRD__XVM__OP__OP_YIELD] = { op_yield, NEED_BUILT },
    [MIGRD__XVM__OP__OP_REGISTERS] = { op_registers, NEED_MIGRATION },
    [MIGRD__XVM__OP__OP_VCPUS] = { op_vcpus, NEED_BUILT },
    [MIGRD__XVM__OP__OP_PIN] = { op_pin, NEED_BUILT },
    [MIGRD__XVM__OP__OP_SCHED] = { op_sched, NEED_BUILT },
    [MIGRD__XVM__OP__OP_STATS] = { op_stats, NEED_BUILT },
    [MIGRD__XVM__OP__OP_POPULATED] = { op_populated, NEED_MIGRATION },
};

static int dispatch(struct server *s, struct call *c, struct err *e)
{
    const struct op *op = (unsigned)c->q->op < sizeof ops / sizeof ops[0] ? &ops[c->q->op] : NULL;

    if (op == NULL || op->handle == NULL)
        return err_set(e, ERR_UNSUPPORTED, "request %d is not known here", (int)c->q->op);
    if (s->ending || (op->need != NEED_NOTHING && s->m == NULL))
        return err_set(e, ERR_NOT_FOUND, "this process has no domain");
    if (op->need == NEED_MIGRATION && s->mig != c->from)
        return err_set(e, ERR_STATE, "request %d is for the migration's connection", (int)c->q->op);
    return op->handle(s, c, e);
}

static void answer(struct server *s, struct client *from, Request *q, int fd_in)
{
    Reply r = MIGRD__XVM__REPLY__INIT;
    struct call c = { .from = from, .q = q, .fd_in = fd_in, .r = &r, .fd_out = -1 };
    struct err e;
    int rc;

    err_clear(&e);
    rc = dispatch(s, &c, &e);
    if (rc < 0) {
        r.code = e.code == ERR_NONE ? ERR_INTERNAL : e.code;
        r.error = e.text;
    }
    r.serial = q->serial;
    if (c.made != NULL)
        c.made->serial = q->serial;
    if (from->conn != NULL) {
        if (msgconn_queue(from->conn, c.made != NULL ? &c.made->base : &r.base,
                rc < 0 ? -1 : c.fd_out, &e) < 0)
            close_client(s, from);
        else
            flush_client(s, from);
    }
    if (c.made != NULL)
        migrd__xvm__reply__free_unpacked(c.made, NULL);
    if (c.close_out)
        io_close(&c.fd_out);
}

static void read_client(struct server *s, struct client *c)
{
    struct err e;
    bool ended = msgconn_fill(c->conn, &e) < 0;

    while (c->conn != NULL) {
        ProtobufCMessage *m = NULL;
        int fd = -1, r = msgconn_next(c->conn, &m, &fd, &e);

        if (r < 0)
            log_warn("xvm", "control connection closed: %s", e.text);
        if (r < 0 || (r == 0 && ended))
            close_client(s, c);
        if (r <= 0)
            return;
        take_stop(s);
        answer(s, c, (Request *)m, fd);
        protobuf_c_message_free_unpacked(m, NULL);
        io_close(&fd);
    }
}

static void accept_client(struct server *s)
{
    int fd = accept4(s->cfg->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    for (unsigned i = 0; i < XVM_MAX_CLIENTS; i++) {
        if (s->client[i].conn != NULL)
            continue;
        s->client[i] = (struct client){ .conn = msgconn_new(fd, &migrd__xvm__request__descriptor,
                                            XVM_MESSAGE_MAX) };
        return;
    }
    log_warn("xvm", "control connection refused: %d are open already", XVM_MAX_CLIENTS);
    close(fd);
}

#define FIXED_FDS 3

static unsigned fill_poll(const struct server *s, struct pollfd *p)
{
    unsigned n = 0;

    p[n++] = (struct pollfd){ .fd = s->cfg->listen_fd, .events = POLLIN };
    p[n++] = (struct pollfd){ .fd = s->cfg->stop_fd, .events = POLLIN };
    p[n++] = (struct pollfd){ .fd = s->m == NULL ? -1 : s->m->stop_event, .events = POLLIN };
    for (unsigned i = 0; i < XVM_MAX_CLIENTS; i++) {
        const struct client *c = &s->client[i];

        p[n++] = (struct pollfd){ .fd = c->conn == NULL ? -1 : msgconn_fd(c->conn),
            .events = (short)(POLLIN | (c->want_write ? POLLOUT : 0)) };
    }
    return n;
}

/* One round; false when the process is to end. */
static bool serve_once(struct server *s)
{
    struct pollfd p[FIXED_FDS + XVM_MAX_CLIENTS];
    unsigned n = fill_poll(s, p);
    int r = poll(p, n, s->m == NULL ? BUILD_TIMEOUT_MS : -1);

    if (r < 0)
        return errno == EINTR;
    if (r == 0) {
        log_warn("xvm", "nobody asked for a domain within %d s", BUILD_TIMEOUT_MS / 1000);
        return false;
    }
    if (p[1].revents != 0) {
        log_info("xvm", "%s: told to end by a signal", s->m == NULL ? "?" : s->m->def->name);
        return false;
    }
    if (p[2].revents != 0)
        take_stop(s);
    for (unsigned i = 0; i < XVM_MAX_CLIENTS; i++) {
        struct client *c = &s->client[i];

        if (p[FIXED_FDS + i].fd < 0 || c->conn == NULL)
            continue;
        if ((p[FIXED_FDS + i].revents & POLLOUT) != 0)
            flush_client(s, c);
        if ((p[FIXED_FDS + i].revents & ~POLLOUT) != 0 && c->conn != NULL)
            read_client(s, c);
    }
    if (p[0].revents != 0)
        accept_client(s);
    return !s->ending;
}

int control_serve(const struct control_config *cfg, struct err *e)
{
    struct server *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    s->cfg = cfg;
    while (serve_once(s))
        ;
    machine_free(&s->m);
    rundir_remove(cfg->run_dir); /* before the connections end: then another may take its place */
    for (unsigned i = 0; i < XVM_MAX_CLIENTS; i++)
        if (s->client[i].conn != NULL)
            close_client(s, &s->client[i]);
    free(s);
    return 0;
}
