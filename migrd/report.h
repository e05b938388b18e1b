/* SPDX-License-Identifier: ISC */
/*
 * report: the state of this host as messages of control.proto, built on request for
 * the control socket and the status socket alike. Each call returns a fresh Reply that
 * the caller frees with migrd__reply__free_unpacked; NULL only without memory. In the
 * loop's thread; nothing blocks: figures of the hypervisor are the last ones polled.
 */
#ifndef MIGRD_REPORT_H
#define MIGRD_REPORT_H

#include "migrd/control.pb-c.h"
#include "migrd/migrd.h"

Migrd__Reply *report_domains(struct migrd *m, bool all);
/* One domain by name, uuid or id; a reply with `failure` if there is none. */
Migrd__Reply *report_domain(struct migrd *m, const char *which);
Migrd__Reply *report_migrations(struct migrd *m, bool finished);
Migrd__Reply *report_host(struct migrd *m);

#endif
