/* SPDX-License-Identifier: ISC */
/*
 * The file: "MIGRDHL1", a number of the file, then frames. A frame is what one sync has made
 * durable; all numbers are little-endian:
 *
 *   "HAF1"  length of the payload (32)  number of the frame in this file (64)
 *   XXH3 of the 16 bytes before and the payload, seeded with the number of the file (64)
 *   payload: records, each with its length (32), 1 where it replaces all before (8), its bytes
 *
 * A frame that is not right at the end of the file is torn: the host died before its sync had
 * ended, so nobody was told of it, and it is cut off. A right one behind it means that something
 * in the middle is damaged, and so does a first frame that is not right, since a file gets its name
 * with the first frame in it: what this node had promised is not known any more, and it must not
 * act as if it were.
 *
 * A record that replaces all before begins a new file: PATH.tmp, fsync, rename, fsync of the
 * folder. The same is done after a failed write or sync, with all records that count: what a failed
 * sync leaves in the page cache can't be trusted, a second sync of it may lie.
 *
 * Records are a list. The loop appends, the thread writes from `unwritten` on; who is replaced goes
 * to `garbage` and is freed by the loop, which may still be reading it.
 */
#include "cluster/store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/io.h"
#include "base/log.h"

#define MAGIC "MIGRDHL1"
#define HEAD_LEN 16 /* of the file */
#define FRAME_MAGIC "HAF1"
#define FRAME_LEN 24 /* before the payload */
#define SUMMED 16
#define RECORD_LEN 5 /* before the bytes of a record */
#define RETRY_S 1

struct record {
    struct record *next;
    uint64_t id; /* 0: was on the disk at the start */
    uint64_t put_ns;
    bool whole;
    size_t len;
    uint8_t bytes[];
};

struct store {
    char path[4096];
    struct store_callbacks cb;
    void *arg;
    uv_async_t async;
    pthread_t thread;
    bool running;
    struct ha_record *shown; /* store_records' */
    uint64_t told;           /* the newest id that was put / told: the loop's */
    uint64_t newest;

    /* the thread's */
    int fd;
    uint64_t file_id, frames;
    bool anew; /* the file must be written anew */

    pthread_mutex_t lock; /* all below; never held while the disk works */
    pthread_cond_t wake;
    struct record *head, *tail, *unwritten, *garbage;
    size_t n, bytes;
    uint64_t done;
    bool stop, trouble, said; /* said: the loop has told of the trouble */
    struct err why;
    uint64_t last_us, max_us;
};

static void put_number(uint8_t *at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_number(const uint8_t *at, int bytes)
{
    uint64_t v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)at[i] << 8 * i;
    return v;
}

/* --- frames --- */

static uint64_t frame_sum(const uint8_t *frame, size_t payload, uint64_t file_id)
{
    uint64_t head = XXH3_64bits_withSeed(frame, SUMMED, file_id);

    return XXH3_64bits_withSeed(frame + FRAME_LEN, payload, head);
}

static size_t frame_size(const struct record *first, const struct record *last)
{
    size_t len = FRAME_LEN;

    for (const struct record *r = first;; r = r->next) {
        len += RECORD_LEN + r->len;
        if (r == last)
            return len;
    }
}

static void frame_make(uint8_t *out, size_t len, const struct record *first,
    const struct record *last, uint64_t number, uint64_t file_id)
{
    uint8_t *at = out + FRAME_LEN;

    for (const struct record *r = first;; r = r->next) {
        put_number(at, r->len, 4);
        at[4] = r->whole;
        memcpy(at + RECORD_LEN, r->bytes, r->len);
        at += RECORD_LEN + r->len;
        if (r == last)
            break;
    }
    memcpy(out, FRAME_MAGIC, 4);
    put_number(out + 4, len - FRAME_LEN, 4);
    put_number(out + 8, number, 8);
    put_number(out + SUMMED, frame_sum(out, len - FRAME_LEN, file_id), 8);
}

/* Bytes of the frame at `at`; 0: there is no right one. *hashed: bytes that were looked at. */
static size_t frame_check(
    const uint8_t *at, size_t left, uint64_t file_id, uint64_t *number, size_t *hashed)
{
    size_t payload;

    if (left < FRAME_LEN || memcmp(at, FRAME_MAGIC, 4) != 0)
        return 0;
    payload = get_number(at + 4, 4);
    if (payload > left - FRAME_LEN)
        return 0;
    *hashed += payload;
    *number = get_number(at + 8, 8);
    if (frame_sum(at, payload, file_id) != get_number(at + SUMMED, 8))
        return 0;
    return FRAME_LEN + payload;
}

/* Is there a right frame behind a wrong one? Looking is bounded: what pretends to be thousands of
 * frames was not left by a write that was cut short. */
