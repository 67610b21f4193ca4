"The probe on one's own network: right without a manual"
import math
import numpy as np, pytest
from PIL import Image
from u1nb import cli
from u1nb.cli import probe
from u1nb.core import Results, rng
from u1nb.data import images
from u1nb.report import first_lines
from u1nb.study import Sets, Study, network, plain_transform

#: a network that tells stripes by their period in pixels, so that it is right on pictures of their own size only
NET = '''
import math, torch
from torch import nn
class Reader(nn.Module):
    def __init__(self, order=(0,1,2)):
        super().__init__()
        t,self.order = torch.arange(13)-6,list(order)
        w = torch.stack([torch.exp(2j*math.pi*t/p)*torch.hann_window(13) for p in (3,5,8)])
        w = (w-w.mean(1, keepdim=True))/w.abs().norm(dim=1, keepdim=True)
        self.conv,self.bn = nn.Conv2d(3, 6, (1,13), 2, (0,6), bias=False),nn.BatchNorm2d(6)
        self.conv.weight.data = torch.cat([w.real,w.imag])[:,None,None].expand(6, 3, 1, 13).clone()
    def forward(self, x): return self.bn(self.conv(x)).square().mean((2,3)).reshape(-1, 2, 3).sum(1)[:,self.order]
def make(): return Reader()
def make_swapped(): return Reader((2,0,1))
def make_two(): return nn.Sequential(Reader(), nn.Linear(3, 2))
'''
FEW = dict(quick=True, cells=6, controls=20, seeds=1, sites=20, device='cpu')

def stripes(period, i):
    x = 127.5+120*np.cos(2*math.pi*(np.arange(32)[None]/period+rng(i, 'stripes').random()))
    return Image.fromarray(np.broadcast_to(x[...,None], (32,32,3)).astype(np.uint8))

@pytest.fixture
def here(tmp_path, monkeypatch):
    "A module of networks and a folder of splits, beside which a run is started"
    (tmp_path/'readers.py').write_text(NET)
    for k,p in enumerate((3,5,8)):
        for split,n in dict(train=10, val=8).items():
            (tmp_path/f'pics/{split}/{k}').mkdir(parents=True)
            for i in range(n): stripes(p, i+100*(split=='val')).save(tmp_path/f'pics/{split}/{k}/{i}.png')
    monkeypatch.chdir(tmp_path)
    return tmp_path

def own(rows): return rows.one(reading='own', control='head')

def test_pictures_of_their_own_size(here, capsys):
    "Without a transform small pictures are taken as they are; `--size` overrides, and its harm is a loud warning"
    rows = probe('readers:make', 'pics', 'C6', out='a', **FEW)
    r,said = own(rows),capsys.readouterr().out
    assert r['value']==1 and r['view'].startswith('32×32 pixels, as they are') and 'WARNING' not in said
    assert r['split']=='valid' and r['pictures']==24 and r['classes']==3          # memory from train, test from val
    assert said.index('own accuracy 1')<said.index('\nC6') and 'n=24, K=3' in said and all(len(l)<=100 for l in said.splitlines())
    text = (here/'a/index.html').read_text()
    assert 0<text.index('own accuracy')<text.index('data:image/jpeg')<text.index('<table') and 'few classes: 3</mark>' in text
    big = probe('readers:make', 'pics', 'C6', out='b', size=224, **FEW)
    assert own(big)['value']<.7 and 'WARNING' in capsys.readouterr().out and 'role="alert"' in (here/'b/index.html').read_text()

def test_order_of_classes_and_two_networks(here, capsys):
    "Outputs in another order are named as the cause; a second network stands beside, paired picture by picture"
    rows = probe('readers:make_swapped', 'pics', 'C1,C6', out='c', compare_model='readers:make', **FEW)
    r,said = own(rows.where(model='readers:make_swapped')),capsys.readouterr().out
    assert r['value']==0 and r['reordered']==1 and 'Likely causes: the order of classes' in ' '.join(said.split())
    d = rows.where(reading='compared')
    assert {(o['key'],o['control']):o['value'] for o in d}[('accuracy','head')]==-1 and {o['other'] for o in d}=={'readers:make'}
    assert d.one(key='kappa')['value']==pytest.approx(0, abs=1e-6) and d.one(key='accuracy', control='given')['n']==24
    text = (here/'c/index.html').read_text()
    assert text.count('data:image/jpeg')==2 and 'readers:make_swapped less readers:make' in text and (here/'c/map_2.png').exists()

def test_outputs_that_are_no_classes(here):
    net = network('readers:make_two', transform=plain_transform(images('pics')))
    assert cli._own_outputs(net, images('pics').classes) is None
    rows = Results()
    Study(net, Sets(images('pics'), memory=images('pics', 'train'))).own_row(rows)
    assert rows[0]['key']=='not_asked' and 'own accuracy unknown' in first_lines(rows)[0]

def test_a_transform_of_its_own_is_not_overruled(here):
    (here/'readers.py').write_text(NET+'def both(): return Reader(), lambda img: 0\n')
    with pytest.raises(ValueError, match='its own transform'): network('readers:both', size=64)

@pytest.mark.parametrize('extra', ['pics/notes/a','pics/train','.'])
def test_splits_beside_other_folders(here, extra):
    "Other folders, stray pictures, and a folder around the splits change nothing"
    if extra!='.':
        (here/extra).mkdir(parents=True, exist_ok=True)
        stripes(3, 0).save(here/extra/'x.png')
    else: (here/'pics').rename(here/'inner'); (here/'pics').mkdir(); (here/'inner').rename(here/'pics/inner')
    given,train = images('pics'),images('pics', 'train')
    assert (given.split,len(given),train.split,len(train),given.classes)==('valid',24,'train',30,['0','1','2'])
