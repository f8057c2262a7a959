"""What a training run holds in memory, in bytes, part by part. Light: no torch, nothing is run.

The activations are what autograd saves in transformers' Qwen2, Qwen3 and Llama layers as this trainer runs
them; a test counts the saved tensors and compares.
"""

from dataclasses import dataclass

from trainer import deepspeed_config
from trainer.budget import CHUNK_ELEMENTS
from trainer.model_size import Linear, ModelSize
from trainer.settings import TrainSettings

# bitsandbytes: half a byte and a scale for every 64 numbers, which is itself kept in 8 bits.
BYTES_OF_BITS = {4: 0.516, 8: 1.0}
# Modules at a model's two ends, each a matrix of the vocabulary.
ENDS = {"embed_tokens", "lm_head", "wte"}
# DeepSpeed's default for gradients that are added up together.
BUCKET_ELEMENTS = 500_000_000
# Of a device's memory: an adapter's base that takes more is cut over the devices.
MOST_FOR_WEIGHTS = 0.7


def is_sharded(settings: TrainSettings, processes: int, weights: float, memory: float) -> bool:
    """Whether the weights, or by DeepSpeed's stage 2 what updates them, are cut over the processes. `weights`,
    `memory`: bytes of the model, of one device."""
    if settings.deepspeed:
        return processes > 1
    if processes == 1 or settings.fsdp is False:
        return False
    if settings.fsdp or settings.finetuning_type != "lora":
        return True
    return not settings.quantization_bit and weights > MOST_FOR_WEIGHTS * memory


