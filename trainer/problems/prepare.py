"""What can come up while a dataset is checked or prepared, in both languages: part of SENTENCES. Light."""

PREPARE_SENTENCES: dict[str, tuple[str, str]] = {
    "rows_bad": (
        "Dataset {name}: {bad} of {rows} rows cannot be used. {shown} Correct them, or leave bad rows out "
        "(skip_bad_rows).",
        "数据集 {name}：{rows} 行中有 {bad} 行无法使用。{shown}请改正，或跳过坏行（skip_bad_rows）。",
    ),
    "samples_skipped": (
        "Dataset {name}: {bad} of {rows} rows cannot be used and were left out, as skip_bad_rows says. {shown}",
        "数据集 {name}：{rows} 行中有 {bad} 行无法使用，已按 skip_bad_rows 跳过。{shown}",
    ),
    "look_protocol": (
        "The process that reads datasets was sent a request that it does not understand: {detail}",
        "读取数据集的进程收到了无法理解的请求：{detail}",
    ),
}
