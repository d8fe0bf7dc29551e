"""Loading models by name: checks before anything is loaded, and the device that "auto" chooses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tl_attnstats as ta
from tl_attnstats.corpus import devices
from tl_attnstats.errors import ModelError
from tl_attnstats.models.loading import find_device


@pytest.mark.parametrize(
    ("cuda", "mps", "mps_sums", "expected"),
    [
        (True, True, True, "cuda"),
        (False, True, True, "mps"),
        (False, True, False, "cpu"),
        (False, False, False, "cpu"),
    ],
)
def test_auto_is_the_first_device_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, mps_sums: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(devices, "has_float64", lambda device: mps_sums)
    assert find_device() == find_device("auto") == expected


def test_a_device_by_name() -> None:
    assert find_device("cpu") == "cpu"
    with pytest.raises(ModelError, match=r"device='toaster': expected auto, cpu, cuda, cuda:1 \(the second"):
        find_device("toaster")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=r"device='cuda': cannot be used here \(.+\); expected auto or cpu"):
            find_device("cuda")
    with pytest.raises(ModelError, match=r"device='cuda:99': cannot be used here \(.+\); expected auto or cpu"):
        find_device("cuda:99")


def test_load_model_checks_its_arguments_before_it_looks_for_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"dtype='int3': expected float32, float16, bfloat16 or float64"):
        ta.load_model("nobody/nothing", dtype="int3")
    with pytest.raises(ModelError, match="device='toaster': expected auto"):
        ta.load_model("nobody/nothing", device="toaster")
    with pytest.raises(
        ModelError, match=r"model: \./nothing: no such directory; expected a directory made by save_pre"
    ):
        ta.load_model("./nothing")
    with pytest.raises(ModelError, match=r"this directory has no config\.json"):
        ta.load_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"model: got ''; expected a directory"):
        ta.load_model("")
