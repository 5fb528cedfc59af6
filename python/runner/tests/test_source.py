from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import io
import os
import random
import stat
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from metier_runner import source
from metier_runner.errors import NotFound, SourceRefused
from metier_runner.source import Limits, fetch, unpack


def make_zip(path: Path, *entries: tuple[str, bytes] | tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data, *mode in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.external_attr = (mode[0] if mode else stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, data)
    return path


def make_tar(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as out:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                out.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                out.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def refused(path: Path, kind: str, rule: str, limits: Limits | None = None) -> None:
    """The archive is refused by that rule and leaves nothing behind."""
    before = sorted(os.listdir(path.parent))
    with pytest.raises(SourceRefused, match=rule):
        unpack(str(path), str(path.parent / "target"), kind, limits)
    assert sorted(os.listdir(path.parent)) == before


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "C:\\x", "..\\x", "a\\b", "a/..", "a\nb", "x" * 300, "d/" * 2500 + "f"])
def test_names_that_lead_out_or_break_a_rule(tmp_path, name):
    refused(make_zip(tmp_path / "a.zip", ("ok", b"1"), (name, b"x")), "zip", "entry")
    refused(make_tar(tmp_path / "a.tgz", ("ok", b"1"), (name, b"x")), "tar.gz", "entry")


@pytest.mark.parametrize(
    "members",
    [
        [special("l", tarfile.SYMTYPE, "/etc/passwd")],
        [special("l", tarfile.SYMTYPE, "../x")],
        [special("d/l", tarfile.SYMTYPE, "../../x")],
        [special("d/l", tarfile.SYMTYPE, "a/../../../x")],
        [special("l", tarfile.SYMTYPE, "."), ("l/x", b"1")],
        [("l/x", b"1"), special("l", tarfile.SYMTYPE, "d")],
        [special("h", tarfile.LNKTYPE, "/etc/passwd")],
        [special("h", tarfile.LNKTYPE, "../x")],
        [special("l", tarfile.SYMTYPE, "f"), special("h", tarfile.LNKTYPE, "l")],
        [special("p/q/x", tarfile.SYMTYPE, "../.."), special("p/y", tarfile.SYMTYPE, "q/x/..")],
    ],
)
def test_links_out_of_the_tree_and_files_through_links(tmp_path, members):
    refused(make_tar(tmp_path / "a.tgz", *members), "tar.gz", "link|twice|lies below|file and a folder|leads out")


def test_links_inside_the_tree_are_made(tmp_path):
    path = make_tar(
        tmp_path / "a.tgz",
        ("d/f", b"1"),
        special("l", tarfile.SYMTYPE, "d/f"),
        special("d/up", tarfile.SYMTYPE, "../l"),
        special("h", tarfile.LNKTYPE, "d/f"),
    )
    target = Path(fetch(str(path), str(tmp_path / "t")))
    assert (target / "l").read_bytes() == (target / "d/up").read_bytes() == (target / "h").read_bytes() == b"1"
    assert os.stat(target / "h").st_nlink == 1
    zipped = make_zip(tmp_path / "b.zip", ("d/f", b"2"), ("l", b"d/f", stat.S_IFLNK | 0o777))
    assert (Path(fetch(str(zipped), str(tmp_path / "t2"))) / "l").read_bytes() == b"2"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_special_files_are_refused(tmp_path, kind):
    refused(make_tar(tmp_path / "a.tgz", special("dev", kind)), "tar.gz", "special file")


def test_special_files_in_zips_are_refused(tmp_path):
    refused(make_zip(tmp_path / "a.zip", ("dev", b"", stat.S_IFIFO | 0o644)), "zip", "special file")
    refused(make_zip(tmp_path / "b.zip", ("l", b"/etc/passwd", stat.S_IFLNK | 0o777)), "zip", "links to")


def test_modes_are_masked(tmp_path):
    info = tarfile.TarInfo("tool")
    info.size, info.mode = 1, 0o6777
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as out:
        out.addfile(info, io.BytesIO(b"1"))
    target = unpack(str(tmp_path / "a.tgz"), str(tmp_path / "t"), "tar.gz")
    assert stat.S_IMODE(os.stat(f"{target}/tool").st_mode) & ~0o755 == 0 and os.access(f"{target}/tool", os.X_OK)


