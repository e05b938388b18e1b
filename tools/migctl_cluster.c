/* SPDX-License-Identifier: ISC */
/*
 * migctl cluster: sets corosync up for migrd. `init` makes the configuration and a key on one host
 * and a bundle that takes both to the others; `join` installs that; `leave` takes them away again;
 * `status` looks at all that must be right for a host to take part. None of them starts or stops a
 * service: they say which command does.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <corosync/quorum.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/config.h"
#include "base/io.h"
#include "cluster/setup.h"
#include "tools/format.h"
#include "tools/ha_words.h"

#define FOLDER_LEN (PATHS_LEN + 32)
#define COROSYNC_ANSWERS_S 3
#define BEAT_FRESH 3 /* leases; an older beat is a lost one */

enum { OPT_NODE = 256, OPT_TOKEN, OPT_OUT, OPT_FORCE };

struct words {
    struct setup setup;
    const char *out;
    bool force;
};

static void corosync_folder(const struct tool *t, char out[FOLDER_LEN])
{
    snprintf(out, FOLDER_LEN, "%s/etc/corosync", t->paths.root);
}

/* --- init --- */

static int read_words(struct tool *t, int argc, char **argv, struct words *w)
{
    static const struct option options[] = {
        { "node", required_argument, NULL, OPT_NODE },
        { "token", required_argument, NULL, OPT_TOKEN },
        { "out", required_argument, NULL, OPT_OUT },
        { "force", no_argument, NULL, OPT_FORCE },
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        w->force = w->force || o == OPT_FORCE;
        if (o == OPT_OUT)
            w->out = optarg;
        if ((o == OPT_NODE && setup_add_node(&w->setup, optarg, &e) < 0) ||
            (o == OPT_TOKEN && parse_duration(optarg, "token", 1, &w->setup.token, &e) < 0))
            return tool_usage(t, "%s", e.text);
    }
    return 0;
}

static void next_steps(const struct tool *t, const struct words *w, const char *bundle)
{
    const char *advice = setup_advice(w->setup.n);

    if (advice[0] != '\0')
        printf("Note: %s.\n", advice);
    puts("Next:");
    if (bundle != NULL)
        printf("  on each other host, with a copy of %s (keep it secret: it has the key):\n"
               "    migctl cluster join %s\n",
            bundle, strrchr(bundle, '/') != NULL ? strrchr(bundle, '/') + 1 : bundle);
    printf(
        "  on every host:\n"
        "    systemctl enable corosync && systemctl restart corosync\n"
        "    echo 'cluster = yes' >> %s\n"
        "    systemctl restart migrd\n"
        "    migctl cluster status\n"
        "UDP ports 5405 (corosync) and cluster-beat-port (8003) must be open between the hosts.\n",
        t->paths.config);
}

/* A bundle is written for its owner alone. */
static int write_bundle(const struct setup *s, const char *path)
{
    char *text = setup_bundle(s);
    struct err e;
    int rc;

    if (text == NULL)
        return tool_error("out of memory");
    rc = io_replace_file(path, text, strlen(text), 0600, &e);
    free(text);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}

/* A key that is there already goes on: hosts that have it need no new one. */
static int take_key(struct setup *s, const char *folder, struct err *e)
{
    char path[FOLDER_LEN + 20];
    size_t len = 0;
    char *key;

    snprintf(path, sizeof path, "%s/authkey", folder);
    key = io_read_file(path, SETUP_KEY_MAX, &len, e);
    if (key == NULL || len < SETUP_KEY_MIN) {
        free(key);
        return setup_make_key(s, e);
    }
    memcpy(s->key, key, len);
    s->key_len = len;
    free(key);
    printf("%s stays as it is.\n", path);
    return 0;
}

/* What should stop a hand before it writes; 0: nothing. */
static int check_init(const struct words *w)
{
    struct err e;

    if (setup_check(&w->setup, &e) < 0)
        return tool_fail(&e);
    if (w->force)
        return 0;
    if (w->setup.n == 2)
        return tool_error("%s (--force makes the cluster all the same)", setup_advice(2));
    if (setup_own(&w->setup) < 0)
        return tool_error("no --node has an address of this host as its first one: corosync would "
                          "not start (--force, if the addresses are names)");
    return 0;
}

