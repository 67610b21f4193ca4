"The memory against plain numpy, on the maps of real architectures"
import numpy as np, pytest, torch
from u1nb.core import generator
from u1nb.extract import observe
from u1nb.memory import Memory
from u1nb.models import bottlenecks, calibrate_bn, pretrained

NETS = [('resnet18',(96,96)), ('timm/tf_efficientnet_lite0',(96,128))]

@pytest.fixture(scope='module', params=NETS, ids=lambda p: p[0])
def seen(request):
    "Maps of a network's layers from plain hooks, and memories of the same pictures"
    name,size = request.param
    net,_ = pretrained(name, weights=None)
    net = calibrate_bn(net, torch.randn(16, 3, *size, generator=generator(1)))
    x,y = torch.randn(40, 3, *size, generator=generator(0, name)),torch.arange(40)%4
    layers = bottlenecks(net, size)[-2:]
    maps = {}
    def keep(key): return lambda m,i,o: maps.setdefault(key, o.detach().clone())
    hs = [net.get_submodule(l.name).register_forward_hook(keep(l.key)) for l in layers]
    with torch.no_grad(): net(x)
    for h in hs: h.remove()
    mems = {l.key:Memory(layer=l.key) for l in layers}
    class Data:
        def __len__(self): return len(x)
        def __getitem__(self, i): return x[i],int(y[i])
    observe(net, Data(), layers, [*mems.values()], batch_size=7)
    return layers,{k:v.double().numpy() for k,v in maps.items()},y.numpy(),mems

def test_votes(seen):
    layers,maps,y,mems = seen
    for l in layers:
        a = torch.from_numpy(maps[l.key])
        sites = [min(o, 7) for o in a.shape[2:]]                               # 7×7 at most
        pooled = torch.nn.functional.adaptive_avg_pool2d(a, sites).mean((2,3))
        v = pooled.numpy().copy()
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        s = v@v.T
        np.fill_diagonal(s, -np.inf)                       # each picture is in the memory, and does not vote for itself
        near = np.argsort(-s, 1)[:,:10]
        want = np.array([[np.exp(s[i,near[i]]/.07)[y[near[i]]==k].sum() for k in range(4)] for i in range(len(y))])
        got = mems[l.key].votes(pooled, ids=range(len(y)))
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-3)

def test_sites(seen):
    "Each site against the same site, maps wider than 7 averaged to 7"
    layers,maps,y,_ = seen
    a = maps[layers[-1].key]
    m = Memory('site', k=5).add(torch.from_numpy(a[:30]), y[:30])
    acc = m.score(torch.from_numpy(a[30:]), y[30:]).map
    H,W = a.shape[2:]
    assert max(H, W)<=7 and tuple(acc.whole.shape)==(H,W)
    v = a/np.linalg.norm(a, axis=1, keepdims=True)
    for i in range(H):
        for j in range(W):
            s = v[30:,:,i,j]@v[:30,:,i,j].T
            near = np.argsort(-s, 1)[:,:5]
            votes = np.array([[np.exp(s[q,near[q]]/.07)[y[near[q]]==k].sum() for k in range(4)] for q in range(len(s))])
            assert float(acc.whole[i,j])==pytest.approx((votes.argmax(1)==y[30:]).mean())
