/* SPDX-License-Identifier: ISC */
/*
 * Requests to the status socket and their answers. Everything is read-only; every answer
 * but the index, the metrics and the events is JSON, errors too:
 * {"error": {"code": "not-found", "text": "..."}}.
 */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pbjson.h"
#include "migrd/ha_overview.h"
#include "migrd/report.h"
#include "migrd/status_internal.h"

#define TYPE_JSON "application/json"

struct request {
    struct status_listener *l;
    struct MHD_Connection *c;
    const char *rest; /* of the path, after the route's own part */
    bool head;
};

/* --- answers --- */

/* Sends and lets go of `r`; NULL closes the connection. */
static enum MHD_Result send_response(
    struct MHD_Connection *c, unsigned code, const char *type, struct MHD_Response *r)
{
    enum MHD_Result ok;

    if (r == NULL)
        return MHD_NO;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED) {
        MHD_add_response_header(r, "Allow", "GET, HEAD");
        MHD_add_response_header(r, "Connection", "close");
    }
    ok = MHD_queue_response(c, code, r);
    MHD_destroy_response(r);
    return ok;
}

/* Takes over `text`, which came from malloc. */
static enum MHD_Result send_text(
    struct MHD_Connection *c, unsigned code, const char *type, char *text, size_t len)
{
    struct MHD_Response *r;

    if (text == NULL)
        return MHD_NO;
    r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
    if (r == NULL)
        free(text);
    return send_response(c, code, type, r);
}

static enum MHD_Result send_json(struct MHD_Connection *c, unsigned code, json_t *j)
{
    char *text = j != NULL ? json_dumps(j, JSON_INDENT(2)) : NULL;
    size_t n = text != NULL ? strlen(text) : 0;

    json_decref(j);
    if (text != NULL)
        text[n++] = '\n'; /* in place of the NUL: the length is sent, not a string */
    return send_text(c, code, TYPE_JSON, text, n);
}

static enum MHD_Result send_error(
    struct MHD_Connection *c, unsigned http, const char *code, const char *text)
{
    return send_json(
        c, http, json_pack("{s:{s:s, s:o}}", "error", "code", code, "text", pbjson_text(text)));
}

static enum MHD_Result send_failure(struct MHD_Connection *c, const Migrd__Failure *f)
{
    unsigned http = strcmp(f->code, "not-found") == 0 ? MHD_HTTP_NOT_FOUND
                    : strcmp(f->code, "invalid") == 0 ? MHD_HTTP_BAD_REQUEST
                                                      : MHD_HTTP_INTERNAL_SERVER_ERROR;

    return send_error(c, http, f->code, f->text);
}

/* An object with one member, an array of `n` messages. Frees the reply. */
static enum MHD_Result send_list(
    struct MHD_Connection *c, const char *name, Migrd__Reply *r, ProtobufCMessage **list, size_t n)
{
    json_t *a = json_array(), *o = json_object();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, pbjson(list[i]));
    json_object_set_new(o, name, a);
    migrd__reply__free_unpacked(r, NULL);
    return send_json(c, MHD_HTTP_OK, o);
}

/* A question mark's argument: "0" and "no" are false, absent is `otherwise`. */
static bool flag(const struct request *q, const char *name, bool otherwise)
{
    const char *v = MHD_lookup_connection_value(q->c, MHD_GET_ARGUMENT_KIND, name);

    if (v == NULL)
        return otherwise;
    return strcmp(v, "0") != 0 && strcmp(v, "no") != 0 && strcmp(v, "false") != 0;
}

/* --- routes --- */

static enum MHD_Result get_index(struct request *q)
{
    static const char page[] =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta "
        "charset=\"utf-8\"><title>migrd</title></head>"
        "<body>\n<h1>migrd</h1>\n<ul>\n"
        "<li><a href=\"/v1/status\">/v1/status</a> this host</li>\n"
        "<li><a href=\"/v1/domains\">/v1/domains</a> its domains; /v1/domains/NAME is one</li>\n"
        "<li><a href=\"/v1/migrations\">/v1/migrations</a> migrations, finished ones too; "
        "/v1/migrations/ID is one</li>\n"
        "<li><a href=\"/v1/ha\">/v1/ha</a> the cluster, its nodes and protected domains</li>\n"
        "<li><a href=\"/v1/events\">/v1/events</a> what happens, as it happens</li>\n"
        "<li><a href=\"/metrics\">/metrics</a> numbers for Prometheus</li>\n"
        "</ul>\n</body></html>\n";

    return send_response(q->c, MHD_HTTP_OK, "text/html; charset=utf-8",
        MHD_create_response_from_buffer(
            sizeof page - 1, (void *)(uintptr_t)page, MHD_RESPMEM_PERSISTENT));
}

static enum MHD_Result get_status(struct request *q)
{
    Migrd__Reply *r = report_host(q->l->s->m);
    enum MHD_Result ok;

    if (r == NULL)
        return MHD_NO;
    if (r->failure != NULL)
        ok = send_failure(q->c, r->failure);
    else
        ok = send_json(q->c, MHD_HTTP_OK, r->host != NULL ? pbjson(&r->host->base) : NULL);
    migrd__reply__free_unpacked(r, NULL);
    return ok;
}

