"""Presets beside the peers: the recorded table of stops, the installed packages themselves, the contract of rules."""

import copy
import json
import math
import os
import pickle
import random
import warnings
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import VALUES

from convergence import Patience, Rearm, Reason, Stopper, parse_rule, presets, replay, replay_many

NAN, INF = math.nan, math.inf

# The table: streams, the patience p and min_delta d for each, and where each peer stops (lower is better).

DRIP = [1 - 0.004 * i for i in range(40)]
STREAMS = {
    "A": ([1, 2, 3, 4, 5, 6, 7, 8], 3, 0),
    "B": ([1, 2, 3, 4, 5], 0, 0),
    "C": ([1, 2, 3, 4, 5], 1, 0),
    "D": ([1.0] * 12, 3, 0),
    "E": ([4 - 0.25 * i for i in range(12)], 3, 0.25),
    "F": (DRIP, 3, 0.01),
    "G": (DRIP, 2, 0.01),
    "H": ([5, 4, NAN, 3, 2.5, 2, 1.5, 1, 0.9, 0.8], 3, 0),
    "I": ([NAN, 5, 4, 3, 2, 1, 0.9, 0.8, 0.7, 0.6], 3, 0),
    "J": ([5, 4] + [NAN] * 12, 3, 0),
    "K": ([5, 4, INF, 3, 2.5, 2, 1.5], 3, 0),
    "L": ([1 + 0.05 * i for i in range(14)], 3, 0.2),
    "M": ((1 + 0.02 * np.random.default_rng(0).standard_normal(60)).tolist(), 3, 0),
    "N": ((1 / np.sqrt(np.arange(1, 201)) + 0.03 * np.random.default_rng(1).standard_normal(200)).tolist(), 5, 0),
}
CONFIGURATIONS = {
    "lightning": lambda p, d: presets.lightning(p, d),
    "lightning, unchecked": lambda p, d: presets.lightning(p, d, check_finite=False),
    "keras": lambda p, d: presets.keras(p, d),
    "ignite": lambda p, d: presets.ignite(p, d),
    "ignite, cumulative": lambda p, d: presets.ignite(p, d, cumulative=True),
    "huggingface": lambda p, d: presets.huggingface(p, d),
    "optuna_patient": lambda p, d: presets.optuna_patient(p, d),
    "torch_plateau": lambda p, d: presets.torch_plateau(p, d, threshold_mode="abs"),
    "lightgbm": lambda p, d: presets.lightgbm(p, d),
    "xgboost": lambda p, d: presets.xgboost(p, d),
    "skorch": lambda p, d: presets.skorch(p, d, threshold_mode="abs"),
    "fastai": lambda p, d: presets.fastai(p, d),
    "composer": lambda p, d: presets.composer(p, d),
    "ultralytics": lambda p, d: presets.ultralytics(p),
    "sklearn_mlp": lambda p, d: presets.sklearn_mlp(p, d),
    "sklearn_hist_gb": lambda p, d: presets.sklearn_hist_gb(p, d),
    "ray_plateau": lambda p, d: presets.ray_plateau(0.01, p, p),
}
STOPS = """
                        A    B    C    D    E    F    G    H    I    J    K    L    M    N
lightning               3    1    1    3    -    -    2    2    0    2    2    3    7   29
lightning, unchecked    3    1    1    3    -    -    2    -    -    4    -    3    7   29
keras                   3    1    1    3    -    -    2    -    3    4    -    3    7   29
ignite                  3    !    1    3    3    3    2    -    -    -    -    3    7   29
ignite, cumulative      3    !    1    3    -    -    2    -    -    -    -    3    7   29
huggingface             3    0    1    3    3    3    2    -    -    4    -    3    7   29
optuna_patient          4    1    2    -    -    -    -    -    -    -    -    8   16   30
torch_plateau           4    1    2    4    -    -    -    -    -    5    -    4   16   30
lightgbm                3    -    1    3    -    -    2    -    3    4    -    3    7   29
xgboost                 3    0    1    3    -    -    2    -    3    4    -    3    7   29
skorch                  3    0    1    3    -    -    2    -    -    4    -    3    7   29
fastai                  3    1    1    3    -    -    2    -    -    4    -    3    7   29
composer                4    1    2    4    -    -    -    -    4    5    -    4   16   30
ultralytics             3    -    1    3    -    -    -    -    3    4    -    3    7   29
sklearn_mlp             4    1    2    -    -    4    3    -    -    -    -    4   16   30
sklearn_hist_gb         3    0    1    3    -    -    2    5    3    4    -    3    7   29
ray_plateau             -    -    0    2    -    2    1    -    -    -    -    -    2   16
"""


