"""Find the user's hooks on a model, and describe them for the results."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from tl_attnstats.models.configuration import ranges
from tl_attnstats.models.fingerprint import raw_bytes

Placed = tuple[str, Callable[..., Any] | None]
"""The name of a hook point or module, and the function attached to it (None if unknown)."""

NOT_THE_USERS = ("transformer_lens.", "transformers.", "tl_attnstats.")
# Longer descriptions are cut and end with a hash of the whole.
LONGEST = 300


def user_hooks(model: Any, modules: Iterable[tuple[str, torch.nn.Module]]) -> list[Placed]:
    """Forward hooks on a model, except ours and those of libraries.

    Args:
        model: the model.
        modules: its `named_modules()`; finding them is slow, so callers keep the list.
    """
    names: dict[Any, str] = {}  # the shortest name of each hook point with hooks: in a bridge many have two
    for name, point in getattr(model, "hook_dict", {}).items():
        if point.fwd_hooks:
            names[point] = min(name, names.get(point, name), key=len)
    placed = [(name, getattr(h, "user_hook", None)) for point, name in names.items() for h in point.fwd_hooks]
    for name, module in modules:
        # TransformerLens also registers hooks with PyTorch; these are filtered out below.
        if module._forward_hooks or module._forward_pre_hooks:
            theirs = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
            placed += [(name or "model", hook) for hook in theirs]
    return [(name, hook) for name, hook in placed if not _module_of(hook).startswith(NOT_THE_USERS)]


def describe_hooks(placed: Sequence[Placed]) -> str:
    """Describe hooks in one line: "blocks.0 to 2.attn.hook_z: zero#1f0c8e2a(head=3)"; "" if there are none.

    A function is described by its name, its bound values (arguments of a partial, defaults, closure) and a hash of its
    source, which tells functions of the same name apart. Globals that it reads are not included. The same hooks give
    the same line on every machine.
    """
    layers_of: dict[tuple[str, str, str], list[int]] = {}
    for name, hook in placed:
        before, number, after = re.fullmatch(
            r"(.*?)(?:\.(\d+)(.*))?", name.replace("._original_component", "")
        ).groups()  # type: ignore[union-attr]
        layers = layers_of.setdefault((before, after, _name_of(hook)), [])
        layers += [] if number is None else [int(number)]
    said = "; ".join(
        f"{before}{f'.{ranges(sorted(set(layers)))}{after}' if layers else ''}: {function}"
        for (before, after, function), layers in sorted(layers_of.items(), key=str)
    )
    if len(said) <= LONGEST:
        return said
    return f"{said[:LONGEST]}… ({len(placed)} hooks, {_hash(said.encode())})"


def _module_of(hook: Any) -> str:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return str(getattr(hook, "__module__", None) or "") + "."


def _name_of(hook: Any) -> str:
    if hook is None:
        return "a function"
    bound: dict[str, Any] = {}
    while isinstance(hook, functools.partial):
        bound |= {**{str(i): value for i, value in enumerate(hook.args)}, **hook.keywords}
        hook = hook.func
    function = inspect.unwrap(getattr(hook, "__func__", hook))
    if not inspect.isfunction(function):  # a built-in function, or a callable object
        name = getattr(hook, "__qualname__", type(hook).__qualname__)
        return _with_values(name, getattr(hook, "__dict__", {}) | bound)
    parameters = inspect.signature(function).parameters.values()
    values = {p.name: p.default for p in parameters if p.default is not p.empty}
    values |= getattr(getattr(hook, "__self__", None), "__dict__", {})
    values |= dict(zip(function.__code__.co_freevars, map(_contents, function.__closure__ or ()), strict=True))
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):  # defined in a shell
        source = ""
    name = f"{function.__qualname__}#{_hash(source.encode())}" if source else function.__qualname__
    return _with_values(name, values | bound)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _with_values(name: str, values: dict[str, Any]) -> str:
    said = ", ".join(f"{key}={_value(value)}" for key, value in sorted(values.items()))
    return f"{name}({said})" if said else name


def _value(value: Any) -> str:
    """Simple values by their repr, tensors by a hash, others by their type, because their repr may change."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, torch.Tensor):
        return f"tensor#{_hash(raw_bytes(value).cpu().numpy().tobytes())}"
    return type(value).__qualname__


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()
