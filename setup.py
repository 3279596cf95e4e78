"""Builds the compiled kernel; everything else stands in setup.cfg."""

from setuptools import setup

setup(cffi_modules=["tunrouter/dataplane/build.py:ffi"])
