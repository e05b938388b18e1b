/* SPDX-License-Identifier: ISC */
/*
 * Start, in this order, each step needing the ones before it:
 *
 *   folders, lock        one migrd per root
 *   hypervisor           without it there is nothing to do
 *   journal              who owns what; damage puts domains in doubt
 *   registry             definitions, running domains
 *   migrations           what a crash left is taken up
 *   cluster              joins in the background, if `cluster = yes`
 *   sockets              control, status, relocation: last, so nobody sees half a migrd
 *
 * Stop: no new sessions or requests; workers before their commit are told to give up, the
 * others get DAEMON_STOP_MS; then everything closes. Guests and late workers go on.
 */
#define _GNU_SOURCE
#include "migrd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/control.h"
#include "migrd/define/define.h"
#include "migrd/domain_figures.h"
#include "migrd/events.h"
#include "migrd/ha.h"
#include "migrd/journal.h"
#include "migrd/libvirt/libvirt.h"
#include "migrd/migration.h"
#include "migrd/notify.h"
#include "migrd/registry.h"
#include "migrd/relocation.h"
#include "migrd/status.h"

#define STOP_TICK_MS 50

/* What only the daemon itself needs. m is first: handles find it by their data. */
struct run {
    struct migrd m;
    const struct daemon_options *opt;
    uv_loop_t loop;
    uv_signal_t sig[4];
    uv_timer_t watchdog, stopper;
    uint64_t stop_since;
    int lock_fd;
    char lock_path[PATHS_LEN + 16];
    bool stopping;
};

/* --- configuration --- */

int daemon_read_config(
    const struct daemon_options *o, const struct paths *p, struct config *c, struct err *e)
{
    const char *path = o->config != NULL ? o->config : p->config;

    config_defaults(c);
    if (config_load(c, path, e) == 0)
        return 0;
    if (e->code == ERR_NOT_FOUND && o->config == NULL) {
        log_info("config", "%s does not exist: the defaults are used", path);
        return 0;
    }
    return -1;
}

static void find_host_name(struct migrd *m)
{
    if (m->config.host_name[0] != '\0') {
        snprintf(m->host_name, sizeof m->host_name, "%s", m->config.host_name);
        return;
    }
    if (gethostname(m->host_name, sizeof m->host_name - 1) < 0 || m->host_name[0] == '\0')
        strcpy(m->host_name, "localhost");
}

static int apply_log(const struct run *r, const struct config *c, struct err *e)
{
    const char *word = r->opt->log_level != NULL ? r->opt->log_level : c->log_level;
    int level = log_level_parse(word);

    if (level < 0)
        return err_set(e, ERR_INVALID, "log level %.16s is none of error, warn, info, debug", word);
    log_set_level((enum log_level)level);
    return log_open("migrd", c->log_file[0] != '\0' ? c->log_file : NULL, e);
}

/* What a running migrd cannot change. */
static size_t needs_restart(const struct config *a, const struct config *b, char *out, size_t len)
{
    size_t n = 0;
    const struct {
        const char *key;
        bool changed;
    } keys[] = { { "hypervisor", strcmp(a->hypervisor, b->hypervisor) != 0 },
        { "host-name", strcmp(a->host_name, b->host_name) != 0 },
        { "host-cpu-level", strcmp(a->host_cpu_level, b->host_cpu_level) != 0 },
        { "storage-leases", a->storage_leases != b->storage_leases },
        { "storage-lease-time", a->storage_lease_ms != b->storage_lease_ms },
        { "storage-timeout", a->storage_timeout_ms != b->storage_timeout_ms },
        { "storage-nfs-uid-base", a->storage_nfs_uid_base != b->storage_nfs_uid_base },
        { "storage-secrets", strcmp(a->storage_secrets, b->storage_secrets) != 0 },
        { "storage-iscsi-initiator", strcmp(a->storage_initiator, b->storage_initiator) != 0 },
        { "cluster", a->cluster != b->cluster },
        { "cluster-beat-port", a->cluster_beat_port != b->cluster_beat_port },
        { "cluster-key", strcmp(a->cluster_key, b->cluster_key) != 0 },
        { "cluster-fence", strcmp(a->cluster_fence, b->cluster_fence) != 0 },
        { "cluster-watchdog", strcmp(a->cluster_watchdog, b->cluster_watchdog) != 0 },
        { "cluster-watchdog-time", a->cluster_watchdog_ms != b->cluster_watchdog_ms },
        { "cluster-starts-at-once", a->cluster_starts_at_once != b->cluster_starts_at_once },
        { "cluster-moves-at-once", a->cluster_moves_at_once != b->cluster_moves_at_once },
        { "cluster-flight-record", a->cluster_flight_record != b->cluster_flight_record },
        { "control-group", strcmp(a->control_group, b->control_group) != 0 },
        { "status-address", strcmp(a->status_address, b->status_address) != 0 } };

    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && n + 32 < len; i++)
        if (keys[i].changed)
            n += (size_t)snprintf(out + n, len - n, " %s", keys[i].key);
    return n;
}

