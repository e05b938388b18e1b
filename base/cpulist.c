/* SPDX-License-Identifier: ISC */
/* Numbers and ranges add, ^ takes away, in the order they come. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpulist.h"
#include "base/io.h"

/* "3" or "0-3" at *p; moves *p behind it. */
static bool range(const char **p, unsigned long *from, unsigned long *to)
{
    char *end;

    if (**p < '0' || **p > '9')
        return false;
    *from = *to = strtoul(*p, &end, 10);
    if (*end == '-') {
        *p = end + 1;
        if (**p < '0' || **p > '9')
            return false;
        *to = strtoul(*p, &end, 10);
    }
    *p = end;
    return *from <= *to && *to < CPU_SETSIZE;
}

int cpulist_parse(const char *list, void *cpu_set, struct err *e)
{
    cpu_set_t *set = cpu_set;
    const char *p = list;

    CPU_ZERO(set);
    if (list == NULL || *list == '\0')
        return 0;
    for (;;) {
        bool take_away = *p == '^';
        unsigned long from, to;

        p += take_away;
        if (!range(&p, &from, &to) || (*p != '\0' && *p != ','))
            return err_set(e, ERR_INVALID, "CPU list \"%s\": write it as 0-3,^2", list);
        for (unsigned long c = from; c <= to; c++) {
            if (take_away)
                CPU_CLR(c, set);
            else
                CPU_SET(c, set);
        }
        if (*p == '\0')
            break;
        p++;
    }
    if (CPU_COUNT(set) == 0)
        return err_set(e, ERR_INVALID, "CPU list \"%s\" is of no CPU", list);
    return 1;
}

void cpulist_format(const void *cpu_set, char *list, size_t len)
{
    const cpu_set_t *set = cpu_set;
    size_t at = 0;

    list[0] = '\0';
    for (unsigned from = 0, to; from < CPU_SETSIZE && at < len; from = to + 1) {
        to = from;
        if (!CPU_ISSET(from, set))
            continue;
        while (to + 1 < CPU_SETSIZE && CPU_ISSET(to + 1, set))
            to++;
        at += (size_t)snprintf(list + at, len - at, "%s%u", at > 0 ? "," : "", from);
        if (to > from && at < len)
            at += (size_t)snprintf(list + at, len - at, "%c%u", to > from + 1 ? '-' : ',', to);
    }
}

int cpulist_host(const char *which, void *cpu_set)
{
    char path[64], *text;
    int r;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/%s", which);
    text = io_read_file(path, CPULIST_LEN, NULL, NULL);
    if (text == NULL)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    r = cpulist_parse(text, cpu_set, NULL);
    free(text);
    return r > 0 ? 0 : -1;
}
