/* SPDX-License-Identifier: ISC */
#include "tools/migctl.h"

int main(int argc, char **argv)
{
    return migctl_run(argc, argv);
}
