// SPDX-License-Identifier: Apache-2.0
// Where library code says something that is not an error. The sink is a value that is passed down:
// there is no global logger.
#ifndef QN_BASE_LOG_H
#define QN_BASE_LOG_H

typedef enum qn_log_level { QN_LOG_DEBUG, QN_LOG_INFO, QN_LOG_WARN, QN_LOG_ERROR } qn_log_level;

// A sink may be called from any thread and must not block for long. line has no newline.
typedef struct qn_log {
    void (*write)(void *user, qn_log_level level, const char *line);
    void *user;
    qn_log_level min_level;
} qn_log;

// Formats and hands one line (cut at 1,000 bytes) to the sink. NULL log: nothing happens.
void qn_logf(const qn_log *log, qn_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

// The sink of the command line: "12:34:56.789 INFO  line" on stderr, control characters escaped.
qn_log qn_log_stderr(qn_log_level min_level);

#endif
