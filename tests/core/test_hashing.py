import hashlib
import os

from kd_mil.core.hashing import BLOCK, digest, file_digest, file_identity


def test_a_files_digest_is_the_head_of_its_sha256(tmp_path):
    content = os.urandom(BLOCK + 7)
    (tmp_path / "f").write_bytes(content)
    assert file_digest(tmp_path / "f") == hashlib.sha256(content).hexdigest()[:16]


def test_a_files_identity_changes_with_the_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("one")
    before = file_identity(path)
    assert file_identity(path) == before
    os.utime(path, ns=(0, before[2] + 1))
    later = file_identity(path)
    path.write_text("other")
    os.utime(path, ns=(0, before[2]))
    assert len({digest(facts) for facts in (before, later, file_identity(path))}) == 3


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert len(digest([])) == 12
