"""The files of models and adapters: their hashes, and what they hold against what a network takes.

Libraries make up the tensors that a file lacks, leave out those it has too many of, and go on. Here all of that is
refused, with how many and which: scores of numbers that nobody trained are worse than none.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from explorer.errors import ExplorerError, ModelError, UnsupportedError, first_line
from explorer.paths import cache_home
from explorer.text_files import read_text, refuse_pointer

Shape = tuple[int, ...]

_FLOATS = ("F64", "F32", "F16", "BF16")
"""The types of numbers that stand for themselves; others are codes, which need scales that aren't there."""
_WRAPPERS = re.compile(r"(?<!\w)(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_model\.model)\.")
"""What torch.compile, DataParallel, FSDP, activation checkpointing and PEFT put into the names of tensors."""
_OLD_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|position_ids|masked_bias)$")
"""Constants that older versions of transformers wrote into files, and newer ones compute."""
_SHOWN = 3


@dataclass(frozen=True)
class Stored:
    """What a safetensors file says of one of its tensors."""

    path: Path
    dtype: str
    shape: Shape


def folder_hash(folder: Path, *patterns: str) -> str:
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


@contextmanager
def as_ours(what: str, stored: Mapping[str, Stored] | None = None) -> Iterator[None]:
    """Turn whatever a library raises into a ModelError that begins with `what` can't be done, and ends with why.

    Where it read the tensors `stored`, those are named that are unlike the others of their kind.
    """
    try:
        yield
    except ExplorerError:
        raise
    # The libraries that read models raise anything, bare exceptions among them.
    except Exception as problem:
        if "trust_remote_code" in str(problem):
            raise UnsupportedError(
                f"{what}: it needs code of its own (auto_map), which isn't run here; give one that transformers knows."
            ) from problem
        odd = _unlike_others(stored or {})
        at_fault = (
            f" At fault may be {counted(odd, 'tensor')}, missing or unlike the others of its kind." if odd else ""
        )
        raise ModelError(f"{what}: {first_line(problem)}{at_fault}") from problem


def _unlike_others(stored: Mapping[str, Stored]) -> list[str]:
    """The tensors that one of several experts lacks, or has of another shape: libraries put those into one."""
    experts: dict[tuple[str, str], dict[int, Shape]] = {}
    for name, tensor in stored.items():
        if place := re.fullmatch(r"(.*experts?\.)(\d+)(\..*)", name):
            experts.setdefault((place[1], place[3]), {})[int(place[2])] = tensor.shape
    odd = []
    for (before, after), shapes in experts.items():
        usual = Counter(shapes.values()).most_common(1)[0][0]
        several = {number for (other, _), own in experts.items() if other == before for number in own}
        odd += [f"{before}{number}{after}" for number in sorted(several) if shapes.get(number) != usual]
    return odd


