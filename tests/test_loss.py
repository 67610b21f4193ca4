"The loss and its head: derivatives, torch.compile, other architectures, DistributedDataParallel"
import copy
import pytest, timm, torch, torchvision
from torch import nn
from torch.nn import functional as F
from u1nb.core import generator
from u1nb.loss import OneHotU1Loss, U1Head, U1Loss, attach_u1, class_angles, detach_u1, directions, simplex

TARGETS = dict(circle=class_angles(3), directions=directions(3, 30, seed=1), simplex=simplex(4), line=simplex(2))

@pytest.mark.parametrize('targets', TARGETS)
@pytest.mark.parametrize('form', ['mse','cosine','von_mises'])
def test_derivatives(form, targets):
    "First and second, at 0, near 0, on both sides of where log I₀ changes branch, and far out"
    t = TARGETS[targets]
    loss,r = U1Loss(t, form, 'none'),torch.tensor([0,1e-3,.0999,.1001,1,30,1e4], dtype=torch.float64)
    d = loss.targets.shape[1]
    u = F.normalize(torch.randn(len(r), d, generator=generator(0, d), dtype=torch.float64), dim=1)*r[:,None]
    if form=='cosine': u = u[4:6]                    # its derivatives grow as 1/‖u‖: finite differences see them from 1 on
    y = torch.arange(len(u))%len(t)
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda u: loss(u, y), u)
    assert torch.autograd.gradgradcheck(lambda u: loss(u, y), u)

@pytest.mark.parametrize('D', [1,2,3,16,99])
def test_bounds(D):
    "‖gradient‖ ≤ 2 and curvature ≤ 1/D, at any length and in any direction"
    t = torch.zeros(1, D, dtype=torch.float64); t[0,0] = 1
    loss = U1Loss(t, 'von_mises')
    for r in (0,.05,.2,1,5,100,1e4):
        u = (F.normalize(torch.randn(1, D, generator=generator(1, D, r), dtype=torch.float64))*r).requires_grad_()
        f = lambda u: loss(u, torch.tensor([0]))
        g, = torch.autograd.grad(f(u), u)
        e = torch.linalg.eigvalsh(torch.autograd.functional.hessian(f, u).view(D, D))
        assert g.norm()<=2 and e[-1]<=1/D+1e-9 and e[0]>=-1e-9

@pytest.mark.parametrize('scale', [1e-30,1e-3,1,1e4,1e30])
def test_any_float32(scale):
    for form in ('mse','cosine','von_mises'):
        u = (torch.ones(1, 2)*scale).requires_grad_()
        l = U1Loss([2.], form)(u, torch.tensor([0])); l.backward()
        assert u.grad.isfinite().all() and (l.isfinite() or (form=='mse' and scale>1e18))

@pytest.mark.parametrize('form,t', [('von_mises','circle'), ('von_mises','simplex')])
def test_compile(form, t):
    loss = OneHotU1Loss(TARGETS[t], .3, form)
    k,d = loss.u1.targets.shape
    logits,u,y = torch.randn(8, k, generator=generator(0)),torch.randn(8, d, generator=generator(1)),torch.arange(8)%k
    fast = torch.compile(loss, fullgraph=True, backend='aot_eager')   # inductor gives the same and takes 20 s to start
    a,b = (o.clone().requires_grad_() for o in (u,u))
    la,lb = loss(logits, a, y),fast(logits, b, y)
    la.backward(); lb.backward()
    torch.testing.assert_close(la, lb); torch.testing.assert_close(a.grad, b.grad)
    for bad in (-1, k):
        with pytest.raises(Exception, match='out of bounds'): torch.compile(U1Loss(TARGETS[t], form), fullgraph=True, backend='aot_eager')(u, torch.full((8,), bad))

