#!/usr/bin/env bash
# Runs the tests of this crate against a real cluster under valgrind: an error or a leak of ours fails.
#
#   ALDAAS_TESTBED=<dir made by hack/dev up> rbd/tests/valgrind.sh [test name filter ...]
#
# Not part of `make test`: it takes about twenty times as long. Outages are left out, since time-outs mean little here, and
# so are the long lists, which only repeat what a short one does.
set -euo pipefail
cd "$(dirname "$0")/.."

: "${ALDAAS_TESTBED:?no test bed: run hack/dev up --dir /tmp/bed and set ALDAAS_TESTBED=/tmp/bed}"
command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }

program() {
    cargo test -p aldaas-rbd "$@" --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

check() {
    # Memory that nothing points to any more is an error. What is still reachable when the process ends is no leak.
    # shellcheck disable=SC2086 # several options, as words
    valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        --error-exitcode=97 --num-callers=40 --fair-sched=yes \
        --suppressions=tests/valgrind.supp ${VALGRIND_OPTIONS:-} "$@"
}

check "$(program --lib)" --test-threads 1 --skip arbitrary --skip reads_back --skip cut_short
check "$(program --test real)" --test-threads 1 --skip outage --skip many_images --skip full_trash \
    --skip children_are_listed --skip of_many_that_race --skip large_and_many "$@"
