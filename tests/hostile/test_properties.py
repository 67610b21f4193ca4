"What must hold for any activations: shapes, dtypes, memory formats and strides drawn at random (Hypothesis)"
import json, math, os, tempfile
from pathlib import Path
import numpy as np, torch
from hypothesis import assume, given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from u1nb.angle import order_parameter, picture_z
from u1nb.circle import circ_corr, theta
from u1nb.core import Results, generator, plane, read_tensors, rng, write_tensors
from u1nb.energy import EnergyMap, concentration, density, ee_radius, encircled_energy, energy, energy_density
from u1nb.loss import OneHotU1Loss, U1Head, U1Loss, attach_u1, class_angles, directions, nearest_angle, simplex
from u1nb.memory import Memory, at_most_7, pool

TORTURE = bool(os.environ.get('U1NB_TORTURE'))
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
seeds,sides,dtypes = st.integers(0, 2**31),st.integers(1, 9),st.sampled_from(FLOATS)
more = settings(max_examples=settings.default.max_examples*(1+TORTURE))
few = settings(max_examples=100 if TORTURE else 5)

def expanded(x): return x[:1].expand(len(x), *x.shape[1:])
def strided(x):
    big = x.new_full([2*n+1 for n in x.shape], math.nan)
    part = big[tuple(slice(1, None, 2) for _ in x.shape)]
    return part.copy_(x)
LAYOUTS = dict(contiguous=lambda x: x, channels_last=lambda x: x.contiguous(memory_format=torch.channels_last), strided=strided,
    transposed=lambda x: x.mT.contiguous().mT, batch_last=lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0), expanded=expanded,
    graph=lambda x: x.clone().requires_grad_(), inference=lambda x: inferred(x))
layouts = st.sampled_from(sorted(LAYOUTS))

def inferred(x):
    with torch.inference_mode(): return x.clone()

@st.composite
def activations(draw, square=False, dtype=dtypes, least=1, positive=False):
    "(B,C,H,W) of any shape, dtype, layout and scale, with pictures without energy among them"
    B,C,H,W = draw(st.tuples(st.integers(least, 5), st.integers(1, 6), sides, sides))
    g = generator(draw(seeds), 'activations')
    x = torch.randn(B, C, H, H if square else W, generator=g, dtype=torch.float64)*10.**draw(st.integers(-3, 2))
    if positive or draw(st.booleans()): x = x.relu()
    if draw(st.booleans()): x[draw(st.integers(0, B-1))] = 0
    return LAYOUTS[draw(layouts)](x.to(draw(dtype)))

def same(a, b, tol=1e-9): torch.testing.assert_close(a, b, rtol=tol, atol=tol, equal_nan=True)

# densities

@more
@given(activations())
def test_densities_sum_to_1(a):
    "In float64, for any activations; NaN for a picture without energy, and only there; the layout does not matter"
    p,plain = energy_density(a),energy_density(a.detach().clone().contiguous())
    empty = (a==0).flatten(1).all(1)
    assert p.dtype==torch.float64 and p.shape==(len(a), *a.shape[2:]) and torch.equal(p.isnan().flatten(1).any(1), empty)
    same(p[~empty].sum((1,2)), torch.ones(int((~empty).sum()), dtype=torch.float64))
    assert (p[~empty]>=0).all()
    same(p, plain, 1e-6)
    same(p[~empty], density(energy(a.double()))[~empty], 1e-5)

@given(activations(), st.floats(1e-3, 1e3))
def test_densities_do_not_know_the_scale(a, s):
    same(energy_density(a.double()*s), energy_density(a.double()))

