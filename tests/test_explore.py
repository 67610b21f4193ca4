"What the explorer refuses, and networks with few sites"
import io
import numpy as np, pytest, torch
from PIL import Image
from torch import nn
from u1nb.explore import Move, draw_look, look_at
from u1nb.study import network

class Tiny(nn.Module):
    "Maps of 4×4 sites, which have too few whole rings for a fit"
    def __init__(self):
        super().__init__()
        self.conv,self.head = nn.Conv2d(3, 4, 8, 8, bias=False),nn.Linear(4, 3)
    def forward(self, x): return self.head(self.conv(x).mean((2,3)))

def tensor(img): return torch.from_numpy(np.array(img.resize((32,32)))).permute(2,0,1)/255
torch.manual_seed(0)
NET = network(Tiny(), transform=tensor)

def file(color):
    Image.new('RGB', (40,30), color).save(out := io.BytesIO(), 'png')
    return out.getvalue()

def test_few_sites_are_drawn_without_a_fit():
    look = look_at(NET, 'astronaut', move=Move(x=.5))
    assert look.p.shape==(4,4) and not look.fits and look.picture.size==(32,32)
    draw_look(look).savefig(io.BytesIO(), format='jpeg')

@pytest.mark.parametrize('how,said', [
    (dict(picture=file('red'), layer='head'), "no layer 'head'; there are conv"),
    (dict(picture=b'no picture'), 'this file: not a readable picture'),
    (dict(picture=file('black')), 'no energy for this picture'),
    (dict(picture=file('red'), padding='mirror'), "no padding 'mirror'")])
def test_refusals(how, said):
    with pytest.raises(ValueError, match=said): look_at(NET, **how)
