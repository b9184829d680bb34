# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(request_json LINK qn_server)
