/* SPDX-License-Identifier: ISC */
/*
 * A line:
 *
 *   <xxh64 of the rest, 16 hex digits> <seq> <wall ns> <kind> key=value key=value...\n
 *
 * Values are percent-encoded (blank, '%', and everything outside printable ASCII); absent
 * keys are empty or zero. A line counts only with its '\n' and a right checksum. The last
 * line may be torn (the host died while it was written): it was never acknowledged, so
 * it is cut off. A bad line before the end is damage: the file is kept aside as
 * journal.damaged, the domains that the line names get a DOUBT record, and migrd does
 * not start them until an operator has decided.
 *
 * A failed append cuts the file back to where it was. If even that fails the journal is
 * closed to further steps: better no hand-over than one that nobody can replay.
 *
 * The file is rewritten with the live records only: at open, and later when it has grown to
 * twice what was live the last time (with a floor) and no paused guest waits for the append:
 *
 *   read and check all of it -> write PATH.tmp -> fsync -> rename over PATH -> append to the new
 *   file from here on -> fsync of the folder
 *
 * Whatever fails before the rename leaves the old file in use. Once it is renamed, nothing may
 * count as written before the folder is on the disk as well, for else the old file could
 * come back: as long as its fsync fails, so do synchronous appends (folder_dirty).
 */
#include "migrd/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"

#define JOURNAL_MAX_BYTES (256u << 20)
#define HASH_LEN 16
#define GROWN_MIN (256 << 10)

struct shown {
    uint64_t wall_ns;
    char uuid[HV_UUID_LEN];
    char *text;
};

struct records {
    struct journal_record *r;
    size_t n, cap;
};

struct journal {
    char path[512];
    int fd;
    bool broken;       /* an append could be neither finished nor undone */
    bool folder_dirty; /* the file was replaced, and that may not be on the disk yet */
    off_t size, compact_at;
    uint64_t seq;
    struct records live;  /* as replayed at open, not changed later */
    pthread_mutex_t lock; /* the file and the above; held while the disk works */

    struct shown shown[JOURNAL_SHOWN];
    size_t n_shown; /* ever */
    uint64_t appends, slowest_ns;
    pthread_mutex_t look; /* what readers in migrd's loop see; never held for long */
};

static const char *const kind_names[JK_MAX] = { "domain", "out", "in", "doubt", "note" };

/* --- one line --- */

static void put_text(char **p, char *end, const char *key, const char *value)
{
    static const char hex[] = "0123456789abcdef";
    char *at = *p;

    if (value[0] == '\0')
        return;
    at += snprintf(at, (size_t)(end - at), " %s=", key);
    for (; *value != '\0' && end - at > 4; value++) {
        unsigned char c = (unsigned char)*value;

        if (c > ' ' && c < 0x7f && c != '%') {
            *at++ = (char)c;
        } else {
            *at++ = '%';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        }
    }
    *at = '\0';
    *p = at;
}

static void put_number(char **p, char *end, const char *key, uint64_t value)
{
    if (value != 0)
        *p += snprintf(*p, (size_t)(end - *p), " %s=%" PRIu64, key, value);
}

size_t journal_format(char *out, const struct journal_record *r)
{
    char *body = out + HASH_LEN + 1, *p = body, *end = out + JOURNAL_LINE_MAX - 2;

    p += snprintf(p, (size_t)(end - p), "%" PRIu64 " %" PRIu64 " %s", r->seq, r->wall_ns,
        kind_names[r->kind]);
    if (r->kind == JK_OUT || r->kind == JK_IN)
        put_text(&p, end, "step", mt_step_name(r->step));
    put_text(&p, end, "uuid", r->uuid);
    put_text(&p, end, "mig", r->migration);
    put_text(&p, end, "name", r->name);
    put_number(&p, end, "epoch", r->epoch);
    put_text(&p, end, "peer", r->peer);
    put_number(&p, end, "port", r->port);
    put_text(&p, end, "cert", r->cert);
    put_number(&p, end, "domid", (uint64_t)(r->domid > 0 ? r->domid : 0));
    put_number(&p, end, "flags", r->flags);
    put_text(&p, end, "text", r->text);
    {
        char hash[HASH_LEN + 1];

        snprintf(hash, sizeof hash, "%016" PRIx64, (uint64_t)XXH64(body, (size_t)(p - body), 0));
        memcpy(out, hash, HASH_LEN);
    }
    out[HASH_LEN] = ' ';
    *p++ = '\n';
    *p = '\0';
    return (size_t)(p - out);
}

