"`activations`, `observe` and the energy measures against plain hooks and float64 numpy, on networks of several families"
import numpy as np, pytest, torch
from u1nb.core import generator
from u1nb.energy import EnergyMap, concentration, encircled_energy
from u1nb.extract import activations, observe
from u1nb.models import bottlenecks, calibrate_bn, pretrained

NETS = [('resnet18',96), ('densenet121',64), ('squeezenet1_1',96), ('shufflenet_v2_x0_5',64), ('googlenet',96), ('mobilenet_v3_small',96), ('timm/tf_efficientnet_lite0',96), ('timm/convnext_atto',64), ('timm/resnetv2_50',64)]

def hooked(model, x, layer):
    "What one call of one module returns, copied at once"
    got = []
    h = model.get_submodule(layer.name).register_forward_hook(lambda m,i,o: got.append(o.detach().clone()))
    with torch.no_grad(): model(x)
    h.remove()
    return got[layer.call].double().numpy()

@pytest.mark.parametrize('name,size', NETS)
def test_against_hooks_and_numpy(name, size):
    net,_ = pretrained(name, weights=None)
    x = torch.randn(6, 3, size, size, generator=generator(0, name))
    net = calibrate_bn(net, torch.randn(16, 3, size, size, generator=generator(1)))
    layers = bottlenecks(net, size)
    acts = activations(net, x, layers)
    obs = observe(net, x, layers, EnergyMap(), batch_size=4)
    assert sum(len(m._forward_hooks) for m in net.modules())==0
    for l in layers:
        want = hooked(net, x, l)
        assert acts[l.key].shape==want.shape==(6,l.channels,l.height,l.width)
        np.testing.assert_allclose(acts[l.key].numpy(), want, rtol=1e-4, atol=1e-5*abs(want).max())
        E = (want**2).sum(1)
        p = E/E.sum((1,2), keepdims=True)
        np.testing.assert_allclose(obs.mean(l.key).numpy(), p.mean(0), rtol=1e-2, atol=1e-4*p.mean(0).max())
        H,W = E.shape[1:]
        xs,ys = np.meshgrid((2*np.arange(W)+1)/W-1, 1-(2*np.arange(H)+1)/H)
        inside = np.hypot(xs, ys)<=.5+1e-9
        ee = (p*inside).sum((1,2))
        np.testing.assert_allclose(encircled_energy(torch.from_numpy(p), .5).numpy(), ee, rtol=1e-12)
        if inside.any():
            np.testing.assert_allclose(concentration(torch.from_numpy(p), .5).numpy(), ee/inside.mean(), rtol=1e-12)
            np.testing.assert_allclose(obs.frame(l.key).kappa, ee/inside.mean(), rtol=1e-3)
        else: assert obs.frame(l.key).kappa.isna().all()
