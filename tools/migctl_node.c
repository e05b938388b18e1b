/* SPDX-License-Identifier: ISC */
/*
 * migctl node: the hosts of the cluster, and emptying one of them. The drain itself is the
 * cluster's: it goes on whatever becomes of this program, which only looks at the log again and
 * again and shows who has left, who is on the way, and what keeps the others.
 */
#define _GNU_SOURCE
#include "tools/migctl.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/pbjson.h"
#include "tools/format.h"
#include "tools/ha_ask.h"
#include "tools/ha_words.h"
#include "tools/migrate.h"

#define LOOK_US 400000
#define SHOWN_MAX 12 /* domains on the terminal at a time */
#define LINE_LEN 300

enum { OPT_NO_WAIT = 256, OPT_FORCE, OPT_TIME_LIMIT, OPT_RETURN_HOME, OPT_JSON };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

/* --- list --- */

static int print_nodes_json(const Migrd__HaOverview *o)
{
    json_t *list = json_array();

    for (size_t i = 0; i < o->n_places; i++) {
        const Migrd__HaNode *n = ha_node(o, o->places[i]->node);
        json_t *one = n != NULL ? pbjson(&n->base) : json_object();

        json_object_set_new(one, "id", json_integer(o->places[i]->node));
        json_object_set_new(one, "name", pbjson_text(o->places[i]->name));
        json_object_set_new(one, "address", pbjson_text(o->places[i]->address));
        json_array_append_new(list, one);
    }
    return tool_print_json(json_pack("{s:o}", "nodes", list));
}

static int node_list(struct tool *t, int argc, char **argv)
{
    static const struct option options[] = {
        { "json", no_argument, NULL, OPT_JSON },
        { NULL, 0, NULL, 0 },
    };
    bool json = false;
    Migrd__Reply *r;
    int o, rc = TOOL_OK;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        json = true;
    }
    if (tool_words(t, argc, 0, 0) != 0)
        return TOOL_USAGE;
    r = tool_ha(t);
    if (r == NULL)
        return TOOL_FAILED;
    if (json)
        rc = print_nodes_json(r->ha);
    else
        ha_show_nodes(r->ha);
    tool_free(&r);
    return rc;
}

/* --- following a drain --- */

struct leaver {
    char uuid[40], why[LINE_LEN]; /* why it still is there, as said last */
    bool left;
};

struct drain {
    struct tool *t;
    char name[HA_WORD_LEN];
    uint32_t node;
    uint64_t begin_ns, until_ns; /* 0: no limit */
    struct leaver *leaver;       /* all that were seen there */
    size_t n, left;
    bool terminal;
    unsigned drawn; /* lines */
};

static struct leaver *leaver_of(struct drain *d, const char *uuid)
{
    struct leaver *list;

    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->leaver[i].uuid, uuid) == 0)
            return &d->leaver[i];
    list = realloc(d->leaver, (d->n + 1) * sizeof *list);
    if (list == NULL)
        return NULL;
    d->leaver = list;
    memset(&list[d->n], 0, sizeof list[0]);
    snprintf(list[d->n].uuid, sizeof list[0].uuid, "%s", uuid);
    return &list[d->n++];
}

/* One that stays, or is on its way; `moving`: this host's record of its migration, or NULL. */
static void stay_text(const Migrd__HaOverview *o, const Migrd__HaDomain *x,
    const Migrd__MigrationInfo *moving, char *out, size_t width)
{
    char to[HA_WORD_LEN], why[LINE_LEN];

    if (moving != NULL)
        progress_line(moving, out, width < LINE_LEN ? width + 1 : LINE_LEN, width);
    else if (x->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_MIGRATING)
        snprintf(out, LINE_LEN, "%s  on its way to %s", x->name, ha_node_name(to, o, x->to));
    else
        snprintf(out, LINE_LEN, "%s  %s: %s", x->name, ha_domain_state_text(x),
            x->why[0] != '\0' ? ha_say(why, sizeof why, o, x->why) : "waits for its turn");
}