def table():
    header, *rows = (line for line in STOPS.splitlines() if line.strip())
    return [
        pytest.param(row[:20].strip(), stream, cell, id=f"{row[:20].strip()}-{stream}")
        for row in rows
        for stream, cell in zip(header.split(), row[20:].split(), strict=True)
    ]


@pytest.mark.parametrize(("name", "stream", "expected"), table())
def test_recorded_stops(name, stream, expected):
    values, p, d = STREAMS[stream]
    if expected == "!":
        with pytest.raises(ValueError, match=f"patience must be at least 1, got {p}"):
            CONFIGURATIONS[name](p, d)
        return
    rule = CONFIGURATIONS[name](p, d)
    index = None if expected == "-" else int(expected)
    assert replay(rule, values, mode="min").stop_index == index
    assert replay(rule, [-value for value in values], mode="max").stop_index == index


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (presets.ignite(3, 0.1, threshold_mode="rel"), 13),
        (presets.torch_plateau(3, 0.1, threshold_mode="rel"), 14),
        (presets.skorch(3, 0.1, threshold_mode="rel"), 13),
        (presets.lightning(3, 0.1), 3),
    ],
    ids=repr,
)
def test_a_relative_threshold_on_a_negative_metric_that_gets_worse(rule, expected):
    values = [-1 + 0.05 * i for i in range(18)]
    assert replay(rule, values, mode="min").stop_index == expected


def test_autogluon_as_recorded():
    values = 1 / np.sqrt(np.arange(1, 400)) + 0.03 * np.random.default_rng(1).standard_normal(399)
    assert replay(presets.autogluon(), values, mode="min").stop_index == 261


@pytest.mark.parametrize(
    ("rule", "values", "mode", "expected"),
    [
        # Lightning computes in single precision, and its thresholds come before its count.
        (presets.lightning(1), [1.0, 1.0 - 1e-9], "min", 1),
        (presets.lightning(1), [1.0, 1.0 - 1e-7], "min", None),
        (presets.lightning(3), [1.0, 1e39], "min", 1),
        (presets.lightning(3, stopping_threshold=0.5), [1.0, 0.5, 0.4], "min", 2),
        (presets.lightning(3, stopping_threshold=0.5), [0.0, 0.5, 0.6], "max", 2),
        (presets.lightning(3, divergence_threshold=2.0), [1.0, 2.0, 2.1], "min", 2),
        (presets.lightning(3, divergence_threshold=-2.0), [1.0, -2.0, -2.1], "max", 2),
        (presets.lightning(2, -0.5), [1.0, 1.2, 1.4, 1.6, 1.8], "min", None),
        (presets.lightning(1, -0.5), [1.0, 1.5, 1.9, 2.5], "min", 1),
        # Keras compares in single precision, and the baseline decides only about the wait.
        (presets.keras(1), [1.0, 1.0 - 1e-9], "min", 1),
        (presets.keras(2, baseline=0.5), [1.0, 0.9, 0.8, 0.9, 0.9], "min", 3),
        (presets.keras(2, start_from_epoch=2), [0.0, 0.1, 1.0, 1.0, 1.0], "min", 4),
        (presets.keras(1, -0.5), [2.0, 1.75, 1.0], "min", 1),
        (presets.ultralytics(2), [0.0, -1.0, -2.0, -3.0], "max", 3),
        (presets.ultralytics(2), [0.0, 0.0, 0.0, 0.5, 0.5, 0.5], "max", 5),
        (presets.ultralytics(None), [1.0] * 200, "max", None),
        (presets.lightgbm(0), [1.0] * 200, "min", None),
        (presets.ray_plateau(num_results=2, grace_period=4), [1.0] * 8, "min", 3),
        (presets.ray_plateau(1.0, 2, 2), [0.0, 2.0, 0.0, 1.5], "min", 3),  # a spread of just `std` is none below it
        (presets.ray_plateau(num_results=2, grace_period=2, metric_threshold=0.5), [1, 1, 1, 0.5, 0.5], "min", 4),
        (presets.ray_plateau(num_results=2, grace_period=2, metric_threshold=0.5), [0, 0, 0.5, 0.5], "max", 3),
        (presets.autogluon(0.5, 2, max_patience=1), [1.0, 2.0], "min", 1),
        (presets.autogluon(0.5, 2, min_patience=4), [1.0, *[2.0] * 5], "min", 4),
        (presets.autogluon(0.0, 2), [NAN, 2.0, 1.0, NAN, NAN], "min", 4),
        (presets.autogluon(0.0, 2), [1.0, 1.0, 1.0], "min", 2),
        (presets.autogluon(0.5, 2), [2.0, 1.0, 1.0, 1.0, 1.0], "min", 3),
        (presets.composer(0, 0.25), [1.0, 0.75], "min", 1),
        (presets.composer(0, 0.25), [1.0, 0.7], "min", None),
        (presets.composer(0), [1.0, 1.0 - 1e-9], "min", 1),
        # As CatBoost itself does: these levels are the p-value at index 3 and 7, which single precision rounds up and
        # down.
        (presets.catboost(1, od_pval=0.33407365750729334), [0.2, -0.27, -0.03, 0.73, -0.92, 0.26], "min", 3),
        (
            presets.catboost(1, od_pval=0.46248695942827295),
            [0.04, -0.25, -1.03, -1.29, -1.28, -1.56, -0.27, 0.74],
            "min",
            None,
        ),
        (presets.catboost(3), [1.0] * 50, "min", None),
        (presets.catboost(3, od_type="Iter"), [1.0] * 50, "min", 3),
        (presets.catboost(early_stopping_rounds=3), [3.0, 2.0, NAN, NAN, NAN, 2.5], "min", 5),
        (presets.sklearn_sgd(2, 0), [1.0, 1.0, 1.0], "min", None),
        (presets.sklearn_sgd(2, 0.5), [2.0, 1.75, 1.5], "min", 2),
    ],
    ids=lambda value: repr(value) if hasattr(value, "check") else "",
)
def test_oddities(rule, values, mode, expected):
    assert replay(rule, values, mode=mode).stop_index == expected


