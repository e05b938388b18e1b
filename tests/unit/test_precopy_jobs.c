/* SPDX-License-Identifier: ISC */
/* The other jobs of a worker: TLS between hosts with names, save, restore, query, facts. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "precopy_lab.h"
#include "transport/pki.h"

#define PAGES 4096u

static char dir[] = "/tmp/test-precopy-XXXXXX";

static void path(char out[256], const char *a, const char *b)
{
    snprintf(out, 256, "%s/%s%s%s", dir, a, b[0] != '\0' ? "/" : "", b);
}

static int make_host(const char *name)
{
    static const char *const alt[] = { "127.0.0.1", NULL };
    struct pki_request rq = { .name = name, .alt_names = alt };
    struct err e = { 0 };
    char out[256];

    path(out, name, "");
    if (mkdir(out, 0700) < 0 || pki_issue(dir, out, &rq, &e) < 0)
        print_error("%s: %s\n", name, e.text);
    return e.code == ERR_NONE ? 0 : -1;
}

static int setup(void **state)
{
    struct pki_request ca = { .name = "test CA" };
    struct err e = { 0 };

    (void)state;
    if (mkdtemp(dir) == NULL || pki_init(dir, &ca, &e) < 0)
        return -1;
    return make_host("host1") < 0 || make_host("host2") < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    static const char *const files[] = { "ca.key", "ca.crt", "host1/ca.crt", "host1/host.crt",
        "host1/host.key", "host2/ca.crt", "host2/host.crt", "host2/host.key", "guest.save", "host1",
        "host2", "" };
    char name[256];

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        path(name, files[i], "");
        remove(name);
    }
    return 0;
}

struct tls_paths {
    char ca[256], cert[256], key[256];
    Migrd__WorkerTls tls;
};

static Migrd__WorkerTls *tls_of(struct tls_paths *t, const char *host)
{
    path(t->ca, host, "ca.crt");
    path(t->cert, host, "host.crt");
    path(t->key, host, "host.key");
    migrd__worker_tls__init(&t->tls);
    t->tls.ca = t->ca;
    t->tls.cert = t->cert;
    t->tls.key = t->key;
    return &t->tls;
}

static void prepare(struct lab *l, const struct lab_scenario *sc)
{
    lab_init(l, sc, PAGES);
    fake_fill(l->d[LAB_SRC], 8, 4);
    l->d[LAB_SRC]->ws_first = 1000;
    l->d[LAB_SRC]->ws_pages = 1000;
    l->d[LAB_SRC]->pages_per_s = 2000;
    fake_start_guest(l->d[LAB_SRC]);
}

static void same_memory(const struct lab *l)
{
    assert_int_equal(
        memcmp(l->d[0]->mem, l->d[1]->mem, (fake_max_gfn(l->d[0]) + 1) * HV_PAGE_SIZE), 0);
}

/* --- TLS --- */

static void tls_case(const char *peer_name, bool sandbox, bool moves)
{
    struct tls_paths tls[2];
    struct lab_scenario sc = { .tls = { tls_of(&tls[0], "host1"), tls_of(&tls[1], "host2") },
        .peer_name = peer_name,
        .sandbox = sandbox };
    struct lab l;

    migrd__precopy_params__init(&sc.par);
    sc.par.live = sc.par.verify = 1;
    sc.par.channels = 2;
    sc.par.pause_budget_ms = 500;
    sc.par.throttle_max = 80;
    prepare(&l, &sc);
    assert_true(lab_run(&l));
    if (moves) {
        assert_string_equal(lab_finished(&l, LAB_SRC)->text, "");
        assert_non_null(strstr(lab_finished(&l, LAB_SRC)->cipher, "TLSv1.3"));
        same_memory(&l);
    } else {
        assert_string_equal(lab_finished(&l, LAB_SRC)->code, "refused");
        assert_true(atomic_load(&l.d[LAB_SRC]->run));
    }
    lab_end(&l);
}

static void test_tls(void **state)
{
    (void)state;
    tls_case("host1", false, true);
}

static void test_tls_in_the_sandbox(void **state)
{
    (void)state;
    tls_case("host1", true, true);
}

static void test_wrong_name(void **state)
{
    (void)state;
    tls_case("host9", false, false);
}

/* --- save and restore --- */

