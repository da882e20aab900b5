"""What caching, token values, exact values and retrieval cost on a GPU, with models of random weights made there.

Nothing is downloaded. Each cost stands beside a floor taken in the same run: bare passes of the same batches, a
forward pass, reading the same memory once. Before anything is timed, a tiny model's values on the processor and on the
device are compared. One JSON object is printed, progress goes to stderr; a part that fails or takes too long says so in
its place, and the others go on.
"""

import argparse
import contextlib
import copy
import gc
import hashlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks import tokens
from benchmarks.caching import bare_passes, cache_shard
from benchmarks.common import median_seconds, seconds, settle
from benchmarks.retrieval import Alternating
from explorer import gradients
from explorer.cache import CacheSettings
from explorer.gradients import Sketcher, SketchSettings
from explorer.gradients.forward_mode import prepare_forward_mode
from explorer.model.adapter import quiet_peft
from explorer.model.language_model import Checkpoint, LanguageModel
from explorer.model.sequences import Template
from explorer.model.way import no_way
from explorer.records import Encoded, Fingerprint, TrainingRecord
from explorer.retrieval import products
from precompute.batching import fastest_batch
from precompute.sketches import sketch_shard, token_shard

Found = dict[str, Any]
Lengths = tuple[int, int]

_ROWS_A_FILE = 102
"""Examples a file of sketches where there are 52,002."""


@dataclass(frozen=True)
class Shape:
    """A Llama's."""

    hidden: int
    inner: int
    layers: int
    heads: int
    groups: int
    """Heads of keys and values."""
    vocabulary: int = 32_000


SHAPES = {
    "tiny": Shape(64, 128, 2, 4, 2, 512),
    "1b": Shape(2048, 5632, 22, 32, 4),
    "7b": Shape(4096, 11008, 32, 32, 32),
}


@dataclass(frozen=True)
class Amounts:
    """How much is measured."""

    length: int
    """K."""
    rows: int
    """Examples cached in turns with bare passes of the same."""
    prompt: Lengths
    """Tokens of a prompt, at least and at most."""
    response: Lengths
    answer: Lengths
    """Tokens of a response of which each token has its own gradient."""
    answers: int
    stored: int
    """Sketches to retrieve from."""
    questions: int
    runs: int
    """How often a thing is timed, time allowing."""


FULL = Amounts(65_536, 32, (60, 200), (40, 120), (12, 24), 3, 52_002, 64, 7)
TINY = Amounts(1_024, 3, (4, 8), (3, 5), (2, 3), 1, 256, 4, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1b,7b", help="models, of 1b and 7b (both)")
    parser.add_argument("--device", default="", help="cuda, cuda:1 … (a GPU where there is one)")
    parser.add_argument("--seconds", type=float, default=30, help="a part is given so many (30)")
    parser.add_argument("--total", type=float, default=280, help="no part is begun after so many seconds (280)")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA adapters of all linear layers (16)")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, on any device: seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object, as it does anyway")
    chosen = parser.parse_args()
    device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and not chosen.tiny:
        parser.error("there is no GPU here; give --tiny to try the script")
    sizes = ["tiny"] if chosen.tiny else chosen.sizes.split(",")
    amounts = TINY if chosen.tiny else FULL
    print(json.dumps(measure(sizes, amounts, device, chosen.rank, Clock(chosen.seconds, chosen.total))))


class Clock:
    """Gives every part its time, and keeps what went wrong in it from the others."""

    def __init__(self, each: float, total: float = 1e9):
        """So many seconds for each, and none begun after so many in all."""
        self.each = each
        self._end = time.monotonic() + total
        self.until = 0.0
        """When the part under way should end by itself."""

    def part(self, name: str, work: Callable[[], Found]) -> Found:
        """What some work found, or why it found nothing. It is stopped at twice its time."""
        if time.monotonic() > self._end:
            return {"error": "left out: time is up"}
        self.until, started = time.monotonic() + self.each, time.perf_counter()
        try:
            with _stopped_after(2 * self.each):
                found = work()
                settle()
        except Exception as problem:
            # Whatever a part stumbles on, the figures of the others are worth having.
            found = {"error": f"{type(problem).__name__}: {problem}"[:2000]}
        found["part_s"] = time.perf_counter() - started
        print(name, json.dumps(found), file=sys.stderr, flush=True)
        _release()
        return found

    @property
    def up(self) -> bool:
        """Whether the part under way should end."""
        return time.monotonic() > self.until