# The installed packages themselves.

COUNTS = [{"patience": p, "min_delta": d} for p in (0, 1, 2, 3, 7) for d in (0.0, 0.25, 0.01)]
SOME_COUNTS = [{"patience": p, "min_delta": d} for p in (1, 2, 3, 7) for d in (0.0, 0.25, 0.01)]


def each(counts, *more, also=()):
    return [*(count | extra for count in counts for extra in more), *also]


LIVE = {
    "lightning": (
        "pytorch_lightning",
        each(
            COUNTS,
            {},
            {"check_finite": False},
            {"check_finite": False, "stopping_threshold": -0.75, "divergence_threshold": 0.75},
            also=[{"patience": 2, "min_delta": -0.25}, {"patience": 2, "min_delta": 0.1, "stopping_threshold": 0.1}],
        ),
    ),
    "keras": (
        "keras",
        each(COUNTS, {}, {"baseline": 0.25}, {"start_from_epoch": 3}, also=[{"patience": 2, "min_delta": -0.1}]),
    ),
    "ignite": (
        "ignite",
        each(
            SOME_COUNTS,
            {},
            {"cumulative": True},
            {"threshold_mode": "rel"},
            {"threshold_mode": "rel", "cumulative": True},
        ),
    ),
    "huggingface": ("transformers", [*COUNTS, {"patience": 2, "min_delta": -0.25}]),
    "skorch": ("skorch", each(COUNTS, {"threshold_mode": "rel"}, {"threshold_mode": "abs"})),
    "torch_plateau": (
        "torch",
        each(
            COUNTS,
            {"threshold_mode": "rel"},
            {"threshold_mode": "abs"},
            also=[{"patience": 1, "min_delta": 1.0}, {"patience": 1, "min_delta": 1.5}],
        ),
    ),
    "lightgbm": ("lightgbm", COUNTS),
    "xgboost": ("xgboost", [*COUNTS, {"patience": 2, "min_delta": 0.1}]),
    "sklearn_mlp": ("sklearn", COUNTS),
    "sklearn_sgd": ("sklearn", SOME_COUNTS),
    "sklearn_hist_gb": ("sklearn", COUNTS),
    "optuna_patient": ("optuna", COUNTS),
    "ray_plateau": (
        "ray",
        [
            {"std": std, "num_results": n, "grace_period": g, "metric_threshold": threshold}
            for std in (0.0, 0.01, 0.25)
            for n, g in ((0, 0), (1, 1), (2, 5), (4, 4), (9, 2))
            for threshold in (None, 0.25, -0.5)
        ],
    ),
    "catboost": (
        "catboost",
        [{"patience": p, "od_pval": level} for p in (1, 2, 5) for level in (0.0, 1e-10, 0.01, 0.3, 0.6, 0.9, 1.0)]
        + [{"patience": p, "od_type": "Iter"} for p in (1, 2, 5)],
    ),
}


