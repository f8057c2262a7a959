"""What can be said of a model or an adapter that is to be used,
in both languages: part of SENTENCES. Light."""

MODEL_SENTENCES: dict[str, tuple[str, str]] = {
    "model_missing": (
        "{label}: nothing given. Choose a model or type the path of a model folder.",
        "{label}：没有填写。请选择模型，或填写模型文件夹的路径。",
    ),
    "model_not_found": (
        "{label}: there is no folder {path}. Check the path.",
        "{label}：文件夹 {path} 不存在。请检查路径。",
    ),
    "model_not_a_model": (
        "{label}: folder {path} is no model: {missing} is missing. Choose a folder with config.json, "
        "a tokenizer and safetensors weights.",
        "{label}：文件夹 {path} 不是模型：缺少 {missing}。请选择含有 config.json、分词器和 safetensors 权重的文件夹。",
    ),
    "model_config_broken": (
        "{label}: {path} cannot be read ({detail}). Copy the model folder again.",
        "{label}：无法读取 {path}（{detail}）。请重新复制模型文件夹。",
    ),
    "model_unsafe": (
        "{label}: folder {path} has only pickle weights ({file}), which can run code when loaded. "
        "Convert them to safetensors.",
        "{label}：文件夹 {path} 只有 pickle 权重（{file}），加载时可能执行代码。请先转换为 safetensors。",
    ),
    "model_weights_missing": (
        "The model {path} lacks {count} weights that its config.json asks for, {first} the first. "
        "Copy the model folder again.",
        "模型 {path} 缺少 config.json 所要求的 {count} 个权重，第一个是 {first}。请重新复制模型文件夹。",
    ),
    "model_shapes_differ": (
        "The weights of model {path} have other shapes than its config.json says. Copy the model folder again.",
        "模型 {path} 的权重形状与它的 config.json 不一致。请重新复制模型文件夹。",
    ),
    "model_load_failed": (
        "The model {path} could not be loaded: {detail}",
        "模型 {path} 加载失败：{detail}",
    ),
    "model_own_code": (
        "The model {path} works only with its folder's own Python code, which was not run. Choose a version of it that "
        "transformers knows without such code; or, if you trust its author, start the page with --trust-remote-code "
        "(in a terminal: trust_remote_code=true).",
        "模型 {path} 只能靠其文件夹自带的 Python 代码运行，代码没有被运行。请换用 transformers 自身支持的版本；"
        "若信任其作者，可用 --trust-remote-code 启动页面（终端中用 trust_remote_code=true）。",
    ),
    "model_architecture": (
        "The model {path} needs architecture {architecture}, which this version does not know. "
        "Choose another model or upgrade transformers.",
        "模型 {path} 的架构 {architecture} 不受当前版本支持。请换一个模型，或升级 transformers。",
    ),
    "adapter_not_an_adapter": (
        "{label}: {path} is no LoRA checkpoint: {missing} is missing. Choose a checkpoint from the list.",
        "{label}：{path} 不是 LoRA 检查点：缺少 {missing}。请从列表中选择。",
    ),
    "adapter_mismatch": (
        "The checkpoint {path} does not fit the model {model}: {detail}. Choose the model it was trained on.",
        "检查点 {path} 与模型 {model} 不匹配：{detail}。请选择训练它时所用的模型。",
    ),
    "cutoff_over_positions": (
        "{label}: got {value}, and the model {path} has positions for {limit} tokens only. Set it to {limit} or less.",
        "{label}：给出的是 {value}，而模型 {path} 只有 {limit} 个词元的位置。请设为 {limit} 或更小。",
    ),
}