static int cluster_init(struct tool *t, int argc, char **argv)
{
    char folder[FOLDER_LEN], bundle[FOLDER_LEN + 32];
    struct words *w = calloc(1, sizeof *w);
    struct err e;
    int rc;

    if (w == NULL)
        return tool_error("out of memory");
    w->setup.token = SETUP_TOKEN;
    corosync_folder(t, folder);
    rc = read_words(t, argc, argv, w);
    if (rc == 0 && tool_words(t, argc, 1, 1) != 0)
        rc = TOOL_USAGE;
    if (rc == 0) {
        snprintf(w->setup.name, sizeof w->setup.name, "%s", argv[optind]);
        rc = strlen(argv[optind]) < sizeof w->setup.name
                 ? check_init(w)
                 : tool_error(
                       "a cluster's name has at most %zu characters", sizeof w->setup.name - 1);
    }
    if (rc == 0 && (take_key(&w->setup, folder, &e) < 0 ||
                       setup_write(&w->setup, folder, t->paths.root[0] != '\0', w->force, &e) < 0))
        rc = tool_fail(&e);
    snprintf(bundle, sizeof bundle, "%s/migrd-cluster.bundle", folder);
    if (rc == 0)
        rc = write_bundle(&w->setup, w->out != NULL ? w->out : bundle);
    if (rc == 0) {
        printf("Cluster %s with %u nodes is set up in %s.\n", w->setup.name, w->setup.n, folder);
        next_steps(t, w, w->out != NULL ? w->out : bundle);
    }
    free(w);
    return rc;
}

/* --- join, leave --- */

static int join(struct tool *t, struct words *w, const char *file)
{
    char folder[FOLDER_LEN];
    struct err e;
    size_t len = 0;
    char *text = io_read_file(file, SETUP_TEXT_MAX, &len, &e);
    int rc = text == NULL ? -1 : setup_read_bundle(&w->setup, text, len, &e);

    free(text);
    if (rc < 0)
        return tool_fail(&e);
    if (!w->force && setup_own(&w->setup) < 0)
        return tool_error("no node of cluster %s has an address of this host as its first one: "
                          "corosync would not start (--force, if the addresses are names)",
            w->setup.name);
    corosync_folder(t, folder);
    if (setup_write(&w->setup, folder, t->paths.root[0] != '\0', w->force, &e) < 0)
        return tool_fail(&e);
    printf("This host is set up for cluster %s.\n", w->setup.name);
    next_steps(t, w, NULL);
    return TOOL_OK;
}

static int cluster_join(struct tool *t, int argc, char **argv)
{
    struct words *w = calloc(1, sizeof *w);
    int rc;

    if (w == NULL)
        return tool_error("out of memory");
    rc = read_words(t, argc, argv, w);
    if (rc == 0 && tool_words(t, argc, 1, 1) != 0)
        rc = TOOL_USAGE;
    if (rc == 0)
        rc = join(t, w, argv[optind]);
    free(w);
    return rc;
}

/* The overview without a word where there is none. */
static Migrd__Reply *quiet_overview(struct tool *t, struct err *e)
{
    Migrd__GetHa get = MIGRD__GET_HA__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;
    struct client *c = NULL;
    Migrd__Reply *r;

    if (client_open(&t->paths, &c, e) < 0)
        return NULL;
    CLIENT_BODY(rq, GET_HA, get_ha, &get);
    r = client_call(c, &rq, TOOL_SHORT_MS, e);
    client_close(&c);
    if (r != NULL && (r->ha == NULL || r->ha->state == NULL || r->ha->state->local == NULL)) {
        err_set(e, ERR_UNSUPPORTED, "migrd's answer says nothing of the cluster");
        tool_free(&r);
    }
    return r;
}

