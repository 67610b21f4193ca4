"The angle in feature space: odd shapes, refusals, and held-out agreement"
import math
import numpy as np, pytest, torch
from u1nb.core import plane, rng
from u1nb.circle import theta
from u1nb.hue import agreement, fit_plane, harmonic, in_plane, medial_angle, random_planes, site_hue
from u1nb.hue import dipole, dipole_plane, hue_concentration, lookalikes, random_hue_gains, ridge_ceiling

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

def test_an_axis_of_ones_is_the_medial_one():
    b = fit_plane(v, 'class', lab, np.ones(12))
    np.testing.assert_allclose(b, fit_plane(v, 'class', lab), atol=1e-9)
    np.testing.assert_allclose(in_plane(v, b, np.ones(12)), in_plane(v, b), atol=1e-9)
    np.testing.assert_allclose(random_planes(12, 5, axis=np.ones(12)), random_planes(12, 5), atol=1e-9)

@pytest.mark.parametrize('kind', ['pca','class'])
def test_planes_about_the_mean_do_not_see_it(kind):
    w = v+5*r.random(12)
    m = w.mean(0)
    b = fit_plane(w, kind, lab, m)
    np.testing.assert_allclose(b.T@b, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(in_plane(w+3*m, b, m), in_plane(w, b, m), atol=1e-9)
    np.testing.assert_allclose(in_plane(m[None], np.eye(12)[:,:2], m), 0, atol=1e-9)    # a plane across it, too

def test_site_hue_is_in_plane_of_each_site():
    maps = rng(2).standard_normal((70,12,2,3))+2
    maps[1,:,0,0] = 0
    b,m = fit_plane(v), rng(3).random(12)
    for axis in (None, m):
        sites = maps.transpose(0,2,3,1).reshape(-1, 12)
        want = in_plane(sites/np.maximum(np.linalg.norm(sites, axis=1, keepdims=True), 1e-9), b, axis).reshape(70,2,3)
        np.testing.assert_allclose(site_hue(maps, b, axis), want, atol=1e-5)
        np.testing.assert_allclose(site_hue(torch.from_numpy(maps*7), b, axis), want, atol=1e-5)
    assert np.isnan(theta(site_hue(maps, b))[1,0,0])

def test_dipole_turns_with_the_map():
    "Even maps have none; a mirrored map has π−θ in each channel, a quarter turn adds 90°"
    a = torch.from_numpy(rng(4).random((3,12,5,5)))
    d = dipole(a).numpy()
    assert d.shape==(3,12) and abs(dipole(torch.ones(1,2,4,6))).max()<1e-6
    np.testing.assert_allclose(dipole(a.flip(-1)).numpy(), -d.conj(), atol=1e-5)
    np.testing.assert_allclose(dipole(torch.rot90(a, 1, (2,3))).numpy(), 1j*d, atol=1e-5)
    b = dipole_plane(d)
    m = d.mean(0)-d.mean()
    S = b.T@np.column_stack([m.real, m.imag])
    np.testing.assert_allclose(b.T@b, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(S, S.T, atol=1e-5)
    assert np.linalg.eigvalsh(S).min()>0                     # neither turned nor mirrored

K,n = 8,12
many = np.repeat(np.arange(K), n)
there = rng(5).random((K*n,3,3))<.3
def hues(seed, strength):
    g = rng(seed, 'hues')
    return strength*there*np.exp(2j*np.pi*many/K)[:,None,None]+g.standard_normal(there.shape)+1j*g.standard_normal(there.shape)

def test_planted_hue_and_its_classes():
    found = hue_concentration(hues(0, 9), there, many)
    assert found.gain.lo>.8 and found.gain.n==K and found.informative>.9 and abs(found.others)<.2
    assert abs(np.angle(np.exp(1j*(found.theta-2*np.pi*np.arange(K)/K)))).max()<.2 and found.names.tolist()==list(range(K))

def test_one_hue_gives_no_gain():
    "All sites of all classes share a hue: R̄ is 1 on both sides"
    found = hue_concentration(np.ones(there.shape, complex), there, many)
    assert found.informative==pytest.approx(1) and found.gain.value==pytest.approx(0, abs=1e-9)

def test_pairs_are_of_different_groups():
    "Views of one picture agree with each other, which says nothing; a class of one group is left out"
    views = np.arange(K*n)//3
    h = np.exp(2j*np.pi*rng(6).random(K*n//3))[views][:,None,None]*np.ones((3,3))
    assert abs(hue_concentration(h, there, many, views).informative)<hue_concentration(h, there, many).informative
    one = hue_concentration(h, there, many, np.where(many==2, 0, views+1))
    assert np.isnan(one.gains[2]) and one.gain.n==K-1

def test_sites_without_hue_and_classes_without_sites():
    s = there.copy(); s[many==3] = False
    found = hue_concentration(np.where(rng(7).random(s.shape)<.3, 0, hues(0, 9)), s, many)
    assert np.isnan(found.theta[3]) and np.isnan(found.gains[3]) and found.gain.n==K-1
    none = hue_concentration(hues(0, 9), np.zeros_like(s), many)
    assert np.isnan(none.gain.value) and none.gain.n==0

def test_random_gains_are_those_of_their_planes():
    maps = rng(8).standard_normal((K*n,5,3,3))+2
    gains = random_hue_gains(maps, there, many, n_planes=7, block=3)
    want = [hue_concentration(site_hue(maps, b), there, many).gain.value for b in random_planes(5, 7)]
    np.testing.assert_allclose(gains, want, atol=1e-4)

def test_lookalikes_are_parts_of_a_class():
    sim = rng(9).random(there.shape)
    b = lookalikes(sim, many, 6)
    assert len(np.unique(b))==6*K and np.bincount(b.ravel()).tolist()==[18]*6*K
    assert max(sim[b==0].max(), 0)<sim[b==1].min() and (b//6==many[:,None,None]).all()

def test_ridge_reads_no_rounding():
    "A channel that varies by its last digits only is a constant; a picture without z is left out"
    g = rng(10)
    z = g.standard_normal(200)+1j*g.standard_normal(200)
    x = np.column_stack([1+1e-8*z.real, 5+1e-8*z.imag, np.ones(200)])
    assert abs(ridge_ceiling(x, z).value)<1e-9 and ridge_ceiling(x-[1,5,1], z).value>.99
    z[3] = np.nan
    assert ridge_ceiling(x, z).n==199 and ridge_ceiling(x, z, np.arange(200)//2).n==100
