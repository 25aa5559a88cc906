import io
import json
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backtal import (
    BackTALModel,
    ConfigError,
    DataError,
    FeatureSpec,
    ModelConfig,
    TimeAxis,
    VideoFeatures,
    read_features,
    write_features,
)
from backtal.data.npy import read_npz
from backtal.nn.stream import open_features


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_rgb_and_flow_are_stacked(tmp_path):
    path = save(tmp_path / "v.npz", rgb=np.zeros((2, 5)), flow=np.ones((3, 5)), duration=10.0)
    video = read_features(path)
    assert video.video_id == "v"
    assert video.features.shape == (5, 5)
    assert video.features.dtype == torch.float32
    assert video.features[2:].min() == 1


def test_round_trip_keeps_axis_and_spec(tmp_path):
    spec = FeatureSpec("i3d", fps=25, window=32, stride=16, dim=4)
    video = VideoFeatures("v", torch.randn(4, 9).half().float(), TimeAxis.of(9, 6.5, 162, spec), spec)
    write_features(tmp_path / "v.npz", video)
    back = read_features(tmp_path / "v.npz")
    assert (back.axis, back.spec) == (video.axis, spec)
    torch.testing.assert_close(back.features, video.features, rtol=0, atol=0)


def test_spec_places_snippets_around_the_middle_of_their_window():
    axis = TimeAxis.of(10, 10.0, spec=FeatureSpec(fps=10, window=20, stride=5))
    assert axis.step == 0.5
    assert axis.seconds(0.5) == 1.0  # the middle of snippet 0 is the middle of frames 0 to 19


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.1, 1e4))
def test_axis_round_trips(length, other, duration):
    axis = TimeAxis.even(length, duration).rescaled(other)
    assert axis.seconds(axis.length) == pytest.approx(duration)
    for index in {0, other // 2, other - 1}:
        assert axis.index(axis.seconds(index + 0.5)) == index


def test_what_float16_cannot_hold_is_stored_as_float32(tmp_path):
    video = VideoFeatures("v", torch.tensor([[1.0, 2.0], [65504.0, -65505.0]]), TimeAxis.even(2, 1.0))
    write_features(tmp_path / "v.npz", video)
    assert torch.equal(read_features(tmp_path / "v.npz").features, video.features)


def test_rescaling_is_linear_with_half_pixel_centres():
    video = VideoFeatures("v", torch.tensor([[0.0, 1.0]]), TimeAxis.even(2, 4.0)).rescaled(4)
    torch.testing.assert_close(video.features, torch.tensor([[0.0, 0.25, 0.75, 1.0]]))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((2, 3))}, "holds \\['duration', 'x'\\]; expected `features`"),
        ({"features": np.ones(3)}, "must be numbers \\[D, T\\]"),
        ({"features": np.ones((2, 0))}, "is empty"),
        ({"features": np.array([["a"]])}, "must be numbers"),
        ({"features": np.array([[1.0, np.nan]])}, "NaN or infinite values in 1 snippet\\(s\\), the first is number 1"),
        ({"features": np.array([[1.0, np.inf]])}, "NaN or infinite"),
        ({"rgb": np.ones((2, 3)), "flow": np.ones((2, 4))}, "different lengths"),
        ({"features": np.ones((2, 3)), "spec": np.array(json.dumps({"fsp": 3}))}, "unknown field 'fsp'"),
        ({"features": np.ones((2, 3)), "spec": np.array(json.dumps({"dim": 3}))}, "2 channels, but its spec says 3"),
        ({"features": np.ones((2, 3)), "spec": np.array('{"fps": 1' + "0" * 400 + "}")}, "spec: "),
        ({"features": np.ones((2, 3)), "spec": np.array("[" * 10**5)}, "spec: "),
        ({"features": np.ones((2, 3)), "spec": np.array([2**31 - 1], dtype=np.uint32).view("U1")}, "spec: "),
        ({"features": np.ones((2, 3)), "duration": [1, 2]}, "duration must be one number"),
        ({"features": np.ones((2, 3)), "duration": "ten"}, "duration must be one number"),
        ({"features": np.ones((2, 3)), "num_frames": np.nan}, "num_frames must be one number"),
        ({"features": np.ones((2, 3)), "start": [0, 1], "step": 1.0}, "start must be one number"),
        ({"features": np.ones((2, 3)), "start": 0.0, "step": 0}, "step 0.0 are no seconds"),
    ],
)
def test_bad_files_name_what_is_wrong(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        read_features(save(tmp_path / "bad.npz", **({"duration": 3.0} | arrays)))
    assert "bad.npz" in str(caught.value)


def test_missing_truncated_and_foreign_files(tmp_path):
    with pytest.raises(DataError, match="no such feature file"):
        read_features(tmp_path / "none.npz")
    whole = save(tmp_path / "a.npz", features=np.ones((20, 50)), duration=1.0).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="truncated or damaged" if cut else "this is empty, not an .npz file"):
            read_features(tmp_path / "cut.npz")
    (tmp_path / "p.npz").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match=r"this is a pickle, not an \.npz file"):
        read_features(tmp_path / "p.npz")
    np.savez(tmp_path / "o.npz", features=np.array([[{}]]))
    with pytest.raises(DataError, match="not a readable"):
        read_features(tmp_path / "o.npz")


