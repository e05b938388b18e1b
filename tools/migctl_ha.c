/* SPDX-License-Identifier: ISC */
/*
 * migctl ha: which domains are protected and how, what the cluster's log says of them, and the
 * words that only a person can give. Commands that would leave a domain without a place if one
 * more node were lost are asked first, and sent with --force only.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "tools/format.h"
#include "tools/ha_ask.h"
#include "tools/ha_words.h"

enum {
    OPT_CLASS = 256,
    OPT_RESTARTS,
    OPT_WINDOW,
    OPT_PREFER,
    OPT_ONLY,
    OPT_TOGETHER,
    OPT_APART,
    OPT_FAILBACK,
    OPT_READY,
    OPT_STOP_TIME,
    OPT_START_TIME,
    OPT_RESTART_ON_SHUTDOWN,
    OPT_STARTED,
    OPT_STOPPED,
    OPT_DEFINITION,
    OPT_FORCE,
    OPT_DRY_RUN,
    OPT_WAIT,
    OPT_JSON,
    OPT_CHECK,
    OPT_REASON,
    OPT_YES,
};

#define NAMES_MAX 32

/* What add and set were given. */
struct words {
    struct ha_ask ask;
    Migrd__HaDomain domain;
    Migrd__HaPolicy policy;
    char *preferred[NAMES_MAX], *only[NAMES_MAX];
    char *set[5];
    uint32_t given; /* GIVEN of each option of the policy */
    bool run_given, definition_given;
};
#define GIVEN(option) (UINT32_C(1) << ((option)-OPT_CLASS))

/* --- policy --- */

/* "a,b,c" into `list`; the text is cut up. */
static int name_list(char *text, const char *what, char **list, size_t *n, struct err *e)
{
    char *save = NULL;

    *n = 0;
    for (char *w = strtok_r(text, ",", &save); w != NULL; w = strtok_r(NULL, ",", &save)) {
        if (*n == NAMES_MAX)
            return err_set(e, ERR_INVALID, "%s: at most %d nodes", what, NAMES_MAX);
        list[(*n)++] = w;
    }
    return 0;
}

/* "GROUP", "GROUP!" where it must be so; "": none. */
static int group(char *text, const char *what, char **name, protobuf_c_boolean *hard, struct err *e)
{
    size_t n = strlen(text);

    *hard = n > 0 && text[n - 1] == '!';
    if (*hard)
        text[--n] = '\0';
    if (n >= 32 ||
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n)
        return err_set(e, ERR_INVALID,
            "%s '%s': a group's name has at most 31 letters, digits, dots, _ and -", what, text);
    *name = text;
    return 0;
}

static int seconds(const char *what, uint32_t *out, struct err *e)
{
    uint32_t ms;

    if (parse_duration(optarg, what, 1000, &ms, e) < 0)
        return -1;
    *out = (ms + 999) / 1000;
    return 0;
}

static int minutes(const char *what, uint32_t *out, struct err *e)
{
    uint32_t ms;

    if (parse_duration(optarg, what, 60000, &ms, e) < 0)
        return -1;
    *out = (ms + 59999) / 60000;
    return 0;
}

static int nodes_option(struct words *w, int o, struct err *e)
{
    if (o == OPT_PREFER)
        return name_list(optarg, "--prefer", w->preferred, &w->ask.rq.n_preferred, e);
    return name_list(optarg, "--only", w->only, &w->ask.rq.n_only, e);
}

