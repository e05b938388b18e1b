/* SPDX-License-Identifier: ISC */
/*
 * What a migration teaches, from the rounds of its report (the last one is the pause's):
 *
 *   first_ns  round 0: its time without that for zero pages, by its pages
 *   again_ns  later rounds of at least PAGES_MIN pages; round_ns, round_bytes: each by itself, for
 *             what was sent twice may travel as deltas from then on
 *   pause_us  the pause without its pages
 *   other_us  the total without rounds and pause
 *
 * Each figure is a mean that forgets: a new one counts for 1/n, at least NEWEST. Under a bandwidth
 * cap nothing is learned about pages, with verify nothing about the pause. The file:
 *
 *   { "version": 1, "links": [ { "link": "HOST|PORT|tls|CHANNELS|huge|zstd", "migrations": 3,
 *     "first_ns": 812.4, "again_ns": ..., "page_bytes": ..., "pause_us": ..., "other_us": ...,
 *     "used": SECONDS } ] }
 */
#include "migrd/link_history.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/pbjson.h"
#include "migrd/job.h"

#define KEY_LEN 320
#define PAGES_MIN 1024
#define NEWEST 0.3
#define ZERO_NS 150.0
#define ROUND_US 300.0
#define MOST 1e12 /* of any figure in the file */

struct cost {
    char key[KEY_LEN];
    uint32_t migrations;
    double first_ns, again_ns, page_bytes, pause_us, other_us;      /* 0: not known */
    double used;                                                    /* wall seconds */
    double round_ns[FORECAST_ROUNDS], round_bytes[FORECAST_ROUNDS]; /* from 1; 0: not known */
};

struct dry_run {
    char uuid[40], key[KEY_LEN];
    Migrd__PrecopyParams par;
    uint64_t wall_s;
    Migrd__Forecast *forecast; /* NULL: free */
};

struct link_history {
    char path[PATHS_LEN + 32];
    struct cost cost[LINK_HISTORY_MAX];
    unsigned n;
    struct dry_run dry[LINK_HISTORY_DRY_RUNS];
    unsigned next_dry;
    bool writing, stale; /* a job writes the file; what it writes is old already */
    bool closed;         /* the job frees it */
};

/* A compression that is prescribed has its own costs. */
static const char *compression_of(const struct link_kind *l)
{
    return l->compression == MIGRD__COMPRESSION__COMPRESSION_NONE   ? "|none"
           : l->compression == MIGRD__COMPRESSION__COMPRESSION_LZ4  ? "|lz4"
           : l->compression == MIGRD__COMPRESSION__COMPRESSION_ZSTD ? "|zstd"
                                                                    : "";
}

static void key_of(const struct link_kind *l, char out[KEY_LEN])
{
    snprintf(out, KEY_LEN, "%.255s|%u|%s|%u|%s%s", l->host, l->port, l->tls ? "tls" : "plain",
        l->channels == 0 ? 1 : l->channels, l->huge_pages ? "huge" : "small", compression_of(l));
}

/* --- file --- */

static const struct {
    const char *name;
    size_t at;
} figures[] = {
    { "first_ns", offsetof(struct cost, first_ns) },
    { "again_ns", offsetof(struct cost, again_ns) },
    { "page_bytes", offsetof(struct cost, page_bytes) },
    { "pause_us", offsetof(struct cost, pause_us) },
    { "other_us", offsetof(struct cost, other_us) },
    { "used", offsetof(struct cost, used) },
};
#define FIGURES (sizeof figures / sizeof figures[0])

static double *figure(struct cost *c, size_t i)
{
    return (double *)(void *)((char *)c + figures[i].at);
}

static json_t *list_of(const double v[FORECAST_ROUNDS])
{
    json_t *j = json_array();

    for (unsigned i = 0; i < FORECAST_ROUNDS; i++)
        json_array_append_new(j, json_real(v[i]));
    return j;
}

/* What the list has; the rest is not known. */
static bool read_list(const json_t *j, double v[FORECAST_ROUNDS])
{
    for (unsigned i = 0; i < FORECAST_ROUNDS; i++) {
        v[i] = json_number_value(json_array_get(j, i));
        if (!(v[i] >= 0 && v[i] <= MOST))
            return false;
    }
    return true;
}

