/* SPDX-License-Identifier: ISC */
/*
 * The reader of fence.conf, an INI file (fence_conf.h has its keys). Levels are resolved when all
 * is read, so that a device may stand behind the nodes that use it. The first error counts, with
 * its line where inih tells it. Lines are those of inih: at most 199 bytes.
 */
#define _GNU_SOURCE
#include "cluster/fence_conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

#define LINE_MAX_LEN 199u /* inih cuts longer ones, silently */
#define TIMEOUT_S 20u
#define CONFIRM_S 10u
#define SECONDS_MAX 300u
#define PASSWORD_MAX 256u
#define LEVEL_TEXT 200u

struct reader {
    struct fence_conf *c;
    bool files, failed;
    struct err *e;
    char levels[FENCE_NODES][FENCE_LEVELS][LEVEL_TEXT];
};

static int wrong(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int wrong(struct reader *r, const char *fmt, ...)
{
    char text[300];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!r->failed)
        err_set(r->e, ERR_INVALID, "%s", text);
    r->failed = true;
    return 0;
}

static bool is_name(const char *s)
{
    size_t n = strlen(s);

    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && strchr("._-+", s[i]) == NULL)
            return false;
    return n > 0 && n < FENCE_NAME;
}

/* One line of what the agent reads: nothing that ends a line, or is none of ASCII. */
static bool is_line(const char *s)
{
    for (; *s != '\0'; s++)
        if (*s < ' ' || *s > '~')
            return false;
    return true;
}

static struct fence_device *device_of(struct reader *r, const char *name)
{
    struct fence_conf *c = r->c;
    struct fence_device *d;

    for (unsigned i = 0; i < c->n_devices; i++)
        if (strcmp(c->device[i].name, name) == 0)
            return &c->device[i];
    if (!is_name(name) || c->n_devices == FENCE_DEVICES) {
        wrong(r,
            "device %.80s: names have letters, digits and ._-+, at most %u of them; at most %u "
            "devices",
            name, FENCE_NAME - 1, FENCE_DEVICES);
        return NULL;
    }
    d = &c->device[c->n_devices++];
    *d = (struct fence_device){ .timeout_s = TIMEOUT_S, .confirm_s = CONFIRM_S };
    snprintf(d->name, sizeof d->name, "%s", name);
    return d;
}

static struct fence_target *target_of(struct reader *r, const char *name)
{
    struct fence_conf *c = r->c;
    struct fence_target *t = (struct fence_target *)fence_conf_target(c, name);

    if (t != NULL)
        return t;
    if (!is_name(name) || c->n_targets == FENCE_NODES) {
        wrong(r,
            "node %.80s: names have letters, digits and ._-+, at most %u of them; at most %u "
            "nodes",
            name, FENCE_NAME - 1, FENCE_NODES);
        return NULL;
    }
    t = &c->target[c->n_targets++];
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

static int seconds(struct reader *r, const char *key, const char *value, unsigned *out)
{
    char *end;
    unsigned long n = strtoul(value, &end, 10);

    if (!isdigit((unsigned char)value[0]) || *end != '\0' || n == 0 || n > SECONDS_MAX)
        return wrong(r, "%s = %.40s: seconds, 1 to %u", key, value, SECONDS_MAX);
    *out = (unsigned)n;
    return 1;
}

static int add_option(struct reader *r, struct fence_device *d, const char *key, const char *value)
{
    size_t used = strlen(d->input), need = strlen(key) + strlen(value) + 2;

    if (!is_name(key) || !is_line(value))
        return wrong(r, "device %s: option.%.60s: printable ASCII only", d->name, key);
    if (strcmp(key, "action") == 0)
        return wrong(r, "device %s: option.action: migrd gives that itself", d->name);
    if (used + need >= sizeof d->input)
        return wrong(r, "device %s: more than %u bytes of options", d->name, FENCE_INPUT);
    snprintf(d->input + used, sizeof d->input - used, "%s=%s\n", key, value);
    return 1;
}

static int open_secret(struct reader *r, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0) {
        wrong(r, "password-file %.200s: %s", path, strerror(errno));
        return -1;
    }
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) == 0)
        return fd;
    close(fd);
    wrong(r, "password-file %.200s: must be a file of mode 0600", path);
    return -1;
}

