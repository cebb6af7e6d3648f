"""The losses of CC and SCAN against numbers by hand, and neighbours against a loop."""

import pytest
import torch

from classification_clustering.rivals.cc import cluster_loss
from classification_clustering.rivals.pixels import contrastive
from classification_clustering.rivals.scan import nearest, scan_loss, self_label_loss
from crl.run.errors import UserError

P = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])  # 3 images, 2 clusters
Q = torch.tensor([[0.7, 0.3], [0.2, 0.8], [0.9, 0.1]])
A, B = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.6, 0.8], [-0.6, 0.8]])


def test_the_loss_of_vectors():
    a, b = A.requires_grad_(), B
    one_by_one = [contrastive(a, b, 0.5, n) * n for n in range(1, 5)]  # sums of the first n
    terms = torch.stack(one_by_one).diff(prepend=torch.zeros(1)).tolist()
    assert terms == pytest.approx([0.330678, 0.789319, 1.104964, 0.346610], abs=1e-5)
    assert contrastive(a, b, 0.5, 4).item() == pytest.approx(0.642893, abs=1e-6)


def test_the_loss_of_clusters():
    assert cluster_loss(P, Q, 0).item() == pytest.approx(0.890765, abs=1e-6)
    assert cluster_loss(P, Q).item() == pytest.approx(0.919816, abs=1e-6)


def test_one_cluster_for_all_costs_and_an_empty_one_is_a_number():
    same = torch.tensor([[0.98, 0.01, 0.01]] * 4)
    balance = cluster_loss(same, same) - cluster_loss(same, same, 0)
    assert balance.item() == pytest.approx(1.973420, abs=1e-5)
    logits = torch.tensor([[200.0, 0], [200, 0]], requires_grad=True)  # float32 has exact zeros
    loss = cluster_loss(logits.softmax(1), logits.softmax(1))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_simclr_has_anchors_in_the_first_views_only():
    terms = [contrastive(A, B, 0.1, 1).item(), 2 * contrastive(A, B, 0.1, 2).item()]
    assert terms == pytest.approx([0.002482, 0.002482 + 0.693315], abs=2e-6)
    assert terms[1] / 2 == pytest.approx(0.347898, abs=1e-6)


def test_neighbours_agree_and_clusters_are_balanced():
    consistency = scan_loss(P, Q, 0)
    assert consistency.item() == pytest.approx(0.500266, abs=1e-6)
    assert (consistency - scan_loss(P, Q, 1)).item() == pytest.approx(0.684232, abs=1e-6)
    assert scan_loss(P, Q).item() == pytest.approx(-2.920893, abs=1e-6)
    logits = torch.tensor([[200.0, 0]], requires_grad=True)  # they cannot disagree more
    loss = scan_loss(logits.softmax(1), (-logits).softmax(1))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_self_labelling_weighs_clusters_the_same():
    strong = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    weak = torch.eye(3)[[0, 0, 0, 1]]
    assert self_label_loss(strong.log(), weak, 0.99).item() == pytest.approx(0.438445, abs=1e-6)
    unsure = torch.cat([weak, torch.tensor([[0.5, 0.5, 0], [0, 0.99, 0.01]])])  # are left out
    more = torch.cat([strong, strong[:2]]).log()
    assert self_label_loss(more, unsure, 0.99).item() == pytest.approx(0.438445, abs=1e-6)


def test_self_labelling_without_a_sure_image():
    message = r"none of 3 images is surer than 0.99 \(at most 0.800\); start again with"
    with pytest.raises(UserError, match=message):
        self_label_loss(P, P, 0.99)


def test_nearest_begins_with_itself_even_among_copies():
    x = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0))
    x[7] = x[3]
    near = nearest(x, 4)
    assert (near[:, 0] == torch.arange(1500)).all() and near[7, 1] == 3 and near[3, 1] == 7
    for row in (0, 1023, 1024, 1499):
        scores = torch.cosine_similarity(x[row : row + 1], x)
        others = [i for i in scores.argsort(descending=True).tolist() if i != row]
        assert set(near[row, 1:].tolist()) == set(others[:4])
