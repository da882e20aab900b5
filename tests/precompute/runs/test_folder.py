"""What is found in trainers' folders: those that they made here, and others made after their documents."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest

from explorer.errors import ModelError
from precompute.runs import open_run
from tests.conftest import Tiny
from tests.tiny import save_tiny_adapter, save_tiny_model
from tests.trained import chats, in_turns, rows, train


def bare(folder: Path, model: Path) -> Path:
    """An adapter and nothing else."""
    save_tiny_adapter(folder, model)
    (folder / "training.json").unlink()
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def state(*entries: tuple[int, float, float, float], epochs: float, batch: int = 2) -> str:
    """A trainer's state with these steps, epochs, losses and learning rates."""
    names = ("step", "epoch", "loss", "learning_rate")
    history: list[dict[str, float]] = [dict(zip(names, entry, strict=True)) for entry in entries]
    history.append({"step": entries[-1][0], "epoch": epochs, "train_loss": 2.0})
    known = {"epoch": epochs, "global_step": entries[-1][0], "train_batch_size": batch}
    return json.dumps({**known, "log_history": history})


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return Path(tiny.model)


def test_the_trainers_own_folder(learnt: Path, tmp_path: Path) -> None:
    tokens = [in_turns(row) for row in rows()]
    run = open_run(train(tmp_path / "run", learnt, tokens, epochs=2, save_strategy="epoch"))
    assert (run.kind, run.adapter, run.model) == ("transformers' Trainer", tmp_path / "run", str(learnt))
    assert [(moment.name, moment.step, moment.epoch) for moment in run.moments] == [
        ("checkpoint-6", 6, 1.0),
        ("final", 12, 2.0),
    ]
    # The rate falls along a line from 0.02, and is logged after the steps 3, 6, 9 and 12.
    logged = [0.02 * (12 - step) / 12 for step in (2, 5, 8, 11)]
    assert [moment.learning_rate for moment in run.moments] == pytest.approx([logged[1], logged[3]])
    assert [moment.weight for moment in run.moments] == pytest.approx([sum(logged[:2]) / 2, sum(logged[2:]) / 2])
    assert (run.epochs, run.batch) == (2.0, 4) and run.learning_rate == pytest.approx(logged[0])
    assert {"optimizer.pt", "training_args.bin"} <= set(run.left_alone)
    # A checkpoint alone is a run up to it, and a folder of checkpoints ends with the last one.
    alone = open_run(tmp_path / "run" / "checkpoint-6")
    assert (alone.epochs, alone.moments, alone.log.entries) == (1.0, (), run.log.entries[:2])
    for name in ("adapter_model.safetensors", "adapter_config.json", "trainer_state.json"):
        (tmp_path / "run" / name).unlink()
    assert open_run(tmp_path / "run").adapter == tmp_path / "run" / "checkpoint-12"
    assert open_run(tmp_path / "run").log == run.log


