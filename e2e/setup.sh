#!/usr/bin/env bash
# setup.sh - installs what the end-to-end harness needs from Debian 12, and names in one line what it cannot set up.
set -euo pipefail

missing=()
packages=()

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || packages+=("$2")
}
at_least() { # WANTED FOUND: version order
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]
}

need runc runc
need nft nftables
need ip iproute2
need nsenter util-linux
need openssl openssl
need ldd libc-bin
need make make
# The CUDA kernels run on the CPU in tests; they are C++ there.
need g++ g++
# The pinned CUDA compiler comes as wheels.
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
# The verifier runs on Debian's own Python, so that it needs no index of packages.
/usr/bin/python3 -c 'import numpy' >/dev/null 2>&1 || packages+=(python3 python3-numpy)

# What comes with the machine, not from here: toolchains of a version Debian 12 does not have.
if command -v go >/dev/null 2>&1; then
    found=$(GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//; s/ .*//')
    at_least 1.26.6 "$found" || missing+=("Go 1.26.6 or newer (found $found)")
else
    missing+=("Go 1.26.6 or newer (found none)")
fi
if command -v cargo >/dev/null 2>&1; then
    found=$(rustc --version | cut -d' ' -f2)
    at_least 1.89.0 "$found" || missing+=("Rust 1.89 or newer (found $found)")
else
    missing+=("Rust 1.89 or newer (found none)")
fi
command -v cc >/dev/null 2>&1 || missing+=("a C compiler called cc")
command -v strip >/dev/null 2>&1 || missing+=("binutils (strip)")
[ "$(uname -s)" = Linux ] || missing+=("Linux (this is $(uname -s))")
[ "$(id -u)" = 0 ] || missing+=("root (this is uid $(id -u))")

if [ ${#packages[@]} -gt 0 ]; then
    release=$(. /etc/os-release 2>/dev/null && echo "${ID:-unknown} ${VERSION_ID:-}" || echo unknown)
    if [ "$release" = "debian 12" ] && [ "$(id -u)" = 0 ]; then
        log=$(mktemp)
        if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
            missing+=("Debian packages ${packages[*]} (apt-get: $(grep -m1 '^E:' "$log" || tail -1 "$log"))")
        fi
        rm -f "$log"
    else
        missing+=("the programs of Debian 12's packages ${packages[*]} (this is $release, uid $(id -u))")
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    printf -v list '%s; ' "${missing[@]}"
    echo "setup: cannot set up: ${list%; }" >&2
    exit 1
fi
