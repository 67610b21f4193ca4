"What `claims` computes itself: differences to random networks where some pictures have no value"
import numpy as np, pandas as pd, pytest
from torch import nn
from u1nb.core import Results, rng
from u1nb.stats import two_way
from u1nb.claims import _minus_each, _two_ways, c1, c3
from u1nb.data import images
from u1nb.study import Budget, Sets, Study, network, plain_transform

def parts(G, S, gap=0., mean=.5, seed=0):
    "A table of differences for each network: pictures and networks vary, some differences are missing"
    gen = rng(seed, 'parts')
    d = mean+.6*gen.standard_normal((G,1))+.1*gen.standard_normal(S)+.3*gen.standard_normal((G,S))
    d[gen.random((G,S))<gap] = np.nan
    return [pd.DataFrame(dict(group=np.arange(G), seed=s, d=d[:,s])) for s in range(S)]

def test_without_gaps_it_is_two_way():
    p = parts(200, 5)
    v,gaps = _two_ways(p, 0)
    want = two_way(pd.concat(p), 'd', effective=True)
    assert gaps==0 and abs(v.value-want.value)<1e-12
    assert abs(v.se/want.se-1)<.1 and abs(v.n-want.n)<=.25*want.n

def test_gaps_keep_the_mean_and_the_coverage():
    "A third of the differences missing: the truth lies in most of the intervals, and no picture is dropped"
    held = []
    for k in range(60):
        v,gaps = _two_ways(parts(100, 5, gap=.35, seed=k), k, n_boot=400)
        held.append(v.lo<=.5<=v.hi)
        assert .25<gaps<.45 and np.isfinite([v.value,v.lo,v.hi]).all()
    assert np.mean(held)>=.87

def test_nothing_known():
    p = [o.assign(d=np.nan) for o in parts(9, 2)]
    v,gaps = _two_ways(p, 0)
    assert np.isnan(v.value) and gaps==1

def minus(z, others, y):
    rows = Results()
    _minus_each(lambda *a, **k: rows.add('C4', *a, **k), z, others, y, None)
    return rows[0]

def test_minus_each_finds_what_was_planted():
    "Class means beside networks without any; and each random network only lacks pictures of its own"
    gen = rng(0, 'minus each')
    y = np.repeat(np.arange(6), 40)
    noise = lambda: .3*(gen.standard_normal(len(y))+1j*gen.standard_normal(len(y)))
    z,others = .3*np.exp(2j*np.pi*y/6)+noise(),[noise() for _ in range(5)]
    for o in others: o[gen.random(len(y))<.5] = np.nan            # all five together leave some 3 % of the pictures
    r = minus(z, others, y)
    assert r['lo']>.05 and not r.get('open') and r['control']=='random'
    none = minus(noise(), others, y)
    assert none['lo']<0<none['hi']
    assert minus(z, [np.full(len(y), np.nan)]*2, y)['open']

@pytest.mark.parametrize('size,sites', [(8,2),(12,3),(16,4)])
def test_small_maps(size, sites):
    "Maps of 2×2 sites are refused by name; where no ring resolves a measure its row is left out"
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    sets = Sets(images('digits', n=40), 'digits', spare=images('spare', n=8))
    study = Study(network(net, transform=plain_transform(size=size), name='small'), sets, Budget(cells=10, seeds=2))
    assert (study.layers[-1].height, study.layers[-1].width)==(sites,sites)
    if sites<3:
        with pytest.raises(ValueError, match=r'3×3 sites or more; 4 has 2×2'): c1(study)
        return
    rows = c1(study)
    assert rows.one(key='kappa', control='uniform')['lo']>0 and all(r['value'] is not None for r in rows.where(control='given'))
    assert c3(study).where(key='not_asked')
