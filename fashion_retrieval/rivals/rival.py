"""What all rivals are built on."""

from fashion_retrieval.networks import Network
from fashion_retrieval.towers import Tower


class Rival(Network):
    """A network on a tower: on its feature map if `spatial`, else on its vector."""

    spatial = False

    def __init__(self, tower: Tower, attributes: int, width: int) -> None:
        super().__init__()
        self.tower, self.preprocess, self.width = tower.module, tower.preprocess, width
