/* SPDX-License-Identifier: ISC */
#include "cluster/mutant.h"

#ifdef HA_MUTANTS
unsigned mutant_chosen;

bool mutant_choose(unsigned n)
{
    mutant_chosen = n;
    return true;
}
#else
bool mutant_choose(unsigned n)
{
    return n == MUTANT_NONE;
}
#endif
