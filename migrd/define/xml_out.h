/* SPDX-License-Identifier: ISC */
/*
 * xml_out: writing small XML documents into memory, for definitions and for libvirt's
 * capabilities. Failures of single calls are collected in `failed`: they all mean no
 * memory. xml_finish gives the text and ends the writer in any case.
 */
#ifndef XML_OUT_H
#define XML_OUT_H

#include <stdbool.h>

#include <libxml/xmlwriter.h>

struct xml_out {
    xmlBuffer *buffer;
    xmlTextWriter *w;
    bool failed;
};

void xml_start(struct xml_out *x);
/* malloc'ed; NULL: no memory. */
char *xml_finish(struct xml_out *x);

void xml_begin(struct xml_out *x, const char *name);
void xml_end(struct xml_out *x);
void xml_attr(struct xml_out *x, const char *name, const char *value);
void xml_attr_number(struct xml_out *x, const char *name, unsigned long long value);
/* An element with text. */
void xml_text(struct xml_out *x, const char *name, const char *value);

#endif
