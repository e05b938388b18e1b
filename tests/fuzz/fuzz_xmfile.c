/* SPDX-License-Identifier: ISC */
/* xm's domain file. */
#define FUZZ_FORMAT DEFINE_XM
#include "tests/fuzz/define_harness.h"