@given(activations(), st.floats(0, 2))
def test_encircled(a, rho):
    "EE grows from 0 to 1; the radius that holds a share holds it"
    p = energy_density(a)
    p = p[~p[:,0,0].isnan()]
    ee = encircled_energy(p, [rho*.5, rho, 2.])
    assert ((ee.diff(dim=1)>=-1e-9)&(ee[:,:2]>=0)).all()
    same(ee[:,2], torch.ones(len(p), dtype=torch.float64))
    if len(p): assert all(encircled_energy(q, r)>=.5-1e-9 for q,r in zip(p, ee_radius(p).tolist()))

@given(sides, sides, st.floats(0, 1.5), st.floats(1e-6, 1e6), dtypes)
def test_uniform(H, W, rho, value, dtype):
    "κ of a uniform map is 1, wherever a site lies within ρ, and z is as the grid has it: 0"
    E = torch.full((2,H,W), value).to(dtype)
    assume(0<E[0,0,0]<math.inf)
    kappa = concentration(density(E), rho)
    within = bool((plane(H, W).r<=rho+1e-9).any())
    same(kappa, torch.full((2,), 1. if within else math.nan, dtype=torch.float64))
    same(order_parameter(density(E)).abs(), torch.zeros(2, dtype=torch.float64))

# angles

TURNS = dict(mirrored=(lambda a: a.flip(-1), lambda z: -z.conj()), upside_down=(lambda a: a.flip(-2), lambda z: z.conj()),
    half=(lambda a: a.rot90(2, (-2,-1)), lambda z: -z))
QUARTERS = dict(quarter=(lambda a: a.rot90(1, (-2,-1)), lambda z: 1j*z), back=(lambda a: a.rot90(-1, (-2,-1)), lambda z: -1j*z),
    diagonal=(lambda a: a.mT, lambda z: -1j*z.conj()))

def turned(a, turns):
    z = picture_z(a)
    assert (z[~z.isnan()].abs()<=1+1e-12).all()
    for f,want in turns.values(): same(picture_z(f(a)), want(z), 1e-6)
    for kind in ('phase','centroid'):
        z = order_parameter(energy_density(a), kind)
        for f,want in turns.values(): same(order_parameter(f(energy_density(a)), kind), want(z))

@given(activations())
def test_mirrors(a):
    "A mirrored map gives π-θ, an upside-down one -θ, a half turn θ+π"
    turned(a, TURNS)

@given(activations(square=True))
def test_quarter_turns(a):
    "A quarter turn counter-clockwise gives θ+90°"
    turned(a, {**TURNS, **QUARTERS})
    z = picture_z(a.detach().double())
    t,q = theta(z),theta(picture_z(a.detach().double().rot90(1, (-2,-1))))
    ok = ~t.isnan()&(z.abs()>1e-4)
    same(torch.polar(torch.ones_like(q[ok]), q[ok]-t[ok]), torch.full((int(ok.sum()),), 1j, dtype=torch.complex128), 1e-6)

@few
@given(st.integers(3, 12), seeds, st.floats(-3, 3))
def test_correlation_of_turned_angles(N, seed, turn):
    "Angles and the same angles turned: ρ=1; mirrored: ρ=-1; whatever the offset"
    a = rng(seed, 'angles').uniform(-np.pi, np.pi, N)
    assume(abs(np.exp(2j*a).mean())<.9)
    for b,rho in ((a+turn, 1), (turn-a, -1)): assert abs(circ_corr(a, b, n_perm=9).rho-rho)<1e-6

# memory

def unit(x): return F.normalize(x.double(), dim=-1)

