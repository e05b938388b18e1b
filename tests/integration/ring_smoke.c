/* SPDX-License-Identifier: ISC */
/*
 * A node of corosync's ring and of the beats, without anything above them, for tests: says what it
 * sees, a line an event, and how long its loop ever stood still.
 *
 *   ring_smoke group=NAME [rate=MESSAGES_A_SECOND] [bytes=EACH] [beat=MS] [key=FILE] [port=N]
 *
 *   MS view 1,2,3          MS quorum 1        MS nodes 1=ADDRESS ... own=1 token=1000
 *   MS order N HASH        after each hundredth message since the last view: over all of them
 *   MS reload done         after SIGHUP: the key is read again
 *   MS view none           after SIGUSR1 as well: it leaves the ring, and comes again
 *   MS figures ...         each second, and at the end (SIGTERM); with "stall", the longest time in
 *                          ms that the loop stood still, and "own", the same without what the
 *                          process waited for a CPU
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <xxhash.h>

#include "base/clock.h"
#include "cluster/beat.h"
#include "cluster/nodelist.h"
#include "cluster/ring.h"

#define TICK_MS 5
#define BYTES_MAX (1u << 20)

static struct {
    uv_loop_t loop;
    uv_timer_t tick, second;
    uv_signal_t end, reload, lose;
    struct corosync_ring *ring;
    struct beat *beat;
    struct nodelist *nodes;
    const char *group, *key;
    unsigned rate, bytes, beat_ms, port;
    bool up;
    uint64_t last_tick, last_wait, stall_ns, own_ns, next_send, next_beat, sent, refused;
    uint64_t count, hash;
    uint64_t beats[64], last_beat[64], beat_gap_ns;
} t = { .group = "smoke", .bytes = 100, .port = 8003 };

static __attribute__((format(printf, 1, 2))) void say(const char *fmt, ...)
{
    va_list ap;

    printf("%" PRIu64 " ", clock_ns() / NS_PER_MS);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static void on_view(void *arg, const uint32_t *members, unsigned n)
{
    char text[HA_NODES_MAX * 11 + 1] = "";
    size_t at = 0;

    (void)arg;
    for (unsigned i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%" PRIu32, i ? "," : "", members[i]);
    t.up = n > 0;
    say("view %s after %" PRIu64 " %016" PRIx64, n ? text : "none", t.count, t.hash);
    t.count = t.hash = 0;
}

static void on_quorum(void *arg, bool quorate)
{
    (void)arg;
    say("quorum %d", quorate);
}

static void on_message(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    (void)arg;
    t.hash = XXH64(bytes, len, t.hash + from);
    if (++t.count % 100 == 0)
        say("order %" PRIu64 " %016" PRIx64, t.count, t.hash);
}

static void on_beat(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    uint64_t now = clock_ns();

    (void)arg, (void)bytes, (void)len;
    if (from >= 64)
        return;
    if (t.last_beat[from] && now - t.last_beat[from] > t.beat_gap_ns)
        t.beat_gap_ns = now - t.last_beat[from];
    t.last_beat[from] = now;
    t.beats[from]++;
}

static void on_nodes(void *arg, const struct node_list *list)
{
    char text[2000];
    size_t at = 0;
    struct err e;

    (void)arg;
    for (unsigned i = 0; i < list->n && at < sizeof text - 300; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%" PRIu32 "=%s ", list->node[i].id,
            list->node[i].address);
    say("nodes %sown=%" PRIu32 " token=%u", text, list->own, list->token);
    if (t.beat && beat_nodes(t.beat, list, &e) < 0)
        say("beats: %s", e.text);
}

static void send_beats(void)
{
    const struct node_list *list = nodelist_get(t.nodes);
    static const uint8_t bytes[200];

    for (unsigned i = 0; list && i < list->n; i++)
        if (list->node[i].id != list->own)
            beat_send(t.beat, list->node[i].id, bytes, sizeof bytes);
}

/* What the kernel says that this thread was ready and did not run. */
static uint64_t waited_ns(void)
{
    static int fd = -1;
    char text[100];
    ssize_t n;

    if (fd < 0)
        fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return strtoull(text + strcspn(text, " "), NULL, 10);
}

static void stalls(uint64_t now)
{
    uint64_t waited = waited_ns(), gap = now - t.last_tick, cpu = waited - t.last_wait;

    if (t.last_tick && gap > t.stall_ns)
        t.stall_ns = gap;
    if (t.last_tick && gap > cpu && gap - cpu > t.own_ns)
        t.own_ns = gap - cpu;
    t.last_tick = now;
    t.last_wait = waited;
}

static void on_tick(uv_timer_t *timer)
{
    uint64_t now = clock_ns();
    static uint8_t bytes[BYTES_MAX];

    (void)timer;
    stalls(now);
    if (t.next_send < now - NS_PER_S)
        t.next_send = now;
    while (t.up && t.rate && t.next_send <= now) {
        memcpy(bytes, &t.sent, sizeof t.sent);
        if (corosync_send(t.ring, bytes, t.bytes))
            t.sent++;
        else
            t.refused++;
        t.next_send += NS_PER_S / t.rate;
    }
    if (t.beat_ms && now >= t.next_beat) {
        send_beats();
        t.next_beat = now + t.beat_ms * NS_PER_MS;
    }
}

