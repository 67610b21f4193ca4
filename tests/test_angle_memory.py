"Angles, their tests and the memory against plain numpy, on the maps of real architectures"
import math
import numpy as np, pytest, torch
from u1nb.circle import circ_corr
from u1nb.angle import class_bias, order_parameter, picture_z
from u1nb.core import generator, rng
from u1nb.energy import energy_density
from u1nb.extract import Collect, observe
from u1nb.memory import Memory
from u1nb.models import bottlenecks, calibrate_bn, pretrained

@pytest.fixture(scope='module', params=[('resnet18',(96,96)), ('timm/tf_efficientnet_lite0',(96,128))], ids=lambda p: p[0])
def seen(request):
    "Maps of a network's layers from plain hooks, and what the observers say of the same pictures"
    name,size = request.param
    net,_ = pretrained(name, weights=None)
    net = calibrate_bn(net, torch.randn(16, 3, *size, generator=generator(1)))
    x,y = torch.randn(40, 3, *size, generator=generator(0, name)),torch.arange(40)%4
    layers = bottlenecks(net, size)[-2:]
    maps,hs = {},[net.get_submodule(l.name).register_forward_hook(lambda m,i,o,k=l.key: maps.setdefault(k, o.detach().clone())) for l in layers]
    with torch.no_grad(): net(x)
    for h in hs: h.remove()
    angle,mems = Collect(z=picture_z, centroid=lambda a: order_parameter(energy_density(a), 'centroid')),{l.key:Memory(layer=l.key) for l in layers}
    class Data:
        def __len__(self): return len(x)
        def __getitem__(self, i): return x[i],int(y[i])
    observe(net, Data(), layers, [angle,*mems.values()], batch_size=7)
    return layers,{k:v.double().numpy() for k,v in maps.items()},y.numpy(),angle,mems

def test_order_parameter(seen):
    layers,maps,y,angle,_ = seen
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
    layers,_,y,angle,_ = seen
    z = angle.z[layers[-1].key]
    b = class_bias(z, y, n_perm=99)
    u,K,N = z/abs(z),4,len(z)
    T = sum(abs(u[y==k].sum())**2/(y==k).sum() for k in range(K))
    ssb = sum((y==k).sum()*abs(z[y==k].mean()-z.mean())**2 for k in range(K))
    sst = (abs(z-z.mean())**2).sum()
    msw = (sst-ssb)/(N-K)
    np.testing.assert_allclose([b.T,b.eta2,b.omega2], [T,ssb/sst,(ssb-(K-1)*msw)/(sst+msw)], rtol=1e-9)

def test_fisher_lee():
    g = rng(0, 'pairs')
    a,b = g.uniform(-math.pi, math.pi, (2,60))
    s,t = (np.sin(o[:,None]-o) for o in (a,b))
    want = (s*t).sum()/math.sqrt((s**2).sum()*(t**2).sum())
    assert circ_corr(a, b, n_perm=9).rho==pytest.approx(want, abs=1e-12)

def test_votes(seen):
    layers,maps,y,_,mems = seen
    for l in layers:
        a = torch.from_numpy(maps[l.key])
        pooled = torch.nn.functional.adaptive_avg_pool2d(a, [min(o, 7) for o in a.shape[2:]]).mean((2,3))     # of 7×7 sites at most
        v = pooled.numpy().copy()
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        s = v@v.T
        np.fill_diagonal(s, -np.inf)                       # each picture is in the memory, and does not vote for itself
        near = np.argsort(-s, 1)[:,:10]
        want = np.array([[np.exp(s[i,near[i]]/.07)[y[near[i]]==k].sum() for k in range(4)] for i in range(len(y))])
        got = mems[l.key].votes(pooled)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-3)

def test_sites(seen):
    "Each site against the same site, maps wider than 7 averaged to 7"
    layers,maps,y,*_ = seen
    a = maps[layers[-1].key]
    m = Memory('site', k=5).add(torch.from_numpy(a[:30]), y[:30])
    acc = m.accuracy_map(torch.from_numpy(a[30:]), y[30:])
    H,W = a.shape[2:]
    assert max(H, W)<=7 and tuple(acc.whole.shape)==(H,W)
    v = a/np.linalg.norm(a, axis=1, keepdims=True)
    for i in range(H):
        for j in range(W):
            s = v[30:,:,i,j]@v[:30,:,i,j].T
            near = np.argsort(-s, 1)[:,:5]
            votes = np.array([[np.exp(s[q,near[q]]/.07)[y[near[q]]==k].sum() for k in range(4)] for q in range(len(s))])
            assert float(acc.whole[i,j])==pytest.approx((votes.argmax(1)==y[30:]).mean())
