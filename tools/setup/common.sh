# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/build and tools/test, from the repository's root: messages, jobs, a lock.

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "error: $*"
  exit 1
}

# The value of the option $1, which must follow it; wrong usage where none does.
value_of() {
  if (($# < 2)) || [[ -z $2 ]]; then
    say "error: $1 needs a value"
    return 2
  fi
  printf '%s' "$2"
}

# Compiler jobs: one a core, and 2 GiB of memory each (a source that includes ATen takes 1.5).
default_jobs() {
  local by_memory cores
  cores=$(nproc)
  by_memory=$(awk '/^MemAvailable:/ {print int($2 / 2097152)}' /proc/meminfo)
  if ((by_memory < 1)); then by_memory=1; fi
  echo $((cores < by_memory ? cores : by_memory))
}

# Takes the lock NAME of this checkout until the script ends; waits for whoever holds it.
take_lock() {
  mkdir -p .cache
  exec 9>".cache/$1.lock"
  if ! flock -n 9; then
    say "another run holds .cache/$1.lock; waiting for it"
    flock 9
  fi
}

# Runs a command without the lock, so that a process it leaves behind does not keep it.
unlocked() { "$@" 9>&-; }