static void on_second(uv_timer_t *timer)
{
    struct corosync_figures f;
    struct beat_figures b = { 0 };

    (void)timer;
    corosync_figures(t.ring, &f);
    if (t.beat)
        beat_figures(t.beat, &b);
    say("figures up=%d quorate=%d in=%" PRIu64 " out=%" PRIu64 " sent=%" PRIu64 " refused=%" PRIu64
        " waiting=%" PRIu64 " unseen=%" PRIu64 " losses=%" PRIu64 " dispatch_us=%" PRIu64
        " votes=%u/%u/%u device=%s:%u:%d beats=%" PRIu64 "/%" PRIu64 " bad=%" PRIu64 " gap=%" PRIu64
        " stall=%" PRIu64 " own=%" PRIu64 " ring=\"%s\" nodes=\"%s\" beat=\"%s\"",
        f.up, f.quorate, f.messages_in, f.messages_out, t.sent, t.refused, f.waiting_bytes,
        f.unseen_ms, f.losses, f.dispatch_max_us, f.votes, f.expected, f.needed, f.device,
        f.device_votes, f.device_casts, b.in, b.out, b.bad, t.beat_gap_ns / NS_PER_MS,
        t.stall_ns / NS_PER_MS, t.own_ns / NS_PER_MS, f.text, nodelist_text(t.nodes), b.text);
}

static void on_end(uv_signal_t *s, int number)
{
    (void)number;
    on_second(&t.second);
    corosync_stop(t.ring);
    nodelist_stop(t.nodes);
    if (t.beat)
        beat_stop(t.beat);
    uv_close((uv_handle_t *)&t.tick, NULL);
    uv_close((uv_handle_t *)&t.second, NULL);
    uv_close((uv_handle_t *)s, NULL);
    uv_close((uv_handle_t *)&t.reload, NULL);
    uv_close((uv_handle_t *)&t.lose, NULL);
}

static void on_reload(uv_signal_t *s, int number)
{
    struct err e = { .text = "" };

    (void)s, (void)number;
    say("reload %s", t.beat && beat_reload(t.beat, &e) == 0 ? "done" : e.text);
}

static void on_lose(uv_signal_t *s, int number)
{
    (void)s, (void)number;
    corosync_lose(t.ring, "asked to leave the ring");
}

static void parse(const char *arg)
{
    const char *value = strchr(arg, '=');
    static const struct {
        const char *name;
        unsigned *to;
    } number[] = { { "rate=", &t.rate }, { "bytes=", &t.bytes }, { "beat=", &t.beat_ms },
        { "port=", &t.port } };

    for (unsigned i = 0; value && i < sizeof number / sizeof *number; i++)
        if (strncmp(arg, number[i].name, strlen(number[i].name)) == 0)
            *number[i].to = (unsigned)strtoul(value + 1, NULL, 10);
    if (value && strncmp(arg, "group=", 6) == 0)
        t.group = value + 1;
    if (value && strncmp(arg, "key=", 4) == 0)
        t.key = value + 1;
    if (t.bytes < sizeof t.sent || t.bytes > BYTES_MAX)
        t.bytes = sizeof t.sent;
}

static int begin(struct err *e)
{
    static const struct corosync_callbacks cb = { on_view, on_quorum, on_message };

    uv_loop_init(&t.loop);
    uv_timer_init(&t.loop, &t.tick);
    uv_timer_init(&t.loop, &t.second);
    uv_signal_init(&t.loop, &t.end);
    uv_timer_start(&t.tick, on_tick, TICK_MS, TICK_MS);
    uv_timer_start(&t.second, on_second, 1000, 1000);
    uv_signal_start(&t.end, on_end, SIGTERM);
    uv_signal_init(&t.loop, &t.reload);
    uv_signal_start(&t.reload, on_reload, SIGHUP);
    uv_signal_init(&t.loop, &t.lose);
    uv_signal_start(&t.lose, on_lose, SIGUSR1);
    if (t.key && beat_open(&t.loop, t.key, t.port, on_beat, NULL, &t.beat, e) < 0)
        return -1;
    if (corosync_open(&t.loop, t.group, &cb, NULL, &t.ring, e) < 0 ||
        nodelist_open(&t.loop, on_nodes, NULL, &t.nodes, e) < 0)
        return -1;
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t end;
    struct err e;

    for (int i = 1; i < argc; i++)
        parse(argv[i]);
    signal(SIGPIPE, SIG_IGN);
    if (begin(&e) < 0) {
        fprintf(stderr, "ring_smoke: %s\n", e.text);
        return 1;
    }
    uv_run(&t.loop, UV_RUN_DEFAULT);
    end = clock_ns();
    corosync_close(&t.ring);
    nodelist_close(&t.nodes);
    beat_close(&t.beat);
    say("end, loop %s, closed in %" PRIu64 " us", uv_loop_close(&t.loop) == 0 ? "empty" : "busy",
        (clock_ns() - end) / NS_PER_US);
    return 0;
}