char *link_history_text(const struct link_history *h)
{
    json_t *root = json_pack("{s:i, s:[]}", "version", 1, "links");
    json_t *links = root != NULL ? json_object_get(root, "links") : NULL;
    char *text;

    for (unsigned i = 0; i < h->n; i++) {
        struct cost c = h->cost[i];
        json_t *o = json_object();

        json_object_set_new(o, "link", json_string(c.key));
        json_object_set_new(o, "migrations", json_integer(c.migrations));
        for (size_t k = 0; k < FIGURES; k++)
            json_object_set_new(o, figures[k].name, json_real(*figure(&c, k)));
        json_object_set_new(o, "round_ns", list_of(c.round_ns));
        json_object_set_new(o, "round_bytes", list_of(c.round_bytes));
        json_array_append_new(links, o);
    }
    text = root != NULL ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    return text;
}

static bool read_cost(const json_t *o, struct cost *c)
{
    const char *key = json_string_value(json_object_get(o, "link"));
    json_int_t n = json_integer_value(json_object_get(o, "migrations"));

    memset(c, 0, sizeof *c);
    if (key == NULL || strlen(key) >= KEY_LEN || n < 1 || n > UINT32_MAX)
        return false;
    snprintf(c->key, sizeof c->key, "%s", key);
    c->migrations = (uint32_t)n;
    for (size_t i = 0; i < FIGURES; i++) {
        double v = json_number_value(json_object_get(o, figures[i].name));

        if (!(v >= 0 && v <= MOST))
            return false;
        *figure(c, i) = v;
    }
    return read_list(json_object_get(o, "round_ns"), c->round_ns) &&
           read_list(json_object_get(o, "round_bytes"), c->round_bytes);
}

int link_history_parse(struct link_history *h, const char *text, size_t len, struct err *e)
{
    json_error_t why;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    const json_t *links = json_object_get(root, "links");
    int r = 0;

    h->n = 0;
    if (root == NULL)
        r = err_set(e, ERR_INVALID, "line %d: %.100s", why.line, why.text);
    else if (json_integer_value(json_object_get(root, "version")) != 1 || !json_is_array(links))
        r = err_set(e, ERR_INVALID, "it is not of version 1");
    for (size_t i = 0; r == 0 && i < json_array_size(links); i++) {
        if (h->n == LINK_HISTORY_MAX || !read_cost(json_array_get(links, i), &h->cost[h->n]))
            r = err_set(e, ERR_INVALID, "entry %zu makes no sense", i + 1);
        else
            h->n++;
    }
    if (r < 0)
        h->n = 0;
    json_decref(root);
    return r;
}

struct link_history *link_history_open(const char *path)
{
    struct link_history *h = calloc(1, sizeof *h);
    struct err e = { 0 };
    size_t len;
    char *text;

    if (h == NULL)
        return NULL;
    snprintf(h->path, sizeof h->path, "%s", path);
    text = io_read_file(path, LINK_HISTORY_FILE_MAX, &len, &e);
    if (text == NULL && access(path, F_OK) == 0)
        log_warn("forecast", "%s: %s; forecasts begin without it", path, e.text);
    if (text != NULL && link_history_parse(h, text, len, &e) < 0)
        log_warn("forecast", "%s: %s; ignored, forecasts begin without it", path, e.text);
    free(text);
    return h;
}

void link_history_close(struct link_history **hp)
{
    struct link_history *h = *hp;

    *hp = NULL;
    if (h == NULL)
        return;
    if (h->writing) {
        h->closed = true;
        return;
    }
    for (unsigned i = 0; i < LINK_HISTORY_DRY_RUNS; i++)
        if (h->dry[i].forecast != NULL)
            migrd__forecast__free_unpacked(h->dry[i].forecast, NULL);
    free(h);
}

struct write_job {
    struct job job; /* first */
    struct link_history *h;
    uv_loop_t *loop;
    char path[PATHS_LEN + 32];
    char *text;
};

static void write_work(struct job *j)
{
    struct write_job *w = (struct write_job *)j;

    j->result = io_replace_file(w->path, w->text, strlen(w->text), 0600, &j->err);
}