/* The key of the beats; without the new one the old one goes on. */
static void reload_cluster(struct migrd *m)
{
    struct cluster *c = ha_cluster(m);
    struct err e;

    if (c != NULL && cluster_reload(c, &e) < 0)
        log_error("ha", "%s; the key of before stays in force", e.text);
}

int daemon_reload(struct migrd *m, char *text, size_t len, struct err *e)
{
    struct run *r = (struct run *)m;
    struct config fresh, before = m->config;
    char late[400] = "", sockets[400] = "";

    notify_send("RELOADING=1");
    if (daemon_read_config(r->opt, &m->paths, &fresh, e) < 0 || apply_log(r, &fresh, e) < 0) {
        notify_send("READY=1");
        return err_prefix(e, "configuration unchanged");
    }
    m->config = fresh;
    if (relocation_reload(m, &before, sockets, sizeof sockets, e) < 0) {
        m->config = before;
        notify_send("READY=1");
        return err_prefix(e, "configuration unchanged");
    }
    libvirt_reload(m, &before);
    if (ha_cluster(m) != NULL && cluster_reload(ha_cluster(m), e) < 0)
        log_error("config", "%s", e->text);
    reload_cluster(m);
    needs_restart(&before, &fresh, late, sizeof late);
    snprintf(text, len, "configuration read again; relocation: %s%s%s", sockets,
        late[0] ? "; these keys need a restart of migrd:" : "", late);
    log_info("config", "%s", text);
    notify_send("READY=1");
    return 0;
}

/* --- start --- */

static int lock(struct run *r, struct err *e)
{
    char pid[32];
    int n;

    snprintf(r->lock_path, sizeof r->lock_path, "%s/migrd.pid", r->m.paths.run);
    r->lock_fd = open(r->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (r->lock_fd < 0)
        return err_sys(e, "%s", r->lock_path);
    if (flock(r->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return err_set(e, ERR_EXISTS, "another migrd runs on this root (%s)", r->lock_path);
        return err_sys(e, "lock of %s", r->lock_path);
    }
    n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(r->lock_fd, 0) < 0 || write(r->lock_fd, pid, (size_t)n) != n)
        return err_sys(e, "%s", r->lock_path);
    return 0;
}

static int make_folders(const struct paths *p, struct err *e)
{
    if (io_make_dirs(p->run, 0755, e) < 0 || io_make_dirs(p->hv, 0700, e) < 0 ||
        io_make_dirs(p->domains, 0700, e) < 0 || io_make_dirs(p->log, 0750, e) < 0)
        return -1;
    return 0;
}

static int open_hypervisor(struct migrd *m, struct err *e)
{
    const struct config *c = &m->config;
    char secrets[PATHS_LEN + 32];
    const struct hv_config cfg = { .run_dir = m->paths.hv,
        .log_dir = m->paths.log,
        .host = m->host_name,
        .secrets = secrets,
        .initiator = c->storage_initiator,
        .leases = c->storage_leases,
        .lease_ms = c->storage_lease_ms,
        .nfs_uid_base = c->storage_nfs_uid_base,
        .io_timeout_ms = c->storage_timeout_ms,
        .cpu_level = c->host_cpu_level };

    config_secrets(c, m->paths.etc, secrets, sizeof secrets);
    m->hv_ops = hv_driver(m->config.hypervisor);
    if (m->hv_ops == NULL)
        return err_set(
            e, ERR_UNSUPPORTED, "hypervisor %s is not part of this build", m->config.hypervisor);
    if (m->hv_ops->open(&cfg, &m->hv, e) < 0 || m->hv_ops->capabilities(m->hv, &m->caps, e) < 0)
        return err_prefix(e, "hypervisor %s", m->hv_ops->name);
    log_info("migrd", "hypervisor %s release %s, %u CPUs %s, %llu MiB, %llu MiB free",
        m->caps.hypervisor, m->caps.release, m->caps.host_cpus, m->caps.cpu_model,
        (unsigned long long)m->caps.memory_total_kib / 1024,
        (unsigned long long)m->caps.memory_free_kib / 1024);
    return 0;
}

static int open_state(struct migrd *m, struct err *e)
{
    size_t doubts;

    if (journal_open(m->paths.journal, &m->journal, &doubts, e) < 0)
        return -1;
    if (registry_make(m, e) < 0 || migrations_read_journal(m, e) < 0 || registry_open(m, e) < 0 ||
        migrations_open(m, e) < 0 || registry_start(m, e) < 0 || ha_open(m, e) < 0)
        return -1;
    return 0;
}

static int open_sockets(struct migrd *m, struct err *e)
{
    if (control_start(m, e) < 0 || status_start(m, &m->status, e) < 0 || libvirt_start(m, e) < 0 ||
        relocation_start(m, e) < 0)
        return -1;
    return 0;
}

static int start(struct run *r, struct err *e)
{
    struct migrd *m = &r->m;

    if (paths_init(&m->paths, r->opt->root, e) < 0 ||
        daemon_read_config(r->opt, &m->paths, &m->config, e) < 0)
        return -1;
    paths_hypervisor(&m->paths, m->config.hypervisor);
    define_default_hypervisor(m->config.hypervisor);
    if (make_folders(&m->paths, e) < 0 || apply_log(r, &m->config, e) < 0 || lock(r, e) < 0)
        return -1;
    find_host_name(m);
    m->start_wall_ns = clock_wall_ns();
    m->events = events_new();
    if (m->events == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    log_info("migrd", "version %s on host %s%s%s", MIGRD_VERSION, m->host_name,
        m->paths.root[0] ? ", root " : "", m->paths.root);
    if (open_hypervisor(m, e) < 0 || open_state(m, e) < 0 || open_sockets(m, e) < 0)
        return -1;
    registry_autostart_boot(m);
    return 0;
}

/* --- stop --- */

static void close_handles(struct run *r)
{
    ha_stop(&r->m);
    relocation_stop(&r->m);
    control_stop(&r->m);
    libvirt_stop(&r->m);
    if (r->m.status != NULL)
        status_stop(&r->m.status);
    if (r->m.migrations != NULL)
        migrations_stop(&r->m);
    figures_stop(&r->m);
    registry_stop(&r->m);
    for (size_t i = 0; i < sizeof r->sig / sizeof r->sig[0]; i++)
        if (r->sig[i].data != NULL)
            uv_close((uv_handle_t *)&r->sig[i], NULL);
    if (r->watchdog.data != NULL)
        uv_close((uv_handle_t *)&r->watchdog, NULL);
    if (r->stopper.data != NULL)
        uv_close((uv_handle_t *)&r->stopper, NULL);
}

static void stop_tick(uv_timer_t *t)
{
    struct run *r = t->data;
    unsigned left = migrations_active(&r->m);

    if (left > 0 && clock_ns() - r->stop_since < DAEMON_STOP_MS * NS_PER_MS)
        return;
    if (left > 0)
        log_warn("migrd", "%u workers go on without us; the journal knows them", left);
    uv_timer_stop(t);
    close_handles(r);
    uv_stop(&r->loop);
}

static void begin_stop(struct run *r, int signal)
{
    if (r->stopping)
        return;
    r->stopping = true;
    log_info("migrd", "%s: stopping; guests go on", strsignal(signal));
    notify_send("STOPPING=1");
    relocation_stop(&r->m);
    migrations_cancel_all(&r->m, "migrd is being stopped");
    r->stop_since = clock_ns();
    uv_timer_start(&r->stopper, stop_tick, 0, STOP_TICK_MS);
}

/* --- signals --- */

static void on_signal(uv_signal_t *h, int signal)
{
    struct run *r = h->data;
    char text[700];
    struct err e;

    switch (signal) {
    case SIGHUP:
        if (daemon_reload(&r->m, text, sizeof text, &e) < 0)
            log_error("config", "%s", e.text);
        break;
    case SIGUSR1:
        if (log_reopen(&e) < 0)
            log_error("migrd", "%s", e.text);
        break;
    default:
        begin_stop(r, signal);
        break;
    }
}

static void feed_watchdog(uv_timer_t *t)
{
    (void)t;
    notify_send("WATCHDOG=1");
}

static void watch_signals(struct run *r)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
    uint64_t watchdog_ms = notify_watchdog_ms();

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        uv_signal_init(&r->loop, &r->sig[i]);
        r->sig[i].data = r;
        uv_signal_start(&r->sig[i], on_signal, signals[i]);
    }
    uv_timer_init(&r->loop, &r->stopper);
    uv_timer_init(&r->loop, &r->watchdog);
    r->stopper.data = r->watchdog.data = r;
    if (watchdog_ms > 0)
        uv_timer_start(&r->watchdog, feed_watchdog, 0, watchdog_ms);
}

