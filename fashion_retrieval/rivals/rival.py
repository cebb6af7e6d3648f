"""The base class of the rivals."""

from fashion_retrieval.networks import Network
from fashion_retrieval.rivals.towers import Tower


class Rival(Network):
    """A network on a tower.

    Attributes:
        method: its name, a key of `RIVALS`.
        spatial: True if it takes the tower's feature map, False for its vector.
    """

    method: str
    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        """width: width of the representation."""
        super().__init__()
        self.tower, self.tower_name = tower.module, tower.name
        self.preprocess, self.width = tower.preprocess, width
