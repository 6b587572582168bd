"""Slides as DICOM: one file a level, tiles as frames."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
FRAME = 256


def write_dicom(
    path: Path, pixels: np.ndarray, mpp: float, jpeg: bool = False, series: str = "1", level: int = 1
) -> None:
    """One level of a slide; `level` is how many times coarser it is than the finest of its `series`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pixels.shape[:2]
    frames = _frames(pixels)
    facts = Dataset()
    facts.SOPClassUID, facts.SOPInstanceUID = WHOLE_SLIDE, generate_uid(entropy_srcs=[series, str(level)])
    facts.StudyInstanceUID = generate_uid(entropy_srcs=["study", series])
    facts.SeriesInstanceUID = generate_uid(entropy_srcs=["series", series])
    facts.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", series])
    facts.ContainerIdentifier, facts.PatientID, facts.Modality = series, series, "SM"
    facts.ImageType = [
        "ORIGINAL" if level == 1 else "DERIVED",
        "PRIMARY",
        "VOLUME",
        "NONE" if level == 1 else "RESAMPLED",
    ]
    facts.SamplesPerPixel, facts.PlanarConfiguration, facts.PixelRepresentation = 3, 0, 0
    facts.PhotometricInterpretation = "YBR_FULL_422" if jpeg else "RGB"
    facts.BitsAllocated, facts.BitsStored, facts.HighBit = 8, 8, 7
    facts.Rows = facts.Columns = FRAME
    facts.TotalPixelMatrixColumns, facts.TotalPixelMatrixRows = width, height
    facts.NumberOfFrames = len(frames)
    facts.TotalPixelMatrixFocalPlanes, facts.NumberOfOpticalPaths = 1, 1
    facts.DimensionOrganizationType = "TILED_FULL"
    facts.ImagedVolumeWidth, facts.ImagedVolumeHeight = width * mpp * level / 1000, height * mpp * level / 1000
    measures = Dataset()
    measures.PixelSpacing = [mpp * level / 1000] * 2
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    facts.SharedFunctionalGroupsSequence = Sequence([shared])
    light = Dataset()
    light.OpticalPathIdentifier = "1"
    facts.OpticalPathSequence = Sequence([light])
    facts.file_meta = FileMetaDataset()
    facts.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    facts.file_meta.MediaStorageSOPClassUID = WHOLE_SLIDE
    facts.file_meta.MediaStorageSOPInstanceUID = facts.SOPInstanceUID
    if jpeg:
        facts.PixelData = encapsulate([_jpeg(frame) for frame in frames])
        facts["PixelData"].is_undefined_length = True
        facts["PixelData"].VR = "OB"
    else:
        facts.PixelData = b"".join(frame.tobytes() for frame in frames)
        facts["PixelData"].VR = "OB"
    facts.save_as(path, enforce_file_format=True)


def _frames(pixels: np.ndarray) -> list[np.ndarray]:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % FRAME), (0, -width % FRAME), (0, 0)), constant_values=255)
    return [padded[y : y + FRAME, x : x + FRAME] for y in range(0, height, FRAME) for x in range(0, width, FRAME)]


def _jpeg(frame: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(frame).save(packed, "JPEG", quality=95, subsampling="4:2:2")
    return packed.getvalue()