def on_the_bar(n, rng):
    """Each value about as much better than the last as has to be exceeded: where rounding decides."""
    delta = rng.choice([0.25, 0.1, 0.01]) * rng.choice([-1, 1])
    values = [rng.standard_normal()]
    while len(values) < n:
        last = values[-1]
        near = rng.choice([last - delta, last * (1 - delta), last - delta * last, last * (1 + delta), last])
        values.append(np.nextafter(near, near + rng.integers(-1, 2)))
    return values


def streams(count, seed, spoilt_every=1):
    """Streams of many kinds: ties, coarse grids, drifts, single and double precision, NaN and infinities anywhere."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        n = int(rng.integers(1, 60))
        kind = i % 9
        if kind == 0:
            values = rng.integers(-4, 5, n) / 4
        elif kind == 1:
            values = np.cumsum(rng.integers(-2, 2, n)) / 4
        elif kind == 2:
            values = 1 / np.sqrt(np.arange(1, n + 1)) + 0.1 * rng.standard_normal(n)
        elif kind == 3:
            values = rng.integers(0, 3, n) * 0.1 - 0.01 * np.arange(n) * rng.integers(-1, 2)
        elif kind == 4:
            # Gains on the edge of single precision.
            values = 1 + np.cumsum(rng.integers(-2, 2, n)) * 3e-8
        elif kind == 5:
            values = rng.standard_normal(n) * 10.0 ** rng.integers(-3, 4) * (-1) ** i
        elif kind == 6:
            # A slow drift either way, through zero.
            values = rng.choice([-0.05, 0.05, -0.25, 0.01]) * np.arange(n) + rng.choice([0.0, 1.0, -1.0])
        elif kind == 7:
            values = np.float32(rng.standard_normal(n).cumsum() * 0.1).astype(float)
        else:
            values = on_the_bar(n, rng)
        values = [float(value) for value in values]
        spoilt = i // 9 % 8 if i % spoilt_every == 0 else 0
        if spoilt == 1:
            values[0] = NAN
        elif spoilt == 2:
            values[-1] = NAN
        elif spoilt == 3:
            values[int(rng.integers(n))] = NAN
        elif spoilt in (4, 5):
            for at in rng.integers(0, n, 1 + n // 8):
                values[at] = float(rng.choice([NAN, INF, -INF, 1e39, -1e39, 1e300]))
        elif spoilt == 6:
            values[n // 2 :] = [NAN] * (n - n // 2)
        yield values


@pytest.fixture
def unmoved():
    """Undo what importing and running other people's packages does to this process."""
    state = random.getstate(), np.random.get_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    random.setstate(state[0])
    np.random.set_state(state[1])


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.usefixtures("unmoved")
def test_stops_where_the_installed_package_stops(name):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module, settings = LIVE[name]
    pytest.importorskip(module)
    from benchmarks.live_estimators import Refused
    from benchmarks.live_peers import LIVE_PEERS

    preset = getattr(presets, name)
    peer = next(peer for peer in LIVE_PEERS.values() if peer.family is preset)
    # CatBoost is an error at values that are not finite: a few of those will do.
    drawn = list(streams(2000, seed=sum(name.encode()), spoilt_every=20 if name == "catboost" else 1))
    # As many of each setting and mode, each on all kinds of streams.
    cases = [(parameters, mode) for parameters in settings for mode in ("min", "max")]
    order = np.random.default_rng(0).permutation(len(drawn))
    refused, stopped = 0, {"min": [], "max": []}
    for k, (parameters, mode) in enumerate(cases):
        stop = peer.make(**parameters)
        own = [drawn[i] for i in order[k :: len(cases)]]
        ours = replay_many([preset(**parameters)], own, mode=mode).stop_index[0].tolist()
        for values, index in zip(own, ours, strict=True):
            try:
                theirs = stop(values, mode)
            except Refused:
                assert not all(map(math.isfinite, values))
                refused += 1
                continue
            assert index == theirs, (parameters, mode, values)
            stopped[mode].append(theirs >= 0)
    assert bool(refused) is (name == "catboost")
    assert sum(map(len, stopped.values())) + refused == 2000
    for of_mode in stopped.values():
        assert 0.05 < np.mean(of_mode) < 0.999, "some stop and some do not"


