"""EarlyStopping beside Lightning's own: the same at every step, in both namespaces, alone and in a Trainer."""

import copy
import importlib
import inspect
import json
import logging
import math
import pickle
import random
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

import lightning_ext

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks used to create:UserWarning"),
]

ROOT = Path(__file__).parents[1]
NAN, INF = math.nan, math.inf


class Namespace:
    """One of Lightning's two names: its Trainer, its own callback, and ours for it."""

    def __init__(self, name):
        self.name = name
        self.lightning = importlib.import_module(name)
        self.callbacks = importlib.import_module(f"{name}.callbacks")
        self.native = importlib.import_module(f"{name}.callbacks.early_stopping")
        self.misconfiguration = importlib.import_module(f"{name}.utilities.exceptions").MisconfigurationException
        self.room = lightning_ext.for_namespace(name)
        self.stopping = self.room.EarlyStopping
        self.reasons = self.native.EarlyStoppingReason

    def trainer(self, *callbacks, **options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options = {"max_epochs": 10, "accelerator": "cpu", "enable_checkpointing": False, **quiet, **options}
        return self.lightning.Trainer(callbacks=list(callbacks), **options)

    def model(self, values, hook="on_validation_epoch_end", key="m"):
        """Return a module that logs one value per epoch; past the end of the values, the last."""

        class Scripted(self.lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def training_step(self, batch, index):
                return self.weight.sum()

            def validation_step(self, batch, index):
                pass

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        def log_it(module, *_):
            value = values[min(module.current_epoch, len(values) - 1)]
            module.log(key, value, on_step=False, on_epoch=True, batch_size=1)
            return module.weight.sum()

        setattr(Scripted, hook, log_it)
        return Scripted()

    def fit(self, trainer, values, hook="on_validation_epoch_end", key="m", batches=1, ckpt_path=None):
        model = self.model(values, hook, key)
        if hook == "training_step":
            model.validation_step = None
        trainer.fit(model, range(batches), None if hook == "training_step" else range(1), ckpt_path=ckpt_path)
        return trainer


PL, L = NAMESPACES = [Namespace("pytorch_lightning"), Namespace("lightning.pytorch")]


class Recording:
    """Notes its state at every epoch end, and what it was when training began."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.at_start = None
        self.at_epoch_end = []

    def on_train_start(self, trainer, pl_module):
        self.at_start = self.state_dict()

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        self.at_epoch_end.append(self.state_dict())


class RecordingHere(Recording, PL.stopping):
    pass


class RecordingThere(Recording, L.stopping):
    pass


class EveryOther:
    """Checks at odd epochs only, and stops one check later than it is told to."""

    calls = held = 0

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch % 2:
            super().on_train_epoch_end(trainer, pl_module)

    def _run_early_stopping_check(self, trainer):
        self.calls += 1
        before = trainer.should_stop
        super()._run_early_stopping_check(trainer)
        if trainer.should_stop and not before and not self.held:
            self.held, trainer.should_stop = 1, False


@pytest.fixture(params=NAMESPACES, ids=lambda namespace: namespace.name)
def ns(request):
    return request.param


@contextmanager
def listening(logger):
    """Yield the messages that the logger or one below it emits."""

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    messages, listener = [], Listener(logging.INFO)
    logger.addHandler(listener)
    try:
        yield messages
    finally:
        logger.removeHandler(listener)


def tensor(value, dtype=torch.float32, shape=()):
    return torch.tensor(value, dtype=dtype).reshape(shape)


def plain(value):
    """Return something that compares with ==, NaN and tensors too, and keeps type, shape and sign of zero."""
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), tuple(value.shape), value.device.type, repr(value.tolist()))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return (type(value).__name__, repr(value))


def snapshot(callback):
    """Everything that can be read off a callback."""
    state = callback.state_dict()
    names = ("wait_count", "stopped_epoch", "stopping_reason", "stopping_reason_message", "patience", "min_delta")
    return {
        "order": list(state),
        "state": plain(state),
        "best_score": plain(callback.best_score),
        **{name: plain(getattr(callback, name)) for name in names},
    }


def attempt(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return type(error)


# Beside Lightning's own, step by step


class Rank:
    """As much of a Trainer as one check looks at; another process may ask to stop."""

    def __init__(self):
        self.callback_metrics = {}
        self.fast_dev_run = self.should_stop = self.sanity_checking = False
        self.current_epoch = self.global_rank = 0
        self.world_size = 1
        self.others = False
        self.strategy = SimpleNamespace(reduce_boolean_decision=self.reduce)

    def reduce(self, decision, all=True):
        assert type(decision) is bool
        assert all is False
        return decision or self.others


FLOATS = (torch.float32, torch.float64)
NARROW = (torch.float16, torch.bfloat16)


def random_config(rng):
    """Return constructor arguments; every number that rounds differently in 32 bits comes up often."""
    threshold = (None, None, 0.7, 0.1, -0.3, 0, 1, 16777217, 1e-46, INF, NAN)
    return {
        "min_delta": rng.choice((0.0, 0.0, 0, 0.1, 0.1, 0.3, 1e-3, 1e-9, -0.1, -0.3, -1, 1, 2.5, 1e30, INF, NAN)),
        "patience": rng.choice((0, 1, 3, 3, 5, 100)),
        "mode": rng.choice(("min", "max")),
        "check_finite": rng.random() < 0.6,
        "stopping_threshold": rng.choice(threshold),
        "divergence_threshold": rng.choice(threshold),
    }


def random_stream(rng, config, dtype, length):
    """Yield tensors near the values at which a decision turns: ties, one delta or one rounding step apart."""
    marks = [float(mark) for mark in (config["stopping_threshold"], config["divergence_threshold"]) if mark is not None]
    delta = config["min_delta"]
    whole = not dtype.is_floating_point
    seen = [1.0]
    for _ in range(length):
        kind = rng.random()
        if kind < 0.05:
            value = rng.choice((NAN, INF, -INF))
        elif kind < 0.30:
            value = rng.choice(seen)
        elif kind < 0.50:
            value = rng.choice(seen) + rng.choice((-1, 1)) * delta
        elif kind < 0.60 and marks:
            value = rng.choice(marks)
        elif kind < 0.65:
            value = rng.choice((16777216, 16777217, 16777219, 1e-45, -1e-45, 3e38, -3e38, 0.0, -0.0, 2**53 + 1, 2**62))
        elif kind < 0.85:
            value = rng.randint(-20, 20) / 10
        else:
            value = rng.gauss(0, 1)
        if whole:
            limit = torch.iinfo(dtype).max
            value = rng.randint(-3, 6) if not math.isfinite(value) or abs(value) >= limit else int(value)
            if rng.random() < 0.1:
                value = min(limit, value + rng.choice((-1, 1)))
        current = torch.tensor(value, dtype=torch.float64 if not whole else dtype).to(dtype)
        if not whole and rng.random() < 0.2:
            current = torch.nextafter(current, torch.tensor(rng.choice((-INF, INF)), dtype=dtype))
        if math.isfinite(current.item()):
            seen.append(current.item())
        yield current


def pair(ns, config):
    return ns.native.EarlyStopping("m", **config), ns.stopping("m", **config)


def exchange(rng, ns, config, native, ours):
    """Return the pair with their states exchanged, copied or pickled, which should change nothing."""
    kind = rng.random()
    if kind < 0.04:
        states = native.state_dict(), ours.state_dict()
        native, ours = pair(ns, config)
        ours.load_state_dict(states[0])
        native.load_state_dict(states[1])
    elif kind < 0.06:
        native, ours = pickle.loads(pickle.dumps((native, ours)))
    elif kind < 0.08:
        native, ours = copy.deepcopy((native, ours))
    return native, ours


def compare_streams(ns, seed, dtypes, streams=100, length=16, mixed=0.0):
    rng = random.Random(f"{ns.name} {seed} {dtypes}")
    reached = set()
    for _ in range(streams):
        config = random_config(rng)
        native, ours = pair(ns, config)
        dtype = rng.choice(dtypes)
        fed = []
        for current in random_stream(rng, config, dtype, length):
            if rng.random() < mixed:
                current = current.to(rng.choice(dtypes))
            fed.append(current)
            native, ours = exchange(rng, ns, config, native, ours)
            before = snapshot(native)
            expected = attempt(native._evaluate_stopping_criteria, current)
            assert (plain(attempt(ours._evaluate_stopping_criteria, current)), snapshot(ours)) == (
                plain(expected),
                snapshot(native),
            ), (config, fed, before)
            reached.add(native.stopping_reason)
    return reached


@pytest.mark.parametrize("seed", range(3))
def test_random_streams_get_the_same_verdicts_messages_and_states(ns, seed):
    assert compare_streams(ns, seed, (torch.float32,)) == set(ns.reasons)


@pytest.mark.parametrize("dtypes", [(torch.float64,), (torch.int64,), (torch.int32, torch.int16)], ids=str)
def test_random_streams_of_other_precisions(ns, dtypes):
    assert len(compare_streams(ns, 0, dtypes)) >= 4


def test_random_streams_of_half_precision(ns):
    assert compare_streams(ns, 0, NARROW) == set(ns.reasons)


def test_random_streams_whose_precision_changes_as_after_a_resume_with_other_settings(ns):
    assert compare_streams(ns, 0, (torch.float32, torch.float64, torch.int64), mixed=0.3) == set(ns.reasons)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)], ids=str)
def test_random_streams_through_the_check(ns, shape):
    rng = random.Random(f"{ns.name} {shape}")
    stops = 0
    for _ in range(80):
        config = random_config(rng)
        native, ours = pair(ns, config)
        dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.int64))
        theirs, own = Rank(), Rank()
        for epoch, current in enumerate(random_stream(rng, config, dtype, 15)):
            for rank in (theirs, own):
                rank.current_epoch = epoch
                rank.callback_metrics = {"other": torch.tensor(1.0), "m": current.reshape(shape).clone()}
            theirs.others = own.others = rng.random() < 0.1
            if rng.random() < 0.3:
                theirs.should_stop = own.should_stop = False
            native, ours = exchange(rng, ns, config, native, ours)
            expected = attempt(native._run_early_stopping_check, theirs)
            assert attempt(ours._run_early_stopping_check, own) == expected, (config, epoch, current)
            assert (own.should_stop, snapshot(ours)) == (theirs.should_stop, snapshot(native)), (config, epoch, current)
            stops += own.should_stop
    assert stops > 50


# values for which 32 and 64 bits disagree: 1 - 0.9 is more than 0.1 in neither, exactly 0.1 in one
ROUNDED = [
    ({"min_delta": 0.1}, [1.0, 0.9]),
    ({"min_delta": 0.1}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
    ({"min_delta": 0.1, "mode": "max"}, [0.1 * i for i in range(12)]),
    ({"min_delta": 0.3, "mode": "max"}, [0.3 * i for i in range(12)]),
    ({"min_delta": 1e-9}, [1.0, 1.0 - 5e-10, 1.0 - 1e-8, 0.5, 0.5 - 2e-8, 0.5 - 4e-8]),
    ({"min_delta": -0.1}, [1.0, 1.1, 1.05, 1.1, 1.2, 1.3, 1.4]),
    ({"min_delta": -0.1, "mode": "max"}, [1.0, 0.9, 0.95, 0.9, 0.8, 0.7]),
    ({"stopping_threshold": 0.7}, [0.7]),
    ({"stopping_threshold": 0.7, "mode": "max"}, [0.7]),
    ({"divergence_threshold": 0.7}, [0.7]),
    ({"divergence_threshold": 0.7, "mode": "max"}, [0.7]),
    ({"stopping_threshold": 0.1, "divergence_threshold": 0.3}, [0.1, 0.3, 0.2, 0.1]),
    ({"patience": 0}, [1.0, 2.0]),
    ({"patience": 0, "mode": "max"}, [1.0, 1.0]),
    ({"patience": -1}, [1.0, 1.0, 1.0]),
    ({"patience": INF}, [1.0] * 6),
    ({"patience": 2.5}, [1.0] * 6),
    ({"check_finite": False}, [NAN, 1.0, NAN, INF, -INF, -INF, 0.0]),
    ({"check_finite": False, "mode": "max"}, [NAN, 1.0, NAN, INF, -INF, INF, 0.0]),
    ({"min_delta": 3e38}, [3e38, -3e38, 0.0]),
    ({"min_delta": 1e39, "stopping_threshold": -1e39, "divergence_threshold": 1e39}, [1.0, -1.0, 3e38]),
    ({"min_delta": np.float64(0.1), "stopping_threshold": np.float64(0.7)}, [1.0, 0.9, 0.7, 0.69]),
    ({"min_delta": np.float32(0.1), "divergence_threshold": np.float32(0.7)}, [0.7, 0.6, 0.5, 0.71]),
]


@pytest.mark.parametrize("dtype", FLOATS + NARROW, ids=str)
@pytest.mark.parametrize(("config", "values"), ROUNDED, ids=str)
def test_values_that_rounding_decides(ns, config, values, dtype):
    native, ours = pair(ns, config)
    for value in values:
        expected = native._evaluate_stopping_criteria(tensor(value, dtype))
        assert ours._evaluate_stopping_criteria(tensor(value, dtype)) == expected
        assert snapshot(ours) == snapshot(native)


F32, F64, I64, BF16 = torch.float32, torch.float64, torch.int64, torch.bfloat16


@pytest.mark.parametrize(
    ("mode", "fed"),
    [
        ("max", [(2, I64), (2**53 + 1, I64), (2**53 + 1, I64), (2**53 + 2, I64)]),
        ("max", [(1.0, F32), (16777220, I64)]),
        ("min", [(0.9921875, BF16), (0.455, BF16)]),
        ("min", [(16777217, I64), (16777216.0, F32)]),
        ("min", [(1e5, F64), (0.1, F32), (0.05, F64)]),
        ("min", [(16777217.0, F64), (0.0, F32)]),
    ],
    ids=str,
)
def test_values_of_several_precisions_or_too_large_for_a_float(ns, mode, fed):
    native, ours = pair(ns, {"mode": mode, "patience": 1})
    for value, dtype in fed:
        expected = native._evaluate_stopping_criteria(tensor(value, dtype))
        assert ours._evaluate_stopping_criteria(tensor(value, dtype)) == expected
        assert snapshot(ours) == snapshot(native)


@pytest.mark.parametrize("value", [[0.5, 0.25], [], True, 1 + 2j], ids=str)
@pytest.mark.parametrize("config", [{}, {"check_finite": False}, {"stopping_threshold": 0.7}], ids=str)
def test_what_is_no_single_number_gets_the_same_answer(ns, config, value):
    native, ours = pair(ns, config)
    expected = attempt(native._evaluate_stopping_criteria, torch.tensor(value))
    assert attempt(ours._evaluate_stopping_criteria, torch.tensor(value)) == expected


@pytest.mark.parametrize("value", [0.5, 1, None], ids=str)
def test_what_is_no_tensor_is_refused(ns, value):
    with pytest.raises(TypeError):
        ns.stopping("m")._evaluate_stopping_criteria(value)
    trainer = Rank()
    trainer.callback_metrics = {"m": 0.5}
    with pytest.raises(AttributeError):
        ns.stopping("m")._run_early_stopping_check(trainer)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_under_another_default_precision(ns, mode):
    torch.set_default_dtype(torch.float64)
    try:
        native, ours = pair(ns, {"mode": mode, "min_delta": 0.1})
        assert snapshot(ours) == snapshot(native)
        for value in (tensor(16777217, torch.int64), tensor(16777216, torch.int64), tensor(0.9), tensor(1.0)):
            assert ours._evaluate_stopping_criteria(value) == native._evaluate_stopping_criteria(value)
            assert snapshot(ours) == snapshot(native)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_best_score_can_be_set_and_attributes_changed_while_training(ns):
    native, ours = pair(ns, {"patience": 3})
    for callback in (native, ours):
        callback._evaluate_stopping_criteria(tensor(5.0))
        callback.best_score = tensor(2.0, torch.float64)
        callback.patience, callback.min_delta, callback.wait_count = 4, -0.5, 1
    for value in (1.9, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0):
        assert ours._evaluate_stopping_criteria(tensor(value)) == native._evaluate_stopping_criteria(tensor(value))
        assert snapshot(ours) == snapshot(native)


def test_the_mode_can_be_changed_while_training(ns):
    native, ours = pair(ns, {"stopping_threshold": 9.0})
    for mode, value in (("min", 5.0), ("max", 6.0), ("max", 6.0), ("min", 5.5), ("min", 6.5), ("max", 10.0)):
        native.mode = ours.mode = mode
        assert ours._evaluate_stopping_criteria(tensor(value)) == native._evaluate_stopping_criteria(tensor(value))
        assert (ours.monitor_op, snapshot(ours)) == (native.monitor_op, snapshot(native))


# The interface


def test_the_constructor_takes_the_same_arguments_and_a_name(ns):
    ours = dict(inspect.signature(ns.stopping.__init__).parameters)
    name = ours.pop("name")
    assert (name.kind, name.default) == (inspect.Parameter.KEYWORD_ONLY, None)
    native = inspect.signature(ns.native.EarlyStopping.__init__).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in native.values()
    ]
    assert all(p.annotation is not inspect.Parameter.empty for p in list(ours.values())[1:])


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_new_callback_has_the_same_attributes(ns, mode):
    arguments = ("m", 0.5, 7, True, mode, False, False, 0.25, 4.0, True, True)
    native, ours = ns.native.EarlyStopping(*arguments), ns.stopping(*arguments)
    for name, value in vars(native).items():
        assert plain(getattr(ours, name)) == plain(value), name
    assert ours.min_delta == (-0.5 if mode == "min" else 0.5)
    assert (ours.monitor_op, ours.mode_dict, ours.order_dict) == (
        native.monitor_op,
        native.mode_dict,
        native.order_dict,
    )
    assert ours.state_key == native.state_key
    assert snapshot(ours) == snapshot(native)


def test_it_is_an_early_stopping_of_its_namespace_only(ns):
    other = L if ns is PL else PL
    assert issubclass(ns.stopping, ns.native.EarlyStopping)
    assert not issubclass(ns.stopping, other.native.EarlyStopping)
    assert ns.stopping("m").stopping_reason is ns.reasons.NOT_STOPPED
    assert ns.room.EarlyStoppingReason is ns.reasons
    assert (ns.stopping.__name__, ns.stopping.__qualname__) == ("EarlyStopping", "EarlyStopping")


def test_the_state_key_is_the_one_of_older_checkpoints(ns):
    assert ns.stopping("m").state_key == "EarlyStopping{'monitor': 'm', 'mode': 'min'}"
    assert ns.stopping(monitor="val/acc", mode="max").state_key == "EarlyStopping{'monitor': 'val/acc', 'mode': 'max'}"


def test_a_name_tells_two_callbacks_apart(ns):
    one, other, plain_one = ns.stopping("m", name="one"), ns.stopping("m", name="other"), ns.stopping("m")
    keys = {one.state_key, other.state_key, plain_one.state_key}
    assert len(keys) == 3
    assert all(key.startswith("EarlyStopping{") for key in keys)
    assert "one" in one.state_key
    trainer = ns.trainer(one, other, plain_one, max_epochs=1)
    assert trainer.early_stopping_callbacks == [one, other, plain_one]
    with pytest.raises(RuntimeError, match="more than one stateful callback of type"):
        ns.trainer(one, ns.stopping("m", name="one"))
    with pytest.raises(TypeError):
        ns.stopping("m", 0.0, 3, False, "min", True, True, None, None, None, False, "one")


@pytest.mark.parametrize("mode", ["unknown", "", "MIN", "auto"])
def test_an_unknown_mode_is_a_misconfiguration(ns, mode):
    with pytest.raises(ns.misconfiguration) as error:
        ns.stopping("m", mode=mode)
    assert str(error.value) == f"`mode` can be min, max, got {mode}"


def test_unknown_arguments_and_a_missing_monitor_are_type_errors(ns):
    for arguments, options in (((), {}), (("m",), {"warmup": 3})):
        with pytest.raises(TypeError):
            ns.stopping(*arguments, **options)


@pytest.mark.parametrize("name", ["pickle", "cloudpickle", "copy"])
@pytest.mark.parametrize("config", [{}, {"monitor": "acc", "mode": "max", "min_delta": 0.2, "patience": 1}], ids=str)
def test_a_copy_has_equal_attributes(ns, name, config):
    original = ns.stopping(**{"monitor": "m", **config})
    for fed in ([], [3.0], [2.0, 2.0, 2.5]):
        for value in fed:
            original._evaluate_stopping_criteria(tensor(value))
        if name == "copy":
            twin = copy.deepcopy(original)
        else:
            module = importlib.import_module(name)
            twin = module.loads(module.dumps(original))
        assert type(twin) is ns.stopping
        assert vars(twin) == vars(original)
        assert snapshot(twin) == snapshot(original)
    for value in (1.0, 1.0, 5.0, 1.0):
        assert twin._evaluate_stopping_criteria(tensor(value)) == original._evaluate_stopping_criteria(tensor(value))


def test_built_under_the_meta_device_it_works_on_real_values(ns):
    with torch.device("meta"):
        ours = ns.stopping("m", min_delta=0.1, patience=2)
    native = ns.native.EarlyStopping("m", min_delta=0.1, patience=2)
    assert snapshot(ours) == snapshot(native)
    for value in (1.0, 0.9, 0.5, 0.5, 0.5):
        expected = native._evaluate_stopping_criteria(tensor(value))
        with torch.device("meta"):
            current = torch.tensor(value, device="cpu")
            assert ours._evaluate_stopping_criteria(current) == expected
            state = ours.state_dict()
        assert plain(state) == plain(native.state_dict())
        assert snapshot(ours) == snapshot(native)


@pytest.mark.parametrize(
    ("rank_zero_only", "world_size", "rank", "logged"),
    [
        (False, 1, 0, "text"),
        (False, 2, 0, "[rank: 0] text"),
        (False, 2, 1, "[rank: 1] text"),
        (True, 1, 0, "text"),
        (True, 2, 0, "[rank: 0] text"),
        (True, 2, 1, None),
    ],
)
def test_log_info_prefixes_the_rank(ns, rank_zero_only, world_size, rank, logged):
    trainer = mock.Mock(global_rank=rank, world_size=world_size)
    with mock.patch.object(ns.room.log, "info") as info:
        ns.stopping("m")._log_info(trainer, "text", rank_zero_only)
        ns.stopping._log_info(trainer, "text", rank_zero_only)
    assert info.call_args_list == [mock.call(logged)] * 2 if logged else not info.called


def test_the_module_has_the_names_of_the_namespace_in_use():
    module = importlib.import_module("lightning_ext.early_stopping")
    assert module.EarlyStopping is lightning_ext.EarlyStopping is PL.stopping  # both are imported
    assert module.EarlyStoppingReason is PL.reasons
    trainer = mock.Mock(global_rank=0, world_size=1)
    with mock.patch("lightning_ext.early_stopping.log.info") as info:
        module.EarlyStopping._log_info(trainer, "text", False)
    info.assert_called_once_with("text")
    for name in ("no_such_name", "Timer"):
        assert not hasattr(module, name)
        assert not hasattr(lightning_ext, name)


# One check


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)], ids=str)
def test_the_criteria_get_the_squeezed_tensor_and_their_word_is_taken(ns, shape):
    ours, trainer = ns.stopping("m"), ns.trainer()
    trainer.callback_metrics["m"] = torch.zeros(shape)
    with mock.patch.object(ns.stopping, "_evaluate_stopping_criteria", return_value=(False, "")) as criteria:
        ours._run_early_stopping_check(trainer)
    criteria.assert_called_once_with(torch.tensor(0.0))
    assert criteria.call_args.args[0].shape == ()
    assert (trainer.should_stop, ours.stopping_reason_message) == (False, None)
    with mock.patch.object(ours, "_evaluate_stopping_criteria", return_value=(True, "because")) as criteria:
        ours._run_early_stopping_check(trainer)
    criteria.assert_called_once()
    assert (trainer.should_stop, ours.stopping_reason_message) == (True, "because")
    assert ours.stopping_reason is ns.reasons.NOT_STOPPED


def test_the_improvement_message_can_be_overridden(ns):
    class Terse(ns.stopping):
        def _improvement_message(self, current):
            return f"{self.best_score.item()} -> {current.item()}"

    ours = Terse("m")
    assert ours._evaluate_stopping_criteria(tensor(2.0)) == (False, "inf -> 2.0")
    assert ours._evaluate_stopping_criteria(tensor(1.5)) == (False, "2.0 -> 1.5")


def relative(current, best):
    return current < best - 0.1 * abs(best)


class Relative:
    monitor_op = property(lambda self: relative)


class Ties:
    mode_dict = {"min": torch.lt, "max": torch.ge}  # noqa: RUF012


class Arrows:
    order_dict = {"min": "->", "max": "<-"}  # noqa: RUF012


@pytest.mark.parametrize("mixin", [Relative, Ties, Arrows])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_compares_can_be_overridden(ns, mixin, mode):
    config = {"mode": mode, "patience": 2, "stopping_threshold": 0.25, "divergence_threshold": 8.0}
    native, ours = (type("Own", (mixin, base), {})("m", **config) for base in (ns.native.EarlyStopping, ns.stopping))
    assert snapshot(ours) == snapshot(native)
    for value in (3.0, 2.9, 2.0, 2.0, 2.5, 3.0, 3.0, 8.0, 9.0, 0.25, 0.2):
        assert ours._evaluate_stopping_criteria(tensor(value)) == native._evaluate_stopping_criteria(tensor(value))
        assert snapshot(ours) == snapshot(native)


def test_a_class_that_comes_after_it_is_initialised_too(ns):
    class Counting:
        def __init__(self):
            super().__init__()
            self.count = 7

    class Both(ns.stopping, Counting):
        pass

    assert Both("m").count == 7


@pytest.mark.parametrize(
    ("best", "current"), [(INF, 1.0), (2.0, 1.0), (1.0, 0.9), (-INF, 0.0), (2, 1), (1e10, 3.0)], ids=str
)
def test_the_improvement_message_reads_as_before(ns, best, current):
    native, ours = pair(ns, {"min_delta": 0.1})
    native.best_score = ours.best_score = torch.tensor(best)
    assert ours._improvement_message(torch.tensor(current)) == native._improvement_message(torch.tensor(current))


def test_a_missing_metric_is_an_error_when_strict(ns):
    trainer = Rank()
    trainer.callback_metrics = {"a": tensor(1.0), "b": tensor(2.0)}
    text = (
        "Early stopping conditioned on metric `m` which is not available. Pass in or modify your `EarlyStopping` "
        "callback to use any of the following: `a`, `b`"
    )
    with pytest.raises(RuntimeError) as error:
        ns.stopping("m")._run_early_stopping_check(trainer)
    assert str(error.value) == text
    with pytest.warns(RuntimeWarning) as warned:
        ns.stopping("m", strict=False, verbose=True)._run_early_stopping_check(trainer)
    assert [str(warning.message) for warning in warned] == [text]
    lenient = ns.stopping("m", strict=False)
    before = snapshot(lenient)
    lenient._run_early_stopping_check(trainer)
    assert snapshot(lenient) == before
    assert lenient._validate_condition_metric({}) is False
    assert lenient._validate_condition_metric({"m": tensor(1.0)}) is True


def test_another_rank_stops_this_one_and_a_stop_is_never_taken_back(ns):
    native, ours = pair(ns, {})
    for callback in (native, ours):
        trainer = Rank()
        trainer.current_epoch, trainer.others = 7, True
        trainer.callback_metrics = {"m": tensor(1.0)}
        callback._run_early_stopping_check(trainer)
        assert trainer.should_stop is True
        trainer.others, trainer.current_epoch = False, 8
        callback.best_score = tensor(5.0)
        callback._run_early_stopping_check(trainer)
        assert trainer.should_stop is True
    assert snapshot(ours) == snapshot(native)
    assert (ours.stopped_epoch, ours.stopping_reason) == (7, ns.reasons.NOT_STOPPED)
    assert ours.stopping_reason_message == "Metric m improved. New best score: 1.000"


def test_no_check_in_a_fast_dev_run(ns):
    trainer = Rank()
    trainer.fast_dev_run, trainer.callback_metrics = True, {}
    ours = ns.stopping("m", patience=0)
    before = snapshot(ours)
    ours._run_early_stopping_check(trainer)
    trainer.callback_metrics = {"m": tensor(NAN)}
    ours._run_early_stopping_check(trainer)
    assert (snapshot(ours), trainer.should_stop) == (before, False)


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize(("interval", "every"), [(1.0, 1), (1, 1), (0.5, 1), (1.0, 2), (4, None)])
def test_setup_resolves_when_to_check(ns, asked, interval, every):
    native, ours = pair(ns, {"check_on_train_epoch_end": asked})
    for callback in (native, ours):
        stand_in = mock.Mock(val_check_interval=interval, check_val_every_n_epoch=every)
        callback.setup(stand_in, mock.Mock(), "fit")
    assert ours._check_on_train_epoch_end == native._check_on_train_epoch_end
    trainer = ns.trainer(val_check_interval=interval, check_val_every_n_epoch=every)
    again = ns.stopping("m", check_on_train_epoch_end=asked)
    again.setup(trainer, None, "fit")
    assert again._check_on_train_epoch_end == native._check_on_train_epoch_end


# States


def test_a_state_goes_through_a_callback_unchanged(ns):
    state = {
        "wait_count": 2,
        "stopped_epoch": 9,
        "best_score": tensor(0.25),
        "patience": 5,
        "stopping_reason": ns.reasons.PATIENCE_EXHAUSTED.value,
        "stopping_reason_message": "why",
    }
    ours = ns.stopping("m", patience=50)
    ours.load_state_dict(copy.deepcopy(state))
    assert plain(ours.state_dict()) == plain(state)
    assert ours.stopping_reason is ns.reasons.PATIENCE_EXHAUSTED
    assert (ours.patience, ours.wait_count, ours.best_score) == (5, 2, tensor(0.25))


def test_a_state_from_before_there_were_reasons(ns):
    native, ours = pair(ns, {})
    for callback in (native, ours):
        callback._evaluate_stopping_criteria(tensor(NAN))
        callback.stopping_reason_message = "from before"
        callback.load_state_dict({"wait_count": 2, "stopped_epoch": 0, "best_score": tensor(0.5), "patience": 4})
    assert snapshot(ours) == snapshot(native)
    assert (ours.stopping_reason, ours.stopping_reason_message) == (ns.reasons.NOT_STOPPED, None)
    assert ours._evaluate_stopping_criteria(tensor(0.6)) == (False, None)
    assert ours._evaluate_stopping_criteria(tensor(0.6))[0] is True


@pytest.mark.parametrize("missing", ["wait_count", "stopped_epoch", "best_score", "patience"])
def test_a_state_that_lacks_what_is_needed_is_a_key_error(ns, missing):
    state = ns.stopping("m").state_dict()
    del state[missing]
    with pytest.raises(KeyError, match=missing):
        ns.stopping("m").load_state_dict(state)


def test_an_unknown_reason_is_refused(ns):
    with pytest.raises(ValueError, match="99"):
        ns.stopping("m").load_state_dict({**ns.stopping("m").state_dict(), "stopping_reason": 99})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64], ids=str)
def test_a_state_survives_a_file_that_may_hold_weights_only(ns, tmp_path, dtype):
    ours = ns.stopping("m", patience=1)
    for value in (3, 2, 2):
        ours._evaluate_stopping_criteria(tensor(value, dtype))
    torch.save(ours.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert plain(loaded) == plain(ours.state_dict())
    assert {type(value) for key, value in loaded.items() if key != "best_score"} <= {int, str, type(None)}
    twin, native = ns.stopping("m"), ns.native.EarlyStopping("m")
    twin.load_state_dict(loaded)
    native.load_state_dict(loaded)
    assert snapshot(twin) == snapshot(native)


# In a Trainer


def trained(ns, cls, values, options=None, hook="on_validation_epoch_end", batches=1, **settings):
    """Fit with one callback; return what can be compared: where training ended, and the callback."""
    callback = cls("m", **(options or {}))
    trainer = ns.fit(ns.trainer(callback, **settings), values, hook, batches=batches)
    end = {
        "epoch": trainer.current_epoch,
        "step": trainer.global_step,
        "should_stop": trainer.should_stop,
        "resolved": callback._check_on_train_epoch_end,
    }
    return {**end, **snapshot(callback)}


def same_as_native(ns, *args, **settings):
    ours = trained(ns, ns.stopping, *args, **settings)
    assert ours == trained(ns, ns.native.EarlyStopping, *args, **settings)
    return SimpleNamespace(**ours)


@pytest.mark.parametrize("hook", ["on_validation_epoch_end", "on_train_epoch_end", "training_step"])
@pytest.mark.parametrize(
    ("values", "patience", "epochs"),
    [
        ([6, 5, 5, 5, 5, 5], 3, 5),
        ([6, 5, 4, 4, 3, 3], 1, 4),
        ([6, 5, 6, 5, 5, 5], 3, 5),
        ([6, 7], 0, 2),
        ([6, 5, 4, 3, 2, 1], 1, 6),
    ],
    ids=str,
)
def test_training_ends_when_patience_does(ns, hook, values, patience, epochs):
    end = same_as_native(ns, [float(v) for v in values], {"patience": patience}, hook=hook, max_epochs=6)
    assert end.epoch == epochs


@pytest.mark.parametrize(
    ("options", "values", "epochs", "reason", "text"),
    [
        ({"patience": 2}, [1.0, 1.5, 1.5], 3, "PATIENCE_EXHAUSTED", "did not improve in the last 2 records"),
        ({"stopping_threshold": 0.7}, [1.0, 0.5], 2, "STOPPING_THRESHOLD", "m = 0.5 < 0.7."),
        (
            {"stopping_threshold": 0.7, "mode": "max"},
            [0.5, 0.75],
            2,
            "STOPPING_THRESHOLD",
            "m = 0.75 > 0.7.",
        ),
        ({"divergence_threshold": 15.9}, [9.0, 16.0], 2, "DIVERGENCE_THRESHOLD", "m = 16.0 < 15.9."),
        ({}, [3.0, NAN], 2, "NON_FINITE_METRIC", "m = nan is not finite. Previous best value was 3.000."),
        ({}, [INF], 1, "NON_FINITE_METRIC", "m = inf is not finite. Previous best value was inf."),
        ({}, [-INF], 1, "NON_FINITE_METRIC", "m = -inf is not finite. Previous best value was inf."),
        ({}, [3.0, 2.0, 1.0], 3, "NOT_STOPPED", None),
    ],
    ids=str,
)
def test_the_reason_is_told(ns, options, values, epochs, reason, text):
    end = same_as_native(ns, values, options, max_epochs=3)
    assert end.epoch == epochs
    assert reason in end.stopping_reason[1]
    kind, message = end.stopping_reason_message
    assert message == repr(None) if text is None else text in message
    assert (kind == "NoneType") == (text is None)
    assert end.stopped_epoch == ("int", str(epochs - 1 if text else 0))


@pytest.mark.parametrize(
    ("limits", "values"),
    [
        ({"min_epochs": 5, "max_epochs": 8}, [5.0, 6.0, 4.0, 3.0, 2.0, 1.0]),  # a stop that waits for the fifth epoch
        ({"min_epochs": 4, "max_epochs": 8}, [5.0]),
        ({"min_steps": 12, "max_epochs": 8}, [5.0]),
        ({"min_steps": 5, "min_epochs": 3, "max_epochs": 8}, [5.0]),
        ({"min_steps": 2, "min_epochs": 1, "max_epochs": 8}, [5.0]),
        ({"max_epochs": 2}, [5.0]),
        ({"max_steps": 5}, [5.0]),
    ],
    ids=str,
)
def test_minima_and_maxima_of_the_trainer_hold(ns, limits, values):
    end = same_as_native(ns, values, {"patience": 1}, batches=3, **limits)
    assert end.epoch >= limits.get("min_epochs", 0)
    assert end.step >= limits.get("min_steps", 0)
    assert end.epoch <= limits.get("max_epochs", 1000)
    assert end.should_stop is ("max_steps" in limits or limits["max_epochs"] > 1)
    if values[-1] == 1.0:
        assert (end.epoch, end.wait_count) == (5, ("int", "0"))


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"val_check_interval": 2},
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": 3},
        {"val_check_interval": 3, "check_val_every_n_epoch": None},
    ],
    ids=str,
)
def test_checks_follow_the_validation_schedule(ns, schedule, asked):
    values = [6.0, 5.0, 4.0, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5]
    options = {"check_on_train_epoch_end": asked, "strict": False, "patience": 2}
    end = same_as_native(ns, values, options, batches=4, max_epochs=12, **schedule)
    assert end.resolved is (asked if asked is not None else not schedule)


def test_it_stops_in_the_middle_of_an_epoch_when_validation_runs_there(ns):
    ours = ns.stopping("m")
    trainer = ns.trainer(ours, val_check_interval=0.3, max_epochs=3)
    with mock.patch.object(ns.stopping, "_evaluate_stopping_criteria", side_effect=[(False, ""), (True, "")]) as two:
        ns.fit(trainer, [1.0], batches=10)
    assert two.call_count == 2
    assert (trainer.global_step, trainer.should_stop, ours._check_on_train_epoch_end) == (6, True, False)


def test_a_stale_value_is_counted_again(ns):
    values = [float(20 - epoch) for epoch in range(12)]  # better at every validation
    options = {"check_on_train_epoch_end": True, "strict": False, "patience": 2}
    end = same_as_native(ns, values, options, max_epochs=12, check_val_every_n_epoch=3)
    assert end.stopped_epoch == ("int", "4")


@pytest.mark.parametrize("hook", ["on_validation_epoch_end", "on_train_epoch_end"])
def test_the_check_sees_the_metric_of_its_own_epoch(ns, hook):
    seen = []

    class Seeing(ns.stopping):
        def _evaluate_stopping_criteria(self, current):
            seen.append(current.item())
            return super()._evaluate_stopping_criteria(current)

    ns.fit(ns.trainer(Seeing("m", patience=2), max_epochs=6), [3.0, 2.0, 1.0, 4.0, 5.0, 6.0], hook)
    assert seen == [3.0, 2.0, 1.0, 4.0, 5.0]


def test_a_missing_metric_ends_the_fit(ns):
    with pytest.raises(RuntimeError, match=r"conditioned on metric `m` which is not available.*`other`"):
        ns.fit(ns.trainer(ns.stopping("m"), max_epochs=2), [1.0], key="other")
    trainer = ns.fit(ns.trainer(ns.stopping("m", strict=False), max_epochs=2), [1.0], key="other")
    assert trainer.current_epoch == 2


def test_nothing_happens_in_a_fast_dev_run_the_sanity_check_or_outside_of_fit(ns):
    ours = ns.stopping("m", patience=0, check_on_train_epoch_end=False)
    before = snapshot(ours)
    ns.fit(ns.trainer(ours, fast_dev_run=True), [NAN])
    trainer = ns.trainer(ours, num_sanity_val_steps=1, limit_train_batches=0)
    ns.fit(trainer, [NAN])
    trainer.validate(ns.model([NAN]), range(1), verbose=False)
    assert snapshot(ours) == before
    with mock.patch.object(ns.stopping, "_evaluate_stopping_criteria", return_value=(False, None)) as criteria:
        ns.fit(ns.trainer(ours, max_epochs=3), [1.0])
    assert criteria.call_count == 3  # no fourth for the sanity check


def test_the_trainer_knows_the_callback_and_puts_it_before_checkpoints(ns, tmp_path):
    first, second = ns.stopping("m", patience=5), ns.stopping("m", mode="max")
    checkpoint = ns.callbacks.ModelCheckpoint(tmp_path)
    trainer = ns.trainer(checkpoint, first, second, enable_checkpointing=True)
    assert trainer.early_stopping_callback is first
    assert trainer.early_stopping_callbacks == [first, second]
    assert trainer.callbacks.index(checkpoint) > trainer.callbacks.index(second)
    assert trainer.checkpoint_callback is checkpoint


@pytest.mark.parametrize(("patience", "epochs"), [((3, 2), 4), ((1, 2), 3), ((5, 5), 6)])
def test_of_several_the_first_to_stop_ends_training(ns, patience, epochs):
    values = [6.0, 5.0, 5.5, 5.5, 5.5, 5.5]
    ours = [ns.stopping("m", patience=n, name=str(n) + kind) for n, kind in zip(patience, "ab", strict=True)]
    trainer = ns.fit(ns.trainer(*ours, max_epochs=6), values)
    second = type("Second", (ns.native.EarlyStopping,), {})  # for its state key
    natives = [cls("m", patience=n) for cls, n in zip((ns.native.EarlyStopping, second), patience, strict=True)]
    assert trainer.current_epoch == epochs == ns.fit(ns.trainer(*natives, max_epochs=6), values).current_epoch
    assert list(map(snapshot, ours)) == list(map(snapshot, natives))


def test_a_second_fit_goes_on_counting(ns):
    ends = []
    for cls in (ns.native.EarlyStopping, ns.stopping):
        callback = cls("m", patience=2)
        for _ in range(2):
            trainer = ns.fit(ns.trainer(callback), [1.0])
            ends.append((trainer.current_epoch, snapshot(callback)))
    assert ends[:2] == ends[2:]
    assert [epoch for epoch, _ in ends[2:]] == [3, 1]


@pytest.mark.parametrize("verbose", [True, False])
def test_messages_go_where_lightnings_own_go(ns, verbose, caplog):
    texts = []
    for cls in (ns.native.EarlyStopping, ns.stopping):
        with listening(logging.getLogger(ns.name)) as messages:
            trained(ns, cls, [3.0, 2.5, 2.5, 2.75], {"verbose": verbose, "patience": 2, "min_delta": 0.25})
        texts.append([message for message in messages if "etric m" in message])
    assert texts[0] == texts[1]
    expected = [
        "Metric m improved. New best score: 3.000",
        "Metric m improved by 0.500 >= min_delta = 0.25. New best score: 2.500",
        "Monitored metric m did not improve in the last 2 records. Best score: 2.500. Signaling Trainer to stop.",
    ]
    assert texts[1] == (expected if verbose else [])
    assert ns.room.log.isEnabledFor(logging.INFO)
    with (
        mock.patch.object(logging.getLogger(ns.name), "propagate", True),
        caplog.at_level(logging.INFO, logger=ns.room.log.name),
    ):
        trained(ns, ns.stopping, [3.0], {"verbose": verbose}, max_epochs=1)
    assert (expected[0] in caplog.messages) is verbose


# Checkpoints and subclasses


def saving(ns, folder):
    return ns.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)


def test_a_subclass_resumes_from_its_own_checkpoint(ns, tmp_path):
    cls = RecordingHere if ns is PL else RecordingThere
    values = [9.0, 8.0, 8.5, 8.0, 7.0, 6.0]
    first = cls("m", patience=4)
    key = f"{cls.__qualname__}{{'monitor': 'm', 'mode': 'min'}}"
    assert first.state_key == key
    ns.fit(ns.trainer(first, saving(ns, tmp_path), max_epochs=4, enable_checkpointing=True), values)
    assert [state["wait_count"] for state in first.at_epoch_end] == [0, 0, 1, 2]
    for epoch in range(4):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert plain(saved["callbacks"][key]) == plain(first.at_epoch_end[epoch])
    second = cls("m", patience=9)
    ns.fit(ns.trainer(second, max_epochs=6), values, ckpt_path=tmp_path / "epoch=3.ckpt")
    assert plain(second.at_start) == plain(first.at_epoch_end[3])
    assert second.patience == 4  # the checkpoint's
    assert [state["wait_count"] for state in second.at_epoch_end] == [0, 0]


@pytest.mark.parametrize("config", [{"patience": 3}, {"patience": 3, "mode": "max", "min_delta": 0.1}], ids=str)
def test_checkpoints_go_both_ways_between_ours_and_lightnings_own(ns, tmp_path, config):
    sign = 1.0 if config.get("mode") != "max" else -1.0
    values = [sign * value for value in (9.0, 8.0, 7.9, 8.5, 8.5, 8.5, 1.0)]
    classes = {"native": ns.native.EarlyStopping, "ours": ns.stopping}
    states, ends = {}, {}
    for name, cls in classes.items():
        callback = cls("m", **config)
        checkpoints = saving(ns, tmp_path / name)
        trainer = ns.fit(ns.trainer(callback, checkpoints, enable_checkpointing=True), values)
        ends[name, None] = trainer.current_epoch, snapshot(callback)
        for epoch in range(trainer.current_epoch):
            saved = torch.load(tmp_path / name / f"epoch={epoch}.ckpt", weights_only=True)
            states.setdefault(epoch, []).append(plain(saved["callbacks"][callback.state_key]))
    assert all(native == ours for native, ours in states.values())
    alone = ends["native", None]
    assert alone[0] == (6 if sign > 0 else 5)
    for writer in classes:
        for reader, cls in classes.items():
            callback = cls("m", **{**config, "patience": 50})  # the checkpoint's comes back
            trainer = ns.trainer(callback)
            ns.fit(trainer, values, ckpt_path=tmp_path / writer / "epoch=2.ckpt")
            ends[writer, reader] = trainer.current_epoch, snapshot(callback)
    assert [key for key, end in ends.items() if end != alone] == []


def test_a_stopped_run_that_is_resumed_trains_one_more_epoch(ns, tmp_path):
    ends = []
    for name, cls in (("native", ns.native.EarlyStopping), ("ours", ns.stopping)):
        callback = cls("m", patience=2)
        folder = tmp_path / name
        trainer = ns.fit(ns.trainer(callback, saving(ns, folder), enable_checkpointing=True), [1.0])
        last = folder / f"epoch={trainer.current_epoch - 1}.ckpt"
        again = cls("m", patience=2)
        trainer = ns.fit(ns.trainer(again), [1.0], ckpt_path=last)
        ends.append((snapshot(callback), trainer.current_epoch, snapshot(again)))
    assert ends[0] == ends[1]
    assert ends[1][1] == 4


def test_the_state_of_a_checkpoint_that_is_keyed_by_class_is_found(ns):
    """Checkpoints of Lightning before 1.5 have the class itself as key."""
    state = {"wait_count": 1, "stopped_epoch": 3, "best_score": tensor(0.5), "patience": 8}
    ours = ns.stopping("m")
    trainer = ns.trainer(ours)
    call = importlib.import_module(f"{ns.name}.trainer.call")
    call._call_callbacks_load_state_dict(trainer, {"callbacks": {ns.native.EarlyStopping: state}})
    assert (ours.wait_count, ours.stopped_epoch, ours.patience, ours.best_score.item()) == (1, 3, 8, 0.5)


def test_overridden_hooks_and_checks_are_honoured(ns):
    ends = []
    for base in (ns.native.EarlyStopping, ns.stopping):
        callback = type("Custom", (EveryOther, base), {})("m", patience=1)
        assert callback.state_key == "Custom{'monitor': 'm', 'mode': 'min'}"
        trainer = ns.fit(ns.trainer(callback), [1.0])
        ends.append((trainer.current_epoch, callback.calls, callback.held, snapshot(callback)))
    assert ends[0] == ends[1]
    assert ends[1][:3] == (6, 3, 1)


def test_a_subclass_may_have_its_own_constructor_state_and_key(ns, tmp_path):
    class Own(ns.stopping):
        def __init__(self, extra, **options):
            super().__init__(monitor="m", **options)
            self.extra = extra

        @property
        def state_key(self):
            return f"own-{self.extra}"

        def state_dict(self):
            return {**super().state_dict(), "extra": self.extra}

        def load_state_dict(self, state_dict):
            super().load_state_dict(state_dict)
            self.extra = state_dict["extra"] + 1

    first = Own(1, patience=2)
    ns.fit(ns.trainer(first, saving(ns, tmp_path), max_epochs=2, enable_checkpointing=True), [3.0, 4.0])
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)["callbacks"]["own-1"]
    assert (saved["extra"], saved["wait_count"]) == (1, 1)
    second = Own(1)
    second.load_state_dict(saved)
    assert (second.extra, second.wait_count, second.patience) == (2, 1, 2)


# Which namespace


@pytest.mark.parametrize("entry", ["fit", "validate"])
@pytest.mark.parametrize(
    ("cls", "other"),
    [(PL.stopping, L), (L.stopping, PL), (RecordingHere, L), (RecordingThere, PL)],
    ids=["pl-in-lightning", "lightning-in-pl", "subclass-in-lightning", "subclass-in-pl"],
)
def test_a_callback_in_the_other_namespaces_trainer_is_refused(cls, other, entry):
    ours = cls("m")
    before = snapshot(ours)
    trainer = other.trainer(ours, max_epochs=1)
    arguments = (range(1), range(1)) if entry == "fit" else (range(1),)
    with pytest.raises(TypeError) as error:
        getattr(trainer, entry)(other.model([1.0]), *arguments)
    recipe = f'EarlyStopping = lightning_ext.for_namespace("{other.name}").EarlyStopping'
    assert recipe in (line.strip() for line in str(error.value).splitlines())
    scope = {"lightning_ext": lightning_ext}
    exec(recipe, scope)
    assert scope["EarlyStopping"] is other.stopping
    assert (snapshot(ours), trainer.global_step) == (before, 0)


def test_for_namespace_knows_two_names():
    assert lightning_ext.for_namespace("pytorch_lightning").EarlyStopping is PL.stopping
    assert lightning_ext.for_namespace("lightning.pytorch").EarlyStopping is L.stopping
    for name in ("lightning", "torch", ""):
        with pytest.raises(ValueError, match=r"pytorch_lightning.*lightning\.pytorch"):
            lightning_ext.for_namespace(name)


# Three ways in which a package is not there. The first two can be ended.
RAISING = """
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
def install():
    del sys.meta_path[0]
"""
MISSING = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.split(".")[0] in {absent!r} else find(name, path, target)
)
def install():
    PathFinder.find_spec = find
"""
NONE = """
sys.modules.update(dict.fromkeys({absent!r}))
"""
FIT = """
import torch
class Model({module}.LightningModule):
    def training_step(self, batch, index):
        return self.weight.sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def on_train_epoch_end(self):
        self.log("m", 1.0)
model = Model()
model.weight = torch.nn.Parameter(torch.zeros(1))
quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer = {module}.Trainer(accelerator="cpu", max_epochs=9, callbacks=[EarlyStopping("m", verbose=True)], **quiet)
trainer.fit(model, range(1))
facts["epochs"] = trainer.current_epoch
facts["known"] = trainer.early_stopping_callback is not None
"""


def facts_of(code, absent=(), how=RAISING):
    """Run code in a fresh interpreter where some packages cannot be imported; return its facts and its error output."""
    prelude = how.format(absent=tuple(absent)) if absent else ""
    epilogue = "\nimport json\nprint('FACTS', json.dumps(facts))"
    command = [sys.executable, "-c", f"import sys\n{prelude}\nfacts = {{}}\n{code}{epilogue}"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.rsplit("FACTS", 1)[1]), run.stderr


ORIGIN = """
def origin(cls):
    (base,) = [base for base in cls.__mro__ if base.__module__.endswith("callbacks.early_stopping")]
    return base.__module__.removesuffix(".callbacks.early_stopping")
"""


@pytest.mark.parametrize(("only", "other", "how"), [(PL, L, RAISING), (L, PL, MISSING)], ids=[PL.name, L.name])
def test_the_only_namespace_there_is_and_then_the_first_of_two(only, other, how):
    code = f"""
import pickle
twin = pickle.loads({pickle.dumps(only.stopping("m", patience=7))!r})
import lightning_ext
from lightning_ext import EarlyStopping
from lightning_ext.early_stopping import EarlyStopping as again, EarlyStoppingReason, log
import {only.name} as lightning
{ORIGIN}
facts["origin"] = origin(EarlyStopping)
facts["one"] = EarlyStopping is again is lightning_ext.for_namespace({only.name!r}).EarlyStopping is type(twin)
facts["patience"] = twin.patience
facts["reason"] = EarlyStopping("m").stopping_reason is EarlyStoppingReason.NOT_STOPPED
try:
    lightning_ext.for_namespace({other.name!r})
except ImportError as error:
    facts["error"] = str(error)
{FIT.format(module="lightning")}
install()
facts["first"] = origin(lightning_ext.EarlyStopping)
import {other.name}
facts["both"] = origin(lightning_ext.EarlyStopping)
facts["named"] = [origin(lightning_ext.for_namespace(name).EarlyStopping) for name in {[only.name, other.name]!r}]
"""
    facts, errors = facts_of(code, [other.name.split(".")[0]], how)
    assert other.name in facts["error"]
    assert "pip install" in facts.pop("error")
    assert facts == {
        "origin": only.name,
        "one": True,
        "patience": 7,
        "reason": True,
        "epochs": 4,
        "known": True,
        "first": only.name,
        "both": "pytorch_lightning",
        "named": [only.name, other.name],
    }
    assert "Metric m improved. New best score: 1.000" in errors
    assert "Monitored metric m did not improve in the last 3 records. Best score: 1.000." in errors


def test_of_two_installed_and_none_imported_it_is_pytorch_lightning():
    code = f"""
import lightning_ext
from lightning_ext import EarlyStopping
{ORIGIN}
facts["origin"] = origin(EarlyStopping)
facts["again"] = origin(lightning_ext.EarlyStopping)
facts["other"] = "lightning" in sys.modules
"""
    facts, _ = facts_of(code)
    assert facts == {"origin": "pytorch_lightning", "again": "pytorch_lightning", "other": False}


@pytest.mark.parametrize("how", [RAISING, MISSING, NONE], ids=["raising", "missing", "none"])
def test_without_lightning_the_error_says_what_to_install(how):
    code = """
import lightning_ext
def error_of(function):
    try:
        function()
    except ImportError as error:
        return str(error)
def direct():
    from lightning_ext import EarlyStopping
facts["direct"] = error_of(direct)
facts["attribute"] = error_of(lambda: lightning_ext.EarlyStopping)
facts["named"] = [error_of(lambda: lightning_ext.for_namespace(n)) for n in ("pytorch_lightning", "lightning.pytorch")]
"""
    facts, _ = facts_of(code, ["lightning", "pytorch_lightning"], how)
    assert "pip install 'convergence-engine[lightning]'" in facts["direct"]
    assert facts["attribute"] == facts["direct"]
    assert all("pip install" in text for text in facts["named"])
