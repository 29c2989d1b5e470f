"""The README's Python runs as it stands, and prints what it says."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_of_the_readme_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    said = re.search(r"print\(stopper.best\).*?: (.*)", code)
    if said:
        assert capsys.readouterr().out.endswith(said[1] + "\n")


def test_there_are_examples_and_two_commands():
    assert len(BLOCKS) >= 4
    commands = re.findall(r"^pip install .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert "convergence judge benchmarks/curves" in commands[0]
    assert "-c tests/constraints.txt" in commands[1]
    assert "pytest" in commands[1]
