"""Nothing is mixed with another device's tensors, and the host seldom waits: on a stand-in for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.big_modeling import attach_align_device_hook_on_blocks
from transformer_lens.model_bridge import TransformerBridge

import tl_attnstats as ta
from tests import tiny
from tests.asserting import assert_close
from tests.standin import StandIn
from tl_attnstats.attention import kernels
from tl_attnstats.attention.kernels import cuda, torch_blocks
from tl_attnstats.collectors import BUILT_IN, BY_NAME
from tl_attnstats.collectors.exemplars import Exemplars
from tl_attnstats.corpus import devices
from tl_attnstats.corpus.batches import Batch
from tl_attnstats.errors import ModelError

ON_TWO_DEVICES = sorted({*BUILT_IN} - {*BY_NAME})
DEVICE = torch.device("standin:0")
SETTINGS: dict[str, Any] = {"batch_tokens": 64, "progress": False}
T5 = "T5ForConditionalGeneration"
SOURCES = ["hooks", "streamed"]


class MeanSquare(ta.RatioCollector):
    """Reads weights, as a statistic of a user may."""

    name = "mean_square_on_a_device"

    def terms(self, block: ta.Reductions) -> tuple[torch.Tensor, torch.Tensor]:
        return (block.weights**2).sum((-2, -1)), block.content_mass


def every_statistic() -> list[Any]:
    """Those of all kinds of models, with exemplars that leave out self-attention, and one that reads weights."""
    return [*(set(BUILT_IN) - {"exemplars"}), Exemplars(exclude_self=True), MeanSquare]


@pytest.fixture
def device() -> Iterator[StandIn]:
    with StandIn() as standin:
        yield standin


def ones(*shape: int, device: Any = DEVICE) -> torch.Tensor:
    return torch.ones(shape, device=device)


MIXED: dict[str, Callable[[], Any]] = {
    "sum": lambda: ones(3) + torch.ones(3),
    "sum with a number of the device": lambda: torch.ones(3) + ones(),
    "in place": lambda: torch.ones(3).add_(ones(3)),
    "product": lambda: ones(2, 2) @ torch.ones(2, 2),
    "gather": lambda: ones(3).gather(0, torch.tensor([0])),
    "stack": lambda: torch.stack([ones(3), torch.ones(3)]),
    "where": lambda: torch.where(ones(3) > 0, torch.ones(3), 0),
    "two devices": lambda: ones(3) + ones(3, device="standin:1"),
    "embedding": lambda: torch.nn.Embedding(4, 2).requires_grad_(False).to(DEVICE)(torch.tensor([1])),
}


@pytest.mark.parametrize("mistake", MIXED)
def test_the_stand_in_raises_where_tensors_are_mixed(mistake: str, device: StandIn) -> None:
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        MIXED[mistake]()


def test_the_stand_in_computes_and_takes_single_numbers_of_the_cpu(device: StandIn) -> None:
    x = torch.arange(6.0, device=DEVICE).view(2, 3)
    x[0] *= torch.tensor(2.0)
    x.mul_(10)
    assert x.device == DEVICE
    assert x.sum(1).tolist() == [60, 120]
    assert torch.tensor([1, 2], device=DEVICE).device == DEVICE
    assert x.new_zeros(2).device == torch.zeros_like(x).device == DEVICE
    assert x.cpu().device.type == "cpu"
    assert (x + 1).cpu().numpy().sum() == 186


@pytest.mark.parametrize("read", [lambda x: x.numpy(), np.asarray])
def test_the_stand_in_is_no_numpy_array(read: Callable[[Any], Any], device: StandIn) -> None:
    with pytest.raises(TypeError, match="can't convert standin:0 device type tensor to numpy"):
        read(ones(3))


def test_a_device_may_lack_a_dtype() -> None:
    with StandIn(refuses={torch.float64}):
        x = ones(3)
        for widen in (x.double, lambda: x.sum(dtype=torch.float64), lambda: x.new_zeros(2, dtype=torch.float64)):
            with pytest.raises(TypeError, match=r"standin:0 does not have torch\.float64"):
                widen()
        assert x.cpu().double().dtype == torch.float64


WAITING: dict[str, Callable[[torch.Tensor], Any]] = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "copied to the device": lambda x: torch.ones(3).to(DEVICE),
    "made on the device from a list": lambda x: torch.tensor([1], device=DEVICE),
    "copied into": lambda x: torch.ones(3).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: torch.unique(x),
    "mask": lambda x: x[x > 0],
    "mask in place": lambda x: x.__setitem__(x > 0, ones(3)),
    "repeat": lambda x: x.repeat_interleave(x.long()),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("wait", WAITING)
def test_the_stand_in_counts_what_the_host_waits_for(wait: str, device: StandIn) -> None:
    x = ones(3)
    with device.counting() as waits:
        WAITING[wait](x)
    assert len(waits) == 1


def test_the_stand_in_counts_nothing_else(device: StandIn) -> None:
    places = torch.tensor([0, 2], device=DEVICE)
    with device.counting() as waits:
        x = torch.ones(3).to(DEVICE, non_blocking=True)
        (x @ x + x[places].sum()).softmax(0)
        torch.where(x > 0, x, 0).masked_fill_(x > 1, 0).sort()
        x.repeat_interleave(x.long(), output_size=3)
    assert waits == []


def test_a_copy_that_has_not_arrived_cannot_be_read(device: StandIn) -> None:
    with pytest.raises(RuntimeError, match="has not arrived"):
        ones(3).to("cpu", non_blocking=True)


# Results: those of the CPU, to the last digits.


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU computes with the kernel that the stand-in has, too."""
    monkeypatch.setattr(kernels, "KERNELS", (torch_blocks,))
    monkeypatch.setattr(torch_blocks, "rows_at_once", lambda job: 7)  # several blocks