static int may_leave(struct tool *t)
{
    struct err e;
    Migrd__Reply *r = quiet_overview(t, &e);
    char name[HA_WORD_LEN];
    unsigned here = 0;

    if (r == NULL)
        return 0; /* migrd does not run, or is in no cluster any more */
    for (size_t i = 0; i < r->ha->state->n_domain; i++)
        here += r->ha->state->domain[i]->owner == r->ha->node;
    ha_node_name(name, r->ha, r->ha->node);
    tool_free(&r);
    if (here > 0)
        return tool_error("%u protected domains belong to this host: 'migctl node drain %s' moves "
                          "them away first (--force leaves all the same)",
            here, name);
    return tool_error("migrd still takes part: set cluster = no in %s, 'systemctl restart migrd', "
                      "then leave (--force leaves all the same)",
        t->paths.config);
}

static int cluster_leave(struct tool *t, int argc, char **argv)
{
    struct words *w = calloc(1, sizeof *w);
    char folder[FOLDER_LEN];
    struct err e;
    int rc;

    if (w == NULL)
        return tool_error("out of memory");
    rc = read_words(t, argc, argv, w);
    if (rc == 0 && tool_words(t, argc, 0, 0) != 0)
        rc = TOOL_USAGE;
    if (rc == 0 && !w->force)
        rc = may_leave(t);
    corosync_folder(t, folder);
    if (rc == 0 && setup_take_away(folder, &e) < 0)
        rc = tool_fail(&e);
    if (rc == 0)
        puts("corosync's configuration and key are kept as *.old-TIME. Next:\n"
             "    systemctl disable --now corosync\n"
             "The other hosts still count this one: 'migctl ha disarm' there, 'migctl cluster init "
             "--force' with\n"
             "the nodes that stay, 'join --force' on the others, 'corosync-cfgtool -R', 'migctl ha "
             "arm'.");
    free(w);
    return rc;
}

/* --- status --- */

enum verdict { FINE, NOTE, WRONG };

struct look {
    struct tool *t;
    char folder[FOLDER_LEN];
    struct setup conf;
    struct config config;
    bool has_conf;
    unsigned wrong;
};

