"Numbers and labels that mean nothing are refused, by what was given and what is allowed; the nearest good ones are taken"
import math, warnings
import numpy as np, pytest, torch
from torch import nn
from u1nb.angle import AngleClassifier, class_bias, equivariance_error, mirror_average, omega2_difference, ring_p
from u1nb.circle import circ_corr, theta
from u1nb.cli import main
from u1nb.core import generator, rng, write_tensors
from u1nb.data import images
from u1nb.energy import EnergyMap, concentration, density, energy_density
from u1nb.loss import OneHotU1Loss, U1Head, U1Loss, attach_u1, class_angles
from u1nb.memory import Memory, drawn_anew, informative, linear_probe
from u1nb.models import calibrate_bn
from u1nb.nets import build
from u1nb.train import Pictures, Resident, Streamed, decode, fit, recipe
from u1nb.trials import task

nan,inf = math.nan,math.inf
REFUSED = (ValueError, TypeError)

@pytest.fixture
def refused(trial):
    "refused(call, names): of a kind that is meant, and saying what was given"
    def go(call, names=()): trial(call, names=names if isinstance(names, (str,list,tuple)) else str(names), kinds=REFUSED)
    return go

@pytest.fixture(scope='module')
def digits(): return decode(images('digits', n=60), 8)

# point 7: the command and the recipe

@pytest.mark.parametrize('words,said', [('--n -5', '-5'), ('--n 0', '0'), ('--n-test 0', '0'), ('--n-test -1', '-1'), ('--lr nan', 'nan'),
    ('--lr inf', 'inf'), ('--lr 0', '0'), ('--lr -0.1', '-0.1'), ('--weight-decay nan', 'nan'), ('--weight-decay -1', '-1'), ('--epochs 0', '0'),
    ('--ema 1', '1'), ('--ema nan', 'nan'), ('--weight nan', 'nan'), ('--weight -1', '-1'), ('--held nan', 'nan'), ('--held 1', '1'),
    ('--label-noise nan', 'nan'), ('--per-class -1', '-1'), ('--per-class 0', '0'), ('--batch-size 0', '0'), ('--size -8', '-8'), ('--size 0', '0'), ('--seeds 0', '0')])
def test_the_command(trial, words, said, tmp_path, capsys):
    "`--n 0` took all pictures, `--n -5` ended in a traceback, `--lr nan` trained until it diverged"
    argv = ['--data','digits','--model','fastnet_small','--epochs','1','--device','cpu','--out',str(tmp_path/'r.jsonl'),*words.split()]
    trial(lambda: main('train', argv), names=said, kinds=SystemExit)
    assert not (tmp_path/'r.jsonl').exists(), 'a refused command leaves no row'

@pytest.mark.parametrize('name,bad', [(k, v) for k,vs in dict(epochs=(0,-1,2.5,nan,'8'), lr=(0,-1,nan,inf,'.1'), weight_decay=(-1e-9,nan,inf),
    ema=(-.1,1,1.5,nan)).items() for v in vs])
def test_recipe(refused, name, bad):
    refused(lambda: recipe(**{name:bad}), [name, bad])

def test_recipe_takes(trial):
    for ok in (dict(epochs=np.int64(3)), dict(lr=1), dict(weight_decay=0), dict(ema=0), dict(ema=.999), dict(lr=np.float32(.1))):
        trial(lambda: recipe(**ok), bool)

def test_task(refused):
    for k in ('n','n_test','size'):
        for v in (0, -5): refused(lambda: task('digits', **{k:v}), [v])

def test_batches(refused, digits):
    for v in (0, -1, 2.5, nan): refused(lambda: Resident(digits, v), [v])
    for v in (0, -1, 9, nan): refused(lambda: Resident(digits, crop=v) if v else Resident(digits, translate=8), [v or 8])
    refused(lambda: Streamed(images('digits'), 8, 0), ['0'])
    refused(lambda: Streamed(images('digits'), 8, 8, workers=-1), ['-1'])
    for v in (0, -8, nan): refused(lambda: decode(images('digits', n=9), v), [v])

# point 7: labels