V = torchvision.models
NETS = dict(resnet18=lambda: V.resnet18(num_classes=5), mobilenet_v2=lambda: V.mobilenet_v2(num_classes=5, width_mult=.25),
            densenet=lambda: V.DenseNet(8, (2,2,2,2), 16, num_classes=5),     # a functional in-place ReLU after the last module
            timm=lambda: timm.create_model('mobilenetv3_small_050', num_classes=5))

@pytest.mark.parametrize('name', NETS)
def test_attach(name):
    "Same logits, same keys, a gradient for both heads, copies of their own, and back"
    net,x = NETS[name]().eval(),torch.randn(2, 3, 32, 32, generator=generator(0, name))
    want,keys,cls = net(x),list(net.state_dict()),type(net)
    saved = copy.deepcopy(net.state_dict())
    for where in ('feature','image'):
        assert attach_u1(net, where, 32) is net
        assert list(net.state_dict())[:len(keys)]==keys and all(k.startswith('u1.') for k in list(net.state_dict())[len(keys):])
        assert torch.equal(net(x), want)
        logits,u = net(x, u1=True)
        assert torch.equal(logits, want) and u.shape==(2,2) and u.isfinite().all()
        fresh = copy.deepcopy(net)
        with torch.no_grad():
            for p in fresh.u1.parameters(): p.zero_()
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(fresh(x, u1=True)[1], u) and fresh.u1 is not net.u1
        net.train()
        logits,u = net(x, u1=True)
        OneHotU1Loss(class_angles(5))(logits, u, torch.tensor([0,1])).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        net.eval()
        assert detach_u1(net) is net and type(net) is cls
        net.load_state_dict(saved)
        assert torch.equal(net(x), want)

def test_refusals():
    "What is given, and what is allowed"
    def refused(why, f, *args, **kw):
        with pytest.raises(ValueError, match=why): f(*args, **kw)
    two,u3 = torch.zeros(3, 2),torch.zeros(3, 10)
    refused('angles are finite', class_angles, 2, [0,float('nan')])
    refused("'even', 'random' or", class_angles, 3, 'evn')
    refused('at least 1', class_angles, 0)
    loss = U1Loss(class_angles(10))
    for bad in (-1, -100): refused(f'target {bad} is out of range: it is from 0 to 9', loss, two, torch.tensor([0,bad,1]))
    refused(r'target is \(3,\) integers', loss, two, torch.tensor([0,1]))
    refused(r'\(3,10\) probabilities', loss, two, torch.ones(3, 9))
    refused(r'u is \(B,2\)', loss, u3, torch.tensor([0,1,2]))
    refused('unit vectors; got lengths 1.41', U1Loss, torch.ones(10, 2))
    refused("form is 'mse', 'cosine', 'von_mises'; got 'vonmises'", U1Loss, [0.], 'vonmises')
    refused('on the circle, D=2', U1Loss(simplex(5)), torch.zeros(1, 4), torch.tensor([0]), mirrored=torch.tensor([True]))
    logits,u,y = torch.zeros(8, 10),torch.zeros(8, 2),torch.arange(8)
    noise = OneHotU1Loss(class_angles(50, 'random'), per_sample=True)
    refused('needs `index`', noise, logits, u, y)
    refused('index 50 is out of range', noise, logits, u, y, torch.full((8,), 50))
    refused(r'give class_angles\(10', OneHotU1Loss(class_angles(9)), logits, u, y)
    refused("where is 'feature', 'image'; got 'pixels'", U1Head, 8, 'pixels')
    refused('the image plane has 2 dimensions', U1Head, 8, 'image', D=3)

def test_auxiliary_outputs():
    net = attach_u1(V.googlenet(num_classes=5, init_weights=False), size=64)
    assert net.eval()(torch.randn(2, 3, 64, 64), u1=True)[0].shape==(2,5)
    with pytest.raises(TypeError, match='aux_logits=False'): net.train()(torch.randn(2, 3, 64, 64), u1=True)
    assert isinstance(net.eval()(torch.randn(2, 3, 64, 64)), torch.Tensor)

