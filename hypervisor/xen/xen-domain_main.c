/* SPDX-License-Identifier: ISC */
/*
 * xen-domain: one thing done to one domain of Xen's with libxl, then it ends. Started by
 * migrd (run.c); a person may run it too, to see what libxl says (its log is
 * LOG_DIR/xen-UUID.log).
 *
 * A build, step by step, so that a death at any of them leaves nothing that could run:
 *   lock        the folder's lock, held to the end of the process
 *   mark        `building`; definition, epoch and, for one that comes, `incoming`
 *   build       libxl; the domain is paused
 *   fuse        xen-fuse watches it
 *   unmark      from here on it counts
 *   unpause     if it is to run
 *   attach      devices of one that comes, by a child, after the answer (attach.c)
 * A domain with the mark whose builder is gone is destroyed by the next who lists domains.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"
#include "base/paths.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xen/find.h"
#include "hypervisor/xen/folder.h"
#include "hypervisor/xen/fuse.h"
#include "hypervisor/xen/xen_domain.h"

#define DEFINITION_MAX (1u << 20)
#define LOCK_MS 60000 /* hotplug scripts may be under way */
#define SCRIPT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static const char usage[] =
    "usage: xen-domain start|incoming --run-dir DIR --log-dir DIR --uuid UUID --epoch N "
    "[--paused]\n"
    "                [--blown] [--background]\n"
    "       xen-domain claim|save|destroy|definition --run-dir DIR --log-dir DIR --uuid UUID\n"
    "       xen-domain memory --run-dir DIR --log-dir DIR --uuid UUID --kib N\n"
    "       xen-domain vcpus --run-dir DIR --log-dir DIR --uuid UUID --vcpus N\n"
    "Works on one domain of Xen's with libxl; started by migrd, see xen-domain(8).\n";

struct verb {
    const char *name;
    int (*run)(struct xl *x, const Migrd__Domain *def, struct err *e);
    bool builds, comes; /* comes: by a migration */
};

static const struct verb verbs[] = {
    { .name = "start", .run = xl_start, .builds = true },
    { .name = "incoming", .run = xl_incoming, .builds = true, .comes = true },
    { .name = "claim", .run = xl_claim },
    { .name = "save", .run = xl_save },
    { .name = "destroy", .run = xl_destroy },
    { .name = "memory", .run = xl_memory },
    { .name = "vcpus", .run = xl_vcpus },
    { .name = "definition" },
};

struct options {
    const struct verb *verb;
    const char *run_dir, *log_dir, *uuid;
    uint64_t epoch, kib, vcpus;
    bool paused, blown, background;
};

/* --- libxl's words --- */

struct sink {
    struct xentoollog_logger l; /* first */
    struct xl *x;
};

static void __attribute__((format(printf, 5, 0))) on_message(struct xentoollog_logger *l,
    xentoollog_level level, int error, const char *context, const char *fmt, va_list ap)
{
    struct xl *x = ((struct sink *)l)->x;
    char text[600];
    size_t n;

    n = (size_t)vsnprintf(text, sizeof text, fmt, ap);
    if (error > 0 && n < sizeof text)
        snprintf(text + n, sizeof text - n, ": %s", strerror(error));
    for (char *p = text; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    if (level >= XTL_ERROR && x->said[0] == '\0') /* the first is the cause of the others */
        snprintf(x->said, sizeof x->said, "%.*s", (int)sizeof x->said - 1, text);
    log_msg(level >= XTL_ERROR  ? LOG_LV_ERROR
            : level >= XTL_WARN ? LOG_LV_WARN
                                : LOG_LV_DEBUG,
        context != NULL ? context : "libxl", "%s", text);
}

static void no_destroy(struct xentoollog_logger *l)
{
    (void)l;
}

/* --- arguments --- */

static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option names[] = { { "run-dir", required_argument, NULL, 'r' },
        { "log-dir", required_argument, NULL, 'l' }, { "uuid", required_argument, NULL, 'u' },
        { "epoch", required_argument, NULL, 'e' }, { "kib", required_argument, NULL, 'k' },
        { "vcpus", required_argument, NULL, 'v' }, { "paused", no_argument, NULL, 'p' },
        { "blown", no_argument, NULL, 'b' }, { "background", no_argument, NULL, 'g' },
        { NULL, 0, NULL, 0 } };
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (c == 'r')
            o->run_dir = optarg;
        else if (c == 'l')
            o->log_dir = optarg;
        else if (c == 'u')
            o->uuid = optarg;
        else if (c == 'e')
            o->epoch = strtoull(optarg, NULL, 10);
        else if (c == 'k')
            o->kib = strtoull(optarg, NULL, 10);
        else if (c == 'v')
            o->vcpus = strtoull(optarg, NULL, 10);
        else if (c == 'p')
            o->paused = true;
        else if (c == 'b')
            o->blown = true;
        else if (c == 'g')
            o->background = true;
        else
            return -1;
    }
    return optind == argc ? 0 : -1;
}

