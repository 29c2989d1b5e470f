"""A small classifier on scikit-learn's digits, a fifth of its labels wrong: training that stops by itself.

Run it with ``python -m benchmarks.lightning_example``.
"""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_ext import ConvergenceStopping


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        layers = [torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(256, 10)]
        self.net = torch.nn.Sequential(*layers)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.log_dict({"val_loss": cross_entropy(logits, y), "val_acc": (logits.argmax(1) == y).float().mean()})

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main():
    pl.seed_everything(0)
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    noisy = torch.where(torch.rand(len(y)) < 0.2, torch.randint(0, 10, (len(y),)), y)
    train, val = random_split(TensorDataset(x.float() / 16, noisy), [0.8, 0.2])

    stopping = ConvergenceStopping("val_loss", restore_best=True)
    trainer = pl.Trainer(max_epochs=300, accelerator="auto", devices=1, callbacks=[stopping])
    model = Digits()
    trainer.fit(model, DataLoader(train, batch_size=64, shuffle=True), DataLoader(val, batch_size=512))

    print(stopping.decision.reason, "-", stopping.decision.message)
    print("best", stopping.best, "in", stopping.best_model_path)
    trainer.validate(model, DataLoader(val, batch_size=512), verbose=False)  # the best weights are back in the model
    print("restored val_loss", trainer.callback_metrics["val_loss"].item(), "after", trainer.current_epoch, "epochs")


if __name__ == "__main__":
    main()
