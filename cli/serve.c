// SPDX-License-Identifier: Apache-2.0
#include "cli/commands.h"

#include "base/checked.h"
#include "cli/engine_flags.h"
#include "cli/hub_model.h"
#include "server/server.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OWN_FLAGS = 25 };

typedef struct options {
    const char *host, *metrics_prefix, *key_file, *uds, *ssl_cert, *ssl_key;
    qn_flag_list names, keys, origins;
    int64_t port, admin_port, io_threads, prepare_threads, max_logprobs, max_body, max_connections;
    double shutdown_timeout, head_timeout, body_timeout, keep_alive_timeout, stall_timeout;
    bool protect_metrics, shared_cache, log_requests, quiet;
} options;

static int serve(qn_engine *e, const qn_engine_flags *f, const options *o) {
    const qn_engine_info *info = qn_engine_get_info(e);
    const qn_server_options so = {
        .engine = e,
        .host = o->host,
        .port = (int32_t)o->port,
        .admin_port = (int32_t)o->admin_port,
        .model_names = o->names.items,
        .n_model_names = o->names.n,
        .api_keys = o->keys.items,
        .n_api_keys = o->keys.n,
        .api_key_file = o->key_file,
        .ssl_certfile = o->ssl_cert,
        .ssl_keyfile = o->ssl_key,
        .uds = o->uds,
        .allowed_origins = o->origins.items,
        .n_allowed_origins = o->origins.n,
        .http = {.max_body = (uint64_t)o->max_body, .max_connections = (size_t)o->max_connections,
                 .head_seconds = o->head_timeout, .body_seconds = o->body_timeout,
                 .idle_seconds = o->keep_alive_timeout, .stall_seconds = o->stall_timeout},
        .protect_metrics = o->protect_metrics,
        .shared_prefix_cache = o->shared_cache,
        .io_threads = (int32_t)o->io_threads,
        .prepare_threads = (int32_t)o->prepare_threads,
        .max_queued = (int32_t)f->max_num_queued_reqs,
        .max_logprobs = (int32_t)o->max_logprobs,
        .shutdown_timeout = o->shutdown_timeout > 0 ? o->shutdown_timeout : -1,
        .metrics_prefix = o->metrics_prefix,
        .version = QN_VERSION,
        .log_requests = o->log_requests,
        .handle_signals = true,
        .log = &f->log,
    };
    qn_server *s;
    qn_error err = {0};
    if (qn_server_create(&so, &s, &err) != QN_OK) {
        qn_cli_error("%s", err.message);
        return 1;
    }
    // The line about the API is the last: who waits for it finds all others.
    if (qn_server_admin_port(s)) {
        qn_logf(&f->log, QN_LOG_INFO, "admin port: http://127.0.0.1:%d", qn_server_admin_port(s));
    }
    const char *name = o->names.n ? o->names.items[0] : info->name;
    bool v6 = strchr(o->host, ':') != NULL;
    if (o->uds) {
        qn_logf(&f->log, QN_LOG_INFO, "serving %s at unix:%s", name, o->uds);
    } else {
        qn_logf(&f->log, QN_LOG_INFO, "serving %s at http%s://%s%s%s:%d/v1", name,
                o->ssl_cert ? "s" : "", v6 ? "[" : "", o->host,
                v6 ? "]" : "", qn_server_port(s));
    }
    qn_status st = qn_server_run(s, &err);
    if (st != QN_OK) qn_cli_error("%s", err.message);
    qn_server_destroy(s);
    return st == QN_OK ? 0 : 1;
}

