"""CrcMIL: bags built from NCT-CRC-HE-100K."""

from kd_mil.data.patches.class_folder_mil import ClassFolderMIL


class CrcMIL(ClassFolderMIL):
    """CRC-MIL (Qu et al., NeurIPS 2022, Sec. 4.1): bags of 100 colorectal tiles of 224x224, tumour is positive.

    The nine class folders ADI BACK DEB LYM MUC MUS NORM STR TUM are divided 80/20 class by class, files sorted by name
    first: the authors' own split follows the order of their disk. Arguments as in `ClassFolderMIL`.
    """

    folders = ("NCT-CRC-HE-100K",)
    source = "NCT-CRC-HE-100K (J. N. Kather et al., Zenodo, https://doi.org/10.5281/zenodo.1214456)"
