# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(safetensors LINK qn_formats)
