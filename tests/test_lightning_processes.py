"""ConvergenceStopping in several processes: all ranks say the same, and the main process hears of it."""

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convergence import Stopper, parse_rule

SCRIPT = Path(__file__).with_name("processes_run.py")
STEPS_PER_EPOCH = 2
GUARD = 60
NAN = math.nan

# Values are multiples of a quarter, so that averages are exact. "mean" is what the rule must have been fed.
FALLING_THEN_FLAT = {
    "values": [[8, 6, 5, 5, 5, 5, 5, 5], [8, 4, 3, 5, 5, 5, 5, 5]],
    "mean": [8, 5, 4, 5, 5, 5, 5, 5],
    "rule": "Patience(2)",
    "epochs": 8,
}
SCENARIOS = {
    "synchronised": FALLING_THEN_FLAT | {"sync": True, "options": {"restore_best": True}},
    "not_synchronised": FALLING_THEN_FLAT | {"sync": False, "warns": True, "options": {"restore_best": True}},
    "in_memory": FALLING_THEN_FLAT
    | {"sync": False, "warns": True, "options": {"restore_best": True, "keep": "memory"}},
    "beside_a_users_checkpoint": FALLING_THEN_FLAT | {"sync": True, "users_checkpoint": True},
    "without_checkpointing": FALLING_THEN_FLAT
    | {"sync": True, "enable_checkpointing": False, "options": {"restore_best": True}},
    "nan_on_one_rank": {
        "values": [[8, NAN, 4, 6, 6, 6], [8, 5, NAN, 6, NAN, 6]],
        "mean": [8, 5, 4, 6, 6, 6],
        "sync": False,
        "warns": True,
        "rule": "Patience(2) | NonFinite()",
        "epochs": 6,
        "options": {"restore_best": True},
    },
    "nan_everywhere": {
        "values": [[8, NAN, 4, 4], [6, NAN, 4, 4]],
        "mean": [7, NAN, 4, 4],
        "sync": False,
        "warns": True,
        "rule": "Patience(2) | NonFinite()",
        "epochs": 4,
        "options": {"restore_best": True},
    },
    "never_finite": {
        "values": [[NAN] * 4, [math.inf, NAN, -math.inf, NAN]],
        "mean": [NAN] * 4,
        "loosely": True,
        "sync": False,
        "warns": True,
        "rule": "Patience(2)",
        "epochs": 4,
        "options": {"restore_best": True},
    },
    "unequal_data": FALLING_THEN_FLAT | {"sync": False, "warns": True, "batches": [1, 3]},
    "unequal_data_synchronised": {
        "values": [[8, 6, 8, 8, 8, 8], [8, 2, 4, 4, 4, 4]],
        "mean": [8, 3, 5, 5, 5, 5],  # Lightning weights by the number of samples
        "sync": True,
        "rule": "Patience(2)",
        "epochs": 6,
        "batches": [1, 3],
    },
    "a_rank_without_data": FALLING_THEN_FLAT
    | {"mean": [8, 6, 5, 5, 5, 5, 5, 5], "sync": False, "warns": True, "batches": [1, 0]},
    "the_first_rank_without_data": FALLING_THEN_FLAT
    | {"mean": [8, 4, 3, 5, 5, 5, 5, 5], "sync": False, "warns": True, "batches": [0, 1]},
    "one_alone_would_stop": {
        "values": [[16, 12, 8, 4, 2, 1], [4, 4, 4, 4, 4, 4]],
        "mean": [10, 8, 6, 4, 3, 2.5],
        "sync": False,
        "warns": True,
        "rule": "Patience(2)",
        "epochs": 6,
        "options": {"restore_best": True},
    },
    "none_alone_would_stop": {
        "values": [[10, 8, 12, 6, 14, 4], [10, 12, 8, 14, 6, 16]],
        "mean": [10, 10, 10, 10, 10, 10],
        "sync": False,
        "warns": True,
        "rule": "Patience(4)",
        "epochs": 6,
        "options": {"restore_best": True},
    },
    "by_steps": {
        "monitor": "train_value",
        "values": [[8, 6, 5, 5, 5, 5, 5, 5], [8, 4, 3, 5, 5, 5, 5, 5]],
        "mean": [8, 5, 4, 5, 5, 5, 5, 5],
        "each": 1,
        "sync": False,
        "warns": True,
        "rule": "Patience(2)",
        "epochs": 4,
        "options": {"restore_best": True, "every_n_steps": 1},
    },
    "the_same_callback_again": {
        "reuses": "synchronised",
        "values": [[8, 7, 9, 9, 9, 9], [8, 7, 9, 9, 9, 9]],
        "mean": [8, 7, 9, 9, 9, 9],
        "sync": True,
        "rule": "Patience(2)",
        "epochs": 6,
        "options": {"restore_best": True},
    },
    "after_a_fit_of_the_main_process": FALLING_THEN_FLAT
    | {"reuses": "alone", "sync": True, "options": {"restore_best": True}},
    "clocks_differ": {
        "values": [[8 - 0.25 * epoch for epoch in range(20)]] * 2,
        "sync": True,
        "rule": "Budget(seconds=0.8)",
        "epochs": 20,
        "pause": 0.05,
        "clock_speeds": [1, 3],
        "late": [0, 0.3],
    },
}
FOUR = {
    "four_not_synchronised": {
        "values": [[8, 6, 5, 5, 5, 5], [8, 4, 3, 5, 5, 5], [4, 4, 4, 4, 4, 4], [12, 6, NAN, 10, NAN, 10]],
        "mean": [8, 5, 4, 6, 14 / 3, 6],
        "loosely": True,
        "sync": False,
        "warns": True,
        "rule": "Patience(2)",
        "epochs": 6,
        "batches": [1, 2, 3, 1],
        "options": {"restore_best": True},
    },
}
ALONE = {
    "alone": {
        "strategy": "auto",
        "values": [[8, 7, 9, 9, 9, 9]],
        "mean": [8, 7, 9, 9, 9, 9],
        "sync": False,
        "rule": "Patience(2)",
        "epochs": 6,
        "options": {"restore_best": True},
    },
}
EVERY = ALONE | SCENARIOS | FOUR