@more
@given(activations(least=2, positive=True, dtype=st.sampled_from(FLOATS[:2])), seeds, st.integers(1, 7), st.sampled_from(['pool','flat','site','any']))
def test_neighbours(a, seed, k, mode):
    "Those of brute force in float64, for every mode and layout"
    q = torch.randn(3, *a.shape[1:], generator=generator(seed)).relu()+.01
    m = Memory(mode, k=k).add(a.detach(), torch.arange(len(a))%3)
    s,r = m.neighbours(q)
    def sites(x):
        x = x.detach().float()
        if mode=='pool': return pool(x)[:,None]
        x = at_most_7(x)
        return x.flatten(1)[:,None] if mode=='flat' else x.flatten(2).mT
    A,Q = unit(sites(a)),unit(sites(q))
    if mode=='any': all = torch.einsum('qsc,mtc->qsmt', Q, A).flatten(2)           # rows are picture·S + site
    else: all = torch.einsum('qsc,msc->qsm', Q, A)
    want = all.sort(-1, descending=True).values[...,:k]
    got = s.flatten(1, -2) if s.ndim>2 else s[:,None]
    rows = r.flatten(1, -2) if r.ndim>2 else r[:,None]
    same(got, want, 1e-5)
    same(all.gather(-1, rows), want, 1e-5)
    assert (rows.sort(-1).values.diff(dim=-1)>0).all(), 'no row twice'

@given(activations(least=3, positive=True), seeds, st.sampled_from(['pool','flat','site','any']), st.integers(1, 12), st.sampled_from([None,2,50]))
def test_memories_come_back(a, seed, mode, k, size):
    "From a file and from a state: the same bits; and parts that are merged say what the whole says"
    a,y = a.detach(),torch.randint(0, 4, (len(a),), generator=generator(seed))
    ids = torch.from_numpy(rng(seed, 'ids').permutation(1000)[:len(a)])
    new = lambda: Memory(mode, k=k, size=size, classes=[*'abcde'], seed=seed%97)
    m = new().add(a, y, ids)
    with tempfile.TemporaryDirectory() as d: back = Memory.open(m.save(Path(d)/'m.safetensors'))
    state,parts = new(),new().add(a[:1], y[:1], ids[:1])
    state.load(m.state())
    parts.merge(new().add(a[1:], y[1:], ids[1:]))
    for o in (back, state, parts):
        assert torch.equal(o.votes(a), m.votes(a)) and torch.equal(o.ids, m.ids) and torch.equal(o.labels, m.labels) and repr(o)==repr(m)

# rows, tensors and states

numbers = st.one_of(st.none(), st.booleans(), st.integers(-2**53, 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8))
values = st.one_of(numbers, st.lists(numbers, max_size=3), st.dictionaries(st.text(max_size=5), numbers, max_size=3))
columns = st.dictionaries(st.sampled_from(['model','layer','data','own','ours é','x.y']), values, max_size=4)

@few
@given(st.lists(columns, min_size=1, max_size=5), st.floats())
def test_rows_come_back(rows, value):
    "As JSON lines, as they are made and saved whole, and as parquet"
    with tempfile.TemporaryDirectory() as d:
        res = Results(Path(d)/'made.jsonl', seconds=0)
        for cols in rows: res.add('C1', 'kappa', **{'value':value, **cols})
        assert res[0]['value']==value or not math.isfinite(value) and res[0]['value'] is None
        assert list(Results.load(Path(d)/'made.jsonl'))==list(res)
        assert list(Results.load(res.save(Path(d)/'saved.jsonl')))==list(res)
        assert list(Results.load(res.save(Path(d)/'saved.parquet')))==list(res)

@given(st.dictionaries(st.text(min_size=1, max_size=9).filter(lambda k: k!='__metadata__'), activations(), min_size=1, max_size=4), st.dictionaries(
    st.text(min_size=1, max_size=5).filter(str.isidentifier).filter(lambda k: k not in ('path','tensors')), values.filter(lambda v: not isinstance(v, str)), max_size=3))
def test_tensors_come_back(tensors, text):
    with tempfile.TemporaryDirectory() as d: back,said = read_tensors(write_tensors(Path(d)/'t.safetensors', tensors, **text))
    assert {k:json.loads(v) for k,v in said.items()}==text and back.keys()==tensors.keys()
    for k,v in tensors.items(): assert torch.equal(back[k], v) and back[k].dtype==v.dtype

