"""Lightning's two namespaces: which is in use, and the classes for each."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_ROOMS = {"pytorch_lightning": "lightning_ext.on_pytorch_lightning", "lightning.pytorch": "lightning_ext.on_lightning"}


def default_namespace() -> str:
    """Return the namespace that is already imported; if both or neither are, pytorch_lightning if installed.

    Raises
    ------
    ImportError
        If neither is installed.
    """
    loaded = [name for name in _ROOMS if sys.modules.get(name) is not None]
    if len(loaded) == 1:
        return loaded[0]
    for name in _ROOMS:
        if _installed(name):
            return name
    raise ImportError(
        "lightning_ext needs PyTorch Lightning: pip install 'convergence-engine[lightning]' "
        "(for lightning.pytorch instead of pytorch_lightning: pip install lightning)"
    )


def for_namespace(namespace: str) -> ModuleType:
    """Return the classes for one of Lightning's namespaces, as attributes of a module.

    Parameters
    ----------
    namespace : {"pytorch_lightning", "lightning.pytorch"}
        Where the Trainer comes from.

    Raises
    ------
    ValueError
        For any other name.
    ImportError
        If that namespace is not installed.

    Examples
    --------
    >>> for_namespace("pytorch_lightning").EarlyStopping("val_loss").patience
    3
    """
    if namespace not in _ROOMS:
        raise ValueError(f"namespace must be {' or '.join(map(repr, _ROOMS))}, got {namespace!r}")
    if not _installed(namespace):
        package = namespace.split(".")[0].replace("_", "-")
        raise ImportError(f"{namespace} is not installed: pip install {package}")
    version = importlib.import_module(namespace).__version__
    if tuple(map(int, version.split(".")[:2])) < (2, 6):
        package = namespace.split(".")[0].replace("_", "-")
        raise ImportError(f"lightning_ext needs {namespace} 2.6 or newer, found {version}: pip install -U {package}")
    return importlib.import_module(_ROOMS[namespace])


def refuse_foreign_trainer(callback: Any, trainer: Any) -> None:
    """Refuse a Trainer of the other namespace: Lightning would take the callback and misplace it silently.

    Raises
    ------
    TypeError
        With the import line to use instead.
    """
    own = callback.namespace
    roots = {cls.__module__.split(".")[0] for cls in type(trainer).__mro__}
    for other in _ROOMS:
        if other != own and other.split(".")[0] in roots and own.split(".")[0] not in roots:
            public = next(cls for cls in type(callback).__mro__ if cls.__module__ in _ROOMS.values()).__name__
            line = f'{public} = lightning_ext.for_namespace("{other}").{public}'
            raise TypeError(
                f"this {type(callback).__name__} is for a Trainer of {own}, and the Trainer is of {other}; use\n"
                f"    import lightning_ext\n    {line}"
            )


def overrides(module: Any, hook: str) -> bool:
    """Whether a LightningModule has its own version of a hook."""
    origin: str = getattr(type(module), hook).__module__
    return not origin.startswith(tuple(f"{name}." for name in _ROOMS))


def _installed(name: str) -> bool:
    if sys.modules.get(name) is not None:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