def test_bombs_stop_at_the_limit_that_the_cause_names(tmp_path):
    zeros = b"\0" * 3_000_000
    bomb, packed = make_tar(tmp_path / "a.tgz", ("z", zeros)), make_zip(tmp_path / "a.zip", ("z", zeros))
    for path, kind in ((bomb, "tar.gz"), (packed, "zip")):
        refused(path, kind, "more than 100 times its size", Limits(ratio=100, ratio_from=1 << 20))
        refused(path, kind, "1000 bytes|limit is 1000", Limits(size=1000, entries=0 if kind == "tar.gz" else 10))
    many = [(f"f{n}", b"") for n in range(20)]
    refused(make_tar(tmp_path / "m.tgz", *many), "tar.gz", "more than 10 entries", Limits(entries=10))
    refused(make_zip(tmp_path / "m.zip", *many), "zip", "20 entries, the limit is 10", Limits(entries=10))


def test_a_zip_whose_header_lies_about_its_size_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", ("z", b"x" * 5000))
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 24 : place + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, "zip", "larger than its header|not a readable")


def test_content_decides_not_the_name(tmp_path):
    tar, zipped = make_tar(tmp_path / "a.tgz", ("f", b"1")), make_zip(tmp_path / "a.zip", ("f", b"1"))
    refused(tar, "zip", "not a zip archive by its content but tar.gz")
    refused(zipped, "tar.gz", "not a tar.gz archive by its content but zip")
    (tmp_path / "t.zip").write_text("text")
    refused(tmp_path / "t.zip", "zip", "by its content")
    (tmp_path / "plain.tgz").write_bytes(gzip.compress(b"no tar at all" * 100))
    refused(tmp_path / "plain.tgz", "tar.gz", "not a readable tar")


@pytest.mark.parametrize("cut", [10, 200, -1, -10, -30])
def test_truncated_archives_are_refused(tmp_path, cut):
    tar, zipped = make_tar(tmp_path / "a.tgz", ("f", os.urandom(3000))), make_zip(tmp_path / "a.zip", ("f", os.urandom(3000)))
    tar.write_bytes(tar.read_bytes()[:cut])
    zipped.write_bytes(zipped.read_bytes()[:cut])
    refused(tar, "tar.gz", "truncated|not a readable")
    refused(zipped, "zip", "truncated|not a readable")


def test_a_tar_without_its_end_or_with_a_broken_header_is_refused(tmp_path):
    whole = gzip.decompress(make_tar(tmp_path / "a.tgz", ("f", b"1" * 600), ("g", b"2")).read_bytes())
    (tmp_path / "b.tgz").write_bytes(gzip.compress(whole[:1536]))
    refused(tmp_path / "b.tgz", "tar.gz", "end is missing|unexpected end")
    (tmp_path / "c.tgz").write_bytes(gzip.compress(whole[:1536] + b"rubbish!" * 64 + whole[2048:]))
    refused(tmp_path / "c.tgz", "tar.gz", "damaged")


def test_rubbish_after_the_end_is_refused(tmp_path):
    tar, zipped = make_tar(tmp_path / "a.tgz", ("f", b"1")), make_zip(tmp_path / "a.zip", ("f", b"1"))
    tar.write_bytes(tar.read_bytes() + b"rubbish")
    zipped.write_bytes(zipped.read_bytes() + b"rubbish")
    refused(tar, "tar.gz", "after the end")
    refused(zipped, "zip", "after the end")


def test_empty_and_encrypted_archives_are_refused(tmp_path):
    refused(make_tar(tmp_path / "a.tgz"), "tar.gz", "empty")
    refused(make_zip(tmp_path / "a.zip"), "zip", "empty")
    path = make_zip(tmp_path / "e.zip", ("f", b"1"))
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "zip", "encrypted")


def test_one_path_twice_and_file_then_folder_are_refused(tmp_path):
    refused(make_zip(tmp_path / "a.zip", ("f", b"1"), ("./f", b"2")), "zip", "twice")
    refused(make_tar(tmp_path / "a.tgz", ("f", b"1"), ("f/g", b"2")), "tar.gz", "a file and a folder")
    refused(make_tar(tmp_path / "b.tgz", ("f/g", b"1"), ("f", b"2")), "tar.gz", "twice")


def test_names_that_are_not_utf_8_are_refused(tmp_path):
    refused(make_tar(tmp_path / "a.tgz", ("f\udcff", b"1")), "tar.gz", "not UTF-8")


def test_an_old_target_is_replaced_and_a_failure_keeps_it(tmp_path):
    first = unpack(str(make_zip(tmp_path / "a.zip", ("old", b"1"))), str(tmp_path / "t"), "zip")
    with pytest.raises(SourceRefused):
        (tmp_path / "bad.zip").write_text("x")
        unpack(str(tmp_path / "bad.zip"), first, "zip")
    unpack(str(make_zip(tmp_path / "b.zip", ("new", b"1"))), first, "zip")
    assert os.listdir(first) == ["new"]


