"""What pyproject.toml cannot say: kernels/ and search_spaces/ become part of the package, and nothing of an earlier
build does."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = {"hktune.kernels": "kernels", "hktune.search_spaces": "search_spaces"}


class FreshBuild(build_py):
    """Builds into an empty folder: a file that an earlier build left there would be packed too."""

    def run(self) -> None:
        """Raises OSError where the earlier build cannot be deleted."""
        earlier = Path(self.build_lib, "hktune")
        if earlier.exists() and not self.editable_mode:
            shutil.rmtree(earlier)
        super().run()


setup(
    packages=[*find_packages(include=["hktune", "hktune.*"]), *FOLDERS],
    package_dir=FOLDERS,
    cmdclass={"build_py": FreshBuild},
)
