import pytest
from color_vlm import ColorVLM, draw, write_bases

from crl.explore.collection import Collection


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Pictures whose colors and sides are known, seen by a VLM that sees just these."""
    folder = tmp_path_factory.mktemp("collection")
    draw(folder / "pictures")
    write_bases(folder / "bases")
    return Collection.embed(folder / "pictures", ColorVLM())


@pytest.fixture(scope="session")
def bases(photos):
    return photos.folder.parent / "bases"


@pytest.fixture(scope="session")
def color(photos, bases):
    return photos.under(bases / "color.yaml")


@pytest.fixture(scope="session")
def side(photos, bases):
    return photos.under(bases / "side.yaml")
