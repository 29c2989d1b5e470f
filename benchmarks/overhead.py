"""What the Lightning callbacks cost beside Lightning's own: per check, per best-save, over a whole training.

Run it with ``python -m benchmarks.overhead [--quick] [--parameters N] [--accelerator auto] [--out FILE]``. All
contenders see the same model and data, each training in a process of its own, in turns; the ratios are the result,
absolute times vary by machine and by what else runs on it. On CUDA the stall of a save is measured with device events.
"""

import json
import logging
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
import typer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

import lightning_ext
from benchmarks.whole_file import save_text
from convergence import Patience, Rearm

RESULTS = Path(__file__).resolve().parent / "results" / "overhead.json"
OURS = lightning_ext.for_namespace("pytorch_lightning")
NEVER = 10**9
BARE, LIGHTNING = "no callback", "Lightning EarlyStopping + ModelCheckpoint"
DISK, MEMORY = 'ConvergenceStopping(keep="disk")', 'ConvergenceStopping(keep="memory")'
CONTENDERS = (BARE, LIGHTNING, DISK, MEMORY)
FEATURES = 512


class Model(pl.LightningModule):
    """A perceptron whose validation loss falls at every check, so that each check saves."""

    def __init__(self, parameters: int, metrics: int = 4) -> None:
        super().__init__()
        width = max(8, int((-2 * FEATURES + (4 * FEATURES**2 + 4 * parameters) ** 0.5) / 2))
        layers = [torch.nn.Linear(FEATURES, width), torch.nn.ReLU(), torch.nn.Linear(width, width)]
        self.net = torch.nn.Sequential(*layers, torch.nn.ReLU(), torch.nn.Linear(width, FEATURES))
        self.metrics = metrics
        self.checks = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        (x,) = batch
        loss = torch.nn.functional.mse_loss(self.net(x), x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            self.checks += 1
        self.log("val_loss", torch.tensor(1.0 / self.checks, device=self.device))
        for i in range(self.metrics):
            self.log(f"metric_{i}", torch.tensor(float(i), device=self.device))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Stalls(Callback):
    """Times a method of another object, in seconds of the host; on CUDA in seconds of the device, idle ones too."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def watch(self, owner: Any, method: str) -> None:
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if not torch.cuda.is_available():
                began = time.perf_counter()
                result = inner(*args, **kwargs)
                self.seconds.append(time.perf_counter() - began)
                return result
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            before.record()
            result = inner(*args, **kwargs)
            after.record()
            after.synchronize()
            self.seconds.append(before.elapsed_time(after) / 1e3)
            return result

        setattr(owner, method, timed)


class Inside(Callback):
    """Times all hooks of the callbacks that a contender adds: what they cost a training, free of what else varies."""

    def __init__(self, callbacks: list[Callback]) -> None:
        self.seconds = 0.0
        self.callbacks = callbacks

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        brought = [c._best_model for c in self.callbacks if getattr(c, "_best_model", None) is not None]
        for callback in [*self.callbacks, *brought]:
            for hook in dir(Callback):
                if hook.startswith("on_"):
                    self.watch(callback, hook)

    def watch(self, callback: Callback, hook: str) -> None:
        inner = getattr(callback, hook)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - began

        setattr(callback, hook, timed)


def data(rows: int, batch: int) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(rows, FEATURES, generator=generator)), batch_size=batch)


def trainer(callbacks: list[Callback], folder: str, cls: Any = pl.Trainer, **options: Any) -> Any:
    plain = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
        "accelerator": "cpu",
        "devices": 1,
        "enable_checkpointing": any(isinstance(c, ModelCheckpoint) for c in callbacks),
    }
    return cls(callbacks=callbacks, **{**plain, **options})


# Time per check


def alternate(contenders: dict[str, Callable[[], object]], number: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a call of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            began = time.perf_counter()
            for _ in range(number):
                call()
            taken[name].append((time.perf_counter() - began) / number)
    return {name: statistics.median(times) for name, times in taken.items()}


class Gathered(pl.Trainer):
    """A Trainer whose metrics were gathered already."""

    callback_metrics = {f"metric_{i}": torch.tensor(1.0) for i in range(4)} | {"val_loss": torch.tensor(1.0)}


def checks(number: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the seconds of a check, by itself and inside a Trainer."""
    native = EarlyStopping("val_loss", patience=NEVER)
    lean = OURS.EarlyStopping("val_loss", patience=NEVER, name="lean")
    patience = OURS.ConvergenceStopping("val_loss", rule=Patience(NEVER), save_best=False, name="patience")
    rearm = OURS.ConvergenceStopping("val_loss", save_best=False, name="default", rule=f"Rearm(Patience({NEVER}))")
    callbacks = [native, lean, patience, rearm]
    with tempfile.TemporaryDirectory() as folder:
        held = trainer(callbacks, folder, Gathered, max_epochs=1)
        held.fit(Model(10_000), data(8, 4), data(4, 4))
        held.state.fn = "fit"
        news = {"val_loss": 1.0}
        alone = alternate(
            {
                "Lightning EarlyStopping": lambda: native._run_early_stopping_check(held),
                "EarlyStopping": lambda: lean._run_early_stopping_check(held),
                "ConvergenceStopping(rule=Patience)": lambda: patience._judge(held, news),
                "ConvergenceStopping(rule=Rearm(Patience))": lambda: rearm._judge(held, news),
            },
            number,
            rounds,
        )
    return {"by itself": alone, "in a Trainer": inside_trainers(list(alone), number // 10, max(1, rounds // 3))}


def inside_trainers(names: list[str], number: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a check at the end of validation, Lightning's gathering of metrics included."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            stall = Stalls()
            if name == "Lightning EarlyStopping":
                callback: Any = EarlyStopping("val_loss", patience=NEVER)
            elif name == "EarlyStopping":
                callback = OURS.EarlyStopping("val_loss", patience=NEVER)
            else:
                rule = Patience(NEVER) if name.endswith("(rule=Patience)") else Rearm(Patience(NEVER))
                callback = OURS.ConvergenceStopping("val_loss", rule=rule, save_best=False)
            own = hasattr(callback, "rule")
            stall.watch(callback, "on_validation_end" if own else "_run_early_stopping_check")
            with tempfile.TemporaryDirectory() as folder:
                run = trainer([callback], folder, max_epochs=1, val_check_interval=2)
                run.fit(Model(10_000), data(8 * number, 4), data(4, 4))
            taken[name] += stall.seconds[5:]
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


# A whole training


def train(contender: str, parameters: int, epochs: int, steps: int, accelerator: str) -> dict[str, Any]:
    """Train once and return wall seconds, seconds per best-save, and peak memory; run in a process of its own."""
    stalls = Stalls()
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Callback] = []
        inside = Inside(callbacks)
        if contender == LIGHTNING:
            saver = ModelCheckpoint(dirpath=folder, monitor="val_loss")
            callbacks += [EarlyStopping("val_loss", patience=NEVER), saver]
            stalls.watch(saver, "_save_checkpoint")
            watch: list[Callback] = []
        elif contender != BARE:
            keep = "disk" if contender == DISK else "memory"
            ours = OURS.ConvergenceStopping("val_loss", rule=Patience(NEVER), dirpath=folder, keep=keep)
            callbacks += [ours]

            class Watch(Callback):
                def on_train_start(self, trainer: Any, pl_module: Any) -> None:
                    stalls.watch(ours._best_model, "_take" if keep == "memory" else "_save_best")

            watch = [Watch()]
        else:
            watch = []
        torch.manual_seed(0)
        run = trainer([*callbacks, inside, *watch], folder, max_epochs=epochs, accelerator=accelerator)
        model, rows = Model(parameters), data(128 * steps, 128)
        if accelerator != "cpu":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        run.fit(model, rows, data(128, 128))
        wall = time.perf_counter() - began
    return {
        "wall": wall,
        "inside": inside.seconds,
        "stalls": stalls.seconds,
        "host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_peak": torch.cuda.max_memory_allocated() if accelerator != "cpu" else None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def in_process(contender: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.overhead", "--train", contender]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    if done.returncode:
        raise RuntimeError(f"{contender}: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def trainings(parameters: int, epochs: int, steps: int, accelerator: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Return for each contender the medians over the repeats, in turns; of wall times the least.

    Wall times vary by more than the callbacks cost, as their spread shows: the cost is the wall time against the
    wall time less what was spent inside the hooks of the callbacks.
    """
    options = ("--parameters", parameters, "--epochs", epochs, "--steps", steps, "--accelerator", accelerator)
    turns = [contender for _ in range(repeats) for contender in CONTENDERS]
    runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in CONTENDERS}
    for contender in track(turns, "training", console=Console(stderr=True)):
        runs[contender].append(in_process(contender, *options))
    table: dict[str, dict[str, Any]] = {}
    for contender, results in runs.items():
        stalls = [second for result in results for second in result["stalls"][1:]]
        table[contender] = {
            "wall": min(result["wall"] for result in results),
            "walls": [result["wall"] for result in results],
            "inside": statistics.median(result["inside"] for result in results),
            "cost": statistics.median(r["wall"] / (r["wall"] - r["inside"]) for r in results),
            "stall": statistics.median(stalls) if stalls else None,
            "host_peak": statistics.median(result["host_peak"] for result in results),
            "device_peak": results[0]["device_peak"],
            "parameters": results[0]["parameters"],
        }
    for contender in CONTENDERS:
        table[contender]["wall_ratio"] = table[contender]["wall"] / table[BARE]["wall"]
        table[contender]["spread"] = max(table[contender]["walls"]) / min(table[contender]["walls"])
    return table


# Showing


def show(results: dict[str, Any], console: Console) -> None:
    table = Table("check", "by itself", "x Lightning", "in a Trainer", "x Lightning", title="Time per check")
    alone, inside = results["checks"]["by itself"], results["checks"]["in a Trainer"]
    first = next(iter(alone))
    for name in alone:
        table.add_row(
            name,
            f"{alone[name] * 1e6:.2f} us",
            f"{alone[name] / alone[first]:.2f}",
            f"{inside[name] * 1e6:.1f} us",
            f"{inside[name] / inside[first]:.2f}",
        )
    console.print(table)
    runs = results["trainings"]
    count = runs[BARE]["parameters"]
    table = Table(
        "training", "least wall", "most / least", "x no callback", "with / without the callbacks' own time",
        "stall per save", "x Lightning", "peak memory", "x no callback",
        title=f"{results['epochs']} epochs of {results['steps']} steps, {count:,} parameters, a new best at each",
    )  # fmt: skip
    for name, run in runs.items():
        stall, base = run["stall"], runs[LIGHTNING]["stall"]
        table.add_row(
            name,
            f"{run['wall']:.2f} s",
            f"{run['spread']:.2f}",
            f"{run['wall_ratio']:.2f}",
            f"{run['cost']:.4f}",
            "" if stall is None else f"{stall * 1e3:.2f} ms",
            "" if stall is None else f"{stall / base:.3f}",
            f"{run['host_peak'] / 2**20:.0f} MiB",
            f"{run['host_peak'] / runs[BARE]['host_peak']:.2f}",
        )
    console.print(table)


def main(
    quick: Annotated[bool, typer.Option(help="Small and rough; writes no file unless --out says so.")] = False,
    parameters: Annotated[int, typer.Option(help="Size of the model in whole trainings.")] = 4_000_000,
    epochs: Annotated[int, typer.Option(help="Epochs of a whole training.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps of an epoch.")] = 120,
    repeats: Annotated[int, typer.Option(help="Whole trainings of each contender.")] = 2,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Where the results go.")] = None,
    train_one: Annotated[str | None, typer.Option("--train", hidden=True)] = None,
) -> None:
    """Measure what the callbacks cost beside Lightning's own."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if quick:
        parameters, epochs, steps, repeats = min(parameters, 200_000), 2, 4, 1
    if train_one is not None:
        print(json.dumps(train(train_one, parameters, epochs, steps, accelerator)))
        return
    results = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "torch": torch.__version__},
        "device": torch.cuda.get_device_name() if accelerator == "cuda" else "cpu",
        "epochs": epochs,
        "steps": steps,
        "checks": checks(400 if quick else 4000, 3 if quick else 15),
        "trainings": trainings(parameters, epochs, steps, accelerator, repeats),
    }
    show(results, Console())
    out = out or (None if quick else RESULTS)
    if out is not None:
        save_text(out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
