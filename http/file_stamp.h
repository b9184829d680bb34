// SPDX-License-Identifier: Apache-2.0
// Has a file changed? One that was replaced or written differs in its stamp.
#ifndef QN_HTTP_FILE_STAMP_H
#define QN_HTTP_FILE_STAMP_H

#include <stdbool.h>
#include <sys/stat.h>

typedef struct qn_file_stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec written;
} qn_file_stamp;

// false: errno says why.
static inline bool qn_file_stamp_of(const char *path, qn_file_stamp *out) {
    struct stat st;
    if (stat(path, &st) != 0) return false;
    *out = (qn_file_stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
    return true;
}

static inline bool qn_file_stamp_equal(const qn_file_stamp *a, const qn_file_stamp *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->written.tv_sec == b->written.tv_sec && a->written.tv_nsec == b->written.tv_nsec;
}

#endif
