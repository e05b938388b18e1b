/* SPDX-License-Identifier: ISC */
/*
 * notify: systemd's notification protocol: datagrams to $NOTIFY_SOCKET. Without that
 * variable all of it does nothing. Never blocks, never fails loudly: a supervisor that does
 * not listen is no reason to stop.
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <stdint.h>

/* Lines as "READY=1\nSTATUS=..." */
void notify_send(const char *text);
void notify_status(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Half of the watchdog's time in ms, 0: nobody watches. */
uint64_t notify_watchdog_ms(void);

#endif