@pytest.mark.usefixtures("unmoved")
def test_a_package_that_is_absent_or_broken_is_named_with_the_command():
    from benchmarks.live_peers import NAMES, LivePeer, sweep

    def absent(**parameters):
        raise ModuleNotFoundError("No module named 'nowhere'")

    def broken(**parameters):
        raise AttributeError("moved")

    assert LivePeer("x", ("nowhere[all]",), presets.keras, absent).absent() == (
        "absent (No module named 'nowhere'): pip install nowhere[all]"
    )
    assert (
        "failed (AttributeError('moved')) with the installed x" in LivePeer("x", ("x",), presets.keras, broken).absent()
    )
    assert len(set(NAMES)) == len(NAMES)
    with pytest.raises(KeyError):
        sweep("nobody", [])


@pytest.mark.usefixtures("unmoved")
def test_a_sweep_over_curves_equals_its_presets():
    pytest.importorskip("sklearn")
    from types import SimpleNamespace

    from benchmarks.live_peers import LIVE_PEERS, sweep

    losses = [np.array(values) for values in streams(24, seed=5)]
    curves = [SimpleNamespace(loss=loss, mode=mode) for loss, mode in zip(losses, ["min", "max"] * 12, strict=True)]
    name = "scikit-learn MLP"
    members, stops, about = sweep(name, curves)
    assert [parse_rule(member) for member in members] == [
        LIVE_PEERS[name].family(**parameters) for parameters in LIVE_PEERS[name].sweep
    ]
    for member, row in zip(members, stops, strict=True):
        assert row.tolist() == replay_many([parse_rule(member)], losses, mode="min").stop_index[0].tolist()
    assert about["refused"] == 0
    assert about["package"].startswith("scikit-learn ")


def test_a_preset_without_its_prefix_is_found():
    with pytest.raises(ValueError, match=r"unknown rule 'Keras', did you mean 'presets\.keras'"):
        parse_rule("Keras(patience=4)")


@pytest.mark.usefixtures("unmoved")
def test_a_sweep_counts_the_curves_that_a_peer_refuses():
    pytest.importorskip("catboost")
    from types import SimpleNamespace

    from benchmarks.live_peers import sweep

    rises = [1.0, 2.0, 3.0, 4.0, 5.0]
    curves = [SimpleNamespace(loss=np.array(values), mode="min") for values in (rises, [*rises, NAN], [NAN, *rises])]
    members, stops, about = sweep("CatBoost Iter", curves)
    assert members[2] == "presets.catboost(patience=3, od_type='Iter')"
    # A value that comes after the stop is never seen.
    assert stops[2].tolist() == [3, 3, -1]
    assert stops[-1].tolist() == [-1, -1, -1]
    assert about["refused"] == 2
    assert "CatBoost ends with an error" in about["refused_because"]


# What holds for every rule.

