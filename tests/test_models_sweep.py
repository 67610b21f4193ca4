"""`bottlenecks` and the twins over the families of torchvision and timm, and over odd networks of one's own: facts of the architectures, random weights"""
import warnings
import pytest, torch
from torch import nn
from torch.nn import functional as F
from u1nb.core import generator
from u1nb.models import bottlenecks, calibrate_bn, pretrained, random_twin
from u1nb.padding import padded_convs, with_padding

torch.set_num_threads(1)
pyramid = [112,56,28,14,7]

# network, size, C of the bottleneck, sizes of the layers, receptive field where the literature or arithmetic gives it (None: not asserted)
FAMILIES = [
    ('alexnet', 224, 256, [55,27,13,6], 195), ('vgg11', 224, 512, [224,*pyramid], 150), ('vgg16', 224, 512, [224,*pyramid], 212), ('vgg11_bn', 224, 512, [224,*pyramid], 150),
    ('resnet18', 224, 512, pyramid, 435), ('resnet18', 448, 512, [224,112,56,28,14], 435), ('resnet50', 224, 2048, pyramid, 427), ('resnext50_32x4d', 224, 2048, pyramid, 427),
    ('densenet121', 224, 1024, pyramid, 2071), ('googlenet', 224, 1024, pyramid, None), ('inception_v3', 299, 2048, [149,147,73,71,35,17,8], 1311), ('inception_v3', 224, 2048, [111,109,54,52,25,12,5], 1311),
    ('mobilenet_v2', 224, 1280, pyramid, 491), ('mobilenet_v3_small', 224, 576, pyramid, None), ('mobilenet_v3_large', 224, 960, pyramid, None),
    ('efficientnet_b0', 224, 1280, pyramid, 851), ('efficientnet_v2_s', 224, 1280, pyramid, None), ('shufflenet_v2_x1_0', 224, 1024, pyramid, None),
    ('squeezenet1_0', 224, 512, [109,54,27,13], None), ('squeezenet1_1', 224, 512, [111,55,27,13], None), ('convnext_tiny', 224, 768, [56,28,14,7], 1688),
    ('regnet_y_400mf', 224, 440, pyramid, None), ('regnet_x_400mf', 224, 400, pyramid, None), ('mnasnet0_5', 224, 1280, pyramid, None),
    ('timm/resnet18', 224, 512, pyramid, 435), ('timm/vgg11', 224, 512, [224,*pyramid], 150), ('timm/densenet121', 224, 1024, pyramid, 2071), ('timm/inception_v3', 299, 2048, [149,147,73,71,35,17,8], 1311),
    ('timm/mobilenetv3_small_100', 224, 576, pyramid, None), ('timm/efficientnet_b0', 224, 1280, pyramid, 851), ('timm/tf_efficientnet_lite0', 224, 1280, pyramid, 851), ('timm/convnext_atto', 224, 320, [56,28,14,7], None),
    ('timm/regnety_004', 224, 440, pyramid, None), ('timm/resnetv2_50', 224, 2048, pyramid, 427), ('timm/nf_resnet26', 224, 2048, pyramid, None), ('timm/hrnet_w18_small', 224, 2048, None, None),
    ('timm/mixnet_s', 224, 1536, pyramid, None), ('timm/ghostnet_100', 224, 960, pyramid, None), ('timm/resnet26d', 224, 2048, pyramid, None), ('resnet18', (160,224), 512, [80,40,20,10,5], 435),
]

