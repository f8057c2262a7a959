"""Every training setting, declared once: key, type, default, range, group, labels and help.

From here come the widget, the form's checks, the YAML, the command-line flag and its help, the
previewed command and the trainer's value. Light: no torch. Keys are LLaMA-Factory's and
Hugging Face's own; an unknown key is an error.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from trainer.field_types import (
    Bits,
    Finite,
    Names,
    No,
    NumberOrPath,
    OptionalBool,
    OptionalInt,
    OptionalText,
    Texts,
    Weights,
    Yes,
    setting,
)

ComputeType = Literal["auto", "bf16", "fp16", "fp32", "pure_bf16"]
DEEPSPEED_STAGES = ("2", "3")
Scheduler = Literal["cosine", "linear", "constant", "constant_with_warmup", "polynomial", "cosine_with_restarts"]


class Declared(BaseModel):
    """The fields alone; `trainer.settings.TrainSettings` has what goes together."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    # fmt: off
    model_name_or_path: str = setting("", "model", "模型路径", "Model path",
        "要训练或对话的模型所在的文件夹：含 config.json、分词器和 safetensors 权重",
        "Folder of the model to train or talk to: config.json, tokenizer and safetensors weights")
    finetuning_type: Literal["lora", "full", "freeze"] = setting("lora", "model", "微调方法", "Finetuning method",
        "lora 只训练小的附加矩阵，最省内存，一般选它；full 训练全部参数；freeze 只训练部分层",
        "lora trains small added matrices and takes the least memory: the usual choice; full trains all weights, freeze some layers")
    adapter_name_or_path: OptionalText = setting(None, "model", "检查点路径", "Checkpoint path",
        "以前训练的结果：对话时加载它，训练时从它继续；第一次训练选“无”",
        "An earlier training's result: chat loads it, training goes on from it. none for a first training")
    quantization_bit: Bits = setting(None, "model", "量化等级", "Quantization bit",
        "训练 LoRA 时把模型压缩到 8 或 4 位（QLoRA）：更省显存，但更慢；放得下就选 none",
        "Keeps the model under a LoRA in 8 or 4 bits (QLoRA): less memory, slower. none if the model fits without")
    template: str = setting("auto", "model", "对话模板", "Chat template",
        "对话怎样写成模型读的文字；auto 用模型自带的模板，没有则用它所属系列的，一般不用改",
        "How a conversation becomes the text that the model reads. auto, the usual choice, is the model's own, else its family's")

    stage: Literal["sft", "pt"] = setting("sft", "data", "训练阶段", "Stage",
        "sft 监督微调：学会像数据集那样回答；pt 预训练：学习整段文字，数据集须有 text 列或为 txt 文件",
        "sft, supervised fine-tuning: the model learns to answer as the dataset does; pt, pre-training: it learns whole "
        "texts, from a text column or txt files")
    dataset_dir: str = setting("data", "data", "数据路径", "Data dir",
        "放数据集（json、jsonl、csv、parquet、txt 等）的文件夹，可以有 dataset_info.json",
        "The folder with the datasets (json, jsonl, csv, parquet, txt …), with or without a dataset_info.json")
    dataset: Names = setting((), "data", "数据集", "Dataset",
        "用来训练的数据，可选多个；点“预览数据集”看内容",
        "What to train on, one or more; Preview dataset shows what is in them")

    learning_rate: Finite = setting(5e-5, "training", "学习率", "Learning rate",
        "每一步改动权重的幅度。LoRA 常用 1e-4 到 5e-5，full 常用 1e-5；损失乱跳就调小",
        "How far each step moves the weights. LoRA: 5e-5 to 1e-4, full: about 1e-5; lower it when the loss jumps", "5e-5", gt=0)
    num_train_epochs: Finite = setting(3.0, "training", "训练轮数", "Epochs",
        "把数据集学几遍。一般 1 到 5；数据很少时可以更多",
        "How often the dataset is gone through. Usually 1 to 5, more for a very small dataset", "3.0", gt=0, le=100000)
    max_grad_norm: Finite = setting(1.0, "training", "最大梯度范数", "Maximum gradient norm",
        "梯度超过它就按比例缩小，防止训练失控；一般不用改，0 为不限制",
        "Larger gradients are scaled down to it, which keeps training stable; 0: no limit. Rarely changed", "1.0", ge=0)
    max_samples: int = setting(100000, "training", "最大样本数", "Max samples",
        "每个数据集最多用多少条；想先试一小部分时调小",
        "At most so many samples of each dataset. Lower it to try a small part first", ge=1)
    compute_type: ComputeType = setting("auto", "training", "计算类型", "Compute type",
        "数值格式。显卡选 bf16，旧显卡选 fp16，CPU 选 fp32；pure_bf16 最省内存，精度较低",
        "Number format: bf16 on GPUs, fp16 on old ones, fp32 on a CPU; pure_bf16 takes least memory, less precise")
    cutoff_len: int = setting(2048, "training", "截断长度", "Cutoff length",
        "每条样本最多保留多少个词元，超出部分截掉；越大越占内存",
        "Longer samples are cut to so many tokens. Larger values take more memory", ge=4, le=131072)
    per_device_train_batch_size: int = setting(2, "training", "批处理大小", "Batch size",
        "每个设备一批的样本数。每次更新所用样本数 = 它 × 梯度累积 × 设备数",
        "Samples of one device in a batch. Each update takes batch size × gradient accumulation × devices", ge=1, le=1024)
    gradient_accumulation_steps: int = setting(8, "training", "梯度累积", "Gradient accumulation",
        "累积多少批才更新一次权重；与批处理大小相乘",
        "Batches that are added up before the weights change; it multiplies the batch size", ge=1, le=1024)
    val_size: Finite = setting(0.0, "training", "验证集比例", "Val size",
        "留出多少样本只用来验证、不训练，例如 0.1 为一成；0 为不验证",
        "Share of the samples kept for validation instead of training, such as 0.1; 0: none", "0.1", ge=0, lt=1)
    lr_scheduler_type: Scheduler = setting("cosine", "training", "学习率调节器", "LR scheduler",
        "学习率随训练怎样变化；cosine 逐渐降到 0，一般选它；constant 始终不变",
        "How the learning rate changes on the way. cosine falls slowly to 0 and is the usual choice; constant never changes")

    logging_steps: int = setting(5, "extra", "日志间隔", "Logging steps",
        "每多少步在曲线上记一个点",
        "Steps between two points of the curve", ge=1, le=100000)
    save_steps: int = setting(100, "extra", "保存间隔", "Save steps",
        "每多少步保存一个检查点，中断后可从它继续",
        "Steps between two checkpoints, from which a stopped run can go on", ge=1, le=100000)
    warmup_steps: int = setting(0, "extra", "预热步数", "Warmup steps",
        "开头用多少步让学习率从 0 升到设定值，常用总步数的一成；0 为直接开始",
        "Steps at the start in which the learning rate rises from 0, often a tenth of all; 0: none", ge=0, le=100000)
    seed: int = setting(42, "extra", "随机种子", "Seed",
        "打乱数据和初始化所用的随机数；种子相同，训练结果相同",
        "Decides the order of the samples and the random start. The same seed gives the same run", ge=0, le=2**32 - 1)
    neftune_noise_alpha: Finite = setting(0.0, "extra", "NEFTune 噪声参数", "NEFTune alpha",
        "训练时给输入加一点噪声，有时能让回答更好，常用 5；0 为不加",
        "Adds a little noise to the input in training, which can make answers better: often 5; 0: none", "5",
        ge=0)
    train_on_prompt: bool = setting(False, "extra", "学习提示词", "Train on prompt",
        "也学习用户说的话；一般不选，只学习回答",
        "Learns the user's words too. Usually off: only the answers are learnt")
    mask_history: bool = setting(False, "extra", "不学习历史对话", "Mask history",
        "多轮对话只学习最后一轮的回答",
        "Of a conversation with several turns only the last answer is learnt")

    lora_rank: int = setting(8, "lora", "LoRA 秩", "LoRA rank",
        "附加矩阵的大小，常用 8 到 64；越大能学的越多，也越占内存",
        "Size of the added matrices, usually 8 to 64: larger ones learn more and take more memory", ge=1, le=1024)
    lora_alpha: OptionalInt = setting(None, "lora", "LoRA 缩放系数", "LoRA alpha",
        "附加矩阵作用的强度，常用秩的两倍；留空即为两倍",
        "How strongly the added matrices act, usually twice the rank. Empty: twice the rank", "16", ge=1, le=4096)
    lora_dropout: Finite = setting(0.0, "lora", "LoRA 随机丢弃", "LoRA dropout",
        "训练时随机略去一部分以防死记硬背，常用 0 到 0.1",
        "Share that is left out at random in training against learning by rote: usually 0 to 0.1", "0.1", ge=0, lt=1)
    lora_target: Names = setting(("all",), "lora", "LoRA 作用模块", "LoRA modules",
        "给哪些层加附加矩阵；all 为全部线性层，一般选它；多个用逗号分隔",
        "Layers that get added matrices. all: every linear layer, the usual choice; several: comma between them", "q_proj,v_proj")
    loraplus_lr_ratio: Finite = setting(0.0, "lora", "LoRA+ 学习率比例", "LoRA+ LR ratio",
        "LoRA 有 A、B 两个矩阵，B 的学习率是 A 的多少倍，常用 16，学得更快；0 为相同",
        "LoRA has matrices A and B: B's learning rate over A's. 16 is usual and learns faster; 0: the same",
        "16", ge=0)
    additional_target: Names = setting((), "lora", "附加模块", "Additional modules",
        "除附加矩阵外还要完整训练的模块，例如新增了词元时的 embed_tokens,lm_head；一般留空",
        "Modules that are trained in full as well, such as embed_tokens,lm_head for new tokens. Usually empty",
        "embed_tokens,lm_head")
    use_rslora: bool = setting(False, "lora", "使用 rslora", "Use rslora",
        "按秩的平方根缩放；秩在 64 以上时更稳定",
        "Scales by the root of the rank, which is steadier for ranks of 64 and more")
    use_dora: bool = setting(False, "lora", "使用 DoRA", "Use DoRA",
        "另外训练权重的幅度：效果有时更好，但较慢、更占内存",
        "Trains the weights' magnitudes as well: sometimes better, but slower and larger")
    pissa_init: bool = setting(False, "lora", "使用 PiSSA", "Use PiSSA",
        "从权重的主成分开始训练，收敛更快；保存的文件大一倍",
        "Starts from the weights' main components and learns faster; the saved file is twice as large")
    create_new_adapter: bool = setting(False, "lora", "新建适配器", "Create new adapter",
        "不改所选检查点，在它之上训练新的适配器；结果包含两者。需要先选检查点路径",
        "Leaves the chosen checkpoint as it is and trains a new adapter on top; the result holds both. Needs a checkpoint path")

    freeze_trainable_layers: int = setting(2, "freeze", "可训练层数", "Trainable layers",
        "训练多少层：2 为最后两层，-2 为最前两层",
        "How many layers are trained: 2 are the last two, -2 the first two", ge=-1000, le=1000)
    freeze_trainable_modules: Names = setting(("all",), "freeze", "可训练模块", "Trainable modules",
        "训练这些层里的哪些模块，例如 self_attn,mlp；all 为全部",
        "Modules of these layers that are trained, such as self_attn,mlp; all: every one", "self_attn,mlp")
    freeze_extra_modules: Names = setting((), "freeze", "额外模块", "Extra modules",
        "各层之外还要训练的模块，例如 embed_tokens,norm；一般留空",
        "Modules outside the layers that are trained as well, such as embed_tokens,norm. Usually empty", "embed_tokens,norm")

    output_dir: str = setting("", "output", "输出目录", "Output dir",
        "训练结果写入的新文件夹",
        "The new folder that the run writes")
    mix_strategy: Literal["concat", "interleave_under", "interleave_over"] = setting("concat", "file",
        "混合方式", "Mix strategy",
        "concat 把各数据集接在一起；interleave_under 交替取样，最短的用完为止；interleave_over 直到最长的也用完",
        "concat: one dataset after the other; interleave_under: in turn until the shortest is used up; interleave_over: until "
        "the longest is")
    interleave_probs: Weights = setting((), "file", "混合比例", "Mix weights",
        "交替取样时每个数据集的概率，按数据集顺序，总和为 1", "How often each dataset is drawn from when they are interleaved; "
        "together 1", "0.7,0.3")
    skip_bad_rows: bool = setting(False, "data", "跳过坏行", "Skip bad rows",
        "跳过无法使用的行并报告数量；不选则有坏行就不训练", "Leaves rows out that cannot be used and says how many; off: they stop "
        "the run", "true")
    placeholders: Texts = setting({}, "data", "占位符", "Placeholders",
        "数据集里 {{名称}} 要换成的文字，例如 {name: 小微}；文件本身不变",
        "What stands in the place of {{name}} in the datasets, such as {name: Ada}; the files stay as they are",
        '{"name": "Ada"}')
    literal_placeholders: bool = setting(False, "data", "占位符按原样", "Literal placeholders",
        "没有填写的 {{名称}} 就按原样训练", "Every {{name}} that is not filled in is meant as it stands", "true")
    resume_from_checkpoint: OptionalText = setting(None, "file", "继续训练的检查点", "Resume from checkpoint",
        "检查点文件夹；latest 为输出目录里最近的", "A checkpoint folder; latest: the newest in the output dir", "latest")

    weight_decay: Finite = setting(0.0, "file", "权重衰减", "Weight decay",
        "AdamW 的权重衰减", "AdamW's weight decay", "0.01", ge=0)
    adam_beta1: Finite = setting(0.9, "file", "Adam beta1", "Adam beta1",
        "一阶动量系数", "First moment's decay", ge=0, lt=1)
    adam_beta2: Finite = setting(0.999, "file", "Adam beta2", "Adam beta2",
        "二阶动量系数", "Second moment's decay", ge=0, lt=1)
    adam_epsilon: Finite = setting(1e-8, "file", "Adam epsilon", "Adam epsilon",
        "防止除以零", "Keeps from dividing by zero", gt=0)
    max_steps: int = setting(-1, "file", "最大步数", "Max steps",
        "大于 0 时代替训练轮数", "Above 0 it replaces the epochs", ge=-1)
    warmup_ratio: Finite = setting(0.0, "file", "预热比例", "Warmup ratio",
        "预热占总步数的比例", "Warmup's share of all steps", "0.1", ge=0, le=1)
    eval_steps: OptionalInt = setting(None, "file", "验证间隔", "Eval steps",
        "留空与保存间隔相同；验证损失创新低的那一步总会保存检查点",
        "Empty: the same as save steps; a step with the lowest eval loss so far is always saved", "100", ge=1)
    early_stopping_steps: OptionalInt = setting(None, "file", "提前停止步数", "Early stopping steps",
        "验证损失连续这么多次验证没有创新低就提前结束；留空不提前",
        "The run ends after so many evaluations in a row without a new lowest eval loss; empty: never", "3", ge=1)
    load_best_model_at_end: bool = setting(False, "file", "以最佳检查点为结果", "Load best model at end",
        "最终结果取验证损失最低的检查点，而不是最后一步",
        "The result is the checkpoint with the lowest eval loss instead of the last step")
    save_total_limit: OptionalInt = setting(None, "file", "检查点保留数", "Save total limit",
        "只保留最近的若干检查点；最佳和最新的从不删除",
        "Keep only so many checkpoints, the newest; the best and the newest are never removed", "3", ge=1)
    save_only_model: bool = setting(False, "file", "只保存模型", "Save only model",
        "检查点不含优化器状态，不能继续训练", "Checkpoints without optimizer state cannot be resumed")
    gradient_checkpointing: OptionalBool = setting(None, "file", "重算激活值", "Gradient checkpointing",
        "留空由显存决定；true 省显存但慢三分之一", "Empty: decided by the memory; true saves memory, a third slower", "true")
    fsdp: OptionalBool = setting(None, "file", "分片到各设备", "Shard over the devices",
        "每个设备只存一部分权重（FSDP）；留空时 full 与 freeze 分片，LoRA 在模型放不进一个设备时分片",
        "Each device holds a part of the weights (FSDP); empty: for full and freeze, and for LoRA on a model that "
        "does not fit one device", "true")
    deepspeed: NumberOrPath = setting(None, "file", "DeepSpeed 阶段", "DeepSpeed stage",
        "2 把优化器状态和梯度分到各设备，3 连权重一起分；也可填 DeepSpeed 的 JSON 配置文件",
        "2 cuts optimizer state and gradients over the devices, 3 the weights as well; or a JSON file of DeepSpeed's",
        "3")
    ds_offload: bool = setting(False, "file", "使用 offload", "Enable offload",
        "DeepSpeed 的优化器状态放在内存里，阶段 3 的权重也是：省显存，较慢",
        "DeepSpeed keeps optimizer state, in stage 3 weights too, in the host's memory: less device memory, slower",
        "true")
    ddp_timeout: int = setting(3600, "file", "DDP 超时", "DDP timeout",
        "多进程训练时，一个进程最多可让其余进程等待的秒数（例如保存期间）；超过即结束训练",
        "Seconds that one process of several may let the others wait, as while it saves; longer ends the run",
        ge=1, le=2**31 - 1)
    plot_loss: bool = setting(True, "file", "绘制损失", "Plot loss",
        "结束时写 training_loss.png", "Write training_loss.png at the end")

    # Keys of LLaMA-Factory files of which we implement one value; any other is refused by name.
    do_train: Yes = setting(True, "file", "训练", "Do train", "须为 true", "Must be true")
    report_to: Literal["none"] = setting("none", "file", "外部记录面板", "External logger",
        "须为 none", "Must be none")
    overwrite_output_dir: bool = setting(False, "file", "覆盖输出目录", "Overwrite output dir",
        "在这里不起作用：从不覆盖结果，已有训练结果的文件夹会被拒绝",
        "Has no effect here: results are never overwritten, a folder that holds a run is refused")
    eval_strategy: Literal["steps"] = setting("steps", "file", "验证策略", "Eval strategy",
        "须为 steps：每隔若干步验证", "Must be steps: every so many steps")
    metric_for_best_model: Literal["eval_loss"] = setting("eval_loss", "file", "最佳模型的指标", "Metric for best model",
        "须为 eval_loss：验证损失", "Must be eval_loss")
    greater_is_better: No = setting(False, "file", "指标越大越好", "Greater is better",
        "须为 false：验证损失越低越好", "Must be false: the lower the eval loss, the better")
    trust_remote_code: bool = setting(False, "file", "信任远程代码", "Trust remote code",
        "运行模型文件夹自带的 Python 代码；只在信任其作者时打开。页面须以 --trust-remote-code 启动",
        "Runs Python code that a model's folder brings: only where you trust its author. The page needs --trust-remote-code")
    quantization_method: Literal["bnb"] = setting("bnb", "file", "量化方法", "Quantization method",
        "须为 bnb：bitsandbytes", "Must be bnb: bitsandbytes")
    double_quantization: Yes = setting(True, "file", "二次量化", "Double quantization",
        "须为 true：4 比特的量化常数也会量化", "Must be true: the constants of 4 bits are quantized as well")
    # Keys of theirs that only say how work is done, never what comes out.
    overwrite_cache: Any = setting(None, "file", "覆盖缓存", "Overwrite cache",
        "在这里不起作用：缓存按内容识别", "Has no effect here: the cache goes by content")
    per_device_eval_batch_size: Any = setting(None, "file", "验证批处理大小", "Eval batch size",
        "在这里不起作用：由内存决定", "Has no effect here: the memory decides")
    preprocessing_num_workers: Any = setting(None, "file", "预处理进程数", "Preprocessing workers",
        "在这里不起作用", "Has no effect here")
    dataloader_num_workers: Any = setting(None, "file", "数据加载进程数", "Dataloader workers",
        "在这里不起作用", "Has no effect here")
    # fmt: on