static bool right_behind(const uint8_t *bytes, size_t len, uint64_t file_id, uint64_t expected)
{
    size_t hashed = 0;
    uint64_t number;

    for (size_t at = 1; at + FRAME_LEN <= len; at++) {
        const uint8_t *next = memchr(bytes + at, FRAME_MAGIC[0], len - at);

        if (next == NULL)
            return false;
        at = (size_t)(next - bytes);
        if (frame_check(next, len - at, file_id, &number, &hashed) > 0 && number > expected)
            return true;
        if (hashed > 4 * len + FRAME_LEN)
            return true;
    }
    return false;
}

static int frame_records(
    const uint8_t *at, size_t len, store_record *record, void *arg, struct err *e)
{
    while (len > 0) {
        size_t n = len >= RECORD_LEN ? get_number(at, 4) : SIZE_MAX;

        if (n > STORE_RECORD_MAX || n > len - RECORD_LEN || at[4] > 1)
            return err_set(e, ERR_INTEGRITY, "a frame has what is no record");
        if (record(arg, at + RECORD_LEN, n, at[4] == 1, e) < 0)
            return -1;
        at += RECORD_LEN + n;
        len -= RECORD_LEN + n;
    }
    return 0;
}

int store_parse(
    const uint8_t *bytes, size_t len, store_record *record, void *arg, size_t *good, struct err *e)
{
    uint64_t file_id, number = 0, expected = 1;
    size_t hashed = 0;

    *good = 0;
    if (len < HEAD_LEN || memcmp(bytes, MAGIC, 8) != 0)
        return err_set(e, ERR_INTEGRITY, "it does not begin with " MAGIC);
    file_id = get_number(bytes + 8, 8);
    for (*good = HEAD_LEN; *good < len; expected++) {
        size_t n = frame_check(bytes + *good, len - *good, file_id, &number, &hashed);

        if (n == 0 && expected > 1 && !right_behind(bytes + *good, len - *good, file_id, expected))
            return 0;
        if (n == 0 || number != expected)
            return err_set(e, ERR_INTEGRITY, "it is damaged at byte %zu of %zu", *good, len);
        if (frame_records(bytes + *good + FRAME_LEN, n - FRAME_LEN, record, arg, e) < 0)
            return -1;
        *good += n;
    }
    return expected > 1 ? 0 : err_set(e, ERR_INTEGRITY, "it has no frame");
}

/* --- the list --- */

static struct record *record_make(const uint8_t *bytes, size_t len, bool whole, uint64_t id)
{
    struct record *r = malloc(sizeof *r + len);

    if (r == NULL)
        return NULL;
    *r = (struct record){ .id = id, .whole = whole, .len = len, .put_ns = clock_ns() };
    memcpy(r->bytes, bytes, len);
    return r;
}

static void list_append(struct store *s, struct record *r)
{
    if (s->tail != NULL)
        s->tail->next = r;
    else
        s->head = r;
    s->tail = r;
    s->n++;
    s->bytes += RECORD_LEN + r->len;
}

/* All before `first` to the garbage. */
static void list_begin(struct store *s, struct record *first)
{
    while (s->head != first) {
        struct record *r = s->head;

        s->head = r->next;
        s->n--;
        s->bytes -= RECORD_LEN + r->len;
        r->next = s->garbage;
        s->garbage = r;
    }
}

static void list_free(struct record *r)
{
    while (r != NULL) {
        struct record *next = r->next;

        free(r);
        r = next;
    }
}

/* --- writing: the thread's --- */

static int write_and_sync(struct store *s, int fd, const uint8_t *bytes, size_t len, struct err *e)
{
    if (FAULT("ha-store-write"))
        return err_set(e, ERR_SYSTEM, "%s: no space left (fault point)", s->path);
    if (io_write_full(fd, bytes, len, IO_FOREVER, e) < 0)
        return err_prefix(e, "%s", s->path);
    if (FAULT("ha-store-sync"))
        return err_set(e, ERR_SYSTEM, "fsync of %s: input/output error (fault point)", s->path);
    if (fdatasync(fd) < 0)
        return err_sys(e, "fsync of %s", s->path);
    return 0;
}

static int write_new(
    struct store *s, const char *tmp, const uint8_t *bytes, size_t len, struct err *e)
{
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(e, "%s", tmp);
    if (write_and_sync(s, fd, bytes, len, e) < 0)
        goto fail;
    if (rename(tmp, s->path) < 0) {
        err_sys(e, "rename of %s", tmp);
        goto fail;
    }
    io_close(&s->fd);
    s->fd = fd;
    return io_sync_folder_of(s->path, e);
fail:
    io_close(&fd);
    unlink(tmp);
    return -1;
}

