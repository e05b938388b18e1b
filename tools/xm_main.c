/* SPDX-License-Identifier: ISC */
#include "tools/xm.h"

int main(int argc, char **argv)
{
    return xm_run(argc, argv);
}
