/* SPDX-License-Identifier: ISC */
/*
 * The journal as a damaged disk leaves it. The input's lines get right checksums, except those
 * that begin with '!', so that the fuzzer reaches what is behind them. A record that is accepted
 * is written and read as the same; a file opens, says what is damaged, and when it is opened again
 * has the same records and no new damage.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"
#include "migrd/journal.h"

#define LINES_MAX 64
#define DIR_MAX 64

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char dir[DIR_MAX], path[DIR_MAX + 16];

static void remove_dir(void)
{
    char command[DIR_MAX + 16];

    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0)
        fprintf(stderr, "%s is left over\n", dir);
}

/* In memory: each input is fsync'ed more than once. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    snprintf(dir, sizeof dir, "%s/fuzz_journal.XXXXXX",
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(dir) == NULL)
        abort();
    atexit(remove_dir);
    snprintf(path, sizeof path, "%s/journal", dir);
    return log_open("fuzz", "/dev/null", NULL);
}

static void check_line(const char *line, size_t len)
{
    struct journal_record r, back;
    char out[JOURNAL_LINE_MAX];
    struct err e;

    if (journal_parse(line, len, &r, &e) < 0)
        return;
    len = journal_format(out, &r);
    if (len >= JOURNAL_LINE_MAX || out[len - 1] != '\n' || strlen(out) != len)
        abort();
    if (journal_parse(out, len - 1, &back, &e) < 0 || back.kind != r.kind ||
        back.epoch != r.epoch || strcmp(back.uuid, r.uuid) != 0 ||
        strcmp(back.migration, r.migration) != 0)
        abort();
}

/* Appends a line to `out`, with a checksum unless it says that it has its own. */
static size_t put_line(char *out, const char *line, size_t len)
{
    size_t n;

    if (len > 0 && line[0] == '!') {
        memcpy(out, line + 1, len - 1);
        return len - 1;
    }
    n = (size_t)sprintf(out, "%016llx ", (unsigned long long)XXH64(line, len, 0));
    memcpy(out + n, line, len);
    return n + len;
}

struct sum {
    size_t n;
    uint64_t hash;
};

static void add_record(void *arg, const struct journal_record *r)
{
    struct sum *s = arg;

    s->n++;
    s->hash = XXH64(r, sizeof *r, s->hash);
}

static struct sum open_and_sum(size_t *doubts)
{
    struct sum s = { 0 };
    struct journal *j;
    struct err e;

    if (journal_open(path, &j, doubts, &e) < 0)
        abort();
    journal_replay(j, add_record, &s);
    journal_close(&j);
    return s;
}

/* Takes away what was kept aside. */
static void forget_damaged(void)
{
    DIR *d = opendir(dir);
    struct dirent *de;

    if (d == NULL)
        abort();
    while ((de = readdir(d)) != NULL)
        if (strstr(de->d_name, ".damaged.") != NULL)
            unlinkat(dirfd(d), de->d_name, 0);
    closedir(d);
}

static void write_file(const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text = malloc(len + LINES_MAX * 20 + 1);
    const char *in = (const char *)data;
    size_t n = 0, lines = 0, doubts, again;
    struct sum first, second;

    for (size_t at = 0; at < len && lines < LINES_MAX; lines++) {
        const char *nl = memchr(in + at, '\n', len - at);
        size_t line = nl != NULL ? (size_t)(nl - in) - at : len - at;
        size_t had = n;

        n += put_line(text + n, in + at, line);
        check_line(text + had, n - had);
        if (nl != NULL)
            text[n++] = '\n';
        at += line + 1;
    }
    write_file(text, n);
    free(text);
    first = open_and_sum(&doubts);
    if (doubts > 0)
        forget_damaged();
    second = open_and_sum(&again);
    if (again != 0 || first.n != second.n)
        abort();
    return 0;
}