static const Migrd__MigrationInfo *moving(const Migrd__Reply *m, const char *uuid)
{
    for (size_t i = 0; m != NULL && i < m->n_migrations; i++)
        if (strcmp(m->migrations[i]->uuid, uuid) == 0 && m->migrations[i]->report == NULL)
            return m->migrations[i];
    return NULL;
}

/* This host's migrations, where it is the one that is drained. */
static Migrd__Reply *migrations_here(struct drain *d, const Migrd__HaOverview *o)
{
    Migrd__ListMigrations list = MIGRD__LIST_MIGRATIONS__INIT;
    Migrd__Request rq = MIGRD__REQUEST__INIT;

    if (o->node != d->node)
        return NULL;
    CLIENT_BODY(rq, MIGRATIONS, migrations, &list);
    return tool_call(d->t, &rq, TOOL_SHORT_MS);
}

static size_t line_width(void)
{
    struct winsize w;

    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col - 3u : 77;
}

static void clear_lines(struct drain *d)
{
    for (; d->drawn > 0; d->drawn--)
        fputs("\033[A\r\033[K", stderr);
}

static void put_line(struct drain *d, const char *indent, const char *text, size_t width)
{
    fprintf(stderr, "%s%.*s\n", indent, (int)width, text);
    d->drawn++;
}

static void draw(struct drain *d, const Migrd__HaOverview *o)
{
    Migrd__Reply *m = migrations_here(d, o);
    size_t width = line_width(), shown = 0, stay = 0;
    char line[LINE_LEN];

    clear_lines(d);
    snprintf(line, sizeof line, "%s: %zu of %zu domains have left", d->name, d->left, d->n);
    put_line(d, "", line, width);
    for (size_t i = 0; i < o->state->n_domain; i++) {
        const Migrd__HaDomain *x = o->state->domain[i];

        if (!ha_is_at(x, d->node))
            continue;
        stay++;
        if (shown == SHOWN_MAX)
            continue;
        stay_text(o, x, moving(m, x->uuid), line, width - 2);
        put_line(d, "  ", line, width - 2);
        shown++;
    }
    if (stay > shown) {
        snprintf(line, sizeof line, "and %zu more", stay - shown);
        put_line(d, "  ", line, width);
    }
    tool_free(&m);
}

/* Not a terminal: what has changed, a line each. */
static void say_changes(struct drain *d, const Migrd__HaOverview *o)
{
    for (size_t i = 0; i < o->state->n_domain; i++) {
        const Migrd__HaDomain *x = o->state->domain[i];
        struct leaver *l = ha_is_at(x, d->node) ? leaver_of(d, x->uuid) : NULL;
        char line[LINE_LEN];

        if (l == NULL)
            continue;
        stay_text(o, x, NULL, line, LINE_LEN - 1);
        if (strcmp(line, l->why) == 0)
            continue;
        snprintf(l->why, sizeof l->why, "%s", line);
        fprintf(stderr, "%s\n", line);
    }
}

/* Who was there and is not any more. How many still are. */
static size_t count_leavers(struct drain *d, const Migrd__HaOverview *o)
{
    size_t stay = 0;

    for (size_t i = 0; i < o->state->n_domain; i++)
        if (ha_is_at(o->state->domain[i], d->node))
            leaver_of(d, o->state->domain[i]->uuid), stay++;
    d->left = 0;
    for (size_t i = 0; i < d->n; i++) {
        const Migrd__HaDomain *x = ha_domain(o, d->leaver[i].uuid);
        bool left = x == NULL || !ha_is_at(x, d->node);
        char where[HA_WORD_LEN];

        if (left && !d->leaver[i].left && !d->terminal && x != NULL)
            fprintf(stderr, "%s  has left for %s\n", x->name, ha_node_name(where, o, x->owner));
        d->leaver[i].left = left;
        d->left += left;
    }
    return stay;
}

