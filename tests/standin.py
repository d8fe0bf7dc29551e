"""A stand-in for a GPU: tensors that say they are on another device, refuse to mix with the CPU's, and count waiting.

Their data are on the CPU. torch lets one kind of device be defined in Python; there may be several of it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

KIND = "standin"
MOVES = {"_to_copy", "copy_"}
# What makes a program wait on CUDA, because the host has to know a value, or the size of a result.
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "unique_consecutive", "unique_dim", "masked_select", "equal"}
WAITS |= {"bincount", "repeat_interleave", "_linalg_eigh"}
INDEXED = {"index", "index_put", "index_put_"}  # with a mask these look for its entries

_setup_privateuseone_for_python_backend(KIND)


class OnDevice(Tensor):
    """A tensor on the stand-in; `held` has its data, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held}, {self.device})"

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: Any) -> Any:
        copied = OnDevice(self.held.clone(), self.device)
        return torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return StandIn.active[-1].__torch_dispatch__(func, types, args, kwargs)  # in a thread, where no mode is on


class StandIn(TorchDispatchMode):
    """While this is active there are devices standin:0, standin:1 and so on.

    Args:
        refuses: dtypes that these devices do not have.
    """

    active: ClassVar[list[StandIn]] = []

    def __init__(self, refuses: Collection[torch.dtype] = ()):
        super().__init__()
        self._refuses = refuses
        self.waits: list[str] = []
        """What the host waited for: the operation, and where a copy went."""

    def __enter__(self) -> Any:
        _stand_in(True)
        self.active.append(self)
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self.active.pop()
        _stand_in(False)

    @contextmanager
    def counting(self) -> Iterator[list[str]]:
        """What the host waits for within."""
        before = len(self.waits)
        counted: list[str] = []
        yield counted
        counted += self.waits[before:]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in given if isinstance(x, OnDevice)]
        to = kwargs.get("device")
        if not ours and (to is None or to.type != KIND):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        source = ours[0].device if ours else torch.device("cpu")
        target = source if to is None else to
        if name in MOVES:
            from_cpu = len(ours) < len(given) if name == "copy_" else not ours
            self._check_move(name, from_cpu, isinstance(args[0], OnDevice), target, args, kwargs)
        else:
            _check_together(func, given)
            masks = [
                x for x in tree_leaves(args[1:2]) if isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8)
            ]
            if (name in WAITS and kwargs.get("output_size") is None) or (name in INDEXED and masks):
                self.waits.append(f"{name}; {_where()}")
        held = tree_map(lambda x: x.held if isinstance(x, OnDevice) else x, (args, kwargs))
        if to is not None:
            held[1]["device"] = torch.device("cpu")
            if name == "_to_copy":  # "to" makes a copy only between devices
                held[1].pop("non_blocking", None)
        if name == "_conj":  # a view of another kind, which is resolved above this
            func = torch.ops.aten.conj_physical.default
        known = {id(x.held): x for x in ours}
        place = args[0].device if name == "copy_" else target

        def wrap(x: Any) -> Any:
            if not isinstance(x, Tensor) or place.type != KIND:
                return x
            if x.dtype in self._refuses:
                raise TypeError(f"{func}: {place} does not have {x.dtype}")
            return known[id(x)] if id(x) in known else OnDevice(x, torch.device(KIND, place.index or 0))

        return tree_map(wrap, func(*held[0], **held[1]))

    def _check_move(self, name: str, from_cpu: bool, ours: bool, target: Any, args: Any, kwargs: Any) -> None:
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        if name == "copy_":
            to_cpu, crosses = not ours, from_cpu
        else:
            to_cpu, crosses = ours and target.type == "cpu", from_cpu or target.type == "cpu"
        if to_cpu and not blocking:
            raise RuntimeError(f"{name}: the host would read a copy that has not arrived")
        if crosses and blocking:
            self.waits.append(f"{name} to the {'host' if to_cpu else 'device'}; {_where()}")


def _where() -> str:
    """The line of Python outside of torch that asked."""
    frames = traceback.extract_stack()[:-2]
    asked = next(frame for frame in reversed(frames) if not re.search(r"/(torch|einops)/|standin\.py", frame.filename))
    return f"{asked.filename}:{asked.lineno}"


def _stand_in(active: bool) -> None:
    torch._C._set_only_lift_cpu_tensors(active)  # torch.tensor(…, device=…) is a copy from the CPU
    torch.__future__.set_overwrite_module_params_on_conversion(active)  # module.to(…) makes new parameters


def _check_together(func: Any, given: list[Tensor]) -> None:
    """Raise where a kernel of CUDA would: tensors on several devices, except for single numbers on the CPU."""
    devices = {x.device for x in given if isinstance(x, OnDevice) or x.ndim}
    if len(devices) > 1:
        raise RuntimeError(
            f"{func}: Expected all tensors to be on the same device, but found {', '.join(sorted(map(str, devices)))}"
        )
