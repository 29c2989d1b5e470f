"""One training run that may be killed at any moment; its data order and randomness are fixed by epoch and step.

`kill_run.py '{"directory": ..., ...}'` runs one request; `kill_run.py serve` reads requests from standard input, one a
line, and forks a process for each, so that the imports are paid for once. Fields of a request:

directory  where the checkpoints go
out        the file for the result, as JSON
log        the file for standard output and error (serve only)
resume     checkpoint to go on from, or null
keep       "disk" or "memory", as the callback has it
halves     validate in the middle of the epoch too
sabotage   what shall go wrong, or null:
           {"kind": "between", "operations": n}    die before the n-th operation on files
           {"kind": "write", "bytes": n, ...}      die while writing a file, after so many bytes
           {"kind": "limit", ...}                  no file can grow beyond half a checkpoint
           {"kind": "fill", ...}                   the disk has room for half a checkpoint only
           the latter three after so many "epochs" of this process, or in that "epoch" of the training, "at" its
           "start", when "validated" or at its "end"; if "inside", not before a file is opened in the directory
"""

import hashlib
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from lightning_ext import for_namespace

RULE = "Rearm(Patience(4)) | NonFinite()"
MAX_EPOCHS = 25
BATCH = 32
TRAIN = 256
PAUSE = 0.012  # seconds that each training step takes at least, so that an epoch is long enough to be hit
_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.move"}


class FixedOrder(Sampler):
    """Every epoch has its own order, the same in every process."""

    def __init__(self, size):
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return self.size

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=torch.Generator().manual_seed(1000 + self.epoch)).tolist())


class Resumable(DataLoader):
    """Goes on where it was when a checkpoint was written in the middle of an epoch."""

    done = 0
    begin = 0

    def state_dict(self):
        return {"done": self.done % len(self)}

    def load_state_dict(self, state):
        self.begin = state["done"]

    def __iter__(self):
        begin, self.begin = self.begin, 0
        for number, batch in enumerate(super().__iter__()):
            if number >= begin:
                self.done = number + 1
                yield batch


class Regression(pl.LightningModule):
    """A network of some thousand parameters that fits noise, and so gets worse after a while."""

    def __init__(self, sabotage=None, progress=None):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = nn.Sequential(
                nn.Linear(12, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 1)
            )
        self.sabotage = sabotage
        self.progress = progress
        self.epochs_here = 0

    def forward(self, x):
        return self.net(x).squeeze(-1)

    def training_step(self, batch, _):
        torch.manual_seed(self.global_step)  # dropout
        x, y = batch
        time.sleep(PAUSE)
        return nn.functional.mse_loss(self(x), y)

    def validation_step(self, batch, _):
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self(x), y))

    def on_train_epoch_start(self):
        self._perhaps("start")

    def on_validation_epoch_end(self):
        self._perhaps("validated")

    def on_train_epoch_end(self):
        self._perhaps("end")
        self.epochs_here += 1
        if self.progress:
            with open(self.progress, "a") as file:
                file.write(f"{self.global_step}\n")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 8], 0.5)]

    def _perhaps(self, moment):
        wish = self.sabotage
        if (
            wish
            and wish.get("at") == moment
            and (wish.get("epochs"), wish.get("epoch"))
            in (
                (self.epochs_here, None),
                (None, self.current_epoch),
            )
        ):
            self.sabotage = None
            wish["strike"]()


def loaders():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(TRAIN + 256, 12, generator=generator)
    y = torch.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.7 * torch.randn(len(x), generator=generator)
    train = TensorDataset(x[:TRAIN], y[:TRAIN])
    val = TensorDataset(x[TRAIN:], y[TRAIN:])
    return (
        Resumable(train, batch_size=BATCH, sampler=FixedOrder(TRAIN), num_workers=0),
        DataLoader(val, batch_size=128, num_workers=0),
    )


