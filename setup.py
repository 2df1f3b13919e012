"""Builds the Cython cores. The same sources run interpreted under FASTKUBE_PURE=1 (see fastkube/_pure.py).

A failed build fails loudly: there is no optional extension and no silent fallback.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORES = sorted(Path("fastkube").glob("_*.pyx"))

setup(
    ext_modules=cythonize(
        [
            Extension(f"fastkube.{core.stem}", [str(core)], extra_compile_args=["-O2", "-fno-math-errno"])
            for core in CORES
        ],
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "binding": True,
        },
        nthreads=os.cpu_count() or 1,
    ),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
