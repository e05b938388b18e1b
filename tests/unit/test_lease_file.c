/* SPDX-License-Identifier: ISC */
/* Leases of local files, taken by several processes that each play a host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/lease_host.h"

#define VALID "600" /* ms */
#define UUID_B "99999999-2222-3333-4444-555555555555"

static char folder[] = "/tmp/test_lease.XXXXXX";
static char disk[64], record[80];

struct host {
    pid_t pid;
    int fd;
    char answer[LH_LINE];
};

static void serve(int fd, const char *name, const char *uuid)
{
    struct lease_host *h = lh_new(name);
    char line[LH_LINE], out[LH_LINE];
    ssize_t n;

    h->uuid = uuid;
    while ((n = recv(fd, line, sizeof line - 1, 0)) > 0) {
        line[n] = '\0';
        if (strcmp(line, "quit") == 0) /* other children hold the other end, too */
            break;
        lh_do(h, line, out);
        if (send(fd, out, strlen(out) + 1, 0) < 0)
            break;
    }
    lh_end(&h);
    _exit(0);
}

static struct host host_of(const char *name, const char *uuid)
{
    struct host h = { .pid = -1 };
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    h.pid = fork();
    assert_true(h.pid >= 0);
    if (h.pid == 0) {
        close(fds[0]);
        serve(fds[1], name, uuid);
    }
    close(fds[1]);
    h.fd = fds[0];
    return h;
}

