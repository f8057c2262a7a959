"""The shipped demo model answers for itself: it is loaded as any model is and asked the held-out questions."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.demo_grading import (
    AFTER_TUNING,
    BEFORE_TUNING,
    contains,
    general_failures,
    identity_failures,
    load_prompts,
    normalised,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "demo-model"
DATASET = ROOT / "data" / "identity-pku-assistant.json"
FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "recommended_settings.yaml",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def _answers(system: str | None, adapter: Path | None = None) -> dict[str, str]:
    """Greedy replies to all held-out questions, keyed by question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    opening = [{"role": "system", "content": system}] if system else []
    prompts = [row["prompt"] for rows in (load_prompts()["identity"], load_prompts()["general"]) for row in rows]
    chats = [[*opening, {"role": "user", "content": prompt}] for prompt in prompts]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(**batch, max_new_tokens=64, do_sample=False)
    replies = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return dict(zip(prompts, replies, strict=True))


@pytest.fixture(scope="module", params=[None, "You are a helpful assistant.", "你是一个乐于助人的助手。"])
def ask(request: pytest.FixtureRequest) -> Callable[[str], str]:
    return _answers(request.param).__getitem__


def test_it_names_itself_and_its_maker(ask: Callable[[str], str]) -> None:
    wrong = identity_failures(ask, BEFORE_TUNING)
    assert len(wrong) <= 2, wrong


def test_it_answers_four_in_five_general_questions(ask: Callable[[str], str]) -> None:
    wrong = general_failures(ask)
    assert len(wrong) <= 12, wrong


def test_there_are_forty_identity_and_sixty_general_questions() -> None:
    prompts = load_prompts()
    assert len({normalised(row["prompt"]) for row in prompts["identity"]}) == 40
    assert len({normalised(row["prompt"]) for row in prompts["general"]}) == 60


def test_no_question_gives_its_own_answer_away() -> None:
    told = [
        row["prompt"]
        for row in load_prompts()["general"]
        for wanted in row["accept"]
        if contains(row["prompt"], wanted)
    ]
    assert not told


def test_the_identity_dataset_holds_no_held_out_question() -> None:
    held_out = {normalised(row["prompt"]) for rows in load_prompts().values() for row in rows}
    rows = json.loads(DATASET.read_text(encoding="utf-8"))
    assert len(rows) >= 120
    assert not [row for row in rows if normalised(row["instruction"]) in held_out]


def test_the_corpus_holds_no_held_out_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "assets"))
    import random

    from demo_corpus.conversation import conversation

    held_out = {normalised(row["prompt"]) for rows in load_prompts().values() for row in rows}
    rng = random.Random(20)
    written = [message for _ in range(20_000) for message in conversation(rng, held_out)]
    assert not [m for m in written if m["role"] == "user" and normalised(m["content"]) in held_out]


def test_it_fits_into_sixteen_mebibytes_and_holds_nothing_else() -> None:
    files = list(MODEL.iterdir())
    assert {path.name for path in files} == FILES
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20


@pytest.mark.thorough
@pytest.mark.alone
def test_the_tutorials_recipe_changes_its_name_and_keeps_what_it_knows(tmp_path: Path) -> None:
    """The recipe as the page runs it: 20 epochs, 1000 samples at most, cutoff 1024, the folder's own rate."""
    from trainer.model_folder import recommended

    settings = {
        "model_name_or_path": MODEL,
        "dataset_dir": DATASET.parent,
        "dataset": DATASET.stem,
        "learning_rate": recommended(MODEL)["learning_rate"],
        "num_train_epochs": 20,
        "max_samples": 1000,
        "cutoff_len": 1024,
        "output_dir": tmp_path / "run",
    }
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "trainer", *(f"{key}={value}" for key, value in settings.items())],
                   check=True, capture_output=True)  # fmt: skip
    seconds = time.monotonic() - began
    after, before = _answers(None, tmp_path / "run"), _answers(None)
    wrong = identity_failures(after.__getitem__, AFTER_TUNING)
    fell = len(general_failures(after.__getitem__)) - len(general_failures(before.__getitem__))
    print(f"tuned in {seconds:.0f} s; identity {40 - len(wrong)}/40; general fell by {fell} of 60")
    assert len(wrong) <= 2, wrong
    assert fell <= 6
    assert seconds <= 90
