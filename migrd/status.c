/* SPDX-License-Identifier: ISC */
/*
 * The HTTP server (libmicrohttpd without threads) inside the loop: its epoll descriptor
 * is polled by libuv, and a timer covers what it wants to do without being asked. Each
 * turn is one MHD_run, which never blocks. A sweep once a second closes connections that
 * are past their deadline and keeps silent event streams alive.
 *
 * Stopping: libuv's handles first (they watch a descriptor that the server owns), then
 * the streams are woken to end, then the server; memory goes with the last handle.
 */
#define _GNU_SOURCE
#include "migrd/status.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/status_internal.h"

#define SWEEP_MS 1000
#define CLIENT_MEMORY 16384 /* bytes per connection: request line and headers must fit */
#define BACKLOG 64
#define LAST_TURNS 16

/* --- turns of the server --- */

static void turn(struct status_listener *l);

static void on_timer(uv_timer_t *t)
{
    turn(t->data);
}

static void turn(struct status_listener *l)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (l->http == NULL || l->s->stopping)
        return;
    MHD_run(l->http);
    if (MHD_get_timeout(l->http, &ms) == MHD_YES)
        uv_timer_start(&l->timer, on_timer, ms, 0);
    else
        uv_timer_stop(&l->timer);
}

static void on_ready(uv_poll_t *p, int status, int events)
{
    (void)status, (void)events;
    turn(p->data);
}

void status_kick(struct status_listener *l)
{
    if (!l->s->stopping)
        uv_timer_start(&l->timer, on_timer, 0, 0);
}

/* --- connections and their deadlines --- */

static struct status_client *client_of(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    return i != NULL ? i->socket_context : NULL;
}

void status_set_deadline(struct MHD_Connection *c, unsigned ms)
{
    struct status_client *k = client_of(c);

    if (k != NULL)
        k->deadline_ns = ms == 0 ? 0 : clock_ns() + ms * NS_PER_MS;
}

static void on_connection(
    void *cls, struct MHD_Connection *c, void **context, enum MHD_ConnectionNotificationCode what)
{
    struct status_listener *l = cls;
    struct status_client *k;

    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        k = *context;
        *context = NULL;
        if (k == NULL)
            return;
        *k->prev = k->next;
        if (k->next != NULL)
            k->next->prev = k->prev;
        free(k);
        return;
    }
    k = calloc(1, sizeof *k);
    *context = k;
    if (k == NULL)
        return;
    k->connection = c;
    k->deadline_ns = clock_ns() + STATUS_REQUEST_MS * NS_PER_MS;
    k->next = l->s->clients;
    k->prev = &l->s->clients;
    if (k->next != NULL)
        k->next->prev = &k->next;
    l->s->clients = k;
}

static void on_completed(
    void *cls, struct MHD_Connection *c, void **context, enum MHD_RequestTerminationCode why)
{
    (void)cls, (void)context, (void)why;
    status_set_deadline(c, STATUS_IDLE_MS);
}

/* The server notices by itself that the socket has ended, and frees the connection. */
static void cut_off(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (i != NULL)
        shutdown(i->connect_fd, SHUT_RDWR);
}

static void on_sweep(uv_timer_t *t)
{
    struct status *s = t->data;
    uint64_t now = clock_ns();

    for (struct status_client *k = s->clients; k != NULL; k = k->next)
        if (k->deadline_ns != 0 && now > k->deadline_ns) {
            k->deadline_ns = 0; /* once is enough */
            cut_off(k->connection);
        }
    status_streams_beat(s, now);
}

/* --- start --- */

static void __attribute__((format(printf, 2, 0))) http_log(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    size_t n;

    (void)cls;
    vsnprintf(line, sizeof line, fmt, ap);
    n = strlen(line);
    while (n > 0 && line[n - 1] == '\n')
        line[--n] = '\0';
    log_debug("status", "%s", line);
}

static int listener_start(struct status *s, struct status_listener *l, int fd, struct err *e)
{
    const union MHD_DaemonInfo *info;

    l->s = s;
    l->http = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
        NULL, NULL, status_request, l, MHD_OPTION_EXTERNAL_LOGGER, http_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, STATUS_CLIENTS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, STATUS_IDLE_MS / 1000, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CLIENT_MEMORY, MHD_OPTION_NOTIFY_CONNECTION, on_connection, l,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, l, MHD_OPTION_END);
    if (l->http == NULL) {
        close(fd);
        return err_set(e, ERR_SYSTEM, "status socket: the HTTP server does not start");
    }
    info = MHD_get_daemon_info(l->http, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL || uv_poll_init(s->m->loop, &l->poll, info->epoll_fd) != 0) {
        MHD_stop_daemon(l->http);
        l->http = NULL;
        return err_set(e, ERR_SYSTEM, "status socket: the loop does not take its descriptor");
    }
    uv_timer_init(s->m->loop, &l->timer);
    l->poll.data = l->timer.data = l;
    uv_poll_start(&l->poll, UV_READABLE, on_ready);
    s->handles += 2;
    return 0;
}

