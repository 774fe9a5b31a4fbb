#!/bin/sh
# Prints the path of a free-threaded CPython (3.13 or later); progress goes to standard error.
#
# Looks, in this order, at $PLAIT_FREETHREADED, the PATH, what an earlier call built, uv, and last builds Debian's source
# package python3.13 with --disable-gil: about five minutes, once, into $XDG_CACHE_HOME/plait (~/.cache/plait).
# The system's package lists stay as they are: the source lists go to a folder of our own.
# Exits 1 with what to do when there is none to be had.
set -eu

say() { echo "free-threaded python: $*" >&2; }

is_freethreaded() {
    "$1" -c 'import sys, sysconfig; sys.exit(not (sys.version_info >= (3, 13) and sysconfig.get_config_var("Py_GIL_DISABLED")))' \
        2>/dev/null
}

found() { echo "$1"; exit 0; }

if [ -n "${PLAIT_FREETHREADED:-}" ]; then
    is_freethreaded "$PLAIT_FREETHREADED" && found "$PLAIT_FREETHREADED"
    say "PLAIT_FREETHREADED=$PLAIT_FREETHREADED is no free-threaded Python 3.13 or later"; exit 1
fi
for name in python3.13t python3.14t python3.15t; do
    path=$(command -v "$name" || true)
    if [ -n "$path" ] && is_freethreaded "$path"; then found "$path"; fi
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/plait
built=$cache/python3.13t/bin/python3.13t
if is_freethreaded "$built"; then found "$built"; fi

if command -v uv >/dev/null 2>&1; then
    if uv python install 3.14t >&2; then
        path=$(uv python find 3.14t)
        if is_freethreaded "$path"; then found "$path"; fi
    fi
    say "uv is here but gave none; going on with Debian's source package"
fi

command -v apt-get >/dev/null 2>&1 || {
    say "none found and no apt-get here: install one (uv python install 3.14t) and put it on PATH"; exit 1; }

packages="build-essential pkg-config ca-certificates xz-utils debian-archive-keyring
    libssl-dev zlib1g-dev libffi-dev libsqlite3-dev libbz2-dev liblzma-dev libreadline-dev uuid-dev"
missing=$(for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$p"; done)
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        say "building one needs packages; run as root:  apt-get install $missing"; exit 1
    fi
    say "installing $missing"
    apt-get update >&2
    # shellcheck disable=SC2086  # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >&2
fi

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/archives/partial"
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    grep -v '^#' | grep -o 'https\?://[^ ]*/debian/\?\( \|$\)' | head -n 1 | tr -d ' ')
[ -n "$mirror" ] || { say "found no Debian mirror in /etc/apt: put a free-threaded python on PATH"; exit 1; }
cat > "$work/src.sources" <<SOURCES
Types: deb-src
URIs: $mirror
Suites: forky trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
apt_options="-o Dir::Etc::sourcelist=$work/src.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$work/lists
    -o Dir::Cache=$work/archives -o APT::Sandbox::User=$(id -un)"

say "looking for Debian's source package python3.13"
# shellcheck disable=SC2086
apt-get $apt_options update >&2
# shellcheck disable=SC2086
versions=$(apt-cache $apt_options showsrc python3.13 | sed -n 's/^Version: //p' | sort -rVu)
cd "$work"
tarball=
for version in $versions; do   # of the versions listed some answer 404: take the newest that downloads
    # shellcheck disable=SC2086
    if apt-get $apt_options source --download-only "python3.13=$version" >&2; then
        tarball=$(ls python3.13_*.orig.tar.xz)
        break
    fi
    rm -f python3.13_*
    say "version $version does not download, trying the next"
done
[ -n "$tarball" ] || { say "no version of the source package downloads: put a free-threaded python on PATH"; exit 1; }

say "building $tarball (about five minutes; log: $cache/python3.13t.log)"
mkdir source && tar -xf "$tarball" -C source --strip-components 1
(
    cd source
    ./configure --disable-gil --prefix="$cache/python3.13t" --with-ensurepip=install
    make -j"$(nproc)"
    make install
) > "$cache/python3.13t.log" 2>&1 || { say "the build failed:"; tail -n 20 "$cache/python3.13t.log" >&2; exit 1; }
is_freethreaded "$built" || { say "the build left no free-threaded $built"; exit 1; }
say "built $built"
echo "$built"