/* What the cluster does not move. */
static void name_unprotected(struct drain *d, const Migrd__HaOverview *o)
{
    Migrd__Reply *r = o->node == d->node ? tool_domains(d->t, false) : NULL;
    unsigned n = 0;

    for (size_t i = 0; r != NULL && i < r->n_domains; i++)
        if (ha_domain(o, r->domains[i]->domain->uuid) == NULL)
            printf("%s%s", n++ == 0 ? "Not protected, and still here: " : ", ",
                r->domains[i]->domain->name);
    if (n > 0)
        puts("; move them with 'migctl migrate'.");
    tool_free(&r);
}

static int drain_done(struct drain *d, const Migrd__HaOverview *o)
{
    char took[FORMAT_LEN];

    clear_lines(d);
    if (d->n == 0)
        printf("%s is empty, nothing had to move.", d->name);
    else
        printf("%s is empty: %zu domain%s moved away within %s.", d->name, d->n,
            d->n == 1 ? "" : "s", format_us(took, (clock_ns() - d->begin_ns) / NS_PER_US));
    printf(" 'migctl node undrain %s' lets it have some again.\n", d->name);
    name_unprotected(d, o);
    return TOOL_OK;
}

static int drain_stays(struct drain *d, const Migrd__HaOverview *o)
{
    char line[LINE_LEN];

    clear_lines(d);
    printf(
        "%s is not empty yet; the drain goes on, 'migctl node undrain %s' ends it. Still there:\n",
        d->name, d->name);
    for (size_t i = 0; i < o->state->n_domain; i++)
        if (ha_is_at(o->state->domain[i], d->node)) {
            stay_text(o, o->state->domain[i], NULL, line, LINE_LEN - 1);
            printf("  %s\n", line);
        }
    return TOOL_WOULD_NOT;
}

/* One look: -1 to go on, or an exit code. */
static int drain_look(struct drain *d, const Migrd__HaOverview *o)
{
    const Migrd__HaNode *n = ha_node(o, d->node);
    size_t stay = count_leavers(d, o);

    if (stay == 0)
        return drain_done(d, o);
    if (n == NULL || !n->drain) {
        clear_lines(d);
        return tool_error("the drain of %s was ended by somebody; %zu of %zu domains have left",
            d->name, d->left, d->n);
    }
    if (interrupted) {
        clear_lines(d);
        fprintf(stderr,
            "Leaving; the drain goes on: 'migctl node drain %s' shows it again, 'migctl node "
            "undrain "
            "%s' ends it.\n",
            d->name, d->name);
        return TOOL_FAILED;
    }
    if (d->until_ns != 0 && clock_ns() > d->until_ns)
        return drain_stays(d, o);
    if (d->terminal)
        draw(d, o);
    else
        say_changes(d, o);
    return -1;
}

static int drain_follow(struct drain *d)
{
    struct sigaction sa = { .sa_handler = on_interrupt }, before;
    int rc = -1;

    interrupted = 0;
    sigaction(SIGINT, &sa, &before);
    while (rc < 0) {
        Migrd__Reply *r = tool_ha(d->t);

        if (r == NULL) {
            rc = tool_error("the drain goes on; 'migctl node drain %s' shows it again", d->name);
            break;
        }
        rc = drain_look(d, r->ha);
        tool_free(&r);
        if (rc < 0 && !interrupted)
            usleep(LOOK_US);
    }
    sigaction(SIGINT, &before, NULL);
    free(d->leaver);
    return rc;
}

/* --- drain, undrain --- */

struct node_words {
    struct ha_ask ask;
    uint32_t limit_ms;
    bool no_wait;
};

static int read_words(struct tool *t, int argc, char **argv, struct node_words *w)
{
    static const struct option options[] = {
        { "no-wait", no_argument, NULL, OPT_NO_WAIT },
        { "force", no_argument, NULL, OPT_FORCE },
        { "time-limit", required_argument, NULL, OPT_TIME_LIMIT },
        { "return-home", no_argument, NULL, OPT_RETURN_HOME },
        { NULL, 0, NULL, 0 },
    };
    struct err e;
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == '?')
            return tool_usage(t, NULL);
        w->no_wait = w->no_wait || o == OPT_NO_WAIT;
        w->ask.force = w->ask.force || o == OPT_FORCE;
        w->ask.command.return_home = w->ask.command.return_home || o == OPT_RETURN_HOME;
        if (o == OPT_TIME_LIMIT && parse_duration(optarg, "time-limit", 1000, &w->limit_ms, &e) < 0)
            return tool_usage(t, "%s", e.text);
    }
    if (tool_words(t, argc, 1, 1) != 0)
        return TOOL_USAGE;
    w->ask.rq.node = argv[optind];
    return 0;
}