def test_local_folders_stay_where_they_are(tmp_path):
    assert fetch(str(tmp_path), str(tmp_path / "t")) == str(tmp_path)
    with pytest.raises(NotFound):
        fetch("nope", "t")
    with pytest.raises(SourceRefused):
        fetch("https://host/file.rar", "t")


@pytest.fixture
def web(tmp_path):
    """A web server on loopback over tmp_path/web."""
    root = tmp_path / "web"
    root.mkdir()
    seen: list[tuple[str, str]] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kw):
            super().__init__(*args, directory=str(root), **kw)

        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization", "")))
            super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_archives_come_by_address(web, tmp_path):
    root, url, _ = web
    make_zip(root / "a.zip", ("f", b"1"))
    target = fetch(f"{url}/a.zip?x=1#frag", str(tmp_path / "t"))
    assert os.listdir(target) == ["f"] and not (tmp_path / "t.download").exists()


@pytest.mark.parametrize(
    "url",
    ["git://--upload-pack=touch x/y", "git://-x/y", "git://host/-y", "git://host/a b", "git://host/r#--upload-pack=x", "git://host/../x", "git://host/r#a..b", "git://host", "git://ext::sh -c id/x"],
)  # fmt: skip
def test_git_addresses_that_are_options_or_protocols_are_refused(tmp_path, url):
    with pytest.raises(SourceRefused, match="git source"):
        fetch(url, str(tmp_path / "t"))
    assert not (tmp_path / "t").exists()


def test_a_git_repository_is_cloned_at_its_ref_without_hooks(web, tmp_path, monkeypatch):
    root, url, seen = web
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text(f'[user]\n email = a@b\n name = n\n[url "{url}/"]\n insteadOf = https://code.example/\n')
    work = tmp_path / "repo"
    for arguments in (["init", "-q", "-b", "main", str(work)],):
        subprocess.run(["git", *arguments], check=True)
    (work / "job.py").write_text("x = 1\n")
    steps = (["add", "."], ["commit", "-qm", "one"], ["branch", "other"], ["clone", "-q", "--bare", ".", str(root / "r.git")])
    for step in steps:
        subprocess.run(["git", *step], cwd=work, check=True)
    subprocess.run(["git", "update-server-info"], cwd=root / "r.git", check=True)
    monkeypatch.setattr(source, "DEPTH", [])  # the plain file protocol of this test has no shallow clones
    target = fetch("git://code.example/r.git#refs/heads/other", str(tmp_path / "t"))
    assert sorted(os.listdir(target)) == [".git", "job.py"]
    with pytest.raises(SourceRefused, match="nope"):
        fetch("git://user:secret@code.example/r.git#nope", str(tmp_path / "t"))
    assert base64.b64encode(b"x-access-token:") not in str(seen).encode()


def test_damaged_archives_are_refused_or_unpacked_and_nothing_else(tmp_path):
    seed = 20240501
    chance = random.Random(seed)
    print("seed", seed)
    zipped = make_zip(
        tmp_path / "a.zip", ("d/f", b"1" * 300), ("l", b"d/f", stat.S_IFLNK | 0o777), ("g", chance.randbytes(500))
    ).read_bytes()
    packed = make_tar(
        tmp_path / "a.tgz", ("d/f", b"1" * 300), special("l", tarfile.SYMTYPE, "d/f"), ("g", chance.randbytes(500))
    ).read_bytes()
    plain = gzip.decompress(packed)
    for n in range(900):
        data = bytearray((zipped, packed, plain)[n % 3])
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        (tmp_path / "x").write_bytes(gzip.compress(bytes(data), 1) if n % 3 == 2 else bytes(data))
        with contextlib.suppress(SourceRefused):
            unpack(str(tmp_path / "x"), str(tmp_path / "t"), "tar.gz" if n % 3 else "zip", Limits(size=10**7))
    assert sorted(set(os.listdir(tmp_path)) - {"t"}) == ["a.tgz", "a.zip", "x"]


def test_a_source_archive_is_run(pod, tmp_path):
    make_tar(tmp_path / "src.tar.gz", ("sub/job.py", b"import helper\ndef f():\n    return helper.n\n"), ("sub/helper.py", b"n = 5\n"))
    done = pod(["--source", str(tmp_path / "src.tar.gz"), "--workdir", "sub", "--handler", "f", "job.py"])
    assert done.results == {"return": 5}