/* A file with these records alone. */
static int begin_file(struct store *s, struct record *first, struct record *last, struct err *e)
{
    char tmp[sizeof s->path + 4];
    size_t len = HEAD_LEN + frame_size(first, last);
    uint8_t *bytes = malloc(len);
    int r;

    if (bytes == NULL)
        return err_set(e, ERR_MEMORY, "%s: no memory to write %zu bytes", s->path, len);
    s->anew = true;
    s->file_id = clock_wall_ns();
    s->frames = 1;
    memcpy(bytes, MAGIC, 8);
    put_number(bytes + 8, s->file_id, 8);
    frame_make(bytes + HEAD_LEN, len - HEAD_LEN, first, last, 1, s->file_id);
    snprintf(tmp, sizeof tmp, "%s.tmp", s->path);
    r = write_new(s, tmp, bytes, len, e);
    s->anew = r < 0;
    free(bytes);
    return r;
}

static int append(struct store *s, struct record *first, struct record *last, struct err *e)
{
    size_t len = frame_size(first, last);
    uint8_t *bytes = malloc(len);
    int r;

    if (bytes == NULL)
        return err_set(e, ERR_MEMORY, "%s: no memory to write %zu bytes", s->path, len);
    frame_make(bytes, len, first, last, s->frames + 1, s->file_id);
    r = write_and_sync(s, s->fd, bytes, len, e);
    s->anew = r < 0;
    s->frames += r == 0;
    free(bytes);
    return r;
}

/* Writes first to last; *begins: where what counts begins. */
static int write_batch(struct store *s, struct record *first, struct record *last,
    struct record **begins, struct err *e)
{
    for (struct record *r = first;; r = r->next) {
        if (r->whole)
            *begins = r;
        if (r == last)
            break;
    }
    if (s->anew || (*begins)->id >= first->id)
        return begin_file(s, *begins, last, e);
    return append(s, first, last, e);
}

static void wait_a_while(struct store *s)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_S;
    while (!s->stop && pthread_cond_timedwait(&s->wake, &s->lock, &until) == 0)
        ;
}

/* With the lock, which is let go while the disk works. */
static void write_waiting(struct store *s)
{
    struct record *first = s->unwritten, *last = s->tail, *begins = s->head;
    uint64_t start = clock_ns();
    struct err e;
    int r;

    pthread_mutex_unlock(&s->lock);
    r = write_batch(s, first, last, &begins, &e);
    pthread_mutex_lock(&s->lock);
    s->trouble = r < 0;
    if (r < 0) {
        s->why = e;
    } else {
        s->done = last->id;
        s->unwritten = last->next;
        list_begin(s, begins);
        s->last_us = (clock_ns() - start) / NS_PER_US;
        s->max_us = s->last_us > s->max_us ? s->last_us : s->max_us;
    }
    uv_async_send(&s->async);
    if (r < 0)
        wait_a_while(s);
}

