"The angle in feature space: odd shapes, refusals, and held-out agreement"
import math
import numpy as np, pytest
from u1nb.core import rng
from u1nb.hue import agreement, fit_plane, harmonic, in_plane, medial_angle, random_planes

r = rng(0)
lab = np.repeat(np.arange(6), 8)
z = np.exp(1j*r.uniform(-np.pi, np.pi, 48))
v = r.standard_normal((48,12))

@pytest.mark.parametrize('kind', ['pca','class'])
@pytest.mark.parametrize('C', [3,12,200])
def test_planes_are_orthonormal(kind, C):
    "Fewer channels than vectors, and more"
    b = fit_plane(rng(1).standard_normal((48,C)), kind, lab)
    np.testing.assert_allclose(b.T@b, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(b.sum(0), 0, atol=1e-9)

def test_random_planes_are_orthonormal():
    b = random_planes(5, 100)
    np.testing.assert_allclose(np.einsum('nci,ncj->nij', b, b), np.broadcast_to(np.eye(2), (100,2,2)), atol=1e-9)
    np.testing.assert_allclose(b.sum(1), 0, atol=1e-9)

def test_brightness_has_no_hue():
    "The same added to all channels changes neither the harmonic nor the place in a plane"
    b = fit_plane(v)
    np.testing.assert_allclose(harmonic(v+3), harmonic(v), atol=1e-9)
    np.testing.assert_allclose(in_plane(v+3, b), in_plane(v, b), atol=1e-9)
    assert medial_angle(np.full((1,7), 2.))[0]==pytest.approx(0, abs=1e-7)

def test_pictures_without_angle_are_left_out():
    a = agreement(np.where(np.arange(48)==3, 0, z), v, lab, n_planes=20, n_perm=19)
    keep = np.arange(48)!=3
    b = agreement(z[keep], v[keep], lab[keep], n_planes=20, n_perm=19)
    assert a.equals(b) and len(a)==6 and a.orders_99.notna().sum()==2

def test_interval_over_groups_needs_two_of_each_class():
    "With two groups a class, one is tested: its mean is known, how far it may scatter is not"
    groups = np.arange(48)//4
    d = agreement(z, v, lab, groups, n_planes=20, n_perm=19).set_index('pairs')
    assert d.loc['class means'].lo_groups.isna().all() and d.loc['class means'][['value','lo']].notna().all(axis=None)
    assert (d.loc['class means'].n==6).all() and (d.loc['within classes'].n==6).all()

def test_refusals():
    refused = {'C ≥ 3':lambda: harmonic(v[:,:2]), 'C ≥ 2':lambda: medial_angle(v[0]), 'needs labels':lambda: fit_plane(v, 'class'),
               "'pca' or 'class'":lambda: agreement(z, v, lab, kinds=['harmonics'], n_planes=9, n_perm=9),
               'at least 3 vectors':lambda: fit_plane(v[:2]), 'channels':lambda: in_plane(v, fit_plane(v)[:5]),
               '47 angles':lambda: agreement(z[1:], v, lab), 'one in each half':lambda: agreement(z, v, lab, lab)}
    for what,call in refused.items():
        with pytest.raises(ValueError, match=what): call()
