/* SPDX-License-Identifier: ISC */
/*
 * Runs the inputs of the corpus through a harness, without a fuzzer: found cases must not come
 * back. `replay_NAME [FOLDER]` takes tests/fuzz/corpus/NAME below the working directory.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"

#define INPUT_MAX (1u << 20)

/* Harnesses that need it have one. */
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int replay(const char *path)
{
    struct err e;
    size_t len;
    char *text = io_read_file(path, INPUT_MAX, &len, &e);
    uint8_t *exact;

    if (text == NULL) {
        fprintf(stderr, "%s\n", e.text);
        return -1;
    }
    exact = malloc(len > 0 ? len : 1); /* so that reading one byte too much is seen */
    if (exact == NULL)
        abort();
    memcpy(exact, text, len);
    free(text);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return 0;
}

static int replay_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    unsigned n = 0;
    struct dirent *de;
    char path[4096 + 300];
    int r = 0;

    if (dir == NULL) {
        perror(folder);
        return 1;
    }
    while ((de = readdir(dir)) != NULL) {
        if (de->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, de->d_name);
        /* Named before: where it crashes, this is the last line. */
        printf("%s\n", path);
        fflush(stdout);
        r |= replay(path);
        n++;
    }
    closedir(dir);
    printf("%u inputs\n", n);
    return r != 0 || n == 0;
}

int main(int argc, char **argv)
{
    const char *name = strstr(argv[0], "replay_");
    char folder[4096];

    if (LLVMFuzzerInitialize != NULL && LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", name != NULL ? name + 7 : "");
    return replay_folder(argc > 1 ? argv[1] : folder);
}