static void *writer(void *arg)
{
    struct store *s = arg;
    bool last = false;

    pthread_mutex_lock(&s->lock);
    while (!last) {
        while (s->unwritten == NULL && !s->stop)
            pthread_cond_wait(&s->wake, &s->lock);
        last = s->stop;
        if (s->unwritten != NULL)
            write_waiting(s);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* --- the loop's side --- */

static void on_async(uv_async_t *h)
{
    struct store *s = h->data;
    struct record *garbage;
    uint64_t done;
    bool trouble, tell;
    struct err why;

    pthread_mutex_lock(&s->lock);
    garbage = s->garbage;
    s->garbage = NULL;
    done = s->done;
    trouble = s->trouble;
    tell = trouble != s->said;
    s->said = trouble;
    why = s->why;
    pthread_mutex_unlock(&s->lock);
    list_free(garbage);
    if (tell)
        s->cb.trouble(s->arg, trouble ? why.text : NULL);
    if (done > s->told) {
        s->told = done;
        s->cb.persisted(s->arg, done);
    }
}

int store_put(
    struct store *s, uint64_t id, const uint8_t *bytes, size_t len, bool whole, struct err *e)
{
    struct record *r;
    bool room;

    if (len > STORE_RECORD_MAX)
        return err_set(e, ERR_RESOURCE, "%s: a record of %zu bytes is too long", s->path, len);
    pthread_mutex_lock(&s->lock);
    room = whole || (s->n < STORE_RECORDS_MAX && s->bytes + len < STORE_FILE_MAX);
    pthread_mutex_unlock(&s->lock);
    if (!room)
        return err_set(e, ERR_RESOURCE, "%s has reached its limit", s->path);
    r = record_make(bytes, len, whole, id);
    if (r == NULL)
        return err_set(e, ERR_MEMORY, "%s: no memory for a record", s->path);
    s->newest = id;
    pthread_mutex_lock(&s->lock);
    list_append(s, r);
    if (s->unwritten == NULL)
        s->unwritten = r;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

const struct ha_record *store_records(struct store *s, size_t *n)
{
    *n = 0;
    free(s->shown);
    pthread_mutex_lock(&s->lock);
    s->shown = calloc(s->n + 1, sizeof *s->shown);
    for (struct record *r = s->head; r != NULL && s->shown != NULL; r = r->next) {
        if (r->whole)
            *n = 0;
        s->shown[(*n)++] = (struct ha_record){ r->bytes, r->len };
    }
    pthread_mutex_unlock(&s->lock);
    return s->shown;
}

bool store_idle(const struct store *s)
{
    return s->told == s->newest;
}

void store_figures(struct store *s, struct store_figures *out)
{
    pthread_mutex_lock(&s->lock);
    out->last_us = s->last_us;
    out->max_us = s->max_us;
    out->waiting_us = s->unwritten != NULL ? (clock_ns() - s->unwritten->put_ns) / NS_PER_US : 0;
    pthread_mutex_unlock(&s->lock);
}

/* --- birth and death --- */

static int load_record(void *arg, const uint8_t *bytes, size_t len, bool whole, struct err *e)
{
    struct store *s = arg;
    struct record *r = record_make(bytes, len, whole, 0);

    if (r == NULL || s->n >= STORE_RECORDS_MAX) {
        free(r);
        return err_set(e, ERR_MEMORY, "%s: too much to read", s->path);
    }
    list_append(s, r);
    if (whole)
        list_begin(s, r);
    return 0;
}

static int damaged(const struct store *s, struct err *e)
{
    struct err why = *e;

    return err_set(e, ERR_INTEGRITY,
        "%.160s, what this node has promised to the cluster: %.60s. When a majority of other nodes "
        "is up, move the file away and start migrd again: this node then counts as new and takes "
        "the state from the others; never do so with two nodes at a time",
        s->path, why.text);
}

/* What is read is written anew with the first record that comes: one frame, and no torn end. */
static int load(struct store *s, struct err *e)
{
    size_t len = 0, good = 0;
    char *bytes;
    int r;

    s->anew = true;
    if (access(s->path, F_OK) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "%s", s->path);
    bytes = io_read_file(s->path, STORE_FILE_MAX + HEAD_LEN, &len, e);
    if (bytes == NULL)
        return -1;
    r = store_parse((uint8_t *)bytes, len, load_record, s, &good, e);
    free(bytes);
    if (r == 0 && good < len)
        log_warn("ha",
            "%s: its last %zu bytes were torn when the host or migrd ended (nobody was told of "
            "them): cut off",
            s->path, len - good);
    return r < 0 && e->code == ERR_INTEGRITY ? damaged(s, e) : r;
}

static int start_thread(struct store *s, struct err *e)
{
    int r = pthread_create(&s->thread, NULL, writer, s);

    s->running = r == 0;
    return r == 0 ? 0 : err_set(e, ERR_SYSTEM, "no thread for %s: %s", s->path, strerror(r));
}

static struct store *store_new(const char *path, const struct store_callbacks *cb, void *arg)
{
    struct store *s = calloc(1, sizeof *s);
    pthread_condattr_t attr;

    if (s == NULL)
        return NULL;
    snprintf(s->path, sizeof s->path, "%s", path);
    s->cb = *cb;
    s->arg = arg;
    s->fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    return s;
}

int store_open(uv_loop_t *loop, const char *path, const struct store_callbacks *cb, void *arg,
    struct store **out, struct err *e)
{
    struct store *s = store_new(path, cb, arg);

    *out = NULL;
    if (s == NULL)
        return err_set(e, ERR_MEMORY, "%s: out of memory", path);
    if (load(s, e) < 0) {
        store_close(&s);
        return -1;
    }
    uv_async_init(loop, &s->async, on_async);
    s->async.data = s;
    *out = s;
    if (start_thread(s, e) == 0)
        return 0;
    uv_close((uv_handle_t *)&s->async, NULL);
    return -1;
}

void store_stop(struct store *s)
{
    if (s->running) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        s->running = false;
    }
    if (!uv_is_closing((uv_handle_t *)&s->async))
        uv_close((uv_handle_t *)&s->async, NULL);
}

void store_close(struct store **sp)
{
    struct store *s = *sp;

    if (s == NULL)
        return;
    *sp = NULL;
    io_close(&s->fd);
    list_free(s->head);
    list_free(s->garbage);
    free(s->shown);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