int qn_cli_serve(int argc, char **argv) {
    options o = {.host = "127.0.0.1", .port = 8000, .metrics_prefix = "vllm:", .io_threads = 1,
                 .max_logprobs = 20, .shutdown_timeout = 30, .max_body = 8 << 20, .max_connections = 4096,
                 .head_timeout = 10, .body_timeout = 30, .keep_alive_timeout = 75, .stall_timeout = 30};
    qn_engine_flags engine;
    qn_engine_flags_init(&engine);
    qn_flag flags[OWN_FLAGS + QN_ENGINE_FLAG_COUNT] = {
        {"host", 0, QN_FLAG_TEXT, &o.host, "ADDR", "address to listen on", 0, 0},
        {"port", 0, QN_FLAG_INT, &o.port, "N", "port to listen on; 0: any free one", 0, 65535},
        {"admin-port", 0, QN_FLAG_INT, &o.admin_port, "N",
         "health, metrics and POST /drain on 127.0.0.1:N too; -1: any free port", -1, 65535},
        {"served-model-name", 0, QN_FLAG_LIST, &o.names, "NAME",
         "names that requests may use, several allowed (default: the model's)", 0, 0},
        {"api-key", 0, QN_FLAG_LIST, &o.keys, "KEY",
         "keys that requests must bring (better: QUERN_API_KEY in the environment)", 0, 0},
        {"api-key-file", 0, QN_FLAG_TEXT, &o.key_file, "FILE",
         "a line for each key or its sha256: hash, its scopes and limits (docs/api-keys.md); read again "
         "when it changes, or on SIGHUP", 0, 0},
        {"shared-prefix-cache", 0, QN_FLAG_BOOL, &o.shared_cache, NULL,
         "requests of different API keys may share cached KV", 0, 0},
        {"ssl-certfile", 0, QN_FLAG_TEXT, &o.ssl_cert, "FILE",
         "serve TLS with this certificate (PEM, with its chain); read again when it changes", 0, 0},
        {"ssl-keyfile", 0, QN_FLAG_TEXT, &o.ssl_key, "FILE", "the certificate's key (PEM)", 0, 0},
        {"uds", 0, QN_FLAG_TEXT, &o.uds, "PATH",
         "listen on a Unix socket (mode 0600) instead of host and port", 0, 0},
        {"allowed-origins", 0, QN_FLAG_LIST, &o.origins, "ORIGIN",
         "web pages that may call (https://example.org, or *), several allowed; default: none", 0, 0},
        {"max-body-bytes", 0, QN_FLAG_INT, &o.max_body, "SIZE", "largest request body", 1024, 1 << 30},
        {"max-connections", 0, QN_FLAG_INT, &o.max_connections, "N", "connections of an event loop", 1,
         1 << 20},
        {"header-timeout", 0, QN_FLAG_FLOAT, &o.head_timeout, "SECONDS",
         "for a request's header, from its first byte, and for a TLS handshake", 0.1, 86400},
        {"body-timeout", 0, QN_FLAG_FLOAT, &o.body_timeout, "SECONDS",
         "for a request's body, and a second more for each 16 KiB of it", 0.1, 86400},
        {"keep-alive-timeout", 0, QN_FLAG_FLOAT, &o.keep_alive_timeout, "SECONDS",
         "for a connection without a request; longer than a proxy's in front", 0.1, 86400},
        {"stall-timeout", 0, QN_FLAG_FLOAT, &o.stall_timeout, "SECONDS",
         "for a client that takes nothing of its answer", 0.1, 86400},
        {"protect-metrics", 0, QN_FLAG_BOOL, &o.protect_metrics, NULL, "/metrics asks for a key too",
         0, 0},
        {"io-threads", 0, QN_FLAG_INT, &o.io_threads, "N", "event loops of the API", 1, 64},
        {"prepare-threads", 0, QN_FLAG_INT, &o.prepare_threads, "N",
         "threads for templates and tokenizing (default: by the CPUs)", 1, 64},
        {"max-logprobs", 0, QN_FLAG_INT, &o.max_logprobs, "N", "most top_logprobs of a request", 1,
         QN_MAX_TOP_LOGPROBS},
        {"shutdown-timeout", 0, QN_FLAG_FLOAT, &o.shutdown_timeout, "SECONDS",
         "time for running requests after SIGTERM", 0, 86400},
        {"metrics-prefix", 0, QN_FLAG_TEXT, &o.metrics_prefix, "TEXT", "of the metrics' names", 0, 0},
        {"enable-log-requests", 0, QN_FLAG_BOOL, &o.log_requests, NULL, 
         "a line of JSON for each request in the log, without its text", 0, 0},
        {"quiet", 'q', QN_FLAG_BOOL, &o.quiet, NULL, "log warnings and errors only", 0, 0},
    };
    qn_engine_flags_table(&engine, flags + OWN_FLAGS);
    char *config_text = NULL;
    const qn_flag_set set = {
        .command = "serve",
        .usage = "quern serve MODEL [options]",
        .about = "Serves a model over HTTP with the OpenAI API. MODEL is a GGUF file, a Hugging Face\n"
                 "directory, or a name on the hub (owner/name, owner/name:Q4_K_M), which is fetched into\n"
                 "the hub's own cache. SIGTERM (or Ctrl-C) finishes what runs; a second one ends at once.",
        .examples = "  quern serve model.gguf\n"
                    "  quern serve model.gguf --port 9000 --served-model-name my-model\n"
                    "  quern serve Qwen/Qwen3-0.6B\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
        .environment = true,
        .config_text = &config_text,
    };
    const char *model = NULL;
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, &model, 1, &n);
    if (rc < 0 && n != 1) {
        qn_cli_error("serve needs a model");
        fprintf(stderr, "quern: see 'quern serve --help'\n");
        rc = 2;
    }
    if (rc >= 0) {
        free(config_text);
        return rc;
    }
    engine.verbose = !o.quiet;
    // A model from the hub is known by the name that was asked for, as clients of vLLM expect.
    if (o.names.n == 0 && qn_cli_is_hub_name(model)) o.names.items[o.names.n++] = model;
    qn_engine *e = NULL;
    rc = qn_engine_flags_open(&engine, model, &e);
    if (rc == 0) rc = serve(e, &engine, &o);
    qn_engine_close(e);
    qn_engine_flags_free(&engine);
    free(config_text);
    return rc;
}