static int save(struct lab *l, char *file)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__SaveStart s = MIGRD__SAVE_START__INIT;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;

    d.uuid = (char *)LAB_SOURCE;
    d.name = (char *)"guest";
    s.hypervisor = (char *)"fake";
    s.domain = &d;
    s.epoch = LAB_EPOCH;
    s.path = file;
    m.body_case = MIGRD__TO_WORKER__BODY_SAVE;
    m.save = &s;
    lab_worker(l, LAB_SRC);
    lab_tell(l, LAB_SRC, &m, -1);
    return lab_drive(l) && lab_finished(l, LAB_SRC) != NULL && lab_finished(l, LAB_SRC)->ok ? 0
                                                                                            : -1;
}

static const Migrd__Finished *restore(struct lab *l, char *file)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__RestoreStart s = MIGRD__RESTORE_START__INIT;

    s.hypervisor = (char *)"fake";
    s.path = file;
    m.body_case = MIGRD__TO_WORKER__BODY_RESTORE;
    m.restore = &s;
    if (l->end[LAB_DST].m != NULL)
        migrd__from_worker__free_unpacked(l->end[LAB_DST].m, NULL);
    l->end[LAB_DST].m = NULL;
    lab_worker(l, LAB_DST);
    lab_tell(l, LAB_DST, &m, -1);
    assert_true(lab_drive(l));
    return lab_finished(l, LAB_DST);
}

static void damage(const char *file, off_t at)
{
    int fd = open(file, O_RDWR);
    char c = 0;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &c, 1, at), 1);
    c ^= 4;
    assert_int_equal(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

static void test_save_restore(void **state)
{
    struct lab_scenario sc = { .sandbox = true };
    struct lab l;
    struct stat st;
    char file[256];

    (void)state;
    path(file, "guest.save", "");
    prepare(&l, &sc);
    assert_int_equal(save(&l, file), 0);
    assert_false(atomic_load(&l.d[LAB_SRC]->run));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(restore(&l, file)->ok);
    assert_true(atomic_load(&l.d[LAB_DST]->loaded));
    same_memory(&l);

    atomic_store(&l.d[LAB_DST]->loaded, false);
    damage(file, st.st_size / 2);
    assert_string_equal(restore(&l, file)->code, "integrity");
    damage(file, st.st_size / 2);
    damage(file, 100);
    assert_false(restore(&l, file)->ok);
    damage(file, 100);
    assert_int_equal(truncate(file, st.st_size - 100), 0);
    assert_string_equal(restore(&l, file)->code, "integrity");
    assert_false(atomic_load(&l.d[LAB_DST]->loaded));
    lab_end(&l);
}

/* Memory that passes once is saved as any other, and restored. */
static void test_save_stream(void **state)
{
    struct lab_scenario sc = { .sandbox = true };
    struct lab l;
    char file[256];

    (void)state;
    path(file, "guest.save", "");
    prepare(&l, &sc);
    atomic_store(&l.d[LAB_SRC]->stream, true);
    atomic_store(&l.d[LAB_DST]->stream, true);
    assert_int_equal(save(&l, file), 0);
    assert_true(restore(&l, file)->ok);
    assert_true(atomic_load(&l.d[LAB_DST]->loaded));
    same_memory(&l);
    lab_end(&l);
}

static void test_save_fails(void **state)
{
    struct lab_scenario sc = { .sandbox = false };
    struct lab l;
    char file[256];

    (void)state;
    path(file, "no-such-folder", "guest.save");
    prepare(&l, &sc);
    assert_int_equal(save(&l, file), -1);
    assert_true(atomic_load(&l.d[LAB_SRC]->run));
    lab_end(&l);
}

/* --- dump --- */

static const Migrd__Finished *dump(struct lab *l, char *file, bool live, bool leave_paused)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__DumpStart s = MIGRD__DUMP_START__INIT;
    Migrd__Domain d = MIGRD__DOMAIN__INIT;

    d.uuid = (char *)LAB_SOURCE;
    d.name = (char *)"guest";
    s.hypervisor = (char *)"fake";
    s.domain = &d;
    s.epoch = LAB_EPOCH;
    s.path = file;
    s.live = live;
    s.leave_paused = leave_paused;
    m.body_case = MIGRD__TO_WORKER__BODY_DUMP;
    m.dump = &s;
    if (l->end[LAB_SRC].m != NULL)
        migrd__from_worker__free_unpacked(l->end[LAB_SRC].m, NULL);
    l->end[LAB_SRC].m = NULL;
    lab_worker(l, LAB_SRC);
    lab_tell(l, LAB_SRC, &m, -1);
    assert_true(lab_drive(l));
    return lab_finished(l, LAB_SRC);
}

