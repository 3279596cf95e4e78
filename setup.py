"""Builds what is compiled, the kernel and the CNI plugin; everything else stands in setup.cfg.

Both are optional. Without the compiled plugin its twin in Python is what `tunrouter cni install` installs.
"""

import os
import shlex
import subprocess
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build import build

PLUGIN = Path("tunrouter", "edge", "tunrouter-cni")
SOURCES = Path("cni-plugin", "c")
FLAGS = ("-std=gnu11", "-O2", "-static", "-s", "-Wall", "-Wextra")


class BuildPlugin(Command):
    """One static program, which lies in the package beside the code that installs it."""

    description = "build the CNI plugin"
    user_options = ()
    editable_mode = False

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        target = PLUGIN if self.editable_mode else Path(self.build_lib, PLUGIN)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # rather none than an old one
        sources = (str(file) for file in sorted(SOURCES.glob("*.c")))
        command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *sources, "-o", str(target)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError):
            target.unlink(missing_ok=True)
            self.warn(f"the CNI plugin could not be compiled, its Python twin has to do: {shlex.join(command)}")

    def get_source_files(self):
        return [str(file) for file in sorted(SOURCES.glob("*.[ch]"))]

    def get_outputs(self):
        return list(self.get_output_mapping())

    def get_output_mapping(self):
        return {str(Path(self.build_lib, PLUGIN)): str(PLUGIN)} if self.editable_mode else {}


class Build(build):
    sub_commands = (*build.sub_commands, ("build_plugin", None))


setup(
    cffi_modules=["tunrouter/dataplane/build.py:ffi"],
    cmdclass={"build": Build, "build_plugin": BuildPlugin},
)