CATALOG = [
    presets.autogluon(0.5, 2),
    presets.autogluon(min_patience=1, max_patience=3),
    presets.catboost(2, od_pval=0.6),
    presets.catboost(early_stopping_rounds=2),
    presets.composer(2, 0.25),
    presets.fastai(2, 0.25),
    presets.huggingface(2, 0.25),
    presets.ignite(2, 0.25),
    presets.ignite(2, 0.25, cumulative=True, threshold_mode="rel"),
    presets.keras(2, 0.25),
    presets.keras(2, baseline=0.5, start_from_epoch=3),
    presets.lightgbm(2, 0.25),
    presets.lightning(),
    presets.lightning(2, 0.25, check_finite=False),
    presets.lightning(3, stopping_threshold=-2.0, divergence_threshold=2.0),
    presets.optuna_patient(2, 0.25),
    presets.ray_plateau(0.5, 3, 2),
    presets.ray_plateau(num_results=2, metric_threshold=-0.5),
    presets.skorch(2, 0.25),
    presets.skorch(0, threshold_mode="abs"),
    presets.sklearn_hist_gb(2, 0.25),
    presets.sklearn_mlp(2, 0.25),
    presets.sklearn_sgd(2, 0.25),
    presets.torch_plateau(2, 0.25),
    presets.torch_plateau(1, threshold_mode="abs"),
    presets.ultralytics(2),
    presets.ultralytics(None),
    presets.xgboost(2, 0.25),
]
every_preset = pytest.mark.parametrize("rule", CATALOG, ids=repr)
GOING_ON = {Reason.IMPROVING, Reason.WAITING}
LISTS = st.lists(VALUES, min_size=1, max_size=30)


def stopper_of(rule, mode="min"):
    return Stopper(rule, monitor="m", mode=mode)


def same(a, b):
    assert (a.stop, a.reason, a.message) == (b.stop, b.reason, b.message)
    assert {k: repr(float(v)) for k, v in a.evidence.items()} == {k: repr(float(v)) for k, v in b.evidence.items()}


def test_the_catalog_holds_every_preset():
    assert {rule.preset for rule in CATALOG} == set(presets.__all__)
    assert len({type(rule).__name__ for rule in CATALOG}) == len(presets.__all__)
    for name in presets.__all__:
        assert getattr(presets, name).__doc__


@every_preset
def test_a_preset_is_a_value(rule):
    assert rule == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule)) == rule.facing("max")
    assert hash(rule) == hash(copy.copy(rule)) == hash(rule.facing("max"))
    with pytest.raises(FrozenInstanceError):
        rule.anything = 1


@every_preset
def test_repr_reads_back(rule):
    assert repr(rule).startswith(f"presets.{rule.preset}(")
    assert parse_rule(repr(rule)) == rule
    for composed in (rule.on("a", mode="max"), Rearm(rule) & Patience(3), (rule | Patience(2)).on("b")):
        assert parse_rule(repr(composed)) == composed
        assert repr(parse_rule(repr(composed))) == repr(composed)


def test_repr_as_people_write_it():
    assert repr(presets.lightning(patience=3)) == "presets.lightning(patience=3)"
    assert repr(presets.keras(np.int64(5), np.float64(0.5))) == "presets.keras(patience=5, min_delta=0.5)"
    assert repr(presets.huggingface(early_stopping_patience=4)) == "presets.huggingface(patience=4)"
    assert repr(presets.catboost(early_stopping_rounds=7)) == "presets.catboost(patience=7, od_type='Iter')"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "presets.lightnig(3)",
            r"unknown preset 'presets.lightnig', did you mean 'presets.lightning'\? At character 1",
        ),
        ("Patience(2) | presets.kera(3)", r"did you mean 'presets.keras'\? At character 15"),
        ("presets.lightning", r"presets.lightning needs parentheses: presets.lightning\(...\)"),
        ("presets.keras(patiense=3)", "unknown parameter of presets.keras 'patiense', did you mean 'patience'"),
        ("presets.ignite(0)", "presets.ignite: patience must be at least 1, got 0"),
        ("presets.__doc__(0)", "unknown preset"),
        ("presets.keras.keras(0)", "only .on"),
        ("presets(3)", "unknown rule 'presets'"),
        ("presets", "unknown rule 'presets'"),
        ("rules.Patience(3)", "only .on"),
    ],
)
def test_parse_errors(text, said):
    with pytest.raises(ValueError, match=said):
        parse_rule(text)


@every_preset
@given(values=LISTS, mode=st.sampled_from(["min", "max"]))
def test_saved_and_resumed_at_any_point_is_never_interrupted(rule, values, mode):
    whole, resumed = stopper_of(rule, mode), stopper_of(rule, mode)
    same(whole.decision, resumed.decision)
    assert not whole.decision.stop
    for step, value in enumerate(values):
        state = json.loads(json.dumps(resumed.state_dict(), allow_nan=False))
        resumed = stopper_of(rule, mode)
        assert resumed.load_state_dict(state) == ()
        same(whole.decision, resumed.decision)
        decision = whole.update(value, step=step)
        same(decision, resumed.update(value, step=step))
        assert (decision.reason not in GOING_ON) == decision.stop
        assert decision.message.startswith(rule.peer)
        same(decision, resumed.update({"m": None}, step=step))