/* Each PT_LOAD has what the guest's memory has there; rip is that of the fake's vCPU. */
static void check_core(struct lab *l, const char *file)
{
    struct fake_domain *d = l->d[LAB_SRC];
    uint8_t page[HV_PAGE_SIZE];
    Elf64_Ehdr h;
    Elf64_Phdr p[3];
    int fd = open(file, O_RDONLY);
    uint64_t rip;

    assert_int_equal(read(fd, &h, sizeof h), sizeof h);
    assert_int_equal(h.e_phnum, 3);
    assert_int_equal(pread(fd, p, sizeof p, (off_t)h.e_phoff), sizeof p);
    assert_int_equal(pread(fd, &rip, 8, (off_t)p[0].p_offset + 12 + 8 + 112 + 16 * 8), 8);
    assert_int_equal(rip, 0x1234);
    for (unsigned i = 1; i < 3; i++)
        for (uint64_t at = 0; at < p[i].p_filesz; at += HV_PAGE_SIZE) {
            assert_int_equal(
                pread(fd, page, sizeof page, (off_t)(p[i].p_offset + at)), sizeof page);
            assert_memory_equal(page, d->mem + p[i].p_paddr + at, sizeof page);
        }
    close(fd);
}

static void test_dump(void **state)
{
    struct lab_scenario sc = { .sandbox = false };
    struct lab l;
    struct stat st;
    char file[256], tmp[260];

    (void)state;
    path(file, "guest.save", "");
    snprintf(tmp, sizeof tmp, "%s.tmp", file);
    prepare(&l, &sc);
    assert_true(dump(&l, file, false, true)->ok);
    assert_false(atomic_load(&l.d[LAB_SRC]->run));
    check_core(&l, file);
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(st.st_blocks * 512 < st.st_size);
    assert_true(dump(&l, file, false, false)->ok); /* of one that is paused: it stays so */
    assert_false(atomic_load(&l.d[LAB_SRC]->run));
    check_core(&l, file);
    assert_int_equal(access(tmp, F_OK), -1);
    path(file, "no-such-folder", "core");
    assert_false(dump(&l, file, false, false)->ok);
    lab_end(&l);
}

/* PATH.tmp: what a dead job left is taken over; another job's and somebody else's are left alone. */
static void test_dump_shares_no_file(void **state)
{
    struct lab_scenario sc = { .sandbox = false };
    struct lab l;
    char file[256], tmp[260], other[256];
    struct stat st;
    int fd;

    (void)state;
    path(file, "guest.save", "");
    path(other, "ca.crt", "");
    snprintf(tmp, sizeof tmp, "%s.tmp", file);
    unlink(file);
    prepare(&l, &sc);
    fd = open(tmp, O_RDWR | O_CREAT, 0644);
    assert_int_equal(write(fd, "left", 4), 4);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_false(dump(&l, file, true, false)->ok);
    assert_int_equal(fstat(fd, &st), 0);
    assert_true(st.st_size == 4 && st.st_nlink == 1);
    assert_int_equal(access(file, F_OK), -1);
    close(fd);
    assert_true(dump(&l, file, true, false)->ok);
    assert_int_equal(stat(file, &st), 0);
    assert_true(st.st_size > 4);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(link(other, tmp), 0);
    assert_false(dump(&l, file, true, false)->ok);
    assert_true(stat(other, &st) == 0 && st.st_size > 0);
    unlink(tmp);
    assert_true(atomic_load(&l.d[LAB_SRC]->run));
    lab_end(&l);
}

static void test_dump_runs_on(void **state)
{
    struct lab_scenario sc = { .sandbox = false };
    struct lab l;
    char file[256];

    (void)state;
    path(file, "guest.save", "");
    prepare(&l, &sc);
    assert_true(dump(&l, file, true, false)->ok);
    assert_true(atomic_load(&l.d[LAB_SRC]->run));
    assert_true(dump(&l, file, false, false)->ok);
    assert_true(atomic_load(&l.d[LAB_SRC]->run));
    lab_end(&l);
}

/* --- query --- */

/* Host host2 answers; `target` is who was to. */
static const Migrd__Finished *query(struct lab *l, const char *target)
{
    static const struct lab_scenario sc = { .sandbox = false };
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__QueryStart q = MIGRD__QUERY_START__INIT;

    lab_init(l, &sc, 16);
    lab_listen(l);
    q.migration = (char *)LAB_MIGRATION;
    q.domain_uuid = (char *)LAB_SOURCE;
    q.epoch = LAB_EPOCH + 1;
    q.go = 1;
    q.host = (char *)"127.0.0.1";
    q.port = l->port;
    q.target = (char *)target;
    m.body_case = MIGRD__TO_WORKER__BODY_QUERY;
    m.query = &q;
    lab_worker(l, LAB_SRC);
    lab_worker(l, LAB_DST);
    lab_tell(l, LAB_SRC, &m, -1);
    assert_true(lab_drive(l));
    return lab_finished(l, LAB_SRC);
}