def _release() -> None:
    """Give back the memory of what is gone."""
    gc.collect()
    if torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # After a fault of the device nothing works there any more.
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _stopped_after(limit: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, as soon as Python is back in charge."""

    def stop(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"stopped after {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measure(sizes: list[str], amounts: Amounts, device: str, rank: int, clock: Clock) -> Found:
    """All figures."""
    prepare_forward_mode()
    found: Found = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "rank": rank,
        "k": amounts.length,
        "agreement": clock.part("agreement", lambda: agreement(device)),
        "models": {},
    }
    for precision in ("bfloat16", "4bit"):
        for size in sizes:
            name = f"{size} {precision}"
            found["models"][name] = one_model(name, SHAPES[size], precision, amounts, device, rank, clock)
    found["retrieval"] = clock.part("retrieval", lambda: retrieval(amounts, device, clock))
    return found


# Models


class Bench:
    """A model, and what is asked of it."""

    def __init__(self, model: LanguageModel, amounts: Amounts, seed: int = 0):
        self.model, self.amounts = model, amounts
        self.settings = CacheSettings(amounts.length, min(4_096, amounts.length))
        self._random = np.random.default_rng(seed)

    @cached_property
    def sketcher(self) -> Sketcher:
        """Made when it is first needed."""
        return Sketcher(self.model.fingerprint.layout, SketchSettings(self.settings.length), self.model.device)

    def examples(self, count: int, prompt: Lengths, response: Lengths) -> list[Encoded]:
        """Sequences of random tokens."""
        vocabulary, found = self.model.network.config.vocab_size, []
        for _ in range(count):
            before, after = (int(self._random.integers(low, high + 1)) for low, high in (prompt, response))
            found.append(Encoded(self._random.integers(0, vocabulary, before + after), before))
        return found


def random_model(shape: Shape, device: str, precision: str, rank: int, seed: int = 0) -> LanguageModel:
    """A Llama of random weights, made on the device, with a LoRA adapter neither of whose halves is zero.

    `precision` is a number format of torch, or `4bit`, as QLoRA does it.
    """
    torch.manual_seed(seed)
    four_bits = precision == "4bit"
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        max_position_embeddings=2048,
    )
    with torch.device(device):
        network: Any = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if four_bits else getattr(torch, precision)
        )
    if four_bits:
        _quantise(network, device)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    with quiet_peft():
        network = peft.get_peft_model(network, lora).eval()
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    for module in network.modules():
        # As `load_model` does it.
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    return wrapped(network, precision)


def wrapped(network: Any, precision: str) -> LanguageModel:
    """A network with an adapter as `load_model` gives it."""
    trainable = {name: tensor for name, tensor in network.named_parameters() if tensor.requires_grad}
    tokenizer = byte_tokenizer()
    layout = tuple((name, tuple(tensor.shape)) for name, tensor in trainable.items())
    made_up = hashlib.sha256(b"random").hexdigest()
    return LanguageModel(
        network=network,
        tokenizer=tokenizer,
        template=Template("alpaca", tokenizer),
        trainable=trainable,
        checkpoints=(Checkpoint("", dict(trainable)),),
        training=TrainingRecord(),
        fingerprint=Fingerprint(made_up, made_up, made_up, made_up, precision, layout),
        name="random",
        adapter="random",
        base="",
        way=no_way("the weights are random"),
    )


def byte_tokenizer() -> Any:
    """Every byte is a token."""
    pieces = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def _quantise(network: Any, device: str) -> None:
    """Put 4-bit NormalFloat, doubly quantised, in the place of all linear layers but the output layer."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    computed_in = torch.bfloat16 if device.startswith("cuda") else torch.float32
    for holder in list(network.model.modules()):
        for name, layer in list(holder.named_children()):
            if type(layer) is not torch.nn.Linear:
                continue
            kind = {"compress_statistics": True, "quant_type": "nf4"}
            with torch.device("meta"):
                packed = Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=computed_in, **kind
                )
            packed.weight = Params4bit(layer.weight.data, requires_grad=False, **kind)
            packed.support_avx512bf16_for_cpu = False
            setattr(holder, name, packed.to(device))
    network.is_loaded_in_4bit = True


class DeviceMemory:
    """The most of a GPU's memory that is in use from now on."""

    def __init__(self, device: torch.device | str):
        self._device = torch.device(device)
        if self._device.type == "cuda":
            settle()
            torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        """Bytes; 0 where the device doesn't tell."""
        return torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else 0