static int add_password(struct reader *r, struct fence_device *d, const char *path)
{
    char text[PASSWORD_MAX];
    ssize_t n;
    int fd, ok;

    if (path[0] != '/')
        return wrong(r, "device %s: password-file must be an absolute path", d->name);
    if (!r->files)
        return 1;
    fd = open_secret(r, path);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return wrong(r, "password-file %.200s: has nothing in it", path);
    text[n] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    ok = add_option(r, d, "password", text);
    explicit_bzero(text, sizeof text);
    return ok;
}

static int set_agent(struct reader *r, struct fence_device *d, const char *value)
{
    if (value[0] != '/' && !is_name(value))
        return wrong(r, "device %s: agent = %.80s: a name, or an absolute path", d->name, value);
    if ((size_t)snprintf(d->agent, sizeof d->agent, "%s%s", value[0] == '/' ? "" : FENCE_AGENTS "/",
            value) >= sizeof d->agent)
        return wrong(r, "device %s: agent: too long", d->name);
    return 1;
}

static int device_key(struct reader *r, const char *name, const char *key, const char *value)
{
    struct fence_device *d = device_of(r, name);

    if (d == NULL)
        return 0;
    if (strcmp(key, "agent") == 0)
        return set_agent(r, d, value);
    if (strncmp(key, "option.", 7) == 0)
        return add_option(r, d, key + 7, value);
    if (strcmp(key, "password-file") == 0)
        return add_password(r, d, value);
    if (strcmp(key, "timeout") == 0)
        return seconds(r, key, value, &d->timeout_s);
    if (strcmp(key, "confirm") == 0)
        return seconds(r, key, value, &d->confirm_s);
    return wrong(r,
        "device %s: %.60s: not known; there are agent, option.NAME, password-file, timeout, "
        "confirm",
        d->name, key);
}

static int node_key(struct reader *r, const char *name, const char *key, const char *value)
{
    struct fence_target *t = target_of(r, name);
    char *text;

    if (t == NULL)
        return 0;
    if (strncmp(key, "level", 5) != 0 || key[5] < '1' || key[5] > '0' + (int)FENCE_LEVELS ||
        key[6] != '\0')
        return wrong(r, "node %s: %.60s: not known; there are level1 to level%u", t->name, key,
            FENCE_LEVELS);
    text = r->levels[t - r->c->target][key[5] - '1'];
    if (text[0] != '\0')
        return wrong(r, "node %s: %s twice", t->name, key);
    snprintf(text, LEVEL_TEXT, "%s", value);
    return 1;
}

static int on_key(void *arg, const char *section, const char *key, const char *value)
{
    struct reader *r = arg;

    if (r->failed)
        return 0;
    if (strncmp(section, "device ", 7) == 0)
        return device_key(r, section + 7, key, value);
    if (strncmp(section, "node ", 5) == 0)
        return node_key(r, section + 5, key, value);
    return wrong(r, "[%.60s]: not known; there are [device NAME] and [node NAME]", section);
}

/* ---- afterwards ---- */

static int resolve_use(
    struct reader *r, const struct fence_target *t, char *word, struct fence_use *out)
{
    char *plug = strchr(word, ':');

    if (plug != NULL)
        *plug++ = '\0';
    if (plug != NULL && !is_name(plug))
        return wrong(r, "node %s: %.60s:%.60s: not a plug", t->name, word, plug);
    snprintf(out->plug, sizeof out->plug, "%s", plug != NULL ? plug : "");
    for (unsigned i = 0; i < r->c->n_devices; i++)
        if (strcmp(r->c->device[i].name, word) == 0) {
            out->device = i;
            return 1;
        }
    return wrong(r, "node %s: there is no [device %.60s]", t->name, word);
}

