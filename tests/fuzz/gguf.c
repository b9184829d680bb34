// SPDX-License-Identifier: Apache-2.0
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/formats/walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qn_error err = {0};
    qn_status st = walk_gguf(data, size, &err);
    if (st != err.status || strchr(err.message, '\n')) abort();
    return 0;
}