static void save(struct link_history *h, uv_loop_t *loop);

static void written(struct job *j)
{
    struct write_job *w = (struct write_job *)j;
    struct link_history *h = w->h;

    if (j->result < 0)
        log_warn("forecast", "%s: %s", w->path, j->err.text);
    h->writing = false;
    if (h->closed)
        link_history_close(&h);
    else if (h->stale)
        save(h, w->loop);
    free(w->text);
    free(w);
}

/* One write at a time: they share a temporary name. */
static void save(struct link_history *h, uv_loop_t *loop)
{
    struct write_job *w;

    h->stale = h->writing;
    if (h->writing)
        return;
    w = calloc(1, sizeof *w);
    if (w == NULL || (w->text = link_history_text(h)) == NULL) {
        free(w);
        return;
    }
    snprintf(w->path, sizeof w->path, "%s", h->path);
    w->h = h;
    w->loop = loop;
    h->writing = true;
    w->job.work = write_work;
    w->job.done = written;
    job_run(loop, &w->job);
}

/* --- costs --- */

static struct cost *find(struct link_history *h, const char *key)
{
    for (unsigned i = 0; i < h->n; i++)
        if (strcmp(h->cost[i].key, key) == 0)
            return &h->cost[i];
    return NULL;
}

static struct cost *find_or_make(struct link_history *h, const char *key)
{
    struct cost *c = find(h, key);

    if (c != NULL)
        return c;
    if (h->n < LINK_HISTORY_MAX) {
        c = &h->cost[h->n++];
    } else {
        c = &h->cost[0];
        for (unsigned i = 1; i < h->n; i++)
            if (h->cost[i].used < c->used)
                c = &h->cost[i];
    }
    memset(c, 0, sizeof *c);
    snprintf(c->key, sizeof c->key, "%s", key);
    return c;
}

bool link_history_get(struct link_history *h, const struct link_kind *l, Migrd__LinkHistory *out)
{
    char key[KEY_LEN];
    struct cost *c;

    if (h == NULL)
        return false;
    key_of(l, key);
    c = find(h, key);
    if (c == NULL)
        return false;
    migrd__link_history__init(out);
    out->migrations = c->migrations;
    out->first_ns = c->first_ns;
    out->again_ns = c->again_ns;
    out->page_bytes = c->page_bytes;
    out->pause_us = c->pause_us;
    out->other_us = c->other_us;
    out->round_ns = c->round_ns; /* good until the next call */
    out->round_bytes = c->round_bytes;
    out->n_round_ns = out->n_round_bytes = FORECAST_ROUNDS;
    return true;
}

static void mean(double *into, uint32_t n, double v)
{
    double weight = n > 0 && 1.0 / n > NEWEST ? 1.0 / n : NEWEST;

    if (!(v > 0 && v < MOST))
        return;
    *into = *into > 0 ? *into + (v - *into) * weight : v;
}

static void learn_pages(struct cost *c, const Migrd__Finished *f)
{
    const Migrd__RoundReport *first = f->rounds[0];
    double us = 0, pages = 0;

    if (first->pages >= PAGES_MIN)
        mean(&c->first_ns, c->migrations,
            ((double)first->duration_us * 1000 - (double)first->zero * ZERO_NS) /
                (double)first->pages);
    for (size_t i = 0; i < f->n_rounds; i++) {
        const Migrd__RoundReport *r = f->rounds[i];

        unsigned k = r->round < FORECAST_ROUNDS ? r->round : FORECAST_ROUNDS - 1;

        if (i == 0 || r->pages < PAGES_MIN || (double)r->duration_us <= ROUND_US)
            continue;
        us += (double)r->duration_us - ROUND_US;
        pages += (double)r->pages;
        mean(&c->round_ns[k], c->migrations,
            ((double)r->duration_us - ROUND_US) * 1000 / (double)r->pages);
        mean(&c->round_bytes[k], c->migrations, (double)r->bytes / (double)r->pages);
    }
    if (pages > 0)
        mean(&c->again_ns, c->migrations, us * 1000 / pages);
    if (first->pages >= PAGES_MIN)
        mean(&c->page_bytes, c->migrations, (double)first->bytes / (double)first->pages);
}

