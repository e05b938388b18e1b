/* SPDX-License-Identifier: ISC */
/*
 * cluster_smoke: cluster/node.h by itself, on a real corosync, with a host that only pretends.
 *
 *   cluster_smoke NAME STATE-DIR KEY-FILE BEAT-PORT
 *
 * Its domains are entries of a table: they start at once, run while their fuse burns, and are
 * paused when it has burnt. Lines that it prints begin with ms of CLOCK_BOOTTIME:
 *
 *   MS note|ALARM TEXT            MS act WHAT UUID EPOCH TEXT     MS runs|paused|gone UUID EPOCH
 *   MS phase NAME TERM            MS node ID STATE                MS domain UUID STATE OWNER EPOCH
 *
 * Commands on its input: add UUID NAME, remove UUID, run UUID yes|no, arm, disarm, certificate K,
 * figures, protected UUID, quit. Each is answered by a line "MS answer ...".
 */
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "cluster/node.h"

#define COPIES_MAX 64
#define LOOK_MS 5
#define REPEAT_MS 2000
#define SEEN_MAX 64

struct copy {
    char uuid[HA_UUID_LEN];
    uint64_t epoch, deadline;
    enum ha_seen seen;
    bool blown;
};

static uv_loop_t loop;
static struct cluster *cluster;
static struct copy copies[COPIES_MAX];
static unsigned n_copies;
static uv_timer_t look_timer, repeat_timer;
static uv_pipe_t input;
static char line[512];
static size_t line_len;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    va_list ap;

    printf("%" PRIu64 " ", clock_boot_ms());
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

/* --- the host that pretends --- */

static struct copy *find_copy(const char *uuid)
{
    for (unsigned i = 0; i < n_copies; i++)
        if (strcmp(copies[i].uuid, uuid) == 0)
            return &copies[i];
    return NULL;
}

static void tell(const struct copy *k)
{
    struct ha_event e = { .type = HA_EV_DOMAIN };

    memcpy(e.u.domain.uuid, k->uuid, HA_UUID_LEN);
    e.u.domain.epoch = k->epoch;
    e.u.domain.seen = k->seen;
    e.u.domain.fused = true;
    e.u.domain.blown = k->blown;
    cluster_domain(cluster, &e);
}

static void turn(struct copy *k, enum ha_seen seen, bool blown)
{
    static const char *const names[] = { "gone", "runs", "paused" };

    k->seen = seen;
    k->blown = blown;
    say("%s %s %" PRIu64, names[seen], k->uuid, k->epoch);
    tell(k);
}

static void drop(struct copy *k)
{
    struct copy gone = *k;

    *k = copies[--n_copies];
    turn(&gone, HA_SEEN_GONE, false);
}

static bool burns(const struct copy *k)
{
    return k->deadline > clock_boot_ms();
}

static void on_fuse(void *host, const char *uuid, uint64_t epoch, uint64_t deadline)
{
    struct copy *k = find_copy(uuid);

    (void)host;
    if (k == NULL || k->epoch != epoch)
        return;
    k->deadline = deadline;
    if (burns(k) && k->seen == HA_SEEN_PAUSED && k->blown && epoch > 0)
        turn(k, HA_SEEN_RUNNING, false);
}

static bool begin(const struct ha_action *a)
{
    struct copy *k;

    if (find_copy(a->uuid) != NULL || n_copies == COPIES_MAX)
        return false;
    k = &copies[n_copies++];
    *k = (struct copy){ .epoch = a->epoch };
    memcpy(k->uuid, a->uuid, HA_UUID_LEN);
    turn(k, HA_SEEN_PAUSED, true);
    return true;
}

static bool act(const struct ha_action *a)
{
    struct copy *k = find_copy(a->uuid);

    switch (a->type) {
    case HA_ACT_START:
        return begin(a);
    case HA_ACT_STOP:
    case HA_ACT_DESTROY:
        if (k != NULL && k->epoch == a->epoch)
            drop(k);
        return true;
    case HA_ACT_RESUME:
        if (k == NULL || k->epoch != a->epoch || !burns(k))
            return false;
        turn(k, HA_SEEN_RUNNING, false);
        return true;
    default:
        return false;
    }
}

static void on_act(void *host, const struct ha_action *a)
{
    static const char *const names[HA_ACT_MAX] = { [HA_ACT_START] = "START",
        [HA_ACT_STOP] = "STOP",
        [HA_ACT_DESTROY] = "DESTROY",
        [HA_ACT_RESUME] = "RESUME",
        [HA_ACT_MIGRATE] = "MIGRATE",
        [HA_ACT_CANCEL] = "CANCEL" };
    bool ok;

    (void)host;
    say("act %s %s %" PRIu64 " %s", names[a->type], a->uuid, a->epoch, a->text);
    ok = act(a);
    cluster_result(cluster, a->id, ok, ok ? "" : "the pretended host can't");
}

