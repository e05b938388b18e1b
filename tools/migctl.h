/* SPDX-License-Identifier: ISC */
/*
 * migctl: what xm never had: migrations with a report, the relocation's rules and
 * certificates, the journal. One function per subcommand; the table is in migctl.c.
 */
#ifndef TOOLS_MIGCTL_H
#define TOOLS_MIGCTL_H

#include "tools/tool.h"

int migctl_run(int argc, char **argv);

/* migctl_show.c */
int migctl_status(struct tool *t, int argc, char **argv);
int migctl_list(struct tool *t, int argc, char **argv);
int migctl_migrations(struct tool *t, int argc, char **argv);
int migctl_journal(struct tool *t, int argc, char **argv);
int migctl_dump(struct tool *t, int argc, char **argv);

/* migctl_migrate.c */
int migctl_migrate(struct tool *t, int argc, char **argv);
int migctl_watch(struct tool *t, int argc, char **argv);
int migctl_cancel(struct tool *t, int argc, char **argv);
int migctl_tune(struct tool *t, int argc, char **argv);
int migctl_resolve(struct tool *t, int argc, char **argv);

/* migctl_pki.c */
int migctl_pki(struct tool *t, int argc, char **argv);

/* migctl_cpu.c */
int migctl_cpu(struct tool *t, int argc, char **argv);

/* migctl_storage.c */
int migctl_storage(struct tool *t, int argc, char **argv);

/* migctl_ha.c, migctl_node.c, migctl_cluster.c */
int migctl_ha(struct tool *t, int argc, char **argv);
int migctl_node(struct tool *t, int argc, char **argv);
int migctl_cluster(struct tool *t, int argc, char **argv);

/* migctl_config.c */
int migctl_acl(struct tool *t, int argc, char **argv);
int migctl_config(struct tool *t, int argc, char **argv);
int migctl_import_xend(struct tool *t, int argc, char **argv);
int migctl_reload(struct tool *t, int argc, char **argv);

#endif
