/* SPDX-License-Identifier: ISC */
/*
 * define: a domain's definition from and to text: xm's domain file, libvirt's domain
 * XML. Both give a Migrd__Domain (hypervisor/domain.proto), which the caller frees with
 * migrd__domain__free_unpacked. What cannot be honoured is refused by name and line,
 * never dropped in silence. Text is at most DEFINE_TEXT_MAX bytes.
 */
#ifndef DEFINE_H
#define DEFINE_H

#include <stddef.h>

#include "base/err.h"
#include "hypervisor/domain.pb-c.h"

#define DEFINE_TEXT_MAX (256u * 1024)

enum define_format { DEFINE_AUTO, DEFINE_XM, DEFINE_XML };

/* What was left out of a definition because it does no harm (a screen), for its author: lines,
 * each ended by a newline. */
struct define_notes {
    char text[1024];
};

/* The hypervisor of a definition that names none: this host's. Once, before threads; "xvm" until
 * then. */
void define_default_hypervisor(const char *name);

/*
 * `overrides` are xm create's "key=value" arguments (xm's syntax of values), applied after the
 * text; `file` names it in errors. Fills what is missing: uuid, MAC addresses (00:16:3e, Xen's
 * prefix), max memory, vcpus 1.
 */
Migrd__Domain *define_parse(const char *text, size_t len, enum define_format format,
    const char *file, const char *const *overrides, size_t n_overrides, struct err *e);
Migrd__Domain *define_parse_noted(const char *text, size_t len, enum define_format format,
    const char *file, const char *const *overrides, size_t n_overrides, struct define_notes *notes,
    struct err *e);

/* libvirt XML of a definition (type "xvm" or "xen"); malloc'ed. `id` < 0: not running. */
char *define_xml(const Migrd__Domain *d, int id, struct err *e);

/* What libvirt adds for a domain that runs. */
struct define_live {
    int id;              /* < 0: it does not run */
    const char *console; /* its pty, or "" */
};

char *define_xml_live(const Migrd__Domain *d, const struct define_live *live, struct err *e);

/* xm's domain file of a definition; malloc'ed. */
char *define_xm(const Migrd__Domain *d, struct err *e);

/* Rules that hold however it was made: name, uuid, memory, vcpus 1..64, devices' names unique. */
int define_check(const Migrd__Domain *d, struct err *e);

/* vCPUs that it may ever have. */
unsigned define_max_vcpus(const Migrd__Domain *d);
void define_set_vcpus(Migrd__Domain *d, unsigned vcpus, unsigned max);
/* Weight and cap of hv_sched. */
void define_set_sched(Migrd__Domain *d, unsigned weight, unsigned cap);

/* A copy with one device more, less or changed: libvirt's XML of that device. ERR_EXISTS,
 * ERR_NOT_FOUND name it. */
enum define_change { DEFINE_ATTACH, DEFINE_DETACH, DEFINE_UPDATE };
Migrd__Domain *define_change_device(const Migrd__Domain *d, const char *xml, size_t len,
    enum define_change how, struct err *e);

/* Of a copy: title or description; NULL removes it. */
int define_set_note(char **field, const char *text, struct err *e);
/* The note of that namespace in its <metadata>: malloc'ed, or NULL and ERR_NOT_FOUND. */
char *define_metadata_get(const Migrd__Domain *d, const char *uri, struct err *e);
/* Replaces it, or removes it (`xml` NULL): an element without a namespace, which gets `uri` under the
 * prefix `key`. After a failure the definition is only good for being freed. */
int define_metadata_set(
    Migrd__Domain *d, const char *uri, const char *key, const char *xml, struct err *e);

Migrd__Domain *define_copy(const Migrd__Domain *d);

#endif