static int parse(int argc, char **argv, struct options *o)
{
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0)
            o->verb = &verbs[i];
    if (o->verb == NULL || parse_options(argc - 1, argv + 1, o) < 0)
        return -1;
    if (o->run_dir == NULL || o->log_dir == NULL || o->uuid == NULL)
        return -1;
    if (o->run_dir[0] != '/' || o->log_dir[0] != '/' || !rundir_is_uuid(o->uuid) ||
        o->vcpus > HV_VCPUS_MAX)
        return -1;
    return 0;
}

static Migrd__Domain *read_definition(const char *uuid, struct err *e)
{
    uint8_t *bytes = malloc(DEFINITION_MAX);
    Migrd__Domain *def;
    size_t n = 0;
    ssize_t r;

    if (bytes == NULL) {
        err_set(e, ERR_MEMORY, "out of memory for the definition");
        return NULL;
    }
    while (n < DEFINITION_MAX && (r = read(STDIN_FILENO, bytes + n, DEFINITION_MAX - n)) > 0)
        n += (size_t)r;
    def = migrd__domain__unpack(NULL, n, bytes);
    free(bytes);
    if (def != NULL && strcmp(def->uuid, uuid) == 0)
        return def;
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    err_set(e, ERR_INVALID, "standard input is not the definition of domain %s", uuid);
    return NULL;
}

/* --- work --- */

/* Its number, INVALID_DOMID if there is none. */
static int find(struct xl *x, const char *uuid, struct err *e)
{
    xc_interface *xc = xc_interface_open(x->log, x->log, 0);
    xc_domaininfo_t d;
    struct err why;
    int r;

    x->domid = (uint32_t)INVALID_DOMID;
    if (xc == NULL)
        return err_sys(e, "/dev/xen/privcmd");
    r = xen_find_with(xc, uuid, &d, &why);
    xc_interface_close(xc);
    if (r == 0)
        x->domid = d.domain;
    return r == 0 || why.code == ERR_NOT_FOUND ? 0 : err_set(e, why.code, "%s", why.text);
}

static int prepare_folder(
    const struct xl *x, const struct verb *v, const Migrd__Domain *def, struct err *e)
{
    static const char *const old[] = { FOLDER_INCOMING, FOLDER_ATTACH, FOLDER_CLAIMED,
        FOLDER_MIGRATION };

    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        folder_unmark(x->dir, old[i]);
    if (folder_mark(x->dir, FOLDER_BUILDING, "", e) < 0 ||
        folder_put_definition(x->dir, def, e) < 0 ||
        (v->comes && folder_mark(x->dir, FOLDER_INCOMING, "", e) < 0))
        return -1;
    rundir_write_epoch(x->dir, x->epoch);
    return 0;
}

static void discard(struct xl *x, const char *uuid)
{
    struct err e;

    if (find(x, uuid, &e) < 0 || (x->domid != (uint32_t)INVALID_DOMID &&
                                     libxl_domain_destroy(x->ctx, x->domid, NULL) != 0)) {
        log_error("xen", "a half-built domain is left: %s", x->said);
        return; /* its mark tells the next who lists domains */
    }
    rundir_remove(x->dir);
}

/* From here on it counts. */
static int begin(struct xl *x, struct err *e)
{
    if (xen_fuse_begin(x->run_dir, x->uuid, x->domid, x->epoch, x->blown, e) < 0)
        return -1;
    if (x->comes && (x->attach_fd = xl_attach_begin(x, e)) < 0)
        return -1;
    if (FAULT("xen-built"))
        log_warn("xen", "fault point xen-built: nothing to do but to go on");
    folder_unmark(x->dir, FOLDER_BUILDING);
    return 0;
}