static void say(struct look *l, enum verdict v, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(struct look *l, enum verdict v, const char *what, const char *fmt, ...)
{
    static const char *const marks[] = { "ok", "note", "WRONG" };
    va_list ap;

    printf("%-6s%-14s", marks[v], what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    l->wrong += v == WRONG;
}

static void look_at_conf(struct look *l)
{
    char path[FOLDER_LEN + 20];
    struct err e;
    size_t len = 0;
    char *text;

    snprintf(path, sizeof path, "%s/corosync.conf", l->folder);
    text = io_read_file(path, SETUP_TEXT_MAX, &len, &e);
    if (text == NULL)
        say(l, WRONG, "corosync.conf", "%s; 'migctl cluster init' or 'join' makes it", e.text);
    else if (setup_read_conf(&l->conf, text, len, &e) < 0)
        say(l, WRONG, "corosync.conf", "%s", e.text);
    else if (l->conf.n == 0)
        say(l, WRONG, "corosync.conf", "it has no nodelist; migrd needs one");
    else
        l->has_conf = true;
    free(text);
    if (!l->has_conf)
        return;
    say(l, FINE, "corosync.conf", "cluster %s, %u nodes", l->conf.name, l->conf.n);
    for (unsigned i = 0; i < l->conf.n; i++)
        say(l, FINE, "", "  node %u %s  %s  %s", l->conf.node[i].id, l->conf.node[i].name,
            l->conf.node[i].address[0], l->conf.node[i].address[1]);
    if (setup_advice(l->conf.n)[0] != '\0')
        say(l, NOTE, "nodes", "%s", setup_advice(l->conf.n));
}

static void look_at_names(struct look *l)
{
    char host[256] = "";
    int own = setup_own(&l->conf);

    snprintf(host, sizeof host, "%s", l->config.host_name);
    if (host[0] == '\0')
        gethostname(host, sizeof host - 1);
    if (own < 0)
        say(l, NOTE, "this host",
            "none of its addresses is the first one of a node; right only if they "
            "are given by name");
    else if (l->conf.node[own].name[0] != '\0' && strcmp(l->conf.node[own].name, host) != 0)
        say(l, NOTE, "this host",
            "is node %s there and calls itself %s: one name for both is easier",
            l->conf.node[own].name, host);
    else
        say(l, FINE, "this host", "is node %u, %s", l->conf.node[own].id, host);
}

static void look_at_times(struct look *l)
{
    unsigned token = l->conf.token != 0 ? l->conf.token : 3000;
    struct ha_times times;
    char text[300];
    struct err e;

    ha_times_derive(
        &times, token, l->config.cluster_watchdog[0] != '\0' ? l->config.cluster_watchdog_ms : 0);
    ha_times_print(&times, text, sizeof text);
    if (ha_times_check(&times, &e) < 0)
        say(l, WRONG, "timers", "%s", e.text);
    else
        say(l, l->conf.token != 0 ? FINE : NOTE, "timers", "token %u%s: %s", token,
            l->conf.token != 0 ? "" : " (corosync's default; 1000 makes failovers faster)", text);
}

static void look_at_key(struct look *l)
{
    char path[PATHS_LEN + 300];
    struct stat st;

    if (l->t->paths.root[0] != '\0' &&
        strncmp(l->config.cluster_key, l->t->paths.root, strlen(l->t->paths.root)) != 0)
        snprintf(path, sizeof path, "%s%s", l->t->paths.root, l->config.cluster_key);
    else
        snprintf(path, sizeof path, "%s", l->config.cluster_key);
    if (stat(path, &st) < 0)
        say(l, WRONG, "key", "%s: %s; 'migctl cluster init' or 'join' makes it", path,
            strerror(errno));
    else if (st.st_size < SETUP_KEY_MIN)
        say(l, WRONG, "key", "%s has %lld bytes; corosync wants %d at least", path,
            (long long)st.st_size, SETUP_KEY_MIN);
    else if ((st.st_mode & 077) != 0)
        say(l, WRONG, "key", "%s can be read by others: chmod 400 %s", path, path);
    else if (access(path, R_OK) < 0)
        say(l, NOTE, "key", "%s cannot be read by you; run this as root", path);
    else
        say(l, FINE, "key", "%s", path);
}

/* Whether corosync has quorum: 1, 0; -1 it does not answer. Asked by a child: a corosync that hangs
 * answers nobody. */
static int ask_corosync(void)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        quorum_model_v0_data_t model = { .model = QUORUM_MODEL_V0 };
        quorum_handle_t q;
        uint32_t type;
        int quorate = 0;

        signal(SIGALRM, SIG_DFL);
        alarm(COROSYNC_ANSWERS_S);
        if (quorum_model_initialize(
                &q, QUORUM_MODEL_V0, (quorum_model_data_t *)&model, &type, NULL) != CS_OK ||
            quorum_getquorate(q, &quorate) != CS_OK)
            _exit(2);
        _exit(quorate ? 1 : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1)
        return -1;
    return WEXITSTATUS(status);
}

static void look_at_corosync(struct look *l)
{
    int quorate = ask_corosync();

    if (quorate < 0)
        say(l, WRONG, "corosync",
            "does not answer: systemctl status corosync; journalctl -u corosync");
    else if (quorate == 0)
        say(l, WRONG, "corosync",
            "runs and has no quorum: are the other hosts up, and reachable by UDP 5405?");
    else
        say(l, FINE, "corosync", "runs and has quorum");
}

static void look_at_peer(struct look *l, const Migrd__HaOverview *o, uint32_t id)
{
    const Migrd__HaLocal *local = o->state->local;
    uint64_t seen = 0, fresh = (uint64_t)BEAT_FRESH * (o->times != NULL ? o->times->lease : 1000);
    char name[HA_WORD_LEN], age[HA_WORD_LEN];

    ha_node_name(name, o, id);
    for (size_t i = 0; i < local->n_peer; i++)
        if (local->peer[i]->node == id)
            seen = local->peer[i]->seen;
    if (!ha_is_member(o, id))
        say(l, WRONG, name,
            "is not in the view: is the host up, does corosync run there, and migrd with cluster = "
            "yes?");
    else if (seen == 0 || o->now - seen > fresh)
        say(l, WRONG, name,
            "is in the view, and no beat of it %s%s: is UDP port %u open between the hosts, "
            "cluster-key the same?",
            seen == 0 ? "has come" : "came for ", seen == 0 ? "" : ha_age(age, o->now - seen),
            l->config.cluster_beat_port);
    else
        say(l, FINE, name, "is in the view, its beats come");
}

static void look_at_migrd(struct look *l)
{
    struct err e;
    Migrd__Reply *r;

    if (!l->config.cluster)
        say(l, WRONG, "migrd.conf", "%s has no cluster = yes", l->t->paths.config);
    r = quiet_overview(l->t, &e);
    if (r == NULL) {
        say(l, WRONG, "migrd", "%s", e.text);
        return;
    }
    if (r->ha->figures != NULL && !r->ha->figures->ring_up)
        say(l, WRONG, "migrd", "does not reach corosync: %s", r->ha->figures->ring_text);
    else if (r->ha->undecided[0] != '\0')
        say(l, WRONG, "migrd", "%s", r->ha->undecided);
    else
        say(l, FINE, "migrd", "takes part and decides");
    for (size_t i = 0; i < r->ha->state->n_nodes; i++)
        if (r->ha->state->nodes[i] != r->ha->node)
            look_at_peer(l, r->ha, r->ha->state->nodes[i]);
    tool_free(&r);
}

static int cluster_status(struct tool *t, int argc, char **argv)
{
    struct look *l = calloc(1, sizeof *l);
    struct err e;
    int rc;

    (void)argv;
    optind = 1;
    if (l == NULL)
        return tool_error("out of memory");
    l->t = t;
    corosync_folder(t, l->folder);
    config_defaults(&l->config);
    if (tool_words(t, argc, 0, 0) != 0) {
        rc = TOOL_USAGE;
    } else if (config_load(&l->config, t->paths.config, &e) < 0 && e.code != ERR_NOT_FOUND) {
        rc = tool_fail(&e);
    } else {
        look_at_conf(l);
        if (l->has_conf) {
            look_at_names(l);
            look_at_times(l);
        }
        look_at_key(l);
        look_at_corosync(l);
        look_at_migrd(l);
        rc = l->wrong > 0 ? TOOL_FAILED : TOOL_OK;
    }
    free(l);
    return rc;
}

/* --- the table --- */

static const char init_options[] =
    "  --node [ID:]NAME=ADDRESS[,ADDRESS2]   a host; once for each, this one too\n"
    "  --token TIME         corosync's: 1000ms (default) or 500ms; a host is taken for dead after\n"
    "                       2.2 times that\n"
    "  --out FILE           the bundle for the other hosts (default: beside corosync.conf)\n"
    "  --force              replace what is there (it is kept as *.old-TIME), allow two nodes\n\n"
    "ADDRESS2 is a second, independent network. An authkey that is there already is used on.\n";

static const struct tool_cmd commands[] = {
    { "cluster init", "NAME --node NAME=ADDRESS... [options]",
        "Set corosync up on this host, and make a bundle for the others.", cluster_init,
        init_options, true },
    { "cluster join", "BUNDLE [--force]", "Set corosync up with the bundle of another host.",
        cluster_join, "  --force              replace what is there; it is kept as *.old-TIME\n",
        true },
    { "cluster leave", "[--force]", "Take corosync's configuration and key away.", cluster_leave,
        "  --force              although migrd still takes part\n", true },
    { "cluster status", "", "All that must be right for this host to take part.", cluster_status,
        "Exit status 0: all is right, 1: something is wrong.\n", true },
    { NULL, NULL, NULL, NULL, NULL, false },
};

int migctl_cluster(struct tool *t, int argc, char **argv)
{
    return tool_sub(t, commands, argc, argv);
}
