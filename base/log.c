// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

void qn_logf(const qn_log *log, qn_log_level level, const char *fmt, ...) {
    if (!log || !log->write || level < log->min_level) return;
    char line[1000];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    log->write(log->user, level, line);
}

static void write_stderr(void *user, qn_log_level level, const char *line) {
    (void)user;
    static const char *const names[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    qn_buf out = {0};
    qn_buf_printf(&out, "%02d:%02d:%02d.%03ld %s ", tm.tm_hour, tm.tm_min, tm.tm_sec,
                  ts.tv_nsec / 1000000, names[level]);
    qn_buf_visible(&out, line, strlen(line), false);
    qn_buf_putc(&out, '\n');
    // One call a line, so that lines of several threads do not mix.
    if (!out.failed) fwrite(out.data, 1, out.len, stderr);
    qn_buf_free(&out);
}

qn_log qn_log_stderr(qn_log_level min_level) {
    return (qn_log){write_stderr, NULL, min_level};
}