@pytest.mark.parametrize('name,size,channels,heights,field', FAMILIES, ids=[f'{a}@{b}' for a,b,*_ in FAMILIES])
def test_family(name, size, channels, heights, field):
    model,_ = pretrained(name, weights=None)
    layers = bottlenecks(model, size)
    last = layers[-1]
    assert last.channels==channels
    if heights: assert [o.height for o in layers]==heights
    if isinstance(size, int): assert all(o.height==o.width for o in layers)
    else: assert (last.height,last.width)==tuple(o//32 for o in size)
    if field: assert last.receptive_field==field and 0<last.outside<1
    assert last.stride*(last.height-1)<=(size if isinstance(size, int) else size[0])
    assert [o.stride for o in layers]==sorted(o.stride for o in layers)
    # a layer's key is a module whose hook sees exactly that tensor, and everything after depends on it alone: replace it by a fixed one and the picture no longer matters
    kept = []
    def swap(m, a, out):
        kept.append(out.shape)
        return torch.linspace(0, 1, out.numel()).view(out.shape)
    if last.calls==1:
        h = model.get_submodule(last.name).register_forward_hook(swap)
        sz = (size,size) if isinstance(size, int) else size
        with torch.inference_mode(): y = model(torch.cat([torch.zeros(1,3,*sz), torch.ones(1,3,*sz)])[:1]), model(torch.rand(1,3,*sz))
        h.remove()
        assert kept[0]==(1,last.channels,last.height,last.width)
        torch.testing.assert_close(*y)

@pytest.mark.parametrize('name,size', [('vit_b_32',224), ('timm/vit_tiny_patch16_224',224), ('timm/mixer_s32_224',224), ('timm/swin_tiny_patch4_window7_224',224)])
def test_tokens_are_refused(name, size):
    with pytest.raises(ValueError, match='is no CNN'): bottlenecks(pretrained(name, weights=None)[0], size)

@pytest.mark.parametrize('name', ['mobilenet_v2', 'convnext_tiny', 'timm/tf_efficientnet_lite0', 'timm/mixnet_s'])
def test_receptive_field_is_where_gradients_are(name):
    "The pixels that move the middle site span the receptive field, for the layers whose field fits the picture"
    model,_ = pretrained(name, weights=None)
    model = calibrate_bn(model, torch.rand(4,3,96,96, generator=generator(0))) if name!='convnext_tiny' else model
    if name=='convnext_tiny':
        for n,p in model.named_parameters():
            if 'layer_scale' in n: p.data.fill_(1.)
    done = 0
    for o in bottlenecks(model):
        if o.receptive_field is None or o.receptive_field>200 or o.calls>1: continue
        kept = {}
        h = model.get_submodule(o.name).register_forward_hook(lambda m,a,out: kept.update(out=out))
        x = torch.rand(1,3,224,224, generator=generator(1)).requires_grad_()
        model(x); h.remove()
        g, = torch.autograd.grad(kept['out'][0,:,o.height//2,o.width//2].square().sum(), x)
        if name=='timm/mixnet_s' and o.height<112: continue  # squeeze-excite gates see everything
        seen = g.abs().sum((0,1)).nonzero()
        assert (seen.max(0)[0]-seen.min(0)[0]+1).tolist()==[o.receptive_field]*2
        done += 1
    assert done

def nin(last, *tail): return nn.Sequential(nn.Conv2d(3,8,3,2,1), nn.ReLU(), last, *tail, nn.AdaptiveAvgPool2d(1), nn.Flatten())

def test_scores_are_no_layer_and_headless_keep_their_last():
    size = lambda m,s=32: [(o.key,o.channels,o.height) for o in bottlenecks(m, s)]
    assert size(nin(nn.Conv2d(8,10,1)))==[('1',8,16)]
    assert size(nin(nn.Conv2d(8,10,1), nn.ReLU(), nn.Dropout()))==[('1',8,16)]
    assert size(nin(nn.Conv2d(8,10,3)))==[('1',8,16)]                        # nothing but pooling after it
    assert size(nin(nn.Conv2d(8,10,3,2,1), nn.ReLU()))==[('1',8,16),('3',10,8)]
    assert size(nin(nn.Conv2d(8,10,1,2), nn.BatchNorm2d(10), nn.ReLU()))==[('1',8,16),('4',10,8)]
    assert size(nn.Sequential(nn.Conv2d(3,8,3,2,1), nn.ReLU()))==[('1',8,16)]
    for m in (pretrained('resnet18', None)[0], ): m.fc = nn.Identity(); assert size(m, 64)[-1]==('layer4',512,2)
    import timm
    assert size(timm.create_model('resnet18', num_classes=0), 64)[-1]==('layer4',512,2)
    assert size(timm.create_model('tf_efficientnet_lite0', num_classes=0), 64)[-1][1:]==(1280,2)
    assert size(timm.create_model('resnet18', features_only=True), 64)[-1]==('layer4',512,2)

class Odd(nn.Module):
    "chunk, a shared ReLU, a gate, a tuple output, one colour channel, something frozen"
    def __init__(self):
        super().__init__()
        self.stem,self.left,self.mix,self.act,self.gate,self.idle,self.head = nn.Conv2d(1,8,5,padding=2), nn.Conv2d(4,4,3,padding=1), nn.Conv2d(8,8,3,2,1), nn.ReLU(True), nn.Linear(8,8), nn.Identity(), nn.Linear(8,3)
        self.requires_grad_(False)
    def forward(self, x):
        x = self.act(self.stem(x))
        a,b = x.chunk(2,1)
        x = self.act(torch.cat([self.left(a),b],1))
        x = self.act(self.mix(x))
        x = self.idle(x*self.gate(x.mean((2,3))).sigmoid()[:,:,None,None])
        return self.head(x.mean((2,3))), x.mean((2,3))

@pytest.mark.parametrize('context', [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_a_network_of_ones_own(context):
    m = Odd().train()
    state = torch.get_rng_state()
    with context(): layers = bottlenecks(m, 28)
    assert [(o.key,o.channels,o.height,o.receptive_field) for o in layers]==[('act:1',8,28,7),('act:2',8,14,9)]
    assert m.training and not any(p.requires_grad for p in m.parameters()) and not m.act._forward_hooks and torch.equal(state, torch.get_rng_state())
    assert 'act:2' in repr(layers) and '<table' in layers._repr_html_() and len(set(layers))==2

def test_random_twin_and_calibration():
    for name in ('resnet18', 'timm/tf_efficientnet_lite0'):
        m,_ = pretrained(name, None)
        t = random_twin(m, 3)
        a,b = dict(m.named_parameters()),dict(t.named_parameters())
        assert all((a[k]!=b[k]).any() for k in a if a[k].ndim>1)
        c = calibrate_bn(t, torch.rand(5,3,64,64, generator=generator(0)), batch_size=2)
        assert all(torch.equal(p,q) for p,q in zip(c.parameters(), t.parameters())) and not torch.equal(dict(c.named_buffers())['bn1.running_mean'], dict(t.named_buffers())['bn1.running_mean'])
    with pytest.raises(ValueError, match='layer_scale'): random_twin(pretrained('convnext_tiny', None)[0])
    lin = nn.Sequential(nn.Linear(2,2))
    assert torch.equal(calibrate_bn(lin, torch.rand(2,2)).state_dict()['0.bias'], lin[0].bias)

class Functional(nn.Module):
    "an F.conv2d of its own around a child that must be left alone, and a functional pad before an average pool in another child"
    def __init__(self):
        super().__init__()
        self.w,self.child = nn.Parameter(torch.randn(3,3,3,3, generator=generator(0))), nn.Conv2d(3,3,3,padding=1)
    def forward(self, x): return self.child(F.conv2d(F.pad(x, (1,1,1,1)), self.w))

class Unusual(nn.Module):
    def __init__(self):
        super().__init__()
        from timm.layers import Conv2dSame, CondConv2d, MixedConv2d, ScaledStdConv2dSame, StdConv2dSame, StdConv2d
        self.a,self.b,self.c,self.d,self.e = Conv2dSame(3,4,3,2), StdConv2dSame(4,4,3), ScaledStdConv2dSame(4,4,3), MixedConv2d(4,4,[3,5]), StdConv2d(4,4,3,padding=1)
        self.f,self.g,self.h = CondConv2d(4,4,3,padding=1), nn.Conv2d(4,4,(1,4),padding='same'), nn.Conv2d(4,4,3,padding=1,padding_mode='circular')
    def forward(self, x):
        x = self.e(self.d(self.c(self.b(self.a(x)))))
        return self.h(self.g(self.f(x, torch.ones(len(x),4)/4)))

@pytest.mark.filterwarnings('ignore:Using padding')
@pytest.mark.parametrize('make,n', [(Unusual,9), (Functional,2)])
def test_padding_each_alone(make, n):
    with torch.random.fork_rng(): torch.manual_seed(0); m = make().eval()
    x,names = torch.rand(2,3,32,32, generator=generator(2)), padded_convs(m, 32)
    assert len(names)==n
    with torch.inference_mode():
        ref,everything = m(x), with_padding(m, 'replicate', size=32)
        step = m
        for k in names:
            one = with_padding(m, 'replicate', only=[k], size=32).to(memory_format=torch.channels_last)
            assert (one(x)-ref).abs().max()>1e-5, k
            step = with_padding(step, 'replicate', only=k, size=32)   # one after the other is all at once
        torch.testing.assert_close(step(x), everything(x))
        torch.testing.assert_close(m(x), ref, rtol=0, atol=0)
        flat = everything(torch.full((1,3,32,32), .3))
        assert (flat-flat.mean((2,3), keepdim=True)).abs().max()<1e-5*(1+flat.abs().max())

def test_lite0_same_padding_each_alone():
    m,_ = pretrained('timm/tf_efficientnet_lite0', None)
    m = calibrate_bn(m, (pictures:=torch.rand(4,3,64,64, generator=generator(0))))
    names = padded_convs(m, 64)
    assert len(names)==17 and sum(type(m.get_submodule(k)).__name__=='Conv2dSame' for k in names)==5
    with torch.inference_mode():
        ref = m(pictures)
        for k in names[::4]+['conv_stem']: assert (with_padding(m, 'replicate', only=k, size=64)(pictures)-ref).abs().max()>1e-6*ref.abs().max(), k
        f = with_padding(m, 'replicate', size=64).forward_features(torch.full((1,3,64,64), .2))
        assert f.std((2,3)).max()<1e-3*f.std()

def test_what_cannot_be_repadded_is_an_error():
    class Both(nn.Module):
        def __init__(self): super().__init__(); self.w = nn.Parameter(torch.ones(3,3,3,3))
        def forward(self, x): return F.avg_pool2d(F.pad(F.conv2d(x, self.w, padding=1), (1,1,1,1)), 3)
    with pytest.raises(ValueError, match='for a convolution and for something else'): with_padding(Both(), 'reflect', size=8)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        script = nn.Sequential(torch.jit.script(nn.Conv2d(3,3,3,padding=1)))
    with pytest.raises(ValueError, match='cannot be changed.*ScriptModule'): with_padding(script, 'reflect', size=8)
