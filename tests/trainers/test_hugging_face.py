"""Hugging Face's `Trainer`, and Accelerate by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.requirements import require_installed
from tests.trainers.digits import ENOUGH, MARKS, accuracy, alike, data, net
from torch.utils.data import DataLoader, TensorDataset

from steprule.torch import Adadelta, RateMonitor
from torch import Tensor, nn

pytestmark = MARKS
EPOCHS = 4


class Digits(nn.Module):
    """A net that returns its loss, as that trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def _trainer(folder: Path, way: str) -> Any:
    require_installed("transformers", "accelerate")
    import transformers

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=64,
        save_strategy="epoch",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1.0,
        seed=0,
    )
    model = Digits()
    values = {"lr": 1.0, "rho": 0.9, "weight_decay": 1e-4}
    if way == "class":
        given: dict[str, Any] = {"optimizer_cls_and_kwargs": (Adadelta, values)}
    else:
        given = {"optimizers": (Adadelta(model.parameters(), **values), None)}
    rows = [{"images": image, "labels": target} for image, target in zip(*data(), strict=True)]
    return transformers.Trainer(model=model, args=arguments, train_dataset=rows, **given)


@pytest.mark.parametrize("way", ["class", "object"])
def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path: Path, way: str) -> None:
    whole = _trainer(tmp_path, way)
    whole.train()
    assert accuracy(whole.model.net) > ENOUGH > accuracy(net())
    assert isinstance(whole.optimizer.optimizer, Adadelta)

    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda each: int(each.name.partition("-")[2]))
    assert len(checkpoints) == EPOCHS
    resumed = _trainer(tmp_path / "resumed", way)
    resumed.train(resume_from_checkpoint=str(checkpoints[1]))
    assert alike(resumed.model.net, whole.model.net)


def test_accelerate_trains_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    require_installed("accelerate")
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)

    def begun() -> tuple[Any, Any, Any]:
        model = net()
        loader = DataLoader(TensorDataset(*data()), batch_size=32)
        return accelerator.prepare(model, Adadelta(model.parameters(), rho=0.9), loader)

    def train(model: Any, stepper: Any, loader: Any, epochs: int) -> None:
        for _ in range(epochs):
            for images, targets in loader:
                with accelerator.accumulate(model):
                    loss = nn.functional.cross_entropy(model(images), targets)
                    accelerator.backward(loss)
                    stepper.step()
                    stepper.zero_grad()

    parts = begun()
    monitor = RateMonitor(parts[1], model=parts[0])
    train(*parts, EPOCHS // 2)
    assert len(monitor.table()["rate"]) > 0
    monitor.remove()
    accelerator.save_state(str(tmp_path))
    train(*parts, EPOCHS // 2)
    assert accuracy(parts[0]) > ENOUGH

    accelerator.free_memory()
    again = begun()
    accelerator.load_state(str(tmp_path))
    train(*again, EPOCHS // 2)
    assert alike(again[0], parts[0])
