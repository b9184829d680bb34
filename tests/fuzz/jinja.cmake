# SPDX-License-Identifier: Apache-2.0
qn_add_fuzz(jinja LINK qn_template)
