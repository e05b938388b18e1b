/* SPDX-License-Identifier: ISC */
/*
 * pbjson: any protobuf-c message as a JSON value, by its descriptor, so that a field
 * added to a .proto shows up in the status socket and in `migctl --json` by itself.
 * Names are the .proto's; numbers of 64 bits are numbers; an enum value PHASE_PRECOPY is
 * "precopy"; bytes are base64; absent messages and unset members of a oneof are left out;
 * text that is not UTF-8 has its odd bytes replaced by '?'.
 */
#ifndef BASE_PBJSON_H
#define BASE_PBJSON_H

#include <jansson.h>
#include <protobuf-c/protobuf-c.h>

/* A new reference; NULL only without memory. */
json_t *pbjson(const ProtobufCMessage *m);

/* The name of an enum's value as pbjson writes it, in `out`; its number if it has none. */
void pbjson_enum(const ProtobufCEnumDescriptor *d, int value, char *out, size_t len);

/* A deep copy, for <type>__free_unpacked; NULL only without memory. */
void *pb_copy(const ProtobufCMessage *m);

/* A JSON string of any bytes up to the NUL, odd ones replaced. */
json_t *pbjson_text(const char *s);

#endif
