/* SPDX-License-Identifier: ISC */
/*
 * The bundle and the files.
 *
 * A bundle is JSON: {"migrd-cluster": 1, "name": ..., "token": ms, "nodes": [{"id", "name",
 * "addresses": [...]}], "key": hex digits}. It is read into the same struct that wrote it, checked
 * as words of a person are, and corosync.conf is written anew from that: nothing of a bundle gets
 * into a file unread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "cluster/setup.h"

#define BUNDLE_VERSION 1
#define FOLDER_MAX 300

/* --- bundle --- */

static json_t *node_json(const struct setup_node *x)
{
    json_t *addresses = json_array();

    for (unsigned l = 0; l < SETUP_LINKS; l++)
        if (x->address[l][0] != '\0')
            json_array_append_new(addresses, json_string(x->address[l]));
    return json_pack("{s:i,s:s,s:o}", "id", (int)x->id, "name", x->name, "addresses", addresses);
}

char *setup_bundle(const struct setup *s)
{
    char key[2 * SETUP_KEY_MAX + 1] = "";
    json_t *nodes = json_array(), *o;
    char *text;

    for (unsigned i = 0; i < s->n; i++)
        json_array_append_new(nodes, node_json(&s->node[i]));
    for (size_t i = 0; i < s->key_len; i++)
        snprintf(key + 2 * i, 3, "%02x", s->key[i]);
    o = json_pack("{s:i,s:s,s:i,s:o,s:s}", "migrd-cluster", BUNDLE_VERSION, "name", s->name,
        "token", (int)s->token, "nodes", nodes, "key", key);
    text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    return text;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c != '\0' ? strchr(digits, c) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

static int read_key(struct setup *s, const char *text, struct err *e)
{
    size_t n = strlen(text);

    if (n % 2 != 0 || n / 2 < SETUP_KEY_MIN || n / 2 > SETUP_KEY_MAX)
        return err_set(e, ERR_INVALID,
            "the bundle's key has %zu bytes; corosync wants %d to %d: copy the bundle again", n / 2,
            SETUP_KEY_MIN, SETUP_KEY_MAX);
    for (size_t i = 0; i < n / 2; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return err_set(e, ERR_INVALID, "the bundle's key is damaged: copy the bundle again");
        s->key[i] = (uint8_t)(high << 4 | low);
    }
    s->key_len = n / 2;
    return 0;
}

static bool read_node(struct setup *s, json_t *o)
{
    struct setup_node *x = &s->node[s->n];
    json_t *addresses;
    const char *name;
    size_t i;
    int id;

    if (s->n == HA_NODES_MAX ||
        json_unpack(o, "{s:i,s:s,s:o}", "id", &id, "name", &name, "addresses", &addresses) < 0 ||
        id <= 0 || strlen(name) >= sizeof x->name || json_array_size(addresses) > SETUP_LINKS)
        return false;
    *x = (struct setup_node){ .id = (uint32_t)id };
    snprintf(x->name, sizeof x->name, "%s", name);
    for (i = 0; i < json_array_size(addresses); i++) {
        const char *text = json_string_value(json_array_get(addresses, i));

        if (text == NULL || strlen(text) >= SETUP_ADDRESS_LEN)
            return false;
        snprintf(x->address[i], sizeof x->address[i], "%s", text);
    }
    s->n++;
    return true;
}

static int read_object(struct setup *s, json_t *o, struct err *e)
{
    const char *name, *key;
    int version = 0, token;
    json_t *nodes;
    size_t i;

    if (json_unpack(o, "{s:i}", "migrd-cluster", &version) < 0)
        return err_set(e, ERR_INVALID, "this is no bundle of `migctl cluster init`");
    if (version != BUNDLE_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
            "the bundle is of version %d, this migctl reads %d: use the same release on all hosts",
            version, BUNDLE_VERSION);
    if (json_unpack(o, "{s:s,s:i,s:o,s:s}", "name", &name, "token", &token, "nodes", &nodes, "key",
            &key) < 0 ||
        strlen(name) >= sizeof s->name || token < 0 || !json_is_array(nodes))
        return err_set(e, ERR_INVALID, "the bundle is damaged: copy it again");
    snprintf(s->name, sizeof s->name, "%s", name);
    s->token = (unsigned)token;
    for (i = 0; i < json_array_size(nodes); i++)
        if (!read_node(s, json_array_get(nodes, i)))
            return err_set(
                e, ERR_INVALID, "node %zu of the bundle is damaged: copy it again", i + 1);
    if (read_key(s, key, e) < 0)
        return -1;
    return setup_check(s, e);
}

int setup_read_bundle(struct setup *s, const char *text, size_t len, struct err *e)
{
    json_error_t why;
    json_t *o;
    int rc;

    memset(s, 0, sizeof *s);
    if (len > SETUP_TEXT_MAX)
        return err_set(e, ERR_INVALID, "a bundle has at most %u bytes", SETUP_TEXT_MAX);
    o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (o == NULL)
        return err_set(e, ERR_INVALID, "this is no bundle of `migctl cluster init`: line %d: %s",
            why.line, why.text);
    rc = read_object(s, o, e);
    json_decref(o);
    return rc;
}

/* --- files --- */

struct places {
    char conf[FOLDER_MAX + 20], key[FOLDER_MAX + 20];
};

static int find_places(struct places *p, const char *folder, struct err *e)
{
    if (strlen(folder) > FOLDER_MAX)
        return err_set(e, ERR_INVALID, "%s: too long for a path", folder);
    snprintf(p->conf, sizeof p->conf, "%s/corosync.conf", folder);
    snprintf(p->key, sizeof p->key, "%s/authkey", folder);
    return 0;
}

/* 1 moved, 0 nothing there, -1. A name that is taken gets another number. */
static int set_aside(const char *path, struct err *e)
{
    char old[FOLDER_MAX + 80];

    if (access(path, F_OK) < 0)
        return 0;
    for (unsigned k = 0; k < 100; k++) {
        int n = snprintf(old, sizeof old, "%s.old-%lld", path, (long long)time(NULL));

        if (k > 0)
            snprintf(old + n, sizeof old - (size_t)n, ".%u", k);
        if (access(old, F_OK) == 0)
            continue;
        if (rename(path, old) < 0)
            return err_sys(e, "%s: cannot be kept as %s", path, old);
        return 1;
    }
    return err_set(e, ERR_EXISTS, "%s: too many old ones beside it", path);
}

/* The key and conf that are there already are ours, byte for byte. */
static bool same_file(const char *path, const void *data, size_t len)
{
    size_t n = 0;
    char *old = io_read_file(path, SETUP_TEXT_MAX, &n, NULL);
    bool same = old != NULL && n == len && memcmp(old, data, len) == 0;

    free(old);
    return same;
}

static int put_file(
    const char *path, const void *data, size_t len, mode_t mode, bool force, struct err *e)
{
    if (same_file(path, data, len))
        return chmod(path, mode) == 0 ? 0 : err_sys(e, "%s", path);
    if (access(path, F_OK) == 0 && !force)
        return err_set(e, ERR_EXISTS,
            "%s is there already and differs: --force replaces it, and keeps it as %s.old-TIME",
            path, path);
    if (set_aside(path, e) < 0)
        return -1;
    return io_replace_file(path, data, len, mode, e);
}

/* The example that comes with corosync: one node, on the loopback. It is nobody's cluster. */
static bool is_example(const char *path)
{
    struct setup *s = malloc(sizeof *s);
    struct err e;
    size_t len = 0;
    char *text = io_read_file(path, SETUP_TEXT_MAX, &len, &e);
    bool example = s != NULL && text != NULL && setup_read_conf(s, text, len, &e) == 0 &&
                   s->n == 1 && strncmp(s->node[0].address[0], "127.", 4) == 0;

    free(text);
    free(s);
    return example;
}

int setup_write(
    const struct setup *s, const char *folder, bool other_place, bool force, struct err *e)
{
    struct places p;
    char *conf;
    bool replace;
    int rc = -1;

    if (setup_check(s, e) < 0 || find_places(&p, folder, e) < 0)
        return -1;
    conf = setup_conf(s, other_place ? p.key : NULL);
    if (conf == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    replace = force || is_example(p.conf);
    if (!replace && access(p.conf, F_OK) == 0 && !same_file(p.conf, conf, strlen(conf)))
        err_set(e, ERR_EXISTS,
            "%s is there already and differs: --force replaces it, and keeps it as %s.old-TIME",
            p.conf, p.conf);
    else if (io_make_dirs(folder, 0755, e) == 0 &&
             put_file(p.key, s->key, s->key_len, 0400, force, e) == 0)
        rc = put_file(p.conf, conf, strlen(conf), 0644, replace, e);
    free(conf);
    return rc;
}

int setup_take_away(const char *folder, struct err *e)
{
    struct places p;
    int conf, key;

    if (find_places(&p, folder, e) < 0)
        return -1;
    conf = set_aside(p.conf, e);
    key = conf < 0 ? -1 : set_aside(p.key, e);
    if (conf < 0 || key < 0)
        return -1;
    if (conf + key == 0)
        return err_set(e, ERR_NOT_FOUND, "%s has neither corosync.conf nor authkey", folder);
    return 0;
}
