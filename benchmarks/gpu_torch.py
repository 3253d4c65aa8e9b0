"""Measures prompt tuning in torch, eager or compiled, on the shapes of the GPU benchmark; gpu.py starts it.

python benchmarks/gpu_torch.py [--wait] [--compile-only] RESULTS.json "torch eager|compile MODEL WINDOW" ...

The model is transformers' in bfloat16 with PEFT's prompt and a linear layer per step; its attention is torch's
scaled_dot_product_attention. All windows are full, so no mask is given. A compiled model is torch.compile's default;
a new batch size is compiled anew.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import gpu_shapes
import peft
import torch
import transformers
from gpu_shapes import PROMPT_LENGTH, Recorder, median_seconds, read_arguments

DEVICE = "cpu" if os.environ.get("JAX_PLATFORMS") == "cpu" else "cuda"
BINS = 100


class StepDetector(torch.nn.Module):
    """A frozen backbone with PEFT's prompt tuning, a frozen table of bins and a linear layer per step."""

    def __init__(self, model: str) -> None:
        super().__init__()
        fields = {name: value for name, value in gpu_shapes.MODELS[model].items() if name != "model_type"}
        if gpu_shapes.MODELS[model]["model_type"] == "bert":
            base: Any = transformers.BertModel(transformers.BertConfig(**fields), add_pooling_layer=False)
        else:
            base = transformers.GemmaModel(transformers.GemmaConfig(**fields, use_cache=False))
        tuning = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=PROMPT_LENGTH)
        self.backbone = peft.get_peft_model(base.eval(), tuning)
        hidden = gpu_shapes.MODELS[model]["hidden_size"]
        self.table = torch.nn.Embedding(BINS, hidden).requires_grad_(False)
        self.head = torch.nn.Linear(hidden, 1)

    def forward(self, bins: torch.Tensor) -> torch.Tensor:
        """Computes a logit per step."""
        states = self.backbone(inputs_embeds=self.table(bins)).last_hidden_state
        return self.head(states[:, PROMPT_LENGTH:])[..., 0]


def synchronize(_: Any) -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def build(model: str) -> StepDetector:
    """Builds a detector on the device, in bfloat16, with random weights."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        torch.set_default_dtype(torch.bfloat16)
        detector = StepDetector(model).to(DEVICE)
        torch.set_default_dtype(torch.float32)
    return detector.to(torch.bfloat16)


def measure(recorder: Recorder, compile_only: bool, how: str, model: str, window: int) -> None:
    """Measures scoring and training in windows per second, and the most memory taken."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU")
    torch.compiler.reset()
    detector = build(model)
    run: Callable[..., torch.Tensor] = torch.compile(detector) if how == "compile" else detector
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=1e-3)

    def score(bins: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return torch.sigmoid(run(bins))

    def train(bins: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(run(bins).float(), labels)
        loss.backward()
        optimizer.step()
        return loss

    def measure_batch(batch: int) -> None:
        bins = torch.randint(0, BINS, (batch, window), device=DEVICE)
        labels = (torch.rand(batch, window, device=DEVICE) < 0.1).float()
        flops = gpu_shapes.count_flops(model, window, batch)
        for what, work, count in (
            ("training", functools.partial(train, bins, labels), flops.training),
            ("scoring", functools.partial(score, bins), flops.forward),
        ):
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            if compile_only:
                synchronize(work())
                continue
            seconds = median_seconds(work, synchronize)
            recorder.add(
                model=model,
                window=window,
                batch=batch,
                how=f"PEFT, {how}",
                what=what,
                windows_per_second=batch / seconds,
                ms=seconds * 1e3,
                flops_per_window=count,
                peak_gigabytes=torch.cuda.max_memory_allocated() / 1e9 if DEVICE == "cuda" else None,
            )

    gpu_shapes.try_batches(model, window, measure_batch, recorder)


def main() -> None:
    arguments = read_arguments()
    recorder = Recorder(arguments.file)
    for part in arguments.parts:
        _, how, model, window = part.split()
        recorder.run(part, functools.partial(measure, recorder, arguments.compile_only, how, model, int(window)))


if __name__ == "__main__":
    main()
