/* SPDX-License-Identifier: ISC */
/*
 * lifeline: proof that a Linux guest lives on. One static program, for both ends:
 *
 *   lifeline run [KEY=VALUE...]     in the guest, as process 1: forks the workers and prints ticks
 *   lifeline serve PORT             the guest's TCP server alone
 *   lifeline peer ADDRESS PORT [seconds=N] [interval_ms=N]   the host's end of a connection
 *
 * Workers share one struct of counters with process 1, each writes its own: beat (a counter
 * and the longest gaps between two beats), memory (rewrites pages in order, checking what
 * it wrote the round before), serve (answers numbered messages), disk (writes stamped
 * blocks to the disk and reads them back past the cache). A worker that ends is reported as DIED.
 *
 * A TCP message is 16 bytes: number, and mix(number) to the guest, mix(~number) back. The
 * peer has one message under way at a time and never reconnects: a lost connection is a failure.
 */
#define _GNU_SOURCE /* O_DIRECT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define CLIENTS_MAX 16
#define CONNECT_TRIES 100

struct shared {
    _Atomic uint64_t beats, gap_us, wall_gap_us, reset_gap;
    _Atomic uint64_t memory_rounds, memory_mib, memory_bad;
    _Atomic uint64_t tcp_connections, tcp_messages, tcp_bad;
    _Atomic uint64_t disk_blocks, disk_bad;
};
static struct shared *shared;

static struct {
    uint64_t memory_mib, rate_mib, port, tick_ms, beat_ms, disk_mib, disk_ms, seconds, interval_ms;
} opt = { .memory_mib = 32,
    .rate_mib = 20,
    .port = 7000,
    .tick_ms = 1000,
    .beat_ms = 1,
    .disk_ms = 5,
    .interval_ms = 10 };

