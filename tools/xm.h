/* SPDX-License-Identifier: ISC */
/*
 * xm: the command of xend's days over migrd's control socket: the same subcommands,
 * options and columns, so that fingers and scripts go on working. One function per
 * subcommand, in the files named below; the table is in xm.c.
 */
#ifndef TOOLS_XM_H
#define TOOLS_XM_H

#include "tools/tool.h"

int xm_run(int argc, char **argv);

/* Says so and returns true when `which` is the host itself: nothing can be done to it. */
bool xm_refuse_dom0(const char *which, const char *action);

/* xm_list.c */
int xm_list(struct tool *t, int argc, char **argv);
int xm_vcpu_list(struct tool *t, int argc, char **argv);
int xm_domid(struct tool *t, int argc, char **argv);
int xm_domname(struct tool *t, int argc, char **argv);
int xm_uptime(struct tool *t, int argc, char **argv);

/* xm_cpu.c */
int xm_vcpu_pin(struct tool *t, int argc, char **argv);
int xm_vcpu_set(struct tool *t, int argc, char **argv);
int xm_sched_credit(struct tool *t, int argc, char **argv);
int xm_mem_max(struct tool *t, int argc, char **argv);

/* xm_sxp.c: a domain as the s-expression that xend kept. */
void xm_print_sxp(const Migrd__DomainInfo *d);
/* "r-----" and its like; ten blanks' worth of nothing for a domain that does not run. */
const char *xm_state(const Migrd__DomainInfo *d);

/* xm_info.c */
int xm_info(struct tool *t, int argc, char **argv);
int xm_dmesg(struct tool *t, int argc, char **argv);
int xm_log(struct tool *t, int argc, char **argv);
/* The host's own use of its CPUs in ns and its memory, for the row of Domain-0. */
uint64_t xm_host_cpu_ns(void);

/* xm_create.c */
int xm_create(struct tool *t, int argc, char **argv);
int xm_new(struct tool *t, int argc, char **argv);
int xm_start(struct tool *t, int argc, char **argv);
int xm_delete(struct tool *t, int argc, char **argv);
int xm_console(struct tool *t, int argc, char **argv);

/* xm_domain.c */
int xm_pause(struct tool *t, int argc, char **argv);
int xm_unpause(struct tool *t, int argc, char **argv);
int xm_destroy(struct tool *t, int argc, char **argv);
int xm_shutdown(struct tool *t, int argc, char **argv);
int xm_reboot(struct tool *t, int argc, char **argv);
int xm_save(struct tool *t, int argc, char **argv);
int xm_dump_core(struct tool *t, int argc, char **argv);
int xm_restore(struct tool *t, int argc, char **argv);
int xm_mem_set(struct tool *t, int argc, char **argv);
/* An amount of memory, in MiB unless it says otherwise; an exit code, the error is said. */
int xm_take_memory(struct tool *t, const char *word, uint64_t *kib);
int xm_migrate(struct tool *t, int argc, char **argv);

#endif
