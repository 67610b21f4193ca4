"Statistics on the circle: against brute force, and the level of the tests"
import math
import numpy as np, pytest
from u1nb.circle import Units, circ_corr, direction_tests, halves_correlation, omega2_jackknife, permutation_tests, split_halves, theta
from u1nb.core import rng

gauss = lambda r,n: r.standard_normal((n,2))@[1,1j]
of = lambda n: np.repeat(np.arange(len(n)), n)

def pairs(a, b, lab):
    i,j = np.triu_indices(len(a), 1)
    k = lab[i]==lab[j]
    x,y = np.sin(a[i]-a[j])[k], np.sin(b[i]-b[j])[k]
    return (x*y).sum()/math.sqrt((x*x).sum()*(y*y).sum())

def test_fisher_lee():
    r = rng(1)
    a = r.uniform(-np.pi, np.pi, 60)
    b,lab = a+r.vonmises(0, 1.5, 60), np.arange(60)%3
    assert circ_corr(a, b, n_perm=9).rho==pytest.approx(pairs(a, b, 0*lab), abs=1e-12)
    assert circ_corr(a, b, labels=lab, n_perm=9).rho==pytest.approx(pairs(a, b, lab), abs=1e-12)

def test_constant_angles_have_no_correlation():
    c = circ_corr(np.ones(5), np.arange(5.), n_perm=9)
    assert math.isnan(c.rho) and math.isnan(c.p)

def test_refusals():
    with pytest.raises(ValueError, match='shapes'): circ_corr([1,2], [1])
    with pytest.raises(ValueError, match='at least 2 pairs'): circ_corr([1,np.nan], [1,1])
    with pytest.raises(ValueError, match='one label'): Units([1,1j], [0,1], [1])

def brute_omega2(z, lab, gid):
    u = Units(z, lab, gid)
    m,n = u.means(u.z), u.counts
    k = u.unit_class
    ssb = sum(n[i]*abs(m[k==i].mean()-m.mean())**2 for i in range(u.K))
    sst = (abs(m-m.mean())**2).sum()
    msw = (sst-ssb)/(len(m)-u.K)
    return (ssb-(u.K-1)*msw)/(sst+msw)

