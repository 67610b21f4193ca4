"Energy and Sombrero: what they refuse, and cases that are tests and not lessons"
import math
import numpy as np, pytest, torch
from pandas.testing import assert_frame_equal
from scipy.optimize import curve_fit
from u1nb.core import Interval, generator, plane, rng, test_tensor as same
from u1nb.energy import EnergyMap, InputEnergy, beam_width, concentration, density, ee_radius, encircled_energy
from u1nb.energy import energy, energy_density, harmonics, plot_concentration, plot_map, radial_profile, rings
from u1nb.energy import ring_means, symmetry_test
from u1nb.rules import RULES, judge_cell
from u1nb.sombrero import Fit, fit_profile, plot_profile, shrunk_cov, sombrero_test

def spot(H, x=0., y=0., s=.25):
    pl = plane(H)
    return density((-((pl.x-x)**2+(pl.y-y)**2)/2/s**2).exp())

def noisy(shape, n, seed=0, sd=.3):
    "n maps around `shape` (H,W) with multiplicative noise"
    z = torch.randn(n, *shape.shape, generator=generator(seed, 'noisy'))
    return density(shape*(sd*z).exp())

def planted(f, H=14, n=400, seed=0): return noisy(density(f(plane(H).r)), n, seed)

ACTS = torch.randn(33, 20, 7, 7, generator=generator(0)).relu()
ACTS[5] = 0

def seen(acts=ACTS, keep='last', labels=None, index=None, layer='t'):
    obs = EnergyMap(keep)
    obs.update({layer:acts}, labels, index)
    return obs

# energy

@pytest.mark.parametrize('call,message', [
    (lambda: energy(torch.ones(7,7)), r'got torch.float32 of shape \(7, 7\)'),
    (lambda: energy(torch.ones(2,3,7,7).int()), 'got torch.int32'),
    (lambda: energy_density(torch.ones(3,7,7)), r'activations are \(B,C,H,W\); got shape \(3, 7, 7\)'),
    (lambda: density(torch.tensor([[1., math.inf]])), '0 negative or NaN and 1 infinite'),
    (lambda: density(torch.tensor([[1., math.nan]])), '1 negative or NaN and 0 infinite'),
    (lambda: encircled_energy(spot(7), torch.ones(2,2)), 'rho is a number'),
    (lambda: ee_radius(spot(7), 0), r'share is in \(0,1\]; got 0'),
    (lambda: rings(7, width=0), 'above 0; got 0'),
    (lambda: radial_profile(torch.ones(2,2,7,7)), r'maps are \(N,H,W\)'),
    (lambda: radial_profile(torch.ones(3,7,7), [1,2]), 'one label for each of the 3'),
    (lambda: symmetry_test(noisy(spot(7), 3)), '4 groups with energy are needed; got 3'),
    (lambda: InputEnergy(.5, .5, 4)(torch.ones(1,1,8,8)), r'x is \(B,3,H,W\); got \(1, 1, 8, 8\)'),
    (lambda: EnergyMap().mean(), 'nothing observed'),
    (lambda: EnergyMap().frame(), 'nothing observed'),
    (lambda: seen(keep=()).maps(), 'maps were not kept'),
    (lambda: seen().update({'t':ACTS[...,:5]}), r"layer 't': maps were \(7, 7\), now \(7, 5\)"),
    (lambda: seen(ACTS*math.nan), "layer 't': energy is finite and not negative"),
    (lambda: seen(ACTS[0]), r"layer 't': activations are \(B,C,H,W\)"),
    (lambda: seen(labels=[0,1]), "layer 't': 33 pictures with 2 labels and 33 indices")])