static void give_answer(struct xl *x)
{
    dprintf(x->answer, "ok %u\n", x->domid);
    io_close(&x->answer);
}

/* Of a domain that libxl is still building. */
static int exists(struct xl *x, struct err *e)
{
    if (find(x, x->uuid, e) < 0)
        return -1;
    if (x->domid == (uint32_t)INVALID_DOMID)
        return err_set(e, ERR_NOT_FOUND, "domain %s: it was destroyed while it was built", x->uuid);
    if (begin(x, e) < 0)
        return -1;
    give_answer(x);
    return 0;
}

static int build(struct xl *x, const struct options *o, const Migrd__Domain *def, struct err *e)
{
    int lock = folder_lock(x->dir, true, 0, e);

    if (lock < 0 && e->code == ERR_TIMEOUT)
        e->code = ERR_EXISTS;
    if (lock < 0 || find(x, o->uuid, e) < 0)
        return -1;
    if (x->domid != (uint32_t)INVALID_DOMID)
        return err_set(e, ERR_EXISTS, "domain %s is here already, as %u", def->name, x->domid);
    if (prepare_folder(x, o->verb, def, e) < 0 || o->verb->run(x, def, e) < 0 ||
        (x->answer >= 0 && begin(x, e) < 0)) {
        discard(x, o->uuid);
        return -1;
    }
    if (!o->paused && !o->verb->comes && xen_fuse_go(x->run_dir, o->uuid, x->domid, e) < 0) {
        err_prefix(e, "domain %s: cannot be unpaused", def->name);
        discard(x, o->uuid);
        return -1;
    }
    return 0; /* the lock goes with the process */
}

static void forget(const struct xl *x, const struct options *o)
{
    rundir_remove(x->dir);
    folder_drop_log(o->log_dir, o->uuid);
}

/* Of a domain that exists. One that was not made here has no folder, and needs no lock. */
static int work_on(struct xl *x, const struct options *o, struct err *e)
{
    bool ends = o->verb->run == xl_destroy, claims = o->verb->run == xl_claim;
    Migrd__Domain *def = NULL;
    int r;

    if (ends)
        xl_give_up_pv(x->dir);
    if (ends || claims) {
        int lock = folder_lock(x->dir, false, LOCK_MS, e);

        if (lock < 0 && e->code != ERR_NOT_FOUND)
            return -1;
    }
    if (find(x, o->uuid, e) < 0)
        return -1;
    if (x->domid == (uint32_t)INVALID_DOMID) {
        if (ends)
            forget(x, o);
        return err_set(e, ERR_NOT_FOUND, "domain %s: no such domain is running", o->uuid);
    }
    if (claims && (def = folder_definition(x->dir, e)) == NULL)
        return -1;
    r = o->verb->run(x, def, e);
    if (ends && r == 0)
        forget(x, o);
    if (def != NULL)
        migrd__domain__free_unpacked(def, NULL);
    return r;
}

static int tell_definition(struct xl *x, const char *uuid, struct err *e)
{
    Migrd__Domain *def;
    uint8_t *bytes;
    size_t n;

    if (find(x, uuid, e) < 0)
        return -1;
    if (x->domid == (uint32_t)INVALID_DOMID)
        return err_set(e, ERR_NOT_FOUND, "domain %s: no such domain is running", uuid);
    def = xl_definition(x, e);
    if (def == NULL)
        return -1;
    n = migrd__domain__get_packed_size(def);
    bytes = malloc(n + 3);
    if (bytes != NULL) {
        memcpy(bytes, "ok ", 3);
        n = 3 + migrd__domain__pack(def, bytes + 3);
        io_write_full(x->answer, bytes, n, IO_FOREVER, NULL);
    }
    free(bytes);
    migrd__domain__free_unpacked(def, NULL);
    return bytes != NULL ? 0 : err_set(e, ERR_MEMORY, "out of memory");
}