static void release(struct run *r)
{
    struct migrd *m = &r->m;

    control_close(m);
    libvirt_close(m);
    relocation_close(m);
    ha_close(m);
    migrations_close(m);
    registry_close(m);
    journal_close(&m->journal);
    if (m->hv != NULL)
        m->hv_ops->close(&m->hv);
    events_free(&m->events);
    if (r->lock_fd >= 0) {
        unlink(r->lock_path);
        close(r->lock_fd);
    }
}

int daemon_run(const struct daemon_options *o, struct err *e)
{
    static struct run r;
    int ret;

    memset(&r, 0, sizeof r);
    r.opt = o;
    r.lock_fd = -1;
    /* Read by libuv before its pool starts: all blocking calls of this daemon go there. */
    setenv("UV_THREADPOOL_SIZE", DAEMON_POOL_THREADS, 1);
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&r.loop);
    r.m.loop = &r.loop;
    watch_signals(&r);
    ret = start(&r, e);
    if (ret == 0) {
        notify_send("READY=1");
        notify_status("host %s: %s", r.m.host_name, relocation_text(&r.m));
        log_info("migrd", "ready");
        uv_run(&r.loop, UV_RUN_DEFAULT);
    } else {
        close_handles(&r);
    }
    /* Close callbacks and jobs that are still in the pool. */
    uv_run(&r.loop, UV_RUN_DEFAULT);
    release(&r);
    uv_loop_close(&r.loop);
    log_info("migrd", "stopped");
    return ret;
}