/* An option of the policy: 1 taken, 0 not one, -1 wrong. */
static int policy_option(struct words *w, int o, struct err *e)
{
    Migrd__HaPolicy *p = &w->policy;
    int rc;

    switch (o) {
    case OPT_CLASS:
        rc = parse_number(optarg, "class", 0, 99, &p->class_, e);
        break;
    case OPT_RESTARTS:
        rc = parse_number(optarg, "restarts", 0, 1000, &p->max_restarts, e);
        break;
    case OPT_WINDOW:
        rc = seconds("window", &p->window_s, e);
        break;
    case OPT_PREFER:
    case OPT_ONLY:
        rc = nodes_option(w, o, e);
        break;
    case OPT_TOGETHER:
        rc = group(optarg, "--together", &p->together, &p->together_hard, e);
        break;
    case OPT_APART:
        rc = group(optarg, "--apart", &p->apart, &p->apart_hard, e);
        break;
    case OPT_FAILBACK:
        rc = minutes("failback", &p->failback_min, e);
        break;
    case OPT_READY:
        rc = seconds("ready", &p->ready_s, e);
        break;
    case OPT_STOP_TIME:
        rc = seconds("stop-time", &p->stop_s, e);
        break;
    case OPT_START_TIME:
        rc = seconds("start-time", &p->start_s, e);
        break;
    case OPT_RESTART_ON_SHUTDOWN:
        p->restart_on_shutdown = strcmp(optarg, "yes") == 0;
        rc = p->restart_on_shutdown || strcmp(optarg, "no") == 0
                 ? 0
                 : err_set(e, ERR_INVALID, "restart-on-shutdown '%s': give yes or no", optarg);
        break;
    default:
        return 0;
    }
    w->given |= GIVEN(o);
    return rc < 0 ? -1 : 1;
}

static const struct option policy_options[] = {
    { "class", required_argument, NULL, OPT_CLASS },
    { "priority", required_argument, NULL, OPT_CLASS },
    { "restarts", required_argument, NULL, OPT_RESTARTS },
    { "window", required_argument, NULL, OPT_WINDOW },
    { "prefer", required_argument, NULL, OPT_PREFER },
    { "only", required_argument, NULL, OPT_ONLY },
    { "together", required_argument, NULL, OPT_TOGETHER },
    { "apart", required_argument, NULL, OPT_APART },
    { "failback", required_argument, NULL, OPT_FAILBACK },
    { "ready", required_argument, NULL, OPT_READY },
    { "stop-time", required_argument, NULL, OPT_STOP_TIME },
    { "start-time", required_argument, NULL, OPT_START_TIME },
    { "restart-on-shutdown", required_argument, NULL, OPT_RESTART_ON_SHUTDOWN },
    { "started", no_argument, NULL, OPT_STARTED },
    { "stopped", no_argument, NULL, OPT_STOPPED },
    { "definition", no_argument, NULL, OPT_DEFINITION },
    { "force", no_argument, NULL, OPT_FORCE },
    { "dry-run", no_argument, NULL, OPT_DRY_RUN },
    { "wait", required_argument, NULL, OPT_WAIT },
    { NULL, 0, NULL, 0 },
};

static int flag_option(struct words *w, int o, struct err *e)
{
    switch (o) {
    case OPT_STARTED:
    case OPT_STOPPED:
        w->run_given = true;
        w->domain.want_run = o == OPT_STARTED;
        return 0;
    case OPT_DEFINITION:
        w->definition_given = true;
        return 0;
    case OPT_FORCE:
        w->ask.force = true;
        return 0;
    case OPT_DRY_RUN:
        w->ask.dry_run = true;
        return 0;
    default:
        return seconds("wait", &w->ask.rq.wait_s, e);
    }
}

static void words_init(struct words *w, Migrd__HaCommandKind kind)
{
    memset(w, 0, sizeof *w);
    ha_ask_init(&w->ask, kind);
    migrd__ha_domain__init(&w->domain);
    migrd__ha_policy__init(&w->policy);
    w->domain.policy = &w->policy;
    w->ask.command.domain = &w->domain;
    w->ask.rq.preferred = w->preferred;
    w->ask.rq.only = w->only;
}

