// SPDX-License-Identifier: Apache-2.0
// What the files of server/ share. Ownership: qn_server owns the loops; a loop owns its connections
// and, through them, the generations; only the loop's own thread touches them. What several threads
// touch is const after start, atomic (phase, metrics), or under a lock (inbox).
//
// The first loop is the service loop. It accepts all connections and answers what operators ask
// (health, version, metrics); a connection whose request is for the API moves to one of the others,
// with all that came on it, and stays there. So nothing that an API loop does delays a health check.
// With TLS the API's loops accept for themselves, because handshakes are long work too; the admin port
// then is what nothing delays.
#ifndef QN_SERVER_INTERNAL_H
#define QN_SERVER_INTERNAL_H

#include "server/keys.h"
#include "server/metrics.h"
#include "server/pool.h"
#include "server/prompt.h"
#include "server/request.h"
#include "server/server.h"

#include <stdatomic.h>

enum {
    QN_SERVER_MAX_LOOPS = 64,
    QN_SERVER_MAX_LIVE = 8192, // engine requests that one loop may have at a time
};

// What an exchange's notes hold, for its line in the log.
// QN_NOTE_KEY is a qn_key *, which is held; QN_NOTE_COUNTED says that it counts this request.
enum {
    QN_NOTE_KEY,
    QN_NOTE_COUNTED,
    QN_NOTE_PROMPT_TOKENS,
    QN_NOTE_OUTPUT_TOKENS,
    QN_NOTE_FIRST_NS,
};

typedef enum qn_phase { QN_PHASE_SERVE, QN_PHASE_DRAIN, QN_PHASE_STOP } qn_phase;

typedef struct qn_generation qn_generation;
typedef struct qn_choice qn_choice;

// Engine handle -> choice; open addressing with linear probing, fixed size.
typedef struct qn_handle_map {
    struct {
        uint64_t handle; // 0: empty
        qn_choice *choice;
    } *slots;
    size_t mask, count;
} qn_handle_map;
bool qn_handle_map_init(qn_handle_map *m, size_t capacity);
void qn_handle_map_free(qn_handle_map *m);
bool qn_handle_map_put(qn_handle_map *m, uint64_t handle, qn_choice *choice); // false: full
qn_choice *qn_handle_map_get(const qn_handle_map *m, uint64_t handle);        // NULL: none
void qn_handle_map_remove(qn_handle_map *m, uint64_t handle);

typedef struct qn_loop {
    struct qn_server *server;
    int index;
    struct event_base *base;
    qn_http_server *http;
    qn_http_server *admin; // of the service loop; NULL: none
    pthread_mutex_t inbox_lock;
    qn_http_moved **inbox; // connections that move here; the array grows, and is empty when idle
    size_t n_inbox, cap_inbox;
    atomic_size_t n_conns; // about as many connections as there are here; for choosing a loop
    qn_mailbox mailbox; // its descriptor also wakes the loop when the phase changes
    struct event *wake, *drain_tick, *log_tick, *file_tick, *sigterm, *sigint, *sighup;
    qn_thread thread;
    qn_handle_map live;
    qn_generation *generations;   // all of this loop's
    struct qn_preparing *waiting; // requests of this loop that the pool has
    qn_phase phase;             // as far as this loop has acted on it
    uint64_t deadline_ns;       // of the drain
    qn_buf scratch, piece;      // for whoever runs; never kept across callbacks
    uint64_t id_key, id_count;  // names for requests
    qn_engine_stats logged;     // at the last periodic line
    uint64_t logged_ns;
} qn_loop;

struct qn_server {
    qn_server_options options; // its pointers are to copies below
    qn_engine *engine;
    const qn_engine_info *info;
    qn_request_limits limits;
    char **names;
    size_t n_names;
    qn_keys *keys;
    struct qn_tls *tls; // NULL: plain
    char **origins; // that browsers may call from
    size_t n_origins;
    char *uds;
    qn_http_unix unix_socket;
    char *version, *prefix;
    qn_metrics *metrics;
    qn_pool *pool;
    int listen_fd, admin_fd;
    uint16_t port, admin_port;
    bool loopback, admin_loopback;
    int64_t started; // seconds since 1970
    qn_loop *loops; // [0]: the service loop
    size_t n_loops;
    size_t next_loop; // the service loop's, for equally loaded ones
    atomic_int phase;
    atomic_int others; // loops but the first that run
    qn_wakeup stop; // written by qn_server_stop, watched by the first loop
    struct event *stop_event;
};

// ---- routes.c
extern const char *const qn_route_handlers[]; // names for metrics; [0] is "none"
size_t qn_route_handler_count(void);
// Is the request one for the other loops?
bool qn_routes_leaves(void *loop, const qn_http_head *head);
void qn_routes_head(void *loop, qn_http_conn *c, const qn_http_head *head);
void qn_routes_admin_head(void *loop, qn_http_conn *c, const qn_http_head *head);
void qn_routes_request(void *loop, qn_http_conn *c, const qn_http_head *head, qn_str body);
void qn_routes_format_error(void *loop, int status, const char *reason, qn_buf *body);
void qn_routes_finish(void *loop, qn_http_conn *c, const qn_http_outcome *outcome);
// Answers with an error.
void qn_respond_error(qn_loop *l, qn_http_conn *c, const qn_api_error *err);
void qn_respond_json(qn_http_conn *c, const qn_buf *body);
// The served name that the request means; NULL with *err if it is none of ours. NULL name: the first.
const char *qn_server_model(const struct qn_server *s, const char *name, qn_api_error *err);
// The key that a request brought; NULL: none was asked for.
qn_key *qn_exchange_key(qn_http_conn *c);
// What the first signal does; asked twice it does not become the second, which cuts.
void qn_server_drain(struct qn_server *s);
bool qn_server_healthy(struct qn_server *s, const char **why);
// 32 hexadecimal digits and a NUL.
void qn_loop_name(qn_loop *l, char out[33]);

// ---- generate.c
// Gives a request to the pool; answers at once if it cannot be admitted. kind: a qn_job_kind.
void qn_request_admit(qn_loop *l, qn_http_conn *c, int kind);
void qn_request_prepared(qn_loop *l); // takes what the pool has done for this loop
void qn_generate_close(void *loop, qn_http_conn *c);    // the client left
void qn_generate_writable(void *loop, qn_http_conn *c); // there is room for output again
void qn_generate_ready(qn_loop *l, uint64_t handle);    // the engine has something to read
// Ends all of the loop's generations, and what waits for the pool, with an error (at the end of a drain).
void qn_generate_abort_all(qn_loop *l);

#endif
