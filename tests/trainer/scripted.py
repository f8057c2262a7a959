"""A tiny model that says, to whatever it is asked, the pieces that it was given, then ends."""

from pathlib import Path

from tests.tiny import CHATML, build_tiny_model


def build_scripted_model(folder: Path, pieces: list[str], chat_template: str = CHATML) -> Path:
    """`pieces` are all different. Each becomes a token whose embedding points at the next one; layers add nothing."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build_tiny_model(folder, chat_template=chat_template, tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(pieces)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    said = tokenizer.convert_tokens_to_ids(pieces)
    after = tokenizer("assistant\n", add_special_tokens=False).input_ids[-1]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        embeddings = model.get_input_embeddings().weight
        # New rows begin all alike.
        embeddings[said] = torch.randn(len(said), embeddings.shape[1], generator=torch.Generator().manual_seed(1))
        for token, following in zip([after, *said], [*said, tokenizer.eos_token_id], strict=True):
            model.lm_head.weight[following] = embeddings[token] * 100 / embeddings[token].norm()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
