#!/bin/sh
# The browser tests need Debian's Chromium and CJK fonts, and nginx for the page behind proxies: install what is
# missing, or say in one line what to install.
set -eu
wanted=""
command -v chromium >/dev/null 2>&1 || wanted="chromium"
fc-list :lang=zh 2>/dev/null | grep -q . || wanted="$wanted fonts-noto-cjk"
# Without nginx its own tests are skipped, and say so.
optional=""
PATH="$PATH:/usr/sbin" command -v nginx >/dev/null 2>&1 || optional="nginx-light"
[ -z "$wanted$optional" ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing $wanted $optional for the browser tests …"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $wanted $optional fontconfig >/dev/null && exit 0
fi
if [ -z "$wanted" ]; then
    echo "Without $optional the page behind proxies is not tested (Debian: apt-get install $optional)." >&2
    exit 0
fi
echo "The browser tests need: $wanted. Install them as root (Debian: apt-get install $wanted), then run make test again." >&2
exit 1
