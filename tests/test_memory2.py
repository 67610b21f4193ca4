"A memory's refusals, and cases that are no lesson"
import json, sys
import numpy as np, pytest, torch
from u1nb.core import generator, read_tensors, write_tensors
from u1nb.memory import Memory, coreset, drawn_anew, imagenet_index, informative, informed_auc, linear_probe
from u1nb.memory import own_head, paired_accuracy, pool

def vectors(n, D=24, seed=0):
    g = generator(seed, 'vectors')
    return torch.randn(n, D, generator=g).abs(),torch.randint(5, (n,), generator=g)

@pytest.mark.parametrize('mode', ['pool','flat','site','any'])
@pytest.mark.parametrize('shape', [(6,5), (3,3)])
def test_votes_in_plain_numpy(mode, shape):
    "Every mode against loops over queries and sites, each query leaving out its own id"
    g = generator(1, 'maps', mode)
    maps,y = torch.randn(12, 4, *shape, generator=g).numpy(),np.arange(12)%3
    got = Memory(mode, k=3).add(maps, y).votes(maps[:5], ids=range(5)).numpy()
    x = maps.astype(float).reshape(12, 4, -1).transpose(0, 2, 1)
    if mode=='pool': x = x.mean(1, keepdims=True)
    if mode=='flat': x = x.reshape(12, 1, -1)
    x = x/np.linalg.norm(x, axis=2, keepdims=True)
    want = np.zeros((5,3))
    for q in range(5):
        for s in range(x.shape[1]):
            near = [(x[q,s]@x[m,t], m) for m in range(12) for t in range(x.shape[1]) if m!=q and (mode=='any' or s==t)]
            for c,m in sorted(near)[-3:]: want[q,y[m]] += np.exp(c/.07)
    np.testing.assert_allclose(got, want, rtol=1e-4)

def test_votes_of_scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier
    x,y = vectors(400)
    knn = KNeighborsClassifier(10, metric='cosine', algorithm='brute', weights=lambda d: np.exp((1-d)/.07))
    knn.fit(x[:300].double().numpy(), y[:300].numpy())
    m = Memory().add(x[:300], y[:300])
    v = m.votes(x[300:])
    np.testing.assert_allclose(v/v.sum(1, keepdim=True), knn.predict_proba(x[300:].double().numpy()), atol=1e-5)
    assert m.predict(x[300:]).tolist()==knn.predict(x[300:].double().numpy()).tolist()
    assert m.neighbours(x[:1], k=999)[0].shape==(1,300)

