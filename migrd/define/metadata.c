/* SPDX-License-Identifier: ISC */
/*
 * <metadata>: notes of other programs about a domain, kept as they are. Each is an element of a
 * namespace of its own; a definition has them as the text of these elements, one behind the other,
 * each with the namespaces that it needs. An element of our own namespace is no note: it is read
 * into fields.
 */
#include <stdlib.h>
#include <string.h>

#include "migrd/define/xml_node.h"

static bool is_of(const xmlNode *n, const char *uri)
{
    return n->ns != NULL && n->ns->href != NULL && strcmp((const char *)n->ns->href, uri) == 0;
}

static char *text_of(struct reader *r, xmlDoc *doc, xmlNode *n)
{
    xmlNode *copy = xmlDocCopyNode(n, doc, 1); /* takes along what its ancestors declare */
    xmlBuffer *b = xmlBufferCreate();
    char *text = NULL;

    if (copy != NULL && b != NULL && xmlNodeDump(b, doc, copy, 0, 0) >= 0)
        text = strdup((const char *)xmlBufferContent(b));
    xmlBufferFree(b);
    xmlFreeNode(copy);
    if (text == NULL)
        define_no_memory(r);
    return text;
}

int define_metadata_add(struct reader *r, xmlDoc *doc, xmlNode *n)
{
    size_t had = strlen(r->d->metadata), len;
    char *text, *both;
    int rc;

    if (n->ns == NULL || n->ns->href == NULL)
        return define_fault(r, xml_line_of(n), ERR_INVALID,
            "<%.40s> in <metadata> has no namespace: it could not be told from others' notes",
            xml_name_of(n));
    text = text_of(r, doc, n);
    if (text == NULL)
        return -1;
    len = strlen(text);
    both = had + len > DEFINE_METADATA_MAX ? NULL : malloc(had + len + 1);
    if (both == NULL) {
        free(text);
        return had + len > DEFINE_METADATA_MAX
                   ? define_fault(r, xml_line_of(n), ERR_INVALID,
                         "<metadata> has more than %d bytes", DEFINE_METADATA_MAX)
                   : define_no_memory(r);
    }
    memcpy(both, r->d->metadata, had);
    memcpy(both + had, text, len + 1);
    rc = define_text(r, &r->d->metadata, both);
    free(both);
    free(text);
    return rc;
}

/* --- what a definition has --- */

/* Calls `use` with an element that has the notes as its children. */
static int with_notes(struct reader *r, const char *notes, use_root *use, void *object)
{
    static const char open[] = "<metadata>", end[] = "</metadata>";
    size_t len = strlen(notes), all = len + sizeof open + sizeof end - 2;
    char *text;
    int rc;

    if (len > DEFINE_METADATA_MAX)
        return define_fault(
            r, 0, ERR_INVALID, "<metadata> has more than %d bytes", DEFINE_METADATA_MAX);
    text = malloc(all + 1);
    if (text == NULL)
        return define_no_memory(r);
    memcpy(text, open, sizeof open - 1);
    memcpy(text + sizeof open - 1, notes, len);
    memcpy(text + sizeof open - 1 + len, end, sizeof end);
    rc = xml_parse(r, text, all, use, object);
    free(text);
    return rc;
}

static int check_notes(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    (void)doc;
    (void)object;
    for (xmlNode *n = root->children; n != NULL; n = n->next)
        if (n->type != XML_ELEMENT_NODE || n->ns == NULL || n->ns->href == NULL ||
            is_of(n, DEFINE_XML_NS))
            return define_fault(
                r, 0, ERR_INVALID, "<metadata>: only elements of other namespaces may be in it");
    return 0;
}

int define_metadata_check(const char *notes, struct err *e)
{
    struct reader r = { .file = "metadata", .e = e };

    return notes[0] == '\0' ? 0 : with_notes(&r, notes, check_notes, NULL);
}

struct wanted {
    const char *uri;
    char *text;
};

static int find_note(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    struct wanted *w = object;

    for (xmlNode *n = root->children; n != NULL; n = n->next)
        if (n->type == XML_ELEMENT_NODE && is_of(n, w->uri)) {
            w->text = text_of(r, doc, n);
            return w->text != NULL ? 0 : -1;
        }
    return define_fault(r, 0, ERR_NOT_FOUND, "there is no note of namespace %.100s", w->uri);
}

char *define_metadata_get(const Migrd__Domain *d, const char *uri, struct err *e)
{
    struct reader r = { .file = d->name, .e = e };
    struct wanted w = { .uri = uri };

    with_notes(&r, d->metadata, find_note, &w);
    return w.text;
}

/* --- changing it --- */

/* All but those of that namespace. */
static int keep_others(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    const char *uri = object;

    for (xmlNode *n = root->children; n != NULL; n = n->next)
        if (n->type == XML_ELEMENT_NODE && !is_of(n, uri) && define_metadata_add(r, doc, n) < 0)
            return -1;
    return 0;
}

struct note {
    const char *uri, *key;
};

static int add_note(struct reader *r, xmlDoc *doc, xmlNode *root, void *object)
{
    const struct note *note = object;
    xmlNs *ns;

    if (root == NULL)
        return define_fault(r, 1, ERR_INVALID, "there is no element");
    if (root->ns != NULL)
        return define_fault(
            r, 1, ERR_INVALID, "<%.40s> has a namespace already", xml_name_of(root));
    ns = xmlNewNs(root, (const xmlChar *)note->uri, (const xmlChar *)note->key);
    if (ns == NULL)
        return define_no_memory(r);
    xmlSetNs(root, ns);
    return define_metadata_add(r, doc, root);
}

int define_metadata_set(
    Migrd__Domain *d, const char *uri, const char *key, const char *xml, struct err *e)
{
    struct reader r = { .d = d, .file = "metadata", .e = e };
    struct note note = { uri, key };
    char *old = strdup(d->metadata);
    int rc;

    if (old == NULL)
        return define_no_memory(&r);
    if (strcmp(uri, DEFINE_XML_NS) == 0 || uri[0] == '\0') {
        free(old);
        return define_fault(&r, 0, ERR_INVALID, "namespace '%.60s' is not for notes", uri);
    }
    rc = define_text(&r, &d->metadata, "");
    if (rc == 0)
        rc = with_notes(&r, old, keep_others, (void *)(uintptr_t)uri);
    if (rc == 0 && xml != NULL)
        rc = xml_parse(&r, xml, strlen(xml), add_note, &note);
    free(old);
    return rc;
}
