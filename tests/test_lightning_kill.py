"""Training killed again and again, or out of disk space, through ConvergenceStopping."""

import contextlib
import functools
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("kill_run.py")
STEPS_PER_EPOCH = 8
DEADLINE = 60
SAME = ("global_step", "stopped_epoch", "best_step", "best_value", "stop", "reason", "message", "weights")
SAME_IN_REPORT = ("ended_by", "verdict", "rule", "best", "history")
VARIANTS = {"disk": {}, "memory": {"keep": "memory"}, "halves": {"halves": True}}


def other_disk():
    """A folder on another file system than temporary files of tests, if there is one: files are copied from there."""
    shared = "/dev/shm"
    if os.access(shared, os.W_OK) and os.stat(shared).st_dev != os.stat(tempfile.gettempdir()).st_dev:
        return shared
    return None


ELSEWHERE = other_disk()
needs_other_disk = pytest.mark.skipif(ELSEWHERE is None, reason="needs /dev/shm on a disk of its own")


class Runs:
    """A process that forks one training for each request."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.temporary = Path(tempfile.mkdtemp(dir=ELSEWHERE)) if ELSEWHERE else folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        (folder / "elsewhere").mkdir()
        self.errors = folder / "serve.txt"
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")]),
        }
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=folder / "elsewhere",
                env=environment,
                bufsize=0,
            )
        assert self.line() == "ready"

    def line(self, deadline=DEADLINE):
        """Return the next line of the process; fail after the deadline."""
        end = time.monotonic() + deadline
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))
            if not ready:
                pytest.fail(f"no answer in {deadline} s\n{self.errors.read_text()}")
            new = os.read(self.process.stdout.fileno(), 1)
            if not new:
                pytest.fail(f"the serving process ended\n{self.errors.read_text()}")
            line += new
        return line.decode().strip()

    def run(self, directory, *, resume=None, sabotage=None, killer=None, variant="disk"):
        """Run one request; return how it ended, and its result if it came to one."""
        self.count += 1
        out, log = self.folder / f"{self.count}.json", self.folder / f"{self.count}.txt"
        request = {
            "directory": str(directory),
            "root": str(directory.parent),
            "out": str(out),
            "log": str(log),
            "resume": resume and str(resume),
            "sabotage": sabotage,
            "progress": str(directory.parent / "progress.txt"),
        } | VARIANTS[variant]
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        child = int(self.line())
        if killer:
            killer(child)
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
        if not ready:
            os.kill(child, signal.SIGKILL)
            self.line()
            pytest.fail(f"a training took more than {DEADLINE} s\n{log.read_text()}")
        code = int(self.line())
        assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ), f"ended with {code}, from {resume}\n{log.read_text()}"
        assert code == 0 or killer or sabotage, f"killed by nobody with {code}\n{log.read_text()}"
        return code, json.loads(out.read_text()) if code == 0 else None

    def close(self):
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(DEADLINE)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.temporary)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    serving = Runs(tmp_path_factory.mktemp("runs"))
    yield serving
    serving.close()


@pytest.fixture(scope="module")
def undisturbed(runs, tmp_path_factory):
    """The result of a variant that nobody kills."""

    @functools.cache
    def result_of(variant):
        code, result = runs.run(tmp_path_factory.mktemp("undisturbed") / "checkpoints", variant=variant)
        assert code == 0
        return result

    return result_of


def loaded(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def checkpoints(directory):
    """Load every checkpoint in the directory; return the paths, oldest first."""
    paths = sorted(directory.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    for path in paths:
        try:
            content = loaded(path)
        except Exception as error:
            pytest.fail(f"{path.name} of {path.stat().st_size} bytes does not load: {error!r}")
        assert content["global_step"] > 0
        assert content["state_dict"]
    return paths


def stale(directory):
    """Names in the directory that are not checkpoints or the written verdict."""
    if not directory.exists():
        return set()
    return {path.name for path in directory.iterdir() if path.suffix not in (".ckpt", ".json")}


def after(seconds):
    """Kill when so many seconds have gone by."""

    def killer(child):
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    return killer


def at_change(directory, changes, seconds=5.0):
    """Kill as soon as names in the directory, or their sizes, have changed so many times."""

    def look():
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
        return None

    def killer(child):
        seen, left, end = look(), changes, time.monotonic() + seconds
        while left and time.monotonic() < end:
            new = look()
            if new is not None and new != seen:
                seen, left = new, left - 1
            time.sleep(0.0002)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    return killer


def plan(kind, rng, directory, undisturbed):
    """Return what shall go wrong in the process, and who kills it from outside."""
    if kind == "clock":
        return None, after(rng.uniform(0.05, 0.6) * undisturbed["seconds"])
    if kind == "change":
        return None, at_change(directory, rng.randint(1, 12))
    if kind == "between":
        return {"kind": "between", "operations": rng.randint(1, 24)}, None
    size = max((path.stat().st_size for path in directory.glob("*.ckpt")), default=50_000)
    wish = {"kind": "write", "bytes": rng.randint(size // 50, size * 9 // 10)}
    if kind == "waiting":  # while the rule counts its last misses
        return wish | {"epoch": undisturbed["stopped_epoch"] - 1, "at": "end"}, None
    wish |= {"epochs": rng.randint(0, 2), "at": rng.choice(["start", "validated", "end"])}
    return wish | {"inside": kind == "copy" and ELSEWHERE is not None}, None


def same(result):
    """What must not depend on having been killed."""
    return {name: result[name] for name in SAME} | {name: result["report"][name] for name in SAME_IN_REPORT}


def chain(runs, undisturbed, folder, kinds, seed, variant="disk"):
    """Kill as often as there are kinds, resume each time from the newest checkpoint; return how each kill ended.

    A training that comes to its end before it is killed must have ended as the undisturbed one; then a new one begins.
    """
    rng = random.Random(seed)
    kinds = list(kinds)
    ends, newest, used, begun = [], None, set(), 0
    directory = folder / "0" / "checkpoints"
    directory.parent.mkdir()
    for _ in range(6 * len(kinds) + 6):
        sabotage, killer = plan(kinds[0], rng, directory, undisturbed) if kinds else (None, None)
        code, result = runs.run(directory, resume=newest, sabotage=sabotage, killer=killer, variant=variant)
        found = checkpoints(directory)
        if code:
            newest = found[-1] if found else None
            used.add(newest)
            ends.append((kinds.pop(0), code, newest and (newest.name, loaded(newest)["global_step"])))
            progress = directory.parent / "progress.txt"
            done = int(progress.read_text().split()[-1]) if progress.exists() else 0
            # An epoch may have ended without its checkpoint having been written: that one, and no more.
            kept = loaded(newest)["global_step"] if newest else 0
            assert kept >= done - STEPS_PER_EPOCH, f"{done} steps were done, {newest} has {kept}: {ends}"
            continue
        assert same(result) == same(undisturbed), ends
        assert result["weights"] == result["saved_weights"], ends
        assert loaded(result["best_model_path"])["global_step"] == result["best_step"], ends
        last = directory / "last.ckpt"
        assert loaded(last)["global_step"] == result["global_step"], ends
        # Lightning does not remove the checkpoint that a session was resumed from.
        assert {path for path in found if path not in used} - {last} == {Path(result["best_model_path"])} - used, ends
        assert stale(directory) == set(), ends
        if not kinds:
            return ends
        begun += 1
        directory = folder / str(begun) / "checkpoints"
        directory.parent.mkdir()
        newest, used = None, set()
    pytest.fail(f"no end: {ends}, {kinds} left")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_undisturbed_run_stops_by_its_rule_after_its_best(undisturbed, variant):
    result = undisturbed(variant)
    assert result["stop"]
    assert result["reason"] == "plateaued"
    assert result["global_step"] >= result["best_step"] + 4 * STEPS_PER_EPOCH // (2 if variant == "halves" else 1)
    assert result["best_step"] > 8 * STEPS_PER_EPOCH  # the learning rate fell for the last time there
    assert result["stopped_epoch"] == (result["global_step"] - 1) // STEPS_PER_EPOCH
    assert result["weights"] == result["saved_weights"]
    assert loaded(result["best_model_path"])["global_step"] == result["best_step"]
    values = {check["step"]: check["metrics"]["val_loss"] for check in result["report"]["history"]}
    assert min(values.values()) == values[result["best_step"]] == float.fromhex(result["best_value"])


def test_a_run_killed_three_times_ends_as_if_undisturbed(runs, undisturbed, tmp_path):
    ends = chain(runs, undisturbed("disk"), tmp_path, ["clock", "copy", "waiting"], seed=1)
    assert [end[:2] for end in ends] == [
        ("clock", -signal.SIGKILL),
        ("copy", -signal.SIGXFSZ),
        ("waiting", -signal.SIGXFSZ),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_twenty_five_times_ends_as_if_undisturbed(runs, undisturbed, tmp_path, seed, variant):
    kinds = ["clock", "write", "change", "between", "copy"] * 4 + ["waiting"] * 5
    random.Random(seed).shuffle(kinds)
    ends = chain(runs, undisturbed(variant), tmp_path, kinds, seed, variant)
    assert len(ends) == 25


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes, mounted over the folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("mounting a small file system is not allowed here")


def fails_for_want_of_room(runs, directory, kind, epochs, at, inside=False):
    before = set(runs.temporary.iterdir())
    code, result = runs.run(directory, sabotage={"kind": kind, "epochs": epochs, "at": at, "inside": inside})
    assert code == 0
    error = result["error"]
    assert error, "the failure was swallowed"
    assert error["os_error"], error
    assert str(directory) in error["text"], error
    assert result["best_model_path"] == result["before"]["path"]
    path = Path(result["best_model_path"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == result["before"]["bytes"]
    assert path in checkpoints(directory)
    assert stale(directory) - {"filler"} == set()
    assert set(runs.temporary.iterdir()) == before
    return error


@pytest.mark.parametrize("inside", [False, pytest.param(True, marks=needs_other_disk)], ids=["anywhere", "inside"])
@pytest.mark.parametrize(("epochs", "at"), [(2, "start"), (2, "end")], ids=["best", "last"])
def test_a_file_that_cannot_grow_ends_in_a_clear_error(runs, tmp_path, epochs, at, inside):
    error = fails_for_want_of_room(runs, tmp_path / "checkpoints", "limit", epochs, at, inside)
    assert "File too large" in error["text"]


@pytest.mark.parametrize(("epochs", "at"), [(2, "start"), (2, "end")], ids=["best", "last"])
def test_a_full_disk_ends_in_a_clear_error(runs, tmp_path, epochs, at):
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        error = fails_for_want_of_room(runs, disk / "checkpoints", "fill", epochs, at)
    assert "No space left" in error["text"]
