"On a GPU the pass gives the numbers of the CPU"
import pytest, torch
from u1nb.core import generator, test_tensor
from u1nb.energy import EnergyMap
from u1nb.extract import observe
from u1nb.models import bottlenecks, calibrate_bn, pretrained

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_observe_on_gpu():
    net,_ = pretrained('resnet18', weights=None)
    x = torch.randn(8, 3, 224, 224, generator=generator(0))
    net = calibrate_bn(net, x)
    layers = bottlenecks(net)
    a,b = (observe(net, x, layers, EnergyMap(), device=d) for d in ('cpu','cuda'))
    for l in layers: test_tensor(b.mean(l.key), a.mean(l.key), tol=1e-3)