def readers():
    return [
        read_features,
        lambda path: list(open_features(path).pieces),
        lambda path: read_npz(path, ["features", "duration"]),
    ]


@pytest.mark.parametrize("read", readers())
@pytest.mark.parametrize("write", [np.savez_compressed, np.savez])
def test_flipped_bytes_never_end_in_another_error(tmp_path, write, read):
    path, rng = tmp_path / "v.npz", np.random.default_rng(0)
    write(path, features=np.tile(np.arange(60.0), (8, 1)), duration=12.0)
    whole, messages = path.read_bytes(), []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read(path)
        except DataError as failure:
            messages.append(str(failure))
    assert len(messages) > 100
    assert all(message.startswith(f"{path}: ") for message in messages)


@pytest.mark.parametrize("read", readers())
def test_encrypted_members_are_refused(tmp_path, read):
    path = save(tmp_path / "v.npz", features=np.ones((2, 3)), duration=1.0)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"PK\x01\x02") + 8] |= 1  # the flag of the first member, in the directory
    damaged[6] |= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"v\.npz: not a readable \.npz file"):
        read(path)


@pytest.mark.parametrize("read", readers()[:2])
def test_a_header_that_claims_more_than_there_is(tmp_path, read):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        for name, shape in (("features", (2, 30)), ("duration", ())):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
                file.write(np.ones(1).tobytes())
    with pytest.raises(DataError, match=r"v\.npz: not a readable \.npz file"):
        read(tmp_path / "v.npz")


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("features.npy", b"text")
    with pytest.raises(DataError, match=r"v\.npz: `features` must be numbers"):
        read_features(tmp_path / "v.npz")


def test_unknown_duration_is_an_error(tmp_path):
    path = save(tmp_path / "v.npz", features=np.ones((2, 3)))
    with pytest.raises(DataError, match="no duration known"):
        read_features(path)
    assert read_features(path, duration=6.0).axis.step == 2.0
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="duration must be"):
            read_features(path, duration=bad)


def test_spec_mismatch_shows_both_sides():
    video = VideoFeatures("v", torch.zeros(2, 9), TimeAxis.even(9, 9.0), FeatureSpec(fps=25, stride=16))
    with pytest.raises(DataError, match="fps: 25 here, 30 there"):
        video.check(2, 3, FeatureSpec(fps=30))
    video.check(2, 3, FeatureSpec(fps=25, extractor="i3d"))
    with pytest.raises(DataError, match="have 2 channels, expected 4"):
        video.check(4, 3)
    with pytest.raises(DataError, match="9 snippet\\(s\\), fewer than the 11"):
        video.check(2, 11)
    with pytest.raises(ConfigError, match="fps must be a positive number"):
        FeatureSpec(fps=0)


def test_a_named_field_of_the_spec_may_differ():
    spec = FeatureSpec("i3d", fps=25, stride=16)
    model = BackTALModel(ModelConfig(feature_dim=4, labels=("a",), hidden_dim=8, feature_spec=spec))
    video = VideoFeatures("v", torch.randn(4, 30), TimeAxis.even(30, 12.0), FeatureSpec("i3d", fps=30, stride=16))
    with pytest.raises(DataError, match=r"fps: 30 here, 25 there .*ignore_spec"):
        model.localize(video)
    assert model.localize(video, ignore_spec=["fps"]).video_id == "v"
    with pytest.raises(DataError, match="fps: 30 here"):
        model.localize(video, ignore_spec=["stride"])
    with pytest.raises(ConfigError, match="no field 'frames' to ignore"):
        model.localize(video, ignore_spec=["frames"])


