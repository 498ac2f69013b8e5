"""What names, shapes, file names and flags say, and what happens when nobody says it."""

import pytest

from dav2_jax.convert import recognize as recognize
from dav2_jax.convert.keymap import entries
from dav2_jax.convert.recognize import Overrides
from dav2_jax.errors import Dav2Error
from dav2_jax.model.config import PRESETS


def shapes(config, scheme):
    return {name: entry.part_shape(scheme) for entry in entries(config) for name in entry.names(scheme)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("scheme", ["official", "hf", "dinov2", "hf-dinov2"])
def test_scheme_and_encoder(preset, scheme):
    config = PRESETS[preset].replace(kind="encoder") if "dinov2" in scheme else PRESETS[preset]
    found = shapes(config, scheme)
    assert recognize.scheme_of("x", found) == scheme
    assert recognize.encoder_of("x", scheme, found) == config


def test_neither():
    with pytest.raises(Dav2Error, match=r"x: not the weights of .* \(its tensors: conv1\.weight"):
        recognize.scheme_of("x", {"conv1.weight": (3,)})
    with pytest.raises(Dav2Error, match="blocks of width 123 belong to no released size"):
        recognize.encoder_of("x", "official", {"pretrained.blocks.0.norm1.weight": (123,)})
    with pytest.raises(Dav2Error, match=r"no transformer blocks \(nothing is called pretrained\.blocks\.0\.norm1"):
        recognize.encoder_of("x", "official", {"pretrained.cls_token": (1, 1, 384)})


@pytest.mark.parametrize(
    ("stem", "told"),
    [
        ("depth_anything_v2_vits", Overrides("relative", None, "v2")),
        ("depth_anything_v2_vitg", Overrides("relative", None, "v2")),
        ("depth_anything_v2_metric_hypersim_vitb", Overrides("metric", 20.0, "v2")),
        ("depth_anything_v2_metric_vkitti_vitl", Overrides("metric", 80.0, "v2")),
        ("depth_anything_vitl14", Overrides("relative", None, "v1")),
        ("depth_anything_v2_vits_fp16", Overrides("relative", None, "v2")),
        ("depth_anything_v2_vits (1)", Overrides("relative", None, "v2")),
        ("depth_anything_v2_vits(2)", Overrides("relative", None, "v2")),
        ("depth_anything_v2_vitl - Copy (3)", Overrides("relative", None, "v2")),
        ("Depth_Anything_V2_vits.pth", Overrides("relative", None, "v2")),  # of ...vits.pth.1, as wget calls it
        ("depth_anything_v2_metric_hypersim_vitl_fp32 copy", Overrides("metric", 20.0, "v2")),
        ("depth_anything_v2_metric_vkitti_vits.fp16", Overrides("metric", 80.0, "v2")),
        ("Depth-Anything-V2-Small", Overrides("relative", None, "v2")),
        ("Depth-Anything-V2-Metric-Indoor-Base-hf", Overrides("metric", 20.0, "v2")),
        ("Depth-Anything-V2-Metric-VKITTI-Large", Overrides("metric", 80.0, "v2")),
        ("depth-anything-large-hf", Overrides("relative", None, "v1")),
        ("Distill-Any-Depth", Overrides("relative", None, "v2")),
        ("depth_anything_v2_vits_finetuned", Overrides()),
        ("depth_anything_v2_vits_2", Overrides()),
        ("depth_anything_v2_vitsfp16", Overrides()),
        ("my_depth_anything_v2_vits", Overrides()),
        ("latest", Overrides()),
    ],
)
def test_file_names(stem, told):
    assert recognize.said_by_file_name(stem) == told


def settle(name=Overrides(), flags=Overrides()):  # noqa: B008
    return recognize.resolve_config("x.pth", PRESETS["large"], name, flags)


def test_flags_come_before_the_name():
    config = settle(Overrides("metric", 20.0, "v2"), Overrides(max_depth=80.0))
    assert (config.kind, config.max_depth, config.taps) == ("metric", 80.0, (4, 11, 17, 23))
    config = settle(Overrides("relative", None, "v2"), Overrides(taps="v1"))
    assert (config.kind, config.max_depth, config.taps) == ("relative", None, (20, 21, 22, 23))
    assert settle(flags=Overrides(max_depth=10.0, taps="v2")).kind == "metric"
    assert settle(Overrides("metric", 20.0, "v2"), Overrides(kind="relative")).max_depth is None


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (Overrides(), ["kind=relative", "max_depth=METRES", "taps=v2"]),
        (Overrides(kind="relative"), ["taps=v2"]),
        (Overrides(taps="v2"), ["kind=relative", "max_depth=METRES"]),
        (Overrides(kind="metric", taps="v2"), ["max_depth=METRES"]),
    ],
)
def test_never_a_guess(flags, named):
    with pytest.raises(Dav2Error) as error:
        settle(flags=flags)
    text = str(error.value)
    assert text.startswith("x.pth: ")
    assert "\n" not in text
    assert [flag for flag in ("kind=relative", "max_depth=METRES", "taps=v2") if flag in text] == named


def test_contradictions():
    with pytest.raises(Dav2Error, match="contradict"):
        settle(flags=Overrides("relative", 20.0, "v2"))
    with pytest.raises(Dav2Error, match="not a positive"):
        settle(flags=Overrides(max_depth=-1.0, taps="v2"))
    with pytest.raises(Dav2Error, match="an encoder alone has neither kind, depth nor taps: leave out taps=v1"):
        recognize.resolve_config("x", PRESETS["small"].replace(kind="encoder"), Overrides(), Overrides(taps="v1"))


def test_licenses():
    small, large = PRESETS["small"], PRESETS["large"]
    assert recognize.license_of("depth_anything_v2_vits", small) == "Apache-2.0"
    assert recognize.license_of("depth_anything_v2_metric_vkitti_vitl", large) == "CC-BY-NC-4.0"
    assert recognize.license_of("depth_anything_vitl14", large) == "Apache-2.0"
    assert recognize.license_of("dinov2_vits14_pretrain (1)", small) == "Apache-2.0"
    assert recognize.license_of("depth_anything_v2_vitl_fp16", large) == "CC-BY-NC-4.0"
    assert recognize.license_of("Distill-Any-Depth", large) == "not stated by the source"
    assert recognize.license_of("mine", large) == "not stated by the source"