struct message {
    uint64_t number, check;
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t now_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void sleep_us(uint64_t us)
{
    struct timespec t = { (time_t)(us / 1000000), (long)(us % 1000000 * 1000) };
    nanosleep(&t, NULL);
}

static void die(const char *what) __attribute__((noreturn));
static void die(const char *what)
{
    printf("lifeline: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- workers --- */

static void raise_to(_Atomic uint64_t *longest, uint64_t value)
{
    if (value > atomic_load(longest))
        atomic_store(longest, value);
}

static void work_beat(void)
{
    uint64_t mono = now_us(CLOCK_MONOTONIC), wall = now_us(CLOCK_REALTIME);
    for (;;) {
        sleep_us(opt.beat_ms * 1000);
        uint64_t m = now_us(CLOCK_MONOTONIC), w = now_us(CLOCK_REALTIME);
        if (atomic_exchange(&shared->reset_gap, 0)) {
            atomic_store(&shared->gap_us, 0);
            atomic_store(&shared->wall_gap_us, 0);
        }
        raise_to(&shared->gap_us, m - mono);
        raise_to(&shared->wall_gap_us, w > wall ? w - wall : 0);
        mono = m;
        wall = w;
        atomic_fetch_add(&shared->beats, 1);
    }
}

static uint64_t page_word(uint64_t page, uint64_t round, unsigned i)
{
    return mix(page << 32 ^ round << 16 ^ i);
}

/* The page must hold what `round` wrote; then the next round is written. */
static void renew_page(uint64_t *p, uint64_t page, uint64_t round)
{
    for (unsigned i = 0; i < PAGE / 8; i++) {
        if (round && p[i] != page_word(page, round, i)) {
            if (atomic_fetch_add(&shared->memory_bad, 1) < 8)
                printf("CORRUPT memory page=%lu word=%u round=%lu\n", page, i, round);
            break;
        }
    }
    for (unsigned i = 0; i < PAGE / 8; i++)
        p[i] = page_word(page, round + 1, i);
}

static void work_memory(void)
{
    uint64_t pages = opt.memory_mib * 256;
    uint64_t *area =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        die("memory of the memory worker");
    uint64_t start = now_us(CLOCK_MONOTONIC);
    for (uint64_t round = 0;; round++) {
        for (uint64_t page = 0; page < pages; page++) {
            renew_page(area + page * (PAGE / 8), page, round);
            uint64_t done = round * pages + page + 1;
            if (done % 256)
                continue;
            atomic_store(&shared->memory_mib, done / 256);
            uint64_t due = start + (opt.rate_mib ? done / 256 * 1000000 / opt.rate_mib : 0);
            uint64_t now = now_us(CLOCK_MONOTONIC);
            if (due > now)
                sleep_us(due - now);
        }
        atomic_store(&shared->memory_rounds, round + 1);
    }
}

static void work_disk(void)
{
    const char *disk = access("/dev/xvda", F_OK) == 0 ? "/dev/xvda" : "/dev/vda";
    int fd = open(disk, O_RDWR | O_DIRECT);
    uint64_t *block = NULL, blocks = opt.disk_mib * 256;
    if (fd < 0 || posix_memalign((void **)&block, PAGE, PAGE))
        die(disk);
    for (uint64_t n = 0;; n++) {
        uint64_t at = n % blocks, old = n >= blocks ? n - blocks + 1 : 0;
        if (pread(fd, block, PAGE, (off_t)(at * PAGE)) != PAGE)
            die("read of the disk");
        if (old && (block[0] != old || block[511] != mix(old)) &&
            atomic_fetch_add(&shared->disk_bad, 1) < 8)
            printf("CORRUPT disk block=%lu is=%lu expected=%lu\n", at, block[0], old);
        for (unsigned i = 1; i < PAGE / 8; i++)
            block[i] = mix(n + 1);
        block[0] = n + 1;
        if (pwrite(fd, block, PAGE, (off_t)(at * PAGE)) != PAGE || (n % 64 == 0 && fdatasync(fd)))
            die("write to the disk");
        atomic_store(&shared->disk_blocks, n + 1);
        sleep_us(opt.disk_ms * 1000);
    }
}

/* A client's bytes; a message may come in pieces. */
struct client {
    struct message m;
    size_t have;
};

/* false: the connection is over. */
static bool answer(int fd, struct client *c)
{
    ssize_t n = read(fd, (char *)&c->m + c->have, sizeof(c->m) - c->have);
    if (n <= 0)
        return false;
    c->have += (size_t)n;
    if (c->have < sizeof(c->m))
        return true;
    c->have = 0;
    if (c->m.check != mix(c->m.number)) {
        atomic_fetch_add(&shared->tcp_bad, 1);
        return false;
    }
    c->m.check = mix(~c->m.number);
    atomic_fetch_add(&shared->tcp_messages, 1);
    return write(fd, &c->m, sizeof(c->m)) == sizeof(c->m);
}

static int listen_on(uint64_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, CLIENTS_MAX))
        die("TCP server");
    return fd;
}

static void work_serve(void)
{
    struct pollfd fds[1 + CLIENTS_MAX];
    struct client clients[1 + CLIENTS_MAX];
    nfds_t count = 1;
    int one = 1;
    fds[0] = (struct pollfd){ listen_on(opt.port), POLLIN, 0 };
    for (;;) {
        fds[0].events = count <= CLIENTS_MAX ? POLLIN : 0;
        if (poll(fds, count, -1) < 0)
            continue;
        for (nfds_t i = count - 1; i > 0; i--)
            if (fds[i].revents && !answer(fds[i].fd, &clients[i])) {
                close(fds[i].fd);
                count--;
                fds[i] = fds[count];
                clients[i] = clients[count];
            }
        if (!(fds[0].revents & POLLIN))
            continue;
        int fd = accept(fds[0].fd, NULL, NULL);
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        fds[count] = (struct pollfd){ fd, POLLIN, 0 };
        clients[count++] = (struct client){ .have = 0 };
        atomic_fetch_add(&shared->tcp_connections, 1);
    }
}

/* --- process 1 --- */

static struct worker {
    const char *name;
    void (*work)(void);
    pid_t pid; /* 0: not started, or dead */
} workers[] = {
    { "beat", work_beat, 0 },
    { "memory", work_memory, 0 },
    { "serve", work_serve, 0 },
    { "disk", work_disk, 0 },
};
#define WORKERS (sizeof(workers) / sizeof(workers[0]))
static unsigned deaths;

static void start_workers(void)
{
    for (size_t i = 0; i < WORKERS; i++) {
        if (workers[i].work == work_disk && !opt.disk_mib)
            continue;
        workers[i].pid = fork();
        if (workers[i].pid < 0)
            die("fork");
        if (workers[i].pid == 0) {
            workers[i].work();
            _exit(1);
        }
    }
}

static void bury(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < WORKERS; i++)
            if (workers[i].pid == pid) {
                workers[i].pid = 0;
                deaths++;
                printf("DIED %s status=0x%x\n", workers[i].name, status);
            }
}