static void on_look(uv_timer_t *t)
{
    (void)t;
    for (unsigned i = 0; i < n_copies; i++)
        if (copies[i].seen == HA_SEEN_RUNNING && !burns(&copies[i]))
            turn(&copies[i], HA_SEEN_PAUSED, true);
}

static void on_repeat(uv_timer_t *t)
{
    (void)t;
    for (unsigned i = 0; i < n_copies; i++)
        tell(&copies[i]);
    cluster_capacity(cluster, 16 << 20, 8, 0);
}

/* --- what is said --- */

static void on_note(void *host, bool alarm, const char *text)
{
    (void)host;
    say("%s %s", alarm ? "ALARM" : "note", text);
}

static void say_domains(const Migrd__HaState *s)
{
    static char before[SEEN_MAX][160];

    for (size_t i = 0; i < s->n_domain && i < SEEN_MAX; i++) {
        const Migrd__HaDomain *d = s->domain[i];
        char now[160];

        snprintf(now, sizeof now, "%.36s %s %u %" PRIu64, d->uuid,
            protobuf_c_enum_descriptor_get_value(&migrd__ha_domain_state__descriptor, (int)d->state)
                ->name,
            d->owner, d->epoch);
        if (strcmp(now, before[i]) != 0)
            say("domain %s: %s", now, d->why);
        strcpy(before[i], now);
    }
}

static void on_changed(void *host)
{
    static int phase = -1, nodes[HA_NODES_MAX];
    static uint64_t term;
    const Migrd__HaState *s = cluster_state(cluster);

    (void)host;
    if (s == NULL)
        return;
    if ((int)s->local->phase != phase || s->term != term)
        say("phase %s %" PRIu64 " %s",
            protobuf_c_enum_descriptor_get_value(&migrd__ha_phase__descriptor, (int)s->local->phase)
                ->name,
            s->term, s->local->why);
    phase = (int)s->local->phase;
    term = s->term;
    for (size_t i = 0; i < s->n_node && i < HA_NODES_MAX; i++) {
        if (nodes[i] != (int)s->node[i]->state)
            say("node %u %s", s->node[i]->id,
                protobuf_c_enum_descriptor_get_value(
                    &migrd__ha_node_state__descriptor, (int)s->node[i]->state)
                    ->name);
        nodes[i] = (int)s->node[i]->state;
    }
    say_domains(s);
}

/* --- commands --- */

static void on_answer(void *arg, const Migrd__HaAnswer *a)
{
    (void)arg;
    if (a == NULL)
        say("answer none: the node ends");
    else
        say("answer %s owner %u epoch %" PRIu64 " %s", a->ok ? "ok" : "no", a->owner, a->epoch,
            a->text);
}

static void ask(Migrd__HaCommand *m)
{
    struct err e;

    m->who = (char *)"cluster_smoke";
    if (cluster_ask(cluster, m, 10000, on_answer, NULL, &e) < 0)
        say("answer no %s", e.text);
}

static void ask_add(const char *uuid, const char *name)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    Migrd__HaDomain d = MIGRD__HA_DOMAIN__INIT;
    Migrd__HaPolicy policy = MIGRD__HA_POLICY__INIT;

    m.kind = MIGRD__HA_COMMAND_KIND__HA_ADD;
    m.uuid = d.uuid = (char *)uuid;
    m.domain = &d;
    d.name = (char *)name;
    d.want_run = true;
    d.policy = &policy;
    d.memory_kib = 1 << 20;
    d.vcpus = 1;
    d.obeys_fuse = true;
    d.definition = (ProtobufCBinaryData){ strlen(name), (uint8_t *)name };
    ask(&m);
}

static void ask_run(const char *uuid, const char *yes)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;
    Migrd__HaDomain d = MIGRD__HA_DOMAIN__INIT;
    char *set[] = { (char *)"want_run" };

    m.kind = MIGRD__HA_COMMAND_KIND__HA_SET;
    m.uuid = d.uuid = (char *)uuid;
    m.domain = &d;
    m.set = set;
    m.n_set = 1;
    d.want_run = strcmp(yes, "yes") == 0;
    ask(&m);
}

static void ask_kind(Migrd__HaCommandKind kind, const char *uuid)
{
    Migrd__HaCommand m = MIGRD__HA_COMMAND__INIT;

    m.kind = kind;
    m.uuid = (char *)uuid;
    ask(&m);
}

static void say_certificate(unsigned k)
{
    Migrd__HaPlan *p = cluster_certificate(cluster, k);

    say("answer certificate %s: %s", p != NULL && p->holds ? "holds" : "does not hold",
        p != NULL ? p->text : "no memory");
    if (p != NULL)
        migrd__ha_plan__free_unpacked(p, NULL);
}

