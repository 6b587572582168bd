"""The doctor finds what it should, says nothing where all is well, and its exit code tells which."""

import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from kd_mil.core.errors import UserError
from kd_mil.data.features.files import facts
from kd_mil.data.features.files.index import FeatureIndex
from kd_mil.data.locations import Located, find_root, only_locating
from kd_mil.diagnosis.data import duplicates, feature_findings, folder_of, leakage
from kd_mil.diagnosis.environment import environment_findings
from kd_mil.diagnosis.finding import Finding, as_finding
from kd_mil.doctor import with_run_settings
from kd_mil.jobs.doctor import folder_finding
from tests.support.command import kd_mil
from tests.support.tiny import tiny_splits


def levels(found):
    return [one.level for one in found]


def test_a_case_in_two_parts_is_found_and_named():
    splits = tiny_splits()
    cases = [f"case{index}" for index in range(24)]
    assert levels(leakage(splits._replace(bags=replace(splits.bags, case_ids=cases)))) == ["ok"]
    cases[20] = "case0"
    [found] = leakage(splits._replace(bags=replace(splits.bags, case_ids=cases)))
    assert found.level == "error"
    assert "case0 (test, train)" in found.text


@pytest.mark.parametrize(("copy", "level"), [(1, "warning"), (23, "error")])
def test_a_bag_that_is_there_twice_is_found(copy, level):
    """Within a part it counts double, across parts it leaks; bag 23 is in the test part."""
    splits = tiny_splits()
    bags = splits.bags
    positions = [bags.instances_of(torch.tensor([0 if bag == copy else bag])) for bag in range(24)]
    sizes = bags.sizes.clone()
    sizes[copy] = bags.sizes[0]
    order = torch.cat(positions)
    twin = replace(bags, instances=bags.instances[order], sizes=sizes, instance_labels=bags.instance_labels[order])
    [found] = duplicates(splits._replace(bags=twin))
    assert found.level == level
    assert "bag0 (train)" in found.text
    assert f"bag{copy}" in found.text
    assert levels(duplicates(splits)) == ["ok"]


def test_features_of_another_encoder_are_found(tmp_path):
    for name, encoder in (("a", "uni"), ("b", "uni"), ("c", "resnet50")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.zeros((3, 4), np.float32)
            file["features"].attrs["encoder"] = encoder
    paths, index = sorted(tmp_path.glob("*.h5")), FeatureIndex(tmp_path, tmp_path / "cache")
    [found] = feature_findings(paths, index)
    assert found.level == "error"
    assert "1 of 3 files were not made like those before them: c.h5 (encoder: 'resnet50', not 'uni')" in found.text
    assert levels(feature_findings(paths[:2], index)) == ["ok"]
    assert levels(feature_findings([], index)) == ["error"]


FEATURES = np.ones((4, 3), np.float32)


@pytest.mark.parametrize("suffix", ["h5", "H5", "npy"])
@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.where(FEATURES.cumsum(0) == 3, np.nan, FEATURES), "NaN or infinite features in instance 2"),
        (FEATURES[:0], "is an empty bag"),
        (FEATURES[None, None], "features of shape"),
        (np.ones((4, 5), np.float32), "width: 5, not 3"),
        (FEATURES.astype(complex), "of type complex128"),
        (None, "not readable"),
    ],
)
def test_every_feature_file_is_read_through(tmp_path, suffix, features, reason):
    np.save(tmp_path / "a.npy", FEATURES)
    odd = tmp_path / f"b.{suffix}"
    if features is None:
        odd.write_bytes(b"damaged")
    elif suffix == "npy":
        np.save(odd, features)
    else:
        with h5py.File(odd, "w") as file:
            file["features"] = features
    index = FeatureIndex(tmp_path, tmp_path / "cache")
    [found] = feature_findings([tmp_path / "a.npy", odd], index)
    assert found.level == "error"
    assert "1 of 2 files" in found.text
    assert f"b.{suffix}" in found.text
    assert reason in found.text
    [found] = feature_findings([tmp_path / "a.npy"], index)
    assert found == Finding("ok", "features", found.text)
    assert "1 files agree, 1 of them read through now" in found.text


