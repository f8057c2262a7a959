"""What can be wrong with datasets, in both languages: a part of the sentences of problems. Light: no imports."""

# code -> (en, zh), as in problems.
DATA_SENTENCES: dict[str, tuple[str, str]] = {
    "data_dir_missing": (
        "{label}: there is no folder {path}. Check the path.",
        "{label}：文件夹 {path} 不存在。请检查路径。",
    ),
    "data_dir_empty": (
        "{label}: {path} has no dataset: no dataset_info.json and no json, jsonl, csv, tsv, parquet, arrow or txt file. "
        "Choose another folder.",
        "{label}：{path} 里没有数据集：没有 dataset_info.json，也没有 json、jsonl、csv、tsv、parquet、arrow 或 txt 文件。"
        "请换一个文件夹。",
    ),
    "dataset_missing": (
        "{label}: nothing chosen. Choose at least one dataset.",
        "{label}：没有选择。请至少选择一个数据集。",
    ),
    "dataset_unknown": (
        "{label}: there is no dataset {name} in {path}. Found: {found}.",
        "{label}：{path} 中没有数据集 {name}。现有：{found}。",
    ),
    "dataset_file_missing": (
        "Dataset {name}: its file {path} does not exist. Check file_name in dataset_info.json.",
        "数据集 {name}：文件 {path} 不存在。请检查 dataset_info.json 里的 file_name。",
    ),
    "dataset_outside": (
        "Dataset {name}: {path} lies outside the data folder. Move the file into it.",
        "数据集 {name}：{path} 在数据文件夹之外。请把文件移入其中。",
    ),
    "dataset_json_broken": (
        "Dataset {name}: {path} is not valid JSON at line {line}: {detail}. Correct the file.",
        "数据集 {name}：{path} 第 {line} 行不是有效的 JSON：{detail}。请改正文件。",
    ),
    "dataset_table_broken": (
        "Dataset {name}: {path} is not a valid table at line {line}: {detail}. Correct the file.",
        "数据集 {name}：{path} 第 {line} 行不是有效的表格：{detail}。请改正文件。",
    ),
    "dataset_encoding": (
        "Dataset {name}: {path} is not UTF-8 text (byte {byte}){encoding}. Save it as UTF-8{command}.",
        "数据集 {name}：{path} 不是 UTF-8 文本（第 {byte} 字节）{encoding}。请另存为 UTF-8{command}。",
    ),
    "dataset_file_broken": (
        "Dataset {name}: {path} cannot be read: {detail}. Copy or make the file again.",
        "数据集 {name}：无法读取 {path}：{detail}。请重新复制或生成该文件。",
    ),
    "dataset_other_file": (
        "Dataset {name}: {path} is {kind}, whatever its name says. {remedy}",
        "数据集 {name}：{path} 其实是{kind}，与文件名不符。{remedy}",
    ),
    "dataset_info_broken": (
        "dataset_info.json in {path}: {detail}. Correct the file.",
        "{path} 里的 dataset_info.json：{detail}。请改正文件。",
    ),
    "dataset_unsupported": (
        "Dataset {name}: {detail} is not supported. {remedy}",
        "数据集 {name}：不支持 {detail}。{remedy}",
    ),
    "dataset_row": (
        "Dataset {name}, row {row}: {detail}. Columns found: {columns}. Correct the row, or leave bad rows out "
        "(skip_bad_rows).",
        "数据集 {name} 第 {row} 行：{detail}。现有的列：{columns}。请改正这一行，或跳过坏行（skip_bad_rows）。",
    ),
    "dataset_row_broken": (
        "Dataset {name}, row {row}: {detail}. Correct the row, or leave bad rows out (skip_bad_rows).",
        "数据集 {name} 第 {row} 行：{detail}。请改正这一行，或跳过坏行（skip_bad_rows）。",
    ),
    "dataset_layout": (
        "Dataset {name}, row {row}: {detail}. Columns found: {columns}. Rename the columns, or name them in "
        "dataset_info.json (columns).",
        "数据集 {name} 第 {row} 行：{detail}。现有的列：{columns}。请修改列名，或在 dataset_info.json 的 columns 里指明。",
    ),
    "dataset_empty": (
        "Dataset {name} has no rows ({path}). Choose another dataset or add rows.",
        "数据集 {name} 没有数据（{path}）。请换一个数据集或补充数据。",
    ),
    "dataset_all_bad": (
        "Dataset {name}: all of its {count} rows are bad, the first because {detail}. Correct them.",
        "数据集 {name}：全部 {count} 行都有问题，第一行的原因：{detail}。请改正。",
    ),
    "dataset_stage": (
        "Dataset {name} holds {kind}; {label} {stage} trains on {wanted}. {remedy}",
        "数据集 {name} 的内容是{kind}；{label} {stage} 用的是{wanted}。{remedy}",
    ),
    "dataset_not_here": (
        "Dataset {name}: {id} is in no hub cache of this machine. Download it first: {command}.",
        "数据集 {name}：本机的缓存里没有 {id}。请先下载：{command}。",
    ),
    "dataset_no_split": (
        "Dataset {name}: {id} has no data for {wanted}. It has: {found}. Correct subset, split or folder in "
        "dataset_info.json.",
        "数据集 {name}：{id} 里没有 {wanted} 的数据。现有：{found}。请改正 dataset_info.json 里的 subset、split 或 folder。",
    ),
    "placeholders_unfilled": (
        "Dataset {name}: {names} must be filled in. Write what stands in their place (placeholders), or say that they "
        "are meant as they are (literal_placeholders).",
        "数据集 {name}：{names} 需要填写。请写明替换的内容（placeholders），或声明按原样训练（literal_placeholders）。",
    ),
    "placeholders_form": (
        '{label}: got {value}. Write a name and its text for each, such as {{"name": "Ada"}}.',
        '{label}：给出的是 {value}。请为每个名称写出文字，例如 {{"name": "小微"}}。',
    ),
    "interleave_weights": (
        "{label}: got {value}. Write one number above 0 for each of the {count} datasets, together 1, such as {example}.",
        "{label}：给出的是 {value}。请为 {count} 个数据集各写一个大于 0 的数，总和为 1，例如 {example}。",
    ),
}
