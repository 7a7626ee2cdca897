# shellcheck shell=bash
# What every script below hack/ uses: how to speak, how to fail, how to be root.

# A failure inside $(...) is one, too.
shopt -s inherit_errexit

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Runs a command as root: directly where we are root, else with sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# A duration since $1 (a value of now_ms), with as many digits as matter: 0.21 s, 34.5 s.
now_ms() { date +%s%3N; }
since() {
  local ms=$(($(now_ms) - $1))
  if [ $ms -lt 10000 ]; then printf '%d.%02d s' $((ms / 1000)) $((ms % 1000 / 10))
  else printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); fi
}
