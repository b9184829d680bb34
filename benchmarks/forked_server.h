// SPDX-License-Identifier: Apache-2.0
// A server in a process of its own, for benchmarks that are its client.
#ifndef QN_BENCHMARKS_FORKED_SERVER_H
#define QN_BENCHMARKS_FORKED_SERVER_H

#include "server/server.h"

#include <sys/types.h>

// Keeps this process on one CPU, or (all_but) on all others; nothing where there is just one.
void qn_pin(size_t cpu, bool all_but);
// Listens on 127.0.0.1, at *port. on_cpu: -1: any.
// -1: it did not start, and has said why. It ends with this process, at the latest.
pid_t qn_forked_server(const char *model, const qn_engine_options *engine, int32_t max_queued,
                       int on_cpu, uint16_t *port);
void qn_forked_server_stop(pid_t pid);

#endif
