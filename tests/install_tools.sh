#!/bin/sh
# The browser tests need Debian's Chromium and CJK fonts. Others need nginx (the page behind proxies), bubblewrap and tini
# (the image's entrypoint), iproute2 (machines as network namespaces) and g++ (a stand-in for an NPU): without one of
# those its tests are skipped, and say so. Installs what is missing, or says in one line what to install.
set -eu
PATH="$PATH:/usr/sbin"
wanted=""
optional=""
command -v chromium >/dev/null 2>&1 || wanted="chromium"
fc-list :lang=zh 2>/dev/null | grep -q . || wanted="$wanted fonts-noto-cjk fontconfig"
for pair in nginx:nginx-light bwrap:bubblewrap tini:tini ip:iproute2 g++:g++; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || optional="$optional ${pair##*:}"
done
[ -z "$wanted$optional" ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing $wanted $optional for the tests …"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $wanted $optional >/dev/null && exit 0
fi
if [ -z "$wanted" ]; then
    echo "Not everything is tested without:$optional (Debian: apt-get install$optional)." >&2
    exit 0
fi
echo "The browser tests need: $wanted. Install them as root (Debian: apt-get install $wanted), then run make test again." >&2
exit 1
