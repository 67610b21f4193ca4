"On a GPU the pass gives the numbers of the CPU"
import pytest, torch
from u1nb.core import generator, test_tensor
from u1nb.energy import EnergyMap
from u1nb.extract import Collect, load_pass, observe
from u1nb.models import bottlenecks, calibrate_bn, pretrained

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_observe_on_gpu(tmp_path):
    net,_ = pretrained('resnet18', weights=None)
    x = torch.randn(40, 3, 224, 224, generator=generator(0))
    net = calibrate_bn(net, x)
    layers = bottlenecks(net)
    (a,at),(b,bt) = (observe(net, x, layers, [EnergyMap(),Collect(taps=lambda a: a)], device=d, save=tmp_path/d) for d in ('cpu','cuda'))
    for l in layers:
        test_tensor(b.mean(l.key), a.mean(l.key), tol=1e-3)
        assert abs(bt.taps[l.key]-at.taps[l.key]).max()<=1e-4*abs(at.taps[l.key]).max()
    load_pass(tmp_path/'cuda', again:=[EnergyMap(),Collect(taps=lambda a: a)])
    test_tensor(again[0].mean(), b.mean())

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('precision', ['no','bf16','fp16'])
def test_training_on_gpu(precision, tmp_path):
    "Pictures live there, the loss goes down, a finished run is read back, and the batches are the CPU's"
    from u1nb.data import images
    from u1nb.loss import OneHotU1Loss, attach_u1, class_angles
    from u1nb.nets import build
    from u1nb.train import Resident, decode, fit, restore
    a,b = decode(images('digits'), 8).hold_out(.3)
    data = Resident(a, 64, flip=True, translate=1, seed=1)
    first = next(data.epoch(3))
    f = fit(attach_u1(build('fastnet_small', 10, 8), size=8), data, Resident(b, like=data), OneHotU1Loss(class_angles(10), .1), epochs=6,
            precision=precision, ema=.9, out=tmp_path/'run', device='cuda', progress=False)
    assert data.pictures.x.is_cuda and f.scores.accuracy>.8 and f.rows[-1]['loss']<f.rows[0]['loss']
    there = next(data.epoch(3))
    assert torch.equal(there.index.cpu(), first.index) and torch.equal(there.mirrored.cpu(), first.mirrored)
    test_tensor(there.x.cpu(), first.x, tol=1e-5)
    net,_,_ = restore(tmp_path/'run')
    x = next(Resident(b, 64, like=data).to('cpu').epoch()).x
    with torch.no_grad(): test_tensor(net(x), f.model.cpu()(x), tol=1e-3)
