"""Draw the figures of what stopping costs and saves, from the results that `benchmarks.quality` wrote.

Run it with ``python -m benchmarks.figures``.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from benchmarks.command_line import Mistake, run_command
from benchmarks.families import CLAIRVOYANT, LIMIT, NAIVE
from benchmarks.quality import RESULTS
from benchmarks.whole_file import write_whole
from convergence.score import LEAST_REGRET

# Okabe and Ito's colours, which people with any colour vision can tell apart; line styles tell them apart in print.
STYLES: dict[str, tuple[str, str, str]] = {
    "Patience": ("#000000", "-", "o"),
    "Patience, share of plan": ("#E69F00", "-", "s"),
    "Auto": ("#56B4E9", "-", "v"),
    "Auto, progress": ("#56B4E9", "--", "v"),
    "Rearm(Patience)": ("#009E73", "-", "D"),
    "SmoothedSlope": ("#0072B2", "-.", "^"),
    "GeneralizationLoss": ("#CC79A7", "--", "P"),
    "SuccessiveRises": ("#D55E00", "-.", "X"),
    "ProgressQuotient": ("#8C6D00", ":", "*"),
    NAIVE: ("#777777", ":", ""),
    CLAIRVOYANT: ("#777777", "--", ""),
    LIMIT: ("#777777", "-", ""),
}
REGIME_RULES = (
    ("Patience(3)", "#000000", "o"),
    ("Patience(10)", "#0072B2", "s"),
    ("Patience(50)", "#56B4E9", "D"),
    ("Patience(0.1 of plan)", "#E69F00", "^"),
    ("Rearm(Patience(10))", "#009E73", "v"),
    ("SmoothedSlope(20, tol=0.001)", "#CC79A7", "P"),
    ("0.5 of plan", "#D55E00", "X"),
)
TITLES = {"quality": "recorded suite", "quality_public": "public runs"}

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise Mistake("figures need matplotlib: pip install 'convergence-engine[plots]'") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})
    return plt


def regret_against_budget(suites: dict[str, dict[str, Any]]) -> Any:
    """Return the figure of every family's frontier, with the limit and the peers as they come.

    Parameters
    ----------
    suites : dict of str to results
        One panel each.
    """
    plt = _pyplot()
    figure, panels = plt.subplots(1, len(suites), figsize=(5.6 * len(suites), 5.4), squeeze=False, sharey=True)
    entries: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    partly: set[str] = set()
    for panel, (title, results) in zip(panels[0], suites.items(), strict=True):
        for name, (colour, line, marker) in STYLES.items():
            entry = results["families"].get(name)
            if entry is None or not entry["frontier"]["budget"]:
                continue
            (drawn,) = panel.plot(
                entry["frontier"]["budget"], _visible(entry["frontier"]["regret"]), line, color=colour, marker=marker,
                markersize=4, linewidth=2.2 if name == LIMIT else 1.4, label=name,
            )  # fmt: skip
            entries.setdefault(name, drawn)
            if entry["curves"] < results["suite"]["curves"]:
                partly.add(name)
        for name, entry in results["families"].items():
            for member in entry["members"]:
                if entry.get("peer") and member["rule"] == entry["peer"]["default"]:
                    at = member["budget"], _visible([member["regret"]])[0]
                    panel.plot(*at, "o", mfc="none", mec="#8A3B00", ms=6)
                    number = numbers.setdefault(name, len(numbers) + 1)
                    # Peers that stop alike would hide each other's number.
                    offset = (3, 4) if number % 2 else (-7, -11)
                    panel.annotate(
                        str(number), at, textcoords="offset points", xytext=offset, fontsize=7, color="#8A3B00"
                    )
        panel.set(
            xlim=(0, 1), yscale="log", xlabel="budget: share of the run that was trained",
            title=f"{title}: {results['suite']['runs']} runs, {results['suite']['curves']} curves",
        )  # fmt: skip
        panel.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    panels[0][0].set_ylabel(f"regret: share of the gain lost ({LEAST_REGRET:g}: nothing)")
    columns = 2 * len(suites)
    labels = [f"{name} *" if name in partly else name for name in entries]
    figure.legend(
        entries.values(),
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.07),
        ncols=columns,
        frameon=False,
        fontsize=8,
    )
    notes = ["* on the public runs only where the planned length, or a training curve, is known"] if partly else []
    if numbers:
        names = ", ".join(f"{number} {name.removesuffix(' EarlyStopping')}" for name, number in numbers.items())
        notes.append(f"circles: peers as they come: {names}")
    figure.supxlabel(fill("; ".join(notes), 75 * len(suites)), fontsize=8, color="#8A3B00")
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


def _visible(regrets: Sequence[float]) -> list[float]:
    """Return regrets that a logarithmic axis can show: nothing lost is drawn at the bottom."""
    return [max(regret, LEAST_REGRET) for regret in regrets]


def regret_by_regime(results: dict[str, Any], title: str) -> Any:
    """Return the figure of regret and budget of some rules in each regime.

    Parameters
    ----------
    results : dict
        What `benchmarks.quality` wrote.
    title : str
        Name of the suite.
    """
    plt = _pyplot()
    regimes = list(results["regimes"])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.8, 0.55 * len(regimes) + 2.2), sharey=True)
    for row, regime in enumerate(regimes):
        for offset, (rule, colour, marker) in enumerate(REGIME_RULES):
            found = results["regimes"][regime]["rules"].get(rule)
            if found is None:
                continue
            height = row + (offset - (len(REGIME_RULES) - 1) / 2) * 0.09
            label = rule if row == 0 else None
            left.plot(_visible([found["regret"]]), [height], marker, color=colour, markersize=5, label=label)
            right.plot([found["budget"]], [height], marker, color=colour, markersize=5)
    for panel in (left, right):
        panel.grid(visible=True, axis="x", color="#dddddd", linewidth=0.6)
        for row in range(len(regimes) - 1):
            panel.axhline(row + 0.5, color="#eeeeee", linewidth=0.8)
    counts = [f"{regime.replace('_', ' ')} ({results['regimes'][regime]['curves']})" for regime in regimes]
    left.set(
        yticks=range(len(regimes)),
        yticklabels=counts,
        xscale="log",
        xlabel=f"regret ({LEAST_REGRET:g}: nothing lost)",
        title=title,
    )
    left.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="budget")
    figure.legend(*left.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.5 / (0.55 * len(regimes) + 2.2), 1, 1))
    return figure


def gallery(results: dict[str, Any]) -> Any:
    """Return the figure of runs on which rules disagree: where each of them stops.

    Parameters
    ----------
    results : dict
        What `benchmarks.quality` wrote for the recorded suite.
    """
    plt = _pyplot()
    shown = results["gallery"]
    rows = -(-len(shown) // 3)
    figure, panels = plt.subplots(rows, 3, figsize=(11, 2.7 * rows), squeeze=False)
    for panel in panels.ravel()[len(shown) :]:
        panel.set_axis_off()
    for panel, one in zip(panels.ravel(), shown, strict=False):
        loss = [float("nan") if value is None else value for value in one["loss"]]
        finite = sorted(value for value in loss if value == value)
        panel.plot(loss, color="#444444", linewidth=1)
        low, high = finite[0], finite[int(0.98 * (len(finite) - 1))]
        panel.set(title=f"{one['run']} ({one['regime'].replace('_', ' ')})", xlim=(-0.5, len(loss) - 0.5))
        panel.title.set_fontsize(8)
        panel.set_ylim(low - 0.35 * (high - low), high + 0.05 * (high - low))
        if one["lr"] and min(one["lr"]) < 0.99 * max(one["lr"]):
            rate = panel.twinx()
            rate.plot(one["lr"], color="#999999", linewidth=0.7, linestyle=":")
            rate.set_yscale("log")
            rate.yaxis.set_visible(False)
        for rank, (rule, colour, marker) in enumerate(REGIME_RULES):
            at = one["stops"].get(rule)
            if at is None:
                continue
            at = len(loss) - 1 if at < 0 else at
            height = low - (0.04 + 0.042 * rank) * (high - low)
            panel.plot([at], [height], marker, color=colour, markersize=5, label=rule, clip_on=False)
        best = loss.index(finite[0])
        panel.plot([best], [finite[0]], "k+", markersize=9, label="best of the run")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel("evaluation (dotted: learning rate; at the right end: never stopped)", fontsize=8, y=0.075)
    figure.supylabel("validation loss", fontsize=8)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    return figure


def auto_reliability(suites: dict[str, dict[str, Any]]) -> Any:
    """Return the figure of how often prefixes were done against how sure the networks of Auto said they were.

    Parameters
    ----------
    suites : dict of str to results
        One panel each, of `benchmarks.quality --rules auto`.
    """
    plt = _pyplot()
    figure, panels = plt.subplots(1, len(suites), figsize=(4.6 * len(suites), 4.8), squeeze=False, sharey=True)
    kinds = (("unplanned", "planned length unknown", "#000000", "o"), ("planned", "known", "#0072B2", "s"))
    for panel, (title, results) in zip(panels[0], suites.items(), strict=True):
        panel.plot([0, 1], [0, 1], ":", color="#777777")
        for name, label, colour, marker in kinds:
            found = results["auto"]["prefixes"][name]
            rows = found["reliability"]
            sure = label if found["area"] is None else f"{label}, area under ROC {found['area']:.2f}"
            panel.plot(
                [r["said"] for r in rows], [r["was"] for r in rows], "-", color=colour, marker=marker, label=sure
            )
        panel.set(title=title, xlim=(0, 1), ylim=(0, 1), xlabel="chance said that at most 1 % is still to come")
        panel.grid(visible=True, color="#dddddd", linewidth=0.6)
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    panels[0][0].set_ylabel("share of prefixes in which that was so")
    figure.supxlabel("prefixes of 25, 50 and 75 % of each run, by networks that have not seen its source", fontsize=8)
    figure.tight_layout()
    return figure


def draw(folder: Path) -> dict[str, Any]:
    """Return the figures that the results in a folder allow, by file name.

    Raises
    ------
    Mistake
        No results in the folder, or some that are not what `benchmarks.quality` writes.
    """
    files = {name: folder / f"{name}.json" for name in TITLES}
    found: dict[str, Any] = {}
    for name, path in files.items():
        if path.is_file():
            try:
                found[name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise Mistake(f"{path}: not readable as JSON: {error}") from None
    if not found:
        raise Mistake(f"{folder}: none of {', '.join(path.name for path in files.values())}")
    try:
        figures = {"regret_budget.png": regret_against_budget({TITLES[name]: found[name] for name in found})}
        for name, results in found.items():
            figures[f"regime_{name}.png"] = regret_by_regime(results, TITLES[name])
            if results["gallery"]:
                figures["gallery.png"] = gallery(results)
        asked = {TITLES[name]: results for name, results in found.items() if "auto" in results}
        if asked:
            figures["auto_reliability.png"] = auto_reliability(asked)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        names = " or ".join(str(files[name]) for name in found)
        raise Mistake(f"{names}: not what benchmarks.quality writes ({error!r})") from None
    return figures


@app.command()
def command(
    results: Annotated[Path, typer.Option(help="Folder of the results.", show_default="benchmarks/results")] = RESULTS,
) -> None:
    """Draw the figures of the results, beside them."""
    for name, figure in draw(results).items():
        options = {"dpi": 130, "format": "png", "metadata": {"Software": None}}
        write_whole(results / name, partial(figure.savefig, **options))
        print(results / name)


if __name__ == "__main__":
    sys.exit(run_command(app, (OSError,)))
