# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(http LINK qn_http)