/* Of a page in the round that was the last. */
static double last_ns(const struct cost *c, uint32_t round)
{
    for (uint32_t i = round < FORECAST_ROUNDS ? round : FORECAST_ROUNDS - 1; i > 0; i--)
        if (c->round_ns[i] > 0)
            return c->round_ns[i];
    return c->again_ns > 0 ? c->again_ns : c->first_ns;
}

static void learn_rest(struct cost *c, const Migrd__PrecopyParams *par, const Migrd__Finished *f)
{
    const Migrd__RoundReport *last = f->rounds[f->n_rounds - 1];
    double page_ns = last_ns(c, last->round);
    double rounds = 0, pause = (double)f->pause_us, bare;

    if (par->bandwidth > 0 && last->pages > 0)
        page_ns = (double)last->duration_us * 1000 / (double)last->pages;
    for (size_t i = 0; i + 1 < f->n_rounds; i++)
        rounds += (double)f->rounds[i]->duration_us;
    bare = pause - (double)last->pages * page_ns / 1000;
    if (!par->verify)
        mean(&c->pause_us, c->migrations, bare > pause / 4 ? bare : pause / 4);
    if (f->rounds[0]->round == 0 && f->n_rounds == (size_t)last->round + 1)
        mean(&c->other_us, c->migrations, (double)f->total_us - rounds - pause);
}

void link_history_learn(struct link_history *h, uv_loop_t *loop, const struct link_kind *l,
    const Migrd__PrecopyParams *par, const Migrd__Finished *f, uint64_t wall_s)
{
    char key[KEY_LEN];
    struct cost *c;

    if (h == NULL || !f->ok || !par->live || f->n_rounds < 2)
        return;
    key_of(l, key);
    c = find_or_make(h, key);
    c->migrations += c->migrations < UINT32_MAX;
    c->used = (double)wall_s;
    if (par->bandwidth == 0)
        learn_pages(c, f);
    learn_rest(c, par, f);
    if (loop != NULL)
        save(h, loop);
}

/* --- dry runs --- */

void link_history_dry_run(struct link_history *h, const char *uuid, const struct link_kind *l,
    const Migrd__PrecopyParams *par, const Migrd__Forecast *f, uint64_t wall_s)
{
    struct dry_run *d;

    if (h == NULL)
        return;
    d = &h->dry[h->next_dry++ % LINK_HISTORY_DRY_RUNS];
    if (d->forecast != NULL)
        migrd__forecast__free_unpacked(d->forecast, NULL);
    snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    key_of(l, d->key);
    d->par = *par;
    d->wall_s = wall_s;
    d->forecast = pb_copy(&f->base);
}

static bool same_wishes(const Migrd__PrecopyParams *a, const Migrd__PrecopyParams *b)
{
    return a->pause_budget_ms == b->pause_budget_ms && a->bandwidth == b->bandwidth &&
           a->time_limit_s == b->time_limit_s && a->throttle_max == b->throttle_max &&
           a->max_rounds == b->max_rounds && a->live == b->live;
}

Migrd__Forecast *link_history_forecast(struct link_history *h, const char *uuid,
    const struct link_kind *l, const Migrd__PrecopyParams *par, uint64_t wall_s)
{
    char key[KEY_LEN];
    Migrd__Forecast *copy;

    if (h == NULL)
        return NULL;
    key_of(l, key);
    for (unsigned i = 0; i < LINK_HISTORY_DRY_RUNS; i++) {
        unsigned back = (h->next_dry + LINK_HISTORY_DRY_RUNS - 1 - i) % LINK_HISTORY_DRY_RUNS;
        const struct dry_run *d = &h->dry[back]; /* newest first */

        if (d->forecast == NULL || strcmp(d->uuid, uuid) != 0 || strcmp(d->key, key) != 0 ||
            !same_wishes(&d->par, par) || d->wall_s + LINK_HISTORY_DRY_RUN_S < wall_s)
            continue;
        copy = pb_copy(&d->forecast->base);
        if (copy != NULL && wall_s > d->wall_s)
            copy->age_s = (uint32_t)(wall_s - d->wall_s);
        return copy;
    }
    return NULL;
}