def test_energy_refuses(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_a_batch_that_is_refused_leaves_no_layer():
    obs = EnergyMap()
    with pytest.raises(ValueError): obs.update({'t':ACTS*math.nan})
    assert obs.layers==[]

def test_unknown_layers_are_told():
    with pytest.raises(KeyError, match="no layer 'u'; there are t"): seen().mean('u')

@pytest.mark.parametrize('scale', [1e-25, 1., 1e20])
def test_activations_of_any_size(scale):
    a = ACTS[:3]*scale
    same(energy_density(a), density(energy(a.double())), tol=1e-5)
    d = seen(a).frame()
    np.testing.assert_allclose(d.energy, a.double().square().sum((1,2,3)), rtol=1e-5)
    np.testing.assert_allclose(d.kappa, seen(ACTS[:3]).frame().kappa, rtol=1e-5)

def test_half_precision_and_one_loud_channel():
    a = ACTS[:3].clone(); a[:,0] *= 100
    assert (seen(a[:,:1]).frame().top10==1).all() and (seen(a).frame().top10>.99).all()
    same(energy(a.half()), energy(a.half().float()), tol=1e-6)

@pytest.mark.parametrize('deg,dx,dy', [(0,.8,.4), (30,.8,.4), (-20,.8,.4), (70,.4,.8), (90,.4,.8)])
def test_widths_of_a_turned_ellipse(deg, dx, dy):
    pl,c,s = plane(56),math.cos(math.radians(deg)),math.sin(math.radians(deg))
    w = beam_width(density((-((c*pl.x+s*pl.y)/.2)**2/2-((c*pl.y-s*pl.x)/.1)**2/2).exp()))
    np.testing.assert_allclose([w.x, w.y, w.ellipticity, w.azimuth.rad2deg()], [dx,dy,.5,deg], atol=.01)

def test_rings_are_at_their_radii():
    same(rings(7).r[:4]*3.5, torch.tensor([0,1,2**.5,2]).double(), tol=1e-7)
    assert rings(14, width=1/7).sites[:2].tolist()==[4,8]           # an even map has no site at the centre
    assert rings(5, 8).ids.shape==(5,8) and rings(5, 8).sites.sum()==40
    assert radial_profile(spot(7)).inside.sum()==7                  # of 10 rings the last three are corners

def test_a_uniform_map_has_no_harmonics():
    u = harmonics(torch.full((7,7), 1/49))
    assert u[:,0].isnan().all() and u.nan_to_num().max()<1e-12

def test_a_map_without_energy_stays_nan():
    p = density(torch.zeros(2,7,7))
    assert concentration(p, .5).isnan().all() and ee_radius(p).isnan().all()
    assert radial_profile(torch.cat([p, spot(7)[None]])).left_out==2

def test_symmetries_of_a_rectangle():
    t = symmetry_test(noisy(spot(14), 60)[:,:7], n_boot=50)
    assert list(t.shares)==['mirror x','mirror y','half turn'] and '60 groups' in repr(t)

def test_uniform_noise_has_no_deviation():
    "An interval of 95 % holds 0 in nearly all runs"
    held = [symmetry_test(noisy(torch.ones(7,7), 40, seed=s), n_boot=200, seed=s).deviation for s in range(20)]
    assert sum(i.lo<=0 for i in held)>=17

# the observer

def test_batches_in_any_order_and_labels():
    whole,lab = seen(labels=torch.arange(33)%2),torch.arange(33)%2
    obs = EnergyMap('last')
    for i in torch.arange(33).split(10)[::-1]: obs.update({'t':ACTS[i]}, lab[i], i)
    same(obs.mean(), density(energy(ACTS))[torch.arange(33)!=5].mean(0), tol=1e-6)
    same(obs.class_means(), whole.class_means(), tol=1e-12)
    same(obs.maps(), whole.maps(), tol=1e-12)
    assert_frame_equal(obs.frame(), whole.frame(), rtol=1e-6)
    assert obs.empty()==obs.frame().kappa.isna().sum()==1
    assert seen().class_means().shape==(0,7,7)                       # no labels
    assert seen(ACTS[5:6], labels=[3]).mean().isnan().all()

def test_states_load_and_merge():
    lab,layers = torch.arange(33)%3,{'a/b':ACTS, 't':2*ACTS[:,:3]}
    lab[:20] = lab[:20].clamp(max=1)                                  # class 2 comes late
    parts = [EnergyMap('last'),EnergyMap('last')]
    for o,i in zip(parts, (torch.arange(20, 33), torch.arange(20))):
        for n,a in layers.items(): o.update({n:a[i]}, lab[i], i)
    again = EnergyMap('last')
    again.load(parts[0].state()); again.merge(parts[1])
    for n,a in layers.items():
        whole = seen(a, labels=lab, layer=n)
        same(again.mean(n), whole.mean(), tol=1e-12)
        same(again.class_means(n), whole.class_means(), tol=1e-12)
        same(again.maps(n), whole.maps(), tol=1e-12)
        assert_frame_equal(again.frame(n), whole.frame(), rtol=1e-6)
    same(parts[0].mean('t'), seen(2*ACTS[20:,:3]).mean(), tol=1e-12)  # merging moved nothing in what was loaded from

# the input's own energy

def test_input_energy_changes_what_it_claims_and_nothing_else():
    mean,std = (torch.tensor(o).view(3,1,1) for o in ((.485,.456,.406), (.229,.224,.225)))
    inp,rgb = InputEnergy(mean.flatten(), std.flatten(), 4),torch.rand(1,3,32,32, generator=generator(0, 'rgb'))
    p = density(energy(inp((rgb-mean)/std)))
    same(density(energy(inp((rgb/2-mean)/std))), p, tol=1e-5)                            # exposure
    same(density(energy(InputEnergy(.5, .5, 4)((rgb-.5)/.5))), p, tol=1e-5)              # normalisation
    same(density(energy(inp((rgb.flip(3)-mean)/std))), p.flip(2), tol=1e-5)              # a mirrored picture
    square = torch.zeros(1,3,32,32); square[...,8:16,16:24] = .8
    g = sum(o.square() for o in torch.gradient(square[0,0]))
    same(inp((square-mean)/std)[0,1].square().mean(), g.mean(), tol=1e-5)

# the Sombrero

@pytest.mark.parametrize('call,message', [
    (lambda: fit_profile([0,1,2], [1,2]), r'R ≥ 3; got \(3,\), \(2,\)'),
    (lambda: fit_profile([0,1], [1,2]), 'R ≥ 3'),
    (lambda: fit_profile([0,1,2,3], [1,2,3,4], np.ones((4,4))), 'cov is singular'),
    (lambda: fit_profile([0,1,2,3], [1,2,3,4], np.zeros(4)), 'cov is singular'),
    (lambda: sombrero_test(planted(lambda r: 2-r, 3)), '4 whole rings are needed, as 5×5 maps have; got 2')])
@pytest.mark.filterwarnings('ignore:invalid value')
def test_sombrero_refuses(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_fits_against_scipy_and_the_textbook():
    r,S = rings(14).r[:16].numpy(),.02**2*(.5*np.eye(16)+.5)
    v = Fit('gaussian', dict(a=.2, b=1, s=.3), 0, 0).predict(r) + rng(0, 'fit').multivariate_normal(np.zeros(16), S)
    fits = fit_profile(r, v, S)
    ref,_ = curve_fit(lambda r,a,b,s: a+b*np.exp(-r**2/2/s**2), r, v, (0,1,.5), sigma=S, absolute_sigma=True)
    np.testing.assert_allclose(list(fits['gaussian'].params.values()), ref, rtol=1e-4)
    X,Si = np.stack([r**0,-r**2,r**4], 1),np.linalg.inv(S)
    book = np.linalg.solve(X.T@Si@X, X.T@Si@v)
    np.testing.assert_allclose(list(fits['sombrero'].params.values())[:3], book, rtol=1e-7)
    np.testing.assert_allclose(fit_profile(r, v, np.diag(S))['sombrero'].params['mu2'],
                               fit_profile(r, v)['sombrero'].params['mu2'], rtol=1e-7)       # equal variances
    few = fit_profile(r[:4], v[:4], S[:4,:4])
    assert math.isnan(few['sombrero'].aicc) and few.best in ('constant',None)

def test_covariance_with_few_groups():
    views,g = noisy(spot(7, s=.5), 22),np.repeat(np.arange(5), 5)[:22]
    few = ring_means(views)
    np.testing.assert_allclose(np.sqrt(np.diag(shrunk_cov(few, g))), radial_profile(views, g).se, rtol=1e-9)
    assert np.linalg.cond(shrunk_cov(few, g))<1e4 and np.linalg.cond(shrunk_cov(views[[0,5]].flatten(1)[:,:7]))<1e6

def verdict(t):
    "What the rule of C3 says of the numbers of a test"
    score = {f'score.minus_{k}':v for k,v in t.scores.items()}
    given = dict(mu2=t.mu2, lam=t.lam, r_v=t.r_v, rise=t.rise, rise_measured=t.rise_measured, **score)
    rows = [dict(i._asdict(), key=k, control='given', last_ring=t.last_ring, pitch=t.pitch) for k,i in given.items()]
    return judge_cell(rows, RULES['C3','first']).verdict

def hat(r): return (1.5-2*.55**2*4*r**2+4*r**4).clamp(max=3)          # μ²=2λ·r_v²

@pytest.mark.parametrize('f,H,expected', [
    (hat, 14, ['supported']),
    (lambda r: .3+(-r**2/2/.3**2).exp(), 14, ['crown without brim']),
    (lambda r: 2-r**2+.2*r**4, 14, ['crown without brim']),           # a parabola that only falls
    (lambda r: r*0+1, 7, ['inconclusive','not supported']),           # flat
    (lambda r: 1+r**2, 7, ['not supported']),                         # a bowl
    (lambda r: 1.1-2*.4**2*8*r**2+8*r**4, 7, ['supported']),          # on 7×7 a minimum must lie within 0.57
    (lambda r: 1.6+(r*5).cos(), 14, ['not supported'])])
def test_planted_profiles(f, H, expected):
    assert verdict(sombrero_test(planted(f, H, n=2000 if H==14 else 400), n_boot=300)) in expected

def test_flat_maps_are_no_sombreros():
    said = [verdict(sombrero_test(planted(lambda r: r*0+1, 7, n=40, seed=s), n_boot=200, seed=s)) for s in range(20)]
    assert 'supported' not in said
    assert verdict(sombrero_test(torch.full((20,7,7), 1/49)))=='not supported'

# figures

def test_a_profile_is_drawn_from_a_row():
    t = sombrero_test(planted(hat, 7), n_boot=50)
    assert list(t.curves)==['sombrero','constant','gaussian','lorentzian','cosine']
    np.testing.assert_allclose(t.curves['sombrero'], t.fits['sombrero'].predict(t.profile.r))
    row = {k:getattr(t.profile, k).tolist() for k in ('r','mean','se','inside')}
    one = np.ones((7,7)).tolist()
    for more,label in (({}, 'per site'), (dict(map=one), 'uniform'), (dict(sites=[49]), 'uniform')):
        ax = plot_profile(row|more, t.curves)
        assert label in ax.get_ylabel() and ax.get_legend() is not None
    assert plot_profile(t.profile).get_ylabel()==plot_profile(t.profile, t.fits).get_ylabel()=='density / uniform'

def test_layers_are_drawn_from_intervals_and_rows():
    v = {'a':Interval(1.5, 1.4, 1.6, .05, 9), 'a long name':dict(value=1.2, lo=None, hi=None)}
    ax = plot_concentration(v, label='x')
    assert [t.get_text() for t in ax.get_xticklabels()]==list(v)
    assert plot_map(torch.full((5,8), 1/40)).get_xlabel()=='x'