def launched(strategy, scenarios, folder):
    """Run the scenarios in one launch, which may take no longer than the guard; return the files of each."""
    folder.joinpath("scenarios.json").write_text(json.dumps({name: EVERY[name] for name in scenarios}))
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), strategy, str(folder)],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        code = process.wait(GUARD)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{strategy} hung: no end in {GUARD} s\n{output.read_text()}")
    finally:
        with contextlib.suppress(ProcessLookupError):  # raised when none of its group is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert code == 0, f"{strategy} ended with {code}\n{output.read_text()}"
    return {
        name: {path.stem: json.loads(path.read_text()) for path in (folder / name).glob("*.json")} for name in scenarios
    }


def expected(scenario):
    """What the rule says when it is fed the average over ranks: after each value, up to the stop."""
    stopper = Stopper(parse_rule(scenario["rule"]), monitor=scenario.get("monitor", "val_loss"), mode="min")
    each = scenario.get("each", STEPS_PER_EPOCH)
    for number, value in enumerate(scenario["mean"], 1):
        decision = stopper.update(value, step=number * each)
        yield {
            "stop": decision.stop,
            "reason": str(decision.reason),
            "message": decision.message,
            "best": stopper.best and [stopper.best.step, stopper.best.value],
        }
        if decision.stop:
            return


def differing(one, other, keys):
    return {key: (one[key], other[key]) for key in sorted(keys) if one[key] != other[key]}


