"""What an answer may set for the whole process, and how it is put back after a check.

An answer is a learner's code and may set anything: how tensors are printed, how many threads work,
what Ctrl-C does. ``unchanged_settings`` reads all of it before and writes back what differs. What
changes from case to case (random states, types, devices) is ``run.unchanged_world``'s.
"""

import builtins
import contextlib
import decimal
import gc
import locale
import logging
import math
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import _tensor_str, nn  # pyright: ignore[reportPrivateUsage]

_Setting = tuple[Callable[[], Any], Callable[[Any], object]]


def _attribute(owner: Any, name: str) -> _Setting:
    return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))


def _contents(owner: Any) -> _Setting:
    """A dict or list that is changed in place."""

    def write(value: Any) -> None:
        owner.clear()
        (owner.update if isinstance(value, dict) else owner.extend)(value)

    return (lambda: owner.copy()), write


def _set_environment(wanted: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _deterministic() -> tuple[bool, bool]:
    algorithms = torch.are_deterministic_algorithms_enabled()
    return algorithms, torch.is_deterministic_algorithms_warn_only_enabled()


def _flushes_denormals() -> bool:
    tiny = torch.tensor([1e-310], dtype=torch.float64, device="cpu")
    return float(tiny.mul(1.0)) == 0.0


def _collects() -> bool:
    return gc.isenabled()


def _set_collecting(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _set_handlers(wanted: dict[int, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # no answer could set them here either
    for number, handler in wanted.items():
        if signal.getsignal(number) is not handler and handler is not None:
            signal.signal(number, handler)


def _locale() -> str:
    return locale.setlocale(locale.LC_ALL)


_SETTINGS: dict[str, _Setting] = {
    "torch threads": (torch.get_num_threads, torch.set_num_threads),
    "torch print options": _contents(vars(_tensor_str.PRINT_OPTS)),
    "deterministic algorithms": (
        _deterministic,
        lambda pair: torch.use_deterministic_algorithms(pair[0], warn_only=pair[1]),
    ),
    "matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "anomaly mode": (_anomaly, lambda pair: torch.autograd.set_detect_anomaly(*pair)),
    "backward threads": (
        torch.autograd.is_multithreading_enabled,
        torch.autograd.set_multithreading_enabled,
    ),
    "warn always": (torch.is_warn_always_enabled, torch.set_warn_always),
    "flush denormal": (_flushes_denormals, torch.set_flush_denormal),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda value: torch.set_autocast_enabled("cpu", value),
    ),
    "autocast type": (
        lambda: torch.get_autocast_dtype("cpu"),
        lambda value: torch.set_autocast_dtype("cpu", value),
    ),
    "autocast cache": (
        torch.is_autocast_cache_enabled,
        torch.set_autocast_cache_enabled,
    ),
    "cudnn benchmark": _attribute(torch.backends.cudnn, "benchmark"),
    "cudnn deterministic": _attribute(torch.backends.cudnn, "deterministic"),
    "cudnn enabled": _attribute(torch.backends.cudnn, "enabled"),
    "mkldnn enabled": _attribute(torch.backends.mkldnn, "enabled"),
    "hooks before modules": _contents(nn.modules.module._global_forward_pre_hooks),
    "hooks of modules": _contents(nn.modules.module._global_forward_hooks),
    "NumPy print options": (np.get_printoptions, lambda value: np.set_printoptions(**value)),
    "NumPy error call": (np.geterrcall, np.seterrcall),
    "NumPy buffer": (np.getbufsize, np.setbufsize),
    "environment": (lambda: dict(os.environ), _set_environment),
    "path": _contents(sys.path),
    "arguments": _contents(sys.argv),
    "standard output": _attribute(sys, "stdout"),
    "standard error": _attribute(sys, "stderr"),
    "standard input": _attribute(sys, "stdin"),
    "display hook": _attribute(sys, "displayhook"),
    "exception hook": _attribute(sys, "excepthook"),
    "hook of threads": _attribute(threading, "excepthook"),
    "switch interval": (sys.getswitchinterval, sys.setswitchinterval),
    "longest int": (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    "coroutines": (
        sys.get_coroutine_origin_tracking_depth,
        sys.set_coroutine_origin_tracking_depth,
    ),
    "asynchronous generators": (
        sys.get_asyncgen_hooks,
        lambda hooks: sys.set_asyncgen_hooks(*hooks),
    ),
    "trace": (sys.gettrace, sys.settrace),
    "profile": (sys.getprofile, sys.setprofile),
    "trace of threads": (threading.gettrace, threading.settrace),
    "profile of threads": (threading.getprofile, threading.setprofile),
    "garbage collection": (_collects, _set_collecting),
    "garbage thresholds": (gc.get_threshold, lambda value: gc.set_threshold(*value)),
    "garbage debug": (gc.get_debug, gc.set_debug),
    "signals": (_handlers, _set_handlers),
    "decimals": (lambda: decimal.getcontext().copy(), decimal.setcontext),
    "locale": (_locale, lambda value: locale.setlocale(locale.LC_ALL, value)),
    "log level": (lambda: logging.root.level, logging.root.setLevel),
    "log handlers": _contents(logging.root.handlers),
    "log disabled": _attribute(logging.root.manager, "disable"),
}
"""How each setting is read and written."""

_UNCOMPARABLE = {"decimals": repr, "environment": dict, "NumPy print options": repr}

_NAMESPACES = (builtins, math, random, torch, torch.Tensor, nn.functional, nn.Module, np)
"""Whose functions an answer might replace: ``torch.Tensor.sqrt = ...``."""


@contextlib.contextmanager
def unchanged_settings() -> Iterator[None]:
    """Inside, an answer may set what it likes; afterwards all is as before."""
    before = {name: read() for name, (read, _) in _SETTINGS.items()}
    shown = _matplotlib()
    names = [dict(vars(owner)) for owner in _NAMESPACES]
    try:
        yield
    finally:
        for owner, kept in zip(_NAMESPACES, names, strict=True):
            now = vars(owner)
            if isinstance(owner, type):  # what is new there hides what it inherits
                for name in set(now) - set(kept):
                    delattr(owner, name)
            for name, value in kept.items():
                if now.get(name) is not value and name != "_":
                    setattr(owner, name, value)
        for name, (read, write) in _SETTINGS.items():
            same = _UNCOMPARABLE.get(name, lambda value: value)
            if same(read()) != same(before[name]):
                write(before[name])
        if shown is not None and _matplotlib() != shown:
            dict.update(sys.modules["matplotlib"].rcParams, shown)


def _matplotlib() -> dict[str, Any] | None:
    """Matplotlib's parameters, if anybody has imported it."""
    module = sys.modules.get("matplotlib")
    parameters = getattr(module, "rcParams", None)
    return None if parameters is None else dict(dict.items(parameters))