@pytest.mark.parametrize('bad', [[.9,1.7,-.5], [nan,0,1], [0,1,-1], [0,1,2], [0,1,2**40], [0,1], [[0,1,0]], ['a','b','a'], [1j,0,1]])
def test_labels(refused, bad):
    ".9, 1.7 and -.5 became 0, 1 and 0"
    x = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    refused(lambda: Pictures(x, bad, ['a','b']))
    if bad!=[0,1,2]:
        v = torch.randn(3, 4, generator=generator(0))
        refused(lambda: Memory().add(v, bad))

def test_labels_taken(trial):
    x = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    for y in ([0,1,0], torch.tensor([0,1,1], dtype=torch.uint8), np.array([1,1,1], dtype=np.int32), np.array([0.,1.,0.]), [True,False,True]):
        trial(lambda: Pictures(x, y, ['a','b']).y.dtype, lambda d: d==torch.long)

@pytest.mark.parametrize('bad', [[.9,1.7,-.5], [nan,0,1], [0,1,2**40], [0,1], [1j,0,1]])
def test_labels_of_an_observer(refused, bad):
    "A label of 2⁴⁰ asked for terabytes"
    refused(lambda: EnergyMap().update(dict(a=torch.rand(3, 4, 5, 5)), torch.tensor(bad)))

def test_labels_of_a_memory_file(refused, tmp_path):
    "K=10¹² in a file asked for terabytes; labels below 0, ids too few, rows of another length, NaN came along"
    m = Memory().add(torch.randn(4, 3, generator=generator(0)), [0,1,1,2])
    m.save(tmp_path/'m.safetensors')
    from u1nb.core import read_tensors
    import json
    tensors,text = read_tensors(tmp_path/'m.safetensors')
    said = json.loads(text.pop('memory'))
    def file(said, **other):
        return write_tensors(tmp_path/'bad.safetensors', {k:v for k,v in {**tensors, **other}.items() if v is not None}, **text, memory=said)
    for K in (10**12, -1, 0, 2, 1.5, 'a', None): refused(lambda: Memory.open(file({**said, 'K':K})), 'bad.safetensors')
    for k,v in dict(mode='al', k=0, T=-1, size='x', grid=[2,2], seen=-1, layer=[1]).items():
        refused(lambda: Memory.open(file({**said, k:v})), 'bad.safetensors')
    for name,t in [('labels', torch.tensor([0,1,1,-2])), ('labels', torch.tensor([0,1,1])), ('labels', torch.tensor([0,1,1,2**40])), ('labels', None),
                   ('labels', torch.tensor([0,.5,1,2])), ('ids', torch.tensor([0])), ('ids', None), ('keys', torch.rand(3)), ('rows', torch.rand(4, 3)),
                   ('rows', torch.full((1,4,3), nan)), ('rows', torch.rand(2, 4, 3)), ('rows', torch.zeros(1, 4, 3, dtype=torch.complex64)), ('rows', None)]:
        refused(lambda: Memory.open(file(said, **{name:t})), 'bad.safetensors')
    for drop in said: refused(lambda: Memory.open(file({k:v for k,v in said.items() if k!=drop})), 'bad.safetensors') if drop!='provenance' else None
    for text['memory'] in ('[]', '1', 'x{'):
        refused(lambda: Memory.open(write_tensors(tmp_path/'bad.safetensors', tensors, **text)), 'bad.safetensors')

def test_memory(refused):
    v,y = torch.randn(6, 4, generator=generator(0)),[0,1,0,1,0,1]
    for k in (0, -1, 2.5, nan): refused(lambda: Memory(k=k), k)
    for T in (0, -1, nan, inf, .001): refused(lambda: Memory(T=T), T)
    for n in (0, -1, 2.5): refused(lambda: Memory(size=n), n)
    m = Memory().add(v, y)
    for k in (0, -1): refused(lambda: m.neighbours(v, k=k), k)
    refused(lambda: m.add(v.to(torch.complex64), y), 'complex')
    refused(lambda: m.add(v*nan, y), 'NaN')
    refused(lambda: m.add(v, y, [0,1,2,3,4,-5]), '-5')
    refused(lambda: m.score(v, [.5]*6))
    refused(lambda: linear_probe(v, [.5,1.5]*3, v, y))
    refused(lambda: linear_probe(v, y, v, [.5]*6))
    refused(lambda: drawn_anew(v, y, v, y, draws=0), '0')
    refused(lambda: drawn_anew(v, [.5]*6, v, y))
    a = torch.rand(6, 4, 3, 3)
    refused(lambda: informative(a, [.5]*6, a, y))
    refused(lambda: informative(a, y[:3], a, y))