@pytest.mark.parametrize('index', [None,'Flat'])
def test_ids(index):
    "What is stored under a query's id is left out, all of it; an id that is not stored leaves out nobody"
    if index: pytest.importorskip('faiss')
    x,y = vectors(300)
    m,without = Memory(index=index).add(x, y),Memory(index=index).add(x[1:], y[1:])
    torch.testing.assert_close(m.votes(x[:1], ids=[0]), without.votes(x[:1]), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(m.votes(x[:1], ids=[999]), m.votes(x[:1]))
    loo = torch.from_numpy(m.leave_one_out().votes[:1])
    torch.testing.assert_close(loo, without.votes(x[:1]), rtol=1e-5, atol=1e-3)
    assert m.score(x[:9], y[:9], ids=range(295, 304)).left_out==5
    twice = Memory(k=1, index=index).add(x[:3], [0,1,2], ids=[5,5,6])
    assert twice.predict(x[:1], ids=[5]).item()==2
    assert twice.neighbours(x[:1], k=3, ids=[5])[1].tolist()==[[2,-1,-1]]

def test_leave_one_out_of_groups():
    g = generator(2)
    x,_ = vectors(50)
    source = torch.arange(50).repeat(4)
    y = torch.randint(5, (50,), generator=g)[source]
    m = Memory(k=3).add(x.repeat(4, 1)+.001*torch.rand(200, 24, generator=g), y)
    assert m.leave_one_out().accuracy==1 and m.leave_one_out(source).accuracy<.5
    assert m.leave_one_out(source).accuracy.n==50
    with pytest.raises(ValueError, match='one id or group'): m.leave_one_out(source*0)

def test_zeros_have_no_direction():
    x = torch.rand(12, 4, 3, 3, generator=generator(4))
    x[6:,:,1,1] = 0
    m = Memory('site', k=3).add(x[:6], [0,1]*3)
    assert m.score(x[6:], [0,1]*3).map.whole[1,1]==0 and (m.neighbours(x[6:])[1][:,1,1]==-1).all()
    assert Memory().add(torch.zeros(2, 24), [0,0]).add(torch.ones(1, 24), [1]).predict(torch.ones(1, 24)).item()==1

def test_tiny_and_huge():
    "Networks left alone give activations of any size"
    x,y = vectors(60)
    want = Memory().add(x, y).votes(x[:7])
    for by in (1e-30,1e36):
        torch.testing.assert_close(Memory().add(by*x, y).votes(by*x[:7]), want, rtol=1e-4, atol=1e-3)
    for half in (torch.float16,torch.bfloat16):
        assert Memory().add(x, y).score(x.to(half), y, ids=range(60)).left_out==60

@pytest.mark.parametrize('how', [dict(), dict(size=40), dict(mode='flat')])
def test_merged(how):
    "Two memories of different pictures merge into one that answers like the one that saw all"
    x,y = vectors(400)
    a,b = (Memory(**how).add(x[i], y[i], ids=i) for i in (torch.arange(250, 400), torch.arange(250)))
    both,one = Memory(**how),Memory(**how).add(x, y)
    both.load(a.state()); both.merge(b)
    assert sorted(both.ids.tolist())==sorted(one.ids.tolist()) and (both.K,both.seen)==(one.K,one.seen)
    torch.testing.assert_close(both.votes(x[:50]), one.votes(x[:50]), rtol=1e-5, atol=1e-3)
    both.load({})
    assert len(both)==0 and both.D is None

def test_bounded_is_uniform():
    "Each of 1,000 pictures stays about equally often; the labels given are not the ones stored"
    x,y = torch.rand(1000, 3),torch.zeros(1000, dtype=torch.long)
    often = np.zeros(1000)
    for s in range(200): often[Memory(size=40, seed=s).add(x, y).ids] += 1
    assert .8<often[:500].sum()/often[500:].sum()<1.25 and often.max()<25          # 8 each on average
    m = Memory().add(x[:9], y[:9]); y += 1
    assert m.labels.max()==0

def test_saved(tmp_path):
    x,y = vectors(400)
    m = Memory(k=7, T=.1, classes=list('abcde'), layer='here', size=40).add(x[:150], y[:150])
    p = m.save(tmp_path/'m.safetensors')
    again = Memory.open(p)
    assert torch.equal(again.votes(x), m.votes(x))
    assert (again.k,again.T,again.classes,again.layer,len(again))==(7,.1,list('abcde'),'here',40)
    assert json.loads(read_tensors(p)[1]['memory'])['provenance']['versions']['torch']
    once = Memory(size=40).add(x, y)                               # it goes on sampling where it stopped
    assert sorted(again.add(x[150:], y[150:]).ids.tolist())==sorted(once.ids.tolist())
    site = Memory('site').add(torch.rand(5, 3, 4, 6), range(5))
    assert Memory.open(site.save(tmp_path/'site')).vectors.shape==(5,4,6,3)
    whole = p.read_bytes()
    p.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match='cannot be read'): Memory.open(p)
    p.write_bytes(whole.replace(b'"version":"1"', b'"version":"2"'))
    with pytest.raises(ValueError, match='holds no memory of version 1'): Memory.open(p)
    with pytest.raises(ValueError, match='holds no memory'): Memory.open(write_tensors(tmp_path/'other', dict(x=x)))
    with pytest.raises(FileNotFoundError): Memory.open(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='is empty'): Memory().save(p)

def test_approximate():
    x,y = vectors(3000, 64)
    pytest.importorskip('faiss')
    m,exact = Memory(index='IVF8,Flat').add(x, y),Memory().add(x, y)
    assert (m.neighbours(x[:50], k=1)[1]==torch.arange(50)[:,None]).all()
    more,w = vectors(10, 64, 1)
    near = m.add(more, w).neighbours(more, k=1)[1]                 # the index is built anew
    assert near.flatten().tolist()==list(range(3000, 3010))
    flat = Memory(index='Flat').add(x, y)
    torch.testing.assert_close(flat.votes(more), exact.votes(more), rtol=1e-5, atol=1e-3)

def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, 'faiss', None)
    x,y = vectors(20)
    with pytest.raises(ModuleNotFoundError, match='pip install'): Memory(index='Flat').add(x, y).predict(x)
    assert len(Memory().add(x, y).predict(x))==20

x,y = vectors(3)
@pytest.mark.parametrize('do,says', [
    (lambda: Memory('mean'), 'one of pool, flat, site, any'),
    (lambda: Memory(T=0), 'at least .0015'),
    (lambda: Memory('site', index='Flat'), 'index=None'),
    (lambda: Memory().predict(x), 'is empty'),
    (lambda: Memory(layer='0').evaluate(torch.nn.Sequential(), [(x, 0)]), 'is empty'),
    (lambda: Memory('site').add(x, y), r'takes maps \(N,C,H,W\), since it compares sites; got shape \(3, 24\)'),
    (lambda: Memory().add(x[0], y), r'or vectors \(N,D\); got shape \(24,\)'),
    (lambda: Memory().add(torch.tensor([[1.]*4, [float('nan')]*4]), [0,1]), r'NaN or infinite values in rows \[1\]'),
    (lambda: Memory().add(x, [0,1,-1]), 'labels are from 0 to .*; got -1, at 2'),
    (lambda: Memory().add(x, [0.,1.,2.]), 'labels are integers'),
    (lambda: Memory().add(x, [0,1]), '3 labels are needed'),
    (lambda: Memory().add(x, y, ids=[0]), '3 ids are needed'),
    (lambda: Memory('flat').add(torch.rand(3, 2, 4, 4), y).score(torch.rand(3, 2, 4, 5), y), 'D=32; got D=40'),
    (lambda: Memory('site').add(torch.rand(3, 2, 4, 4), y).predict(torch.rand(3, 2, 4, 5)), 'D=2 at 4×4 sites; got D=2 at 4×5'),
    (lambda: Memory(layer='a').update(dict(b=torch.rand(3, 2, 4, 4)), y), "no layer 'a' among"),
    (lambda: linear_probe(x, y*0, x, y), 'of one class'),
    (lambda: paired_accuracy(*(Memory().add(x, y).score(x, t) for t in (y, y+1))), 'not the same pictures')])
