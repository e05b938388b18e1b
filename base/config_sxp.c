/* SPDX-License-Identifier: ISC */
/*
 * Import of xend-config.sxp, for an administrator who comes from xend. Relocation keys
 * whose meaning is ours too are taken over; every other entry of the file gets a line in
 * the notes, with what to use instead where there is something. As in xend the first of
 * several entries of one name counts.
 *
 * A key that is absent keeps migrd's default, which is stricter than xend's (xend
 * listened on all interfaces and admitted everybody); the notes say so, since the
 * administrator may have relied on it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_internal.h"
#include "base/io.h"
#include "base/sxp.h"

/* Their names are the same in migrd.conf. */
static const char *const taken[] = { "xend-relocation-server", "xend-relocation-port",
    "xend-relocation-address", "xend-relocation-hosts-allow" };
#define N_TAKEN (sizeof taken / sizeof taken[0])

static const char *const absent_means[N_TAKEN] = {
    "xend did not listen, migrd does (xend-relocation-server = no switches it off)",
    "port 8002, as xend",
    "xend listened on all interfaces, migrd on localhost (xend-relocation-address = \"\" is all)",
    "xend admitted everybody, migrd only this host itself (name the hosts in this key)",
};

struct hint {
    const char *name;
    const char *text;
};

static const struct hint hints[] = {
    { "xend-relocation-ssl",
        "TLS is always used unless relocation-tls = no; certificates come from `migctl pki`" },
    { "xend-relocation-ssl-server", "relocation-tls: TLS is on by default, on the same port" },
    { "xend-relocation-ssl-port",
        "not needed: xend-relocation-port serves TLS too (relocation-tls)" },
    { "xend-relocation-server-ssl-key-file",
        "relocation-tls-key; xend's key can be used if the cluster's authority signs its "
        "certificate" },
    { "xend-relocation-server-ssl-cert-file",
        "relocation-tls-cert; xend never verified certificates, migrd does" },
    { "xend-unix-server", "not needed: the control socket is always there (control-group)" },
    { "xend-unix-path", "not needed: the control socket is /run/migrd/control.sock" },
    { "xend-http-server", "status-address serves status pages, read-only" },
    { "xend-port", "status-address" },
    { "xend-address", "status-address" },
    { "logfile", "log-file" },
    { "loglevel", "log-level" },
    { "dom0-min-mem", "memory-reserve" },
    { "network-script", "not needed: bridges are the system's, a vif= names its bridge" },
    { "vif-script", "not needed: a vif= names its bridge" },
    { "external-migration-tool", "virtual TPMs are not migrated" },
    { "vncpasswd", "domains have no graphical console" },
    { "vnc-listen", "domains have no graphical console" },
};

static void note(FILE *notes, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(FILE *notes, const char *fmt, ...)
{
    va_list ap;

    if (notes == NULL)
        return;
    va_start(ap, fmt);
    vfprintf(notes, fmt, ap);
    va_end(ap);
}

static void note_left(FILE *notes, const char *file, const struct sxp *s, const char *name)
{
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (strcmp(hints[i].name, name) == 0) {
            note(notes, "%s:%u: %s is not taken over; here: %s\n", file, s->line, name,
                hints[i].text);
            return;
        }
    note(notes, "%s:%u: %.64s is not taken over: migrd has nothing like it\n", file, s->line, name);
}

/* A newline or tab in a string separates expressions no better than a blank would. */
static void blanks_for_whitespace(char *s)
{
    for (; *s != '\0'; s++)
        if (*s == '\n' || *s == '\t' || *s == '\r')
            *s = ' ';
}

static int take(struct config *c, const struct sxp *s, const char *value, const char *file,
    const char *name, FILE *notes, struct err *e)
{
    const struct sxp *arg = sxp_at(s, 1);
    char copy[CONFIG_VALUE_MAX];

    if (value == NULL)
        return err_set(e, ERR_INVALID, "%s:%u: (%s ...) must have one value", file, s->line, name);
    if (strlen(value) >= sizeof copy)
        return err_set(e, ERR_INVALID, "%s:%u: %s: the value has %zu bytes, at most %zu fit", file,
            s->line, name, strlen(value), sizeof copy - 1);
    strcpy(copy, value);
    blanks_for_whitespace(copy);
    if (config_set(c, name, copy, e) < 0)
        return err_prefix(e, "%s:%u", file, s->line);
    if (arg != NULL && arg->odd_escape)
        note(notes,
            "%s:%u: %s has a single backslash in a string; it was kept (xend dropped the "
            "character after it): check the result\n",
            file, arg->line, name);
    return 0;
}

static int import_entry(struct config *c, const struct sxp *s, const char *file, bool seen[N_TAKEN],
    FILE *notes, struct err *e)
{
    const char *name = NULL, *value = sxp_pair(s, &name);

    if (name == NULL) {
        note(notes, "%s:%u: not of the form (key value); left out\n", file, s->line);
        return 0;
    }
    for (size_t i = 0; i < N_TAKEN; i++) {
        if (strcmp(taken[i], name) != 0)
            continue;
        if (seen[i]) {
            note(notes, "%s:%u: %s again; the first one counts, as in xend\n", file, s->line, name);
            return 0;
        }
        seen[i] = true;
        return take(c, s, value, file, name, notes, e);
    }
    note_left(notes, file, s, name);
    return 0;
}

static int import_all(
    struct config *c, const struct sxp *top, const char *file, FILE *notes, struct err *e)
{
    bool seen[N_TAKEN] = { false };

    for (const struct sxp *s = top->first; s != NULL; s = s->next)
        if (import_entry(c, s, file, seen, notes, e) < 0)
            return -1;
    for (size_t i = 0; i < N_TAKEN; i++)
        if (!seen[i])
            note(notes, "%s: no %s: %s\n", file, taken[i], absent_means[i]);
    return config_check(c, e);
}

static struct sxp *read_sxp(const char *path, struct err *e)
{
    struct err failed;
    struct sxp *top;
    size_t len;
    char *text = io_read_file(path, SXP_TEXT_MAX, &len, &failed);

    if (text == NULL) {
        if (errno == ENOENT && failed.code == ERR_SYSTEM)
            failed.code = ERR_NOT_FOUND;
        err_set(e, failed.code, "%s", failed.text);
        return NULL;
    }
    top = sxp_parse(text, len, path, e);
    free(text);
    return top;
}

int config_import_sxp(struct config *c, const char *path, char **notes, struct err *e)
{
    struct sxp *top = read_sxp(path, e);
    struct config copy = *c;
    size_t len;
    FILE *f = NULL;
    int rc;

    if (notes != NULL)
        *notes = NULL;
    if (top == NULL)
        return -1;
    if (notes != NULL && (f = open_memstream(notes, &len)) == NULL) {
        sxp_free(&top);
        return err_set(e, ERR_MEMORY, "%s: no memory to read it", path);
    }
    rc = import_all(&copy, top, path, f, e);
    sxp_free(&top);
    if (f != NULL)
        fclose(f);
    if (rc == 0) {
        *c = copy;
    } else if (notes != NULL) {
        free(*notes);
        *notes = NULL;
    }
    return rc;
}
