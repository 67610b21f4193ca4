"The angle and the bias of classes: against plain numpy on the maps of real architectures, and odd data"
import math
import numpy as np, pytest, torch
from u1nb.angle import AngleClassifier, class_bias, equivariance_error, omega2_difference, order_parameter, picture_z
from u1nb.angle import class_directions, class_vectors, plot_class_maps, plot_directions, plot_planted, plot_resultants
from u1nb.angle import ring_p, without_scene
from u1nb.circle import Units, circ_corr, columns, phasor
from u1nb.core import Results, generator, rng
from u1nb.data import images, planted
from u1nb.energy import InputEnergy, energy_density
from u1nb.extract import Collect, observe
from u1nb.models import bottlenecks, calibrate_bn, pretrained, random_twin

NETS = [('resnet18',(96,96)), ('timm/tf_efficientnet_lite0',(96,128))]

@pytest.fixture(scope='module', params=NETS, ids=lambda p: p[0])
def seen(request):
    "Maps of a network's layers from plain hooks, and what an observer says of the same pictures"
    name,size = request.param
    net,_ = pretrained(name, weights=None)
    net = calibrate_bn(net, torch.randn(16, 3, *size, generator=generator(1)))
    x,y = torch.randn(40, 3, *size, generator=generator(0, name)), torch.arange(40)%4
    layers,maps = bottlenecks(net, size)[-2:], {}
    def keep(key): return lambda m,i,o: maps.setdefault(key, o.detach().clone())
    hooks = [net.get_submodule(l.name).register_forward_hook(keep(l.key)) for l in layers]
    with torch.no_grad(): net(x)
    for h in hooks: h.remove()
    angle = Collect(z=picture_z, centroid=lambda a: order_parameter(energy_density(a), 'centroid'))
    class Data:
        def __len__(self): return len(x)
        def __getitem__(self, i): return x[i],int(y[i])
    observe(net, Data(), layers, angle, batch_size=7)
    return layers,{k:v.double().numpy() for k,v in maps.items()},y.numpy(),angle

def test_order_parameter(seen):
    layers,maps,y,angle = seen
    for l in layers:
        E = (maps[l.key]**2).sum(1)
        p = E/E.sum((1,2), keepdims=True)
        H,W = E.shape[1:]
        X,Y = np.meshgrid((2*np.arange(W)+1)/W-1, 1-(2*np.arange(H)+1)/H)
        phase = np.where(np.hypot(X, Y)>1e-12, np.exp(1j*np.arctan2(Y, X)), 0)
        np.testing.assert_allclose(angle.z[l.key], (p*phase).sum((1,2)), atol=2e-5)
        np.testing.assert_allclose(angle.centroid[l.key], (p*(X+1j*Y)).sum((1,2)), atol=2e-5)
        assert np.array_equal(angle.labels, y)

def test_bias(seen):
    layers,_,y,angle = seen
    z = angle.z[layers[-1].key]
    b = class_bias(z, y, n_perm=99)
    u,K,N = z/abs(z),4,len(z)
    T = sum(abs(u[y==k].sum())**2/(y==k).sum() for k in range(K))
    ssb = sum((y==k).sum()*abs(z[y==k].mean()-z.mean())**2 for k in range(K))
    sst = (abs(z-z.mean())**2).sum()
    msw = (sst-ssb)/(N-K)
    want = [T, ssb/sst, (ssb-(K-1)*msw)/(sst+msw)]
    np.testing.assert_allclose([b.T,b.eta2,b.omega2_interval.value], want, rtol=1e-9)

def test_intervals_of_classes():
    "θ's interval covers a true direction of 40°, and that of R̄ holds 0 where there is none, 95 times in 100"
    r,hit,zero = rng(2),0,0
    lab = np.repeat([0,1], 25)
    for _ in range(200):
        u = Units(np.exp(1j*np.where(lab, r.uniform(-np.pi, np.pi, 50), r.vonmises(math.radians(40), 1.5, 50))), lab)
        d = class_directions(*class_vectors(u, columns(phasor(u.z))))
        hit += d['theta_lo'][0]<=math.radians(40)<=d['theta_hi'][0]
        zero += d['R_lo'][1]==0
    assert hit>=180 and zero>=180

compass = np.exp(2j*np.pi*np.arange(8)/8)

def planted_z(means, n, noise=.5, seed=0):
    lab,r = np.repeat(np.arange(len(means)), n), rng(seed, 'planted z')
    return np.asarray(means)[lab]+noise*(r.standard_normal((len(lab),2))@[1,1j]), lab

def test_classes_of_few_pictures():
    "Classes of one picture have no interval; one picture a class leaves nothing to compare classes by"
    b = class_bias(*planted_z(compass, [1,1,2,2,3,9,9,9]), n_perm=99)
    assert b.classes.p.isna().tolist()==[True]*4+[False]*4
    assert b.classes.R_lo.isna().tolist()==[True]*2+[False]*6 and 0<b.omega2_interval.value<=1
    none = class_bias(compass, np.arange(8), n_perm=99)
    assert (none.p, none.p_second, none.symmetry)==(1, 1, 'none')
    assert math.isnan(none.omega2_interval.value) and math.isnan(none.p_heterogeneity)

def test_pictures_on_a_line_are_no_angle():
    z,lab = planted_z(np.linspace(-1, 1, 5), 20)
    b = class_bias(z.real+0j, lab, n_perm=199)
    assert b.p_second==1 and b.symmetry=='left/right' and b.axis==pytest.approx(0, abs=1e-6)