class Small(nn.Module):
    "One shared in-place ReLU, called twice"
    def __init__(self):
        super().__init__()
        self.a,self.b,self.relu,self.fc = nn.Conv2d(1, 4, 3, padding=1),nn.Conv2d(4, 6, 3, stride=2, padding=1),nn.ReLU(inplace=True),nn.Linear(6, 3)
    def forward(self, x): return self.fc(self.relu(self.b(self.relu(self.a(x)))).mean((2,3)))

@pytest.mark.parametrize('where', ['feature','image'])
@pytest.mark.parametrize('layer,key', [(None,6), ('relu:0',4), ('a',4), ('b',6)])
def test_calls(where, layer, key):
    "The call that was asked for, before what overwrites it"
    net = Small().eval(); x = torch.randn(3, 1, 8, 8, generator=generator(0))
    attach_u1(net, where, 8, layer=layer)
    a = net.a(x); b = net.b(a.relu())
    acts = {None:b.relu(), 'relu:0':a.relu(), 'a':a, 'b':b}[layer]
    assert acts.shape[1]==net.u1.channels==key
    torch.testing.assert_close(net(x, u1=True)[1], net.u1.read(acts))
    logits,u = net.train()(x, u1=True); (logits.sum()+u.sum()).backward()

@pytest.mark.parametrize('form', ['mse','cosine','von_mises'])
def test_mixture(form):
    "The gradient of a mixture's loss is the mixture of the gradients"
    loss,g = U1Loss(class_angles(4), form, 'sum'),generator(2)
    u,p = torch.randn(6, 2, generator=g, dtype=torch.float64, requires_grad=True),torch.rand(6, 4, generator=g, dtype=torch.float64)
    p = p/p.sum(1, keepdim=True)
    grad = lambda l: torch.autograd.grad(l, u)[0]
    torch.testing.assert_close(grad(loss(u, p)), sum(p[:,k:k+1]*grad(loss(u, torch.full((6,), k))) for k in range(4)))

def test_an_error_leaves_nothing_behind():
    net = attach_u1(Small(), size=8)
    with pytest.raises(RuntimeError): net(torch.zeros(1, 2, 8, 8), u1=True)
    assert not net.u1._asked and net(torch.zeros(1, 1, 8, 8)).shape==(1,3) and net(torch.zeros(2, 1, 8, 8), u1=True)[1].shape==(2,2)
    with pytest.raises(ValueError, match="no layer 'c'"): attach_u1(Small(), size=8, layer='c')

@pytest.mark.parametrize('where', ['feature','image'])
def test_compiled_network(where):
    net = attach_u1(Small(), where, 8); x = torch.randn(3, 1, 8, 8, generator=generator(0))
    fast = torch.compile(net, backend='aot_eager', fullgraph=True)
    for a,b in ((net(x), fast(x)), *zip(net(x, u1=True), fast(x, u1=True)), (net(x), fast(x))): torch.testing.assert_close(a, b)
    fast(x, u1=True)[1].sum().backward()
    assert all(p.grad is not None for p in net.u1.parameters())

def test_half_and_autocast():
    net = attach_u1(Small(), 'image', 8).bfloat16(); x = torch.randn(3, 1, 8, 8).bfloat16()
    assert net(x, u1=True)[1].dtype==torch.float32
    with torch.autocast('cpu', dtype=torch.bfloat16): assert attach_u1(Small(), size=8)(x.float(), u1=True)[1].dtype==torch.float32

def test_ddp(tmp_path):
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'file://{tmp_path/"rendezvous"}', rank=0, world_size=1)
    try:
        net = nn.parallel.DistributedDataParallel(attach_u1(Small(), size=8))
        for _ in range(2):
            logits,u = net(torch.randn(4, 1, 8, 8), u1=True)
            OneHotU1Loss(class_angles(3))(logits, u, torch.tensor([0,1,2,0])).backward()
        assert net.module.u1.weight.grad.abs().sum()>0
    finally: dist.destroy_process_group()
