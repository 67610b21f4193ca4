"Killed or stopped at any moment, a run ends with the same bits, and nothing is left to repair"
import json, os, random, re, signal, sys, time
from pathlib import Path
import pytest, torch
from forks import begin, end, ranks, right, stop
from u1nb import extract
from u1nb.cli import main, reproduce
from u1nb.core import Results, read_tensors
from u1nb.data import images
from u1nb.energy import EnergyMap
from u1nb.extract import Collect, observe
from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
from u1nb.memory import Memory, pool
from u1nb.nets import build
from u1nb.store import Activations
from u1nb.train import Resident, decode, fit

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a,self.b = torch.nn.Conv2d(3, 8, 3, 1, 1),torch.nn.Conv2d(8, 16, 3, 2, 1)
        self.norm,self.head = torch.nn.BatchNorm2d(8),torch.nn.Linear(16, 10)
    def forward(self, x): return self.head(self.b(self.norm(self.a(x)).relu()).mean((2,3)))

def train(out):
    data = Resident(decode(images('digits', n=200), 8), 16, translate=1, seed=1)
    net = attach_u1(build('fastnet_small', 10, 8, seed=1), size=8)
    fit(net, data, None, OneHotU1Loss(class_angles(10), .1), epochs=10, optimizer='adamw', ema=.9, seed=1, out=out, device='cpu', progress=False, save_minutes=1e-4)

class Made:
    labels = [i%4 for i in range(97)]
    def __len__(self): return 97
    def __getitem__(self, i): return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(i)),i%4

def one_pass(out):
    extract.SAVE_EVERY = .005
    obs = [EnergyMap('all'), Memory(layer='b'), Collect(pooled=pool), Activations(out/'acts', shard=1e5)]
    observe(Net(), Made(), ['a','b'], obs, batch_size=2, device='cpu', save=out/'pass.safetensors')

def report(out):
    reproduce('C2', model=Net(), data='digits', out=out, pictures=40, cells=4, seeds=1, device='cpu')

def memory(out):
    out.mkdir(exist_ok=True)
    for n in (3000, 1500, 3000):
        g = torch.Generator().manual_seed(n)
        Memory().add(torch.randn(n, 64, generator=g), torch.arange(n)%10).save(out/'memory.safetensors')

def bits(file):
    "Tensors of a file as bytes, and its text but what time says"
    t,said = read_tensors(file)
    timed = {k for k in said if k=='rows'}
    rows = [{k:v for k,v in r.items() if 'second' not in k} for r in json.loads(said.get('rows', '[]'))]
    return {k:(v.dtype, v.shape, v.contiguous().flatten().view(torch.uint8).numpy().tobytes()) for k,v in t.items()}, {k:v for k,v in said.items() if k not in timed}, rows

def left(out):
    "Everything that a run left in its folder; rows and tensors by what they say"
    files = sorted(p for p in out.rglob('*') if p.is_file() and not p.name.endswith('.lock') and '.before' not in p.name)
    timed = 'seconds','training_seconds','command','versions'
    def said(p):
        if p.suffix=='.safetensors': return bits(p)
        if p.suffix=='.jsonl': return [{k:v for k,v in r.items() if k not in timed} for r in Results.load(p)]
    return {str(p.relative_to(out)):said(p) for p in files}

def torn(tmp_path, run, kills, right, start=begin, times=10):
    "Killed `kills` times in all, each folder `times` times and then left to end: is it as the undisturbed one?"
    many = lambda out: [p] if not isinstance(p := start(run, out), list) else p
    end(begin(time.sleep, 0))                                    # what is forked from is there
    t0 = time.monotonic()
    assert not any(end(*many(tmp_path/'whole')))
    took,want,r,cut,k = time.monotonic()-t0,left(tmp_path/'whole'),random.Random(0),0,0
    for tries in range(20*kills):
        out = tmp_path/f'killed{k}'
        dead = any(stop(many(out), r.uniform(0, took/2)))
        cut += dead
        if dead and cut%times and cut<kills: continue
        assert not any(end(*many(out)))
        right(lambda: left(out), lambda got: got==want)
        k += 1
        if cut>=kills: return
    raise AssertionError('no run lived long enough to be killed')

RUNS = [(train, begin), (train, ranks), (one_pass, begin), (one_pass, ranks), (report, begin), (memory, begin)]
IDS = ['train','train 2','pass','pass 2','report','memory']

@pytest.mark.parametrize('k', [pytest.param(k, id=IDS[k], marks=[pytest.mark.torture]*(k not in (0,2,5))) for k in range(6)])
def test_killed(k, tmp_path, many, right):
    "SIGKILL at random moments: the same bits as undisturbed, no file beside them, nothing to repair by hand"
    torn(tmp_path, RUNS[k][0], many(2, 50), right, RUNS[k][1])

TINY = """
import torch
from torchvision.transforms.functional import pil_to_tensor
def make():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 1, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 10))
    return net, lambda img: pil_to_tensor(img.convert('RGB'))/255
"""
COMMANDS = dict(reproduce='--model tiny:make --data digits --claims C2 --pictures 40 --cells 4 --seeds 1 --device cpu --out out',
    train='--data digits --model fastnet_small --n 100 --n-test 50 --seeds 2 --epochs 3 --device cpu --out out/runs.jsonl',
    extract='--model tiny:make --data digits --n 300 --layers 2 --batch-size 2 --device cpu --out out')

def command(name, folder):
    os.chdir(folder)
    sys.path.insert(0, str(folder))                              # spawned interpreters have it there
    main(name, COMMANDS[name].split())

@pytest.mark.parametrize('name,number', [(n, s) for n in COMMANDS for s in (signal.SIGINT, signal.SIGTERM) if (n, s)!=('extract', signal.SIGTERM)])
@pytest.mark.torture
def test_stopped(name, number, tmp_path, many, right):
    "Ctrl-C and SIGTERM end in a sentence that says where the rest is kept, with 130 or 143, and nothing is half written"
    def folder(n):
        d = tmp_path/n
        d.mkdir(exist_ok=True)
        (d/'tiny.py').write_text(TINY)
        return d
    end(begin(time.sleep, 0))
    t0 = time.monotonic()
    assert end(begin(command, name, folder('whole')))==[0]
    took,want,r = time.monotonic()-t0,left(tmp_path/'whole/out'),random.Random(1)
    for k in range(4):
        d = folder(f'{k}')
        p = begin(command, name, d, log=d/'log')
        while p.is_alive() and not list(d.glob('out/.*.holder')): time.sleep(.002)
        code, = stop([p], r.uniform(0, took/2), number)
        said = (d/'log').read_text()
        def ended():
            assert 'Traceback' not in said and 'Exception ignored' not in said and not list(d.rglob('*.part')) and not list(d.rglob('*.holder')), said
            return code, said.splitlines()[-1]
        whole = lambda o: o[0]==0 or o[0]==128+number and re.search(r'u1nb-\w+ was stopped.* out', o[1])
        right(ended, whole)
        assert end(begin(command, name, d))==[0]
        right(lambda: left(d/'out'), lambda got: got==want)
