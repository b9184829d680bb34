// SPDX-License-Identifier: Apache-2.0
// The HTTP server: OpenAI's routes over an engine, health, metrics.
//
// Threads: qn_server_run runs the service loop on the calling thread: it accepts connections, answers
// /health, /ping, /version and /metrics, and handles signals. io_threads more run the API's event
// loops, each with its own connections and its own mailbox of the engine; prepare_threads turn requests
// into token ids.
#ifndef QN_SERVER_SERVER_H
#define QN_SERVER_SERVER_H

#include "base/log.h"
#include "base/status.h"
#include "engine/engine.h"
#include "http/server_conn.h"

typedef struct qn_server qn_server;

typedef struct qn_server_options { // zero: the default, unless said otherwise
    qn_engine *engine;              // required; must outlive the server
    const char *host;               // "127.0.0.1"
    int32_t port;                   // 0..65535; 0: any free one (see qn_server_port)
    const char *const *model_names; // served names; the first labels the metrics and is answered
    size_t n_model_names;           // 0: the engine's name
    const char *const *api_keys;    // any one of them is asked for, but for public routes; 0: none
    size_t n_api_keys;
    const char *api_key_file;       // see server/keys.h; read again when it changes, or on SIGHUP; NULL
    const char *ssl_certfile, *ssl_keyfile; // TLS with these PEM files; read again when they change; NULL
    const char *uds;                // a Unix socket instead of host and port; NULL
    const char *const *allowed_origins; // web pages that may call ("*": all); none: no CORS
    size_t n_allowed_origins;
    bool protect_metrics;           // /metrics asks for a key too
    bool shared_prefix_cache;       // requests of different keys may share cached KV blocks
    int32_t io_threads;             // event loops of the API; 1; at most 64
    int32_t prepare_threads;        // for templates and tokenizing; a quarter of the CPUs, 2 to 8
    const char *admin_host;         // "127.0.0.1"
    int32_t admin_port;             // the service routes and POST /drain; 0: none, -1: any free one
    int32_t max_queued;             // waiting requests beyond which new ones are refused unread; 1024
    int32_t max_logprobs;           // 20, and at most that
    double shutdown_timeout;        // seconds for what runs at the first signal; < 0: 0; 0: 30
    double watchdog_seconds;        // /health fails when work makes no progress for so long; 120
    qn_http_limits http;
    const char *metrics_prefix;     // "vllm:"
    const char *version;            // of the program; what /version says
    bool log_requests;              // a line for each, as JSON, without any text of it
    bool handle_signals;            // SIGTERM, SIGINT, SIGHUP: see qn_server_run; ignores SIGPIPE
    const qn_log *log; // must outlive the server; NULL: silence
} qn_server_options;

// Checks the options, listens (connections and, with handle_signals, signals wait until run). Strings
// are copied.
qn_status qn_server_create(const qn_server_options *options, qn_server **out, qn_error *err);
// The port that is listened on.
int32_t qn_server_port(const qn_server *s);
int32_t qn_server_admin_port(const qn_server *s); // 0: none
// Serves until it was stopped and returns QN_OK then. With handle_signals the first SIGTERM or SIGINT
// is qn_server_stop, a second one too; SIGHUP reads the files of keys and certificates again.
qn_status qn_server_run(qn_server *s, qn_error *err);
// First call: drain. New requests get 503 (as /health does), what runs is finished, up to
// shutdown_timeout, then run returns. Second call: run returns at once and cuts what is left. Any
// thread, also from a signal handler.
void qn_server_stop(qn_server *s);
// After run has returned.
void qn_server_destroy(qn_server *s);

#endif