/* Reads all options; 0, or an exit code. */
static int read_words(struct tool *t, int argc, char **argv, struct words *w)
{
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", policy_options, NULL)) != -1) {
        int taken = o == '?' ? 0 : policy_option(w, o, &e);

        if (o == '?')
            return tool_usage(t, NULL);
        if (taken < 0 || (taken == 0 && flag_option(w, o, &e) < 0))
            return tool_usage(t, "%s", e.text);
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    w->ask.rq.domain = argv[optind];
    return 0;
}

/* --- add --- */

/* File systems that several hosts see. */
static bool is_shared(const char *path)
{
    static const long kinds[] = {
        0x6969,     /* NFS */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB 2 */
        0x01161970, /* GFS2 */
        0x7461636f, /* OCFS2 */
        0x00c36400, /* Ceph */
        0x65735546, /* FUSE: GlusterFS and others */
        0x0bd00bd0, /* Lustre */
    };
    struct statfs fs;

    if (strncmp(path, "/dev/", 5) == 0)
        return true; /* a device may well be a LUN; the storage check of a start looks */
    if (statfs(path, &fs) < 0)
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if ((uint32_t)fs.f_type == (uint32_t)kinds[i])
            return true;
    return false;
}

static bool is_url(const char *source)
{
    return strncmp(source, "nfs://", 6) == 0 || strncmp(source, "iscsi://", 8) == 0;
}

static const char unsafe[] =
    "Warning: disk %s of %s, %s, is written through this host's page cache: when this host is cut "
    "off, it may still write what the guest wrote before, after %s was started elsewhere. On "
    "nfs:// or iscsi:// storage nothing goes out any more\n";

/* Whether it could start elsewhere, as far as its definition tells. */
static int check_places(const Migrd__Domain *d, bool force)
{
    int rc = TOOL_OK;

    for (size_t i = 0; i < d->n_disks; i++) {
        const char *s = d->disks[i]->source;

        if (is_url(s))
            continue;
        if (is_shared(s)) {
            if (!d->disks[i]->read_only)
                fprintf(stderr, unsafe, d->disks[i]->device, d->name, s, d->name);
            continue;
        }
        fprintf(stderr,
            "%s: disk %s of %s, %s, is a file of this host: no other host could start it. Put it "
            "on "
            "nfs:// or iscsi:// storage, or on a shared file system\n",
            force ? "Warning" : "Error", d->disks[i]->device, d->name, s);
        rc = force ? rc : TOOL_FAILED;
    }
    if (d->kernel[0] == '/' && !is_shared(d->kernel))
        fprintf(stderr,
            "Note: kernel %s is a file of this host: each other host that may start %s needs the "
            "same file there\n",
            d->kernel, d->name);
    if (rc != TOOL_OK)
        fputs("(--force adds it all the same.)\n", stderr);
    return rc;
}

static int ha_add(struct tool *t, int argc, char **argv)
{
    Migrd__Reply *r;
    struct words w;
    int rc;

    words_init(&w, MIGRD__HA_COMMAND_KIND__HA_ADD);
    rc = read_words(t, argc, argv, &w);
    if (rc != 0)
        return rc;
    if (w.definition_given)
        return tool_usage(t, "--definition: it is taken along anyway");
    r = tool_domain(t, w.ask.rq.domain);
    if (r == NULL) {
        fputs("(A domain is added on the host that runs or defines it; `migctl ha status` lists "
              "those "
              "that are protected.)\n",
            stderr);
        return TOOL_FAILED;
    }
    rc = check_places(r->domains[0]->domain, w.ask.force);
    if (rc == TOOL_OK)
        rc = ha_ask_carefully(t, &w.ask);
    if (rc == TOOL_OK && !w.ask.dry_run)
        printf("%s is protected.\n", r->domains[0]->domain->name);
    tool_free(&r);
    return rc;
}

/* --- set --- */

#define KEEP(option, field)                                                                        \
    do {                                                                                           \
        if ((w->given & GIVEN(option)) == 0)                                                       \
            w->policy.field = now->field;                                                          \
    } while (0)

