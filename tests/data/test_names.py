"""A data set has one name: that of its folder, its loader's module and its loader."""

import importlib
import pkgutil

import mtmm_lib.data
from mtmm_lib.data import registry
from tools.project import ROOT

FOLDERS = {path.parent.name for path in (ROOT / "data").glob("*/CARD.md")}


def test_every_folder_has_a_loader_of_its_name():
    for name in FOLDERS:
        module = importlib.import_module(f"mtmm_lib.data.{name}")
        loader = getattr(module, name)
        assert callable(loader) and loader.__module__ == module.__name__
        assert getattr(mtmm_lib.data, name) is loader and name in mtmm_lib.data.__all__


def test_every_loader_has_a_folder_of_its_name():
    names = {info.name for info in pkgutil.iter_modules(mtmm_lib.data.__path__)}
    loaders = {
        name
        for name in names
        if hasattr(importlib.import_module(f"mtmm_lib.data.{name}"), name)
    }
    functions = {
        name
        for name in mtmm_lib.data.__all__
        if not isinstance(getattr(mtmm_lib.data, name), type)
    }
    assert loaders == functions == FOLDERS


def test_every_published_set_has_a_folder_and_a_manifest_of_its_name():
    assert set(registry.SETS) <= FOLDERS
    for name, data in registry.SETS.items():
        assert data.manifest.stem == name and data.manifest.is_file()
