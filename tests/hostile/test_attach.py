"An attached network goes wherever a network goes: called, saved, copied, compiled, exported, distributed"
import copy, functools, io, pickle, subprocess, sys
import pytest, timm, torch, torchvision
from torch import nn
from u1nb.core import generator
from u1nb.loss import OneHotU1Loss, attach_u1, class_angles, detach_u1

def block(i, o): return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
def steps(): return block(3, 6), block(6, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)

class Own(nn.Module):
    "A class of one's own, with a keyword of its own"
    def __init__(self):
        super().__init__()
        self.a,self.b,self.fc = block(3, 6),block(6, 8),nn.Linear(8, 5)
    def forward(self, x, scale=1.): return self.fc(self.b(self.a(x)).mean((2,3)))*scale

class Loop(nn.Module):
    "Calls its children one after another, as many tutorials do"
    def __init__(self):
        super().__init__()
        for i,m in enumerate(steps()): self.add_module(f'step{i}', m)
    def forward(self, x):
        for m in self.children(): x = m(x)
        return x

class Both(nn.Module):
    "A network that always gives both"
    def __init__(self, net):
        super().__init__()
        self.net = net
    def forward(self, x): return self.net(x, u1=True)

class Steps(nn.Sequential):
    "A Sequential with a forward of its own"
    def forward(self, x): return super().forward(x)*2

NETS = dict(sequential=lambda: nn.Sequential(*steps()), own=Own, loop=Loop, steps=lambda: Steps(*steps()),
    nested=lambda: nn.Sequential(nn.Sequential(*steps()[:2]), nn.Sequential(*steps()[2:])),
    torchvision=lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    timm=lambda: timm.create_model('test_resnet', num_classes=5))
X = torch.randn(2, 3, 32, 32, generator=generator(0, 'attach'))

def made(name, where='feature'):
    "A network, what it says of X before, and the same network with its head"
    torch.manual_seed(0)
    net = NETS[name]().eval()
    want = net(X).detach()
    return attach_u1(net, where, 32), want

def says(net, want):
    "Does it say what it said, plainly and when asked, in whatever order?"
    logits,u = net(X, u1=True)
    plain = net(X), net(X), logits, net(X)
    return all(torch.equal(o, want) for o in plain) and u.shape==(2,2) and bool(u.isfinite().all())

def quick(*names): return pytest.mark.parametrize('name', [n if n in names else pytest.param(n, marks=pytest.mark.torture) for n in NETS])
each = pytest.mark.parametrize('name', NETS)

@each
@pytest.mark.parametrize('where', ['feature','image'])
def test_plain_and_asked(trial, name, where):
    "A Sequential ran the head as its last step; a class that calls its children did, too"
    net,want = made(name, where)
    trial(lambda: says(net, want), bool)
    assert type(net) is type(NETS[name]()), 'the class is its own'
    trial(lambda: net.train()(X, u1=True)[1].sum().backward() or net.u1.train().eval(), lambda _: all(
        p.grad is not None for p in net.u1.parameters()))
    trial(lambda: detach_u1(net.eval()) and 'u1' not in dict(net.named_modules()), bool)

@each
def test_states(trial, name):
    "A state dict, as files of before hold them, goes into a network that is attached anew"
    net,want = made(name)
    keys = list(NETS[name]().state_dict())
    assert list(net.state_dict())==keys+['u1.weight','u1.bias']
    fresh = attach_u1(NETS[name](), size=32, seed=5).eval()
    trial(lambda: fresh.load_state_dict(net.state_dict()), lambda r: not r.missing_keys+r.unexpected_keys)
    trial(lambda: fresh(X, u1=True), lambda o: torch.equal(o[0], want) and torch.equal(o[1], net(X, u1=True)[1]))

@pytest.fixture
def trial(trial): return functools.partial(trial, kinds=())       # nothing is to be refused here

def saved(net):
    f = io.BytesIO()
    torch.save(net, f)
    f.seek(0)
    return torch.load(f, weights_only=False)

WAYS = dict(save=saved, deepcopy=copy.deepcopy, pickle=lambda net: pickle.loads(pickle.dumps(net)),
    twice=lambda net: copy.deepcopy(saved(net)), asked_before=lambda net: net(X, u1=True) and copy.deepcopy(net.eval()))