static const char *verdict(uint64_t bad)
{
    return bad ? "bad" : "ok";
}

static void print_state(const char *what, uint64_t number)
{
    uint64_t t = now_us(CLOCK_MONOTONIC);
    bury();
    printf("%s %lu t=%lu.%03lus beats=%lu memory_mib=%lu rounds=%lu tcp=%lu messages=%lu "
           "disk_blocks=%lu "
           "longest_gap_us=%lu wall_gap_us=%lu memory=%s tcp=%s disk=%s workers=%s\n",
        what, number, t / 1000000, t / 1000 % 1000, shared->beats, shared->memory_mib,
        shared->memory_rounds, shared->tcp_connections, shared->tcp_messages, shared->disk_blocks,
        shared->gap_us, shared->wall_gap_us, verdict(shared->memory_bad), verdict(shared->tcp_bad),
        verdict(shared->disk_bad), deaths ? "dead" : "ok");
}

/* The workers first, so that none sees its devices go. */
static void end_guest(int how, const char *word)
{
    for (size_t i = 0; i < WORKERS; i++)
        if (workers[i].pid > 0) {
            kill(workers[i].pid, SIGKILL);
            waitpid(workers[i].pid, NULL, 0);
        }
    printf("%s\n", word);
    sync();
    if (getpid() == 1) {
        tcdrain(STDOUT_FILENO);
        reboot(how);
    }
    exit(0);
}

static void crash_guest(void)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY);
    if (fd < 0 || write(fd, "c", 1) != 1)
        die("/proc/sysrq-trigger");
}

static void obey(char *line)
{
    line[strcspn(line, "\r\n")] = 0;
    if (!strcmp(line, "stat"))
        print_state("stat", 0);
    else if (!strcmp(line, "reset-gap")) {
        atomic_store(&shared->reset_gap, 1);
        printf("gap reset\n");
    } else if (!strcmp(line, "shutdown"))
        end_guest(RB_POWER_OFF, "power off");
    else if (!strcmp(line, "reboot"))
        end_guest(RB_AUTOBOOT, "reboot");
    else if (!strcmp(line, "panic"))
        crash_guest();
    else if (line[0])
        printf("commands: stat reset-gap shutdown reboot panic\n");
}

/* The ACPI power button, if the kernel has one: the only input device of such a guest. */
static void power_event(int fd)
{
    struct input_event e;
    if (read(fd, &e, sizeof(e)) == sizeof(e) && e.type == EV_KEY && e.code == KEY_POWER &&
        e.value == 1) {
        printf("power button\n");
        end_guest(RB_POWER_OFF, "power off");
    }
}

/* Process 1 is asked as busybox's init would be: SIGUSR2 to power off, SIGTERM to reboot. */
static volatile sig_atomic_t asked;

static void take_wish(int signal_number)
{
    asked = signal_number;
}

static void hear_wishes(void)
{
    struct sigaction sa = { .sa_handler = take_wish }; /* poll() ends with EINTR */
    sigaction(SIGUSR2, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

static void fulfil_wish(void)
{
    if (asked == SIGUSR2)
        end_guest(RB_POWER_OFF, "power off");
    if (asked == SIGTERM)
        end_guest(RB_AUTOBOOT, "reboot");
}

static void quiet_console(void)
{
    struct termios t;
    if (tcgetattr(STDIN_FILENO, &t) == 0) {
        t.c_lflag &= (tcflag_t)~ECHO;
        tcsetattr(STDIN_FILENO, TCSANOW, &t);
    }
}

static void command_run(void)
{
    char line[128];
    uint64_t number = 0, next = now_us(CLOCK_MONOTONIC);
    struct pollfd fds[2] = { { STDIN_FILENO, POLLIN, 0 },
        { open("/dev/input/event0", O_RDONLY), POLLIN, 0 } };

    quiet_console();
    hear_wishes();
    printf("lifeline up memory=%luMiB rate=%luMiB/s port=%lu disk=%luMiB power_button=%s\n",
        opt.memory_mib, opt.rate_mib, opt.port, opt.disk_mib, fds[1].fd >= 0 ? "yes" : "no");
    start_workers();
    for (;;) {
        uint64_t now = now_us(CLOCK_MONOTONIC);
        fulfil_wish();
        if (opt.tick_ms && now >= next) {
            print_state("tick", ++number);
            next = now + opt.tick_ms * 1000;
        }
        if (poll(fds, 2, opt.tick_ms ? (int)((next - now + 999) / 1000) % 60000 : 60000) <= 0)
            continue;
        if (fds[1].revents)
            power_event(fds[1].fd);
        if (!fds[0].revents)
            continue;
        ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);
        if (n <= 0) {
            fds[0].fd = -1;
            continue;
        }
        line[n] = 0;
        obey(line);
    }
}

/* --- the host's end --- */

static int connect_to(const char *address, uint64_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int one = 1;
    if (inet_pton(AF_INET, address, &a.sin_addr) != 1) {
        errno = EINVAL;
        die(address);
    }
    for (int i = 0; i < CONNECT_TRIES; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
            return fd;
        }
        close(fd);
        sleep_us(100000);
    }
    die("no connection");
}

