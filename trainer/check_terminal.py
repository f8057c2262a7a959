"""`tunedesk check`: reads the datasets of a run from their first row to their last, and says what is wrong with them.

Takes what `tunedesk train` takes; trains nothing, and goes without torch.
"""

import sys
from typing import Any

from trainer.dataset_check import Checked, check
from trainer.encoding import go_without_torch, load_template
from trainer.problems import Language, Problem, Problems
from trainer.settings import TrainSettings, label

_WORDS: dict[str, tuple[str, str]] = {
    "dataset": ("Dataset {name}: {rows} rows, {samples} samples ({kinds}), {bad} bad rows, {duplicates} duplicates "
                "({seconds} s)", "数据集 {name}：{rows} 行，{samples} 条样本（{kinds}），坏行 {bad}，重复 {duplicates}（{seconds} 秒）"),
    "sampled": ("  Token figures come from {sampled} evenly spread samples, scaled up to all.",
                "  词元数据由均匀抽取的 {sampled} 条样本推算。"),
    "tokens": ("  Tokens: {tokens}, of which {trained_tokens} are learnt; longest sample {longest}",
               "  词元：{tokens}，其中参与学习 {trained_tokens}；最长样本 {longest}"),
    "cutoff": ("  Cutoff length {cutoff_len}: {truncated} samples are cut, {nothing_left} have nothing left to learn",
               "  截断长度 {cutoff_len}：{truncated} 条被截断，{nothing_left} 条截断后没有可学的内容"),
    "length": ("  up to {upper:>7} tokens  {bar} {count}", "  至多 {upper:>7} 个词元  {bar} {count}"),
    "languages": ("  Languages, by script: Chinese {zh:.0%}, Latin letters {en:.0%}, other {other:.0%}",
                  "  语言（按文字）：中文 {zh:.0%}，拉丁字母 {en:.0%}，其他 {other:.0%}"),
    "placeholders": ("  Placeholders to fill in (placeholders) or to declare literal (literal_placeholders): {names}",
                     "  占位符，需要填写（placeholders）或声明按原样（literal_placeholders）：{names}"),
    "bad_row": ("  row {row}: {reason}", "  第 {row} 行：{reason}"),
    "more": ("  and {count} more bad rows", "  另有 {count} 行坏行"),
    "reading": ("{name}: {share:.0%}, {rows} rows", "{name}：{share:.0%}，{rows} 行"),
}  # fmt: skip
KINDS = {"conversation": ("conversations", "对话"), "text": ("texts", "文本"), "preference": ("preference pairs", "偏好数据"),
         "kto": ("KTO", "KTO")}  # fmt: skip
_BAR = 40


def run_check(argv: list[str], language: Language) -> int:
    """0 when every row can be used, 1 when some cannot, 2 when it could not be found out."""
    from trainer.command import settings_from

    go_without_torch()
    try:
        settings = settings_from(argv, language)
        if not settings.dataset:
            raise Problem("dataset_missing", label=label("dataset"))
        return print_checks(settings, language)
    except (Problem, Problems) as error:
        for problem in error.problems if isinstance(error, Problems) else [error]:
            print(problem.sentence(language), file=sys.stderr)
        return 2


def print_checks(settings: TrainSettings, language: Language) -> int:
    """Checks each dataset and prints what was found. Raises Problem for one that cannot be read."""
    template = load_template(settings) if settings.model_name_or_path else None
    for warning in template.warnings(settings.model_name_or_path) if template else []:
        print(warning.sentence(language), file=sys.stderr)
    bad = 0
    for name in settings.dataset:
        found = check(settings, name, template, _Line(name, language)).checked(settings.cutoff_len)
        print("\n".join(lines(name, found, settings, language)), flush=True)
        bad += found.bad
    return 1 if bad else 0


class _Line:
    """Progress on one line of a terminal; nothing where standard error goes elsewhere."""

    def __init__(self, name: str, language: Language) -> None:
        self._name, self._language = name, language

    def __call__(self, rows: int, done: int, of: int) -> None:
        if sys.stderr.isatty():
            text = _said("reading", self._language, name=self._name, share=done / max(of, 1), rows=rows)
            print(f"\r\x1b[K{text}", end="\r\x1b[K" if done >= of else "", file=sys.stderr, flush=True)


def _said(word: str, language: Language, **values: Any) -> str:
    return _WORDS[word][0 if language == "en" else 1].format(**values)


def lines(name: str, found: Checked, settings: TrainSettings, language: Language) -> list[str]:
    """What was found, as a terminal shows it."""

    def said(word: str, **values: Any) -> str:
        return _said(word, language, **(vars(found) | values))

    comma, number = (", ", 0) if language == "en" else ("、", 1)
    kinds = comma.join(f"{KINDS[kind][number]} {count}" for kind, count in found.kinds.items())
    told = [said("dataset", name=name, kinds=kinds or "–")]
    if found.tokens is not None:
        told += [said("tokens"), said("cutoff", cutoff_len=settings.cutoff_len)]
        most = max((count for _, count in found.histogram), default=0) or 1
        told += [said("length", upper=upper, bar="█" * round(_BAR * count / most), count=count)
                 for upper, count in found.histogram]  # fmt: skip
        if found.sampled is not None:
            told.append(said("sampled"))
    told.append(said("languages", **found.languages))
    if found.placeholders:
        told.append(
            said("placeholders", names=comma.join(f"{{{{{key}}}}} {n}" for key, n in found.placeholders.items()))
        )
    told += [said("bad_row", row=row, reason=reason[language]) for row, reason in found.bad_rows]
    if more := found.bad - len(found.bad_rows):
        told.append(said("more", count=more))
    return told