static int resolve_level(struct reader *r, unsigned target, unsigned level)
{
    struct fence_target *t = &r->c->target[target];
    char *rest, *word = strtok_r(r->levels[target][level], " \t", &rest);

    for (; word != NULL; word = strtok_r(NULL, " \t", &rest)) {
        if (t->level[level].n == FENCE_AT_ONCE)
            return wrong(
                r, "node %s: level%u has more than %u devices", t->name, level + 1, FENCE_AT_ONCE);
        if (!resolve_use(r, t, word, &t->level[level].use[t->level[level].n]))
            return 0;
        t->level[level].n++;
    }
    return 1;
}

static void resolve(struct reader *r)
{
    struct fence_conf *c = r->c;

    for (unsigned i = 0; i < c->n_devices && !r->failed; i++)
        if (c->device[i].agent[0] == '\0')
            wrong(r, "device %s: has no agent", c->device[i].name);
    for (unsigned i = 0; i < c->n_targets && !r->failed; i++) {
        unsigned devices = 0;

        for (unsigned level = 0; level < FENCE_LEVELS && !r->failed; level++) {
            resolve_level(r, i, level);
            devices += c->target[i].level[level].n;
        }
        if (devices == 0)
            wrong(r, "node %s: has no device: level1 = DEVICE", c->target[i].name);
    }
}

/* inih would cut them: half an option is another one. */
static unsigned long_line(const char *text)
{
    for (unsigned line = 1;; line++) {
        size_t n = strcspn(text, "\n");

        if (n > LINE_MAX_LEN - 1)
            return line;
        if (text[n] == '\0')
            return 0;
        text += n + 1;
    }
}

static int parse(struct reader *r, const char *text, size_t len, const char *name)
{
    int line;

    if (len > FENCE_FILE_MAX || memchr(text, '\0', len) != NULL)
        return err_set(
            r->e, ERR_INVALID, "%s: more than %u bytes, or not a text", name, FENCE_FILE_MAX);
    line = (int)long_line(text);
    if (line != 0)
        return err_set(
            r->e, ERR_INVALID, "%s:%d: longer than %u bytes", name, line, LINE_MAX_LEN - 1);
    line = ini_parse_string(text, on_key, r);
    if (line == 0)
        resolve(r);
    if (line != 0 && !r->failed)
        return err_set(r->e, ERR_INVALID,
            "%s:%d: neither [device NAME], [node NAME] nor key = value", name, line);
    if (!r->failed)
        return 0;
    return line > 0 ? err_prefix(r->e, "%s:%d", name, line) : err_prefix(r->e, "%s", name);
}

struct fence_conf *fence_conf_parse(
    const char *text, size_t len, const char *name, bool files, struct err *e)
{
    struct reader *r = calloc(1, sizeof *r);
    struct fence_conf *c = calloc(1, sizeof *c);
    int rc = -1;

    if (r != NULL && c != NULL) {
        r->c = c;
        r->files = files;
        r->e = e;
        rc = parse(r, text, len, name);
    } else {
        err_set(e, ERR_MEMORY, "%s: out of memory", name);
    }
    free(r);
    if (rc == 0)
        return c;
    free(c);
    return NULL;
}

struct fence_conf *fence_conf_read(const char *path, struct err *e)
{
    struct fence_conf *c;
    size_t len;
    char *text = io_read_file(path, FENCE_FILE_MAX, &len, e);

    if (text == NULL)
        return NULL;
    c = fence_conf_parse(text, len, path, true, e);
    free(text);
    return c;
}

const struct fence_target *fence_conf_target(const struct fence_conf *c, const char *node)
{
    for (unsigned i = 0; i < c->n_targets; i++)
        if (strcmp(c->target[i].name, node) == 0)
            return &c->target[i];
    return NULL;
}