/* What no option named stays as it is; the lists belong to `now`. */
static void keep_policy(struct words *w, const Migrd__HaPolicy *now)
{
    KEEP(OPT_CLASS, class_);
    KEEP(OPT_RESTARTS, max_restarts);
    KEEP(OPT_WINDOW, window_s);
    KEEP(OPT_PREFER, preferred);
    KEEP(OPT_PREFER, n_preferred);
    KEEP(OPT_ONLY, only);
    KEEP(OPT_ONLY, n_only);
    KEEP(OPT_TOGETHER, together);
    KEEP(OPT_TOGETHER, together_hard);
    KEEP(OPT_APART, apart);
    KEEP(OPT_APART, apart_hard);
    KEEP(OPT_FAILBACK, failback_min);
    KEEP(OPT_READY, ready_s);
    KEEP(OPT_STOP_TIME, stop_s);
    KEEP(OPT_START_TIME, start_s);
    KEEP(OPT_RESTART_ON_SHUTDOWN, restart_on_shutdown);
}

static void name_fields(struct words *w)
{
    Migrd__HaCommand *q = &w->ask.command;

    q->set = w->set;
    if (w->given != 0)
        q->set[q->n_set++] = (char *)"policy";
    if (w->run_given)
        q->set[q->n_set++] = (char *)"want_run";
    if (!w->definition_given)
        return;
    q->set[q->n_set++] = (char *)"definition";
    q->set[q->n_set++] = (char *)"memory_kib";
    q->set[q->n_set++] = (char *)"vcpus";
}

static int not_protected(const char *which)
{
    return tool_error("domain %s is not protected; 'migctl ha status' lists those that are", which);
}

static int ha_set(struct tool *t, int argc, char **argv)
{
    const Migrd__HaDomain *d;
    Migrd__Reply *r;
    struct words w;
    int rc;

    words_init(&w, MIGRD__HA_COMMAND_KIND__HA_SET);
    rc = read_words(t, argc, argv, &w);
    if (rc != 0)
        return rc;
    if (w.given == 0 && !w.run_given && !w.definition_given)
        return tool_usage(t, "nothing to set: give an option");
    r = tool_ha(t);
    if (r == NULL)
        return TOOL_FAILED;
    d = ha_domain(r->ha, w.ask.rq.domain);
    if (d != NULL && d->policy != NULL)
        keep_policy(&w, d->policy);
    name_fields(&w);
    rc = d != NULL ? ha_ask_carefully(t, &w.ask) : not_protected(w.ask.rq.domain);
    tool_free(&r);
    return rc;
}

/* --- simple commands --- */

static const struct option simple_options[] = {
    { "force", no_argument, NULL, OPT_FORCE },
    { "wait", required_argument, NULL, OPT_WAIT },
    { "reason", required_argument, NULL, OPT_REASON },
    { "yes", no_argument, NULL, OPT_YES },
    { NULL, 0, NULL, 0 },
};

struct simple {
    struct ha_ask ask;
    bool yes;
};

/* --force, --wait and so many words; what does not apply to a command is left unused. 0, or an exit
 * code. */
static int read_simple(struct tool *t, int argc, char **argv, int words, struct simple *s)
{
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", simple_options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        if (o == OPT_FORCE)
            s->ask.force = true;
        else if (o == OPT_YES)
            s->yes = true;
        else if (o == OPT_REASON)
            s->ask.command.text = optarg;
        else if (seconds("wait", &s->ask.rq.wait_s, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    return tool_words(t, argc, words, words) != 0 ? TOOL_USAGE : 0;
}

static int ha_remove(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_REMOVE);
    rc = read_simple(t, argc, argv, 1, &s);
    if (rc != 0)
        return rc;
    s.ask.rq.domain = argv[optind];
    rc = ha_ask_now(t, &s.ask);
    if (rc == TOOL_OK)
        printf("%s is not protected any more; it runs on where it is.\n", s.ask.rq.domain);
    return rc;
}

static int ha_move(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_MIGRATE);
    rc = read_simple(t, argc, argv, 2, &s);
    if (rc != 0)
        return rc;
    s.ask.rq.domain = argv[optind];
    s.ask.rq.node = argv[optind + 1];
    rc = ha_ask_carefully(t, &s.ask);
    if (rc == TOOL_OK)
        printf("%s is being moved to %s; 'migctl ha status' shows how far it is.\n",
            s.ask.rq.domain, s.ask.rq.node);
    return rc;
}

