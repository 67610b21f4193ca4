"Scenes: labels that need no download; and what the summary says beside each claim"
from collections import namedtuple
import numpy as np, pytest
from u1nb import cli
from u1nb.core import rng
from u1nb.data import EMBEDDED, images
from u1nb.extract import Collect, observe
from u1nb.memory import Memory, pixels, pool
from u1nb.models import pretrained
from u1nb.report import PUBLISHED, WHY, headlines, published
from u1nb.rules import RULES

MEMORY,TEST = images('scenes', 'train'),images('scenes')

def test_every_natural_photograph_is_a_class():
    "The photographs of `photos` and one more; none of `spare`, which batch norm sees"
    files = {p.name for p in TEST.pictures.paths}
    assert files-{p.name for p in images('photos', 'as_photographed').pictures.paths}=={'grace_hopper.jpg'}
    assert len(files)==len(TEST.classes)==8 and not files&{p.name for p in images('spare', 'as_photographed').pictures.paths}

def test_no_pixel_is_in_both():
    "Regions of a picture whose pixels are their own numbers: each is in one region of one half"
    from u1nb.data import Image, _region
    import u1nb.data as room
    whole = np.arange(300*203).reshape(203,300)
    img,photo = Image.fromarray(np.stack([whole>>16, whole>>8&255, whole&255], 2).astype(np.uint8)),room._photo
    room._photo = lambda p: img
    try: parts = [[_region(k, ['numbers'], np.zeros(20, int), np.arange(20), right) for k in range(20)] for right in (False,True)]
    finally: room._photo = photo
    left,right = ([(np.asarray(o).astype(int)@[65536,256,1]) for o in half] for half in parts)
    assert sorted(np.concatenate([o.ravel() for o in left+right]).tolist())==list(range(300*203))
    assert max(o.max(initial=0)%300 for o in left)<150 and all((o%300<150).all() for o in left) and all((o%300>=150).all() for o in right)

def test_sets_of_scenes():
    "Two splits, filled evenly, the same whatever the seed; regions are groups of their own"
    assert (len(MEMORY), len(TEST), TEST.split, MEMORY.groups)==(160, 160, 'test', None)
    assert np.bincount(images('scenes', n=24).labels).tolist()==[3]*8 and len(TEST.without(images('scenes', seed=1)))==0
    assert TEST[3][0].size==images('scenes')[3][0].size and np.array_equal(np.asarray(TEST[3][0]), np.asarray(images('scenes', seed=5)[3][0]))
    with pytest.raises(ValueError, match="did you mean 'scenes'"): images('scene')

def test_labelled_claims_ask_scenes():
    "Beside photos, and as a data set of their own, with batch-norm statistics of pictures that are neither"
    def study(data): return cli._study(cli._options(True, dict(data=data)), cli.Path('unused'), ['C6'])
    for s in map(study, ('photos','scenes')):
        assert (s.labelled, s.test.split, s.memory.split, len(s.memory))==('scenes', 'test', 'train', 160)
        assert s.sets.spare.name=='spare' and s.columns['demo'] and len(s.few_memory)==160
    assert study('digits').labelled=='digits' and {'photos','spare','scenes','digits'}==set(EMBEDDED)

def test_a_memory_recognises_scenes():
    "More than raw pixels do, by the margin that C6 asks for; and nothing where its labels are shuffled"
    net,transform = pretrained('mobilenet_v2')
    a,b = MEMORY.few(8),TEST.few(8)
    va,vb = (observe(net, o, 'features', Collect(pooled=pool), transform=transform).pooled['features'] for o in (a,b))
    def accuracy(x, y, z): return float(Memory().add(x, y).score(z, b.labels).accuracy)
    mine,raw = accuracy(va, a.labels, vb),accuracy(pixels(a)[0], a.labels, pixels(b)[0])
    null = np.mean([accuracy(va, rng(s, 'null').permutation(a.labels), vb) for s in range(20)])
    assert mine>.8 and mine-raw>.25 and abs(null-1/8)<.06

Said = namedtuple('Said', 'rule verdict row')
class Line(Said):
    @property
    def claim(self): return self.rule.name

@pytest.mark.parametrize('rule', RULES.values(), ids=lambda r: r.name)
@pytest.mark.parametrize('row', [None, dict(demo=False, data='mine'), *(dict(demo=True, data=d) for d in EMBEDDED)], ids=str)
def test_what_is_said_beside_a_claim(rule, row):
    "README's verdict, alone where it is the same; else with at most six words that say why"
    verdict,cells = PUBLISHED[rule.name]
    assert published(Line(rule, verdict, row))==f'README: {verdict}'
    for mine in {'supported','partly','not supported','inconclusive','crown and brim'}-{verdict}:
        text = published(Line(rule, mine, row))
        said,why = text.split('; ')
        assert said==f'README: {verdict}' and 0<len(why.split())<=6 and len(text)<97
    assert len(WHY)==len(EMBEDDED)