def beginning(content):
    return lambda path: path.write_bytes(content)


def with_torch(path):
    torch.save({"features": torch.ones(3)}, path)


def np_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones((3, 2)))


def plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no array")


def twice(path):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in (1, 2):
            text = io.BytesIO()
            np.save(text, np.full((2, 3), value))
            archive.writestr("features.npy", text.getvalue())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (np_array, "an array of numpy (.npy), not an .npz file; load it with"),
        (with_torch, "a file of PyTorch, not an .npz file; load it with torch.load"),
        (plain_zip, "this is an archive, not an .npz file; unpack it"),
        (beginning(b"version https://git-lfs.github.com/spec/v1"), "a pointer of Git LFS"),
        (beginning(b"<!DOCTYPE html><html>"), "a web page, not an .npz file; the download went wrong"),
        (beginning(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (beginning(b"MATLAB 5.0 MAT-file"), "a MATLAB file"),
        (beginning(b"\x1f\x8b\x08"), "this is an archive"),
        (beginning(b"\x00\x00\x01\xba"), "this is a video"),
        (beginning(b"\x00\x00\x00\x20ftypisom"), "this is a video"),
        (beginning(b"RIFF\x00\x00\x00\x00AVI "), "this is a video"),
        (beginning(b'{"results": 1}'), "this is JSON"),
        (beginning(b""), "this is empty"),
        (lambda path: np.savez(path, np.ones((2, 3))), "or `rgb` and `flow` (np.savez(path, features=array) names it)"),
        (
            lambda path: np.savez(path, features=np.ones((2, 3)), flow=np.ones((2, 3))),
            "holds `features` and `flow`; keep",
        ),
        (twice, "features.npy is in it twice, and only one can count"),
    ],
)
def test_a_file_that_is_something_else_is_recognised(tmp_path, make, message):
    make(tmp_path / "v.npz")
    for read in (lambda path: read_features(path, duration=9.0), lambda path: open_features(path).pieces):
        with pytest.raises(DataError) as failure:
            read(tmp_path / "v.npz")
        assert f"{tmp_path / 'v.npz'}: " in str(failure.value)
        assert message in str(failure.value)


def test_missing_features_name_what_may_be_meant(tmp_path):
    np.save(tmp_path / "Day1.npy", np.ones((3, 2)))
    with pytest.raises(DataError, match=r"day1.npz: no such feature file; there is Day1.npy"):
        read_features(tmp_path / "day1.npz")
    with pytest.raises(DataError, match="no such feature file, and no folder"):
        read_features(tmp_path / "nowhere" / "day1.npz")


def test_arrays_that_are_not_read_are_named_once(tmp_path, caplog):
    for name in ("a", "b"):
        path = save(tmp_path / f"{name}.npz", features=np.ones((2, 3)), duration=9.0, audio_of_this_test=np.ones(3))
        read_features(path)
    assert caplog.text.count("a.npz: audio_of_this_test: not used, here nor in other feature files") == 1
    assert "b.npz" not in caplog.text


def test_transposed_features_are_recognised_where_they_do_not_fit(tmp_path):
    spec = json.dumps({"dim": 3})
    path = save(tmp_path / "v.npz", features=np.ones((20, 3)), duration=9.0, spec=np.array(spec))
    with pytest.raises(DataError, match=r"20 channels, but its spec says 3, and 3 snippets: are they \[T, D\]"):
        read_features(path)
    video = VideoFeatures("v", torch.ones(20, 3), TimeAxis.even(3, 9.0))
    with pytest.raises(DataError, match=r"20 channels, expected 3; it has 3 snippets: are they \[T, D\]"):
        video.check(3, 1)
    assert TimeAxis.even(100, 9.0, 90).is_crowded
    assert not any(axis.is_crowded for axis in (TimeAxis.even(90, 9.0, 90), TimeAxis.even(1000, 9.0)))
