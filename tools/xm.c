/* SPDX-License-Identifier: ISC */
/*
 * The table of xm's subcommands. Those that xend had and migrd cannot do are in it too,
 * each with what to do instead: a script that calls one gets an answer, not a riddle.
 */
#define _GNU_SOURCE
#include "tools/xm.h"

#include <string.h>
#include <strings.h>

static int xm_help(struct tool *t, int argc, char **argv);

static int xm_version(struct tool *t, int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("%s of migrd %s\n", t->program, MIGRD_VERSION);
    return TOOL_OK;
}

/* --- what migrd does not do --- */

static const struct {
    const char *name;
    const char *instead;
} refused[] = {
    { "rename", "define it under the new name: 'migctl dump DOM > FILE', change name= there, "
                "'xm delete DOM', 'xm new FILE'" },
    { "suspend", "use 'xm save DOM FILE'" },
    { "resume", "use 'xm restore FILE', or 'xm unpause DOM'" },
    { "sched-sedf", "use 'xm sched-credit', which sets a weight and a cap" },
    { "sysrq", "send a break on the console" },
    { "trigger", "use 'xm destroy' and 'xm start' to reset a guest" },
    { "debug-keys", "there is no hypervisor console to send keys to" },
    { "top", "use 'watch xm list', or 'migctl status'" },
    { "serve", "the status socket gives the state as JSON: migrd-status(7)" },
    { "shell", "use your own shell" },
    { "block-attach", "add it to disk= in the definition and start the domain anew" },
    { "block-detach", "take it out of disk= in the definition and start the domain anew" },
    { "block-configure", "change disk= in the definition and start the domain anew" },
    { "block-list", "'xm list -l DOM' shows the disks" },
    { "network-attach", "add it to vif= in the definition and start the domain anew" },
    { "network-detach", "take it out of vif= in the definition and start the domain anew" },
    { "network-list", "'xm list -l DOM' shows the interfaces" },
};

static int xm_refused(struct tool *t, int argc, char **argv)
{
    (void)argc, (void)argv;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (strcmp(refused[i].name, t->cmd->name) == 0)
            return tool_error(
                "xm %s is not supported by migrd; %s.", t->cmd->name, refused[i].instead);
    return tool_error("xm %s is not supported by migrd.", t->cmd->name);
}

#define REFUSED(name)                                                                              \
    {                                                                                              \
        name, "", NULL, xm_refused, NULL, false                                                    \
    }

/* --- the table --- */

static const char create_options[] =
    "  -f FILE, --defconfig=FILE   the domain file (or give it as the first word); - is stdin\n"
    "  -F FILE, --config=FILE      the same\n"
    "  -p, --paused                leave the domain paused after it is built\n"
    "  -c, --console_autoconnect   attach to its console\n"
    "  -n, --dryrun                check the definition, print it, start nothing\n"
    "  -q, --quiet                 say nothing but errors\n"
    "  KEY=VALUE                   replaces a setting of the file: memory=512 vcpus=2\n\n"
    "A FILE without a slash that is not here is looked for in /etc/xen.\n";

static const char migrate_options[] =
    "  -l, --live                  keep it running meanwhile; otherwise it is paused first\n"
    "  -p PORT, --port=PORT        port of the target's migrd (default 8002)\n"
    "  -n NODE, --node=NODE        NUMA node there: -1 (any) only\n"
    "  -s, --ssl                   insist on TLS, whatever migrd.conf says\n"
    "  -c, --change_home_server    its definition moves along\n"
    "      --allow-paused          live, or paused where the hypervisor cannot move it live\n\n"
    "'migctl migrate' does the same with a progress bar, a report, and more to set.\n";

static const char shutdown_options[] = "  -a, --all                   all domains\n"
                                       "  -w, --wait                  wait until it has happened\n"
                                       "  -R, --reboot                reboot instead\n"
                                       "  -H, --halt                  power off, as without it\n";

static const char config_option[] =
    "  --config                    only in the definition, for its next boot\n";

static const char list_options[] =
    "  -l, --long                  all details, as s-expressions\n"
    "      --state=STATE           only running, paused or halted ones\n";

