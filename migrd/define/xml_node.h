/* SPDX-License-Identifier: ISC */
/*
 * xml_node: what the readers of libvirt's XML share: attributes and text with limits and
 * errors that name element and line, and tables of elements (see xml.c). Only for define/.
 */
#ifndef DEFINE_XML_NODE_H
#define DEFINE_XML_NODE_H

#include <libxml/tree.h>

#include "migrd/define/internal.h"

#define XML_ATTR_MAX 1024

typedef int read_fn(struct reader *r, xmlNode *n, void *object);

struct xml_rule {
    const char *name;
    const char *attrs;   /* those allowed, separated by blanks; "*" any */
    read_fn *read;       /* NULL: harmless */
    const char *refused; /* the reason; then the rest does not matter */
    bool many;           /* may be there several times */
};

#define XML_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define XML_WIRING                                                                                 \
    { "alias", "name", NULL, NULL, false },                                                        \
    {                                                                                              \
        "address", "*", NULL, NULL, false                                                          \
    }

unsigned xml_line_of(const xmlNode *n);
const char *xml_name_of(const xmlNode *n);
/* One of several words that blanks separate. */
bool xml_in_words(const char *words, const char *w);

/* 1 and the value, 0 if there is no such attribute, -1. */
int xml_get_attr(struct reader *r, xmlNode *n, const char *name, char out[XML_ATTR_MAX]);
/* The attribute is absent or one of the words. */
int xml_want_attr(struct reader *r, xmlNode *n, const char *name, const char *words);
int xml_need_attr(struct reader *r, xmlNode *n, const char *name, char out[XML_ATTR_MAX]);
/* Refuses attributes that are not in the list. */
int xml_check_attrs(struct reader *r, xmlNode *n, const char *allowed);

/* The text of an element without children, blanks around it cut; malloc'ed, NULL on failure. */
char *xml_get_text(struct reader *r, xmlNode *n);
int xml_set_text(struct reader *r, xmlNode *n, char **field);

/* One element, or all children of one, by the table. */
int xml_read_element(
    struct reader *r, xmlNode *n, const struct xml_rule *rules, size_t count, void *object);
int xml_walk(
    struct reader *r, xmlNode *parent, const struct xml_rule *rules, size_t count, void *object);

/* Foreign bytes: no DTD, no network, no files. `use` has the document's root, NULL: there is none. */
typedef int use_root(struct reader *r, xmlDoc *doc, xmlNode *root, void *object);
int xml_parse(struct reader *r, const char *text, size_t len, use_root *use, void *object);

/* One more note in r->d->metadata; metadata.c. */
int define_metadata_add(struct reader *r, xmlDoc *doc, xmlNode *n);

/* xml_devices.c, xml_cputune.c, xml_cpu.c */
read_fn xml_read_devices;
/* One of them, a child of <devices>. */
int xml_read_device(struct reader *r, xmlNode *n);
read_fn xml_read_cputune;
read_fn xml_read_os, xml_read_cpu, xml_read_memory, xml_read_current_memory, xml_read_backing;

#endif
