/* SPDX-License-Identifier: ISC */
/*
 * err: one way to report a failure through the whole project.
 *
 * A function that can fail returns 0 or a result on success, -1 or NULL on
 * failure, and fills the caller's `struct err`. The text names the object, the
 * reason and, where there is one, the way out ("disk /x.img: no such file;
 * create it or correct disk= in the definition"). The caller owns the struct;
 * nothing in it needs freeing. A NULL `struct err *` is allowed everywhere.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/* The class of a failure; it decides what the caller may do next, the text is for people. */
enum err_code {
    ERR_NONE = 0,
    ERR_SYSTEM,      /* a system call failed for a reason of the host's */
    ERR_MEMORY,      /* this host has not enough memory */
    ERR_INVALID,     /* the caller's input is wrong: file, option, argument */
    ERR_PROTOCOL,    /* the peer's bytes break the protocol */
    ERR_REFUSED,     /* policy says no: acl, certificate, compatibility */
    ERR_EXISTS,      /* name or object is taken */
    ERR_NOT_FOUND,   /* no such object */
    ERR_STATE,       /* the object is in a state that does not allow this */
    ERR_TIMEOUT,     /* a bounded wait ended */
    ERR_PEER,        /* the peer went away */
    ERR_CANCELLED,   /* somebody asked to stop */
    ERR_RESOURCE,    /* a limit of ours or of the target's is reached */
    ERR_UNSUPPORTED, /* this build, kernel or hypervisor cannot do it */
    ERR_EPOCH,       /* the action carries an older epoch than the object */
    ERR_INTEGRITY,   /* data differ from what was sent or stored */
    ERR_INTERNAL,    /* a bug in this program */
    ERR_CODE_MAX
};

struct err {
    enum err_code code;
    char text[500];
};

/* Sets code and text; returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int err_setv(struct err *e, enum err_code code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

/* As err_set with ERR_SYSTEM and ": " strerror(errno) appended; keeps errno. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the text that is there; returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Stable lower-case name of a code ("not-found"); never NULL. */
const char *err_code_name(enum err_code code);

void err_clear(struct err *e);

#endif