@quick('sequential','own')
@pytest.mark.parametrize('way', WAYS)
def test_whole(trial, name, way):
    "An attached network could not be saved whole: its class was made on the fly"
    net,want = made(name)
    with torch.no_grad(): net(X, u1=True)
    def go():
        twin = WAYS[way](net.requires_grad_(False)).eval()
        with torch.no_grad(): twin.u1.bias += 1
        apart = torch.allclose(twin(X, u1=True)[1], net(X, u1=True)[1]+1, atol=1e-5)
        fine = says(twin, want) and says(net, want)
        return apart and fine and not hasattr(detach_u1(twin), 'u1') and torch.equal(twin(X), want) and says(net, want)
    trial(go, bool)

OTHER = """import sys, torch; sys.path.insert(0, {tests!r})
net = torch.load({file!r}, weights_only=False)
x = torch.ones(1, 3, 32, 32)
print(net(x).shape, net(x, u1=True)[1].shape)"""

@pytest.mark.torture
@pytest.mark.parametrize('name', ['own','sequential'])
def test_whole_in_another_process(trial, name, tmp_path):
    "A network that was saved whole is loaded where nothing of u1nb was imported yet"
    net,file = made(name)[0],tmp_path/'net.pt'
    torch.save(net, file)
    from pathlib import Path
    code = OTHER.format(file=str(file), tests=str(Path(__file__).parent))
    def go(): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=100)
    trial(go, lambda p: p.returncode==0 and '[1, 5]' in p.stdout and '[1, 2]' in p.stdout)

@quick('sequential','own')
def test_compiled(trial, name):
    "torch.compile, whole graphs, asked and not"
    net,want = made(name)
    torch.compiler.reset()
    fast = torch.compile(net, backend='aot_eager', fullgraph=True)
    def near(a, b): return torch.allclose(a, b, atol=1e-5)
    trial(lambda: fast(X), lambda o: near(o, want))
    trial(lambda: fast(X, u1=True), lambda o: near(o[0], want) and near(o[1], net(X, u1=True)[1]))
    trial(lambda: fast(X), lambda o: near(o, want))

@quick('sequential','own')
def test_exported(trial, name):
    "torch.export, plain, and asked by a module around it: export knows the keywords of `forward` only"
    net,want = made(name)
    u = net(X, u1=True)[1]
    def exported(net): return torch.export.export(net, (X,), strict=False).module()(X)
    def near(a, b): return torch.allclose(a, b, atol=1e-5)
    trial(lambda: exported(net), lambda o: near(o, want))
    trial(lambda: exported(Both(net)), lambda o: near(o[0], want) and near(o[1], u))

@pytest.fixture(scope='module')
def gloo(tmp_path_factory):
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'file://{tmp_path_factory.mktemp("gloo")/"meet"}', rank=0, world_size=1)
    yield
    dist.destroy_process_group()

@quick('sequential','own','timm')
def test_ddp(trial, name, gloo):
    "DistributedDataParallel, two steps and a plain call"
    net,want = made(name)
    many = nn.parallel.DistributedDataParallel(net)
    def step():
        logits,u = many(X, u1=True)
        OneHotU1Loss(class_angles(5))(logits, u, torch.tensor([0,3])).backward()
        return torch.equal(logits, want) and float(net.u1.weight.grad.abs().sum())>0
    trial(step, bool)
    trial(step, bool)
    trial(lambda: many(X), lambda o: torch.equal(o, want))

def test_slices(trial):
    "Parts of a Sequential, and a Sequential of its parts, run"
    net,want = made('sequential')
    trial(lambda: nn.Sequential(*net)(X), lambda o: torch.equal(o, want))
    trial(lambda: nn.Sequential(*net.children())(X), lambda o: torch.equal(o, want))
    trial(lambda: net[:2](X).shape, lambda s: s==(2,8,8,8))

def test_others(trial):
    "Keywords of its own, a forward that was replaced, averaged weights, functional calls, an error between"
    net,want = made('own')
    trial(lambda: net(X, scale=2., u1=True)[0], lambda o: torch.equal(o, want*2))
    trial(lambda: torch.func.functional_call(net, dict(net.named_parameters()), (X,), dict(u1=True)), lambda o: torch.equal(o[0], want))
    mean = torch.optim.swa_utils.AveragedModel(net).eval()
    trial(lambda: mean(X, u1=True)[0], lambda o: torch.equal(o, want))
    with pytest.raises(RuntimeError): net(X[:,:2], u1=True)
    trial(lambda: says(net, want), bool)
    trial(lambda: attach_u1(net), names='has a `u1` already', kinds=ValueError)
    bare = Own().eval()
    was,bare.forward = bare(X),bare.forward                # as Accelerate wraps it
    trial(lambda: says(attach_u1(bare, size=32), was), bool)
