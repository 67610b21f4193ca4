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

def own(rows, model): return rows.one(reading='own', control='head', model=model)

def test_two_networks(here, capsys):
    "Small pictures as they are, splits, marks, the own accuracy first, a loud warning, a second network paired"
    rows = probe('readers:make_swapped', 'pics', 'C6', out='a', compare_model='readers:make', **FEW)
    said,text = capsys.readouterr().out,(here/'a/index.html').read_text()
    swapped,right = own(rows, 'readers:make_swapped'),own(rows, 'readers:make')
    assert right['view'].startswith('32×32 pixels, as they are') and right['value']==1
    assert (right['split'],right['pictures'],right['classes'])==('valid',24,3)        # memory from train, test from val
    assert swapped['value']==0 and swapped['reordered']==1 and 'Likely cause: the order of classes' in ' '.join(said.split())
    d = rows.where(reading='compared')
    assert d.one(control='head')['value']==-1 and d.one(control='given')['other']=='readers:make'
    assert said.index('own accuracy')<said.index('\nC6') and 'n=24, K=3' in said and all(len(l)<=100 for l in said.splitlines())
    assert 0<text.index('role="alert"')<text.index('own accuracy 1')<text.index('data:image/jpeg')<text.index('<table')
    assert text.count('data:image/jpeg')==2 and 'few classes: 3</mark>' in text and (here/'a/accuracy_2.png').exists()
    assert 'readers:make_swapped less readers:make' in said and 'id="symbols"' in text

@pytest.mark.parametrize('size,view,low', [(None,'32×32 pixels, as they are',False), (224,'224×224 pixels, resized whole',True)])
def test_own_accuracy_and_size(here, size, view, low):
    "`--size` overrides, and the harm that it does is a warning"
    val,train = images('pics'),images('pics', 'train')
    rows,net = Results(),network('readers:make', transform=plain_transform(val, size))
    r = Study(net, Sets(val, 'pics', memory=train), head=cli._own_outputs(net, val.classes)).own_row(rows)
    assert r['view'].startswith(view) and (r['value']<.7)==low==any('WARNING' in l for l in first_lines(rows))

def test_outputs_that_are_no_classes(here):
    net = network('readers:make_two', transform=plain_transform(images('pics')))
    assert cli._own_outputs(net, images('pics').classes) is None
    rows = Results()
    Study(net, Sets(images('pics'), memory=images('pics', 'train'))).own_row(rows)
    assert rows[0]['key']=='not_asked' and 'own accuracy unknown' in first_lines(rows)[0]

def test_a_transform_of_its_own_is_not_overruled(here):
    (here/'brings_its_own.py').write_text(NET+'def both(): return Reader(), lambda img: 0\n')
    with pytest.raises(ValueError, match='its own transform'): network('brings_its_own:both', size=64)

@pytest.mark.parametrize('extra', ['pics/notes/a','pics/train','.'])
def test_splits_beside_other_folders(here, extra):
    "Other folders, stray pictures, and a folder around the splits change nothing"
    if extra!='.':
        (here/extra).mkdir(parents=True, exist_ok=True)
        stripes(3, 0).save(here/extra/'x.png')
    else: (here/'pics').rename(here/'inner'); (here/'pics').mkdir(); (here/'inner').rename(here/'pics/inner')
    given,train = images('pics'),images('pics', 'train')
    assert (given.split,len(given),train.split,len(train),given.classes)==('valid',24,'train',30,['0','1','2'])