def require_fetched(path: Path) -> None:
    """Raise ModelError for a file that can't be read, or in whose place git left a pointer to it."""
    try:
        with path.open("rb") as handle:
            refuse_pointer(handle.read(200), str(path), ModelError)
    except OSError as problem:
        raise ModelError(f"{path} can't be read: {problem.strerror or problem}.") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelError where the file is missing, or holds something else."""
    if not path.is_file():
        raise ModelError(f"{path.parent} holds no {path.name}; copy it there from where the rest came from.")
    text = read_text(path, "The file", ModelError)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise ModelError(f"{path} is no JSON text ({first_line(problem)}); copy it anew.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object, with names and values; copy it anew.")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a model's folder keeps its weights in. Raises ModelError where there are none."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        if pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
            raise ModelError(
                f"{folder} keeps its weights in {pickled[0].name}, and only safetensors are read, which run no code. "
                "Convert them: load the model with transformers, and save it with save_pretrained."
            )
        raise ModelError(f"{folder} holds no weights: no model.safetensors, and no model.safetensors.index.json.")
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index} doesn't say which file holds which tensor (weight_map); copy it anew.")
    files = [folder / name for name in sorted(set(shards.values()))]
    if lost := [path.name for path in files if not path.is_file()]:
        raise ModelError(f"{folder} lacks {counted(lost, 'file')}, which {index.name} lists; copy the rest there.")
    return files


def stored_tensors(files: Iterable[Path]) -> dict[str, Stored]:
    """What some safetensors files hold, by name, read from their headers alone.

    Raises ModelError for a file that is damaged, and for tensors without any numbers.
    """
    found: dict[str, Stored] = {}
    for path in files:
        require_fetched(path)
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    part = file.get_slice(name)
                    found[name] = Stored(path, str(part.get_dtype()), tuple(part.get_shape()))
        except (OSError, SafetensorError) as problem:
            raise ModelError(
                f"{path} is damaged, or no safetensors file ({first_line(problem)}); copy it anew."
            ) from None
    if empty := [name for name, tensor in found.items() if 0 in tensor.shape]:
        raise ModelError(
            f"{found[empty[0]].path} has {counted(empty, 'tensor')} without any numbers. DeepSpeed's ZeRO-3 leaves "
            "such ones where the shares of the processes weren't gathered; save it again from the gathered weights "
            "(stage3_gather_16bit_weights_on_model_save, or zero_to_fp32.py)."
        )
    return found


def refuse_unequal(
    what: str,
    stored: Mapping[str, Stored],
    missing: Iterable[str],
    surplus: Iterable[str],
    unequal: Mapping[str, tuple[Shape, Shape]],
) -> None:
    """Raise ModelError unless a file held what its network takes.

    `missing` and `surplus` are names that the file lacks and that the network doesn't know; `unequal` gives for names
    that both know the shapes in the file and in the network.
    """
    missing, surplus = sorted(missing), sorted(surplus)
    found = []
    if missing:
        found.append(f"it lacks {counted(missing, 'tensor')}")
    if surplus:
        found.append(f"it has {counted(surplus, 'tensor')} too many")
    if unequal:
        own, taken = unequal[min(unequal)]
        shapes = f"the first {list(own)} instead of {list(taken)}"
        found.append(f"it has {counted(sorted(unequal), 'tensor')} of another shape, {shapes}")
    if found:
        raise ModelError(
            f"{what} doesn't hold what its configuration describes: of {len(stored):,} tensors in all, "
            f"{', '.join(found)}. {_wrapped(missing, surplus) or 'Nothing is made up for them; copy or save it anew.'}"
        )


def _wrapped(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """What to do where the names differ by what a wrapper put into them; else an empty text."""
    bare = {_WRAPPERS.sub("", name) for name in missing}
    for name in surplus:
        if _WRAPPERS.sub("", name) in bare and (marks := _WRAPPERS.findall(name)):
            # PEFT's own is in all names of an adapter, and may be there twice.
            mark = min(marks, key=lambda mark: mark == "base_model.model")
            return f"A wrapper put {mark} into the names; save it again from the model inside the wrapper."
    return ""


def refuse_codes(what: str, stored: Mapping[str, Stored], is_number: Callable[[str], bool]) -> None:
    """Raise ModelError for tensors of other types than floating-point numbers, where `is_number` says that they are."""
    codes = [name for name, tensor in stored.items() if tensor.dtype not in _FLOATS and is_number(name)]
    if codes:
        raise ModelError(
            f"{what} has {counted(codes, 'tensor')} of the type {stored[codes[0]].dtype}, which would be read as "
            "plain numbers; save it in bfloat16, float16 or float32."
        )


def refuse_infinite(what: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise ModelError where a tensor holds something else than finite numbers."""
    lost = [name for name, tensor in tensors if tensor.is_floating_point() and not _is_finite(tensor.detach())]
    if lost:
        raise ModelError(
            f"{what} has {counted(lost, 'tensor')} with numbers that are infinite or none (NaN). The training "
            "went wrong, or this number format is too narrow for them: give another file, or another --precision."
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    # NaN is both the smallest and the largest; unlike a map of all places this takes no memory.
    return not tensor.numel() or all(bool(end.isfinite()) for end in torch.aminmax(tensor))


def is_constant(network: Any) -> Callable[[str], bool]:
    """Tells of a name whether it stands for something that a network computes itself, or leaves out on purpose."""
    declared = [re.compile(pattern) for pattern in network._keys_to_ignore_on_load_unexpected or ()]
    buffers = {name for name, _ in network.named_buffers()}

    def constant(name: str) -> bool:
        return bool(
            _OLD_BUFFERS.search(name)
            or any(pattern.search(name) for pattern in declared)
            or name in buffers
            or f"{network.base_model_prefix}.{name}" in buffers
        )

    return constant


def counted(names: Sequence[str], what: str) -> str:
    """How many there are, and the first of them: `2 tensors (a, b)`."""
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names):,} {what}{'' if len(names) == 1 else 's'} ({shown})"


def tensor_of(stored: Mapping[str, Stored], name: str) -> torch.Tensor:
    """One tensor of some files."""
    with safe_open(stored[name].path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def tensors_of(stored: Mapping[str, Stored]) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of some files, one by one."""
    for path in sorted({tensor.path for tensor in stored.values()}):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)
