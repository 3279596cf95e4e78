#!/bin/bash
# The trial of a newcomer: a Debian 12 that holds git and make besides the base system, a clone of this repository's HEAD in
# a directory never used before, and there `make demo`, `make test` or what else is given.
#
#   tests/fresh-machine.sh [TARGET…]        KEEP=1 leaves the folder, SUITE and MIRROR choose another system
#
# The folder is entered by chroot in a mount namespace of its own, in which it is a mount point and /run is empty, so that
# `ip netns` inside it is alone. The host's certificates and its settings for apt and pip hold inside too.
set -euo pipefail

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ $# -gt 0 ] || set -- demo test
[ "$(id -u)" = 0 ] || { echo "fresh-machine: run as root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "fresh-machine: debootstrap is missing; apt-get install debootstrap" >&2; exit 1; }

source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d /var/tmp/fresh-machine.XXXXXX)
chmod 755 "$folder"
finish() {
    code=$?
    if [ -n "${KEEP:-}" ]; then
        echo "fresh-machine: kept in $folder"
    else
        rm -rf --one-file-system "$folder"
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

echo "fresh-machine: debootstrap $suite"
if ! debootstrap --variant=minbase --include=git,make,ca-certificates "$suite" "$folder" "$mirror" >"$folder.log" 2>&1; then
    tail -20 "$folder.log" >&2
    exit 1
fi
rm -f "$folder.log"

cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
cp -L /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/ca-certificates.crt"
for setting in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    [ ! -e "$setting" ] || install -D "$setting" "$folder/${setting/#$HOME//root}"
done
grep -lsE '^[^/]*Acquire::' /etc/apt/apt.conf.d/* | xargs -r cp -t "$folder/etc/apt/apt.conf.d/" || true
git clone --quiet "$source" "$folder/root/tunrouter"

settings=()
while IFS= read -r line; do settings+=("$line"); done < <(env | grep -iE '^([a-z]+_proxy|PIP_[A-Z_]+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)=' || true)

for target; do
    echo "fresh-machine: make $target"
    started=$SECONDS
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --propagation private bash -ec '
        folder=$1; shift
        mount --bind "$folder" "$folder"
        mount -t proc proc "$folder/proc"
        mount -t sysfs sysfs "$folder/sys"
        mount --rbind /dev "$folder/dev"
        mount -t tmpfs tmpfs "$folder/run"
        exec chroot "$folder" "$@"
    ' fresh "$folder" /usr/bin/env -i "${settings[@]}" HOME=/root LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        make -C /root/tunrouter "$target"
    echo "fresh-machine: make $target: ok after $((SECONDS - started)) s"
done
