"""Models that look positions up in a table: what is longer than the table is refused before anything is loaded."""

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import edit_json
from trainer.model_size import most_positions
from trainer.prepare import check_model
from trainer.problems import Problem
from trainer.settings import parse

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("transformer.wpe.weight", {"n_positions": 64}),
    "openai-gpt": ("transformer.positions_embed.weight", {"n_positions": 64}),
    "opt": ("model.decoder.embed_positions.weight", {"max_position_embeddings": 62}),  # two rows are for padding
    "gptj": ("transformer.wte.weight", {"n_positions": 64}),
}


def build(folder: Path, family: str) -> Path:
    """Such a model by its names, sizes and headers."""
    name, config = FAMILIES[family]
    folder.mkdir()
    header = f'{{"{name}": {{"dtype": "F32", "shape": [64, 2], "data_offsets": [0, 512]}}}}'.encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(512))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text("{}")
    edit_json(folder / "config.json", model_type=family, **config)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cutoff_beyond_the_positions_of_a_model_is_refused_by_its_label(tmp_path: Path, family: str) -> None:
    folder = build(tmp_path / "model", family)
    limit = 62 if family == "opt" else 64
    assert most_positions(folder) == limit
    with pytest.raises(Problem, match=f"Cutoff length: got {limit + 1}.* for {limit} tokens only") as caught:
        check_model(parse({"model_name_or_path": str(folder), "cutoff_len": limit + 1}))
    assert caught.value.code == "cutoff_over_positions"
    check_model(parse({"model_name_or_path": str(folder), "cutoff_len": limit}))


def test_a_model_that_computes_positions_takes_any_cutoff(tmp_path: Path) -> None:
    folder = build(tmp_path / "model", "gptj")
    edit_json(folder / "config.json", model_type="qwen2", max_position_embeddings=64)
    assert most_positions(folder) is None
    check_model(parse({"model_name_or_path": str(folder), "cutoff_len": 4096}))