static void send_line(struct host *h, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void send_line(struct host *h, const char *fmt, va_list ap)
{
    char line[LH_LINE];

    vsnprintf(line, sizeof line, fmt, ap);
    assert_true(send(h->fd, line, strlen(line), MSG_NOSIGNAL) > 0);
}

static void tell(struct host *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(struct host *h, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    send_line(h, fmt, ap);
    va_end(ap);
}

static const char *hear(struct host *h)
{
    assert_true(recv(h->fd, h->answer, sizeof h->answer, 0) > 0);
    return h->answer;
}

static const char *ask(struct host *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *ask(struct host *h, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    send_line(h, fmt, ap);
    va_end(ap);
    return hear(h);
}

static void begins(const char *text, const char *with)
{
    if (strncmp(text, with, strlen(with)) != 0)
        fail_msg("\"%s\" does not begin with \"%s\"", text, with);
}

static void contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", text, part);
}

static struct host ready(const char *name, unsigned epoch)
{
    struct host h = host_of(name, LH_UUID);

    assert_string_equal(ask(&h, "open %s", disk), "ok");
    assert_string_equal(ask(&h, "prepare %u " VALID, epoch), "ok");
    return h;
}

static void host_end(struct host *h)
{
    send(h->fd, "quit", 4, MSG_NOSIGNAL);
    close(h->fd);
    assert_int_equal(waitpid(h->pid, NULL, 0), h->pid);
}

static void host_kill(struct host *h)
{
    kill(h->pid, SIGKILL);
    host_end(h);
}

/* All of its threads stand when this returns. */
static void host_stop(struct host *h)
{
    int status;

    kill(h->pid, SIGSTOP);
    assert_int_equal(waitpid(h->pid, &status, WUNTRACED), h->pid);
    assert_true(WIFSTOPPED(status));
}

static int new_disk(void **state)
{
    int fd = open(disk, O_RDWR | O_CREAT | O_TRUNC, 0600);

    (void)state;
    unlink(record);
    if (fd < 0 || ftruncate(fd, 1 << 20) < 0)
        return -1;
    close(fd);
    return 0;
}

/* Waits for the answer of `told` to contain `part`. */
static void wait_told(struct host *h, const char *part)
{
    for (unsigned i = 0; i < 200; i++) {
        if (strstr(ask(h, "told"), part) != NULL)
            return;
        usleep(20000);
    }
    fail_msg("still \"%s\", waited for \"%s\"", h->answer, part);
}

static void one_after_the_other(void **state)
{
    struct host a = ready("host1", 1), b;

    (void)state;
    assert_string_equal(ask(&a, "sure"), "no");
    begins(ask(&a, "take 1 free"), "ok");
    assert_string_equal(ask(&a, "sure"), "yes");
    contains(ask(&a, "fence"), "\"\": a local file");
    assert_string_equal(ask(&a, "read %s", disk), "owner host1 epoch 1 held");
    assert_string_equal(ask(&a, "close release"), "ok");
    assert_string_equal(ask(&a, "read %s", disk), "owner host1 epoch 1 released");
    b = ready("host2", 2);
    begins(ask(&b, "take 2 free"), "ok");
    assert_string_equal(ask(&b, "read %s", disk), "owner host2 epoch 2 held");
    host_end(&a);
    host_end(&b);
}

static void a_living_holder_is_left_alone(void **state)
{
    struct host a = ready("host1", 1), b = ready("host2", 2);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    begins(ask(&b, "take 2 free"), "refused: disk ");
    contains(b.answer, "host host1 is alive and renews its lease (epoch 1)");
    assert_string_equal(ask(&a, "sure"), "yes");
    begins(ask(&b, "take 2 free"), "refused: ");
    host_kill(&a);
    begins(ask(&b, "take 2 free"), "ok");
    assert_string_equal(ask(&b, "sure"), "yes");
    host_end(&b);
}

/* An operator's word counts against a holder that yields, or is dead, not against one that runs. */
static void who_yields_can_be_overruled(void **state)
{
    struct host a = ready("host1", 1), b = ready("host2", 2), c = ready("host3", 3);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    begins(ask(&b, "take 2 proven"), "refused: ");
    contains(b.answer, "host host1 is alive and renews its lease (epoch 1)");
    begins(ask(&a, "yield"), "ok");
    assert_string_equal(ask(&a, "sure"), "no");
    assert_string_equal(ask(&a, "read %s", disk), "owner host1 epoch 1 yielded");
    begins(ask(&b, "take 2 free"), "refused: ");
    begins(ask(&a, "unyield"), "ok");
    assert_string_equal(ask(&a, "sure"), "yes");
    begins(ask(&b, "take 2 proven"), "refused: ");
    begins(ask(&a, "yield"), "ok");
    begins(ask(&b, "take 2 proven"), "ok");
    assert_string_equal(ask(&b, "sure"), "yes");
    begins(ask(&a, "unyield"), "epoch: ");
    assert_string_equal(ask(&a, "sure"), "no");
    host_kill(&b);
    begins(ask(&c, "take 3 proven"), "ok");
    host_end(&a);
    host_end(&c);
}

/* The cluster's proof: from a paused holder that still renews, never under an older epoch. */
static void the_cluster_takes_it_from_the_living(void **state)
{
    struct host a = ready("host1", 5), b = ready("host2", 2);

    (void)state;
    begins(ask(&a, "take 5 free"), "ok");
    begins(ask(&b, "take 4 cluster"), "epoch: ");
    assert_string_equal(ask(&a, "sure"), "yes");
    begins(ask(&b, "take 5 cluster"), "epoch: ");
    begins(ask(&b, "take 7 cluster"), "ok");
    assert_string_equal(ask(&b, "sure"), "yes");
    host_end(&a);
    host_end(&b);
}

static void a_second_process_of_the_host_is_refused_too(void **state)
{
    struct host a = ready("host1", 1), b = ready("host1", 2);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    begins(ask(&b, "take 2 free"), "refused: ");
    host_kill(&a);
    begins(ask(&b, "take 2 free"), "ok");
    host_end(&b);
}

static void hand_over_and_back(void **state)
{
    struct host a = ready("host1", 1), b = ready("host2", 2);
    char lost[16];

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    for (unsigned i = 1; i <= 4; i++) {
        snprintf(lost, sizeof lost, "lost %u ", i);
        begins(ask(&b, "take %u handover", 2 * i), "ok");
        assert_string_equal(ask(&b, "sure"), "yes");
        wait_told(&a, lost);
        contains(a.answer, "host host2 took its lease under epoch");
        assert_string_equal(ask(&a, "sure"), "no");
        begins(ask(&a, "take %u handover", 2 * i + 1), "ok");
        assert_string_equal(ask(&a, "sure"), "yes");
        wait_told(&b, lost);
        assert_string_equal(ask(&b, "sure"), "no");
    }
    host_end(&a);
    host_end(&b);
}

static void an_older_epoch_is_refused(void **state)
{
    struct host a = ready("host1", 5), b = ready("host2", 4), c = ready("host3", 5);

    (void)state;
    begins(ask(&a, "take 5 free"), "ok");
    begins(ask(&b, "take 4 handover"), "epoch: ");
    contains(b.answer, "its lease knows epoch 5 of host host1, ours is 4");
    begins(ask(&b, "take 4 proven"), "epoch: ");
    begins(ask(&c, "take 5 proven"), "epoch: ");
    begins(ask(&a, "take 4 proven"), "epoch: ");
    assert_string_equal(ask(&a, "sure"), "yes");
    host_end(&a);
    begins(ask(&c, "take 5 free"), "epoch: ");
    begins(ask(&b, "take 6 free"), "ok");
    host_end(&b);
    host_end(&c);
}

static void another_domain_is_refused_by_name(void **state)
{
    struct host a = ready("host1", 1), b = host_of("host1", UUID_B);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    assert_string_equal(ask(&b, "open %s", disk), "ok");
    assert_string_equal(ask(&b, "prepare 7 " VALID), "ok");
    begins(ask(&b, "take 7 proven"), "refused: ");
    contains(b.answer, "domain " LH_UUID " on host host1 writes to it");
    assert_string_equal(ask(&a, "close release"), "ok");
    begins(ask(&b, "take 7 free"), "ok");
    host_end(&a);
    host_end(&b);
}

static void a_stopped_holder_is_not_sure_afterwards(void **state)
{
    struct host a = ready("host1", 1), b = ready("host2", 2);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    host_stop(&a);
    tell(&a, "sure");
    usleep(800000);
    begins(ask(&b, "take 2 free"), "refused: ");
    begins(ask(&b, "take 2 proven"), "refused: "); /* stopped is not dead */
    begins(ask(&b, "take 2 handover"), "ok");
    kill(a.pid, SIGCONT);
    assert_string_equal(hear(&a), "no");
    wait_told(&a, "lost 1 ");
    assert_string_equal(ask(&b, "sure"), "yes");
    host_end(&a);
    host_end(&b);
}

static void a_stopped_holder_that_nobody_replaced_goes_on(void **state)
{
    struct host a = ready("host1", 1);

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    host_stop(&a);
    usleep(800000);
    kill(a.pid, SIGCONT);
    wait_told(&a, "lost 0 unsure 1 sure 1");
    assert_string_equal(ask(&a, "sure"), "yes");
    host_end(&a);
}

static void one_of_two_wins_an_epoch(void **state)
{
    struct host a = host_of("host1", LH_UUID), b = host_of("host2", LH_UUID);
    unsigned wins[2] = { 0 };

    (void)state;
    ask(&a, "open %s", disk);
    ask(&b, "open %s", disk);
    for (unsigned epoch = 1; epoch <= 50; epoch++) {
        bool first, second;

        assert_string_equal(ask(&a, "prepare %u " VALID, epoch), "ok");
        assert_string_equal(ask(&b, "prepare %u " VALID, epoch), "ok");
        tell(&a, "take %u proven", epoch);
        tell(&b, "take %u proven", epoch);
        first = strncmp(hear(&a), "ok", 2) == 0;
        second = strncmp(hear(&b), "ok", 2) == 0;
        assert_true(first != second);
        begins(first ? b.answer : a.answer, "epoch: ");
        wins[first ? 0 : 1]++;
        ask(&a, "close keep");
        ask(&b, "close keep");
    }
    print_message("one epoch, two hosts, 50 times: %u and %u won\n", wins[0], wins[1]);
    host_end(&a);
    host_end(&b);
}

static void a_record_that_was_removed_is_made_again(void **state)
{
    struct host a = ready("host1", 3), b = ready("host2", 2);

    (void)state;
    begins(ask(&a, "take 3 free"), "ok");
    assert_int_equal(unlink(record), 0);
    for (unsigned i = 0; i < 100 && access(record, F_OK) != 0; i++)
        usleep(20000);
    assert_string_equal(ask(&a, "read %s", disk), "owner host1 epoch 3 held");
    assert_string_equal(ask(&a, "sure"), "yes");
    begins(ask(&b, "take 2 proven"), "epoch: ");
    contains(ask(&a, "told"), "lost 0");
    host_end(&a);
    host_end(&b);
}

static void a_removed_record_that_another_took_is_a_loss(void **state)
{
    struct host a = ready("host1", 1), b;

    (void)state;
    begins(ask(&a, "take 1 free"), "ok");
    host_stop(&a);
    assert_int_equal(unlink(record), 0);
    b = ready("host2", 2);
    begins(ask(&b, "take 2 free"), "ok");
    kill(a.pid, SIGCONT);
    wait_told(&a, "lost 1 ");
    assert_string_equal(ask(&b, "sure"), "yes");
    host_end(&a);
    host_end(&b);
}

static void a_damaged_record_is_no_licence(void **state)
{
    struct host b = ready("host2", 2);
    int fd = open(record, O_RDWR);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "nonsense", 8, 0), 8);
    close(fd);
    begins(ask(&b, "take 2 proven"), "integrity: ");
    contains(b.answer, "remove it if the domain runs nowhere");
    host_end(&b);
}