def check(name, files, returns):
    """Check what the processes of one scenario wrote; `returns` are the ranks that come back from the fit."""
    scenario = EVERY[name]
    ranks = [files[f"rank{rank}"] for rank in range(len(scenario["values"]))]
    said = [line for rank in ranks for line in rank.pop("said") if "sync_dist=True" in line]
    said = [line for line in said if "It is recommended to use" not in line]  # Lightning's own
    assert len(said) == bool(scenario.get("warns")), said
    first = ranks[0]
    for rank, other in enumerate(ranks[1:], 1):
        wrong = differing(other, first, first.keys())
        assert not wrong, f"rank {rank} and rank 0: {wrong}"
    # The Trainer of a process that only launched others does not know how far they went, nor, if told to keep no
    # checkpoints, of the callback's.
    unknown = {"decisions"} if len(returns) > 1 else {"decisions", "epoch", "global_step"}
    if not scenario.get("enable_checkpointing", True):
        unknown.add("trainers_path")
    for rank in returns:
        wrong = differing(files[f"after{rank}"], first, first.keys() - unknown)
        assert not wrong, f"after the fit and in it (process {rank}): {wrong}"
    assert f"after{len(returns)}" not in files
    check_verdict(scenario, first)
    check_best(scenario, first, files["after0"])


def check_verdict(scenario, first):
    decision = first["decision"]
    if scenario["rule"].startswith("Budget"):
        assert decision["stop"]
        assert decision["reason"] == "budget_exhausted"
        assert 0 < first["stopped_epoch"] < scenario["epochs"] - 1
        return
    *_, last = steps = list(expected(scenario))
    each = scenario.get("each", STEPS_PER_EPOCH)
    assert first["global_step"] == len(steps) * each
    assert (decision["stop"], decision["reason"]) == (last["stop"], last["reason"])
    if not scenario.get("loosely"):
        assert decision["message"] == last["message"]
    if last["best"] is None:
        assert first["best"] is None
    else:
        assert first["best"][0] == last["best"][0]
        assert float(first["best"][1]) == pytest.approx(last["best"][1], rel=1e-6)
    # stopped_epoch is 0 where the rule did not stop, as in Lightning's own.
    assert first["stopped_epoch"] == ((first["global_step"] - 1) // STEPS_PER_EPOCH if last["stop"] else 0)
    reasons = [seen["decision"] and seen["decision"]["reason"] for seen in first["decisions"][1:]]
    if each == STEPS_PER_EPOCH:
        assert reasons == [step["reason"] for step in steps[: len(reasons)]]


def check_best(scenario, first, after):
    path = first["best_model_path"]
    if first["best"] is None:
        assert path == ""
        return
    assert Path(path).is_file()
    assert first["saved_step"] == first["best"][0] or scenario.get("options", {}).get("keep") == "memory"
    if scenario.get("options", {}).get("restore_best"):
        assert first["weights"] == first["saved_weights"]
        assert after["weights"] == first["saved_weights"]
    if scenario.get("users_checkpoint"):
        assert Path(first["trainers_path"]).name.startswith("theirs-")
    elif scenario.get("enable_checkpointing", True):
        assert first["trainers_path"] == path


def check_all(results, returns):
    failures = {}
    for name, files in results.items():
        try:
            check(name, files, range(len(EVERY[name]["values"])) if returns == "ranks" else range(1))
        except (AssertionError, KeyError) as error:
            failures[name] = f"{type(error).__name__}: {error}"
    assert not failures, "\n".join(itertools.starmap("{}: {}".format, failures.items()))


def test_two_processes_of_a_launched_script_agree(tmp_path):
    check_all(
        launched("ddp", [name for name in SCENARIOS if SCENARIOS[name].get("reuses") != "alone"], tmp_path), "ranks"
    )


def test_forked_processes_agree_and_the_main_process_knows(tmp_path):
    check_all(launched("ddp_fork", [*ALONE, *SCENARIOS], tmp_path), "main")


def test_four_processes_agree(tmp_path):
    check_all(launched("ddp_notebook", list(FOUR), tmp_path), "main")


def test_spawned_processes_agree_and_the_main_process_knows(tmp_path):
    check_all(launched("ddp_spawn", ["not_synchronised"], tmp_path), "main")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nan_on_one_rank", "in_memory", "without_checkpointing", "clocks_differ", *FOUR])
def test_spawned_processes_agree(name, tmp_path):
    check_all(launched("ddp_spawn", [name], tmp_path), "main")


@pytest.mark.slow
def test_four_processes_of_a_launched_script_agree(tmp_path):
    check_all(launched("ddp", list(FOUR), tmp_path), "ranks")
