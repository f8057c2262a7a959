"""Captured steps with kernels of our own: the same numbers as the plain pass in fp32, with and without adapters. On a GPU."""

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.tiny import LINEAR, Architecture, build_tiny_adapter, build_tiny_model
from trainer.decoder import Cache, Decoder, LowRank
from trainer.decoder_graph import Graphs
from trainer.low_rank import read_adapter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: the decoding kernels need a CUDA device"),
]

# More columns than a program of any kernel takes at a time, and no power of two.
SHAPE: dict[str, Any] = {"hidden_size": 320, "intermediate_size": 4400, "head_dim": 80, "initializer_range": 0.05}


def step_of(graphs: Graphs, decoder: Decoder, ids: list[int], adapter: LowRank | None) -> Tensor:
    cache = Cache(decoder, 256)
    decoder.read(ids[:-1], cache, adapter)
    token, place = (torch.tensor([number], device=decoder.device) for number in (ids[-1], len(ids) - 1))
    return graphs.logits(token, place, cache, adapter).float().cpu().clone()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("rank", "targets"),
    [*itertools.product((1, 8, 20, 64, 256), [LINEAR]), (8, ["v_proj", "up_proj"]), (6, ["o_proj"])],
)
@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_a_captured_step_with_an_adapter_gives_what_fp32_gives(
    architecture: Architecture, rank: int, targets: list[str], tmp_path: Path
) -> None:
    folder = build_tiny_model(tmp_path / "model", architecture=architecture, **SHAPE)
    adapter = build_tiny_adapter(tmp_path / "adapter", folder, rank=rank, scale=0.2 * rank**0.75, targets=targets)
    exact = Decoder.of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).float())
    short = Decoder.of(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to("cuda"))
    assert exact is not None
    assert short is not None
    graphs = Graphs.of(short)
    assert graphs is not None
    ids = [(number * 37) % 400 for number in range(90)]
    wanted, low = read_adapter(adapter, exact), read_adapter(adapter, short)
    assert low is not None
    base = step_of(graphs, short, ids, None)
    found = step_of(graphs, short, ids, graphs.prepared(low))
    cache = Cache(exact, 256)
    expected = exact.read(ids, cache, wanted)
    plain = exact.read(ids, Cache(exact, 256))
    assert distance(expected, plain) > 0.5  # an adapter that is left out would be seen
    assert distance(base, plain) < 0.05
    assert distance(found, expected) < 0.05
    assert torch.equal(step_of(graphs, short, ids, None), base)  # and the base is as it was
