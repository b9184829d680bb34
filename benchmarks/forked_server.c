// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/forked_server.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void qn_pin(size_t cpu, bool all_but) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < (size_t)sysconf(_SC_NPROCESSORS_ONLN); i++) {
        if ((i == cpu) != all_but) CPU_SET(i, &set);
    }
    if (CPU_COUNT(&set)) sched_setaffinity(0, sizeof set, &set);
}

static int serve(const char *model, const qn_engine_options *options, int32_t queued, int report) {
    qn_engine *engine;
    qn_server *server;
    qn_error err = {0};
    if (qn_engine_open(model, options, &engine, &err) == QN_OK) {
        const qn_server_options so = {.engine = engine, .max_queued = queued, .handle_signals = true};
        if (qn_server_create(&so, &server, &err) == QN_OK) {
            uint16_t port = (uint16_t)qn_server_port(server);
            if (write(report, &port, sizeof port) == sizeof port) qn_server_run(server, &err);
            return 0;
        }
    }
    fprintf(stderr, "%s\n", err.message);
    return 1;
}

pid_t qn_forked_server(const char *model, const qn_engine_options *engine, int32_t max_queued,
                       int on_cpu, uint16_t *port) {
    int pipe_fds[2];
    if (pipe(pipe_fds) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(pipe_fds[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGPIPE, SIG_IGN);
        if (on_cpu >= 0) qn_pin((size_t)on_cpu, false);
        _exit(serve(model, engine, max_queued, pipe_fds[1]));
    }
    close(pipe_fds[1]);
    bool ok = pid > 0 && read(pipe_fds[0], port, sizeof *port) == sizeof *port;
    close(pipe_fds[0]);
    return ok ? pid : -1;
}

void qn_forked_server_stop(pid_t pid) {
    if (pid <= 0) return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