# point 7: targets and losses

LOGITS,U,Y = torch.zeros(3, 4),torch.zeros(3, 2),torch.tensor([0,1,2])

@pytest.mark.parametrize('p', [[.5,.5,.5,.5], [1,1,-1,0], [2,0,0,0], [0,0,0,0], [nan,1,0,0], [inf,0,0,0]])
def test_soft_targets(refused, p):
    "Soft targets that are no probabilities gave a loss"
    t = torch.tensor([[.25]*4, p, [0,0,0,1]])
    for loss in (U1Loss(class_angles(4)), OneHotU1Loss(class_angles(4)), OneHotU1Loss(None)):
        refused(lambda: loss(U, t) if isinstance(loss, U1Loss) else loss(LOGITS, U, t), 'probabilities')

@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_soft_targets_taken(trial, dtype):
    p = torch.rand(3, 1000, generator=generator(0)).softmax(1).to(dtype)
    trial(lambda: OneHotU1Loss(class_angles(1000))(torch.zeros(3, 1000), U, p), torch.isfinite)
    trial(lambda: OneHotU1Loss(class_angles(4))(LOGITS[:0], U[:0], torch.zeros(0, 4, dtype=dtype)), lambda l: float(l)==0)

def test_losses(refused):
    for w in (nan, inf, -1): refused(lambda: OneHotU1Loss(class_angles(4), w), w)
    for s in (nan, -.1, 1.1): refused(lambda: OneHotU1Loss(class_angles(4), label_smoothing=s), s)
    refused(lambda: U1Loss(torch.tensor([1j,1.])), 'complex')
    refused(lambda: class_angles(2, torch.tensor([1j,1.])), 'complex')
    refused(lambda: class_angles(2, np.array([1j,1.])), 'complex')
    for K in (0, -1, 2.5, nan): refused(lambda: class_angles(K), K)
    refused(lambda: U1Loss(class_angles(4))(U*1j, Y), 'complex')
    refused(lambda: U1Loss(class_angles(4))(U, Y, mirrored=torch.tensor([0,1,0])), 'bool')
    refused(lambda: OneHotU1Loss(class_angles(4))(LOGITS*1j, U, Y), 'complex')
    refused(lambda: OneHotU1Loss(class_angles(4))(LOGITS.long(), U, Y), 'int64')
    for D in (0, -1): refused(lambda: U1Head(4, D=D), D)
    refused(lambda: U1Head(4)(torch.zeros(2, 4, 3, 3)*1j), 'complex')
    refused(lambda: U1Head(4)(torch.zeros(2, 4, 3, 3, dtype=torch.long)), 'int64')

# point 7: networks

def small(): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def test_complex_weights(refused, tmp_path):
    "Complex weights were taken, their imaginary part dropped"
    from u1nb.models import load_weights
    from safetensors.torch import save_file
    save_file({k:v*1j if v.is_floating_point() else v for k,v in small().state_dict().items()}, tmp_path/'complex.safetensors')
    refused(lambda: load_weights(small(), tmp_path/'complex.safetensors'), 'complex')
    for make in (small, lambda: build('fastnet_small', 10, 8)):
        net = make().to(torch.complex64)
        refused(lambda: attach_u1(net, size=8), 'complex')
        refused(lambda: fit(net, Resident(decode(images('digits', n=20), 8), 4), epochs=1, device='cpu', progress=False), 'complex')

def test_complex_activations(refused):
    a = torch.ones(2, 3, 4, 4, dtype=torch.complex64)
    for f in (energy_density, lambda a: EnergyMap().update(dict(a=a)), lambda a: density(a[:,0])): refused(lambda: f(a), 'complex')
    refused(lambda: energy_density(a.real.long()), 'int64')
    refused(lambda: density(torch.full((2,4,4), nan)), 'NaN')
    p = density(torch.ones(2, 4, 4))
    for rho in (nan, -.5): refused(lambda: concentration(p, rho), rho)

