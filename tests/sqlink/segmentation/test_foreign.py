"""Segmenters of other origin: tiny networks made here, in three formats, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqlink.data.classes import CAMVID, CITYSCAPES
from sqlink.errors import ConfigError, DataError, SQLinkError, WeightsError
from sqlink.segmentation import load_segmenter
from sqlink.segmentation.foreign import IMAGENET_MEAN, IMAGENET_STD, class_table


class Tiny(nn.Module):
    """Logits of 19 classes from the colour of a place, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.colour = nn.Conv2d(3, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.colour(nn.functional.avg_pool2d(x, 2)) * 5


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(3, 3, 5, 6, generator=generator)
    return nn.functional.interpolate(coarse, (40, 48), mode="bilinear")


def _expected(images: Tensor) -> Tensor:
    """Class by class, with torch alone."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        logits = Tiny()((images - mean) / std)
    full = nn.functional.interpolate(logits, (40, 48), mode="bilinear", align_corners=False)
    names = [CITYSCAPES.names[i] for i in full.argmax(1).flatten().tolist()]
    ours = {"vegetation": "tree", "terrain": "tree", "person": "pedestrian", "wall": "fence"}
    ours |= dict.fromkeys(("rider", "motorcycle", "bicycle"), "bicyclist")
    ours |= dict.fromkeys(("truck", "bus", "train"), "car") | {"sidewalk": "pavement"}
    ours |= dict.fromkeys(("traffic light", "traffic sign"), "sign")
    ids = [CAMVID.index(ours.get(name, name)) for name in names]
    return torch.tensor(ids).reshape(len(images), 40, 48)


def _script(folder: Path) -> Path:
    torch.jit.save(torch.jit.trace(Tiny(), torch.zeros(1, 3, 40, 48)), folder / "tiny.pt")
    return folder / "tiny.pt"


def _onnx(folder: Path, height: int | str = "h", width: int | str = "w", channels: int = 3) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, tiny = onnx.helper, Tiny()
    weight = tiny.colour.weight.detach().numpy() * 5
    weight = np.resize(weight, (19, channels, 1, 1)) if channels != 3 else weight
    assert tiny.colour.bias is not None
    kinds = onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("AveragePool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["half", "w", "b"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", kinds, ["n", channels, height, width])],
        [helper.make_tensor_value_info("logits", kinds, ["n", 19, None, None])],
        [
            onnx.numpy_helper.from_array(weight, "w"),
            onnx.numpy_helper.from_array(tiny.colour.bias.detach().numpy() * 5, "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "tiny.onnx"))
    return folder / "tiny.onnx"


MAKERS: dict[str, Callable[[Path], Path]] = {"torchscript": _script, "onnx": _onnx}


@pytest.mark.parametrize("kind", MAKERS)
def test_its_classes_are_brought_to_ours(kind: str, images: Tensor, tmp_path: Path) -> None:
    segmenter = load_segmenter(kind, model=MAKERS[kind](tmp_path))
    found = segmenter.segment(images)
    assert (found != _expected(images)).double().mean() < 1e-3
    assert torch.equal(segmenter.segment(images[1:2]), found[1:2])
    assert segmenter.segment(images[:0]).shape == (0, 40, 48)
    assert len(found.unique()) > 3


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "no such file"}, WeightsError, "no such file cannot be read: No such file"),
        ({"outputs": "camvit"}, ConfigError, "no class set 'camvit': did you mean 'camvid'"),
        (
            {"outputs": ["road", "boat"]},
            ConfigError,
            "output 1, 'boat', is not a class of ours: say",
        ),
        ({"outputs": ["road"], "classes": {"sea": "road"}}, ConfigError, "no output 'sea'"),
        ({"outputs": ["road"], "classes": {"road": "none"}}, ConfigError, "no output stands for"),
        ({"std": [1, 0, 1]}, ConfigError, "mean and std are three numbers each, std above 0"),
        ({"outputs": "camvid"}, DataError, r"answers \[1, 19, 20, 24\], not \[1, 11, h, w\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    kind: str,
    images: Tensor,
    tmp_path: Path,
    options: dict[str, object],
    error: type[SQLinkError],
    message: str,
) -> None:
    path = MAKERS[kind](tmp_path)
    with pytest.raises(error, match=message) as caught:
        load_segmenter(kind, **{"model": path, **options}).segment(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_of_another_kind_is_refused(kind: str, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    (tmp_path / "foreign").write_bytes(b"neither of them")
    with pytest.raises(WeightsError, match="cannot be read as") as caught:
        load_segmenter(kind, model=tmp_path / "foreign")
    assert "\n" not in str(caught.value)


def test_an_onnx_file_of_another_input_shape_says_so(images: Tensor, tmp_path: Path) -> None:
    path = _onnx(tmp_path, 32, 64)
    with pytest.raises(DataError, match=r"takes pictures of 64x32, got 48x40: .*resize: true"):
        load_segmenter("onnx", model=path).segment(images)
    found = load_segmenter("onnx", model=path, resize=True).segment(images)
    assert (found == _expected(images)).double().mean() > 0.8
    with pytest.raises(
        WeightsError, match=r"must have one input .*it has tensor\(float\) \['n', 4"
    ):
        load_segmenter("onnx", model=_onnx(tmp_path, channels=4))


def test_a_torchscript_network_of_another_kind_says_so(images: Tensor, tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, 3, 8, 8)

    torch.jit.save(torch.jit.script(Flat()), tmp_path / "flat.pt")
    segmenter = load_segmenter("torchscript", model=tmp_path / "flat.pt")
    with pytest.raises(DataError, match="refuses pictures of 48x40") as caught:
        segmenter.segment(images)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    names = [*CITYSCAPES.names[:10], "boat"]
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: n for n, name in enumerate(names)},
    )
    folder = tmp_path_factory.mktemp("segformer")
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]})
    )
    return folder


def test_a_hugging_face_model_brings_its_names_and_its_normalisation(
    segformer: Path, images: Tensor
) -> None:
    from transformers import SegformerForSemanticSegmentation

    segmenter = load_segmenter("huggingface", model=segformer, classes={"boat": "none"})
    with torch.no_grad():
        network = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
        logits = network((images - 0.5) / 0.25).logits[:, :10]
    full = nn.functional.interpolate(logits, (40, 48), mode="bilinear", align_corners=False)
    table = class_table("here", CITYSCAPES.names[:10])
    found = segmenter.segment(images)
    assert (found != table[full.argmax(1)]).double().mean() < 1e-3


def test_hugging_face_models_that_do_not_fit_are_refused(segformer: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output 10, 'boat', is not a class of ours"):
        load_segmenter("huggingface", model=segformer)
    with pytest.raises(WeightsError, match="cannot be loaded for semantic segmentation") as caught:
        load_segmenter("huggingface", model=tmp_path)
    assert "\n" not in str(caught.value)
