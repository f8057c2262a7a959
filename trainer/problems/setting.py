"""What can be said of settings, settings files and what is typed,
in both languages: part of SENTENCES. Light."""

SETTING_SENTENCES: dict[str, tuple[str, str]] = {
    "setting_missing": (
        "{label}: nothing given. Fill it in.",
        "{label}：没有填写。请填写。",
    ),
    "setting_not_number": (
        "{label}: got {value}, which is not a number. Write a number such as {example}.",
        "{label}：给出的是 {value}，不是数字。请填写数字，例如 {example}。",
    ),
    "setting_not_integer": (
        "{label}: got {value}, which is not a whole number. Write a whole number such as {example}.",
        "{label}：给出的是 {value}，不是整数。请填写整数，例如 {example}。",
    ),
    "setting_not_boolean": (
        "{label}: got {value}. Write true or false.",
        "{label}：给出的是 {value}。请填写 true 或 false。",
    ),
    "setting_not_text": (
        "{label}: got {value}, which is not text. Write text.",
        "{label}：给出的是 {value}，不是文字。请填写文字。",
    ),
    "setting_range": (
        "{label}: got {value}. It must be {range}.",
        "{label}：给出的是 {value}。取值须 {range}。",
    ),
    "setting_choice": (
        "{label}: got {value}. Choose one of: {choices}.",
        "{label}：给出的是 {value}。请从中选择：{choices}。",
    ),
    "setting_fixed": (
        "{label}: got {value}. {reason}.",
        "{label}：给出的是 {value}。{reason}。",
    ),
    "setting_unknown": (
        "Setting {key} (value {value}) is not supported: remove it{suggestion}.",
        "不支持设置 {key}（值 {value}），请删去{suggestion}。",
    ),
    "setting_conflict": (
        "Can't use both {first} and {second}. Choose one.",
        "{first} 与 {second} 不能同时使用。请只留一个。",
    ),
    "setting_needs": (
        "{first} has no effect without {second}. Set {second}, or give {first} its default back.",
        "没有 {second} 时 {first} 不起作用。请设置 {second}，或让 {first} 恢复默认值。",
    ),
    "yaml_broken": (
        "Settings file {path} is not valid YAML (line {line}): {detail}",
        "设置文件 {path} 不是有效的 YAML（第 {line} 行）：{detail}",
    ),
    "yaml_not_mapping": (
        "Settings file {path} holds a {kind}, not `key: value` lines. Choose a file saved by Save arguments.",
        "设置文件 {path} 的内容是 {kind}，不是 `键: 值`。请选择“保存训练参数”所存的文件。",
    ),
    "deepspeed_missing": (
        "{label}: got {value}, but this machine lacks {missing}. Install it (`pip install tunedesk[deepspeed]`), or "
        "remove the setting.",
        "{label}：给出的是 {value}，但本机缺少 {missing}。请安装（`pip install tunedesk[deepspeed]`），或删去该设置。",
    ),
    "deepspeed_file": (
        "{label}: {path} is no JSON file of DeepSpeed's. Write 2, 3 or the path of one.",
        "{label}：{path} 不是 DeepSpeed 的 JSON 配置文件。请填写 2、3 或这样一个文件的路径。",
    ),
    "deepspeed_stage": (
        "{label}: {path} has {key}: {value}. Write 2 or 3 there.",
        "{label}：{path} 里的 {key} 是 {value}。请在那里写 2 或 3。",
    ),
    "deepspeed_key": (
        "{label}: {path} has {key}: {value}, which is not supported. Remove it there.",
        "{label}：{path} 里的 {key}: {value} 不受支持。请在那里删去。",
    ),
    "deepspeed_differs": (
        '{label}: {path} has {key}: {value}, but the settings have {other}. Write "auto" there, or the same.',
        '{label}：{path} 里的 {key} 是 {value}，而设置里是 {other}。请在那里写 "auto"，或改为一致。',
    ),
    "file_missing": (
        "{label}: there is no file {path}. Check the path.",
        "{label}：文件 {path} 不存在。请检查路径。",
    ),
    "file_unreadable": (
        "{label}: cannot read {path} ({detail}). Check its permissions.",
        "{label}：无法读取 {path}（{detail}）。请检查权限。",
    ),
    "json_broken": (
        "{label}: not valid JSON at line {line}, column {column}: {detail}. Correct it.",
        "{label}：第 {line} 行第 {column} 列不是有效的 JSON：{detail}。请改正。",
    ),
    "extra_not_object": (
        '{label}: got {value}. Write a JSON object such as {{"weight_decay": 0.01}}.',
        '{label}：给出的是 {value}。请填写 JSON 对象，例如 {{"weight_decay": 0.01}}。',
    ),
    "extra_has_control": (
        "{label}: {key} has its own control on the page, {control}. Set it there.",
        "{label}：{key} 在页面上有自己的控件“{control}”。请在那里设置。",
    ),
    "path_outside": (
        "{label}: {path} lies outside the folders that this page may use. Choose another, or start the page with "
        "--allow-path and that folder.",
        "{label}：{path} 不在本页可用的文件夹之内。请另选，或在启动网页时用 --allow-path 加上该文件夹。",
    ),
    "host_unknown": (
        "--allow-host: got {value}. Write a host name such as gpu.example.org, or .example.org for all names below it.",
        "--allow-host：给出的是 {value}。请填写主机名，例如 gpu.example.org；.example.org 表示其下的所有名称。",
    ),
    "trust_refused": (
        "{label}: this page was started without --trust-remote-code, so it never runs Python code that a model's folder "
        "brings. Leave the setting out, or start the page with that flag if you trust the model's author.",
        "{label}：本页面启动时没有 --trust-remote-code，不会运行模型文件夹自带的 Python 代码。"
        "请去掉该设置；若信任模型作者，可用该参数启动页面。",
    ),
}
