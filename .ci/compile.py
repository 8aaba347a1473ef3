"""Compile `walk.py`, `addresses.py`, `hashes.c`, `rows.c` and `shown.c` of `virtualchain/bitcoin`.

    python .ci/compile.py

does so in place, with Cython and the system's C compiler, for a checkout or an editable install; repeat it
when these files have changed, as a module of another version is not used. Hatchling runs the same as its
build hook. Without Cython, setuptools or a C compiler, a build leaves the modules out, and blocks are read by
interpreted code; VIRTUALCHAIN_COMPILED=1 in the environment makes that an error, and 0 leaves them out in any
case.
"""

import hashlib
import os
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PURE = ("walk", "addresses")
"""What Cython compiles; to import `name.py` compiled is to import `_name`."""
FORMS = ("curve.h", "forms.h", "sha.h", "spends.h")
NATIVE = {"_hashes": ("hashes.c", "sha.h"), "_rows": ("rows.c", *FORMS), "_shown": ("shown.c", *FORMS)}
"""What is written in C, by the name of the module: its source, and what that includes."""
PACKAGE = Path(__file__).resolve().parents[1] / "virtualchain" / "bitcoin"
STAND_IN = "from virtualchain.bitcoin import interpreted as cython  # the build puts `import cython` here"
DIRECTIVES = {
    "annotation_typing": False,  # the types are in decorators
    "language_level": 3,
    "show_performance_hints": False,
    "wraparound": False,  # no index is negative
}


def compile_modules(folder: Path) -> list[Path]:
    """Compile the modules into a folder; returns their paths; raises ImportError, and more."""
    from Cython.Build import cythonize  # noqa: PLC0415 - may be missing
    from setuptools import Distribution, Extension  # noqa: PLC0415 - may be missing

    flags: dict[str, Any] = {} if os.name == "nt" else {"extra_compile_args": ["-O2", "-g0", "-w"]}
    # The modules contain the paths of their sources: with relative ones, a build has the same bytes anywhere.
    with TemporaryDirectory() as temporary, chdir(temporary):
        copies = {f"_{name}": _copy(PACKAGE / f"{name}.py") for name in PURE}
        extensions = cythonize(
            [Extension(f"virtualchain.bitcoin.{name}", [copy], **flags) for name, copy in copies.items()],
            compiler_directives=DIRECTIVES,
            quiet=True,
        )
        for name, files in NATIVE.items():
            sources = [PACKAGE / file for file in files]
            for source in sources:
                shutil.copy(source, source.name)
            macros = [("SOURCE", f'"{_digest(*sources)}"')]
            extensions.append(
                Extension(f"virtualchain.bitcoin.{name}", [files[0]], define_macros=macros, **flags)
            )
        distribution = Distribution({"name": "virtualchain", "ext_modules": extensions})
        command: Any = distribution.get_command_obj("build_ext")
        command.build_lib = command.build_temp = "built"
        command.ensure_finalized()
        command.run()
        return [_place(Path(command.get_ext_fullpath(each.name)), folder) for each in extensions]


def _copy(source: Path) -> str:
    """Write a source into the working directory as Cython takes it, with its digest; returns its name."""
    text = source.read_text(encoding="utf-8")
    if text.count(STAND_IN) != 1:
        raise RuntimeError(f"{source} does not contain the line: {STAND_IN}")
    copy = Path(f"_{source.name}")
    text = f'{text.replace(STAND_IN, "import cython")}\nSOURCE = "{_digest(source)}"\n'
    copy.write_text(text, encoding="utf-8")
    return str(copy)


def _digest(*sources: Path) -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _place(module: Path, folder: Path) -> Path:
    """Put a module into a folder; it replaces an older one, which a process may be running."""
    copy = folder / f".{module.name}"
    shutil.copyfile(module, copy)
    return copy.replace(folder / module.name)


class CompileHook(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel, and to the checkout of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, if that is possible and wanted."""
        wanted = os.environ.get("VIRTUALCHAIN_COMPILED")
        if wanted == "0":
            return
        is_editable = version == "editable"
        self._folder = PACKAGE if is_editable else Path(mkdtemp())
        try:
            modules = compile_modules(self._folder)
        except (Exception, SystemExit) as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"virtualchain is built without compiled code, only slower: {error}")
            return
        if not is_editable:
            build_data.update(pure_python=False, infer_tag=True)
            places = {str(module): f"virtualchain/bitcoin/{module.name}" for module in modules}
            build_data["force_include"].update(places)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - given
        """Remove what was compiled for a wheel."""
        if getattr(self, "_folder", PACKAGE) != PACKAGE:
            shutil.rmtree(self._folder)


if __name__ == "__main__":
    sys.stdout.writelines(f"{module}\n" for module in compile_modules(PACKAGE))