static void exchange(int fd, uint64_t number)
{
    struct message m = { number, mix(number) };
    if (write(fd, &m, sizeof(m)) != sizeof(m) ||
        recv(fd, &m, sizeof(m), MSG_WAITALL) != sizeof(m)) {
        printf("peer FAILED at message %lu: connection lost: %s\n", number, strerror(errno));
        exit(1);
    }
    if (m.number != number || m.check != mix(~number)) {
        printf("peer FAILED at message %lu: wrong answer %lu\n", number, m.number);
        exit(1);
    }
}

static volatile sig_atomic_t stopped;

static void stop(int signal_number)
{
    (void)signal_number;
    stopped = 1;
}

/* Ends after `seconds`, or at SIGTERM or SIGINT, with the same last line. */
static void command_peer(const char *address, uint64_t port)
{
    int fd = connect_to(address, port);
    uint64_t number = 0, longest = 0, start = now_us(CLOCK_MONOTONIC), last = start;
    struct sigaction sa = { .sa_handler = stop, .sa_flags = SA_RESTART };
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    printf("peer connected\n");
    while (!stopped && (!opt.seconds || last - start < opt.seconds * 1000000)) {
        exchange(fd, ++number);
        uint64_t now = now_us(CLOCK_MONOTONIC);
        if (now - last > longest)
            longest = now - last;
        last = now;
        sleep_us(opt.interval_ms * 1000);
    }
    printf("peer ok messages=%lu longest_gap_us=%lu\n", number, longest);
}

static bool set_option(const char *word)
{
    static const struct {
        const char *name;
        uint64_t *where, most;
    } known[] = {
        { "memory", &opt.memory_mib, 1 << 20 },
        { "rate", &opt.rate_mib, 1 << 20 },
        { "port", &opt.port, 65535 },
        { "tick_ms", &opt.tick_ms, 60000 },
        { "beat_ms", &opt.beat_ms, 60000 },
        { "disk", &opt.disk_mib, 1 << 20 },
        { "disk_ms", &opt.disk_ms, 60000 },
        { "seconds", &opt.seconds, 86400 },
        { "interval_ms", &opt.interval_ms, 60000 },
    };
    const char *eq = strchr(word, '=');
    for (size_t i = 0; eq && i < sizeof(known) / sizeof(known[0]); i++) {
        char *end;
        if (strlen(known[i].name) != (size_t)(eq - word) ||
            strncmp(word, known[i].name, (size_t)(eq - word)))
            continue;
        *known[i].where = strtoul(eq + 1, &end, 10);
        return !*end && eq[1] && *known[i].where <= known[i].most;
    }
    return false;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    int options = !strcmp(command, "peer") ? 4 : !strcmp(command, "serve") ? 3 : 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (argc < options) {
        printf("lifeline run [KEY=VALUE...] | serve PORT | peer ADDRESS PORT [seconds=N] "
               "[interval_ms=N]\n");
        return 2;
    }
    for (int i = options; i < argc; i++)
        if (!set_option(argv[i]))
            printf("lifeline: option not understood: %s\n", argv[i]);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        die("shared memory");
    if (!strcmp(command, "run"))
        command_run();
    if (options > 2)
        opt.port = strtoul(argv[options - 1], NULL, 10);
    if (!strcmp(command, "serve"))
        work_serve();
    if (!strcmp(command, "peer"))
        command_peer(argv[2], opt.port);
    return 0;
}
