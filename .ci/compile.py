"""Compile the walks over blocks, `virtualchain/bitcoin/walk.py`, with Cython and the system's C compiler.

    python .ci/compile.py

does so in place, for a checkout or an editable install; repeat it when that file has changed, as a module of
another version is not used. Hatchling runs the same as its build hook. Without Cython, setuptools or a C
compiler, a build leaves the module out, and the walks are interpreted; VIRTUALCHAIN_COMPILED=1 in the
environment makes that an error, and 0 leaves it out in any case.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).parents[1] / "virtualchain" / "bitcoin"
NAME = "virtualchain.bitcoin._walk"
STAND_IN = "from virtualchain.bitcoin import interpreted as cython  # the build puts `import cython` here"
DIRECTIVES = {
    "annotation_typing": False,  # the types are in decorators
    "language_level": 3,
    "show_performance_hints": False,
    "wraparound": False,  # no index is negative
}


def compile_walks(folder: Path) -> Path:
    """Compile the module into a folder, and return its path; raises ImportError and what a compiler does."""
    from Cython.Build import cythonize  # noqa: PLC0415 - may be missing
    from setuptools import Distribution, Extension  # noqa: PLC0415 - may be missing

    source = (PACKAGE / "walk.py").read_bytes()
    text = source.decode()
    if text.count(STAND_IN) != 1:
        raise RuntimeError(f"{PACKAGE / 'walk.py'} does not contain the line: {STAND_IN}")
    with TemporaryDirectory() as temporary:
        copy = Path(temporary) / "_walk.py"
        digest = hashlib.sha256(source).hexdigest()
        copy.write_text(f'{text.replace(STAND_IN, "import cython")}\nSOURCE = "{digest}"\n', encoding="utf-8")
        flags = [] if os.name == "nt" else ["-O2", "-g0", "-w"]
        extension = Extension(NAME, [str(copy)], extra_compile_args=flags)
        extensions = cythonize([extension], compiler_directives=DIRECTIVES, quiet=True)
        command: Any = Distribution({"name": "virtualchain", "ext_modules": extensions}).get_command_obj(
            "build_ext"
        )
        command.build_lib = command.build_temp = temporary
        command.ensure_finalized()
        command.run()
        built = Path(command.get_ext_fullpath(NAME))
        # Replaced, not overwritten: a process may be running the old one.
        fresh = folder / f".{built.name}"
        shutil.copyfile(built, fresh)
        return fresh.replace(folder / built.name)


class CompileHook(BuildHookInterface[Any]):
    """Adds the compiled module to a wheel, and to the checkout of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, if that is possible and wanted."""
        wanted = os.environ.get("VIRTUALCHAIN_COMPILED")
        if wanted == "0":
            return
        is_editable = version == "editable"
        self._folder = PACKAGE if is_editable else Path(mkdtemp())
        try:
            module = compile_walks(self._folder)
        except (Exception, SystemExit) as error:
            if wanted == "1":
                raise
            self.app.display_warning(
                f"virtualchain's walks over blocks are not compiled, only slower: {error}"
            )
            return
        if not is_editable:
            build_data.update(pure_python=False, infer_tag=True)
            build_data["force_include"][str(module)] = f"virtualchain/bitcoin/{module.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove what was compiled for a wheel."""
        if getattr(self, "_folder", PACKAGE) != PACKAGE:
            shutil.rmtree(self._folder)


if __name__ == "__main__":
    sys.stdout.write(f"{compile_walks(PACKAGE)}\n")
