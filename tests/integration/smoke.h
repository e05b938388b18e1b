/* SPDX-License-Identifier: ISC */
/*
 * smoke: checks of the programs that try a part of the project alone. What fails is told, with its
 * place, and ends the program by END_ALL, which each defines before it includes this; a driver's
 * calls leave their error in a `struct err e` of the program's own.
 */
#ifndef SMOKE_H
#define SMOKE_H

#include <stdio.h>

#define NEED(what, cond)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            printf("FAIL %s (line %d)\n", what, __LINE__);                                         \
            END_ALL(1);                                                                            \
        }                                                                                          \
    } while (0)

#define DO(call)                                                                                   \
    do {                                                                                           \
        if ((call) < 0) {                                                                          \
            printf("FAIL %s: %s\n", #call, e.text);                                                \
            END_ALL(1);                                                                            \
        }                                                                                          \
    } while (0)

#endif
