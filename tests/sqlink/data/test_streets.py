"""The renderer: the same scene on every machine, every class in it, picture and map aligned."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from sqlink.data import open_dataset
from sqlink.data.base import DataSet
from sqlink.data.classes import NAMES, NO_LABEL, NUM_CLASSES
from sqlink.data.streets import Streets, render
from sqlink.data.streets.camera import Camera
from sqlink.data.streets.canvas import BUILDING, POLE, SKY, Canvas
from sqlink.data.streets.noise import hashed, tile
from sqlink.errors import ConfigError

GOLDEN = "7a67c963570bc86dcfa4938b2786a4aaa7e4bdb0379b67e72a7dffcebf298941"
"""SHA-256 of picture and map of scene 5 at 48 x 64."""

CAMVID_SHARES = {
    "sky": 16.97,
    "building": 23.80,
    "pole": 1.07,
    "road": 31.90,
    "pavement": 4.56,
    "tree": 8.74,
    "sign": 1.25,
    "fence": 1.25,
    "car": 5.42,
    "pedestrian": 0.61,
    "bicyclist": 0.31,
}
"""Per cent of the pixels of CamVid `fit`, for what a sensible share is."""


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Maps of 30 scenes, [30, 96, 128]."""
    return np.stack([render(seed, 96, 128)[1] for seed in range(2000, 2030)])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (37, 53), (360, 480), (256, 512)])
def test_any_size_is_rendered_whole(height: int, width: int) -> None:
    pixels, classes = render(11, height, width)
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.uint8
    assert classes.shape == (height, width)
    assert set(np.unique(classes)) <= {*range(NUM_CLASSES), NO_LABEL}
    assert pixels.std() > 10


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    pixels, classes = render(5, 48, 64)
    assert hashlib.sha256(pixels.tobytes() + classes.tobytes()).hexdigest() == GOLDEN


def test_scenes_do_not_depend_on_what_was_rendered_before() -> None:
    first = render(21, 32, 40)
    np.random.seed(0)  # noqa: NPY002  # global state is what must not matter
    render(22, 24, 24)
    again = render(21, 32, 40)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_other_seeds_are_other_scenes(maps: np.ndarray) -> None:
    assert len({one.tobytes() for one in maps}) == len(maps)


@pytest.mark.parametrize("name", NAMES)
def test_every_class_has_a_share_like_camvids(maps: np.ndarray, name: str) -> None:
    share = 100 * float((maps == NAMES.index(name)).mean())
    assert CAMVID_SHARES[name] / 4 < share < CAMVID_SHARES[name] * 4


def test_little_is_left_without_a_label(maps: np.ndarray) -> None:
    assert (maps == NO_LABEL).mean() < 0.05


def test_a_larger_picture_of_a_seed_is_the_same_scene() -> None:
    small, large = render(8, 96, 128)[1], render(8, 192, 256)[1]
    assert (small == large[::2, ::2]).mean() > 0.9


def test_picture_edges_lie_where_the_map_changes() -> None:
    """Between sky and building, the picture steps at the very column where the map does."""
    steps, elsewhere = [], []
    for seed in range(40, 46):
        pixels, classes = render(seed, 120, 160)
        grey = pixels.astype(np.float64).mean(axis=2)
        jump = np.abs(np.diff(grey, axis=1))
        a, b = classes[:, :-1], classes[:, 1:]
        edge = ((a == SKY) & (b == BUILDING)) | ((a == BUILDING) & (b == SKY))
        steps += jump[edge].tolist()
        shifted = np.zeros_like(edge)
        shifted[:, 6:] = edge[:, :-6]
        elsewhere += jump[shifted & ~edge].tolist()
    assert len(steps) > 100
    assert np.median(steps) > 4 * np.median(elsewhere)


def test_a_polygon_covers_the_pixels_whose_centres_it_holds() -> None:
    canvas = Canvas(4, 6, 1)
    patch = canvas.convex(np.array([(1.0, 1.0), (1.0, 3.0), (4.0, 3.0), (4.0, 1.0)]))
    assert patch is not None
    covered = np.zeros((4, 6), bool)
    covered[patch.rows, patch.cols] = patch.mask
    expected = np.zeros((4, 6), bool)
    expected[1:3, 1:4] = True
    assert np.array_equal(covered, expected)
    assert canvas.convex(np.array([(9.0, 1.0), (9.0, 3.0), (12.0, 3.0)])) is None