static int unhex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False: bad encoding or too long for its field. */
static bool get_text(const char *value, size_t len, char *out, size_t out_len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)value[i];

        if (c == '%') {
            if (i + 2 >= len || unhex(value[i + 1]) < 0 || unhex(value[i + 2]) < 0)
                return false;
            c = unhex(value[i + 1]) << 4 | unhex(value[i + 2]);
            i += 2;
        }
        if (n + 1 >= out_len)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static bool get_number(const char *value, size_t len, uint64_t *out)
{
    *out = 0;
    if (len == 0 || len > 20)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned)(value[i] - '0');

        if (digit > 9 || *out > (UINT64_MAX - digit) / 10)
            return false;
        *out = *out * 10 + digit;
    }
    return true;
}

static bool put_pair(struct journal_record *r, const char *key, const char *v, size_t len)
{
    const struct {
        const char *key;
        char *text;
        size_t size;
    } texts[] = { { "uuid", r->uuid, sizeof r->uuid }, { "mig", r->migration, sizeof r->migration },
        { "name", r->name, sizeof r->name }, { "peer", r->peer, sizeof r->peer },
        { "cert", r->cert, sizeof r->cert }, { "text", r->text, sizeof r->text } };
    char word[16];
    uint64_t n;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(key, texts[i].key) == 0)
            return get_text(v, len, texts[i].text, texts[i].size);
    if (strcmp(key, "step") == 0) {
        int step = get_text(v, len, word, sizeof word) ? mt_step_parse(word) : -1;

        r->step = (enum mt_step)step;
        return step >= 0;
    }
    if (!get_number(v, len, &n))
        return false;
    if (strcmp(key, "epoch") == 0)
        r->epoch = n;
    else if (strcmp(key, "port") == 0)
        r->port = (unsigned)n;
    else if (strcmp(key, "domid") == 0)
        r->domid = (int)n;
    else if (strcmp(key, "flags") == 0)
        r->flags = (unsigned)n;
    else
        return false;
    return true;
}

static int kind_parse(const char *word, size_t len)
{
    for (int i = 0; i < JK_MAX; i++)
        if (strlen(kind_names[i]) == len && memcmp(kind_names[i], word, len) == 0)
            return i;
    return -1;
}

/* The next blank-separated word of [*p, end). */
static const char *next_word(const char **p, const char *end, size_t *len)
{
    const char *start = *p, *stop = memchr(start, ' ', (size_t)(end - start));

    if (stop == NULL)
        stop = end;
    *len = (size_t)(stop - start);
    *p = stop < end ? stop + 1 : end;
    return start;
}

static bool parse_body(const char *p, const char *end, struct journal_record *r)
{
    const char *word;
    size_t len;
    int kind;

    word = next_word(&p, end, &len);
    if (!get_number(word, len, &r->seq))
        return false;
    word = next_word(&p, end, &len);
    if (!get_number(word, len, &r->wall_ns))
        return false;
    word = next_word(&p, end, &len);
    kind = kind_parse(word, len);
    if (kind < 0)
        return false;
    r->kind = (enum journal_kind)kind;
    while (p < end) {
        char key[16];
        const char *eq;

        word = next_word(&p, end, &len);
        eq = memchr(word, '=', len);
        if (eq == NULL || (size_t)(eq - word) >= sizeof key)
            return false;
        memcpy(key, word, (size_t)(eq - word));
        key[eq - word] = '\0';
        if (!put_pair(r, key, eq + 1, len - (size_t)(eq + 1 - word)))
            return false;
    }
    return true;
}

int journal_parse(const char *line, size_t len, struct journal_record *r, struct err *e)
{
    char hash[HASH_LEN + 1];

    memset(r, 0, sizeof *r);
    if (len <= HASH_LEN + 1 || len > JOURNAL_LINE_MAX || line[HASH_LEN] != ' ')
        return err_set(e, ERR_INTEGRITY, "not a record");
    snprintf(hash, sizeof hash, "%016" PRIx64,
        (uint64_t)XXH64(line + HASH_LEN + 1, len - HASH_LEN - 1, 0));
    if (memcmp(hash, line, HASH_LEN) != 0)
        return err_set(e, ERR_INTEGRITY, "checksum differs");
    if (!parse_body(line + HASH_LEN + 1, line + len, r))
        return err_set(e, ERR_INTEGRITY, "unknown record; was it written by a newer migrd?");
    return 0;
}

/* --- lines for people --- */

