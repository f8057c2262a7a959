"""What can go wrong with datasets that are looked at or added on the page, in both languages: part of SENTENCES."""

UPLOAD_SENTENCES: dict[str, tuple[str, str]] = {
    "look_died": (
        "The process that reads datasets ended unexpectedly ({detail}). Check again; {log} may say why.",
        "读取数据集的进程意外结束（{detail}）。请重新检查；原因可能在 {log} 中。",
    ),
    "upload_archive": (
        "{name} is an archive, which is not unpacked here. Unpack it and add the files in it one by one.",
        "{name} 是压缩包，这里不会解压。请解压后逐个添加其中的文件。",
    ),
    "upload_type": (
        "{name} is not a dataset file. Choose one that ends with {known}.",
        "{name} 不是数据集文件。请选择以 {known} 结尾的文件。",
    ),
    "upload_too_large": (
        "{name} is larger than {most}, the most that can be sent through the page. Copy it into the data folder instead.",
        "{name} 超过 {most}，无法通过网页上传。请把它直接复制到数据文件夹。",
    ),
    "upload_no_space": (
        "{name} needs {needed} and the disk of {path} has {free} free. Free some space, then try again.",
        "{name} 需要 {needed}，而 {path} 所在的磁盘只剩 {free}。请清理磁盘后重试。",
    ),
    "upload_empty": (
        "{name} is empty. Choose a file with rows.",
        "{name} 是空的。请选择有数据的文件。",
    ),
    "upload_busy": (
        "{count} uploads are running already. Wait until one has ended, then try again.",
        "已有 {count} 个上传正在进行。请等其中一个结束后再试。",
    ),
    "upload_broken": (
        "The upload of {name} broke off. Nothing was kept; try again.",
        "{name} 的上传中断，没有留下任何内容。请重试。",
    ),
    "upload_gone": (
        "The uploaded file is no longer there. Upload it again.",
        "上传的文件已不存在。请重新上传。",
    ),
    "upload_unwritable": (
        "{path} cannot be written to ({detail}). Nothing was added; change its permissions or choose another data dir.",
        "无法写入 {path}（{detail}），没有添加任何内容。请修改权限，或换一个数据路径。",
    ),
    "upload_name_bad": (
        "{label}: got {value}. Use letters, digits, spaces, - and _, at most {most} bytes.",
        "{label}：给出的是 {value}。请使用文字、数字、空格、- 和 _，最多 {most} 字节。",
    ),
    "upload_name_taken": (
        "{label}: there is a dataset or file {value} in {path} already. Choose another name; nothing was overwritten.",
        "{label}：{path} 中已有名为 {value} 的数据集或文件。请换一个名称；没有覆盖任何内容。",
    ),
    "paste_empty": (
        "{label}: nothing given. Paste rows as JSON, one object a line or a list of objects.",
        "{label}：没有填写。请粘贴 JSON 数据：每行一个对象，或由对象组成的列表。",
    ),
}
