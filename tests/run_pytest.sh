#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: run_pytest.sh PATH...   Runs pytest with the environment of scripts/deps --test (or QN_PYTHON,
# or the system's Python). Exits with 77, which ctest counts as skipped, where a package is missing.
root=$(cd "$(dirname "$0")/.." && pwd)
for python in "$QN_PYTHON" "$root/build/venv/bin/python3" python3; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 || continue
    if "$python" -c 'import pytest, openai' 2>/dev/null; then
        exec "$python" -m pytest -q -p no:cacheprovider "$@"
    fi
done
echo "skipped: no Python with pytest and openai (scripts/deps --test makes one)"
exit 77