/* The same group as the control socket's may read; without such a group root alone. */
static void give_to_group(const struct status *s, const char *path)
{
    const struct group *g = getgrnam(s->m->config.control_group);

    if (g != NULL && chown(path, (uid_t)-1, g->gr_gid) < 0)
        log_warn("status", "%s: cannot be given to group %s: %s", path, s->m->config.control_group,
            strerror(errno));
}

static int start_unix(struct status *s, struct err *e)
{
    int fd = io_unix_listen(s->m->paths.status, 0660, e);

    if (fd < 0)
        return err_prefix(e, "status socket");
    give_to_group(s, s->m->paths.status);
    return listener_start(s, &s->unix_socket, fd, e);
}

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
    return sa->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

/* "127.0.0.1:8003", "[::1]:8003". Numbers only: a name would need the resolver, which blocks. */
static int parse_address(const char *text, struct addrinfo **out, struct err *e)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
        .ai_socktype = SOCK_STREAM };
    char host[256];
    const char *colon = strrchr(text, ':');
    size_t n = colon != NULL ? (size_t)(colon - text) : 0;

    if (n >= 2 && n < sizeof host && text[0] == '[' && text[n - 1] == ']')
        snprintf(host, sizeof host, "%.*s", (int)n - 2, text + 1);
    else
        snprintf(host, sizeof host, "%.*s", (int)n, text);
    if (colon == NULL || host[0] == '\0' || getaddrinfo(host, colon + 1, &hints, out) != 0)
        return err_set(e, ERR_INVALID,
            "status-address = %s: give an address and a port, as 127.0.0.1:8003 or [::1]:8003",
            text);
    return 0;
}

static int listen_tcp(const struct addrinfo *ai, struct err *e)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

    if (fd < 0)
        return err_sys(e, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        err_sys(e, "listen");
        close(fd);
        return -1;
    }
    return fd;
}

static int start_tcp(struct status *s, struct err *e)
{
    const char *text = s->m->config.status_address;
    struct addrinfo *ai = NULL;
    int fd;

    if (text[0] == '\0')
        return 0;
    if (parse_address(text, &ai, e) < 0)
        return -1;
    if (!is_loopback(ai->ai_addr))
        log_warn("status",
            "status-address = %s is not a loopback address: everybody who reaches it can read "
            "names and states of all domains; there is no password",
            text);
    fd = listen_tcp(ai, e);
    freeaddrinfo(ai);
    if (fd < 0)
        return err_prefix(e, "status-address = %s", text);
    return listener_start(s, &s->tcp, fd, e);
}

int status_start(struct migrd *m, struct status **out, struct err *e)
{
    struct status *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_set(e, ERR_MEMORY, "status socket: out of memory");
    s->m = m;
    s->unix_socket.s = s->tcp.s = s;
    uv_timer_init(m->loop, &s->sweep);
    s->sweep.data = s;
    s->handles = 1;
    uv_timer_start(&s->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    if (start_unix(s, e) < 0 || start_tcp(s, e) < 0) {
        status_stop(&s);
        return -1;
    }
    log_info("status", "listening on %s%s%s", m->paths.status, s->tcp.http != NULL ? " and " : "",
        s->tcp.http != NULL ? m->config.status_address : "");
    *out = s;
    return 0;
}

/* --- stop --- */

static void on_closed(uv_handle_t *h)
{
    struct status *s = h->data;

    if (--s->handles == 0)
        free(s);
}

static void close_handles(struct status_listener *l)
{
    if (l->http == NULL)
        return;
    l->poll.data = l->timer.data = l->s;
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->timer, on_closed);
}

static void listener_stop(struct status_listener *l)
{
    if (l->http == NULL)
        return;
    /* Lets the streams that were woken send what they have and end in order; a reader that does
     * not take it is cut off. */
    for (int i = 0; i < LAST_TURNS && l->s->streams != NULL; i++)
        MHD_run(l->http);
    MHD_stop_daemon(l->http);
    l->http = NULL;
}

void status_stop(struct status **sp)
{
    struct status *s = *sp;

    bool had_socket;

    *sp = NULL;
    if (s == NULL)
        return;
    had_socket = s->unix_socket.http != NULL; /* else another migrd may own it */
    s->stopping = true;
    close_handles(&s->unix_socket);
    close_handles(&s->tcp);
    status_streams_end(s);
    listener_stop(&s->unix_socket);
    listener_stop(&s->tcp);
    if (had_socket)
        unlink(s->m->paths.status);
    uv_close((uv_handle_t *)&s->sweep, on_closed);
}
