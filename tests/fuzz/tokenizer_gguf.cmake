# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(tokenizer_gguf LINK qn_tokenizer)
