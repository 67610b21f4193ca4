"Goodness of fit, the brim without a model and the ring of z: what they refuse, and cases that are no lessons"
import math, time
import numpy as np, pytest, torch
from scipy import stats
from u1nb.core import generator, plane, rng
from u1nb.energy import density
from u1nb.sombrero import Fit, Fits, brim_test, fit_profile, ring_of_z, sombrero_test

def maps(f, H=14, n=100, seed=0):
    shape = density(f(plane(H).r))
    return density(shape*(.3*torch.randn(n, H, H, generator=generator(seed, 'noisy'))).exp())

def cloud(n, seed=0):
    g = rng(seed, 'cloud')
    return g.standard_normal(n)+1j*g.standard_normal(n)

@pytest.mark.parametrize('call,message', [
    (lambda: sombrero_test(maps(lambda r: 2-r, 5), border=False), '4 whole rings off the border .* 7×7 .* got 3'),
    (lambda: brim_test(maps(lambda r: 2-r, 3)), '3 whole rings are needed, as 4×4 maps have; got 2'),
    (lambda: brim_test(maps(lambda r: 2-r, n=3)), '4 groups with energy are needed; got 3'),
    (lambda: ring_of_z(cloud(9)), '10 pictures with z'),
    (lambda: ring_of_z(cloud(50), np.arange(50)), 'two or more of a class; got 0'),
    (lambda: ring_of_z(cloud(50), np.arange(40)), 'one label for each')])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_p_of_a_fit():
    r,S = np.linspace(0, .9, 8),.1**2*np.eye(8)
    v = 1-r**2+.1*rng(0, 'p').standard_normal(8)
    known,few,unknown = (fit_profile(r, v, c, n) for c,n in ((S,None),(S,6),(None,None)))
    f = known['sombrero']
    assert f.df==5 and math.isclose(f.p, stats.chi2.sf(f.chi2, 5))
    t2 = few['sombrero']
    assert math.isclose(t2.p, stats.f.sf(t2.chi2*1/5/5, 5, 1)) and math.isnan(few['constant'].p)   # q=7, G=6
    assert unknown.good.best is None and math.isnan(unknown.good.p)
    assert known.good.p==max(f.p for f in known.values())
    assert math.isnan(fit_profile(r[:3], v[:3], S[:3,:3])['sombrero'].p)                        # no df

def test_of_equal_p_the_lowest_chi2_per_df_is_best():
    two = Fits(a=Fit('a', {}, 9e5, 0, 3, 0.), b=Fit('b', {}, 8e5, 0, 3, 0.))
    assert two.good.best=='b'

def test_without_the_border():
    flat = maps(lambda r: r*0+1, 7)
    whole,off = sombrero_test(flat, n_boot=20),sombrero_test(flat, n_boot=20, border=False)
    assert math.isclose(whole.last_ring, 6/7) and math.isclose(off.last_ring, 2*math.sqrt(8)/7)
    assert off.profile.inside.sum()==whole.profile.inside.sum()-1==6 and off.fits['sombrero'].df==3
    for t in (whole,off): assert t.fit.p>.01

def test_brims():
    flat,bowl = brim_test(torch.full((20,7,7), 1/49)),brim_test(maps(lambda r: 1+r**2))
    assert math.isnan(flat.brim.value) and flat.crown.value==0
    assert math.isnan(bowl.brim.value) and bowl.crown.hi<0 and bowl.brim[1:3]==(-math.inf,math.inf)
    m = maps(lambda r: 1.6+(5*r).cos())
    one,turned = brim_test(m),brim_test(m.rot90(1, (1,2)))
    np.testing.assert_allclose(one.brim, turned.brim)                 # rings forget the direction
    twice = brim_test(torch.cat([m, m, m[:1]*math.nan]), [*range(100)]*2+[0])
    np.testing.assert_allclose(one.brim, twice.brim)
    assert twice.left_out==1 and .6<one.low<.65 and math.isclose(one.outer, 9*math.sqrt(2)/14)

def test_ring_of_z_is_affine_and_leaves_out_what_it_cannot_use():
    z = np.exp(1j*np.linspace(0, 60, 400))+.4*cloud(400)
    a = ring_of_z(z, draws=50)
    b = ring_of_z(3-2j+5*z.real+1j*(z.imag-2*z.real), draws=50)       # up to a bin's rounding
    np.testing.assert_allclose(a.ratio, b.ratio, rtol=.02)
    gone = ring_of_z([*z, math.nan, 7], [0]*401+[1], draws=50)        # one NaN, one class of one picture
    assert gone.n==400 and np.allclose(gone.ratio, a.ratio)

def test_classes_of_unequal_spread_are_no_ring():
    y = np.arange(3000)%100
    o = ring_of_z(5*cloud(100, 1)[y]+np.exp(.4*cloud(100, 2).real)[y]*cloud(3000), y, draws=99)
    assert o.p>.05 and o.ratio.lo<=1

def test_ten_thousand_pictures_take_seconds():
    t = time.process_time()
    ring_of_z(cloud(10_000))
    assert time.process_time()-t<30