def test_known_feature_files_are_not_opened(tmp_path, monkeypatch):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", FEATURES)
        os.utime(tmp_path / f"{name}.npy", (1e9, 1e9))
    paths = sorted(tmp_path.glob("*.npy"))
    [first] = feature_findings(paths, FeatureIndex(tmp_path, tmp_path / "cache"))
    monkeypatch.setattr(facts, "FeatureFile", None)  # nothing can be opened any more
    [second] = feature_findings(paths, FeatureIndex(tmp_path, tmp_path / "cache"))
    assert "2 of them read through now" in first.text
    assert second.text == first.text.replace("2 of them", "0 of them")


def test_files_are_compared_with_all_before_them(tmp_path):
    """The first says nothing, the next two contradict each other."""
    for name, encoder in (("a", None), ("b", "uni"), ("c", "gigapath")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["feats"] = FEATURES
            if encoder:
                file.attrs["extractor"] = encoder
    [found] = feature_findings(sorted(tmp_path.glob("*.h5")), FeatureIndex(tmp_path, tmp_path / "cache"))
    assert "c.h5 (encoder: 'gigapath', not 'uni')" in found.text


def test_bags_that_are_their_own_cases_name_none():
    splits = tiny_splits()
    for cases in (None, list(splits.bags.bag_ids)):
        assert levels(leakage(splits._replace(bags=replace(splits.bags, case_ids=cases)))) == ["note"]


def test_an_empty_folder_is_no_data_set(tmp_path):
    assert folder_finding("camelyon16", tmp_path).level == "warning"
    (tmp_path / "training").mkdir()
    assert folder_finding("camelyon16", tmp_path).level == "ok"


def test_a_data_set_is_located_without_being_read(tmp_path):
    def setup():
        find_root(None, str(tmp_path), ["here"], "a set")
        raise AssertionError("read")

    assert folder_of(setup) is None
    (tmp_path / "here").mkdir()
    assert folder_of(setup) == tmp_path / "here"
    assert find_root(None, str(tmp_path), ["here"], "a set") == tmp_path / "here", "outside, it is read as ever"
    with only_locating(), pytest.raises(Located):
        find_root(None, str(tmp_path), ["here"], "a set")


def test_this_environment_is_sound(tmp_path):
    found = environment_findings(tmp_path / "runs")
    assert "error" not in levels(found)
    assert {"python", "packages", "processes", "room for runs"} <= {one.topic for one in found}


def test_what_the_code_refuses_is_a_finding():
    found = []
    with as_finding(found, "data"):
        raise UserError("no such file")
    assert found == [Finding("error", "data", "no such file")]


def test_settings_of_a_run_stand_by_themselves_on_the_command_line():
    assert with_run_settings(["smoke=true", "data=digits_mil", "data.seed=1"]) == [
        "smoke=true",
        "run=['data=digits_mil','data.seed=1']",
    ]


@pytest.mark.slow
def test_the_command_passes_on_a_sound_set_with_two_processes_and_fails_on_a_leaking_one(tmp_path):
    result = kd_mil("doctor", "smoke=true", "data=digits_mil", cwd=tmp_path)
    for text in ("trained and tested", "duplicate bags", "not here:"):
        assert text in result.stdout
    rows = ["slide_id,case_id,label,split,feature_path"]
    for index in range(6):
        np.save(tmp_path / f"s{index}.npy", np.full((3, 4), index, np.float32))
        split = ("train", "train", "val", "val", "test", "test")[index]
        rows.append(f"s{index},{'p0' if index == 5 else f'p{index}'},{index % 2},{split},s{index}.npy")
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    chosen = ["data=feature_bags", "data.manifest=slides.csv", "data_sets=false"]
    result = kd_mil("doctor", *chosen, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert "p0 (test, train)" in result.stdout
    assert "Traceback" not in result.stderr
