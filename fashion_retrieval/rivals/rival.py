"""The base class of the rivals."""

from fashion_retrieval.networks import Network
from fashion_retrieval.rivals.towers import Tower


class Rival(Network):
    """A network on a tower.

    Attributes:
        spatial: True if it takes the tower's feature map, False for its vector.
    """

    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        """width: width of the representation."""
        super().__init__()
        self.tower, self.preprocess, self.width = tower.module, tower.preprocess, width