def one_model(name: str, shape: Shape, precision: str, amounts: Amounts, device: str, rank: int, clock: Clock) -> Found:
    """Caching and token values of one model."""
    made: list[Bench] = []

    def make() -> Found:
        if precision == "4bit":
            import bitsandbytes  # noqa: F401  (where it is missing, that is said before anything is made)
        memory, started = DeviceMemory(device), time.perf_counter()
        model = random_model(shape, device, precision, rank)
        settle()
        made.append(Bench(model, amounts))
        held = torch.cuda.memory_allocated(device) if device.startswith("cuda") else 0
        return {
            "parameters": sum(map(_numbers, model.network.parameters())),
            "trainable": model.fingerprint.parameters,
            "tensors": len(model.fingerprint.layout),
            "made_s": time.perf_counter() - started,
            "model_bytes": held,
            "peak_bytes": memory.peak(),
        }

    found = clock.part(name, make)
    if made:
        found["caching"] = clock.part(f"{name} caching", lambda: caching(made[0], clock))
        found["tokens"] = clock.part(f"{name} tokens", lambda: token_values(made[0]))
    made.clear()
    _release()
    return found


def _numbers(tensor: Any) -> int:
    """How many a tensor has; two of 4 bits share a byte."""
    state = getattr(tensor, "quant_state", None)
    return int(tensor.numel() if state is None else state.shape.numel())


# What is measured


def caching(bench: Bench, clock: Clock) -> Found:
    """Bare passes and caching of the same examples in turns, as long as there is time."""
    model, amounts = bench.model, bench.amounts
    encoded = bench.examples(amounts.rows, amounts.prompt, amounts.response)
    rows = list(enumerate(encoded))
    table_s = seconds(lambda: bench.sketcher)
    batch = fastest_batch(model, bench.sketcher, replace(bench.settings, batch=0), encoded)
    settings = replace(bench.settings, batch=batch)
    order = sorted(encoded, key=lambda item: len(item.ids))

    def passes() -> None:
        """The same without sketches."""
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            gradients.example_gradients(model, model.checkpoints[0], some, lambda sequence, parts: None)

    with tempfile.TemporaryDirectory() as folder:
        works = {
            "bare_s": lambda: bare_passes(model, encoded, batch),
            "caching_s": lambda: cache_shard(model, bench.sketcher, settings, rows, Path(folder, "shard")),
            "passes_s": passes,
        }
        peaks, times = {}, {}
        for name, work in works.items():
            memory = DeviceMemory(model.device)
            work()
            peaks[name], times[name] = memory.peak(), list[float]()
        for _ in range(amounts.runs):
            for name, work in works.items():
                times[name].append(seconds(work) / len(encoded))
            if clock.up:
                break
    gradient = gradients.gradient(model, encoded[0])
    return {
        "rows": len(encoded),
        "mean_length": statistics.mean(len(item.ids) for item in encoded),
        "batch": batch,
        "runs": len(times["bare_s"]),
        **{name: statistics.median(each) for name, each in times.items()},
        "ratio": statistics.median(c / b for c, b in zip(times["caching_s"], times["bare_s"], strict=True)),
        "passes_ratio": statistics.median(p / b for p, b in zip(times["passes_s"], times["bare_s"], strict=True)),
        "table_s": table_s,
        "sketch_s": median_seconds(lambda: bench.sketcher(gradient)),
        "bare_peak_bytes": peaks["bare_s"],
        "peak_bytes": peaks["caching_s"],
    }


def token_values(bench: Bench) -> Found:
    """Cached tokens against backward passes, exact values against forward passes and explicit gradients."""
    model, amounts = bench.model, bench.amounts
    memory = DeviceMemory(model.device)
    query, *examples = bench.examples(amounts.answers + 1, amounts.prompt, amounts.answer)
    found: Found = dict(tokens.measure(model, query, examples, bench.sketcher))
    return found | {"peak_bytes": memory.peak()}


