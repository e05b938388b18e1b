/* SPDX-License-Identifier: ISC */
#include "migrd/define/xml_node.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- nodes ---- */

unsigned xml_line_of(const xmlNode *n)
{
    return (unsigned)xmlGetLineNo(n);
}

const char *xml_name_of(const xmlNode *n)
{
    return (const char *)n->name;
}

bool xml_in_words(const char *words, const char *w)
{
    size_t n = strlen(w);

    if (n == 0 || strchr(w, ' ') != NULL)
        return false;
    for (const char *p = strstr(words, w); p != NULL; p = strstr(p + 1, w))
        if ((p == words || p[-1] == ' ') && (p[n] == '\0' || p[n] == ' '))
            return true;
    return false;
}

/* 1 and the value, 0 if there is no such attribute, -1. */
int xml_get_attr(struct reader *r, xmlNode *n, const char *name, char out[XML_ATTR_MAX])
{
    xmlChar *value = xmlGetNoNsProp(n, (const xmlChar *)name);
    int rc = 1;

    out[0] = '\0';
    if (value == NULL)
        return 0;
    if (strlen((char *)value) >= XML_ATTR_MAX)
        rc = define_fault(r, xml_line_of(n), ERR_INVALID, "<%.40s %s=...>: the value is too long",
            xml_name_of(n), name);
    else
        strcpy(out, (char *)value);
    xmlFree(value);
    return rc;
}

/* The attribute is absent or one of the words. */
int xml_want_attr(struct reader *r, xmlNode *n, const char *name, const char *words)
{
    char value[XML_ATTR_MAX];
    int rc = xml_get_attr(r, n, name, value);

    if (rc <= 0 || xml_in_words(words, value))
        return rc < 0 ? -1 : 0;
    return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
        "<%.40s %s='%.40s'> is not supported; supported: %s", xml_name_of(n), name, value, words);
}

int xml_need_attr(struct reader *r, xmlNode *n, const char *name, char out[XML_ATTR_MAX])
{
    int rc = xml_get_attr(r, n, name, out);

    if (rc == 0)
        return define_fault(
            r, xml_line_of(n), ERR_INVALID, "<%.40s> has no attribute %s", xml_name_of(n), name);
    return rc < 0 ? -1 : 0;
}

/* The text of an element without children, blanks around it cut; malloc'ed, NULL on failure. */
char *xml_get_text(struct reader *r, xmlNode *n)
{
    xmlChar *content;
    char *text, *begin;
    size_t len;

    for (const xmlNode *c = n->children; c != NULL; c = c->next)
        if (c->type == XML_ELEMENT_NODE) {
            define_fault(r, xml_line_of(c), ERR_INVALID,
                "<%.40s> has text, not elements such as <%.40s>", xml_name_of(n), xml_name_of(c));
            return NULL;
        }
    content = xmlNodeGetContent(n);
    if (content == NULL) {
        define_no_memory(r);
        return NULL;
    }
    begin = (char *)content;
    while (isspace((unsigned char)*begin))
        begin++;
    len = strlen(begin);
    while (len > 0 && isspace((unsigned char)begin[len - 1]))
        len--;
    text = strndup(begin, len);
    xmlFree(content);
    if (text == NULL)
        define_no_memory(r);
    return text;
}

int xml_set_text(struct reader *r, xmlNode *n, char **field)
{
    char *text = xml_get_text(r, n);
    int rc = text == NULL ? -1 : define_text(r, field, text);

    free(text);
    return rc;
}

/* ---- walking ---- */

int xml_check_attrs(struct reader *r, xmlNode *n, const char *allowed)
{
    if (strcmp(allowed, "*") == 0)
        return 0;
    for (const xmlAttr *a = n->properties; a != NULL; a = a->next)
        if (a->ns != NULL || !xml_in_words(allowed, (const char *)a->name))
            return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
                "<%.40s %.40s=...>: this attribute is not supported", xml_name_of(n),
                (const char *)a->name);
    return 0;
}

static bool is_blank_text(const xmlNode *n)
{
    for (const xmlChar *p = n->content; p != NULL && *p != '\0'; p++)
        if (!isspace(*p))
            return false;
    return true;
}

static bool came_before(const xmlNode *n)
{
    for (const xmlNode *p = n->prev; p != NULL; p = p->prev)
        if (p->type == XML_ELEMENT_NODE && xmlStrEqual(p->name, n->name))
            return true;
    return false;
}

int xml_read_element(
    struct reader *r, xmlNode *n, const struct xml_rule *rules, size_t count, void *object)
{
    const char *parent = xml_name_of(n->parent);

    if (n->ns != NULL && n->ns->prefix != NULL)
        return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED, "<%.40s:%.40s> is not supported",
            (const char *)n->ns->prefix, xml_name_of(n));
    for (size_t i = 0; i < count; i++) {
        const struct xml_rule *u = &rules[i];

        if (strcmp(u->name, xml_name_of(n)) != 0)
            continue;
        if (u->refused != NULL)
            return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED,
                "<%s> in <%s> is not supported: %s", u->name, parent, u->refused);
        if (!u->many && came_before(n))
            return define_fault(
                r, xml_line_of(n), ERR_INVALID, "<%s> is there twice in <%s>", u->name, parent);
        if (xml_check_attrs(r, n, u->attrs) < 0)
            return -1;
        return u->read == NULL ? 0 : u->read(r, n, object);
    }
    return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED, "<%.40s> in <%.40s> is not supported",
        xml_name_of(n), parent);
}

int xml_walk(
    struct reader *r, xmlNode *parent, const struct xml_rule *rules, size_t count, void *object)
{
    for (xmlNode *n = parent->children; n != NULL; n = n->next) {
        if (n->type == XML_ELEMENT_NODE) {
            if (xml_read_element(r, n, rules, count, object) < 0)
                return -1;
        } else if ((n->type == XML_TEXT_NODE || n->type == XML_CDATA_SECTION_NODE) &&
                   !is_blank_text(n)) {
            return define_fault(
                r, xml_line_of(n), ERR_INVALID, "there is text in <%.40s>", xml_name_of(parent));
        } else if (n->type == XML_ENTITY_REF_NODE) {
            return define_fault(r, xml_line_of(n), ERR_UNSUPPORTED, "entities are not supported");
        }
    }
    return 0;
}
