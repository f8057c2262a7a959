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
    # As the base's own entrypoint does; the folder's name holds CANN's version.
    for folder in "$home"/cann-*/share/info/ascendnpu-ir/bin; do
        # shellcheck disable=SC1091
        [ -f "$folder/set_env.sh" ] && source "$folder/set_env.sh"
    done
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

# In the language that the container's locale asks for: English, then Chinese.
say() {
    case ${LC_ALL:-${LC_MESSAGES:-$LANG}} in
        [zZ][hH]*) printf '%s\n' "$2" >&2 ;;
        *) printf '%s\n' "$1" >&2 ;;
    esac
}

# The bundled datasets, to begin with: what the page adds goes beside them. They come whole or not at all, so that a
# full disk or a container that ends meanwhile leaves nothing that the next one would take for the user's.
bundled_datasets() {
    local target=$1 new=$1/.bundled reason
    [ -z "$(ls -A "$target" 2>/dev/null | grep -vxF .bundled)" ] || return 0
    if reason=$({ mkdir -p "$target" && rm -rf "$new" && cp -r "$project/data" "$new"; } 2>&1) &&
        reason=$({ mv "$new"/* "$target" && rm -rf "$new"; } 2>&1); then
        return 0
    fi
    rm -rf "$new" 2>/dev/null
    say "The bundled datasets could not be copied to $target (${reason##*: }): they are used where they are, in $project/data." \
        "自带的数据集无法复制到 $target（${reason##*: }），将直接使用 $project/data 中的原件。"
    export TUNEDESK_DATA_DIR=$project/data
}

# A folder that another user has made, as `docker run -v` does for root, or a volume without fsGroup.
writable_or_said() {
    local folder=$1 me owner as="" als=""
    [ -e "$folder" ] || folder=$(dirname "$folder")
    [ -w "$folder" ] && return
    me=$(id -u):$(id -g) owner=$(stat -c %u:%g "$folder")
    [[ $owner == 0:* ]] || as="start the container with --user $owner, or " als="请用 --user $owner 启动容器，或"
    say "User $me cannot write to $folder, which belongs to $owner, so nothing can be trained: ${as}give the mounted folder to \
$me on its machine (chown $me FOLDER; Kubernetes: fsGroup)." \
        "用户 $me 无法写入 $folder（属于 $owner），因此无法训练：${als:-请}在宿主机上把挂载的目录交给 $me（chown $me 目录；\
Kubernetes：fsGroup）。"
}

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ascend_environment
[ -n "$PYTHONPATH" ] && PYTHONPATH=$(without_empty_entries "$PYTHONPATH") && export PYTHONPATH
if [ ! -w "${TMPDIR:-/tmp}" ]; then
    say "${TMPDIR:-/tmp} cannot be written to. With a read-only root add --tmpfs /tmp (Kubernetes: an emptyDir there)." \
        "无法写入 ${TMPDIR:-/tmp}。根文件系统为只读时，请加上 --tmpfs /tmp（Kubernetes：在该处挂载 emptyDir）。"
    exit 1
fi
# `docker run --user` gives any number, whose home and name are nobody's.
if [ ! -w "${HOME:-/nowhere}" ]; then
    HOME=$(mktemp -d /tmp/home-XXXXXX) && export HOME
fi
[ -n "$TUNEDESK_RUNS_DIR" ] && writable_or_said "$TUNEDESK_RUNS_DIR"
[ -n "$TUNEDESK_DATA_DIR" ] && bundled_datasets "$TUNEDESK_DATA_DIR"
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