def retrieval(amounts: Amounts, device: str, clock: Clock) -> Found:
    """Sketches that lie in the device's memory: a plain product beside reading them; and the product's own scan."""
    memory = DeviceMemory(device)
    shape = (amounts.stored, amounts.length)
    sketches = torch.empty(shape, dtype=torch.float16, device=device).normal_()
    queries = torch.empty((amounts.questions, amounts.length), device=device).normal_()
    columns = queries.half().T.contiguous()
    size = sketches.numel() * sketches.element_size()
    works = Alternating(amounts.runs)
    works.add("read_s", lambda: sketches.view(torch.float32).sum())
    works.add("one_s", lambda: sketches @ columns[:, 0])
    works.add("many_s", lambda: sketches @ columns)
    times = works.best()
    some = sketches[:512]
    true = some.double() @ queries.T.double()
    off = (some @ columns).double() - true
    found: Found = {
        "what": "device product: a plain torch product of float16, not the product's own",
        "rows": shape[0],
        "k": shape[1],
        "questions": amounts.questions,
        "bytes": size,
        **times,
        "read_gbps": size / times["read_s"] / 1e9,
        "one_gbps": size / times["one_s"] / 1e9,
        "one_over_read": times["one_s"] / times["read_s"],
        "many_over_one": times["many_s"] / times["one_s"],
        "error": float(off.norm() / true.norm()),
        "peak_bytes": memory.peak(),
    }
    if not clock.up:
        found |= _own_scan(sketches, queries.cpu().numpy())
    return found


def _own_scan(sketches: torch.Tensor, queries: NDArray[np.float32]) -> Found:
    """The product's scan of the same sketches in the processor's memory."""
    scale = np.ones(len(sketches), dtype=np.float32)
    held = sketches.cpu().numpy()
    rows = [
        (held[start : start + _ROWS_A_FILE], scale[start : start + _ROWS_A_FILE])
        for start in range(0, len(held), _ROWS_A_FILE)
    ]
    works = Alternating(3)
    works.add("own_one_s", lambda: products(rows, queries[:1]))
    works.add("own_many_s", lambda: products(rows, queries))
    times = works.best()
    return {**times, "own_threads": torch.get_num_threads(), "own_one_gbps": held.nbytes / times["own_one_s"] / 1e9}


def agreement(device: str) -> Found:
    """How far a tiny model's values on the device are from those on the processor, relative to their norm."""
    amounts = replace(TINY, rows=6)
    single = random_model(SHAPES["tiny"], "cpu", "float32", 4)
    there = wrapped(copy.deepcopy(single.network).to(device), "float32")
    rounded = copy.deepcopy(single.network).to(device, torch.bfloat16)
    for name, parameter in rounded.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()  # Adapters are kept in float32, as peft loads them.
    half = wrapped(rounded, "bfloat16")
    encoded = Bench(single, amounts).examples(amounts.rows, amounts.prompt, amounts.response)
    expected, got, rough = (values(Bench(model, amounts), encoded) for model in (single, there, half))
    direction = _direction(there, encoded[0])
    explicit = [gradients.inner_product(each, direction) for each in gradients.token_gradients(there, encoded[1])]
    return {
        **{name: relative(got[name], value) for name, value in expected.items()},
        **{f"bfloat16_{name}": relative(rough[name], value) for name, value in expected.items()},
        "exact_against_explicit": relative(got["exact"], np.asarray(explicit)),
    }


def values(bench: Bench, encoded: list[Encoded]) -> dict[str, NDArray[Any]]:
    """What the product computes of some examples, by each of its ways."""
    model, rows, sketcher = bench.model, list(enumerate(encoded)), bench.sketcher
    found: dict[str, NDArray[Any]] = {}
    for batch in (1, 4):
        *_, arrays = sketch_shard(model, sketcher, replace(bench.settings, batch=batch), rows)
        assert arrays is not None
        found[f"sketches_batch_{batch}"] = arrays["sketch"] * arrays["scale"][:, None]
        found[f"norms_batch_{batch}"], found[f"losses_batch_{batch}"] = arrays["norms"], arrays["loss"]
    norms = found["norms_batch_1"]
    *_, arrays = token_shard(model, sketcher, bench.settings, dict(enumerate(norms)), rows[:2])
    assert arrays is not None
    found["token_sketches"] = arrays["sketch"] * arrays["scale"][:, None]
    direction = _direction(model, encoded[0])
    found["exact"] = gradients.directional_token_losses(model, encoded[1], direction)
    found["shares"] = gradients.position_shares(model, encoded[1], direction)
    return found


def _direction(model: LanguageModel, question: Encoded) -> gradients.Gradient:
    gradient = gradients.gradient(model, question)
    return gradients.normalised(model, gradient, gradients.norms(gradient), "layer")


def relative(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """‖found − expected‖ / ‖expected‖."""
    true = expected.astype(np.float64)
    return float(np.linalg.norm(found.astype(np.float64) - true) / np.linalg.norm(true))


if __name__ == "__main__":
    main()
