#!/usr/bin/env bash
# The one command before a commit: format, lint, types, tests. CI runs the same.
#   scripts/check.sh            all of it
#   scripts/check.sh --static   without the tests
set -euo pipefail
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
mypy
[ "${1:-}" = "--static" ] || pytest
