#!/bin/bash
# What the image's init starts: the vendor's environment, a home that can be written to, then the page or a command.
#   (nothing), or flags alone         the page, with these flags
#   webui …                           the page, kept and ended by app/container.py
#   train … | chat … | doctor … | …   that command of `tunedesk`
#   bash | any other program          that program

# `source` without arguments of its own hands on this script's, which Ascend's files would read.
ascend_environment() {
    local home=${ASCEND_HOME:-/usr/local/Ascend}
    local folder
    for folder in "$home"/driver/lib64 "$home"/driver/lib64/common "$home"/driver/lib64/driver; do
        case ":$LD_LIBRARY_PATH:" in
            *":$folder:"*) ;;
            *) [ -d "$folder" ] && export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
        esac
    done
    # shellcheck disable=SC1091
    [ -f "$home/ascend-toolkit/set_env.sh" ] && source "$home/ascend-toolkit/set_env.sh"
    # shellcheck disable=SC1091
    [ -f "$home/nnal/atb/set_env.sh" ] && source "$home/nnal/atb/set_env.sh" --cxx_abi="${ATB_CXX_ABI:-1}"
    return 0
}

# An empty entry of PYTHONPATH, as Ascend's files leave one, is the working folder: nothing is imported from there.
without_empty_entries() {
    local path=":$1:"
    while [[ $path == *::* ]]; do path=${path//::/:}; done
    path=${path#:}
    printf '%s' "${path%:}"
}

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ascend_environment
[ -n "$PYTHONPATH" ] && PYTHONPATH=$(without_empty_entries "$PYTHONPATH") && export PYTHONPATH
# `docker run --user` gives any number, whose home and name are nobody's.
if [ ! -w "${HOME:-/nowhere}" ]; then
    HOME=$(mktemp -d /tmp/home-XXXXXX) && export HOME
fi
# The bundled datasets, to begin with: what the page adds goes beside them.
if [ -n "$TUNEDESK_DATA_DIR" ] && [ -z "$(ls -A "$TUNEDESK_DATA_DIR" 2>/dev/null)" ]; then
    mkdir -p "$TUNEDESK_DATA_DIR" && cp -r "$project"/data/. "$TUNEDESK_DATA_DIR"
fi
if [ -z "$USER" ]; then
    USER=$(id -un 2>/dev/null) || USER=tunedesk
    export USER
fi

case ${1:-webui} in
    webui) exec python3 -P -m app.container webui "${@:2}" ;;
    -*) exec python3 -P -m app.container webui "$@" ;;
esac
# A shell or another program goes by its own name; all else is a command of `tunedesk`, or it says which there are.
if type -P -- "$1" >/dev/null; then
    exec "$@"
fi
exec tunedesk "$@"
