// SPDX-License-Identifier: Apache-2.0
// Names from files in error lines.
#ifndef QN_FORMATS_SHOWN_H
#define QN_FORMATS_SHOWN_H

#include <stddef.h>

typedef struct qn_shown {
    char text[160];
} qn_shown;

// s as it may stand in an error line: control characters visible, long names cut with "...".
qn_shown qn_show(const char *s, size_t len);
qn_shown qn_show_cstr(const char *s);

#endif
