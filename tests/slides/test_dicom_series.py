"""DICOM: a series is one slide however its files are listed; what is no slide, and ids."""

import numpy as np
import pytest

from kd_mil.core.errors import UserError
from kd_mil.slides.dicom_series import dicom_slides
from kd_mil.slides.formats.reader import open_slide
from kd_mil.slides.slide_list import list_slides
from tests.campaign.inputs.dicom import write_dicom

PIXELS = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)


def write_series(folder, name="1", levels=4):
    """Files whose names do not tell which is the finest."""
    for level in range(levels):
        step = 2**level
        write_dicom(folder / f"{name}_{levels - level}.dcm", PIXELS[::step, ::step], 0.5, series=name, level=step)
    return folder


def listed(source):
    return [(entry.slide_id, entry.path.name) for entry in list_slides(source)]


def test_a_folder_a_pattern_and_a_file_are_one_slide_with_all_levels(tmp_path):
    folder = write_series(tmp_path / "cohort" / "S1")
    sources = (
        folder,
        f"{folder}/*.dcm",
        f"{folder}/*_2.dcm",
        folder / "1_1.dcm",
        folder.parent,
        f"{tmp_path}/**/*.dcm",
    )
    for source in sources:
        assert listed(source) == [("S1", "1_4.dcm")], source
    slide = open_slide(list_slides(folder)[0].path)
    assert (slide.level_dimensions[0], len(slide.level_dimensions), slide.mpp) == ((768, 512), 4, 0.5)
    np.testing.assert_array_equal(slide.read(300, 200, (64, 64), 0.5), PIXELS[200:264, 300:364])
    np.testing.assert_array_equal(slide.read(0, 0, (50, 40), 1.0), PIXELS[::2, ::2][:40, :50])


def test_several_series_in_a_folder_are_named_by_the_number_on_the_glass(tmp_path):
    write_series(tmp_path, "A1")
    write_series(tmp_path, "A2", levels=2)
    assert listed(tmp_path) == [("A1", "A1_4.dcm"), ("A2", "A2_2.dcm")]


def test_a_list_names_a_series_by_its_folder_or_by_any_file(tmp_path):
    write_series(tmp_path / "S1")
    write_series(tmp_path / "S2", "2")
    path = tmp_path / "list.csv"
    path.write_text("slide_path,slide_id,label\nS1,,0\nS2/2_1.dcm,second,1\n")
    assert listed(path) == [("S1", "1_4.dcm"), ("second", "2_4.dcm")]
    path.write_text("slide_path\nS1/1_1.dcm\nS1/1_2.dcm\n")
    with pytest.raises(UserError, match=r"slide id 'S1' belongs to both '.*1_4\.dcm' and '.*1_4\.dcm'"):
        list_slides(path)
    write_series(tmp_path / "S1", "3")
    path.write_text("slide_path\nS1\n")
    with pytest.raises(UserError, match=r"list\.csv, line 2: folder '.*S1' holds 2 DICOM series"):
        list_slides(path)


def test_what_is_no_slide_is_left_out_and_what_is_damaged_stands_for_itself(tmp_path):
    write_series(tmp_path, "1", levels=1)
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")
    annotation = bytearray((tmp_path / "1_1.dcm").read_bytes())
    other = annotation.replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.91.1.0")
    (tmp_path / "other.dcm").write_bytes(other)
    with pytest.warns(UserWarning, match=r"1 DICOM files left out.*other\.dcm"):
        found = dicom_slides(sorted(tmp_path.iterdir()))
    assert [(name, path.name) for name, path in found] == [(tmp_path.name, "1_1.dcm"), ("broken", "broken.dcm")]