def test_neighbouring_polygons_neither_overlap_nor_leave_a_gap() -> None:
    canvas = Canvas(40, 40, 1)
    corners = np.array([(3.3, 2.1), (37.2, 5.9), (33.8, 38.4), (5.7, 30.2)])
    middle = np.array([18.13, 17.71])
    count = np.zeros((40, 40), int)
    for k in range(4):
        patch = canvas.convex(np.array([corners[k], corners[(k + 1) % 4], middle]))
        assert patch is not None
        count[patch.rows, patch.cols] += patch.mask
    whole = canvas.convex(corners)
    assert whole is not None
    expected = np.zeros((40, 40), int)
    expected[whole.rows, whole.cols] += whole.mask
    assert np.array_equal(count, expected)


def test_the_map_is_the_majority_and_a_tie_goes_to_the_rarer_class() -> None:
    canvas = Canvas(1, 2, 2)
    canvas.label[:] = [[SKY, SKY, SKY, POLE], [SKY, POLE, SKY, POLE]]
    assert canvas.resolved()[1].tolist() == [[SKY, POLE]]


def test_a_plane_seen_through_the_camera_projects_back_to_its_pixel() -> None:
    camera = Camera(x=-1.2, height=1.4, focal=500.0, cx=240.0, cy=180.0, yaw=0.1)
    rows, cols = np.array([200.5, 300.5], np.float32), np.array([10.5, 400.5], np.float32)
    a, b, depth = camera.plane((0, 0, 0), (1, 0, 0), (0, 0, 1), rows, cols)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            x, y, scale = camera.spot((float(a[i, j]), 0.0, float(b[i, j])))
            assert (x, y) == pytest.approx((float(col), float(row)), abs=0.01)
            assert scale == pytest.approx(500.0 / float(depth[i, j]), rel=1e-4)


def test_noise_tiles_repeat_without_a_seam() -> None:
    soft = tile("soft")
    inside = np.abs(np.diff(soft, axis=1)).max()
    assert np.abs(soft[:, 0] - soft[:, -1]).max() <= inside * 1.5
    assert 0 <= soft.min() < soft.max() <= 1


def test_hashes_are_spread_evenly() -> None:
    grid = np.arange(100, dtype=np.float32)
    values = hashed(grid[:, None], grid[None, :], 7)
    counts = np.histogram(values, bins=10, range=(0, 1))[0]
    assert counts.min() > 850
    assert counts.max() < 1150


def test_the_data_set_yields_named_scenes_with_their_own_blocks() -> None:
    data = open_dataset("streets", seed=30, count=2, height=20, width=24)
    assert isinstance(data, DataSet)
    assert list(data.names) == ["street-30", "street-31"] == list(data.blocks)
    samples = list(data)
    assert [s.name for s in samples] == list(data.names)
    assert samples[1].image.shape == (3, 20, 24)
    assert samples[1].image.dtype == torch.float32
    assert samples[1].segmentation is not None
    assert samples[1].segmentation.dtype == torch.int64
    pixels, classes = render(31, 20, 24)
    assert torch.equal(
        (samples[1].image * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(pixels)
    )
    assert torch.equal(samples[1].segmentation, torch.from_numpy(classes).long())
    with pytest.raises(IndexError):
        data[2]


@pytest.mark.parametrize(
    "options",
    [{"seed": -1}, {"count": 0}, {"height": 15}, {"width": 5000}, {"seed": "7"}, {"count": True}],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_dataset("streets", **options)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        open_dataset("streets", colour=3)


def test_the_largest_seed_renders() -> None:
    assert Streets(seed=(1 << 63) - 1, count=1, height=16, width=16)[0].image.shape == (3, 16, 16)


def test_streets_of_anywhere_have_nights_and_another_geometry() -> None:
    seeds = range(2000, 2024)
    here = [render(seed, 48, 64) for seed in seeds]
    there = [render(seed, 48, 64, "anywhere") for seed in seeds]
    dark = [float((picture < 40).mean()) for picture, _ in there]
    assert sum(share > 0.6 for share in dark) >= 3  # a quarter of the scenes are nights
    assert sum(float((picture < 40).mean()) > 0.6 for picture, _ in here) == 0
    road = NAMES.index("road")
    shares = [
        [float((classes == road).mean()) for _, classes in scenes] for scenes in (here, there)
    ]
    assert np.std(shares[1]) > 1.2 * np.std(shares[0])
    again = render(2003, 48, 64, "anywhere")
    assert np.array_equal(again[0], there[3][0])
    assert np.array_equal(again[1], there[3][1])


def test_an_unknown_country_is_refused() -> None:
    with pytest.raises(ConfigError, match="country='englnd': did you mean 'england'"):
        Streets(country="englnd")
    sample = open_dataset("streets", seed=4, count=1, height=24, width=32, country="anywhere")[0]
    assert sample.image.shape == (3, 24, 32)