static void show(struct journal *j, const struct journal_record *r)
{
    struct shown *s = &j->shown[j->n_shown % JOURNAL_SHOWN];
    char line[JOURNAL_LINE_MAX];
    const char *body;

    journal_format(line, r);
    line[strcspn(line, "\n")] = '\0';
    body = strchr(line + HASH_LEN + 1, ' '); /* past seq */
    body = body != NULL ? strchr(body + 1, ' ') : NULL;
    free(s->text);
    s->wall_ns = r->wall_ns;
    snprintf(s->uuid, sizeof s->uuid, "%s", r->uuid);
    s->text = strdup(body != NULL ? body + 1 : line);
    j->n_shown++;
}

/* --- open: read, judge, rewrite --- */

static int keep_record(struct records *l, const struct journal_record *r, struct err *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct journal_record *p = realloc(l->r, cap * sizeof *p);

        if (p == NULL)
            return err_set(e, ERR_MEMORY, "journal: out of memory");
        l->r = p;
        l->cap = cap;
    }
    l->r[l->n++] = *r;
    return 0;
}

static bool same_subject(const struct journal_record *a, const struct journal_record *b)
{
    if (a->kind == JK_OUT || a->kind == JK_IN)
        return a->kind == b->kind && strcmp(a->migration, b->migration) == 0;
    /* The newest epoch owns a domain, in whatever order they were written. */
    if (a->kind == JK_DOMAIN)
        return b->kind == JK_DOMAIN && a->epoch <= b->epoch && strcmp(a->uuid, b->uuid) == 0;
    /* A doubt ends with the domain's next owner. */
    if (a->kind == JK_DOUBT)
        return (b->kind == JK_DOMAIN || b->kind == JK_DOUBT) && strcmp(a->uuid, b->uuid) == 0;
    return false;
}

static uint64_t subject_hash(const struct journal_record *r)
{
    const char *id = r->kind == JK_OUT || r->kind == JK_IN ? r->migration : r->uuid;
    /* Doubts share the bucket of their domain. */
    unsigned kind = r->kind == JK_DOUBT ? JK_DOMAIN : (unsigned)r->kind;

    return XXH64(id, strlen(id), kind);
}

/* Marks what a later record supersedes. `slot` is an open-addressed table of record numbers. */
static void mark_superseded(const struct records *l, bool *dead, size_t *slot, size_t mask)
{
    for (size_t i = l->n; i-- > 0;) {
        const struct journal_record *r = &l->r[i];
        bool placed = false;

        if (r->kind == JK_NOTE) {
            dead[i] = true;
            continue;
        }
        for (size_t h = subject_hash(r) & mask; !placed; h = (h + 1) & mask) {
            if (slot[h] == SIZE_MAX) {
                slot[h] = i;
                placed = true;
            } else if (same_subject(r, &l->r[slot[h]])) {
                dead[i] = true;
                placed = true;
            }
        }
    }
}

static bool out_is_over(const struct journal_record *r)
{
    return r->kind == JK_OUT && (r->step == STEP_ABORTED || r->step == STEP_CLOSED);
}

static bool in_is_over(const struct journal_record *r)
{
    return r->kind == JK_IN && (r->step == STEP_DISCARDED || r->step == STEP_CLOSED);
}

static void mark_over(const struct records *l, bool *dead)
{
    size_t incoming = 0;

    for (size_t i = l->n; i-- > 0;) {
        if (out_is_over(&l->r[i]))
            dead[i] = true;
        if (!dead[i] && in_is_over(&l->r[i]) && ++incoming > JOURNAL_INCOMING_KEPT)
            dead[i] = true;
    }
}

/* Leaves the live records in `l`, in order. */
static int compact(struct records *l, struct err *e)
{
    size_t mask = 63, n = 0;
    bool *dead;
    size_t *slot;

    while (mask < l->n * 2)
        mask = mask * 2 + 1;
    dead = calloc(l->n + 1, sizeof *dead);
    slot = malloc((mask + 1) * sizeof *slot);
    if (dead == NULL || slot == NULL) {
        free(dead);
        free(slot);
        return err_set(e, ERR_MEMORY, "journal: out of memory");
    }
    memset(slot, 0xff, (mask + 1) * sizeof *slot);
    mark_superseded(l, dead, slot, mask);
    mark_over(l, dead);
    for (size_t i = 0; i < l->n; i++)
        if (!dead[i])
            l->r[n++] = l->r[i];
    l->n = n;
    free(dead);
    free(slot);
    return 0;
}

