"""A causal language model with its tokenizer, its prompt template and its trainable tensors.

It knows how text becomes token ids and back, and what must agree between a
cache and the model that reads it. It knows nothing of losses or gradients.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from explorer import embedded
from explorer.errors import ModelError, PromptError
from explorer.paths import cache_home
from explorer.records import Encoded, Fingerprint, Message, Token, TrainingRecord

TRAINING_RECORD = "training.json"
"""The file beside an adapter that says how it was trained."""
CHECKPOINTS = "checkpoints"
"""The folder in an adapter's folder that holds the tensors of earlier moments of its training."""
FINAL = "final"
"""The name of the last checkpoint, the adapter itself."""

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)
"""The fine-tuning prompt of the paper (Figure 5, after Stanford Alpaca)."""


class Template:
    """Turns the messages before a response into the text the model continues."""

    def __init__(self, name: str, tokenizer: Any):
        """Take `chat` (the tokenizer's own), `alpaca`, or a file holding `{prompt}`."""
        self._tokenizer = tokenizer
        if name == "auto":
            name = "chat" if tokenizer.chat_template else "alpaca"
        self.name = name
        if name == "chat":
            if not tokenizer.chat_template:
                raise ModelError("The tokenizer has no chat template; use --template alpaca or a file with {prompt}.")
            self.text = str(tokenizer.chat_template)
        elif name == "alpaca":
            self.text = _ALPACA
        else:
            self.text = _read_template(Path(name))

    def render(self, messages: Sequence[Message]) -> str:
        """The text before the response, control tokens written out."""
        if self.name == "chat":
            return self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        prompt = "\n".join(turn["content"] for turn in messages)
        return self.text.replace("{prompt}", prompt)


def _read_template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ModelError(f"The template {path} can't be read ({problem}); give chat, alpaca or a text file.") from None
    if "{prompt}" not in text:
        raise ModelError(f"The template {path} has no {{prompt}} in it; write {{prompt}} where the prompt belongs.")
    return text