def test_pictures_without_angle_are_left_out():
    z,lab = planted_z(.4*compass, 10)
    z[:3] = [0, np.nan, 1e-9]
    a,b = class_bias(z, lab, n_perm=299), class_bias(z[3:], lab[3:], n_perm=299)
    assert (a.undefined, a.pictures, a.T, a.p)==(3, 77, b.T, b.p)

def test_threads_do_not_change_numbers():
    z,lab = planted_z(.1*compass, 200)
    before,found = torch.get_num_threads(),[]
    for n in (1,2):
        torch.set_num_threads(n)
        found.append(class_bias(z, lab, n_perm=999))
    torch.set_num_threads(before)
    assert found[0].classes.equals(found[1].classes) and found[0].p_second==found[1].p_second

def test_refusals():
    z,lab = planted_z(compass, 3)
    fitted = AngleClassifier().fit(z, lab)
    refused = {'at least 2 classes':lambda: class_bias(z, 0*lab), 'none of the 24':lambda: class_bias(0*z, lab),
               'one label':lambda: class_bias(z, lab, groups=[1,2]), 'shape':lambda: class_bias(z, lab[1:]),
               'n_perm':lambda: class_bias(z, lab, n_perm=0), 'as z is':lambda: omega2_difference(z, z[1:], lab),
               'mirrored':lambda: equivariance_error(z, z, 'turned'),
               'both ways':lambda: equivariance_error(z, 0*z, 'mirrored'), 'xy':lambda: AngleClassifier('z'),
               '3 pictures':lambda: AngleClassifier().fit(z[::3], lab[::3]),
               'per class':lambda: fitted.combine(z, np.ones((24,2)))}
    for what,call in refused.items():
        with pytest.raises(ValueError, match=what): call()

def test_classes_of_few_pictures_borrow_a_spread():
    z,lab = planted_z(3*compass[:3], [30,30,2])
    for kind in ('theta','x','y','xy'):
        c = AngleClassifier(kind).fit(np.append(z, 0), np.append(lab, 7))                  # a class without any angle
        assert np.isfinite(c.log_likelihood(z)).all() and c.classes.tolist()==[0,1,2,7]

def test_ring_p_is_the_share_of_turns():
    "One scene: 2 ways × 8 turns, of which one is as it was measured"
    th = np.angle(np.exp(2j*np.pi*np.arange(8)/8))
    near = th+rng(0).normal(0, .2, 8)
    assert ring_p(th, near, np.zeros(8), 9999)==1                      # a turned ring correlates as well
    scenes,both = np.repeat([0,1], 8), np.tile(th, 2)
    p = ring_p(both, both+rng(1).normal(0, .2, 16), scenes, 9999)
    assert .05<p<.2                                                    # about 2 of 16 agree with each other
    assert ring_p(both, np.where(np.arange(16)==3, np.nan, both), scenes, 999)<.2
    assert abs(circ_corr(both, both, n_perm=9).rho-1)<1e-9

def test_without_scene():
    "Each scene's mean is gone, one that is all NaN stays so, and the given z is not changed"
    z = np.append(np.tile(.1*compass, 2)+np.repeat([1, -2j], 8), [np.nan, np.nan])
    given,g = z.copy(),np.repeat(['a','b','c'], [8,8,2])
    z[3] = np.nan
    own = without_scene(z, g)
    assert np.nanmean(own[:8])==pytest.approx(0) and np.isnan(own[[3,16,17]]).all()
    np.testing.assert_allclose(own[8:16], .1*compass, atol=1e-12)
    np.testing.assert_array_equal(np.delete(z, 3), np.delete(given, 3))

def test_the_angle_follows_a_subject_of_half_contrast():
    "On scrambled phases a trained network follows, where the gradient and a random network do not"
    ds = planted(8, ground='scrambled', contrast=.5)
    net,tfm = pretrained('mobilenet_v2')
    def rho(net, layer='features'):
        z = observe(net, ds, layer, Collect(z=picture_z), transform=tfm).z[layer]
        return circ_corr(ds.theta, np.angle(without_scene(z, ds.groups)), ds.groups, n_perm=9).rho
    other = calibrate_bn(random_twin(net, 1), images('photos', n=14), tfm)
    assert rho(net)>.9 and abs(rho(other))<.5
    assert abs(rho(InputEnergy((.485,.456,.406), (.229,.224,.225), 7), 'gradient'))<.5

def test_figures_take_rows(pytestconfig):
    "Plot functions take what `class_bias` returned, its table, and what rows store of it"
    import matplotlib.pyplot as plt
    rows = Results.load(pytestconfig.rootpath/'nbs/results/51_pretrained_angle')
    row = next(r for r in rows if r.get('class_class') and r['data']=='digits')
    b = class_bias(*planted_z(.4*compass, 10), n_perm=99)
    for classes,K in ((b,8),(b.classes,8),(row,10)):
        for plot in (plot_directions, plot_resultants): assert len(plot(classes).texts)<=K
        plot_class_maps(np.ones((K,7,7))/49, classes)
        with pytest.raises(ValueError, match='maps'): plot_class_maps(np.ones((3,7,7)), classes)
    shown = next(r for r in rows if r.get('planted'))
    plot_planted(shown['planted'], shown['measured'], shown['scenes'])
    plt.close('all')