/* Whom a damaged line spoke of, as far as can be read. */
static void doubt_of(const char *line, size_t len, struct journal_record *r)
{
    *r = (struct journal_record){ .kind = JK_DOUBT, .wall_ns = clock_wall_ns() };
    strcpy(r->uuid, "*");
    for (size_t i = 0; i + 6 + 36 <= len; i++) {
        if (memcmp(line + i, " uuid=", 6) != 0)
            continue;
        for (size_t k = 0; k < 36; k++)
            if (unhex(line[i + 6 + k]) < 0 && line[i + 6 + k] != '-')
                return;
        memcpy(r->uuid, line + i + 6, 36);
        r->uuid[36] = '\0';
        return;
    }
}

/* Takes one line that ends in '\n'. */
static int take_line(
    struct journal *j, const char *line, size_t len, size_t number, size_t *doubts, struct err *e)
{
    struct journal_record r;
    struct err why;

    if (journal_parse(line, len, &r, &why) == 0) {
        j->seq = r.seq > j->seq ? r.seq : j->seq;
        show(j, &r);
        return keep_record(&j->live, &r, e);
    }
    doubt_of(line, len, &r);
    log_error("journal",
        "%s line %zu is damaged (%s): %s is in doubt and will not be started; "
        "look where it runs, then use migctl resolve",
        j->path, number, why.text,
        r.uuid[0] == '*' ? "every domain that does not run here" : r.uuid);
    ++*doubts;
    r.seq = ++j->seq;
    return keep_record(&j->live, &r, e);
}

static int take_text(struct journal *j, const char *text, size_t len, size_t *doubts, struct err *e)
{
    size_t number = 1;

    for (size_t at = 0; at < len; number++) {
        const char *nl = memchr(text + at, '\n', len - at);

        if (nl == NULL) {
            log_warn("journal",
                "%s: the last line was torn (%zu bytes, never acknowledged): cut off", j->path,
                len - at);
            break;
        }
        if (take_line(j, text + at, (size_t)(nl - text) - at, number, doubts, e) < 0)
            return -1;
        at = (size_t)(nl - text) + 1;
    }
    return 0;
}

static int set_aside(struct journal *j, const char *text, size_t len, struct err *e)
{
    char aside[600];

    snprintf(aside, sizeof aside, "%s.damaged.%" PRIu64, j->path, clock_wall_ns() / NS_PER_S);
    if (io_replace_file(aside, text, len, 0600, e) < 0)
        return err_prefix(e, "journal is damaged and cannot be kept aside");
    log_error("journal", "the damaged journal is kept as %s", aside);
    return 0;
}

/* The file's text from now on; the caller frees. */
static char *text_of(const struct records *l, size_t *len, struct err *e)
{
    char *text = malloc(l->n * JOURNAL_LINE_MAX + 1);

    *len = 0;
    if (text == NULL) {
        err_set(e, ERR_MEMORY, "journal: out of memory");
        return NULL;
    }
    for (size_t i = 0; i < l->n; i++)
        *len += journal_format(text + *len, &l->r[i]);
    return text;
}

static void has_size(struct journal *j, size_t len)
{
    j->size = (off_t)len;
    j->compact_at = j->size * 2 > GROWN_MIN ? j->size * 2 : GROWN_MIN;
}

static int rewrite(struct journal *j, struct err *e)
{
    size_t len;
    char *text = text_of(&j->live, &len, e);
    int r;

    if (text == NULL)
        return -1;
    r = io_replace_file(j->path, text, len, 0600, e);
    free(text);
    has_size(j, len);
    return r;
}

static int load(struct journal *j, size_t *doubts, struct err *e)
{
    size_t len = 0;
    char *text;
    int r = 0;

    if (access(j->path, F_OK) < 0)
        return errno == ENOENT ? rewrite(j, e) : err_sys(e, "%s", j->path);
    text = io_read_file(j->path, JOURNAL_MAX_BYTES, &len, e);
    if (text == NULL)
        return -1;
    r = take_text(j, text, len, doubts, e);
    if (r == 0 && *doubts > 0)
        r = set_aside(j, text, len, e);
    if (r == 0)
        r = compact(&j->live, e);
    if (r == 0)
        r = rewrite(j, e);
    free(text);
    return r;
}