/* The node's id and name; 0, or an exit code. */
static int find_node(
    struct tool *t, const char *which, uint32_t *id, char name[HA_WORD_LEN], bool *drained)
{
    Migrd__Reply *r = tool_ha(t);
    const Migrd__HaNode *n;

    if (r == NULL)
        return TOOL_FAILED;
    *id = ha_node_id(r->ha, which);
    ha_node_name(name, r->ha, *id);
    n = ha_node(r->ha, *id);
    *drained = n != NULL && n->drain;
    tool_free(&r);
    if (*id == 0)
        return tool_error(
            "node %s is not in the cluster; 'migctl node list' shows those that are", which);
    return TOOL_OK;
}

static int node_drain(struct tool *t, int argc, char **argv)
{
    struct drain d = { .t = t, .terminal = isatty(STDERR_FILENO) == 1 };
    struct node_words w = { .no_wait = false };
    bool drained;
    int rc;

    ha_ask_init(&w.ask, MIGRD__HA_COMMAND_KIND__HA_DRAIN);
    rc = read_words(t, argc, argv, &w);
    if (rc == 0)
        rc = find_node(t, w.ask.rq.node, &d.node, d.name, &drained);
    if (rc != 0)
        return rc;
    if (!drained)
        rc = ha_ask_carefully(t, &w.ask);
    if (rc != 0)
        return rc;
    if (w.no_wait) {
        printf(
            "%s is being drained; 'migctl node drain %s' shows how far it is.\n", d.name, d.name);
        return TOOL_OK;
    }
    d.begin_ns = clock_ns();
    d.until_ns = w.limit_ms != 0 ? d.begin_ns + w.limit_ms * NS_PER_MS : 0;
    return drain_follow(&d);
}

static int node_undrain(struct tool *t, int argc, char **argv)
{
    struct node_words w = { .no_wait = false };
    char name[HA_WORD_LEN];
    bool drained = false;
    uint32_t id;
    int rc;

    ha_ask_init(&w.ask, MIGRD__HA_COMMAND_KIND__HA_UNDRAIN);
    rc = read_words(t, argc, argv, &w);
    if (rc == 0)
        rc = find_node(t, w.ask.rq.node, &id, name, &drained);
    if (rc == 0)
        rc = ha_ask_now(t, &w.ask);
    if (rc == 0 && !drained)
        printf("%s was not drained; it may have domains.\n", name);
    else if (rc == 0)
        printf("%s may have domains again%s.\n", name,
            w.ask.command.return_home ? "; those that it had come back one by one" : "");
    return rc;
}

/* --- the table --- */

static const char drain_options[] =
    "  --no-wait            only begin it\n"
    "  --time-limit TIME    leave after: 10m; the drain goes on\n"
    "  --force              although a further loss would leave domains without a place\n\n"
    "Moves all protected domains elsewhere, live, a few at a time (cluster-moves-at-once in\n"
    "migrd.conf), and gives it no new ones. ^C leaves; the drain goes on. Again: follows it "
    "again.\n"
    "Exit status 0: it is empty, 1: failed, 3: not empty within --time-limit.\n";

static const struct tool_cmd commands[] = {
    { "node list", "[--json]", "The nodes of the cluster.", node_list,
        "  --json               as JSON\n", true },
    { "node drain", "NODE [options]", "Move all protected domains away from a node.", node_drain,
        drain_options, true },
    { "node undrain", "NODE [--return-home]", "End that, also half-way.", node_undrain,
        "  --return-home        what the drain took away comes back\n", true },
    { NULL, NULL, NULL, NULL, NULL, false },
};

int migctl_node(struct tool *t, int argc, char **argv)
{
    return tool_sub(t, commands, argc, argv);
}
