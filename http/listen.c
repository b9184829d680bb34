// SPDX-License-Identifier: Apache-2.0
// Listening sockets.
#include "http/server_conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

qn_status qn_http_listen(const char *host, uint16_t port, int *fd, uint16_t *bound_port,
                         bool *loopback, qn_error *err) {
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0) {
        return qn_fail(err, rc == EAI_MEMORY ? QN_ERR_NOMEM : QN_ERR_INVALID, "host %s: %s", host,
                       gai_strerror(rc));
    }
    int s = -1, saved = 0;
    struct addrinfo *a = list;
    for (; a; a = a->ai_next) {
        s = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (s < 0) {
            saved = errno;
            continue;
        }
        int on = 1;
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(s, a->ai_addr, a->ai_addrlen) == 0 && listen(s, BACKLOG) == 0) break;
        saved = errno;
        close(s);
        s = -1;
    }
    if (s >= 0) {
        const struct sockaddr *sa = a->ai_addr;
        if (sa->sa_family == AF_INET) {
            const struct sockaddr_in *in4 = (const void *)sa;
            *loopback = (ntohl(in4->sin_addr.s_addr) >> 24) == 127;
        } else if (sa->sa_family == AF_INET6) {
            const struct sockaddr_in6 *in6 = (const void *)sa;
            *loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
        } else {
            *loopback = false;
        }
    }
    freeaddrinfo(list);
    if (s < 0) {
        return qn_fail(err, QN_ERR_IO, "cannot listen on %s port %u: %s", host, (unsigned)port,
                       strerror(saved));
    }
    struct sockaddr_storage name = {0};
    socklen_t len = sizeof name;
    *bound_port = port;
    if (getsockname(s, (struct sockaddr *)&name, &len) == 0) {
        if (name.ss_family == AF_INET) {
            *bound_port = ntohs(((struct sockaddr_in *)&name)->sin_port);
        } else if (name.ss_family == AF_INET6) {
            *bound_port = ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
        }
    }
    *fd = s;
    return QN_OK;
}

// Nobody answers on a socket file: what made it has gone.
static bool is_stale(const struct sockaddr_un *a) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool stale = connect(fd, (const struct sockaddr *)a, sizeof *a) != 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}

qn_status qn_http_listen_unix(const char *path, qn_http_unix *out, qn_error *err) {
    *out = (qn_http_unix){.fd = -1};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof a.sun_path) {
        return qn_fail(err, QN_ERR_INVALID, "the path of a Unix socket has 1 to %zu bytes",
                       sizeof a.sun_path - 1);
    }
    memcpy(a.sun_path, path, len);
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) return qn_fail(err, QN_ERR_IO, "%s exists, and is no socket", path);
        if (!is_stale(&a)) return qn_fail(err, QN_ERR_IO, "%s: another process listens there", path);
        if (unlink(path) != 0) return qn_fail(err, QN_ERR_IO, "%s: %s", path, strerror(errno));
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    // On Linux the file gets the socket's mode, so it never is open to others, not for a moment.
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(fd, (const struct sockaddr *)&a, sizeof a) != 0 || listen(fd, BACKLOG) != 0 ||
        lstat(path, &st) != 0) {
        int saved = errno;
        if (fd >= 0) close(fd);
        return qn_fail(err, QN_ERR_IO, "cannot listen on %s: %s", path, strerror(saved));
    }
    *out = (qn_http_unix){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
    return QN_OK;
}

void qn_http_unlink_unix(const char *path, const qn_http_unix *u) {
    struct stat st;
    if (lstat(path, &st) == 0 && st.st_dev == u->device && st.st_ino == u->inode) unlink(path);
}