int journal_open(const char *path, struct journal **out, size_t *n_doubts, struct err *e)
{
    struct journal *j = calloc(1, sizeof *j);

    *n_doubts = 0;
    if (j == NULL)
        return err_set(e, ERR_MEMORY, "journal %s: out of memory", path);
    j->fd = -1;
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->look, NULL);
    snprintf(j->path, sizeof j->path, "%s", path);
    if (load(j, n_doubts, e) < 0)
        goto fail;
    j->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (j->fd < 0) {
        err_sys(e, "journal %s", path);
        goto fail;
    }
    *out = j;
    return 0;
fail:
    journal_close(&j);
    return -1;
}

void journal_close(struct journal **jp)
{
    struct journal *j = *jp;

    if (j == NULL)
        return;
    *jp = NULL;
    for (size_t i = 0; i < JOURNAL_SHOWN; i++)
        free(j->shown[i].text);
    io_close(&j->fd);
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->look);
    free(j->live.r);
    free(j);
}

/* --- compaction while it runs --- */

/* All records of the file, each of them sound; else -1, and the file stays as it is. */
static int read_again(const struct journal *j, struct records *l, struct err *e)
{
    size_t len = 0;
    char *text = io_read_file(j->path, JOURNAL_MAX_BYTES, &len, e);
    int r = 0;

    if (text == NULL)
        return -1;
    if ((off_t)len != j->size)
        r = err_set(e, ERR_INTEGRITY, "%s has %zu bytes, %lld were written", j->path, len,
            (long long)j->size);
    for (size_t at = 0; r == 0 && at < len;) {
        const char *nl = memchr(text + at, '\n', len - at);
        struct journal_record record;

        if (nl == NULL) {
            r = err_set(e, ERR_INTEGRITY, "%s: its last line has no end", j->path);
            break;
        }
        r = journal_parse(text + at, (size_t)(nl - text) - at, &record, e);
        if (r == 0)
            r = keep_record(l, &record, e);
        at = (size_t)(nl - text) + 1;
    }
    free(text);
    return r;
}

static int sync_folder(struct journal *j, struct err *e)
{
    int r = FAULT("journal-compact-folder") ? err_set(e, ERR_SYSTEM, "fault point")
                                            : io_sync_folder_of(j->path, e);

    j->folder_dirty = r < 0;
    return r;
}

/* A descriptor for appending to `tmp`, which has all of `text` on the disk. */
static int write_new(const char *tmp, const char *text, size_t len, struct err *e)
{
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(e, "%s", tmp);
    if (FAULT("journal-compact-write")) {
        err_set(e, ERR_SYSTEM, "%s: no space left (fault point)", tmp);
        goto fail;
    }
    if (io_write_full(fd, text, len, IO_FOREVER, e) < 0)
        goto fail;
    if (FAULT("journal-compact-sync") || fsync(fd) < 0) {
        err_sys(e, "fsync of %s", tmp);
        goto fail;
    }
    return fd;
fail:
    io_close(&fd);
    unlink(tmp);
    return -1;
}

static int replace_file(struct journal *j, const char *text, size_t len, struct err *e)
{
    char tmp[sizeof j->path + 4];
    int fd;

    snprintf(tmp, sizeof tmp, "%s.tmp", j->path);
    fd = write_new(tmp, text, len, e);
    if (fd < 0)
        return -1;
    if (FAULT("journal-compact-rename") || rename(tmp, j->path) < 0) {
        err_sys(e, "rename of %s", tmp);
        io_close(&fd);
        unlink(tmp);
        return -1;
    }
    io_close(&j->fd);
    j->fd = fd;
    has_size(j, len);
    j->folder_dirty = true;
    return FAULT("journal-compact-renamed") ? 0 : sync_folder(j, e);
}

/* Called with the lock. Not vital: what fails is said, and tried again when it has grown more. */
static void compact_now(struct journal *j)
{
    struct records l = { 0 };
    off_t before = j->size;
    size_t len = 0;
    char *text = NULL;
    struct err e;
    int r = read_again(j, &l, &e);

    if (r == 0)
        r = compact(&l, &e);
    if (r == 0 && (text = text_of(&l, &len, &e)) == NULL)
        r = -1;
    if (r == 0)
        r = replace_file(j, text, len, &e);
    if (r < 0) {
        j->compact_at = j->size + GROWN_MIN;
        log_error("journal", "it could not be made smaller and stays as it is: %s", e.text);
    } else {
        log_info("journal", "made smaller: %lld bytes, were %lld", (long long)j->size,
            (long long)before);
    }
    free(text);
    free(l.r);
}

/* --- append --- */

