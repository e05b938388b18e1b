/* SPDX-License-Identifier: ISC */
#include "base/pbjson.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *pbjson_text(const char *s)
{
    json_t *j = json_string(s);
    char *copy;

    if (j != NULL)
        return j;
    copy = strdup(s);
    if (copy == NULL)
        return NULL;
    for (char *p = copy; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    j = json_string(copy);
    free(copy);
    return j;
}

void pbjson_enum(const ProtobufCEnumDescriptor *d, int value, char *out, size_t len)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(d, value);
    const char *cut;

    if (v == NULL) {
        snprintf(out, len, "%d", value);
        return;
    }
    cut = strchr(v->name, '_');
    snprintf(out, len, "%s", cut != NULL ? cut + 1 : v->name);
    for (char *p = out; *p != '\0'; p++)
        *p = (char)(*p == '_' ? '-' : tolower((unsigned char)*p));
}

static json_t *base64(const ProtobufCBinaryData *b)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((b->len + 2) / 3 * 4 + 1), *o = text;
    json_t *j;

    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < b->len; i += 3) {
        size_t n = b->len - i < 3 ? b->len - i : 3;
        uint32_t w = (uint32_t)b->data[i] << 16;

        if (n > 1)
            w |= (uint32_t)b->data[i + 1] << 8;
        if (n > 2)
            w |= b->data[i + 2];
        *o++ = set[w >> 18];
        *o++ = set[w >> 12 & 63];
        *o++ = n > 1 ? set[w >> 6 & 63] : '=';
        *o++ = n > 2 ? set[w & 63] : '=';
    }
    *o = '\0';
    j = json_string(text);
    free(text);
    return j;
}

/* JSON's integers are signed here; the few beyond that keep their size as a real. */
static json_t *unsigned_number(uint64_t v)
{
    return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

static json_t *enum_value(const ProtobufCFieldDescriptor *f, int value)
{
    char name[64];

    pbjson_enum(f->descriptor, value, name, sizeof name);
    return json_string(name);
}

/* One value at `p`, which points to a member of a message or an element of an array. */
static json_t *value(const ProtobufCFieldDescriptor *f, const void *p)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return json_integer(*(const int32_t *)p);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return json_integer(*(const int64_t *)p);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return json_integer(*(const uint32_t *)p);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return unsigned_number(*(const uint64_t *)p);
    case PROTOBUF_C_TYPE_FLOAT:
        return json_real((double)*(const float *)p);
    case PROTOBUF_C_TYPE_DOUBLE:
        return json_real(*(const double *)p);
    case PROTOBUF_C_TYPE_BOOL:
        return json_boolean(*(const protobuf_c_boolean *)p);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_value(f, *(const int *)p);
    case PROTOBUF_C_TYPE_STRING:
        return pbjson_text(*(char *const *)p != NULL ? *(char *const *)p : "");
    case PROTOBUF_C_TYPE_BYTES:
        return base64(p);
    case PROTOBUF_C_TYPE_MESSAGE:
        return pbjson(*(const ProtobufCMessage *const *)p);
    }
    return NULL;
}

static size_t element_size(ProtobufCType t)
{
    switch (t) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    }
    return 0;
}

static json_t *array(const ProtobufCFieldDescriptor *f, const char *base)
{
    size_t n = *(const size_t *)(const void *)(base + f->quantifier_offset);
    const char *items = *(const char *const *)(const void *)(base + f->offset);
    json_t *a = json_array();

    for (size_t i = 0; a != NULL && i < n; i++)
        json_array_append_new(a, value(f, items + i * element_size(f->type)));
    return a;
}

static bool present(const ProtobufCFieldDescriptor *f, const char *base)
{
    const void *q = base + f->quantifier_offset;

    if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
        return *(const uint32_t *)q == f->id;
    if (f->type == PROTOBUF_C_TYPE_MESSAGE && f->label != PROTOBUF_C_LABEL_REPEATED)
        return *(void *const *)(const void *)(base + f->offset) != NULL;
    if (f->label == PROTOBUF_C_LABEL_OPTIONAL && f->type != PROTOBUF_C_TYPE_STRING)
        return *(const protobuf_c_boolean *)q;
    return true;
}

json_t *pbjson(const ProtobufCMessage *m)
{
    const char *base = (const char *)m;
    json_t *o = json_object();

    for (unsigned i = 0; o != NULL && i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            json_object_set_new(o, f->name, array(f, base));
        else if (present(f, base))
            json_object_set_new(o, f->name, value(f, base + f->offset));
    }
    return o;
}

void *pb_copy(const ProtobufCMessage *m)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    uint8_t *buf = malloc(len + 1);
    ProtobufCMessage *copy = NULL;

    if (buf != NULL) {
        protobuf_c_message_pack(m, buf);
        copy = protobuf_c_message_unpack(m->descriptor, NULL, len, buf);
    }
    free(buf);
    return copy;
}
