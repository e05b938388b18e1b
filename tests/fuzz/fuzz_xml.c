/* SPDX-License-Identifier: ISC */
/* libvirt's domain XML. */
#define FUZZ_FORMAT DEFINE_XML
#include "tests/fuzz/define_harness.h"