static int ha_cancel(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_CANCEL);
    rc = read_simple(t, argc, argv, 1, &s);
    if (rc != 0)
        return rc;
    s.ask.rq.domain = argv[optind];
    return ha_ask_now(t, &s.ask);
}

/* A domain that is blocked, or a node in quarantine. */
static int ha_release(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    Migrd__Reply *r;
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_RELEASE);
    rc = read_simple(t, argc, argv, 1, &s);
    if (rc != 0)
        return rc;
    r = tool_ha(t);
    if (r == NULL)
        return TOOL_FAILED;
    if (ha_domain(r->ha, argv[optind]) != NULL)
        s.ask.rq.domain = argv[optind];
    else
        s.ask.rq.node = argv[optind];
    rc = ha_ask_now(t, &s.ask);
    if (rc == TOOL_OK)
        printf("%s is %s.\n", argv[optind],
            s.ask.rq.node == NULL || s.ask.rq.node[0] == '\0' ? "not blocked" : "in no quarantine");
    tool_free(&r);
    return rc;
}

/* --- arm, disarm --- */

#define DISARM_POLL_US 300000

/* Until nothing is mid-flight; 0, or an exit code. */
static int wait_disarmed(struct tool *t, unsigned wait_s)
{
    for (unsigned us = 0;; us += DISARM_POLL_US) {
        Migrd__Reply *r = tool_ha(t);
        Migrd__HaArmed armed;

        if (r == NULL)
            return TOOL_FAILED;
        armed = r->ha->state->armed;
        tool_free(&r);
        if (armed == MIGRD__HA_ARMED__DISARMED)
            return TOOL_OK;
        if (armed == MIGRD__HA_ARMED__ARMED)
            return tool_error("it was armed again meanwhile");
        if (us / 1000000 >= wait_s)
            return tool_error("not disarmed within %u s: starts or moves are under way ('migctl ha "
                              "status'); it will be when they have ended",
                wait_s);
        usleep(DISARM_POLL_US);
    }
}

static int ha_disarm(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_DISARM);
    rc = read_simple(t, argc, argv, 0, &s);
    if (rc == 0)
        rc = ha_ask_now(t, &s.ask);
    if (rc == 0)
        rc = wait_disarmed(t, s.ask.rq.wait_s != 0 ? s.ask.rq.wait_s : 60);
    if (rc == 0)
        puts("High availability is disarmed: guests run on whatever happens to the cluster, and no "
             "domain is started elsewhere. 'migctl ha arm' arms it.");
    return rc;
}

static int ha_arm(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_ARM);
    rc = read_simple(t, argc, argv, 0, &s);
    if (rc == 0)
        rc = ha_ask_now(t, &s.ask);
    if (rc == 0)
        puts("High availability is armed.");
    return rc;
}

/* --- confirm-dead --- */

static const char risk[] =
    "You say that host %s does not run: that it is off, or that its guests cannot write to their\n"
    "disks any more. Its domains are started elsewhere at once. If it does run, each of them runs\n"
    "TWICE and its disks are RUINED. A host that only cannot be reached may well run: look at its\n"
    "power, not at its network.\n";