static const struct tool_cmd commands[] = {
    { "console", "[-q] [-t SECONDS] <Domain>", "Attach to <Domain>'s console; ^] leaves it.",
        xm_console,
        "  -q, --quiet                 no error message if there is no such domain\n"
        "  -t SECONDS                  leave after that time, also without a terminal\n\n"
        "Without a terminal, standard input is sent and the answer printed until\n"
        "nothing has come for a second after its end.\n",
        true },
    { "create", "<ConfigFile> [options] [vars]", "Create a domain based on <ConfigFile>.",
        xm_create, create_options, true },
    { "new", "<ConfigFile> [options] [vars]", "Add a domain to those that migrd keeps.", xm_new,
        create_options, true },
    { "delete", "<DomainName>", "Remove a domain from those that migrd keeps.", xm_delete, NULL,
        true },
    { "start", "[-p] [-c] <DomainName>", "Start a domain that migrd keeps.", xm_start,
        "  -p, --paused                leave it paused after it is built\n"
        "  -c, --console_autoconnect   attach to its console\n",
        true },
    { "destroy", "<Domain>", "Terminate a domain immediately.", xm_destroy, NULL, true },
    { "dmesg", "[-c]", "Print the hypervisor's own messages.", xm_dmesg,
        "  -c, --clear                 and empty its buffer\n", false },
    { "domid", "<DomainName>", "Convert a domain name to domain id.", xm_domid, NULL, false },
    { "domname", "<DomId>", "Convert a domain id to domain name.", xm_domname, NULL, false },
    { "dump-core", "[-L|-C] <Domain> <File>", "Write a domain's memory to an ELF core file.",
        xm_dump_core,
        "  -L, --live                  the domain runs on meanwhile\n"
        "  -C, --crash                 end the domain afterwards\n",
        true },
    { "help", "[subcommand]", "Display this message.", xm_help, NULL, true },
    { "info", "", "Get information about this host.", xm_info, NULL, false },
    { "list", "[options] [Domain, ...]", "List information about all/some domains.", xm_list,
        list_options, true },
    { "log", "[-n LINES]", "Print migrd's log.", xm_log, NULL, false },
    { "mem-max", "[--config] <Domain> <Mem>", "Set the maximum memory of a domain, in MiB.",
        xm_mem_max, config_option, true },
    { "mem-set", "<Domain> <Mem>", "Set the current memory usage for a domain, in MiB.", xm_mem_set,
        NULL, true },
    { "migrate", "<Domain> <Host> [options]", "Migrate a domain to another machine.", xm_migrate,
        migrate_options, true },
    { "pause", "<Domain>", "Pause execution of a domain.", xm_pause, NULL, true },
    { "reboot", "<Domain> [-wa]", "Reboot a domain.", xm_reboot, shutdown_options, true },
    { "restore", "<CheckpointFile> [-p]", "Restore a domain from a saved state.", xm_restore,
        "  -p, --paused                leave it paused\n", true },
    { "save", "<Domain> <CheckpointFile>", "Save a domain state to restore later.", xm_save, NULL,
        true },
    { "sched-credit", "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]]",
        "Get or set a domain's share of the CPUs.", xm_sched_credit,
        "  -d DOMAIN, --domain=DOMAIN  of this domain\n"
        "  -w WEIGHT, --weight=WEIGHT  its share in relation to others, 256 by default\n"
        "  -c CAP, --cap=CAP           the most it gets, in percent of one CPU; 0 no limit\n",
        true },
    { "shutdown", "<Domain> [-waRH]", "Shutdown a domain.", xm_shutdown, shutdown_options, true },
    { "unpause", "<Domain>", "Unpause a paused domain.", xm_unpause, NULL, true },
    { "uptime", "[-s] [Domain, ...]", "Print uptime for all/some domains.", xm_uptime,
        "  -s, --short                 one line per domain with the time of day\n", true },
    { "vcpu-pin", "<Domain> <VCPU|all> <CPUs|all>", "Set which CPUs a VCPU can use.", xm_vcpu_pin,
        config_option, false },
    { "vcpu-set", "[--config] <Domain> <vCPUs>", "Set the number of active VCPUs for a domain.",
        xm_vcpu_set, config_option, false },
    { "vcpu-list", "[Domain, ...]", "List the VCPUs for all/some domains.", xm_vcpu_list, NULL,
        false },
    { "version", "", "Print the version.", xm_version, NULL, false },
    REFUSED("rename"),
    REFUSED("suspend"),
    REFUSED("resume"),
    REFUSED("sched-sedf"),
    REFUSED("sysrq"),
    REFUSED("trigger"),
    REFUSED("debug-keys"),
    REFUSED("top"),
    REFUSED("serve"),
    REFUSED("shell"),
    REFUSED("block-attach"),
    REFUSED("block-detach"),
    REFUSED("block-configure"),
    REFUSED("block-list"),
    REFUSED("network-attach"),
    REFUSED("network-detach"),
    REFUSED("network-list"),
    { NULL, NULL, NULL, NULL, NULL, false },
};

static int xm_help(struct tool *t, int argc, char **argv)
{
    const struct tool_cmd *c;

    if (argc < 2 || strcmp(argv[1], "--long") == 0) {
        tool_help(t, true, stdout);
        return TOOL_OK;
    }
    c = tool_find(t, argv[1]);
    if (c == NULL)
        return tool_usage(t, "Subcommand '%s' not found!", argv[1]);
    if (c->help == NULL) { /* one of those refused */
        t->cmd = c;
        return c->run(t, 1, argv + 1);
    }
    return tool_cmd_help(t, c);
}

bool xm_refuse_dom0(const char *which, const char *action)
{
    if (strcasecmp(which, "Domain-0") != 0 && strcmp(which, "0") != 0)
        return false;
    tool_error("Cannot %s privileged domain %s: it is this host itself.", action, which);
    return true;
}

int xm_run(int argc, char **argv)
{
    struct tool t = {
        .program = "xm",
        .about = "Control, list, and manipulate guest domains.",
        .footer = "<Domain> can be the domain's name, id or uuid.\n"
                  "For more help on 'xm' see the xm(1) man page, on 'xm create' xm-domain(5).",
        .cmds = commands,
    };

    return tool_run(&t, argc, argv);
}
