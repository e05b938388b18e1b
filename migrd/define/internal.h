/* SPDX-License-Identifier: ISC */
/*
 * internal: what the parts of define share: define.c (entry, defaults, rules), xen.c (what
 * only Xen's domains have), pyvalue.c (Python-like values), xm.c (keys of xm's domain file),
 * xml.c (libvirt XML), and the two writers. Nobody else includes this.
 */
#ifndef DEFINE_INTERNAL_H
#define DEFINE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/hypervisor.h"
#include "migrd/define/define.h"

#define DEFINE_DEVICES_MAX 11   /* xvm's virtio-mmio slots: disks, vifs, rng, balloon */
#define DEFINE_PATH_MAX 1023    /* bytes of a path */
#define DEFINE_CMDLINE_MAX 1600 /* bytes; the kernel takes 2047, xvm adds its devices */
#define DEFINE_VCPUS_MAX HV_VCPUS_MAX
#define DEFINE_CAP_PERIOD_US 100000                /* in which XML tells a cap */
#define DEFINE_MEMORY_MAX_KIB (UINT64_C(16) << 30) /* 16 TiB */
#define DEFINE_SERIAL_MAX 20
#define DEFINE_TITLE_MAX 256
#define DEFINE_DESCRIPTION_MAX 16384
#define DEFINE_METADATA_MAX 65536
/* Namespace of our own elements in <metadata>: <migrd:cpu level='...'/>, <migrd:xen .../>. */
#define DEFINE_XML_NS "urn:migrd:domain:1"

/* A definition being read. Failures go through define_fault, which names file and line. */
struct reader {
    Migrd__Domain *d;
    const char *file;
    bool balloon_set; /* said by the text; else it defaults to yes */
    bool rng_set;     /* there is one in the text */
    bool partial;     /* a device that is only to be found: what names it is enough */
    struct define_notes *notes; /* NULL: nobody wants them */
    struct err *e;
};

/* Sets "FILE:LINE: ..." (without the number if line is 0); returns -1. */
int define_fault(struct reader *r, unsigned line, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* One more note: what is left out, and why that does no harm. */
void define_note(struct reader *r, unsigned line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

int define_no_memory(struct reader *r);

/* Replaces a string of a message. */
int define_text(struct reader *r, char **field, const char *value);

/* Appends an empty device to the domain, which owns it; NULL without memory. */
Migrd__Disk *define_add_disk(struct reader *r);
Migrd__Vif *define_add_vif(struct reader *r);
void define_clear_disks(Migrd__Domain *d);
void define_clear_vifs(Migrd__Domain *d);

/* "destroy", ...; refuses the others by name, `key` is for the message. */
int define_on_event(
    struct reader *r, unsigned line, const char *key, const char *word, Migrd__OnEvent *out);

/* NULL for ON_DEFAULT. */
const char *define_on_event_word(Migrd__OnEvent on);

/* ---- xen.c ---- */

bool define_is_xen(const Migrd__Domain *d);

/* Words of the texts, checked, into a field of the definition. */
int define_disk_format(struct reader *r, unsigned line, const char *word, char **field);
int define_disk_backend(struct reader *r, unsigned line, const char *word, char **field);
int define_tsc_mode(struct reader *r, unsigned line, const char *word, char **field);
int define_firmware(struct reader *r, unsigned line, const char *word, char **field);
int define_bootloader(struct reader *r, unsigned line, const char *word, char **field);
int define_script(
    struct reader *r, unsigned line, const char *what, const char *word, char **field);
int define_add_bootloader_arg(struct reader *r, const char *text);
/* Several in one text. */
int define_add_bootloader_args(struct reader *r, const char *text);

/* libvirt's mode of the timer "tsc"; NULL: there is no such mode. */
const char *define_tsc_timer(const char *mode);

int define_fill_xen(struct reader *r);
int define_check_xen(const Migrd__Domain *d, struct err *e);

/* ---- storage.c ---- */

/* "report", ...; `key` is for the message. */
int define_io_error(
    struct reader *r, unsigned line, const char *key, const char *word, Migrd__OnIoError *out);

/* NULL for IO_DEFAULT. */
const char *define_io_error_word(Migrd__OnIoError on);

int define_cache(struct reader *r, unsigned line, const char *word, char **field);

/* The rules of a disk's storage: source, cache, error policy, wwn, npiv. */
int define_check_storage(const Migrd__Disk *k, struct err *e);

/* nfs://HOST[:PORT]NAME[?QUERY] or iscsi://[USER@]HOST[:PORT]/NAME */
struct define_source {
    const char *protocol; /* "nfs", "iscsi" */
    char host[DEFINE_PATH_MAX + 1], port[16], user[DEFINE_PATH_MAX + 1];
    char name[DEFINE_PATH_MAX + 1], query[DEFINE_PATH_MAX + 1];
};

/* False for a path. */
bool define_source_split(const char *source, struct define_source *s);
int define_source_join(
    struct reader *r, unsigned line, const struct define_source *s, char **field);

/* Of a definition from anywhere: it can be put into XML and read again. */
int define_metadata_check(const char *notes, struct err *e);

/* The readers fill r->d. */
int define_read_xm(struct reader *r, const char *text, size_t len, const char *const *overrides,
    size_t n_overrides);
int define_read_xml(struct reader *r, const char *text, size_t len);
/* One device, which is added to r->d. */
int define_read_xml_device(struct reader *r, const char *text, size_t len);
/* The host's, if it is not said. */
int define_fill_hypervisor(struct reader *r);
/* What is missing: uuid, MAC addresses, vCPUs, ... */
int define_fill(struct reader *r);

/* xm create's key=value arguments on a definition that was read from XML. */
int define_override(struct reader *r, const char *const *overrides, size_t n_overrides);

#endif