static bool confirmed(const char *name)
{
    char line[HA_WORD_LEN + 2];

    fprintf(stderr, risk, name);
    fprintf(stderr, "Type the host's name to go on: ");
    if (fgets(line, sizeof line, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return strcmp(line, name) == 0;
}

/* 0: go on. */
static int check_dead(const Migrd__HaOverview *o, const char *which, bool yes)
{
    uint32_t id = ha_node_id(o, which);
    char name[HA_WORD_LEN];

    if (id == 0)
        return tool_error(
            "node %s is not in the cluster; 'migctl node list' shows those that are", which);
    ha_node_name(name, o, id);
    if (id == o->node)
        return tool_error("%s is this host, and it is alive", name);
    if (ha_is_member(o, id))
        return tool_error("%s is in the cluster's view: it runs; stop it first", name);
    if (yes)
        return TOOL_OK;
    if (!isatty(STDIN_FILENO))
        return tool_error("not asked on a terminal: give --yes if %s is off for sure", name);
    return confirmed(name) ? TOOL_OK : tool_error("nothing was confirmed");
}

/* The word is about the host as it was shown. */
static void seen_dead(const Migrd__HaOverview *o, const char *which, Migrd__HaCommand *m)
{
    uint32_t id = ha_node_id(o, which);

    for (size_t i = 0; i < o->state->n_node; i++)
        if (o->state->node[i]->id == id) {
            m->incarnation = o->state->node[i]->incarnation;
            m->request = o->state->node[i]->request;
        }
}

static int ha_confirm_dead(struct tool *t, int argc, char **argv)
{
    struct simple s = { .yes = false };
    Migrd__Reply *r;
    int rc;

    ha_ask_init(&s.ask, MIGRD__HA_COMMAND_KIND__HA_CONFIRM_DEAD);
    rc = read_simple(t, argc, argv, 1, &s);
    if (rc != 0)
        return rc;
    if (s.ask.command.text[0] == '\0')
        return tool_usage(t, "give --reason: how you know; it is kept in the cluster's log");
    r = tool_ha(t);
    if (r == NULL)
        return TOOL_FAILED;
    s.ask.rq.node = argv[optind];
    seen_dead(r->ha, argv[optind], &s.ask.command);
    rc = check_dead(r->ha, argv[optind], s.yes);
    if (rc == TOOL_OK)
        rc = ha_ask_now(t, &s.ask);
    if (rc == TOOL_OK)
        puts("Taken down in the cluster's log; 'migctl ha status' shows where its domains start.");
    tool_free(&r);
    return rc;
}

/* --- questions --- */

static int ha_names(struct tool *t)
{
    Migrd__Reply *r = tool_ha(t);

    if (r == NULL)
        return TOOL_FAILED;
    for (size_t i = 0; i < r->ha->state->n_domain; i++)
        puts(r->ha->state->domain[i]->name);
    tool_free(&r);
    return TOOL_OK;
}

/* --json and --check; 0, or an exit code. */
static int read_show(
    struct tool *t, int argc, char **argv, int least, int most, bool *json, bool *check)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, OPT_JSON },
        { "check", no_argument, NULL, OPT_CHECK },
        { NULL, 0, NULL, 0 },
    };
    int o;

    *json = *check = false;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        *json = *json || o == OPT_JSON;
        *check = *check || o == OPT_CHECK;
    }
    return tool_words(t, argc, least, most) != 0 ? TOOL_USAGE : 0;
}

static int ha_status(struct tool *t, int argc, char **argv)
{
    Migrd__Reply *r;
    bool json, check;
    int rc;

    if (argc == 2 && strcmp(argv[1], "--names") == 0)
        return ha_names(t);
    rc = read_show(t, argc, argv, 0, 0, &json, &check);
    if (rc != 0)
        return rc;
    r = tool_ha(t);
    if (r == NULL)
        return TOOL_FAILED;
    if (json)
        rc = tool_json(&r->ha->base);
    else if (check)
        rc = ha_show_attention(r->ha, "", stdout) > 0 ? TOOL_WOULD_NOT : TOOL_OK;
    else
        ha_show_status(r->ha);
    tool_free(&r);
    return rc;
}