@dataclass(frozen=True)
class Footprint:
    """`compute`: the compute type, never "auto". `device`: cuda, npu or cpu. `shards`: devices that the
    weights are cut over; an adapter beside them is whole on each.

    All results are bytes of one device.
    """

    size: ModelSize
    settings: TrainSettings
    compute: str
    device: str
    shards: int = 1

    @property
    def whole(self) -> bool:
        """Whether the layers' own weights are trained, not an adapter beside them."""
        return self.settings.finetuning_type != "lora"

    @property
    def zero(self) -> int | None:
        """DeepSpeed's stage: 2 cuts what updates the weights, 3 the weights as well. It computes with copies of
        them, in the type that is computed in, and keeps those that it updates in fp32."""
        return deepspeed_config.stage(self.settings)

    @property
    def hosted(self) -> bool:
        """Whether what updates the weights is in the host's memory."""
        return self.device != "cpu" and deepspeed_config.offloads(self.settings)

    @property
    def pure(self) -> bool:
        return self.compute == "pure_bf16"

    @property
    def element(self) -> int:
        """Bytes of a number that is computed with."""
        return 4 if self.compute == "fp32" else 2

    @property
    def autocast(self) -> bool:
        """Trained fp32 weights, cast to 16 bits for each pass."""
        return self.whole and self.compute in ("bf16", "fp16")

    @property
    def wide_stream(self) -> bool:
        """Whether the residual stream is fp32 under 16-bit products: they are added to an fp32 embedding.

        Shards are gathered in 16 bits.
        """
        return self.autocast and self.settings.finetuning_type == "full" and self.shards == 1 and not self.zero

    @property
    def residual(self) -> int:
        """Bytes of a number of the residual stream."""
        return 4 if self.wide_stream else self.element

    @property
    def trains_output(self) -> bool:
        names = {"lm_head"} | ({"embed_tokens", "wte"} if self.size.tied else set())
        return self.settings.finetuning_type == "full" or bool(names & set(self.settings.freeze_extra_modules))

    @property
    def one_node(self) -> bool:
        """Whether adapted layers are the trainer's own (trainer/lora.py), which keep their input once."""
        return not self.settings.lora_dropout and not self.settings.use_dora

    # ---- what stays ----

    def adapted(self) -> list[Linear]:
        """The layers that carry an adapter."""
        if self.whole:
            return []
        wanted = set(self.settings.lora_target)
        return [layer for layer in self.size.linears if "all" in wanted or layer.name in wanted]

    def trained(self) -> int:
        """How many numbers are trained."""
        if self.settings.finetuning_type == "full":
            return self.size.parameters
        if self.settings.finetuning_type == "freeze":
            extra = set(self.settings.freeze_extra_modules) & ENDS
            share = min(1.0, abs(self.settings.freeze_trainable_layers) / self.size.layers)
            return round(self.size.in_layers * share) + len(extra) * self.size.embedding
        return self._adapter() + self._additional()

    def _adapter(self) -> int:
        magnitudes = 1 if self.settings.use_dora else 0
        return sum(
            (self.settings.lora_rank * (layer.inputs + layer.outputs) + magnitudes * layer.outputs) * layer.count
            for layer in self.adapted()
        )

    def _additional(self) -> int:
        return len(set(self.settings.additional_target) & ENDS) * self.size.embedding

    def weights(self) -> float:
        """The model, trained weights in fp32 unless they are trained in 16 bits, and autocast's copies of those."""
        size = self.size
        if size.stored_bytes is not None and not self.whole:
            return size.stored_bytes
        if self.settings.quantization_bit:
            packed = size.in_layers * BYTES_OF_BITS[self.settings.quantization_bit]
            return packed + (size.parameters - size.in_layers) * self.element
        trained = self.trained() if self.whole else 0
        kept, masters = trained * (2 if self.pure else 4) + (size.parameters - trained) * self.element, 0.0
        if self.zero:
            kept, masters = size.parameters * self.element, 0 if self.hosted else 4 * trained / self.shards
        if self.shards > 1 and self.zero != 2:
            # Gathered a layer at a time, the next one meanwhile; what is outside of layers stays.
            gathered = (2 * size.in_layers / size.layers + self._outside) * self.element
            return kept / self.shards + gathered + masters
        if self.zero:
            return kept + masters
        return kept + (2 * min(trained, size.in_layers) if self.autocast else 0)

    def adapter(self) -> float:
        """fp32 matrices, and the copies of them in the type that is computed in."""
        if self.whole:
            return 0
        return self.trained() * (self.element if self.pure else 4 + (self.element if self.element != 4 else 0))

    def gradients(self) -> float:
        return self.trained() * (2 if self.pure else 4) / (self.shards if self.whole else 1)

    def optimizer(self) -> float:
        """AdamW's two moments, in the type of what is trained."""
        return 0 if self.hosted else 2 * self.gradients()

    def reduction(self) -> float:
        """What the last gradients, those outside of layers, take in fp32 while they are added up over the shards.

        Their weights are released by then, and make room for them in the type that is computed in.
        """
        if self.zero:
            return 4 * min(self.trained(), BUCKET_ELEMENTS)
        full = self.shards > 1 and self.settings.finetuning_type == "full"
        return 4 * self._outside if full else 0

    @property
    def _outside(self) -> int:
        """Parameters of the input embedding and the output layer."""
        return self.size.parameters - self.size.in_layers

    # ---- what a pass adds ----

    def activations(self, tokens: int, labels: int, checkpointed: bool) -> float:
        """What the forward pass of `tokens` keeps for the backward pass, and what that holds beside it.

        `labels`: how many of the tokens predict one. Without the chunk of logits.
        """
        return self.saved(tokens, labels, checkpointed) + self._backward(tokens)

    def saved(self, tokens: int, labels: int, checkpointed: bool) -> float:
        """The bytes of the tensors that autograd has saved when the forward pass ends."""
        size, layer = self.size, self._layer() * tokens
        alive = size.layers
        if self.settings.finetuning_type == "freeze" and self.settings.freeze_trainable_layers > 0:
            alive = min(alive, self.settings.freeze_trainable_layers)  # nothing below them needs gradients
        layer += self._weight_norms()
        kept = alive * layer
        if checkpointed:
            kept = alive * self.residual * size.hidden * tokens + layer
        rotations = 2 * self.residual * size.head_dim * tokens
        loss = labels * (self.residual * size.hidden + 8)
        # An adapter's first layer saves no norm, for its input needs no gradient; the norm after the last one does.
        last_norm = self._norm(size.hidden) * tokens if self.whole else 0
        output = (
            self.residual * size.embedding if self.trains_output else 0
        )  # the output layer's gradient, made with the loss
        return kept + rotations + loss + last_norm + output

    def logits(self, labels: int) -> float:
        """The chunk of logits, and while there are several the one before it."""
        elements = labels * self.size.vocabulary
        if "lm_head" in self.settings.additional_target:  # then they are all made at a time
            return elements * (2 * self.element + 8)
        several, elements = elements > CHUNK_ELEMENTS, min(elements, CHUNK_ELEMENTS)
        output = (
            (2 if self.autocast and self.shards == 1 else 1) * self.element * self.size.embedding
            if self.trains_output
            else 0
        )
        return elements * (14 if several else 8) + output

    def _layer(self) -> float:
        """Bytes that one layer saves for one token."""
        size, element = self.size, self.element
        norms = 2 * self._norm(size.hidden)
        if size.head_norms:
            norms += self._norm(size.query, size.heads) + self._norm(size.key, size.kv_heads)
        attention = element * (2 * size.query + 2 * size.key) + 4 * size.heads
        return norms + attention + 3 * element * size.width + self._inputs()

    def _weight_norms(self) -> float:
        """Bytes that DoRA saves in a layer for the norms of its weights: peft multiplies an identity matrix."""
        if not self.settings.use_dora:
            return 0
        return sum(self.element * layer.inputs**2 * layer.count for layer in self.adapted()) / self.size.layers

    def _norm(self, width: int, rows: int = 1) -> float:
        """Bytes that a norm saves: its input and the root mean squares; on a processor in fp32, part by part."""
        if self.device != "cpu":
            return self.residual * width + 4 * rows
        return (8 if self.whole else 4) * width + 4 * rows

    def _inputs(self) -> float:
        """Bytes of the inputs of a layer's matrix products, of one token."""
        size, element = self.size, self.element
        shared = element * (2 * size.hidden + size.width)  # before attention, before and in the feed-forward part
        if self.whole:
            return shared + (3 * element * size.hidden if self.wide_stream else 0)  # cast for each product anew
        adapted = [(layer, layer.count / size.layers) for layer in self.adapted()]
        low = sum(element * self.settings.lora_rank * count for _, count in adapted)
        if not self.one_node:  # each adapted layer drops its own copy of the input, and keeps what was dropped
            mask = 4 if self.device == "cpu" else 1
            dropped = element + (mask if self.settings.lora_dropout else 0)
            low += sum(dropped * layer.inputs * count for layer, count in adapted)
            if self.settings.use_dora:  # the layer's own output and the adapter's, to be scaled
                low += sum(2 * element * layer.outputs * count for layer, count in adapted)
            return low
        names = {layer.name for layer, _ in adapted}
        unread = 0 if names & {"q_proj", "k_proj", "v_proj"} else element * size.hidden
        unread += 0 if names & {"gate_proj", "up_proj"} else element * size.hidden
        unread += 0 if "down_proj" in names else element * size.width
        return low + (shared - unread if all(name.endswith("_proj") for name in names) else shared)

    def _backward(self, tokens: int) -> float:
        """Gradients of one layer that exist together: of the residual stream, of gate, up and their product."""
        return tokens * (2 * self.residual * self.size.hidden + 2 * self.element * self.size.width)
