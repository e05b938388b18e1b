/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "base/paths.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* sun_path has 108 bytes; the longest socket is ROOT/run/migrd/xvm/<36>/control. */
#define ROOT_MAX 48

static void join(char out[PATHS_LEN], const char *root, const char *rest)
{
    snprintf(out, PATHS_LEN, "%.*s%s", ROOT_MAX, root, rest);
}

static int absolute_root(char out[PATHS_LEN], const char *root, struct err *e)
{
    char cwd[PATH_MAX], full[PATH_MAX * 2];
    size_t n;

    if (root[0] == '/') {
        snprintf(full, sizeof full, "%s", root);
    } else {
        if (getcwd(cwd, sizeof cwd) == NULL)
            return err_sys(e, "root %s", root);
        snprintf(full, sizeof full, "%s/%s", cwd, root);
    }
    n = strlen(full);
    while (n > 0 && full[n - 1] == '/')
        full[--n] = '\0';
    if (n > ROOT_MAX)
        return err_set(e, ERR_INVALID,
            "root %s: more than %d characters; sockets below it would "
            "not fit their 108",
            full, ROOT_MAX);
    memcpy(out, full, n + 1);
    return 0;
}

void paths_hypervisor(struct paths *p, const char *name)
{
    char folder[64];

    snprintf(folder, sizeof folder, "/run/migrd/%.32s", name);
    join(p->hv, p->root, folder);
}

int paths_init(struct paths *p, const char *root, struct err *e)
{
    memset(p, 0, sizeof *p);
    if (root != NULL && root[0] != '\0' && absolute_root(p->root, root, e) < 0)
        return -1;
    join(p->etc, p->root, "/etc/migrd");
    join(p->config, p->root, "/etc/migrd/migrd.conf");
    join(p->pki, p->root, "/etc/migrd/pki");
    join(p->run, p->root, "/run/migrd");
    join(p->control, p->root, "/run/migrd/control.sock");
    join(p->status, p->root, "/run/migrd/status.sock");
    paths_hypervisor(p, "xvm");
    join(p->state, p->root, "/var/lib/migrd");
    join(p->domains, p->root, "/var/lib/migrd/domains");
    join(p->journal, p->root, "/var/lib/migrd/journal");
    join(p->log, p->root, "/var/log/migrd");
    return 0;
}

int paths_program(char out[PATHS_LEN], const char *name, struct err *e)
{
    static const char *const beside[] = { "", "../libexec/migrd/" };
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash;

    if (n < 0)
        return err_sys(e, "/proc/self/exe");
    self[n] = '\0';
    slash = strrchr(self, '/');
    slash[1] = '\0';
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
        if ((size_t)snprintf(out, PATHS_LEN, "%s%s%s", self, beside[i], name) < PATHS_LEN &&
            access(out, X_OK) == 0)
            return 0;
    }
    return err_set(e, ERR_NOT_FOUND,
        "program %s: not beside %s nor in its ../libexec/migrd; "
        "install migrd completely",
        name, self);
}