static Migrd__Reply *get_plan(struct tool *t, Migrd__GetHa *get)
{
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    Migrd__Reply *r;

    CLIENT_BODY(rq, GET_HA, get_ha, get);
    r = tool_call(t, &rq, TOOL_SHORT_MS);
    if (r != NULL && r->ha_plan == NULL) {
        tool_error("migrd's answer has no plan; is the tool newer?");
        tool_free(&r);
    }
    return r;
}

static int ha_explain(struct tool *t, int argc, char **argv)
{
    Migrd__GetHa get = MIGRD__GET_HA__INIT;
    const Migrd__HaDomain *d;
    Migrd__Reply *r, *plan;
    bool json, check;
    int rc = read_show(t, argc, argv, 1, 1, &json, &check);

    if (rc != 0)
        return rc;
    get.question = MIGRD__HA_QUESTION__HA_EXPLAIN;
    get.domain = argv[optind];
    plan = get_plan(t, &get);
    r = plan != NULL ? tool_ha(t) : NULL;
    d = r != NULL && plan->ha_plan->n_step > 0 ? ha_domain(r->ha, plan->ha_plan->step[0]->uuid)
                                               : NULL;
    if (r == NULL)
        rc = TOOL_FAILED;
    else if (d == NULL)
        rc = not_protected(argv[optind]);
    else if (json)
        rc = tool_json(&plan->ha_plan->base);
    else
        ha_show_domain(r->ha, d, plan->ha_plan);
    tool_free(&r);
    tool_free(&plan);
    return rc;
}

static void show_what_if(const Migrd__HaOverview *o, const Migrd__HaPlan *p)
{
    char name[HA_WORD_LEN];

    printf("If");
    for (size_t i = 0; i < p->n_dead; i++)
        printf("%s %s", i == 0 ? "" : " and", ha_node_name(name, o, p->dead[i]));
    printf(" died now: %s.\n", p->text);
    ha_show_plan(o, p);
}

static int ha_what_if(struct tool *t, int argc, char **argv)
{
    Migrd__GetHa get = MIGRD__GET_HA__INIT;
    Migrd__Reply *r, *plan;
    bool json, check;
    int rc = read_show(t, argc, argv, 1, NAMES_MAX, &json, &check);

    if (rc != 0)
        return rc;
    get.question = MIGRD__HA_QUESTION__HA_WHAT_IF;
    get.nodes = argv + optind;
    get.n_nodes = (size_t)(argc - optind);
    plan = get_plan(t, &get);
    r = plan != NULL ? tool_ha(t) : NULL;
    if (r == NULL)
        rc = TOOL_FAILED;
    else if (json)
        rc = tool_json(&plan->ha_plan->base);
    else
        show_what_if(r->ha, plan->ha_plan);
    if (rc == TOOL_OK && !plan->ha_plan->holds)
        rc = TOOL_WOULD_NOT;
    tool_free(&r);
    tool_free(&plan);
    return rc;
}

/* --- the table --- */

#define POLICY_OPTIONS                                                                             \
    "  --class N            0 starts first, then 1, ...; also --priority (default 0)\n"            \
    "  --restarts N         on one node within the window, then elsewhere (default 3)\n"           \
    "  --window TIME        of these restarts (default 600s)\n"                                    \
    "  --prefer NODE,...    best first; \"\" none\n"                                               \
    "  --only NODE,...      nowhere else; \"\" anywhere\n"                                         \
    "  --together GROUP[!]  wants the node of others of GROUP; with ! it must\n"                   \
    "  --apart GROUP[!]     wants another node than others of GROUP; with ! it must\n"             \
    "  --failback MINUTES   back to a better node that has been healthy so long; 0 never "         \
    "(default)\n"                                                                                  \
    "  --ready TIME         the next class waits until it has run so long\n"                       \
    "  --stop-time TIME     for the guest to shut down, then it is ended (default 60s)\n"          \
    "  --start-time TIME    for a start, then it counts as failed (default 300s)\n"                \
    "  --restart-on-shutdown yes|no  start it again when the guest itself shuts down (default "    \
    "no)\n"

