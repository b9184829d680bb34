# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(hub LINK qn_hub)