@few
@given(activations(least=2), st.data())
def test_energy_maps_come_back(a, data):
    "From a state, and the same from batches of any size, in any order of processes"
    B = len(a)
    cut = data.draw(st.integers(1, B-1))
    y = torch.tensor(data.draw(st.lists(st.integers(-1, 3), min_size=B, max_size=B)))
    def seen(*parts):
        o = EnergyMap('all')
        for i in parts: o.update({'t/1':a[i]}, y[i], torch.arange(B)[i])
        return o
    whole,parts,first = seen(slice(None)),seen(slice(cut), slice(cut, None)),seen(slice(cut, None))
    first.merge(seen(slice(cut)))
    back = EnergyMap('all')
    back.load({k:v.clone() for k,v in whole.state().items()})
    for o in (parts, first, back):
        same(torch.tensor(o.frame().iloc[:,1:].to_numpy(float)), torch.tensor(whole.frame().iloc[:,1:].to_numpy(float)), 1e-6)
        same(o.mean(), whole.mean(), 1e-6)
        same(o.class_means(), whole.class_means(), 1e-6)
        same(o.maps(), whole.maps(), 1e-6)
        assert o.empty()==whole.empty()

# losses

def targets(K, D, seed): return class_angles(K, 'random', seed) if D==2 else simplex(K) if D==K-1 else directions(K, D, seed)
forms = st.sampled_from(['mse','cosine','von_mises'])

@more
@given(st.integers(2, 6), st.sampled_from([2,2,3,8]), forms, st.integers(1, 4), st.integers(-6, 3), seeds, st.booleans(), dtypes)
def test_the_loss_and_its_gradient(K, D, form, B, power, seed, soft, dtype):
    "Finite, for any length of u and any dtype; the gradient that of central differences in float64"
    g = generator(seed, 'loss')
    u = F.normalize(torch.randn(B, D, generator=g, dtype=torch.float64), dim=1)*10.**power
    y = torch.randint(0, K, (B,), generator=g)
    p = torch.rand(B, K, generator=g, dtype=torch.float64).softmax(1) if soft else y
    loss = U1Loss(targets(K, D, seed), form, 'sum')
    low = u.to(dtype).requires_grad_()
    l = loss(low, p)
    l.backward()
    assert l.isfinite() and l.dtype==torch.promote_types(dtype, torch.float32)
    assert low.grad.isfinite().all() or (form=='cosine' and dtype==torch.float16)     # 1/‖u‖ is above 65504
    x = u.clone().requires_grad_()
    grad, = torch.autograd.grad(loss(x, p), x)
    if form=='von_mises': assert (grad.norm(dim=1)<=2+1e-9).all()
    with torch.no_grad():
        h = 10.**power*1e-4 if form=='cosine' else max(1e-4, 10.**power*1e-4)
        e = torch.eye(B*D, dtype=torch.float64).view(-1, B, D)*h
        diff = torch.stack([(loss(u+o, p)-loss(u-o, p))/(2*h) for o in e]).view(B, D)
    scale = max(1., float(grad.abs().max()))
    assert (diff-grad).abs().max()<=1e-5*scale, (diff, grad)

@given(st.integers(1, 5), st.integers(2, 6), seeds, forms, st.floats(0, 3), dtypes)
def test_the_combined_loss(B, K, seed, form, weight, dtype):
    "Is cross-entropy + weight·U(1), takes one-hot as probabilities, and does not know the layout"
    g = generator(seed, 'combined')
    logits,u,y = torch.randn(B, K, generator=g).to(dtype),torch.randn(B, 2, generator=g).to(dtype),torch.randint(0, K, (B,), generator=g)
    loss = OneHotU1Loss(class_angles(K, seed=seed%5), weight, form)
    want = F.cross_entropy(logits.to(torch.promote_types(dtype, torch.float32)), y)
    if weight: want = want+weight*U1Loss(class_angles(K, seed=seed%5), form)(u, y)
    same(loss(logits, u, y), want, 1e-5)
    same(loss(logits, u, F.one_hot(y, K).to(dtype)), want, 1e-5)
    same(loss(logits.T.contiguous().T, strided(u), y), want, 1e-5)