static void say_figures(void)
{
    struct cluster_figures f;

    cluster_figures(cluster, &f);
    say("answer ring %d quorate %d messages %" PRIu64 "/%" PRIu64 " beats %" PRIu64 "/%" PRIu64
        " bad %" PRIu64 " write %" PRIu64 "/%" PRIu64 " us late %" PRIu64 "/%" PRIu64
        " ms failovers %" PRIu64 " %s",
        f.ring_up, f.quorate, f.messages_in, f.messages_out, f.beats_in, f.beats_out, f.beats_bad,
        f.persist_last_us, f.persist_max_us, f.late_last_ms, f.late_max_ms, f.failovers,
        f.ring_text);
}

static void quit(void)
{
    cluster_stop(cluster);
    uv_close((uv_handle_t *)&look_timer, NULL);
    uv_close((uv_handle_t *)&repeat_timer, NULL);
    uv_close((uv_handle_t *)&input, NULL);
}

static void obey(const char *text)
{
    char word[3][64] = { "", "", "" };
    bool final;

    sscanf(text, "%63s %63s %63s", word[0], word[1], word[2]);
    if (strcmp(word[0], "add") == 0)
        ask_add(word[1], word[2]);
    else if (strcmp(word[0], "remove") == 0)
        ask_kind(MIGRD__HA_COMMAND_KIND__HA_REMOVE, word[1]);
    else if (strcmp(word[0], "run") == 0)
        ask_run(word[1], word[2]);
    else if (strcmp(word[0], "arm") == 0)
        ask_kind(MIGRD__HA_COMMAND_KIND__HA_ARM, "");
    else if (strcmp(word[0], "disarm") == 0)
        ask_kind(MIGRD__HA_COMMAND_KIND__HA_DISARM, "");
    else if (strcmp(word[0], "certificate") == 0)
        say_certificate((unsigned)atoi(word[1]));
    else if (strcmp(word[0], "figures") == 0)
        say_figures();
    else if (strcmp(word[0], "protected") == 0) {
        bool yes = cluster_is_protected(cluster, word[1], &final);

        say("answer protected %s %s", yes ? "yes" : "no", final ? "final" : "so far");
    } else if (strcmp(word[0], "quit") == 0)
        quit();
    else
        say("answer no such command: %s", word[0]);
}

static void on_alloc(uv_handle_t *h, size_t size, uv_buf_t *buf)
{
    (void)h;
    (void)size;
    *buf = uv_buf_init(line + line_len, (unsigned)(sizeof line - line_len - 1));
}

static void on_input(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    char *end;

    (void)buf;
    if (n < 0) {
        uv_read_stop(s);
        return;
    }
    line_len += (size_t)n;
    line[line_len] = '\0';
    while ((end = strchr(line, '\n')) != NULL) {
        char text[sizeof line];

        *end = '\0';
        strcpy(text, line);
        line_len -= (size_t)(end + 1 - line);
        memmove(line, end + 1, line_len + 1);
        obey(text);
    }
}

int main(int argc, char **argv)
{
    static const struct cluster_host host = { on_fuse, on_act, on_note, on_changed };
    struct cluster_options o = { .watchdog = "",
        .fence_file = "",
        .starts_at_once = 4,
        .moves_at_once = 2,
        .flight_limit = 64 << 20 };
    struct err e;

    if (argc != 5) {
        fprintf(stderr, "usage: cluster_smoke NAME STATE-DIR KEY-FILE BEAT-PORT\n");
        return 2;
    }
    log_open("cluster_smoke", NULL, &e);
    o.host_name = argv[1];
    o.state_dir = argv[2];
    o.key_file = argv[3];
    o.beat_port = (unsigned)atoi(argv[4]);
    uv_loop_init(&loop);
    if (cluster_open(&loop, &o, &host, NULL, &cluster, &e) < 0) {
        say("ALARM %s", e.text);
        uv_run(&loop, UV_RUN_DEFAULT);
        cluster_close(&cluster);
        return 1;
    }
    uv_timer_init(&loop, &look_timer);
    uv_timer_start(&look_timer, on_look, LOOK_MS, LOOK_MS);
    uv_timer_init(&loop, &repeat_timer);
    uv_timer_start(&repeat_timer, on_repeat, 0, REPEAT_MS);
    uv_pipe_init(&loop, &input, 0);
    uv_pipe_open(&input, 0);
    uv_read_start((uv_stream_t *)&input, on_alloc, on_input);
    say("started");
    uv_run(&loop, UV_RUN_DEFAULT);
    cluster_close(&cluster);
    uv_loop_close(&loop);
    say("ended");
    return 0;
}
