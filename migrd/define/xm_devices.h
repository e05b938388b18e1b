/* SPDX-License-Identifier: ISC */
/* xm_devices: the members of disk=[...] and vif=[...] of xm's domain file. Part of define. */
#ifndef DEFINE_XM_DEVICES_H
#define DEFINE_XM_DEVICES_H

#include "migrd/define/internal.h"

/* 'file:/x.img,xvda,w': appends a disk to the domain. */
int xm_add_disk(struct reader *r, unsigned line, const char *text);

/* 'mac=...,bridge=...': appends a vif; "" is one with defaults. */
int xm_add_vif(struct reader *r, unsigned line, const char *text);

#endif