@every_preset
@given(values=LISTS)
def test_rearming_goes_on(rule, values):
    stopper = stopper_of(Rearm(rule))
    rate = 1.0
    for value in values:
        rate *= 0.7
        assert stopper.update(value, lr=rate).message


def mirrored(rule):
    """The preset for the negated metric: bounds in its unit change sign."""
    bounds = ("stopping_threshold", "divergence_threshold", "baseline", "metric_threshold")
    return replace(rule, **{name: -value for name in bounds if (value := getattr(rule, name, None)) is not None})


@pytest.mark.parametrize("rule", [r for r in CATALOG if getattr(r, "threshold_mode", "abs") == "abs"], ids=repr)
@given(values=LISTS)
def test_negating_metric_mode_and_bounds_changes_nothing(rule, values):
    low, high = stopper_of(rule), stopper_of(mirrored(rule), "max")
    for value in values:
        a, b = low.update(value), high.update(-value)
        assert (a.stop, a.reason) == (b.stop, b.reason)
        assert a.evidence["wait"] == b.evidence["wait"]


@pytest.mark.parametrize("make", [presets.ignite, presets.skorch, presets.torch_plateau])
def test_a_relative_threshold_is_not_symmetric(make):
    rule = make(2, 0.25, threshold_mode="rel")
    # The bar is 0.75 times the best where lower is better and 1.25 times where higher is: below zero, the wrong way.
    falling = [1.0, 0.7, 0.5, 0.3, 0.2]
    assert replay(rule, falling, mode="min").stop_index is None
    assert replay(rule, [-value for value in falling], mode="max").stop_index is None
    below = [-1.0, -1.1, -1.2, -1.2, -1.2]
    assert replay(rule, below, mode="min").stop_index is None
    assert replay(rule, [-value for value in below], mode="max").stop_index is not None


@every_preset
def test_many_curves_at_once_equal_one_by_one(rule):
    curves = list(streams(64, seed=3))
    for mode in ("min", "max"):
        table = replay_many([rule, Patience(2)], curves, mode=mode)
        for i, values in enumerate(curves):
            one = replay(rule, values, mode=mode)
            assert table.stop_index[0, i] == (-1 if one.stop_index is None else one.stop_index)
            assert table.best_index[0, i] == (-1 if one.best_index is None else one.best_index)
            np.testing.assert_equal(table.regret[0, i], one.regret)


@every_preset
def test_a_state_of_another_preset_is_refused(rule):
    stopper = stopper_of(rule)
    stopper.update(1.0)
    other = next(o for o in CATALOG if type(o) is not type(rule))
    with pytest.raises(ValueError, match="the state was saved by another rule"):
        stopper_of(other).load_state_dict(stopper.state_dict())