def digest(weights):
    """A checksum of all weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def half_a_checkpoint(directory):
    return max(path.stat().st_size for path in directory.glob("*.ckpt")) // 2


def watch(folders, heard):
    """Call `heard` before each operation that changes a file in the folders."""

    def hook(event, arguments):
        if event not in _OPERATIONS or not str(arguments[0]).startswith(folders):
            return
        if event == "open" and isinstance(arguments[1], str) and not set(arguments[1]) & set("wax+"):
            return
        heard(event)

    sys.addaudithook(hook)


def prepare(wish, request):
    """Give the wished sabotage its deed, or start it where it does not wait for a moment of the training."""
    directory = Path(request["directory"])
    deed = {"between": None, "write": die_writing, "limit": stop_growing, "fill": fill}[wish["kind"]]
    if deed is None:
        left = wish["operations"]

        def count_down(_):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        watch((str(directory), tempfile.gettempdir()), count_down)
        return

    def strike():
        best = request["callback"].best_model_path
        if best:
            request["before"] = {"path": best, "bytes": hashlib.sha256(Path(best).read_bytes()).hexdigest()}
        if wish.get("inside"):
            watch((str(directory),), lambda event: deed(wish, directory) if event == "open" else None)
        else:
            deed(wish, directory)

    wish["strike"] = strike


def die_writing(wish, _):
    # The kernel ends the process in the middle of the write that passes the limit: no handler runs.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (wish["bytes"], resource.RLIM_INFINITY))


def stop_growing(_, directory):
    resource.setrlimit(resource.RLIMIT_FSIZE, (half_a_checkpoint(directory), resource.RLIM_INFINITY))


def fill(_, directory):
    with open(directory / "filler", "wb") as filler:
        room = os.statvfs(directory)
        filler.write(bytes(room.f_bavail * room.f_frsize - half_a_checkpoint(directory)))


def train(request):
    """Run one request and return what came out."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    callback = for_namespace("pytorch_lightning").ConvergenceStopping(
        "val_loss", rule=RULE, dirpath=request["directory"], restore_best=True, keep=request.get("keep", "disk")
    )
    request["callback"] = callback
    wish = request.get("sabotage")
    if wish:
        prepare(wish, request)
    module = Regression(wish, request.get("progress"))
    trainer = pl.Trainer(
        max_epochs=MAX_EPOCHS,
        accelerator="cpu",
        devices=1,
        callbacks=[callback],
        default_root_dir=request["root"],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=0.5 if request.get("halves") else None,
    )
    training, validation = loaders()
    started = time.monotonic()
    error = None
    try:
        trainer.fit(module, training, validation, ckpt_path=request.get("resume"), weights_only=True)
    except Exception as failure:
        if not wish:
            raise
        traceback.print_exc()
        error = {
            "os_error": isinstance(failure, OSError),
            "errno": getattr(failure, "errno", None),
            "text": f"{type(failure).__name__}: {failure}",
        }
    decision, best = callback.decision, callback.best
    saved = torch.load(callback.best_model_path, map_location="cpu", weights_only=True)
    return {
        "global_step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "stopped_epoch": callback.stopped_epoch,
        "best_step": best.step,
        "best_value": best.value.hex(),
        "best_model_path": str(callback.best_model_path),
        "stop": decision.stop,
        "reason": str(decision.reason),
        "message": decision.message,
        "weights": digest(module.state_dict()),
        "saved_weights": digest(saved["state_dict"]),
        "seconds": time.monotonic() - started,
        "report": error or json.loads(Path(request["root"], "convergence-val_loss.json").read_text()),
        "before": request.get("before"),
        "error": error,
    }


def run(request):
    """Run one request and write its result, whole or not at all."""
    result = train(request)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    half = Path(request["out"] + ".half")
    half.write_text(json.dumps(result))
    half.replace(request["out"])


def serve():
    """Fork one process for each request; tell its number, and later how it ended."""
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                run(request)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        run(json.loads(sys.argv[1]))
