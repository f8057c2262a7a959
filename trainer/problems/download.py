"""What can go wrong with models that are looked up or downloaded, in both languages: part of SENTENCES."""

DOWNLOAD_SENTENCES: dict[str, tuple[str, str]] = {
    "model_not_here": (
        "{label}: {name} is neither a folder here nor a model in the hubs' caches. Check it, or download it: on the "
        "page below the model path, in a terminal with `tunedesk download {name}`.",
        "{label}：{name} 不是这里的文件夹，也不在模型缓存中。请检查，或先下载："
        "网页上在模型路径下方，终端中用 `tunedesk download {name}`。",
    ),
    "model_several": (
        "{label}: {path} is a cache of several models. Choose one of them by its name: {names}.",
        "{label}：{path} 是多个模型的缓存。请按名称选择其一：{names}。",
    ),
    "download_id": (
        "{label}: got {value}. Write organisation/name as the hub shows it, such as {example}.",
        "{label}：给出的是 {value}。请按模型库上的写法填写 组织/名称，例如 {example}。",
    ),
    "download_endpoint": (
        "{label}: got {value}. Write an address such as https://hf-mirror.com, without user name, password or question mark.",
        "{label}：给出的是 {value}。请填写地址，例如 https://hf-mirror.com，不含用户名、密码和问号。",
    ),
    "download_revision": (
        "{label}: got {value}. Write a branch, tag or commit of letters, digits, - _ and dots.",
        "{label}：给出的是 {value}。请填写由字母、数字、- _ 和点组成的分支、标签或提交。",
    ),
    "download_in_use": (
        "{name} is being downloaded already. Wait for it, or pause it where it was started.",
        "{name} 正在下载。请等待完成，或在开始它的地方暂停。",
    ),
    "download_unreachable": (
        "{hub} does not answer at {address} ({detail}). Check the network or proxy, or give the address of a mirror.",
        "{hub} 在 {address} 没有应答（{detail}）。请检查网络或代理，或填写镜像地址。",
    ),
    "download_no_model": (
        "{hub} at {address} has no model {name} that you may see. Check the spelling; a private model needs a token "
        "({token}).",
        "{hub}（{address}）上没有可供你查看的模型 {name}。请检查拼写；私有模型需要令牌（{token}）。",
    ),
    "download_no_revision": (
        "{hub} has {name}, but no revision {revision} of it. Choose a branch, tag or commit that its page lists.",
        "{hub} 上的 {name} 没有版本 {revision}。请选择其页面列出的分支、标签或提交。",
    ),
    "download_gated": (
        "{name} is open only to those who have accepted its terms on {hub}. Accept them on its page there, then give "
        "your token ({token}) and start again.",
        "{name} 只对在 {hub} 上同意其条款的人开放。请先在其页面上同意，再提供令牌（{token}）并重新开始。",
    ),
    "download_token": (
        "{hub} refuses the token that this machine sends ({token}). Log in anew, or take the token away for public models.",
        "{hub} 不接受本机发送的令牌（{token}）。请重新登录；公开模型可不用令牌。",
    ),
    "download_refused": (
        "{hub} at {address} answered {status} for {name}. Try again later, or choose a mirror.",
        "{hub}（{address}）对 {name} 的应答是 {status}。请稍后重试，或换一个镜像。",
    ),
    "download_not_understood": (
        "{address} does not speak {hub}'s protocol ({detail}). Check the address.",
        "{address} 的应答不符合 {hub} 的协议（{detail}）。请检查地址。",
    ),
    "download_no_weights": (
        "{name} has no safetensors weights ({found}), and nothing else is loaded here. Choose a version of it that has "
        "them.",
        "{name} 没有 safetensors 权重（{found}），而这里只加载这种格式。请选择含有它的版本。",
    ),
    "download_no_room": (
        "{name} needs {needed} more and the disk of {path} has {free} free. Free some space, or set {variable} to a "
        "folder on another disk.",
        "{name} 还需要 {needed}，而 {path} 所在磁盘只剩 {free}。请清理磁盘，或把 {variable} 设为另一磁盘上的文件夹。",
    ),
    "download_disk_full": (
        "No space left on the disk of {path}. What has arrived is kept: free some space, then resume.",
        "{path} 所在磁盘已满。已下载的部分保留：请清理磁盘后继续。",
    ),
    "download_unwritable": (
        "{path} cannot be written to ({detail}). Change its permissions, or set {variable} to another folder.",
        "无法写入 {path}（{detail}）。请修改权限，或把 {variable} 设为另一个文件夹。",
    ),
    "download_broken_off": (
        "The connection to {address} broke off again and again ({detail}). What has arrived is kept: resume later.",
        "与 {address} 的连接多次中断（{detail}）。已下载的部分保留，请稍后继续。",
    ),
    "download_corrupt": (
        "{file} arrived twice with other contents than {address} announces. Try another mirror, or later.",
        "{file} 两次收到的内容都与 {address} 所公布的不符。请换一个镜像，或稍后再试。",
    ),
    "download_died": (
        "The download was ended from outside, or the machine went down. What has arrived is kept: resume it.",
        "下载被外部终止，或机器曾关机。已下载的部分保留，请继续下载。",
    ),
    "download_not_started": (
        "The download cannot be started: {path} is not writable ({detail}). Check who may write to it.",
        "无法开始下载：{path} 不可写（{detail}）。请检查写入权限。",
    ),
}
