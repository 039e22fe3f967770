"""The console's build, and its own tests, which Node.js runs."""

import base64
import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "console"


def load_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("console_build", CONSOLE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for it
    spec.loader.exec_module(module)
    return module


build = load_build()


def packed(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def integrity(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "MODULES", tmp_path / "node_modules")
    return tmp_path


def test_the_console_does_what_its_own_tests_say() -> None:
    if not (CONSOLE / "node_modules" / "diff").is_dir():
        pytest.skip("the console's packages are not there: run `make console`")
    node = shutil.which("node") or build.node()[0]
    files = sorted(str(path) for path in (CONSOLE / "tests").glob("*.test.js"))
    assert files
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_a_package_is_unpacked_only_if_it_is_what_is_pinned(modules: Path) -> None:
    data = packed(**{"package/index.js": "export default 1"})
    tarball = modules / "thing-1.0.0.tgz"
    tarball.write_bytes(data)
    package = build.Package("thing", "1.0.0", integrity(data), "site")
    build._unpack(package, data, tarball)
    assert (modules / "node_modules/thing/index.js").read_text() == "export default 1"
    assert package.present
    other = build.Package("thing", "1.0.0", integrity(data + b"x"), "site")
    assert not other.present
    with pytest.raises(build.BuildError, match=r"not what packages\.toml pins"):
        build._unpack(other, data, tarball)


def test_a_package_writes_nothing_outside_its_folder(modules: Path) -> None:
    data = packed(**{"package/../../../evil.js": "1", "/package/fine.js": "2", "package/fine.js": "3"})
    tarball = modules / "thing-1.0.0.tgz"
    tarball.write_bytes(data)
    build._unpack(build.Package("thing", "1.0.0", integrity(data), "site"), data, tarball)
    written = {str(path.relative_to(modules)) for path in modules.rglob("*") if path.is_file()} - {tarball.name}
    assert written == {f"node_modules/thing/{name}" for name in (".integrity", "fine.js", "package/fine.js")}


def test_every_package_is_pinned_by_hash_and_names_no_host() -> None:
    listed = build.packages()
    assert {package.use for package in listed} == {"site", "lint", "test"}
    for package in listed:
        assert len(base64.b64decode(package.integrity.removeprefix("sha512-"), validate=True)) == 64
        assert re.fullmatch(r"\d+\.\d+\.\d+", package.version)
    hosts = re.compile(r"https?://(?!www\.w3\.org/)", re.IGNORECASE)
    made = {"node_modules", "__pycache__"}
    ours = [path for path in CONSOLE.rglob("*") if path.is_file() and not made.intersection(path.parts)]
    assert [str(path) for path in ours if hosts.search(path.read_text())] == []


def test_the_page_has_nothing_that_a_strict_policy_refuses() -> None:
    page = (CONSOLE / "src" / "index.html").read_text()
    assert not re.search(r"<style|\son\w+=|style=|javascript:|<script(?![^>]*\ssrc=)", page, re.IGNORECASE)
    sources = {path: path.read_text() for path in (CONSOLE / "src").rglob("*.js")}
    forbidden = re.compile(r"innerHTML|SetInnerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
    assert [str(path) for path, text in sources.items() if forbidden.search(text)] == []
