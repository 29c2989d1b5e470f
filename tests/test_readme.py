"""The README's Python runs as it stands, and prints what it says."""

import json
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
    assert re.search(r"(converged|overfitting|plateaued) - val_loss (has|is)", run.stdout)
    assert "of the gain on average over runs (tolerance 1 %)" in run.stdout.replace("\n", " ")
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


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
OWN, PUBLIC = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("quality", "quality_public"))


def percent(share):
    return f"{100 * share:.0f} %"


def member(results, family, rule):
    (found,) = (one for one in results["families"][family]["members"] if one["rule"] == rule)
    return found


def ratio(results, family):
    entry = results["families"][family]
    low, high = entry["ratio_interval"]
    return f"{entry['ratio_to_patience']:.2f} ({low:.2f} to {high:.2f})"


def told():
    """What the README says was found, put together from the results."""
    lightning, lightning_public = (
        member(results, "Lightning EarlyStopping", "presets.lightning(patience=3)") for results in (OWN, PUBLIC)
    )
    yield (
        f"with patience 3, as Lightning comes, a run uses {percent(lightning['budget'])} of its budget and loses "
        f"{percent(lightning['regret'])} of the gain on the recorded suite, {percent(lightning_public['budget'])} and "
        f"{percent(lightning_public['regret'])} on public runs"
    )
    ten, fifty = (member(OWN, "Patience", f"Patience({count})") for count in (10, 50))
    yield (
        f"`Patience(10)` loses {percent(ten['regret'])} for {percent(ten['budget'])} of the budget, `Patience(50)` "
        f"{percent(fifty['regret'])} for {percent(fifty['budget'])}"
    )
    yield f"{ratio(OWN, 'fixed fraction')} of what patience loses at equal budget; {ratio(PUBLIC, 'fixed fraction')}"
    yield f"`SmoothedSlope` loses {ratio(OWN, 'SmoothedSlope')} of it; {ratio(PUBLIC, 'SmoothedSlope')}"
    scheduled = OWN["regimes"]["scheduled"]["rules"]
    blind, rearmed = (scheduled[rule] for rule in ("Patience(10)", "Rearm(Patience(10))"))
    early = percent(member(OWN, "Patience", "Patience(10)")["before_first_drop"])
    assert member(OWN, "Rearm(Patience)", "Rearm(Patience(10))")["before_first_drop"] == 0
    yield (
        f"`Patience(10)` stops before the first drop of the learning rate in {early} of the runs that have one, "
        "`Rearm(Patience(10))` never"
    )
    yield (
        f"it loses {100 * rearmed['regret']:.1f} % and not {100 * blind['regret']:.1f} %, for "
        f"{percent(rearmed['budget'])} of the budget and not {percent(blind['budget'])}"
    )
    yield f"the best stops in hindsight would lose {ratio(OWN, 'limit in hindsight')}"
    share, slope = (
        member(OWN, "fixed fraction", "0.7 of plan"),
        member(OWN, "SmoothedSlope", "SmoothedSlope(20, tol=0.001)"),
    )
    yield f"0.7 of the plan loses {100 * share['regret']:.1f} %"
    lost, used = f"{100 * slope['regret']:.1f} %", percent(slope["budget"])
    yield f"`SmoothedSlope(20, tol=0.001)` loses {lost} for {used} of the budget"
    dear = OWN["regimes"]["scheduled"]["ratio_to_patience"]["Rearm(Patience)"]
    yield f"`Rearm(Patience)` loses {dear:.2f} of what patience loses on scheduled runs"
    ratios = [
        "{:.2f} ({:.2f} to {:.2f})".format(patience["ratio"], *patience["interval"])
        for results in (PUBLIC, OWN)
        for told_what in ("Auto, progress", "Auto")
        for patience in [results["auto"]["against"][told_what]["patience"]]
    ]
    yield (
        f"`Auto` loses {ratios[0]} of what patience loses at budgets from 0.5 to 0.9 on public runs where it is told "
        f"the plan and {ratios[1]} where it is not; {ratios[2]} and {ratios[3]} on the recorded suite"
    )
    with_plan, without = (
        next(row for row in PUBLIC["auto"]["promise"][told_what] if row["tolerance"] == 0.01)
        for told_what in ("Auto, progress", "Auto")
    )
    yield (
        f"`Auto(0.01)` loses {100 * with_plan['regret']:.1f} % of the gain for {percent(with_plan['budget'])} of the "
        f"budget with the plan, {100 * without['regret']:.1f} % for {percent(without['budget'])} without"
    )
    yield (
        f"in the source that fared worst {100 * with_plan['worst_regret']:.1f} % and "
        f"{100 * without['worst_regret']:.1f} %"
    )
    drops = OWN["auto"]["scheduled"]["Auto, lr and lr_ahead"]
    assert drops["before_the_last_drop_that_mattered"] == 0
    yield f"told the schedule it never stopped before a drop that mattered, and lost {100 * drops['regret']:.2f} %"
    suite, public = OWN["suite"], PUBLIC["suite"]
    yield f"{suite['runs']} runs ({suite['curves']} curves, {suite['tasks']} pairs of task and architecture)"
    manifest = json.loads((RESULTS.parent / "curves" / "manifest.json").read_text())
    yield f"in {manifest['cpu_seconds'] / 60:.0f} CPU minutes"
    yield f"`Rearm(Patience)` loses {ratio(OWN, 'Rearm(Patience)')} of what patience loses at equal budget"
    yield f"{public['runs']:,} public runs of {len(public['sources'])} sources"


@pytest.mark.parametrize("said", list(told()))
def test_what_was_found_is_what_the_results_say(said):
    assert " ".join(said.split()) in " ".join(README.split())


@pytest.mark.parametrize("results", [OWN, PUBLIC], ids=["recorded", "public"])
def test_a_larger_tolerance_of_auto_uses_less_budget(results):
    for name, rows in results["auto"]["promise"].items():
        budgets = [row["budget"] for row in rows]
        assert budgets == sorted(set(budgets), reverse=True), name
        low, high = results["auto"]["against"][name]["reach"]
        assert low <= 0.55
        assert high >= 0.85


@pytest.mark.parametrize("results", [OWN, PUBLIC], ids=["recorded", "public"])
def test_presets_stopped_where_the_peers_did(results):
    peers = [entry["peer"] for entry in results["families"].values() if "peer" in entry]
    assert len(peers) >= 12
    assert all(peer["preset_stops_equal"] == peer["preset_stops_compared"] > 1000 for peer in peers)