GROUPS = dict(pictures=np.arange(36), views=np.arange(36)//3, scenes=np.tile(np.arange(9), 4))

@pytest.mark.parametrize('gid', GROUPS.values(), ids=list(GROUPS))
def test_omega2_jackknife(gid):
    "Everything anew without each group"
    lab = np.repeat(np.arange(4), 9)
    z = gauss(rng(5), 36)+.5*lab
    u = Units(z, lab, gid)
    value,without = omega2_jackknife(u, u.z)
    assert value==pytest.approx(brute_omega2(z, lab, gid), abs=1e-9)
    for g,v in enumerate(without): assert v==pytest.approx(brute_omega2(z[gid!=g], lab[gid!=g], gid[gid!=g]), abs=1e-9)

def brute_halves(v, u, half, drop=None):
    keep,out = np.ones(len(v), bool) if drop is None else u.gid!=drop, []
    for h in half[:,u.cell]:
        ks = [k for k in range(u.K) if (keep&(u.lab==k)&h).any() and (keep&(u.lab==k)&~h).any()]
        a,b = (np.array([v[keep&(u.lab==k)&(h==i)].mean() for k in ks]) for i in (0,1))
        a,b = a-a.mean(), b-b.mean()
        out.append((a*b.conj()).real.sum()/np.sqrt((abs(a)**2).sum()*(abs(b)**2).sum()))
    return np.mean(out)

HALVES = dict(pictures=np.arange(40), views=np.arange(40)//2, scenes=np.tile(np.arange(8), 5), mixed=np.r_[[0]*6,:34])

@pytest.mark.parametrize('gid', HALVES.values(), ids=list(HALVES))
def test_split_halves(gid):
    "Everything anew without each group, for x and for the plane"
    lab = np.repeat(np.arange(5), 8)
    u = Units(gauss(rng(8), 40)+lab, lab, gid)
    half = split_halves(u, 5, 0)
    for v in (u.z.real, u.z):
        value,without = halves_correlation(u, v, half)
        assert value==pytest.approx(brute_halves(v, u, half), abs=1e-9)
        for g in range(4): assert without[g]==pytest.approx(brute_halves(v, u, half, g), abs=1e-9)

def test_a_class_goes_with_its_last_group():
    u = Units(gauss(rng(3), 20), of([1,2,3,6,8]))
    half = split_halves(u, 20, 0)
    value,without = halves_correlation(u, u.z, half)
    assert value==pytest.approx(brute_halves(u.z, u, half), abs=1e-9)
    for g in range(3): assert without[g]==pytest.approx(brute_halves(u.z, u, half, g), abs=1e-9)

def toward(r, n, kappa): return np.exp(1j*r.vonmises(1, np.repeat(kappa, n))), of(n), None

def skewed(r, K, n):
    "Exponential angles, whose mean direction is known"
    s = r.uniform(.7, 1.6, (K,1))
    return np.exp(1j*(r.exponential(s, (K,n))-np.arctan(s))).ravel(), of([n]*K), None

def views(r):
    g = np.repeat(np.arange(48), r.integers(1, 5, 48))
    return gauss(r, 48)[g]+.5*gauss(r, len(g)), (np.arange(48)//8)[g], g

def scenes(r):
    g = np.repeat(np.arange(20), 6)
    return gauss(r, 20)[g]+gauss(r, 120), np.tile(np.arange(6), 20), g

def on_a_line(r, n, scatter):
    return gauss(r, sum(n))*np.repeat(scatter, n)+np.repeat(np.linspace(-1, 1, 8), n)*np.exp(.5j), of(n), None

UNEQUAL,ALL = [4,5,7,9,12,17,26,40],('T','T_centred','T_x','T_y','T_2','heterogeneity','eta2','second')
NULLS = {'uniform, equal sizes':(lambda r: (gauss(r, 120), of([15]*8), None), ALL),
         'uniform, unequal sizes':(lambda r: (gauss(r, 120), of(UNEQUAL), None), ALL),
         'uniform, views in groups':(views, ALL), 'uniform, classes within scenes':(scenes, ALL),
         'common direction, κ=1':(lambda r: toward(r, [15]*8, [1]*8), ALL),
         'common direction, κ=4, unequal sizes':(lambda r: toward(r, UNEQUAL, [4]*8), ALL[5:6]),
         'common direction, κ of .3 to 4':(lambda r: toward(r, r.integers(10, 61, 10), r.uniform(.3, 4, 10)), ALL[5:6]),
         'common direction, half without, small classes':(lambda r: toward(r, [6]*40, [1e-9,4]*20), ALL[5:6]),
         'common direction, skewed':(lambda r: skewed(r, 40, 30), ALL[5:6]),
         'common direction, κ=.5 and 4':(lambda r: toward(r, [20]*8, [.5,4]*4), ALL[5:6]),
         'means on a line':(lambda r: on_a_line(r, [20]*8, [1]*8), ALL[7:]),
         'means on a line, small classes wider':(lambda r: on_a_line(r, [15,40]*4, [2,1]*4), ALL[7:])}

@pytest.mark.parametrize('name', NULLS)
def test_level(name):
    "Of 200 draws without the effect, a test at .05 rejects 5 %, give or take three standard errors"
    draw,tests = NULLS[name]
    ps = [permutation_tests(Units(*draw(rng(11, i))), 99, i)[1] for i in range(200)]
    for t in tests:
        rate = np.mean([p[t]<=.05 for p in ps])
        assert rate<=.05+3*math.sqrt(.05*.95/200), t
        assert t in ('second','heterogeneity') or rate>=.01, t      # these may be cautious without classes

@pytest.mark.parametrize('groups', ['pictures','views','scenes'])
def test_directions_are_found(groups):
    "Classes that point apart, or two of ten the other way, and the classes that do"
    r,lab = rng(14),of([60]*10)
    g = dict(pictures=None, views=np.arange(600)//3, scenes=np.tile(np.arange(60), 10))[groups]
    for mu,odd in ((np.arange(10)*.3, 0), (np.pi*(np.arange(10)<2), 2)):
        d = direction_tests(Units(gauss(r, 600)+np.exp(1j*mu)[lab], lab, g), 999, 0)
        assert d.p==.001 and (not odd or (d.p_own<.01).tolist()==[True]*2+[False]*8)

def test_directions_of_small_classes():
    "1 or 2 units have no variance; one class has nobody to share with"
    d = direction_tests(Units(gauss(rng(1), 11), of([1,2,3,5])), 99, 0)
    assert np.isnan(d.p_own).tolist()==[True,True,False,False] and 0<d.p<=1
    d = direction_tests(Units(gauss(rng(1), 5), of([2,3])), 99, 0)
    assert math.isnan(d.H) and math.isnan(d.p) and np.isnan(d.p_own).all()
    d = direction_tests(Units(np.ones(8), of([4,4])), 99, 0)
    assert d.H==0 and d.p==1

@pytest.mark.parametrize('how', ['pairs','within classes','groups'])
def test_level_of_circ_corr(how):
    def p(i):
        r = rng(12, i)
        a,b = r.uniform(-np.pi, np.pi, (2,60))
        if how=='pairs': return circ_corr(a, b, n_perm=99, seed=i).p
        g = np.arange(60)//3
        if how=='groups':
            a,b = a[g]+r.normal(0, .3, 60), b[g]+r.normal(0, .3, 60)
            return circ_corr(a, b, groups=g, n_perm=99, seed=i).p
        lab = np.arange(60)//10
        return circ_corr(a+3*lab, b+3*lab, labels=lab, n_perm=99, seed=i).p
    assert .01<=np.mean([p(i)<=.05 for i in range(200)])<=.05+3*math.sqrt(.05*.95/200)

def test_theta_of_tensors():
    import torch
    t = theta(torch.tensor([1j,0]))
    assert isinstance(t, torch.Tensor) and t[0].item()==pytest.approx(math.pi/2) and t[1].isnan()
