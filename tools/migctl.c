/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include "tools/xm.h"

static int migctl_help(struct tool *t, int argc, char **argv);

static int migctl_version(struct tool *t, int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("%s of migrd %s\n", t->program, MIGRD_VERSION);
    return TOOL_OK;
}

static const char migrate_options[] =
    "  --port PORT          port of the target's migrd (default 8002)\n"
    "  --budget TIME        longest pause of the guest to aim for: 100ms\n"
    "  --bandwidth RATE     at most so much per second: 100M (MiB)\n"
    "  --channels N         data connections, 1 to 16\n"
    "  --time-limit TIME    give up and leave it here after: 60s\n"
    "  --throttle-max PCT   slow the guest by at most so much, 1 to 99 percent\n"
    "  --compression HOW    auto, none, lz4 or zstd\n"
    "  --verify             compare all memory before the target may run it\n"
    "  --paused             leave it paused on the target\n"
    "  --not-live           pause it first, move it then\n"
    "  --allow-paused       the same, but only where the hypervisor cannot move it while it runs\n"
    "  --change-home        its definition moves along\n"
    "  --tls yes|no         encrypt, or not, whatever migrd.conf says\n"
    "  --dry-run            move nothing: ask the target, and forecast time and pause\n"
    "  --quiet              no progress and no report, errors only\n"
    "  --json               the final record as JSON\n\n"
    "What is not given is taken from migrd.conf. ^C asks migrd to cancel; a second ^C\n"
    "leaves, and the migration goes on without you.\n"
    "Exit status of --dry-run 0: it would converge, 3: it would not, 1: it cannot be.\n";

static const char resolve_options[] =
    "  --run-here           this host's copy is the one: run it here\n"
    "  --discard            the other host's copy is the one: drop this host's\n"
    "  --force              although the other host could not be asked\n"
    "  --reason TEXT        is kept in the journal\n\n"
    "Only for a domain whose hand-over stopped half-way ('in doubt'). Make sure that the\n"
    "other host does not run it before you use --run-here --force: two running copies\n"
    "ruin its disks.\n";

static const char pki_options[] =
    "  init [--name NAME] [--days N]                 make a certificate authority\n"
    "  issue HOST [--alt NAME]... [--out DIR] [--days N] [--from YYYY-MM-DD]\n"
    "                                                a key and certificate for HOST\n"
    "  client NAME [--out DIR] [--days N] [--from YYYY-MM-DD]\n"
    "                                                the same for a user of virsh\n"
    "  renew [--out DIR] [--days N]                  the same key with new dates\n"
    "  show [FILE...]                                what is there, until when it is valid\n\n"
    "  --dir DIR            the authority's folder (default /etc/migrd/pki)\n"
    "  --out DIR            where host.key, host.crt and ca.crt go (default: --dir, of a client\n"
    "                       a folder NAME in it)\n"
    "  --alt NAME           a further name or address of the host; may be repeated\n";

static const char cpu_options[] =
    "  show [HOST]          CPU and features that a host can give to guests\n"
    "  baseline [HOST]...   the CPU level that this host and HOSTs share, for cpu_level=\n"
    "  compare HOST         what this host and HOST lack of each other\n\n"
    "  --port PORT          port of the others' migrd (default 8002)\n"
    "  --tls yes|no         encrypt, or not, whatever migrd.conf says\n"
    "  --json               as JSON\n\n"
    "Exit status of compare 0: HOST has all that this host has, 3: it lacks something.\n";

static const char storage_options[] =
    "  check SOURCE...      what this host sees of disks: files, devices, nfs://, iscsi://\n"
    "  lease SOURCE...      who has a lease on them, under which epoch\n"
    "  forget SOURCE...     removes the record of a lease that was given up\n\n"
    "  --read-only          as disks that the guest only reads\n"
    "  --force              forget: also one that was not given up; the domain must run nowhere\n"
    "  --json               as JSON\n\n"
    "Exit status of check 0: all can be used, 1: some cannot.\n";

static const char ha_options[] =
    "  add DOMAIN [options]            protect a domain\n"
    "  remove DOMAIN                   end that; the domain runs on\n"
    "  set DOMAIN [options]            change its policy, start or stop it\n"
    "  status [--json | --check]       nodes, domains, what needs attention\n"
    "  explain DOMAIN                  why it is where it is, and where it could run\n"
    "  what-if NODE...                 where domains would go if these nodes died now\n"
    "  move DOMAIN NODE, cancel DOMAIN live, from whatever node it runs on\n"
    "  disarm, arm                     no failovers meanwhile: for work on the cluster itself\n"
    "  confirm-dead NODE --reason TEXT a person's word that a host does not run\n"
    "  release DOMAIN|NODE             a blocked domain is clean; a node leaves quarantine\n\n"
    "'migctl help ha add' and so on say more.\n";

static const char node_options[] =
    "  list [--json]                   the nodes of the cluster\n"
    "  drain NODE [options]            move all protected domains away from it\n"
    "  undrain NODE [--return-home]    end that, also half-way\n\n"
    "'migctl help node drain' and so on say more.\n";

static const char cluster_options[] =
    "  init NAME --node NAME=ADDRESS...  set corosync up here, and make a bundle\n"
    "  join BUNDLE                     set corosync up with that bundle\n"
    "  leave                           take its configuration and key away\n"
    "  status                          all that must be right for this host to take part\n\n"
    "'migctl help cluster init' and so on say more.\n";

