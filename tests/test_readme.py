"""The README's Python runs as it stands, and prints what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


PROGRAM = next(code for code in BLOCKS if "__main__" in code)


@pytest.mark.parametrize("code", [code for code in BLOCKS if code is not PROGRAM], ids=range(len(BLOCKS) - 1))
def test_python_of_the_readme_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    said = re.search(r"print\(stopper.best\).*?: (.*)", code)
    if said:
        assert capsys.readouterr().out.endswith(said[1] + "\n")


def test_the_lightning_program_stops_by_itself(tmp_path):
    root = Path(__file__).parents[1]
    assert (root / "benchmarks/lightning_example.py").read_text().endswith(PROGRAM)
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.lightning_example"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "plateaued - val_loss did not improve on" in run.stdout
    best, restored = (
        float(re.search(rf"{word}(\S+?)[)\s]", run.stdout)[1]) for word in ("value=", "restored val_loss ")
    )
    assert best == restored
    assert int(re.search(r"after (\d+) epochs", run.stdout)[1]) < 300
    (path,) = tmp_path.rglob("best-*.ckpt")
    assert str(path) in run.stdout.replace("\n", "")


def test_there_are_examples_and_two_commands():
    assert len(BLOCKS) >= 4
    commands = re.findall(r"^pip install .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert "convergence judge benchmarks/curves" in commands[0]
    assert "-c tests/constraints.txt" in commands[1]
    assert "pytest" in commands[1]