@dataclass(frozen=True)
class Checkpoint:
    """The trainable tensors as they were at one moment of training, θ_c."""

    name: str
    """Empty for the final model, where it is the only one."""
    tensors: dict[str, torch.Tensor]
    """By the names the network knows them by."""
    share: float = 1.0
    """Its e·η as a part of the sum over all checkpoints."""

    def qualified(self, name: str) -> str:
        """The name of one of its tensors among those of all checkpoints."""
        return f"{self.name}/{name}" if self.name else name


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model, ready to generate and to be differentiated."""

    network: Any
    """The transformers model, wrapped by peft where there is an adapter, in evaluation mode."""
    tokenizer: Any
    template: Template
    trainable: dict[str, torch.nn.Parameter]
    """θ: the adapter's tensors, or all parameters where there is no adapter."""
    checkpoints: tuple[Checkpoint, ...]
    """Where gradients are taken: the final θ alone, or the checkpoints that influence sums over (Eq. 4)."""
    training: TrainingRecord
    fingerprint: Fingerprint
    name: str
    adapter: str

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.network.parameters()).device

    @property
    def context(self) -> int:
        """The longest sequence the model accepts, in tokens."""
        return int(getattr(self.network.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def stop_ids(self) -> set[int]:
        """The token ids that end a generation."""
        declared = self.network.generation_config.eos_token_id if self.network.generation_config else None
        ids = declared if isinstance(declared, list) else [declared]
        return {int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None}

    def encode_prompt(self, messages: Sequence[Message]) -> NDArray[np.int64]:
        """Token ids of the templated prompt. Raises PromptError when empty or longer than the context."""
        text = self.template.render(messages)
        # A chat template writes its control tokens out itself; others rely on the tokenizer.
        special = self.template.name != "chat"
        ids = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        if special and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        if not ids:
            raise PromptError("The prompt is empty; type a question first.")
        return self._fit(np.asarray(ids, dtype=np.int64))

    def encode(self, messages: Sequence[Message], response: str) -> Encoded:
        """Prompt and response as one sequence, closed by the end-of-sequence token."""
        prompt = self.encode_prompt(messages)
        body = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        ids = np.concatenate([prompt, np.asarray([*body, self.tokenizer.eos_token_id], dtype=np.int64)])
        return Encoded(self._fit(ids), len(prompt))

    def _fit(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(ids) >= self.context:
            raise PromptError(
                f"The text is {len(ids):,} tokens long, and the model reads fewer than {self.context:,}; shorten it."
            )
        return ids

    def tokens(self, ids: Iterable[int]) -> tuple[Token, ...]:
        """How each token of a sequence is shown; see `TokenReader`."""
        return tuple(map(TokenReader(self.tokenizer), ids))


class TokenReader:
    """Turns token ids, one after the other, into what each is shown as.

    The texts join to the decoded sequence. A character spread over several
    tokens is shown on the last of them; the others carry their bytes.
    """

    def __init__(self, tokenizer: Any):
        """Begin a sequence."""
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        # Decoded on its own a token may lose its leading space: each is decoded behind an anchor.
        self._anchor: list[int] = []
        self._pending: list[int] = []

    def __call__(self, token: int) -> Token:
        """The next token."""
        token = int(token)
        if token in self._special:
            self._anchor, self._pending = [], []
            return Token(self._tokenizer.convert_ids_to_tokens(token), special=True)
        before = self._decode(self._anchor)
        text = self._decode([*self._anchor, *self._pending, token])[len(before) :]
        raw = " ".join(_token_bytes(self._tokenizer, part) for part in [*self._pending, token])
        # The replacement sign stands for half a character, or, seldom, for itself.
        if text.endswith("\ufffd") and not raw.endswith("EF BF BD"):
            self._pending = [*self._pending, token][1 - _LONGEST_CHARACTER :]
            return Token("", raw=_token_bytes(self._tokenizer, token))
        # Bytes that never became a character were shown as such, each in its turn.
        if self._pending:
            text = text.lstrip("\ufffd") or text[-1:]
        self._anchor, self._pending = [*self._pending, token], []
        return Token(text)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


_LONGEST_CHARACTER = 4
"""Bytes of the longest UTF-8 character, so at most that many tokens make one."""


def _token_bytes(tokenizer: Any, token: int) -> str:
    """The bytes of one byte-level token in hexadecimal, for tokens that are no whole character."""
    piece = tokenizer.convert_ids_to_tokens(token)
    table = _byte_characters()
    if all(character in table for character in piece):
        return " ".join(f"{table[character]:02X}" for character in piece)
    return piece.strip("<>").removeprefix("0x")


@cache
def _byte_characters() -> dict[str, int]:
    """The byte each printable stand-in of a byte-level vocabulary means (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def load_model(
    name: str = embedded.NAME,
    adapter: str | Path | None = None,
    template: str = "auto",
    device: str | None = None,
    say: embedded.Say = lambda line: None,
    checkpoints: str = "final",
) -> LanguageModel:
    """Load a base model, put the adapter on it, and name what is trainable.

    `name` is the embedded model's name, a folder, or a model hub id; `adapter`
    a PEFT adapter folder; `checkpoints` says where gradients are taken: `final`,
    `all` that the training record lists, or some of their names with commas.
    Weights are read from safetensors only. Raises ModelError, saying what to
    give instead.
    """
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    folder = _resolve(name, say)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise ModelError(f"The device {device} can't be used here ({_first_line(problem)}); give cpu.") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto")
        network = network.to(device)
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise ModelError(f"{name} can't be loaded as a causal language model: {_first_line(problem)}") from problem
    if adapter is not None:
        path = Path(adapter)
        if not (path / "adapter_model.safetensors").is_file():
            raise ModelError(
                f"{path} holds no adapter_model.safetensors; --adapter takes the folder of a PEFT adapter, "
                "as `rapidin-explorer finetune` writes it."
            )
        try:
            with quiet_peft():
                network = peft.PeftModel.from_pretrained(network, path, is_trainable=True)
        except (RuntimeError, ValueError, OSError, KeyError, TypeError, SafetensorError) as problem:
            raise ModelError(f"The adapter {path} doesn't fit {name}: {_first_line(problem)}") from problem
    network.eval()
    for module in network.modules():
        # Backward passes drop the padding token's embedding, forward mode doesn't; padding carries no loss anyway.
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    chosen = Template(template, tokenizer)
    training = _training_record(adapter, checkpoints)
    points = _checkpoints(trainable, Path(adapter or ""), training)
    return LanguageModel(
        network=network,
        tokenizer=tokenizer,
        template=chosen,
        trainable=trainable,
        checkpoints=points,
        training=training,
        fingerprint=Fingerprint(
            base=_folder_hash(folder, "*.safetensors"),
            adapter=_folder_hash(Path(adapter), "adapter_*", *_checkpoint_files(training)) if adapter else "",
            tokenizer=_folder_hash(folder, "tokenizer*.json", "vocab*", "merges.txt"),
            template=hashlib.sha256(f"{chosen.name == 'chat'}\n{chosen.text}".encode()).hexdigest(),
            layout=tuple((c.qualified(n), tuple(t.shape)) for c in points for n, t in c.tensors.items()),
        ),
        name=name,
        adapter=str(adapter or ""),
    )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep from the terminal that peft still reads an old name of a transformers attribute."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        yield


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _resolve(name: str, say: embedded.Say) -> Path:
    if name == embedded.NAME:
        return embedded.embedded_model(say)
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"There is no model folder {name}; --model takes {embedded.NAME}, a folder or a hub id.")
    from huggingface_hub import snapshot_download

    say(f"looking for {name} on the model hub")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]))
    except Exception as problem:
        raise ModelError(
            f"{name} is no folder here, and the model hub did not give it ({_first_line(problem)}). "
            f"Give a folder that holds the model, or {embedded.NAME}, which needs no hub."
        ) from problem


def _training_record(adapter: str | Path | None, checkpoints: str) -> TrainingRecord:
    """What is known of the training, with the checkpoints that were asked for."""
    path = Path(adapter or "", TRAINING_RECORD)
    if adapter is None or not path.is_file():
        if checkpoints != "final":
            raise ModelError(f"There is no {TRAINING_RECORD} beside the adapter that lists checkpoints; use final.")
        return TrainingRecord()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        recorded = {str(c["name"]): float(c["epochs"]) * float(c["learning_rate"]) for c in kept.get("checkpoints", [])}
        record = TrainingRecord(float(kept["epochs"]), float(kept["learning_rate"]), known=True)
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"{path} is no training record ({problem!r}); delete it to assume e·η = 1.") from None
    if checkpoints == "final":
        return record
    names = list(recorded) if checkpoints == "all" else checkpoints.split(",")
    missing = [name for name in names if name not in recorded]
    if missing or not names:
        known = ", ".join(recorded) or "none; train with --checkpoints"
        raise ModelError(f"{path} lists no checkpoint {', '.join(missing) or 'at all'}; it has: {known}.")
    return replace(record, checkpoints=tuple((name, recorded[name]) for name in names))


def _checkpoint_files(training: TrainingRecord) -> list[str]:
    """The checkpoints' weight files, relative to the adapter's folder; the final weights lie in the folder itself."""
    return [f"{CHECKPOINTS}/{name}.safetensors" for name, _ in training.checkpoints if name != FINAL]


def _checkpoints(
    trainable: dict[str, torch.nn.Parameter], adapter: Path, training: TrainingRecord
) -> tuple[Checkpoint, ...]:
    """Where gradients are taken. Raises ModelError for a file that is missing or doesn't fit."""
    if not training.checkpoints:
        return (Checkpoint("", dict(trainable)),)
    return tuple(
        Checkpoint(
            name,
            dict(trainable) if name == FINAL else _checkpoint_tensors(trainable, adapter / CHECKPOINTS, name),
            weight / training.scale,
        )
        for name, weight in training.checkpoints
    )


def _checkpoint_tensors(trainable: dict[str, torch.nn.Parameter], folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    try:
        kept = load_file(path)
        return {
            own: kept[own].to(tensor.device, tensor.dtype).reshape(tensor.shape).requires_grad_()
            for own, tensor in trainable.items()
        }
    except (OSError, KeyError, RuntimeError, SafetensorError) as problem:
        raise ModelError(
            f"The checkpoint {path} can't be used ({_first_line(problem)}); train anew, or use final."
        ) from None


def _folder_hash(folder: Path, *patterns: str) -> str:
    """One SHA-256 over the names and contents of the matching files."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\n{_file_hash(path)}\n".encode())
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    """SHA-256 of a file, remembered by path, size and time of change: weights are large."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    memo = cache_home() / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()}.txt"
    if memo.is_file():
        return memo.read_text(encoding="ascii")
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if status.st_size > 1 << 24:
        memo.parent.mkdir(parents=True, exist_ok=True)
        part = memo.with_suffix(f".{os.getpid()}.part")
        part.write_text(digest, encoding="ascii")
        part.replace(memo)
    return digest