def test_a_longer_window_starts_afresh():
    stopper = stopper_of(presets.sklearn_hist_gb(2))
    for value in (3.0, 2.0, 2.5):
        stopper.update(value)
    resumed = stopper_of(presets.sklearn_hist_gb(3))
    with pytest.warns(UserWarning, match="resumed with a changed rule"):
        assert resumed.load_state_dict(stopper.state_dict())
    assert not resumed.decision.stop


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: presets.ignite(0), ValueError, "patience must be at least 1, got 0"),
        (lambda: presets.ignite(2, -0.1), ValueError, "min_delta must be at least 0, got -0.1"),
        (lambda: presets.ignite(2, threshold_mode="relative"), ValueError, "threshold_mode must be 'rel' or 'abs'"),
        (lambda: presets.ignite(2, cumulative=1), TypeError, "cumulative must be True or False, got 1"),
        (lambda: presets.optuna_patient(-1), ValueError, "patience must be at least 0, got -1"),
        (lambda: presets.optuna_patient(1, -1), ValueError, "min_delta must be at least 0, got -1"),
        (lambda: presets.xgboost(1, -1), ValueError, "min_delta must be at least 0, got -1"),
        (lambda: presets.lightgbm(1, -1), ValueError, "min_delta must be at least 0, got -1"),
        (lambda: presets.lightgbm(), TypeError, "patience must be a whole number, got None"),
        (lambda: presets.skorch(threshold_mode="x"), ValueError, "threshold_mode must be 'rel' or 'abs', got 'x'"),
        (lambda: presets.torch_plateau(threshold_mode="x"), ValueError, "threshold_mode must be 'rel' or 'abs'"),
        (lambda: presets.catboost(0), ValueError, "patience must be at least 1, got 0"),
        (lambda: presets.catboost(od_pval=2), ValueError, "od_pval must be at most 1, got 2"),
        (lambda: presets.catboost(od_pval=0.1, od_type="Iter"), ValueError, "od_pval is not for od_type 'Iter'"),
        (lambda: presets.catboost(od_type="Wilcoxon"), ValueError, "od_type must be 'IncToDec' or 'Iter'"),
        (lambda: presets.catboost(3, early_stopping_rounds=2), TypeError, "early_stopping_rounds beside patience"),
        (lambda: presets.lightning(check_finite=None), TypeError, "check_finite must be True or False, got None"),
        (lambda: presets.lightning(stopping_threshold=NAN), ValueError, "stopping_threshold must be finite, got nan"),
        (lambda: presets.keras(start_from_epoch=-1), ValueError, "start_from_epoch must be at least 0, got -1"),
        (lambda: presets.keras(2.5), TypeError, "patience must be a whole number, got 2.5"),
        (lambda: presets.ray_plateau(std=NAN), ValueError, "std must be finite, got nan"),
        (
            lambda: presets.huggingface(2, early_stopping_patience=2),
            TypeError,
            "huggingface got both patience and early_stopping_patience, which are one parameter",
        ),
        (lambda: presets.sklearn_mlp(tol=0.1, min_delta=0.1), TypeError, "got both min_delta and tol"),
        (lambda: presets.xgboost(3, rounds=3), TypeError, "xgboost got both patience and rounds"),
    ],
)
def test_refusals(make, error, said):
    with pytest.raises(error, match=said):
        make()


@pytest.mark.parametrize(
    ("aliased", "plain"),
    [
        (presets.huggingface(early_stopping_patience=3, early_stopping_threshold=0.5), presets.huggingface(3, 0.5)),
        (presets.sklearn_mlp(n_iter_no_change=3, tol=0.5), presets.sklearn_mlp(3, 0.5)),
        (presets.sklearn_sgd(n_iter_no_change=3, tol=0.5), presets.sklearn_sgd(3, 0.5)),
        (presets.sklearn_hist_gb(n_iter_no_change=3, tol=0.5), presets.sklearn_hist_gb(3, 0.5)),
        (presets.ignite(3, threshold=0.5), presets.ignite(3, 0.5)),
        (presets.skorch(threshold=0.5), presets.skorch(min_delta=0.5)),
        (presets.torch_plateau(3, threshold=0.5), presets.torch_plateau(3, 0.5)),
        (presets.lightgbm(stopping_rounds=3), presets.lightgbm(3)),
        (presets.xgboost(rounds=3), presets.xgboost(3)),
        (presets.catboost(od_wait=3, od_pval=0.1), presets.catboost(3, od_pval=0.1)),
        (parse_rule("presets.xgboost(rounds=3)"), presets.xgboost(3)),
    ],
)
def test_the_peers_own_names(aliased, plain):
    assert aliased == plain


def test_reasons():
    def reason(rule, values, mode="min"):
        return replay(rule, values, mode=mode).decision.reason

    assert reason(presets.lightning(1), [1.0, 2.0]) is Reason.PLATEAUED
    assert reason(presets.lightning(1), [1.0, NAN]) is Reason.NON_FINITE
    assert reason(presets.lightning(stopping_threshold=0.5), [0.0, 0.6], "max") is Reason.TARGET_REACHED
    assert reason(presets.lightning(divergence_threshold=0.5), [0.4, 0.6]) is Reason.DIVERGED
    assert reason(presets.keras(1), [1.0, NAN]) is Reason.NON_FINITE
    assert reason(presets.keras(2), [1.0, 1.0]) is Reason.WAITING
    assert "Keras's EarlyStopping would stop at value 2 (step 1): wait 1, best 1 (step 0)" in (
        replay(presets.keras(1), [1.0, 2.0], mode="min").decision.message
    )
