/* SPDX-License-Identifier: ISC */
#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 2048

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static struct {
    const char *program;
    char path[512];
    int fd;
    enum log_level level;
} log_state = { "migrd", "", STDERR_FILENO, LOG_LV_INFO };

static int open_path(struct err *e)
{
    int old = log_state.fd, fd;

    fd = open(log_state.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_sys(e, "log file %s", log_state.path);
    log_state.fd = fd;
    if (old != STDERR_FILENO)
        close(old);
    return 0;
}

int log_open(const char *program, const char *path, struct err *e)
{
    log_state.program = program;
    if (path == NULL)
        return 0;
    if (strlen(path) >= sizeof log_state.path)
        return err_set(e, ERR_INVALID, "log file %.64s...: path is too long", path);
    strcpy(log_state.path, path);
    return open_path(e);
}

int log_reopen(struct err *e)
{
    return log_state.path[0] == '\0' ? 0 : open_path(e);
}

void log_set_level(enum log_level level)
{
    log_state.level = level;
}

int log_level_parse(const char *word)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++)
        if (strcmp(word, level_names[i]) == 0)
            return (int)i;
    return -1;
}

static size_t put_head(char *line, enum log_level level, const char *area)
{
    struct timespec ts;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = strftime(line, LOG_LINE_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, LOG_LINE_MAX - n, ".%06ldZ %-5s %s[%d] %s: ", ts.tv_nsec / 1000,
        level_names[level], log_state.program, (int)getpid(), area);
    return n;
}

void log_msg(enum log_level level, const char *area, const char *fmt, ...)
{
    char line[LOG_LINE_MAX];
    size_t head, n;
    va_list ap;

    if (level > log_state.level)
        return;
    head = put_head(line, level, area);
    va_start(ap, fmt);
    vsnprintf(line + head, sizeof line - head - 1, fmt, ap);
    va_end(ap);
    n = strlen(line);
    for (size_t i = head; i < n; i++)
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[n++] = '\n';
    /* A log that cannot be written must not stop the program that writes it. */
    if (write(log_state.fd, line, n) < 0)
        return;
}