static void removing(void **state)
{
    struct host a = ready("host1", 4), b = host_of("host2", LH_UUID);

    (void)state;
    begins(ask(&a, "take 4 free"), "ok");
    begins(ask(&b, "remove %s 3", disk), "epoch: ");
    begins(ask(&b, "remove %s 4", disk), "state: ");
    assert_string_equal(ask(&a, "close release"), "ok");
    assert_string_equal(ask(&b, "remove %s 4", disk), "ok");
    assert_int_equal(access(record, F_OK), -1);
    assert_string_equal(ask(&b, "remove %s 4", disk), "ok");
    assert_string_equal(ask(&b, "read %s", disk), "owner - epoch 0 held");
    host_end(&a);
    host_end(&b);
}

static void two_names_meet_at_one_lease(void **state)
{
    struct host a = ready("host1", 1), b = host_of("host2", LH_UUID);
    char other[80];

    (void)state;
    snprintf(other, sizeof other, "%s/link.img", folder);
    assert_int_equal(symlink(disk, other), 0);
    begins(ask(&a, "take 1 free"), "ok");
    assert_string_equal(ask(&b, "open %s", other), "ok");
    assert_string_equal(ask(&b, "prepare 2 " VALID), "ok");
    begins(ask(&b, "take 2 free"), "refused: ");
    unlink(other);
    host_end(&a);
    host_end(&b);
}

