/* SPDX-License-Identifier: ISC */
/*
 * One host of t_lease: lines on standard input (see tests/unit/lease_host.h), an answer to each on
 * standard output.
 *
 *   lease_smoke NAME [as=HOST_NAME] [uid=BASE] [timeout=MS] [uuid=UUID] [secrets=FILE]
 */
#include <signal.h>

#include "tests/unit/lease_host.h"

static void option(struct lease_host *h, const char *arg)
{
    if (strncmp(arg, "as=", 3) == 0)
        h->name = arg + 3;
    else if (strncmp(arg, "uid=", 4) == 0)
        h->uid_base = (unsigned)strtoul(arg + 4, NULL, 10);
    else if (strncmp(arg, "timeout=", 8) == 0)
        h->timeout_ms = (unsigned)strtoul(arg + 8, NULL, 10);
    else if (strncmp(arg, "uuid=", 5) == 0)
        h->uuid = arg + 5;
    else if (strncmp(arg, "secrets=", 8) == 0)
        h->secrets = arg + 8;
}

int main(int argc, char **argv)
{
    char line[LH_LINE], out[LH_LINE];
    struct lease_host *h;

    if (argc < 2) {
        fprintf(stderr,
            "usage: lease_smoke NAME [as=HOST_NAME] [uid=BASE] [timeout=MS] [uuid=UUID] "
            "[secrets=FILE]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    h = lh_new(argv[1]);
    for (int i = 2; i < argc; i++)
        option(h, argv[i]);
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        lh_do(h, line, out);
        printf("%s\n", out);
        fflush(stdout);
    }
    lh_end(&h);
    return 0;
}
