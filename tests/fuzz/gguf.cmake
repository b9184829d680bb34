# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(gguf LINK qn_formats)