@pytest.fixture(scope="module")
def corpus() -> ta.Corpus:
    return ta.Corpus(tiny.sentences(12, seed=11))


def moved(model: Any) -> Any:
    """The model on the stand-in, where `to` makes new parameters: tie them again."""
    modules = dict.fromkeys([*model.modules(), *model.original_model.modules()])
    places: dict[int, list[tuple[Any, str]]] = {}
    for module in modules:
        for name, parameter in module._parameters.items():
            places.setdefault(id(parameter), []).append((module, name))
    model.to(DEVICE)
    for (first, own), *others in places.values():
        for module, name in others:
            module._parameters[name] = first._parameters[own]
    assert {x.device for x in (*model.parameters(), *model.buffers())} == {DEVICE}
    return model


@pytest.fixture
def decoder(smollm2_tokenizer: Any) -> Callable[[], Any]:
    return lambda: tiny.decoder(smollm2_tokenizer)


@pytest.fixture
def encoder(minilm_tokenizer: Any) -> Callable[[], Any]:
    return lambda: tiny.encoder(minilm_tokenizer)


def assert_equal_on_device(found: ta.AttentionStats, expected: ta.AttentionStats) -> None:
    assert_close(found, expected, 1e-12)
    assert found.provenance == expected.provenance


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_every_statistic_is_that_of_the_cpu(
    source: Any, kind: str, device: StandIn, corpus: ta.Corpus, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(kind)
    expected = ta.collect(make(), corpus, every_statistic(), source=source, **SETTINGS)
    found = ta.collect(moved(make()), corpus, every_statistic(), source=source, **SETTINGS)
    assert found.provenance["source"] == source
    assert_equal_on_device(found, expected)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("stream", ["encoder", "decoder", "cross"])
def test_encoder_decoders(source: Any, stream: str, device: StandIn, corpus: ta.Corpus, minilm_tokenizer: Any) -> None:
    def make() -> Any:
        model = tiny.encoder_decoder(T5, minilm_tokenizer)
        model.config.architectures = [T5]
        return TransformerBridge.boot_transformers(T5, hf_model=model, tokenizer=minilm_tokenizer)

    expected = ta.collect(make(), corpus, source=source, stream=stream, **SETTINGS)
    found = ta.collect(moved(make()), corpus, source=source, stream=stream, **SETTINGS)
    assert_equal_on_device(found, expected)


def test_models_without_a_bridge(decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus) -> None:
    bridge = decoder()
    tokenizer = bridge.tokenizer
    expected = ta.collect(plain_model(bridge), corpus, tokenizer=tokenizer, **SETTINGS)
    found = ta.collect(plain_model(bridge).to(DEVICE), corpus, tokenizer=tokenizer, **SETTINGS)
    assert_equal_on_device(found, expected)


def plain_model(bridge: Any) -> Any:
    """A transformers model with the weights of a bridge."""
    import transformers

    original = bridge.original_model
    weights = {name.replace("._original_component", ""): x for name, x in original.state_dict().items()}
    model = transformers.LlamaForCausalLM(original.config)
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model.eval()


@pytest.mark.parametrize("causal", [True, False])
def test_patterns(causal: bool, device: StandIn) -> None:
    def given(where: Any) -> Any:
        for sentence in tiny.sentences(5, seed=4):
            made = tiny.patterns(2, 3, len(sentence.words), causal, sentence.number)
            yield torch.from_numpy(made).float().to(where), sentence

    metrics = [*(set(BUILT_IN) - set(BY_NAME)), MeanSquare]
    expected = ta.collect_patterns(given("cpu"), metrics, causal=causal, null="none")
    assert_equal_on_device(ta.collect_patterns(given(DEVICE), metrics, causal=causal, null="none"), expected)


@pytest.mark.parametrize("way", ["update", "hooks"])
def test_collecting_in_ones_own_loop(way: str, decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus) -> None:
    def run(model: Any) -> ta.AttentionStats:
        collectors = ta.Collectors(model, every_statistic())
        for batch in collectors.batches(corpus, batch_tokens=64):
            arguments = collectors.arguments(batch)
            if way == "update":
                names = collectors.hook_names
                _, cache = model.run_with_cache(batch.input_ids, **arguments, names_filter=names)
                collectors.update(cache, batch)
            else:
                model.run_with_hooks(batch.input_ids, **arguments, fwd_hooks=collectors.hooks(batch))
        return collectors.stats()

    assert_equal_on_device(run(moved(decoder())), run(decoder()))


# Sums that come from elsewhere.


def halves(model: Any, corpus: ta.Corpus) -> tuple[ta.Collectors, ta.Collectors, list[Batch]]:
    """Collectors that have seen the first half of the batches, others for the second, and that half."""
    first, second = (ta.Collectors(model, every_statistic()) for _ in range(2))
    batches = list(first.batches(corpus, batch_tokens=64))
    list(second.batches(corpus, batch_tokens=64))
    for batch in batches[: len(batches) // 2]:
        first.run(batch)
    return first, second, batches[len(batches) // 2 :]


def test_loaded_sums_are_added_to(decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus) -> None:
    model = moved(decoder())
    first, second, rest = halves(model, corpus)
    second.load_state_dict(first.state_dict())
    for batch in rest:
        second.run(batch)
    expected = ta.collect(decoder(), corpus, every_statistic(), **SETTINGS)
    assert_equal_on_device(second.stats(), expected)


def test_merged_sums_are_added_to(decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus) -> None:
    model = moved(decoder())
    parts = [corpus.shard(n, 3) for n in (1, 2, 3)]
    a, b = (ta.Collectors(model, every_statistic()) for _ in range(2))
    for collectors, part in ((a, parts[0]), (b, parts[1])):
        for batch in collectors.batches(part, batch_tokens=64):
            collectors.run(batch)
    a.merge(b)
    for batch in a.batches(parts[2], batch_tokens=64):
        a.run(batch)
    on_cpu = [ta.collect(decoder(), part, every_statistic(), **SETTINGS) for part in parts]
    assert_close(a.stats(), on_cpu[0].merge(on_cpu[1]).merge(on_cpu[2]), 1e-12)


def test_a_run_goes_on_from_its_checkpoint(
    decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = moved(decoder()), tmp_path / "checkpoint.nc"
    ran, run = [], ta.Collectors.run

    def cut(self: ta.Collectors, batch: Batch) -> None:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(batch)
        run(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ta.Collectors, "run", cut)
        with pytest.raises(ta.Interrupted):
            ta.collect(model, corpus, every_statistic(), checkpoint=path, every=1e-9, **SETTINGS)
    assert path.exists()
    found = ta.collect(model, corpus, every_statistic(), checkpoint=path, **SETTINGS)
    assert_equal_on_device(found, ta.collect(decoder(), corpus, every_statistic(), **SETTINGS))


# A device without float64.


@pytest.fixture
def narrow() -> Iterator[StandIn]:
    devices.has_float64.cache_clear()
    with StandIn(refuses={torch.float64}) as standin:
        yield standin
    devices.has_float64.cache_clear()


def test_sums_are_float64_where_the_device_has_it(device: StandIn) -> None:
    assert devices.sum_dtype(DEVICE) == devices.sum_dtype(devices.CPU) == torch.float64
    assert devices.home_of(DEVICE) == DEVICE


def test_sums_are_kept_on_the_cpu_where_the_device_has_no_float64(narrow: StandIn) -> None:
    assert devices.sum_dtype(DEVICE) == torch.float32
    assert devices.home_of(DEVICE) == devices.CPU


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_every_statistic_without_float64(
    source: Any, kind: str, narrow: StandIn, corpus: ta.Corpus, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(kind)
    expected = ta.collect(make(), corpus, every_statistic(), source=source, **SETTINGS)
    found = ta.collect(moved(make()), corpus, every_statistic(), source=source, **SETTINGS)
    assert found.provenance["source"] == source
    assert_close(found, expected, 2e-6)  # rows are added up in float32


# Waiting.


def of_the_program(waits: list[str]) -> list[str]:
    """Those that neither transformers nor TransformerLens ask for in their forward pass."""
    return [wait for wait in waits if "/tl_attnstats/" in wait]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("n_layers", [2, 5])
@pytest.mark.parametrize("rows", [2, 100])
def test_the_host_waits_twice_a_batch_whatever_its_layers_and_blocks(
    source: Any,
    n_layers: int,
    rows: int,
    device: StandIn,
    corpus: ta.Corpus,
    smollm2_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_blocks, "rows_at_once", lambda job: rows)
    collectors = ta.Collectors(moved(tiny.decoder(smollm2_tokenizer, n_layers=n_layers)), source=source)
    first, *others = collectors.batches(corpus, batch_tokens=64)
    collectors.run(first)  # tries the source, and reads the weights for the fingerprint
    assert len(others) > 2
    for batch in others:
        with device.counting() as waits:
            collectors.run(batch)
        # Whether all weights are finite; and which tokens are sinks.
        assert [Path(wait.split(";")[1]).name.split(":")[0] for wait in of_the_program(waits)] == [
            "group.py",
            "sinks.py",
        ]
        if source == "streamed":
            assert len(waits) == 2


@pytest.fixture
def without_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Triton kernel on the stand-in. Its sweeps run nowhere here: they find zeros, and the output of attention."""

    def launch(swept: cuda.Swept, kernel: Any, n_blocks: int, **own: Any) -> None:
        own["found"].zero_()
        if "output" in own:
            for first, pattern in swept.patterns(8):
                own["output"][:, :, first : first + 8] = swept._given.mix(pattern, 0, pattern.shape[-1])

    monkeypatch.setattr(kernels, "KERNELS", (cuda, torch_blocks))
    monkeypatch.setattr(cuda, "DEVICES", {DEVICE.type})
    monkeypatch.setattr(cuda.Swept, "_launch", launch)


@pytest.mark.parametrize("n_layers", [2, 5])
def test_the_triton_kernel_makes_the_host_wait_no_more(
    n_layers: int, device: StandIn, corpus: ta.Corpus, smollm2_tokenizer: Any, without_sweeps: None
) -> None:
    pytest.importorskip("triton")
    model = moved(tiny.decoder(smollm2_tokenizer, n_layers=n_layers))
    without_waiting = [metric for metric in every_statistic() if metric != "typical_exemplars"]
    collectors = ta.Collectors(model, without_waiting, source="streamed")
    first, *others = collectors.batches(corpus, batch_tokens=64)
    collectors.run(first)
    for batch in others:
        with device.counting() as waits:
            collectors.run(batch)
        assert len(waits) == 2


# Layers on two devices.


def spread(model: Any) -> Any:
    """A transformers model of three layers as `device_map` leaves it: the last layer on a second device."""
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 0}
    places |= {"model.layers.2": 1, "model.norm": 1, "lm_head": 1}
    names = {name: f"standin:{place}" for name, place in places.items()}
    for name, place in names.items():
        model.get_submodule(name).to(place)
    attach_align_device_hook_on_blocks(model, {"": "standin:0", **names}, dict.fromkeys(names, False))
    return model


def test_layers_on_two_devices_are_streamed(decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus) -> None:
    bridge = decoder()
    settings: Any = {"tokenizer": bridge.tokenizer, "metrics": [*ON_TWO_DEVICES, MeanSquare], **SETTINGS}
    expected = ta.collect(plain_model(bridge), corpus, **settings)
    model = spread(plain_model(bridge))
    assert len({x.device for x in model.parameters()}) == 2
    assert_equal_on_device(ta.collect(model, corpus, **settings), expected)


def test_layers_on_two_devices_are_read_at_hooks(
    decoder: Callable[[], Any], device: StandIn, corpus: ta.Corpus
) -> None:
    def bridged(model: Any) -> Any:
        model.config.architectures = ["LlamaForCausalLM"]
        return TransformerBridge.boot_transformers("tiny", hf_model=model, tokenizer=bridge.tokenizer)

    bridge = decoder()
    expected = ta.collect(bridged(plain_model(bridge)), corpus, every_statistic(), source="hooks", **SETTINGS)
    model = bridged(spread(plain_model(bridge)))
    found = ta.collect(model, corpus, every_statistic(), source="hooks", **SETTINGS)
    assert_equal_on_device(found, expected)


def test_offloaded_weights_are_not_streamed(decoder: Callable[[], Any], corpus: ta.Corpus) -> None:
    bridge = decoder()
    model = plain_model(bridge)
    cpu_offload(model, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"accelerate keeps weights of the model off its device"):
        ta.collect(model, corpus, ["distance"], tokenizer=bridge.tokenizer, **SETTINGS)
