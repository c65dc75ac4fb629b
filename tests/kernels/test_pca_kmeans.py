import numpy as np

from geoalign.kernels.pca_kmeans import learn, parted, patches


def test_patches_are_cut_and_parted_as_by_hand():
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(0, 0.2, (50, 60)))
    image[20:40, 20:45] += 1.5
    cut = patches(image, 5, 5)
    assert cut.shape == (10 * 11, 25) or cut.shape == (10 * 12, 25)
    np.testing.assert_array_equal(cut[0], image[:5, :5].ravel())
    learnt = learn([cut], 5, 3, 0)
    mean, axes, centres = learnt[:25], learnt[25:100].reshape(3, 25), learnt[100:106].reshape(2, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(mean, cut.mean(axis=0))
    score = parted(image, learnt, 5, 3)
    for r, c in ((10, 10), (30, 30), (20, 20), (37, 41)):
        place = axes @ (image[r - 2 : r + 3, c - 2 : c + 3].ravel() - mean)
        d = ((place - centres) ** 2).sum(axis=1)
        np.testing.assert_allclose(score[r, c], (d[0] - d[1]) / ((centres[1] - centres[0]) ** 2).sum(), rtol=1e-5)
    assert (score[22:38, 22:43] > 0).all()
    assert (score[:15] < 0).all()


def test_too_little_teaches_nothing():
    assert (learn([np.zeros((3, 25))], 5, 3, 0) == 0).all()
    assert (parted(np.ones((9, 9)), np.zeros(107), 5, 3) == -1).all()
    assert patches(np.ones((3, 40)), 5, 5).shape == (0, 25)