static int open_libxl(struct xl *x, struct err *e)
{
    if (libxl_ctx_alloc(&x->ctx, LIBXL_VERSION, 0, x->log) == 0)
        return 0;
    return err_set(e, ERR_SYSTEM, "libxl cannot be opened: %s", x->said);
}

/* Who waits has its answer. The child has the locks; libxl's context is of one process only. */
static void attach_later(struct xl *x, const Migrd__Domain *def)
{
    struct err e = { 0 };
    pid_t pid;

    libxl_ctx_free(x->ctx);
    x->ctx = NULL;
    pid = fork();
    if (pid < 0)
        log_error("xen", "fork: %s", strerror(errno));
    if (pid != 0)
        return;
    if (open_libxl(x, &e) < 0 || xl_attach(x, def, x->attach_fd, &e) < 0)
        log_error("xen", "attaching: %s", e.text);
}

static int work(struct xl *x, const struct options *o, struct err *e)
{
    Migrd__Domain *def;
    int r;

    if (o->verb->run == NULL)
        return tell_definition(x, o->uuid, e);
    if (o->verb->builds) {
        def = read_definition(o->uuid, e);
        if (def == NULL)
            return -1;
        r = build(x, o, def, e);
        if (r == 0 && x->answer >= 0)
            give_answer(x);
        if (r == 0 && o->verb->comes)
            attach_later(x, def);
        migrd__domain__free_unpacked(def, NULL);
        return r;
    }
    r = work_on(x, o, e);
    if (r == 0)
        give_answer(x);
    return r;
}

/* --- main --- */

/* Hotplug scripts and libxl's children must not hold the answer open. */
static int take_answer(void)
{
    int answer = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), null;

    null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (answer < 0 || null < 0)
        return -1;
    dup2(null, STDOUT_FILENO);
    close(null);
    return answer;
}

static int open_log(const struct options *o, struct err *e)
{
    char path[RUNDIR_LEN];
    int fd;

    folder_log_path(o->log_dir, o->uuid, path);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_sys(e, "log file %s", path);
    dup2(fd, STDERR_FILENO);
    close(fd);
    if (getenv("XEN_DEBUG") != NULL)
        log_set_level(LOG_LV_DEBUG);
    return log_open("xen-domain", NULL, e);
}

/* Who waits for the answer waits for this process, too; what goes on behind the answer is another.
 */
static int go_on_behind(const struct options *o)
{
    pid_t pid = o->background ? fork() : 0;

    if (pid > 0)
        _exit(0);
    return pid;
}

/* Without it Xen's own scripts do all of the work. */
static const char *hotplug_program(char path[PATHS_LEN])
{
    return paths_program(path, XEN_HOTPLUG, NULL) == 0 && access(path, X_OK) == 0 ? path : NULL;
}

int main(int argc, char **argv)
{
    struct options o = { .run_dir = NULL };
    char hotplug[PATHS_LEN];
    struct xl x = { .domid = (uint32_t)INVALID_DOMID, .exists = exists };
    struct sink sink = { .l = { .vmessage = on_message, .destroy = no_destroy }, .x = &x };
    struct err e;
    int r = -1;

    if (parse(argc, argv, &o) < 0) {
        fputs(usage, stderr);
        return 2;
    }
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    setenv("PATH", SCRIPT_PATH, 1);
    x.answer = take_answer();
    if (x.answer < 0 || go_on_behind(&o) < 0)
        return 1;
    x.run_dir = o.run_dir;
    x.hotplug = hotplug_program(hotplug);
    x.uuid = o.uuid;
    x.blown = o.blown;
    x.comes = o.verb->comes;
    x.epoch = o.epoch;
    x.kib = o.kib;
    x.vcpus = (unsigned)o.vcpus;
    x.log = &sink.l;
    snprintf(x.dir, sizeof x.dir, "%s/%s", o.run_dir, o.uuid);
    err_clear(&e);
    if (open_log(&o, &e) == 0 && open_libxl(&x, &e) == 0)
        r = work(&x, &o, &e);
    if (r < 0) {
        log_error("xen", "%s: %s", o.verb->name, e.text);
        if (x.answer >= 0)
            dprintf(x.answer, "%s %s\n", err_code_name(e.code), e.text);
    }
    libxl_ctx_free(x.ctx);
    return r == 0 ? 0 : 1;
}
