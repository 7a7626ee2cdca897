#!/bin/sh
# Inside the image's build: prints what is in the image, as CycloneDX 1.5. Nothing here but Debian's smallest tools.
# $1: our version. $2: when it is made. $3: Cargo.lock.
set -eu
version=$1 created=$2 lock=$3

debian() {
  dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\n' | awk -F '|' '
    $1 ~ /^ii/ {
      purl = $3; gsub(/\+/, "%2B", purl); gsub(/:/, "%3A", purl)
      printf "{\"type\":\"library\",\"name\":\"%s\",\"version\":\"%s\",\"purl\":\"pkg:deb/debian/%s@%s?arch=%s\"}\n", $2, $3, $2, purl, $4
    }'
}

# All of Cargo.lock: what only tests use is in it too.
crates() {
  awk -F '"' '
    function end() {
      if (name == "" || source == "") { name = source = sum = ""; return }
      hash = sum == "" ? "" : ",\"hashes\":[{\"alg\":\"SHA-256\",\"content\":\"" sum "\"}]"
      purl = version; gsub(/\+/, "%2B", purl)
      printf "{\"type\":\"library\",\"name\":\"%s\",\"version\":\"%s\",\"purl\":\"pkg:cargo/%s@%s\"%s}\n", name, version, name, purl, hash
      name = source = sum = ""
    }
    /^\[\[package\]\]/ { end() }
    /^name = / { name = $2 }
    /^version = / { version = $2 }
    /^source = / { source = $2 }
    /^checksum = / { sum = $2 }
    END { end() }' "$lock"
}

programs() {
  for program in /usr/local/bin/aldaas*; do
    sum=$(sha256sum "$program")
    printf '{"type":"application","name":"%s","version":"%s","hashes":[{"alg":"SHA-256","content":"%s"}]}\n' \
      "${program##*/}" "$version" "${sum%% *}"
  done
}

printf '{"bomFormat":"CycloneDX","specVersion":"1.5","version":1,"metadata":{"timestamp":"%s","component":{"type":"container","name":"aldaas","version":"%s"}},"components":[\n' \
  "$created" "$version"
{ programs; debian; crates; } | sed '$!s/$/,/'
printf ']}\n'