static enum MHD_Result get_domains(struct request *q)
{
    Migrd__Reply *r = report_domains(q->l->s->m, flag(q, "all", true));

    if (r == NULL)
        return MHD_NO;
    return send_list(q->c, "domains", r, (ProtobufCMessage **)(void *)r->domains, r->n_domains);
}

static enum MHD_Result get_domain(struct request *q)
{
    Migrd__Reply *r = report_domain(q->l->s->m, q->rest);
    enum MHD_Result ok;

    if (r == NULL)
        return MHD_NO;
    if (r->failure != NULL)
        ok = send_failure(q->c, r->failure);
    else if (r->n_domains == 0)
        ok = send_error(q->c, MHD_HTTP_NOT_FOUND, "not-found", "no such domain here");
    else
        ok = send_json(q->c, MHD_HTTP_OK, pbjson(&r->domains[0]->base));
    migrd__reply__free_unpacked(r, NULL);
    return ok;
}

static enum MHD_Result get_migrations(struct request *q)
{
    Migrd__Reply *r = report_migrations(q->l->s->m, flag(q, "finished", true));

    if (r == NULL)
        return MHD_NO;
    return send_list(
        q->c, "migrations", r, (ProtobufCMessage **)(void *)r->migrations, r->n_migrations);
}

static enum MHD_Result get_migration(struct request *q)
{
    Migrd__Reply *r = report_migrations(q->l->s->m, true);
    json_t *found = NULL;

    if (r == NULL)
        return MHD_NO;
    for (size_t i = 0; i < r->n_migrations && found == NULL; i++)
        if (strcmp(r->migrations[i]->id, q->rest) == 0)
            found = pbjson(&r->migrations[i]->base);
    migrd__reply__free_unpacked(r, NULL);
    if (found == NULL)
        return send_error(q->c, MHD_HTTP_NOT_FOUND, "not-found",
            "no such migration; /v1/migrations lists those that are kept");
    return send_json(q->c, MHD_HTTP_OK, found);
}

static enum MHD_Result get_ha(struct request *q)
{
    Migrd__HaOverview *o = ha_overview(q->l->s->m);
    enum MHD_Result ok;

    if (o == NULL)
        return send_error(q->c, MHD_HTTP_NOT_FOUND, "not-found",
            "this host is in no cluster (cluster = no in migrd.conf)");
    ok = send_json(q->c, MHD_HTTP_OK, pbjson(&o->base));
    migrd__ha_overview__free_unpacked(o, NULL);
    return ok;
}

static enum MHD_Result get_metrics(struct request *q)
{
    size_t n = 0;
    char *text = status_metrics(q->l->s->m, &n);

    return send_text(q->c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, n);
}

static enum MHD_Result get_events(struct request *q)
{
    struct MHD_Response *r;
    unsigned code;

    if (q->head)
        return send_response(q->c, MHD_HTTP_OK, "text/event-stream",
            MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT));
    r = status_stream_new(q->l, q->c, &code);
    if (r == NULL)
        return send_error(q->c, code, "resource", "too many readers of events; try again later");
    return send_response(q->c, code, "text/event-stream", r);
}

static const struct route {
    const char *path; /* with a trailing slash: something must follow */
    enum MHD_Result (*get)(struct request *q);
} routes[] = {
    { "/", get_index },
    { "/v1/status", get_status },
    { "/v1/domains", get_domains },
    { "/v1/domains/", get_domain },
    { "/v1/migrations", get_migrations },
    { "/v1/migrations/", get_migration },
    { "/v1/ha", get_ha },
    { "/v1/events", get_events },
    { "/metrics", get_metrics },
};

static const struct route *find_route(const char *url, const char **rest)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        size_t n = strlen(routes[i].path);

        if (strcmp(url, routes[i].path) == 0 && (n == 1 || url[n - 1] != '/'))
            return &routes[i];
        if (n > 1 && routes[i].path[n - 1] == '/' && strncmp(url, routes[i].path, n) == 0 &&
            url[n] != '\0') {
            *rest = url + n;
            return &routes[i];
        }
    }
    return NULL;
}

/*
 * Called once when the headers are there, then for parts of a body, then once more. A wrong
 * method is answered at the first call, so that its body is never read; a body sent with GET is
 * read and dropped, within the request's deadline.
 */
enum MHD_Result status_request(void *cls, struct MHD_Connection *c, const char *url,
    const char *method, const char *version, const char *body, size_t *body_len, void **context)
{
    static const char seen;
    struct request q = { .l = cls, .c = c, .rest = "", .head = strcmp(method, "HEAD") == 0 };
    const struct route *r;

    (void)version, (void)body;
    if (*context == NULL) {
        *context = (void *)(uintptr_t)&seen;
        if (q.head || strcmp(method, "GET") == 0)
            return MHD_YES;
        status_set_deadline(c, STATUS_ANSWER_MS);
        return send_error(
            c, MHD_HTTP_METHOD_NOT_ALLOWED, "unsupported", "read-only: use GET or HEAD");
    }
    if (*body_len > 0) {
        *body_len = 0;
        return MHD_YES;
    }
    status_set_deadline(c, STATUS_ANSWER_MS);
    r = find_route(url, &q.rest);
    if (r == NULL)
        return send_error(
            c, MHD_HTTP_NOT_FOUND, "not-found", "no such page; / lists what there is");
    return r->get(&q);
}
