"""Files of the benchmarks are written whole or not at all, and nothing else is put in the place of a device."""

import os

import pytest

from benchmarks.whole_file import save_text, write_whole


def test_a_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "results.json"
    save_text(path, "one")
    save_text(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["results.json"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    save_text(path, "old")

    def write(temporary):
        temporary.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_whole(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_writer_that_removes_its_file_does_not_hide_its_error(tmp_path):
    def write(temporary):
        temporary.unlink()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "results.json", write)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "there" / "results.json")
    save_text(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "there" / "results.json").read_text() == "text"


def test_devices_folders_and_files_as_folders_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path, named in ((tmp_path / "pipe", "pipe"), (tmp_path, tmp_path.name), (tmp_path / "file" / "below", "file")):
        with pytest.raises(OSError, match=named):
            save_text(path, "text")
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]