def test_refused(do, says):
    with pytest.raises(ValueError, match=says): do()

def test_head_and_index():
    names = ['n01443537','goldfish','Carassius auratus','great_white_shark','nobody']
    assert imagenet_index(names).tolist()==[1,1,1,2,-1]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    data = [(torch.rand(3, 2, 2), i%2) for i in range(8)]
    z = net(torch.stack([a for a,_ in data]))
    h = own_head(net, data, class_index=[3,0], groups=np.arange(8)//2)
    assert h.predictions.tolist()==z[:,[3,0]].argmax(1).tolist() and h.accuracy.n==4
    assert float(h.unrestricted)==np.mean([int(a)==[3,0][i%2] for i,a in enumerate(z.argmax(1))])
    with pytest.raises(ValueError, match='give class_index'): own_head(net, data, class_index=[-1,-1])

def test_coreset():
    x,_ = vectors(100)
    took = coreset(x, 10)
    assert took.tolist()==sorted(set(took.tolist())) and took[0]==0 and len(took)==10 and len(coreset(x, 500))==100
    maps = torch.rand(20, 3, 8, 8)
    assert coreset(maps, 5).tolist()==coreset(pool(maps), 5).tolist()

@pytest.mark.parametrize('same_site', [False, True])
@pytest.mark.parametrize('shape', [(5,6), (14,14)])
def test_informative_in_plain_numpy(same_site, shape):
    "Against float64, maps wider than 7 averaged first; more pictures than a block holds"
    g = generator(0, 'informative', *shape)
    q,x = (torch.randn(n, 6, *shape, generator=g) for n in (70, 30))
    q[2,:,:3,:3] = 0
    y,t = torch.arange(30)%3,torch.arange(70)%3
    o = informative(q, t, x, y, same_site)
    h,w = (min(n, 7) for n in shape)
    assert o.similarity.dtype==torch.float32 and {tuple(a.shape) for a in o}=={(70,h,w)}
    def rows(a):
        a = torch.nn.functional.adaptive_avg_pool2d(a.double(), (h,w)).flatten(2).mT
        return (a/a.norm(dim=2, keepdim=True).clamp(1e-300)).numpy()
    cos = np.einsum('qsc,mtc->qsmt', rows(q), rows(x))
    if same_site: cos[:,~np.eye(h*w, dtype=bool)[:,None].repeat(30, 1)] = -9
    best = cos.reshape(70, h*w, -1)
    alive = rows(q).any(2).reshape(70, h, w)
    assert not alive[2,0,0] and torch.isnan(o.similarity[2,0,0]) and not o.s[2,0,0]
    near,site = np.divmod(best.argmax(2).reshape(70, h, w), h*w)
    assert (o.neighbour.numpy()==np.where(alive, near, -1)).all()
    assert (o.site.numpy()==np.where(alive, site, -1)).all()
    np.testing.assert_allclose(o.similarity.numpy()[alive], best.max(2).reshape(70, h, w)[alive], atol=1e-6)
    assert (o.s.numpy()==(alive & (y.numpy()[near]==t.numpy()[:,None,None]))).all()

def test_other_classes():
    g = generator(0, 'other classes')
    o = informative(torch.rand(4, 3, 2, 2, generator=g), [0]*4, torch.rand(5, 3, 2, 2, generator=g), [0,0,1,1,1])
    assert (o.s==(o.neighbour<2)).all()
    assert o.relabelled([1]*4, [1]*5).all() and not o.relabelled([1]*4, [0]*5).any()
    with pytest.raises(ValueError, match='4 classes and at least'): o.relabelled([0]*3, [0]*5)

def test_no_curve_without_both():
    s = torch.tensor([[[True,True]],[[False,False]],[[True,False]]])
    assert torch.isnan(informed_auc(torch.rand(3,1,2), s)).tolist()==[True,True,False]
    assert informed_auc([[[2,1]]], s[2:]).item()==1

def test_drawn_anew():
    "One answer a group, whole classes, and splits of the same sizes"
    x,y = vectors(60); q,t = vectors(40, seed=1)
    assert drawn_anew(x, y, q, t, np.arange(40)//4).interval.n<=10+20
    whole = drawn_anew(x, y, q, t, per_class=60, draws=3)
    assert set(whole.accuracies)=={float((Memory().add(x, y).predict(q)==t).double().mean())}
    a = drawn_anew(x, y, q, t, per_class='all', draws=5)
    assert np.allclose(a.accuracies*40, np.rint(a.accuracies*40)) and a.interval.value==pytest.approx(a.accuracies.mean())
    assert a.interval.se==pytest.approx(a.sd*np.sqrt(1/5+40/60))
