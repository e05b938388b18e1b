/* SPDX-License-Identifier: ISC */
#include "migrd/define/xml_out.h"

#include <string.h>

void xml_start(struct xml_out *x)
{
    x->buffer = xmlBufferCreate();
    x->w = x->buffer == NULL ? NULL : xmlNewTextWriterMemory(x->buffer, 0);
    x->failed = x->w == NULL || xmlTextWriterSetIndent(x->w, 1) < 0 ||
                xmlTextWriterSetIndentString(x->w, (const xmlChar *)"  ") < 0;
}

char *xml_finish(struct xml_out *x)
{
    char *text = NULL;

    if (x->w != NULL) {
        x->failed |= xmlTextWriterFlush(x->w) < 0;
        xmlFreeTextWriter(x->w);
    }
    if (!x->failed)
        text = strdup((const char *)xmlBufferContent(x->buffer));
    xmlBufferFree(x->buffer);
    return text;
}

void xml_begin(struct xml_out *x, const char *name)
{
    x->failed |= xmlTextWriterStartElement(x->w, (const xmlChar *)name) < 0;
}

void xml_end(struct xml_out *x)
{
    x->failed |= xmlTextWriterEndElement(x->w) < 0;
}

void xml_attr(struct xml_out *x, const char *name, const char *value)
{
    x->failed |=
        xmlTextWriterWriteAttribute(x->w, (const xmlChar *)name, (const xmlChar *)value) < 0;
}

void xml_attr_number(struct xml_out *x, const char *name, unsigned long long value)
{
    x->failed |= xmlTextWriterWriteFormatAttribute(x->w, (const xmlChar *)name, "%llu", value) < 0;
}

void xml_text(struct xml_out *x, const char *name, const char *value)
{
    x->failed |= xmlTextWriterWriteElement(x->w, (const xmlChar *)name, (const xmlChar *)value) < 0;
}
