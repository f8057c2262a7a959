#!/bin/sh
# The image's entrypoint is tested in a clean root that bubblewrap makes, under the init that the image has. Install what
# is missing, or say in one line what to install; without them those tests are skipped, and say so.
set -eu
wanted=""
command -v bwrap >/dev/null 2>&1 || wanted="bubblewrap"
command -v tini >/dev/null 2>&1 || wanted="$wanted tini"
[ -z "$wanted" ] && exit 0
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "Installing $wanted for the tests of the container …"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $wanted >/dev/null && exit 0
fi
echo "Without $wanted the image's entrypoint is not tested (Debian: apt-get install $wanted)." >&2
