// SPDX-License-Identifier: Apache-2.0
#include "http/sse.h"

void qn_sse_free(qn_sse *s) {
    qn_buf_free(&s->line);
    qn_buf_free(&s->data);
    qn_buf_free(&s->name);
    *s = (qn_sse){0};
}

static void end_line(qn_sse *s, void (*on_event)(void *, qn_str, qn_str), void *user) {
    qn_str line = qn_buf_str(&s->line);
    if (line.len == 0) {
        if (s->have_data) on_event(user, qn_buf_str(&s->name), qn_buf_str(&s->data));
        qn_buf_clear(&s->data);
        qn_buf_clear(&s->name);
        s->have_data = false;
        return;
    }
    const char *colon = memchr(line.data, ':', line.len);
    qn_str field = {line.data, colon ? (size_t)(colon - line.data) : line.len};
    qn_str value = {line.data + line.len, 0};
    if (colon) {
        value = (qn_str){colon + 1, line.len - field.len - 1};
        if (value.len && value.data[0] == ' ') value = (qn_str){value.data + 1, value.len - 1};
    }
    if (qn_str_is(field, "data")) {
        if (s->have_data) qn_buf_putc(&s->data, '\n');
        qn_buf_append(&s->data, value.data, value.len);
        s->have_data = true;
    } else if (qn_str_is(field, "event")) {
        qn_buf_clear(&s->name);
        qn_buf_append(&s->name, value.data, value.len);
    }
    qn_buf_clear(&s->line);
}

qn_status qn_sse_feed(qn_sse *s, const char *bytes, size_t len,
                      void (*on_event)(void *user, qn_str name, qn_str data), void *user,
                      qn_error *err) {
    s->line.limit = s->data.limit = s->name.limit = QN_SSE_MAX_EVENT;
    for (size_t i = 0; i < len;) {
        if (s->after_cr) {
            s->after_cr = false;
            if (bytes[i] == '\n') {
                i++;
                continue;
            }
        }
        size_t end = i;
        while (end < len && bytes[end] != '\n' && bytes[end] != '\r') end++;
        qn_buf_append(&s->line, bytes + i, end - i);
        if (s->line.failed) return qn_fail(err, QN_ERR_LIMIT, "an event of the stream is too large");
        i = end;
        if (i == len) break;
        s->after_cr = bytes[i++] == '\r';
        end_line(s, on_event, user);
        if (s->data.failed || s->name.failed) {
            return qn_fail(err, QN_ERR_LIMIT, "an event of the stream is too large");
        }
    }
    return QN_OK;
}