#define WAIT_OPTION "  --wait TIME          for the cluster's decision (default 30s)\n"

static const char add_options[] = POLICY_OPTIONS
    "  --started            start it now, if it is only defined\n"
    "  --force              although a disk is a file of this host, or a further loss would leave\n"
    "                       domains without a place\n"
    "  --dry-run            only say whether it would be done; exit status 3: with "
    "--force\n" WAIT_OPTION "\nAsk on the host that runs or defines DOMAIN.\n";

static const char set_options[] = POLICY_OPTIONS
    "  --started            start it; its failures are forgotten\n"
    "  --stopped            shut it down, and leave it so\n"
    "  --definition         take the definition that this host has now, for its next start\n"
    "  --force              although a further loss would leave domains without a place\n"
    "  --dry-run            only say whether it would be done; exit status 3: with "
    "--force\n" WAIT_OPTION "\nWhat is not named stays as it is.\n";

static const char confirm_options[] =
    "  --reason TEXT        how you know; kept in the cluster's log (required)\n"
    "  --yes                do not ask\n" WAIT_OPTION
    "\nThe last proof, where neither the lease nor a fence agent gives one. If the host does run,\n"
    "its domains run twice and their disks are ruined: look at its power, not at its network.\n";

static const char status_options[] =
    "  --json               as JSON\n"
    "  --check              only what needs attention; exit status 3 if anything does\n"
    "  --names              only the names of protected domains\n";

static const char force_options[] = "  --force              although its host is away: it may run "
                                    "on there, unprotected\n" WAIT_OPTION;

static const char json_option[] = "  --json               as JSON\n";

static const struct tool_cmd commands[] = {
    { "ha add", "DOMAIN [options]", "Protect a domain: if its host dies, it runs again elsewhere.",
        ha_add, add_options, true },
    { "ha remove", "DOMAIN [--force]", "End that; the domain runs on.", ha_remove, force_options,
        true },
    { "ha set", "DOMAIN [options]", "Change a protected domain's policy, start or stop it.", ha_set,
        set_options, true },
    { "ha status", "[--json | --check | --names]", "Nodes, domains, what needs attention.",
        ha_status, status_options, true },
    { "ha explain", "DOMAIN [--json]", "Why it is where it is, and where it could run.", ha_explain,
        json_option, true },
    { "ha what-if", "NODE... [--json]", "Where domains would go if these nodes died now.",
        ha_what_if, "  --json               as JSON\n\nExit status 3: some would have no place.\n",
        true },
    { "ha move", "DOMAIN NODE [--force]", "Move it live, from whatever node it runs on.", ha_move,
        "  --force              although a further loss would leave domains without a "
        "place\n" WAIT_OPTION,
        true },
    { "ha cancel", "DOMAIN", "Cancel its move.", ha_cancel, WAIT_OPTION, true },
    { "ha disarm", "", "No failovers until 'arm': for work on the network or on corosync.",
        ha_disarm, WAIT_OPTION, true },
    { "ha arm", "", "End that.", ha_arm, WAIT_OPTION, true },
    { "ha confirm-dead", "NODE --reason TEXT [--yes]", "A person's word that a host does not run.",
        ha_confirm_dead, confirm_options, true },
    { "ha release", "DOMAIN|NODE", "A blocked domain is clean again; a node leaves quarantine.",
        ha_release, WAIT_OPTION, true },
    { NULL, NULL, NULL, NULL, NULL, false },
};

int migctl_ha(struct tool *t, int argc, char **argv)
{
    return tool_sub(t, commands, argc, argv);
}