@given(st.integers(1, 40), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_labels_on_the_circle(K, seed, scale):
    "K angles 2π/K apart in (-π,π], found again from their own points at any length"
    a = class_angles(K, seed=seed)
    assert ((a>-math.pi)&(a<=math.pi)).all()
    same(a.sort().values.diff(), torch.full((K-1,), 2*math.pi/K, dtype=torch.float64))
    assert torch.equal(nearest_angle(U1Loss(a).targets*scale, a), torch.arange(K))
    same(class_angles(K, a+2*math.pi), a)

# networks with a head

class Plain(nn.Module):
    def __init__(self, body, fc):
        super().__init__()
        self.body,self.fc = body,fc
    def forward(self, x): return self.fc(self.body(x).mean((2,3)))

@st.composite
def networks(draw):
    "A small CNN (its channels, norms, activations and container drawn), its picture's side, and pictures of any layout"
    C,S = draw(st.sampled_from([1,3])),draw(st.integers(8, 20))
    torch.manual_seed(draw(seeds))
    steps,n = [],C
    for _ in range(draw(st.integers(1, 3))):
        w = draw(st.sampled_from([4,8]))
        steps.append(nn.Conv2d(n, w, 3, draw(st.sampled_from([1,2])), 1, bias=draw(st.booleans())))
        steps += draw(st.sampled_from([[], [nn.BatchNorm2d(w)], [nn.GroupNorm(2, w)]]))
        steps += draw(st.sampled_from([[nn.ReLU(inplace=True)], [nn.GELU()], [nn.Hardswish(inplace=True)]]))
        n = w
    fc = nn.Linear(n, draw(st.integers(2, 6)))
    net = Plain(nn.Sequential(*steps), fc) if draw(st.booleans()) else nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc)
    x = torch.randn(draw(st.integers(1, 3)), C, S, S, generator=generator(draw(seeds), 'pictures'))
    return net.eval(),S,LAYOUTS[draw(layouts)](x)

@given(networks(), st.sampled_from(['feature','image']), st.sampled_from(FLOATS[:3]), st.booleans())
def test_attach_leaves_logits(made, where, dtype, training):
    "Bit for bit, whatever the network and the pictures' layout; a training step's gradients too"
    net,S,x = made
    net,x = net.to(dtype),x.detach().clone(memory_format=torch.preserve_format).to(dtype)
    want = net(x).detach()
    state = {k:v.clone() for k,v in net.state_dict().items()}
    def grads():
        net.load_state_dict(state, strict=False)
        net.zero_grad()
        net.train(training)(x).sum().backward()
        return [p.grad.clone() for k,p in net.named_parameters() if not k.startswith('u1.')]
    training = training and len(x)>1                       # batch norm of one value has no variance
    before = grads()
    attach_u1(net.eval(), where, S)
    net.load_state_dict(state, strict=False)
    logits,u = net(x, u1=True)
    assert torch.equal(logits, want) and torch.equal(net(x), want) and u.shape==(len(x),2) and u.dtype==torch.promote_types(dtype, torch.float32)
    assert all(map(torch.equal, before, grads()))
    assert u.isfinite().all()

@given(activations(dtype=st.sampled_from(FLOATS[:3])), st.sampled_from(['feature','image']))
def test_the_head_turns_with_the_map(a, where):
    "u of a mirrored map is mirrored where the head reads the image, and the same where it reads features"
    head,a = U1Head(a.shape[1], where),a.detach()
    u,m = head(a),head(a.flip(-1))
    same(m, u*torch.tensor([-1,1]) if where=='image' else u, 2e-2 if a.dtype==torch.bfloat16 and where=='feature' else 1e-4)