static void wishes_that_cannot_be(void **state)
{
    struct host a = host_of("host1", "no-uuid"), b = host_of("two words", LH_UUID),
                c = host_of("host3", LH_UUID);

    (void)state;
    ask(&a, "open %s", disk);
    begins(ask(&a, "prepare 1 " VALID), "invalid: ");
    ask(&b, "open %s", disk);
    begins(ask(&b, "prepare 1 " VALID), "invalid: ");
    ask(&c, "open %s", disk);
    begins(ask(&c, "prepare 0 " VALID), "invalid: ");
    begins(ask(&c, "prepare 1 7"), "invalid: ");
    host_end(&a);
    host_end(&b);
    host_end(&c);
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(disk, sizeof disk, "%s/disk.img", folder);
    snprintf(record, sizeof record, "%s.migrd-lease", disk);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(disk);
    unlink(record);
    return rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup(name, new_disk)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_after_the_other),
        TEST(a_living_holder_is_left_alone),
        TEST(who_yields_can_be_overruled),
        TEST(the_cluster_takes_it_from_the_living),
        TEST(a_second_process_of_the_host_is_refused_too),
        TEST(hand_over_and_back),
        TEST(an_older_epoch_is_refused),
        TEST(another_domain_is_refused_by_name),
        TEST(a_stopped_holder_is_not_sure_afterwards),
        TEST(a_stopped_holder_that_nobody_replaced_goes_on),
        TEST(one_of_two_wins_an_epoch),
        TEST(a_record_that_was_removed_is_made_again),
        TEST(a_removed_record_that_another_took_is_a_loss),
        TEST(a_damaged_record_is_no_licence),
        TEST(removing),
        TEST(two_names_meet_at_one_lease),
        TEST(wishes_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
