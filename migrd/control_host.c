/* SPDX-License-Identifier: ISC */
/* Requests about the host: acl, journal, log, figures, reload. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "migrd/control_internal.h"
#include "migrd/daemon.h"
#include "migrd/facts_query.h"
#include "migrd/job.h"
#include "migrd/journal.h"
#include "migrd/registry.h"
#include "migrd/relocation.h"
#include "migrd/report.h"

#define LINES_MAX 2000
#define LOG_TAIL_BYTES (256u << 10)

void control_acl_test(struct client *c, const Migrd__Request *rq)
{
    char text[1024];
    struct err e;

    if (relocation_acl_test(c->m, rq->acl_test->who, text, sizeof text, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, text);
}

/* --- lines --- */

static void add_line(void *arg, uint64_t wall_ns, const char *text)
{
    Migrd__Reply *r = arg;
    Migrd__JournalLine *l, **list;

    if (r->n_lines >= LINES_MAX)
        return;
    l = malloc(sizeof *l);
    list = l != NULL ? realloc(r->lines, (r->n_lines + 1) * sizeof *list) : NULL;
    if (list == NULL) {
        free(l);
        return;
    }
    migrd__journal_line__init(l);
    l->wall_ns = wall_ns;
    l->text = strdup(text);
    if (l->text == NULL)
        l->text = (char *)(uintptr_t)protobuf_c_empty_string;
    r->lines = list;
    r->lines[r->n_lines++] = l;
}

static Migrd__Reply *new_reply(void)
{
    Migrd__Reply *r = malloc(sizeof *r);

    if (r != NULL)
        migrd__reply__init(r);
    return r;
}

void control_journal(struct client *c, const Migrd__Request *rq)
{
    const Migrd__ReadJournal *j = rq->journal;
    const struct domain *d = j->domain[0] != '\0' ? registry_find(c->m->registry, j->domain) : NULL;
    Migrd__Reply *r = new_reply();
    size_t n = j->last == 0 || j->last > LINES_MAX ? LINES_MAX : j->last;

    if (r != NULL)
        journal_tail(c->m->journal, n, d != NULL ? d->uuid : j->domain, add_line, r);
    control_send_own(c, rq->serial, r);
}

/* The end of the log file; a regular file, bounded. */
static char *log_tail(const char *path, struct err *e)
{
    struct stat st;
    off_t from;
    ssize_t n;
    char *text = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        err_sys(e, "%s", path);
    } else if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_UNSUPPORTED, "%s is not a file", path);
    } else if ((text = malloc(LOG_TAIL_BYTES + 1)) == NULL) {
        err_set(e, ERR_MEMORY, "out of memory");
    } else {
        from = st.st_size > (off_t)LOG_TAIL_BYTES ? st.st_size - (off_t)LOG_TAIL_BYTES : 0;
        n = pread(fd, text, LOG_TAIL_BYTES, from);
        text[n > 0 ? n : 0] = '\0';
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static void add_last_lines(Migrd__Reply *r, char *text, size_t want)
{
    size_t n = 0;
    char *p = text + strlen(text), *save = NULL;

    if (p > text && p[-1] == '\n')
        *--p = '\0';
    while (p > text && n < want)
        if (*--p == '\n')
            n++;
    if (n == want)
        p++;
    for (char *line = strtok_r(p, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save))
        add_line(r, 0, line);
}

void control_log(struct client *c, const Migrd__Request *rq)
{
    size_t want = rq->log->last == 0 || rq->log->last > LINES_MAX ? LINES_MAX : rq->log->last;
    Migrd__Reply *r;
    struct err e;
    char *text;

    if (c->m->config.log_file[0] == '\0') {
        control_fail(c, rq->serial,
            &(struct err){ ERR_NOT_FOUND,
                "migrd logs to its standard error, not to a file: try journalctl -u migrd, or set "
                "log-file in migrd.conf" });
        return;
    }
    text = log_tail(c->m->config.log_file, &e);
    if (text == NULL) {
        control_fail(c, rq->serial, &e);
        return;
    }
    r = new_reply();
    if (r != NULL)
        add_last_lines(r, text, want);
    free(text);
    control_send_own(c, rq->serial, r);
}

/* --- the hypervisor's log --- */

struct dmesg {
    struct job job; /* first */
    struct request *r;
    const struct hv_ops *ops;
    struct hv *hv;
    bool clear;
    char *text;
};

static void read_dmesg(struct job *j)
{
    struct dmesg *d = (struct dmesg *)j;

    j->result = d->ops->dmesg(d->hv, d->clear, &d->text, &j->err);
}

static void dmesg_came(struct job *j)
{
    struct dmesg *d = (struct dmesg *)j;

    if (j->result == 0)
        control_ok(d->r->c, d->r->serial, d->text);
    else
        control_fail(d->r->c, d->r->serial, &j->err);
    request_end(d->r);
    free(d->text);
    free(d);
}

void control_dmesg(struct client *c, const Migrd__Request *rq)
{
    struct dmesg *d;

    if (c->m->hv_ops->dmesg == NULL) {
        control_fail(c, rq->serial,
            &(struct err){ ERR_UNSUPPORTED,
                "this host's hypervisor is Linux itself, whose kernel log has it: dmesg" });
        return;
    }
    d = calloc(1, sizeof *d);
    if (d == NULL || (d->r = request_new(c, rq)) == NULL) {
        free(d);
        control_fail(c, rq->serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
        return;
    }
    if (rq->dmesg->clear)
        control_audit(c, "dmesg", "clear");
    d->job.work = read_dmesg;
    d->job.done = dmesg_came;
    d->ops = c->m->hv_ops;
    d->hv = c->m->hv;
    d->clear = rq->dmesg->clear;
    job_run(c->m->loop, &d->job);
}

void control_host(struct client *c, const Migrd__Request *rq)
{
    control_send_own(c, rq->serial, report_host(c->m));
}

static void facts_came(void *arg, const Migrd__HostFacts *f, const struct err *e)
{
    struct request *r = arg;
    Migrd__Reply reply = MIGRD__REPLY__INIT;

    reply.facts = (Migrd__HostFacts *)(uintptr_t)f;
    if (f != NULL)
        control_send(r->c, r->serial, &reply, true);
    else
        control_fail(r->c, r->serial, e);
    request_end(r);
}

void control_facts(struct client *c, const Migrd__Request *rq)
{
    struct request *r = request_new(c, rq);
    struct err e;

    if (r == NULL)
        return;
    if (facts_of(c->m, rq->get_facts, facts_came, r, &e) == 0)
        return;
    control_fail(c, rq->serial, &e);
    request_end(r);
}

void control_reload(struct client *c, const Migrd__Request *rq)
{
    char text[2000] = "";
    struct err e;

    control_audit(c, "reload", "the configuration");
    if (daemon_reload(c->m, text, sizeof text, &e) < 0)
        control_fail(c, rq->serial, &e);
    else
        control_ok(c, rq->serial, text);
}