static const char acl_options[] =
    "  --config FILE        ask that migrd.conf, not the running migrd\n\n"
    "Exit status 0: admitted, 1: refused.\n";

static const char json_option[] = "  --json               as JSON\n";

static const struct tool_cmd commands[] = {
    { "status", "[--json]", "The host, its domains and migrations at a glance.", migctl_status,
        json_option, true },
    { "list", "[--json | --names]", "Domains: where they run and under which epoch.", migctl_list,
        "  --json               as JSON\n  --names              names only\n", true },
    { "migrate", "DOMAIN HOST [options]", "Move a running domain to HOST.", migctl_migrate,
        migrate_options, true },
    { "watch", "DOMAIN|ID [--json]", "Follow a migration that is under way.", migctl_watch,
        json_option, true },
    { "cancel", "DOMAIN|ID", "Cancel a migration; the guest runs on here.", migctl_cancel, NULL,
        true },
    { "tune", "DOMAIN|ID [--bandwidth RATE] [--budget TIME] [--stop]",
        "Change a migration that is under way.", migctl_tune,
        "  --bandwidth RATE     at most so much per second: 100M (MiB); 0: no cap\n"
        "  --budget TIME        longest pause of the guest to aim for: 100ms\n"
        "  --stop               pause the guest now; the rest follows while it stands\n",
        true },
    { "migrations", "[-a] [--json] [ID]", "Migrations under way; with -a finished ones too.",
        migctl_migrations,
        "  -a, --all            also those that have ended\n"
        "  --json               as JSON\n"
        "  ID                   the whole report of one\n",
        true },
    { "resolve", "DOMAIN --run-here|--discard [--force] [--reason TEXT]",
        "Decide about a domain in doubt.", migctl_resolve, resolve_options, false },
    { "journal", "[-n N] [DOMAIN]", "What migrd has written down, newest last.", migctl_journal,
        "  -n N                 the last N entries (default 50)\n", false },
    { "log", "[-n LINES]", "migrd's log.", xm_log,
        "  -n LINES             so many (default 1000)\n", false },
    { "cpu", "show|baseline|compare [HOST]... [options]",
        "CPUs of hosts, and the level that they share.", migctl_cpu, cpu_options, false },
    { "storage", "check|lease|forget SOURCE... [options]", "What this host sees of disks, and leases.",
        migctl_storage, storage_options, false },
    { "ha", "add|remove|set|status|explain|what-if|move|disarm|arm|confirm-dead|release ...",
        "High availability: domains that run again elsewhere when their host dies.", migctl_ha,
        ha_options, true },
    { "node", "list|drain|undrain ...", "The hosts of the cluster: empty one, and fill it again.",
        migctl_node, node_options, true },
    { "cluster", "init|join|leave|status ...", "Set corosync up for several hosts.",
        migctl_cluster, cluster_options, true },
    { "acl", "test NAME|ADDRESS [--config FILE]",
        "Which expression admits or refuses a host, and why.", migctl_acl, acl_options, false },
    { "pki", "init|issue|client|renew|show [options]", "Certificates for the hosts of a cluster.",
        migctl_pki, pki_options, false },
    { "config", "[show | get KEY | keys] [--file FILE]", "migrd.conf as migrd understands it.",
        migctl_config,
        "  show                 all settings, defaults too (this is the default)\n"
        "  get KEY              one setting\n"
        "  keys                 all keys with what they are for\n"
        "  --file FILE          another file\n",
        false },
    { "import-xend", "FILE [--output FILE]", "Make a migrd.conf of an xend-config.sxp.",
        migctl_import_xend, "  --output FILE        write it there, not to standard output\n",
        false },
    { "dump", "DOMAIN [--xml]", "A domain's definition as xm's domain file or libvirt XML.",
        migctl_dump, NULL, false },
    { "reload", "", "Make migrd read migrd.conf again.", migctl_reload, NULL, false },
    { "help", "[subcommand]", "This, or the help of a subcommand.", migctl_help, NULL, true },
    { "version", "", "The version.", migctl_version, NULL, false },
    { NULL, NULL, NULL, NULL, NULL, false },
};

/* "help ha add": the group's own table has it. */
static int help_sub(struct tool *t, const struct tool_cmd *group, char *sub)
{
    char *argv[] = { (char *)(uintptr_t)group->name, sub, (char *)(uintptr_t) "--help", NULL };

    t->cmd = group;
    return group->run(t, 3, argv);
}

static int migctl_help(struct tool *t, int argc, char **argv)
{
    const struct tool_cmd *c;

    if (argc < 2) {
        tool_help(t, true, stdout);
        return TOOL_OK;
    }
    c = tool_find(t, argv[1]);
    if (c == NULL)
        return tool_usage(t, "Subcommand '%s' not found!", argv[1]);
    if (argc > 2 && (c->run == migctl_ha || c->run == migctl_node || c->run == migctl_cluster))
        return help_sub(t, c, argv[2]);
    return tool_cmd_help(t, c);
}

int migctl_run(int argc, char **argv)
{
    struct tool t = {
        .program = "migctl",
        .about = "Move domains between hosts, and look after migrd.",
        .footer = "DOMAIN is a name, id or uuid. Starting and stopping domains: see xm(1).\n"
                  "More: migctl(1).",
        .cmds = commands,
    };

    return tool_run(&t, argc, argv);
}