static int undo(struct journal *j, struct err *e)
{
    if (ftruncate(j->fd, j->size) < 0 || fsync(j->fd) < 0) {
        j->broken = true;
        log_error("journal",
            "%s: a record could be neither written nor taken back: no further "
            "step will be taken; free the disk and restart migrd",
            j->path);
    }
    err_prefix(e, "journal");
    return -1;
}

static int write_line(struct journal *j, const char *line, size_t len, bool sync, struct err *e)
{
    uint64_t start = clock_ns(), took;

    if (j->broken)
        return err_set(e, ERR_SYSTEM,
            "journal %s: an earlier write failed and could not be undone; "
            "free the disk and restart migrd",
            j->path);
    if (FAULT("journal-write")) {
        err_set(e, ERR_SYSTEM, "%s: no space left (fault point)", j->path);
        return err_prefix(e, "journal");
    }
    if (io_write_full(j->fd, line, len, IO_FOREVER, e) < 0) {
        err_prefix(e, "%s", j->path);
        return undo(j, e);
    }
    if (sync && (FAULT("journal-sync") || fdatasync(j->fd) < 0)) {
        err_sys(e, "fsync of %s", j->path);
        return undo(j, e);
    }
    if (sync && j->folder_dirty && sync_folder(j, e) < 0)
        return undo(j, e);
    took = clock_ns() - start;
    j->size += (off_t)len;
    pthread_mutex_lock(&j->look);
    if (took > j->slowest_ns)
        j->slowest_ns = took;
    j->appends++;
    pthread_mutex_unlock(&j->look);
    return 0;
}

/* The end of a migration, or the start of a domain. */
static bool no_guest_waits(const struct journal_record *r, size_t n)
{
    return n > 0 &&
           (out_is_over(&r[n - 1]) || in_is_over(&r[n - 1]) || (n == 1 && r->kind == JK_DOMAIN));
}

int journal_append_all(
    struct journal *j, struct journal_record *r, size_t n, bool sync, struct err *e)
{
    char text[JOURNAL_LINE_MAX * JOURNAL_BATCH_MAX];
    size_t len = 0;
    int ret;

    if (n > JOURNAL_BATCH_MAX)
        return err_set(e, ERR_INTERNAL, "journal: %zu records at once", n);
    pthread_mutex_lock(&j->lock);
    for (size_t i = 0; i < n; i++) {
        r[i].seq = ++j->seq;
        r[i].wall_ns = clock_wall_ns();
        len += journal_format(text + len, &r[i]);
    }
    ret = write_line(j, text, len, sync, e);
    pthread_mutex_lock(&j->look);
    for (size_t i = 0; ret == 0 && i < n; i++)
        show(j, &r[i]);
    pthread_mutex_unlock(&j->look);
    if (ret == 0 && j->size >= j->compact_at && no_guest_waits(r, n))
        compact_now(j);
    pthread_mutex_unlock(&j->lock);
    return ret;
}

int journal_append(struct journal *j, struct journal_record *r, bool sync, struct err *e)
{
    return journal_append_all(j, r, 1, sync, e);
}

void journal_replay(
    const struct journal *j, void (*fn)(void *arg, const struct journal_record *r), void *arg)
{
    for (size_t i = 0; i < j->live.n; i++)
        fn(arg, &j->live.r[i]);
}

void journal_tail(struct journal *j, size_t n, const char *uuid,
    void (*fn)(void *arg, uint64_t wall_ns, const char *text), void *arg)
{
    size_t first, seen = 0;

    pthread_mutex_lock(&j->look);
    first = j->n_shown > JOURNAL_SHOWN ? j->n_shown - JOURNAL_SHOWN : 0;
    for (size_t i = j->n_shown; i > first && seen < n; i--)
        if (uuid[0] == '\0' || strcmp(j->shown[(i - 1) % JOURNAL_SHOWN].uuid, uuid) == 0) {
            seen++;
            if (seen == n)
                first = i - 1;
        }
    for (size_t i = first; i < j->n_shown; i++) {
        const struct shown *s = &j->shown[i % JOURNAL_SHOWN];

        if (s->text != NULL && (uuid[0] == '\0' || strcmp(s->uuid, uuid) == 0))
            fn(arg, s->wall_ns, s->text);
    }
    pthread_mutex_unlock(&j->look);
}

void journal_stats(struct journal *j, uint64_t *appends, uint64_t *slowest_ns)
{
    pthread_mutex_lock(&j->look);
    *appends = j->appends;
    *slowest_ns = j->slowest_ns;
    pthread_mutex_unlock(&j->look);
}