static void test_query(void **state)
{
    struct lab l;
    const Migrd__Finished *f = query(&l, "host2");

    (void)state;
    assert_true(f->ok);
    assert_int_equal(f->outcome, MIGRD__OUTCOME__OUTCOME_RUNNING);
    assert_int_equal(f->outcome_epoch, LAB_EPOCH + 1);
    assert_string_equal(f->text, "so it is");
    assert_true(lab_finished(&l, LAB_DST)->ok);
    lab_end(&l);
}

static void test_another_host_answers(void **state)
{
    struct lab l;
    const Migrd__Finished *f = query(&l, "host3");

    (void)state;
    assert_false(f->ok);
    assert_int_equal(f->outcome, 0);
    assert_string_equal(f->code, "peer");
    lab_end(&l);
}

/* --- facts --- */

static const Migrd__Finished *facts(struct lab *l, const struct lab_scenario *sc)
{
    Migrd__ToWorker m = MIGRD__TO_WORKER__INIT;
    Migrd__FactsStart f = MIGRD__FACTS_START__INIT;

    lab_init(l, sc, PAGES);
    lab_listen(l);
    lab_worker(l, LAB_SRC);
    lab_worker(l, LAB_DST);
    f.host = (char *)"127.0.0.1";
    f.port = l->port;
    f.own_name = (char *)"host1";
    f.tls = sc->tls[LAB_SRC];
    m.body_case = MIGRD__TO_WORKER__BODY_FACTS;
    m.facts = &f;
    lab_tell(l, LAB_SRC, &m, -1);
    assert_true(lab_drive(l));
    assert_non_null(lab_finished(l, LAB_SRC));
    return lab_finished(l, LAB_SRC);
}

static void test_facts(void **state)
{
    struct tls_paths tls[2];
    const struct lab_scenario sc = { .tls = { tls_of(&tls[0], "host1"), tls_of(&tls[1], "host2") },
        .peer_name = "host1" };
    const Migrd__Finished *f;
    struct lab l;

    (void)state;
    f = facts(&l, &sc);
    assert_true(f->ok);
    assert_non_null(f->facts);
    assert_string_equal(f->facts->host, "host2");
    assert_string_equal(f->facts->cpu->vendor, "GenuineIntel");
    assert_int_equal(f->facts->cpu->n_features, 3);
    assert_int_equal(f->facts->cpu->features[2], 5);
    assert_true(lab_finished(&l, LAB_DST)->ok);
    assert_int_equal(l.seen[LAB_DST][MIGRD__FROM_WORKER__BODY_FACTS], 1);
    assert_int_equal(l.seen[LAB_DST][MIGRD__FROM_WORKER__BODY_OFFER], 0);
    lab_end(&l);
}

static void test_facts_refused(void **state)
{
    const struct lab_scenario sc = { .disturb = { .who = LAB_DST,
                                         .on = MIGRD__FROM_WORKER__BODY_FACTS,
                                         .nth = 1,
                                         .what = LAB_SAY_NO } };
    const Migrd__Finished *f;
    struct lab l;

    (void)state;
    f = facts(&l, &sc);
    assert_false(f->ok);
    assert_null(f->facts);
    assert_string_equal(f->code, "memory");
    assert_non_null(strstr(f->text, "out of memory"));
    lab_end(&l);
}

/* Somebody whose certificate is for another host learns nothing. */
static void test_facts_certificate(void **state)
{
    struct tls_paths tls[2];
    const struct lab_scenario sc = { .tls = { tls_of(&tls[0], "host1"), tls_of(&tls[1], "host2") },
        .peer_name = "host9" };
    const Migrd__Finished *f;
    struct lab l;

    (void)state;
    f = facts(&l, &sc);
    assert_false(f->ok);
    assert_null(f->facts);
    assert_int_equal(l.seen[LAB_DST][MIGRD__FROM_WORKER__BODY_FACTS], 0);
    lab_end(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_tls_in_the_sandbox),
        cmocka_unit_test(test_wrong_name),
        cmocka_unit_test(test_save_restore),
        cmocka_unit_test(test_save_stream),
        cmocka_unit_test(test_save_fails),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_dump_shares_no_file),
        cmocka_unit_test(test_dump_runs_on),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_facts_refused),
        cmocka_unit_test(test_facts_certificate),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_another_host_answers),
    };

    return cmocka_run_group_tests_name("precopy jobs", tests, setup, teardown);
}