def test_pictures_for_batch_norm(refused):
    "NaN pictures gave a network whose batch norm knows NaN"
    for bad in (nan, inf):
        x = torch.rand(4, 3, 8, 8, generator=generator(0))
        x[2,0,0,0] = bad
        refused(lambda: calibrate_bn(small(), x), '2')
    refused(lambda: build('fastnet_small', 10, 8).start(torch.full((4,3,8,8), nan)), 'NaN')

def test_build(refused):
    for K in (0, -1, 2.5, nan): refused(lambda: build('fastnet', K), K)
    for size in (0, -1, nan, 2.5): refused(lambda: build('resnet20', 10, size), size)

# point 7: angles

N = 40
LAB = np.arange(N)%4
Z = rng(0, 'z').normal(size=N)*.1+1j*rng(0, 'w').normal(size=N)*.1

@pytest.mark.parametrize('f', [lambda z: class_bias(z, LAB, n_perm=9), lambda z: omega2_difference(z, Z, LAB), lambda z: omega2_difference(Z, z, LAB),
    lambda z: equivariance_error(z, Z, 'mirrored'), lambda z: equivariance_error(Z, z, 'rotated'), lambda z: mirror_average(z, Z), lambda z: mirror_average(Z, z),
    lambda z: AngleClassifier().fit(z, LAB), lambda z: AngleClassifier().fit(Z, LAB).predict(z), theta, lambda z: theta(torch.tensor(z))])
def test_real_z(refused, f):
    "Real numbers, such as angles, were taken for order parameters that all point along x"
    for z in (np.angle(Z), Z.real, np.arange(N), np.angle(Z).astype(np.float32)): refused(lambda: f(z), 'complex')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        f(Z)
        f(Z.astype(np.complex64))

def test_angles(refused):
    a,b = rng(0, 'a').uniform(-3, 3, (2, N))
    for n in (0, -5, 2.5): refused(lambda: circ_corr(a, b, n_perm=n), n)
    for n in (0, -5, 2.5): refused(lambda: class_bias(Z, LAB, n_perm=n), n)
    for n in (0, -5): refused(lambda: ring_p(a, b, LAB, n_perm=n), n)
    refused(lambda: circ_corr(a*1j, b), 'complex')
    for bad in (inf, -inf):
        c = a.copy()
        c[3] = bad
        refused(lambda: circ_corr(c, b), 'infinite')
        z = Z.copy()
        z[3] = bad
        refused(lambda: class_bias(z, LAB, n_perm=9), 'infinite')

# points 7 and 9: the file of a run

def test_a_poisoned_run(trial, many, tmp_path):
    "NaN or complex weights, tensors or words that lack, another network's: named with the file"
    from u1nb.core import read_tensors
    from u1nb.train import restore
    data = Resident(decode(images('digits', n=40), 8), 20)
    def train(out): return fit(build('fastnet_small', 10, 8), data, epochs=1, out=out, device='cpu', progress=False)
    train(tmp_path/'good')
    trial(lambda: restore(tmp_path/'good')[0], bool)
    tensors,text = read_tensors(tmp_path/'good/run.safetensors')
    k = next(k for k in tensors if k.endswith('head.weight') and k.startswith('model/'))
    other = [({**tensors, k:v}, text) for v in (tensors[k]*nan, tensors[k]*1j, tensors[k][:2], tensors[k]/0.)]
    other += [({o:v for o,v in tensors.items() if o!=k}, text)] + [(tensors, {o:v for o,v in text.items() if o!=w}) for w in text]
    other += [(tensors, {**text, w:'{'}) for w in ('told','rows','recipe','format')]
    for i,(t,words) in enumerate(other[::many(4, 1)]):
        file = write_tensors(tmp_path/f'{i}/run.safetensors', t, **words)
        trial(lambda: restore(file), names=str(file), kinds=ValueError)
        trial(lambda: train(file.parent), names=str(file), kinds=ValueError)
