// SPDX-License-Identifier: Apache-2.0
#include "formats/shown.h"

#include "base/buf.h"
#include "base/utf8.h"

qn_shown qn_show(const char *s, size_t len) {
    enum { LONGEST = 96, ROOM = sizeof(((qn_shown *)0)->text) - 4 };
    qn_shown out = {{0}};
    qn_buf buf = {0};
    size_t n = len <= LONGEST ? len : LONGEST;
    n -= n < len ? qn_utf8_incomplete_tail(s, n) : 0;
    qn_buf_visible(&buf, s, n, false);
    if (buf.data) {
        bool cut = n < len || buf.len > ROOM;
        size_t keep = buf.len <= ROOM ? buf.len : ROOM;
        keep -= qn_utf8_incomplete_tail(buf.data, keep);
        memcpy(out.text, buf.data, keep);
        if (cut) memcpy(out.text + keep, "...", 3);
    }
    qn_buf_free(&buf);
    return out;
}

qn_shown qn_show_cstr(const char *s) { return qn_show(s, strlen(s)); }