@pytest.mark.filterwarnings("ignore")
def test_a_run_of_trl(learnt: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from explorer.model.loading import load_model
    from precompute.data import read_examples
    from precompute.runs import Known, match
    from tests.tiny import save_tiny_data

    settings = SFTConfig(
        output_dir=str(tmp_path / "run"),
        num_train_epochs=6,
        per_device_train_batch_size=4,
        learning_rate=2e-2,
        logging_steps=3,
        save_steps=18,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, target_modules="all-linear")
    trainer = SFTTrainer(str(learnt), args=settings, train_dataset=Dataset.from_list(chats()), peft_config=lora)
    trainer.train()
    trainer.save_model()
    run = open_run(tmp_path / "run")
    assert (run.kind, run.epochs, run.batch) == ("TRL", 6.0, 4)
    assert [moment.step for moment in run.moments] == [18, 36]
    # Of conversations TRL counts everything, unless it is told otherwise.
    examples = read_examples(save_tiny_data(tmp_path / "chats.jsonl", chats()))
    found = match(load_model(str(learnt), run.adapter, "plain", "cpu"), run.log, examples, Known(), Known())
    assert (found.reading.template, found.reading.counting.loss) == ("chat", "prompt")
    assert not found.warnings


def test_a_run_of_llama_factory(model: Path, tmp_path: Path) -> None:
    folder = bare(tmp_path / "run", model)
    for step in (2, 4):
        bare(folder / f"checkpoint-{step}", model)
    said = {"model_name_or_path": "elsewhere", "template": "alpaca", "cutoff_len": 512, "train_on_prompt": True}
    said |= {"finetuning_type": "lora", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    lines = [f"{name}: {json.dumps(value)}" for name, value in said.items()]
    text = "\n".join([*lines, "learning_rate: 1.0e-4", "num_train_epochs: 2.0", ""])
    (folder / "training_args.yaml").write_text(text)
    log = [
        {"current_steps": step, "loss": 3.0 - step / 4, "lr": 1e-4 * (5 - step) / 4, "epoch": step / 2}
        for step in range(1, 5)
    ]
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    run = open_run(folder)
    assert (run.kind, run.template) == ("LLaMA-Factory", "alpaca")
    assert (run.settings.loss, run.settings.longest) == ("prompt", 512)
    assert (run.epochs, run.learning_rate, run.batch) == (2.0, 1e-4, 8)
    assert [(m.step, m.epoch) for m in run.moments] == [(2, 1.0), (4, 2.0)]
    assert [m.learning_rate for m in run.moments] == pytest.approx([7.5e-5, 2.5e-5])
    assert [m.weight for m in run.moments] == pytest.approx([8.75e-5, 3.75e-5])


CONFIG = """base_model: {model}
datasets:
  - path: {data}
    type: chat_template
adapter: lora
sequence_len: 1024
micro_batch_size: 2
gradient_accumulation_steps: 3
num_epochs: 4
learning_rate: 2e-4
"""


def test_a_run_of_axolotl(model: Path, tiny: Tiny, tmp_path: Path) -> None:
    # It writes the model's configuration beside the adapter, and its own into the model card.
    folder = bare(tmp_path / "run", model)
    shutil.copy(model / "config.json", folder)
    config = CONFIG.format(model=model, data=tiny.data)
    card = f"---\nlibrary_name: peft\ntags:\n- axolotl\n- generated_from_trainer\n---\n\n```yaml\n{config}\n```\n\n"
    (folder / "README.md").write_text(f"{card}- learning_rate: 0.0002\n- train_batch_size: 2\n- num_epochs: 4.0\n")
    bare(folder / "checkpoint-8", model)
    logged = state((4, 2.0, 2.5, 2e-4), (8, 4.0, 1.5, 1e-4), epochs=4.0)
    (folder / "checkpoint-8" / "trainer_state.json").write_text(logged)
    run = open_run(folder)
    assert (run.kind, run.adapter, run.template, run.settings.loss) == ("axolotl", folder, "chat", "all")
    assert (run.epochs, run.learning_rate, run.batch, run.settings.longest) == (4.0, 2e-4, 6, 1024)
    assert run.settings.data == str(tiny.data)
    (moment,) = run.moments
    assert (moment.step, moment.epoch, moment.learning_rate) == (8, 4.0, 1e-4)
    assert moment.weight == pytest.approx(4 * 1.5e-4)


def test_a_bare_adapter_a_whole_model_and_our_own(model: Path, tiny: Tiny, tmp_path: Path) -> None:
    run = open_run(bare(tmp_path / "bare", model))
    assert (run.model, run.moments, run.training, run.log.expected) == (str(model), (), None, None)
    whole = open_run(save_tiny_model(tmp_path / "whole"))
    assert (whole.adapter, whole.model, whole.base) == (None, str(tmp_path / "whole"), "")
    own = tmp_path / "own"
    shutil.copytree(tiny.adapter, own)
    kept = [{"name": name, "epochs": 1.0, "learning_rate": rate} for name, rate in (("1", 0.02), ("final", 0.01))]
    record = {"epochs": 2, "learning_rate": 0.03, "batch_size": 2, "examples": 7, "checkpoints": kept}
    record |= {"template": "alpaca", "base_model": str(model), "epoch_losses": [3.0, 2.0]}
    (own / "training.json").write_text(json.dumps(record))
    found = open_run(own)
    assert [(m.name, m.step, m.epoch, m.learning_rate) for m in found.moments] == [
        ("1", 4, 1.0, 0.02),
        ("final", 8, 2.0, 0.01),
    ]
    assert (found.template, found.epochs, found.learning_rate, found.batch) == ("alpaca", 2.0, 0.03, 2)
    assert found.log.expected and found.log.expected == pytest.approx((4 / 3, 2.0))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no adapter .* no model .* and no checkpoint"),
        ({"adapter_model.bin": ""}, "keeps its weights in adapter_model.bin, and only safetensors are read"),
        ({"adapter_model.safetensors": "", "trainer_state.json": "{"}, "trainer_state.json is no trainer's state"),
        ({"adapter_model.safetensors": "", "training_args.yaml": "a: ["}, "training_args.yaml can't be read"),
        ({"adapter_model.safetensors": "", "trainer_log.jsonl": '{"loss": 1}\n'}, "is no trainer's log"),
    ],
)
def test_what_is_no_run_or_damaged_is_refused(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=said):
        open_run(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no folder"):
        open_run(tmp_path / "nowhere")
